//! Models of well-known shapes with random weights: speed does not depend on what they say.

use crate::error::{Error, ErrorCode, Result};
use crate::kernels::{Kernels, PackedMatrix, row_groups, row_words};
use crate::nn::{DecoderConfig, Family, LanguageDecoder, Llama3Scaling, ParameterSpec, Values};
use crate::random::keyed;

/// Name, family, layers, width, heads, key-value heads, width of a head, width within, vocabulary.
type Shape = (&'static str, Family, [usize; 7]);

const SHAPES: [Shape; 6] = [
    ("nano", Family::Qwen2, [8, 256, 4, 2, 64, 512, 11_264]),
    ("minilm-prefix", Family::Bert, [6, 384, 12, 12, 32, 1536, 11_264]),
    ("qwen2.5-0.5b", Family::Qwen2, [24, 896, 14, 2, 64, 4864, 151_936]),
    ("qwen2.5-1.5b", Family::Qwen2, [28, 1536, 12, 2, 128, 8960, 151_936]),
    ("qwen3-0.6b", Family::Qwen3, [28, 1024, 16, 8, 128, 3072, 151_936]),
    ("llama-3.2-1b", Family::Llama, [16, 2048, 32, 8, 64, 8192, 128_256]),
];

/// Between the smallest and the largest of random weights.
const WIDTH: f32 = 0.07;

/// The configuration of a shape; an unknown name is `MODEL_UNSUPPORTED`, with all that are known.
pub fn shape(name: &str) -> Result<DecoderConfig> {
    let Some((_, family, sizes)) = SHAPES.iter().find(|(own, ..)| *own == name) else {
        let known = SHAPES.map(|(name, ..)| name).join(", ");
        return Err(Error::new(
            ErrorCode::ModelUnsupported,
            format!("the shape {name:?} is not known; known: {known}"),
        ));
    };
    let [layers, width, heads, kv_heads, head_dim, inner, vocabulary] = *sizes;
    Ok(DecoderConfig {
        family: *family,
        vocab_size: vocabulary,
        hidden_size: width,
        intermediate_size: inner,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim,
        max_position_embeddings: 4096,
        rope_scaling: (*family == Family::Llama).then_some(Llama3Scaling {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        }),
        ..DecoderConfig::nano()
    })
}

/// A decoder of that configuration, its matrices in floats or in 4 or 8 bits. Its weights are uniform around 0,
/// one tensor at a time.
pub fn random_decoder<B: Kernels>(
    config: &DecoderConfig,
    bits: Option<usize>,
    seed: u64,
    device: &B::Device,
) -> Result<LanguageDecoder<B>> {
    LanguageDecoder::from_parameters(config, device, |spec| {
        if let (Some(bits), [rows, columns]) = (bits, &spec.shape[..]) {
            let words = draws(spec, seed).take(rows * row_words(*columns, bits));
            let words = words.map(|drawn| (drawn >> 32) as i32).collect();
            let scales = vec![WIDTH / (1 << bits) as f32; rows * row_groups(*columns)];
            return Ok(Values::Packed(PackedMatrix { shape: [*rows, *columns], bits, words, scales }));
        }
        Ok(Values::Full(random_values(spec, seed)))
    })
}

/// Values of a parameter, uniform around 0.
pub fn random_values(spec: &ParameterSpec, seed: u64) -> Vec<f32> {
    let uniform = |drawn: u64| ((drawn >> 40) as f32 / (1 << 24) as f32 - 0.5) * WIDTH;
    draws(spec, seed).take(spec.shape.iter().product()).map(uniform).collect()
}

/// Marsaglia's xorshift: a billion numbers of the crate's own generator would take minutes.
fn draws(spec: &ParameterSpec, seed: u64) -> impl Iterator<Item = u64> {
    let mut state = keyed(seed, &spec.name.bytes().map(u64::from).collect::<Vec<_>>());
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_valid_and_an_unknown_one_names_them() {
        for (name, ..) in SHAPES {
            shape(name).unwrap().validate().unwrap();
        }
        let error = shape("gpt-9").unwrap_err();
        assert!(error.message().contains("gpt-9") && error.message().contains("qwen2.5-0.5b"), "{error}");
        // Qwen2.5-0.5B has 494 million parameters, the head being the embedding.
        let parameters: usize = shape("qwen2.5-0.5b")
            .unwrap()
            .parameters()
            .iter()
            .map(|p| p.shape.iter().product::<usize>())
            .sum();
        assert_eq!(parameters, 494_032_768);
    }
}
