//! The angles of the rotary position embedding (Su et al., "`RoFormer`", 2021).

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::DecoderConfig;
use crate::kernels::Kernels;

/// How Llama 3.1 stretches the wavelengths for contexts longer than it was first trained on: short
/// ones stay, long ones grow `factor` times, those between in part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Llama3Scaling {
    /// How many times the longest wavelengths grow.
    pub factor: f32,
    /// Wavelengths above `original_max_position_embeddings` divided by this grow in full.
    pub low_freq_factor: f32,
    /// Wavelengths below `original_max_position_embeddings` divided by this stay.
    pub high_freq_factor: f32,
    /// The context of the first training.
    pub original_max_position_embeddings: usize,
}

impl Llama3Scaling {
    /// A frequency, in radians a position, stretched.
    fn apply(&self, frequency: f32) -> f32 {
        let Self { factor, low_freq_factor: low, high_freq_factor: high, .. } = *self;
        let context = self.original_max_position_embeddings as f32;
        let wavelength = 2.0 * std::f32::consts::PI / frequency;
        if wavelength < context / high {
            frequency
        } else if wavelength > context / low {
            frequency / factor
        } else {
            let smooth = (context / wavelength - low) / (high - low);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        }
    }
}

/// Cosines and sines of the positions of one forward pass, `[sequence, head_dim / 2]` each.
#[derive(Clone, Debug)]
pub struct Rotary<B: Backend> {
    cos: Tensor<B, 2>,
    sin: Tensor<B, 2>,
    /// Whether each is of a row, and not of a place in the sequence.
    by_row: bool,
}

impl<B: Backend> Rotary<B> {
    /// The positions `start..start + length`.
    pub fn new(config: &DecoderConfig, start: usize, length: usize, device: &B::Device) -> Self {
        Self::at(config, start..start + length, false, device)
    }

    /// Tokens of one row, at these positions.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn of_places(config: &DecoderConfig, positions: &[usize], device: &B::Device) -> Self {
        Self::at(config, positions.iter().copied(), false, device)
    }

    /// One token a row, at these positions.
    pub fn of_rows(config: &DecoderConfig, positions: &[usize], device: &B::Device) -> Self {
        Self::at(config, positions.iter().copied(), true, device)
    }

    fn at(
        config: &DecoderConfig,
        positions: impl ExactSizeIterator<Item = usize>,
        by_row: bool,
        device: &B::Device,
    ) -> Self {
        let frequencies = frequencies(config);
        let shape = [positions.len(), frequencies.len()];
        let angles: Vec<f32> = positions
            .flat_map(|position| frequencies.iter().map(move |frequency| position as f32 * frequency))
            .collect();
        let tensor = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, shape), device);
        Self {
            cos: tensor(angles.iter().map(|angle| angle.cos()).collect()),
            sin: tensor(angles.iter().map(|angle| angle.sin()).collect()),
            by_row,
        }
    }
}

impl<B: Kernels> Rotary<B> {
    /// Turns queries and keys, `[batch, heads, sequence, head_dim]`, and puts keys and values into their buffers.
    pub(super) fn apply_into_cache(
        &self,
        projected: [Tensor<B, 4>; 3],
        buffers: [Tensor<B, 4>; 2],
        start: usize,
    ) -> [Tensor<B, 4>; 3] {
        B::rotate_into_cache(projected, [self.cos.clone(), self.sin.clone()], self.by_row, buffers, start)
    }

    /// Turns queries or keys, `[batch, heads, sequence, head_dim]`.
    pub(crate) fn apply(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let turn = |x| B::rotary(x, self.cos.clone(), self.sin.clone());
        if self.by_row { turn(x.swap_dims(0, 2)).swap_dims(0, 2) } else { turn(x) }
    }
}

fn frequencies(config: &DecoderConfig) -> Vec<f32> {
    let plain = |i: usize| 1.0 / (config.rope_theta as f32).powf((2 * i) as f32 / config.head_dim as f32);
    let scaled = |i: usize| match &config.rope_scaling {
        Some(scaling) => scaling.apply(plain(i)),
        None => plain(i),
    };
    (0..config.head_dim / 2).map(scaled).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places and frequencies: none stretched, four in part, two in full.
    const REFERENCE: [(usize, f32); 8] = [
        (0, 1.0),
        (10, 0.016_560_44),
        (14, 0.003_211_446),
        (15, 0.001_290_548),
        (16, 4.295_567e-4),
        (17, 9.708_286e-5),
        (20, 8.570_256e-6),
        (31, 9.418_306e-8),
    ];

    /// transformers 5.23, `ROPE_INIT_FUNCTIONS["llama3"]`, of Llama 3.2's head of 64 and factor 32.
    #[test]
    fn wavelengths_are_stretched_as_transformers_does() {
        let config = DecoderConfig {
            head_dim: 64,
            rope_theta: 500_000.0,
            rope_scaling: Some(Llama3Scaling {
                factor: 32.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192,
            }),
            ..DecoderConfig::nano()
        };
        let own = frequencies(&config);
        for (place, wanted) in REFERENCE {
            assert!((own[place] / wanted - 1.0).abs() < 1e-5, "{place}: {} {wanted}", own[place]);
        }
    }
}
