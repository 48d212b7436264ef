//! Reads safetensors under Hugging Face's names, one tensor at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata};
use serde_json::Value;

use super::{CONFIG, Content, Files, INDEX, POOLING, is_weights, quantized, small};
use crate::error::{Error, ErrorCode, Result};
use crate::kernels::Kernels;
use crate::nn::{DecoderConfig, Encoder, EncoderConfig, LanguageDecoder, ParameterSpec, Values};

pub(super) fn broken(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::ModelIntegrity, message)
}

/// The safetensors files, by name.
pub(super) fn shards(files: &Files) -> impl Iterator<Item = (&String, &Content)> {
    files.iter().filter(|(name, _)| is_weights(name) && name.starts_with("model"))
}

/// A tensor of a file, whose bytes are read when they are asked for.
pub(super) struct Stored<'a> {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    content: &'a Content,
    start: u64,
    length: usize,
}

impl<'a> Stored<'a> {
    /// Of the whole content.
    #[cfg(test)]
    pub(super) fn new(dtype: Dtype, shape: &[usize], content: &'a Content) -> Self {
        Self { dtype, shape: shape.to_vec(), content, start: 0, length: content.len() as usize }
    }

    /// Some of its bytes.
    pub(super) fn part(&self, start: usize, length: usize) -> Result<Cow<'a, [u8]>> {
        self.content.part(self.start + start as u64, length)
    }

    pub(super) fn data(&self) -> Result<Cow<'a, [u8]>> {
        self.content.part(self.start, self.length)
    }
}

type Tensors<'a> = BTreeMap<String, Stored<'a>>;

/// The configuration of a folder.
pub(crate) fn read_config(files: &Files) -> Result<DecoderConfig> {
    DecoderConfig::from_json(text(files, CONFIG)?)
}

fn text<'a>(files: &'a Files, name: &str) -> Result<&'a str> {
    let bytes = small(files, name).ok_or_else(|| broken(format!("{name} is missing")))?;
    std::str::from_utf8(bytes).map_err(|cause| broken(format!("{name} is not text")).with_source(cause))
}

/// A model whose floats have up to so many bytes is unpacked where it is loaded: products of floats are faster
/// where the caches hold them, and there is room.
const SMALL: usize = 64 << 20;

/// Builds the decoder that `config.json` and the safetensors files describe, one tensor after the other; what
/// lies there in few bits stays so in memory, but for a small model. A tensor that is
/// missing, left over or of a wrong shape is `MODEL_INTEGRITY` and named.
pub fn read_decoder<B: Kernels>(files: &Files, device: &B::Device) -> Result<LanguageDecoder<B>> {
    let config = read_config(files)?;
    let floats: usize = config.parameters().iter().map(|spec| 4 * spec.shape.iter().product::<usize>()).sum();
    let mut tensors = tensors(files)?;
    let decoder = LanguageDecoder::from_parameters(&config, device, |spec| {
        let values = take(&mut tensors, spec)?;
        remove_copies(&config, spec, &values, &mut tensors)?;
        Ok(if floats <= SMALL { Values::Full(values.into_floats()) } else { values })
    })?;
    none_is_left(&tensors)?;
    Ok(decoder)
}

/// Builds the sentence encoder of a folder in the layout of Sentence Transformers. Its pooler, which
/// sentence embeddings do not use, and its table of positions may be there.
pub fn read_encoder<B: Kernels>(files: &Files, device: &B::Device) -> Result<Encoder<B>> {
    let config = EncoderConfig::from_json(text(files, CONFIG)?, small(files, POOLING))?;
    let mut tensors = tensors(files)?;
    for unused in ["pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"] {
        tensors.remove(unused);
    }
    let encoder = Encoder::from_parameters(&config, device, |spec| take(&mut tensors, spec))?;
    none_is_left(&tensors)?;
    Ok(encoder)
}

