//! Models of well-known shapes with random weights: speed does not depend on what they say.

use half::{bf16, f16};

use crate::error::{Error, ErrorCode, Result};
use crate::kernels::{Format, Kernels, PackedMatrix, PackedRows};
use crate::nn::{
    DecoderConfig, Family, LanguageDecoder, Llama3Scaling, ParameterKind, ParameterSpec, Values,
};
use crate::random::keyed;

/// Name, family, layers, width, heads, key-value heads, width of a head, width within, vocabulary.
type Shape = (&'static str, Family, [usize; 7]);

const SHAPES: [Shape; 7] = [
    ("nano", Family::Qwen2, [8, 256, 4, 2, 64, 512, 11_264]),
    ("minilm-prefix", Family::Bert, [6, 384, 12, 12, 32, 1536, 11_264]),
    ("qwen2.5-0.5b", Family::Qwen2, [24, 896, 14, 2, 64, 4864, 151_936]),
    ("qwen2.5-1.5b", Family::Qwen2, [28, 1536, 12, 2, 128, 8960, 151_936]),
    ("qwen2.5-3b", Family::Qwen2, [36, 2048, 16, 2, 128, 11_008, 151_936]),
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

/// A decoder of that configuration. Its weights are uniform around 0, one tensor at a time; they lie in memory as those
/// of a folder that was packed so: floats as they fit, the embedding beside 4 bits in 8.
pub fn random_decoder<B: Kernels>(
    config: &DecoderConfig,
    format: Format,
    seed: u64,
    device: &B::Device,
) -> Result<LanguageDecoder<B>> {
    LanguageDecoder::from_parameters(config, device, |spec| {
        let &[rows, columns] = &spec.shape[..] else { return Ok(random_values(spec, seed).into()) };
        let is_wide = spec.kind == ParameterKind::Embedding && format == Format::Q4;
        let format = if is_wide { Format::Q8 } else { format };
        let words = draws(spec, seed).take(rows * format.row_words(columns));
        let words = words.map(|drawn| word(drawn, format)).collect();
        let scales = vec![WIDTH / (1 << format.bits().min(8)) as f32; rows * format.row_scales(columns)];
        let values = PackedMatrix::new([rows, columns], format, PackedRows { words, scales });
        let values = Values::Packed(values);
        if format == Format::F32 { values.of_model(config) } else { Ok(values) }
    })
}

/// Integers of any size; one or two floats around 0.
fn word(drawn: u64, format: Format) -> i32 {
    let [low, high] = [drawn >> 32, drawn >> 48].map(|drawn| uniform(drawn & 0xffff, 16));
    let (low, high) = match format {
        Format::Q4 | Format::Q8 => return (drawn >> 32) as i32,
        Format::F32 => return uniform(drawn >> 40, 24).to_bits().cast_signed(),
        Format::F16 => (f16::from_f32(low).to_bits(), f16::from_f32(high).to_bits()),
        Format::BF16 => (bf16::from_f32(low).to_bits(), bf16::from_f32(high).to_bits()),
    };
    (u32::from(high) << 16 | u32::from(low)).cast_signed()
}

/// Of so many random bits a number around 0.
fn uniform(drawn: u64, bits: u32) -> f32 {
    (drawn as f32 / (1_u64 << bits) as f32 - 0.5) * WIDTH
}

/// Values of a parameter, uniform around 0.
pub fn random_values(spec: &ParameterSpec, seed: u64) -> Vec<f32> {
    draws(spec, seed).take(spec.shape.iter().product()).map(|drawn| uniform(drawn >> 40, 24)).collect()
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