/// Every parameter of `config`, in its order, as f32.
pub fn read_weights(config: &DecoderConfig, files: &Files) -> Result<Vec<(ParameterSpec, Vec<f32>)>> {
    let mut weights = Vec::new();
    each_weight(config, files, |spec, values| {
        weights.push((spec.clone(), values));
        Ok(())
    })?;
    Ok(weights)
}

/// One parameter after the other.
pub(super) fn each_weight(
    config: &DecoderConfig,
    files: &Files,
    mut hear: impl FnMut(&ParameterSpec, Vec<f32>) -> Result<()>,
) -> Result<()> {
    let mut tensors = tensors(files)?;
    for spec in config.parameters() {
        let values = take(&mut tensors, &spec)?;
        remove_copies(config, &spec, &values, &mut tensors)?;
        hear(&spec, values.into_floats())?;
    }
    none_is_left(&tensors)
}

/// One parameter, of which is known that it is there.
pub(super) fn read_weight(spec: &ParameterSpec, files: &Files) -> Result<Vec<f32>> {
    take(&mut tensors(files)?, spec).map(Values::into_floats)
}

/// Some tools write out a second time what is tied: it must be the same.
fn remove_copies(
    config: &DecoderConfig,
    spec: &ParameterSpec,
    values: &Values,
    tensors: &mut Tensors<'_>,
) -> Result<()> {
    for &(copy, name) in config.tied_copies().iter().filter(|(_, name)| *name == spec.name) {
        if tensors.contains_key(copy) {
            let own = ParameterSpec { name: copy.to_owned(), ..spec.clone() };
            if take(tensors, &own)?.into_floats() != values.clone().into_floats() {
                return Err(broken(format!("{copy} is not {name}, but config.json says that they are tied")));
            }
        }
    }
    Ok(())
}

/// All tensors of all files.
fn tensors(files: &Files) -> Result<Tensors<'_>> {
    check_index(files)?;
    let mut tensors = BTreeMap::new();
    for (file, content) in shards(files) {
        let (header, data) = header(content)
            .ok_or_else(|| broken(format!("{file} is not a safetensors file, or not all of it is there")))?;
        for (name, info) in header.tensors() {
            let (start, end) = info.data_offsets;
            let (shape, start, length) = (info.shape.clone(), data + start as u64, end - start);
            let stored = Stored { dtype: info.dtype, shape, content, start, length };
            if tensors.insert(name.clone(), stored).is_some() {
                return Err(broken(format!("the tensor {name} is there twice")));
            }
        }
    }
    if tensors.is_empty() {
        return Err(broken("there is no safetensors file with tensors"));
    }
    Ok(tensors)
}

/// What a safetensors file begins with, and where the tensors begin: its length, the header, and nothing behind
/// the last tensor. The types' sizes are checked with the header.
fn header(content: &Content) -> Option<(Metadata, u64)> {
    let length = content.part(0, 8).ok()?;
    let length = u64::from_le_bytes(length.as_ref().try_into().ok()?);
    let header = content.part(8, usize::try_from(length).ok()?).ok()?;
    let header: Metadata = serde_json::from_slice(&header).ok()?;
    let end = header.tensors().values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
    (8 + length + end == content.len()).then_some((header, 8 + length))
}

/// The values of one tensor, which must have the shape that is wanted.
fn take(tensors: &mut Tensors<'_>, spec: &ParameterSpec) -> Result<Values> {
    let mut remove =
        |name: &str| tensors.remove(name).ok_or_else(|| broken(format!("the tensor {name} is missing")));
    let view = remove(&spec.name)?;
    if view.dtype == Dtype::U8 {
        let scales = remove(&format!("{}{}", spec.name, quantized::SCALES))?;
        return quantized::read(spec, &view, &scales).map(Values::Packed);
    }
    if view.shape != spec.shape {
        let (is, wanted) = (&view.shape, &spec.shape);
        return Err(broken(format!("the tensor {} has the shape {is:?} instead of {wanted:?}", spec.name)));
    }
    to_f32(&spec.name, &view).map(Values::Full)
}

fn none_is_left(tensors: &Tensors<'_>) -> Result<()> {
    match tensors.keys().next() {
        Some(name) => Err(broken(format!("the tensor {name} is left over: the model has no place for it"))),
        None => Ok(()),
    }
}

/// Where the weights lie in several files, all that the index names must be there.
fn check_index(files: &Files) -> Result<()> {
    let Some(bytes) = small(files, INDEX) else { return Ok(()) };
    let index: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let names: Option<Vec<&str>> =
        index["weight_map"].as_object().and_then(|map| map.values().map(Value::as_str).collect());
    let names = names.ok_or_else(|| broken(format!("{INDEX} does not map tensors to files")))?;
    match names.into_iter().find(|name| !files.contains_key(*name)) {
        Some(name) => Err(broken(format!("{name} is missing, which {INDEX} names"))),
        None => Ok(()),
    }
}

pub(super) fn to_f32(name: &str, stored: &Stored) -> Result<Vec<f32>> {
    let data = stored.data()?;
    let pair = |bytes: &[u8]| [bytes[0], bytes[1]];
    let values: Vec<f32> = match stored.dtype {
        Dtype::F32 => data
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect(),
        Dtype::F16 => data.chunks_exact(2).map(|bytes| f16::from_le_bytes(pair(bytes)).to_f32()).collect(),
        Dtype::BF16 => data.chunks_exact(2).map(|bytes| bf16::from_le_bytes(pair(bytes)).to_f32()).collect(),
        other => {
            return Err(Error::new(
                ErrorCode::ModelUnsupported,
                format!("the tensor {name} has the type {other:?}; supported: F32, F16, BF16"),
            ));
        }
    };
    match values.iter().position(|value| !value.is_finite()) {
        Some(place) => Err(broken(format!("the tensor {name} is not finite at place {place}"))),
        None => Ok(values),
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use burn::backend::Flex;
    use burn::backend::flex::FlexDevice;
    use futures_lite::future::block_on;

    use safetensors::tensor::SafeTensors;

    use super::*;
    use crate::checkpoint::{Quantization, WEIGHTS, write_decoder, write_weights};
    use crate::nn::Family;

    /// Names, shapes and values.
    type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

    fn bert() -> DecoderConfig {
        DecoderConfig {
            family: Family::Bert,
            num_key_value_heads: 2,
            max_position_embeddings: 16,
            block_token_id: Some(4),
            ..tiny(true)
        }
    }

    fn tiny(tie: bool) -> DecoderConfig {
        DecoderConfig {
            vocab_size: 20,
            hidden_size: 8,
            intermediate_size: 12,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 4,
            tie_word_embeddings: tie,
            ..DecoderConfig::nano()
        }
    }

    fn written(config: &DecoderConfig) -> Files {
        let decoder = LanguageDecoder::<Flex>::init(config, 3, &FlexDevice);
        block_on(write_decoder(&decoder, Quantization::F32)).unwrap()
    }

    fn error(files: &Files) -> Error {
        read_decoder::<Flex>(files, &FlexDevice).unwrap_err()
    }

    /// The files with one tensor renamed, reshaped or removed.
    fn changed(config: &DecoderConfig, change: impl Fn(&mut Tensors)) -> Files {
        let mut files = written(config);
        let mut tensors: Vec<_> = read_weights(config, &files)
            .unwrap()
            .into_iter()
            .map(|(spec, values)| (spec.name, spec.shape, values))
            .collect();
        change(&mut tensors);
        let views =
            tensors.iter().map(|(name, shape, values)| (&**name, &shape[..], &values[..], Quantization::F32));
        files.insert(WEIGHTS.to_owned(), write_weights(views).unwrap().into());
        files
    }

    #[test]
    fn what_was_written_is_read_bit_for_bit() {
        for config in [tiny(true), tiny(false), bert()] {
            let files = written(&config);
            let decoder = read_decoder::<Flex>(&files, &FlexDevice).unwrap();
            assert_eq!(decoder.config(), &config);
            assert_eq!(block_on(write_decoder(&decoder, Quantization::F32)).unwrap(), files);
            let half = block_on(write_decoder(&decoder, Quantization::F16)).unwrap();
            let embedding = |files: &Files| read_weights(&config, files).unwrap().swap_remove(0).1;
            let (halved, whole) = (embedding(&half), embedding(&files));
            let difference = halved.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(difference > 0.0 && difference < 1e-4, "{difference}");
        }
    }

    #[test]
    fn quantised_matrices_are_near_and_vectors_stay_half() {
        let decoder = LanguageDecoder::<Flex>::init(&tiny(false), 3, &FlexDevice);
        let exact = block_on(decoder.to_parameters()).unwrap();
        for (quantization, share) in
            [(Quantization::Q8, 0.005), (Quantization::Q6, 0.02), (Quantization::Q4, 0.08)]
        {
            let files = block_on(write_decoder(&decoder, quantization)).unwrap();
            for ((spec, values), (_, own)) in exact.iter().zip(read_weights(&tiny(false), &files).unwrap()) {
                let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
                let error = values.iter().zip(&own).map(|(value, own)| (value - own).powi(2)).sum::<f32>();
                let error = (error / values.len() as f32).sqrt();
                assert!(error <= share * largest, "{quantization} {}: {error} of {largest}", spec.name);
            }
            let file = SafeTensors::deserialize(small(&files, WEIGHTS).unwrap()).unwrap();
            let embedding = file.tensor("model.embed_tokens.weight").unwrap();
            assert_eq!(
                (embedding.dtype(), embedding.shape()),
                (Dtype::U8, &[20, quantization.bits().unwrap()][..])
            );
            assert_eq!(file.tensor("model.embed_tokens.weight.scales").unwrap().shape(), [20, 1]);
            assert_eq!(file.tensor("model.norm.weight").unwrap().dtype(), Dtype::F16);
        }
    }

    #[test]
    fn what_half_precision_cannot_hold_is_wide_or_refused() {
        let written = |shape: &[usize], quantization| {
            let file = write_weights([("w", shape, &[7e4_f32, 0.0, 0.0, 1.0][..], quantization)])?;
            Ok::<_, Error>(SafeTensors::deserialize(&file).unwrap().tensor("w").unwrap().dtype())
        };
        assert_eq!(written(&[4], Quantization::Q4).unwrap(), Dtype::F32);
        assert_eq!(written(&[2, 2], Quantization::Q4).unwrap(), Dtype::F32);
        for (shape, quantization) in [(&[1, 4][..], Quantization::Q4), (&[4], Quantization::F16)] {
            let error = written(shape, quantization).unwrap_err();
            assert_eq!(error.message(), "70000 of w does not fit into 16 bits: pack as f32");
        }
    }

    #[test]
    fn a_quantised_matrix_without_its_scales_is_named() {
        let files = block_on(write_decoder(
            &LanguageDecoder::<Flex>::init(&tiny(true), 3, &FlexDevice),
            Quantization::Q6,
        ))
        .unwrap();
        for (name, message) in [
            (
                "model.layers.0.mlp.up_proj.weight.scales",
                "the tensor model.layers.0.mlp.up_proj.weight.scales is missing",
            ),
            ("model.layers.0.mlp.up_proj.weight", "the tensor model.layers.0.mlp.up_proj.weight is missing"),
        ] {
            let file = SafeTensors::deserialize(small(&files, WEIGHTS).unwrap()).unwrap();
            let left = file.tensors().into_iter().filter(|(own, _)| own != name);
            let bytes = safetensors::serialize(left, None).unwrap();
            let mut files = files.clone();
            files.insert(WEIGHTS.to_owned(), bytes.into());
            let error = error(&files);
            assert_eq!((error.code(), error.message()), (ErrorCode::ModelIntegrity, message));
        }
    }

    #[test]
    fn a_tensor_that_does_not_fit_is_named() {
        let changed = |change: &dyn Fn(&mut Tensors)| changed(&tiny(true), change);
        let missing = error(&changed(&|tensors| drop(tensors.remove(3))));
        assert_eq!(missing.message(), "the tensor model.layers.0.self_attn.q_proj.bias is missing");
        let extra = error(&changed(&|tensors| tensors.push(("extra.weight".into(), vec![1], vec![0.0]))));
        assert_eq!(extra.message(), "the tensor extra.weight is left over: the model has no place for it");
        let shape = error(&changed(&|tensors| tensors[0].1 = vec![8, 20]));
        assert_eq!(
            shape.message(),
            "the tensor model.embed_tokens.weight has the shape [8, 20] instead of [20, 8]"
        );
        let infinite = error(&changed(&|tensors| tensors[0].2[7] = f32::NAN));
        assert_eq!(infinite.message(), "the tensor model.embed_tokens.weight is not finite at place 7");
        let head =
            error(&changed(&|tensors| tensors.push(("lm_head.weight".into(), vec![20, 8], vec![0.0; 160]))));
        assert!(head.message().contains("tied"), "{head}");
        for error in [missing, extra, shape, infinite, head] {
            assert_eq!(error.code(), ErrorCode::ModelIntegrity);
        }
    }

    #[test]
    fn a_tensor_of_bert_that_does_not_fit_is_named() {
        let changed = |change: &dyn Fn(&mut Tensors)| changed(&bert(), change);
        let missing = error(&changed(&|tensors| drop(tensors.pop())));
        assert_eq!(missing.message(), "the tensor cls.predictions.bias is missing");
        let shape = error(&changed(&|tensors| tensors[1].1 = vec![8, 16]));
        assert_eq!(
            shape.message(),
            "the tensor bert.embeddings.position_embeddings.weight has the shape [8, 16] instead of [16, 8]"
        );
        let extra = error(&changed(&|tensors| tensors.push(("bert.pooler.bias".into(), vec![1], vec![0.0]))));
        assert_eq!(
            extra.message(),
            "the tensor bert.pooler.bias is left over: the model has no place for it"
        );
        // The tied head, written out: as it is, and as it is not.
        for (from, to) in bert().tied_copies() {
            let copied = |addend: f32| {
                changed(&|tensors| {
                    let (_, shape, values) = tensors.iter().find(|(name, ..)| name == to).unwrap().clone();
                    let values = values.iter().map(|value| value + addend).collect();
                    tensors.push(((*from).to_owned(), shape, values));
                })
            };
            assert!(read_decoder::<Flex>(&copied(0.0), &FlexDevice).is_ok());
            let tied = error(&copied(1.0));
            assert_eq!(
                tied.message(),
                format!("{from} is not {to}, but config.json says that they are tied")
            );
            assert_eq!(tied.code(), ErrorCode::ModelIntegrity);
        }
        for error in [missing, shape, extra] {
            assert_eq!(error.code(), ErrorCode::ModelIntegrity);
        }
    }

    #[test]
    fn a_file_that_is_cut_or_absent_is_named() {
        let mut files = written(&tiny(true));
        let bytes = small(&files, WEIGHTS).unwrap()[..100].to_vec();
        files.insert(WEIGHTS.to_owned(), bytes.into());
        assert_eq!(
            error(&files).message(),
            "model.safetensors is not a safetensors file, or not all of it is there"
        );
        files.remove(WEIGHTS);
        assert_eq!(error(&files).message(), "there is no safetensors file with tensors");
        files.remove(CONFIG);
        assert_eq!(error(&files).message(), "config.json is missing");
    }
}
