//! Reads safetensors under Hugging Face's names, one tensor at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata};
use serde_json::Value;

use super::{CONFIG, Content, Files, INDEX, POOLING, is_weights, quantized, small};
use crate::error::{Error, ErrorCode, Result};
use crate::kernels::{Format, Kernels, PackedMatrix, PackedRows};
use crate::nn::{DecoderConfig, Encoder, EncoderConfig, LanguageDecoder, ParameterSpec, Values};

pub(super) fn broken(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::ModelIntegrity, message)
}

/// The safetensors files, by name.
pub(super) fn shards(files: &Files) -> impl Iterator<Item = (&String, &Content)> {
    files.iter().filter(|(name, _)| is_weights(name) && name.starts_with("model"))
}

/// A tensor of a file, whose bytes are read when they are asked for.
#[derive(Clone)]
pub(super) struct Stored<'a> {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    content: &'a Content,
    start: u64,
}

impl<'a> Stored<'a> {
    /// Of the whole content.
    #[cfg(test)]
    pub(super) fn new(dtype: Dtype, shape: &[usize], content: &'a Content) -> Self {
        Self { dtype, shape: shape.to_vec(), content, start: 0 }
    }

    /// Some of its bytes.
    pub(super) fn part(&self, start: usize, length: usize) -> Result<Cow<'a, [u8]>> {
        self.content.part(self.start + start as u64, length)
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

/// Builds the decoder that `config.json` and the safetensors files describe, one tensor after the other; what
/// lies there in few bits stays so in memory, but for a small model. A tensor that is
/// missing, left over or of a wrong shape is `MODEL_INTEGRITY` and named.
pub fn read_decoder<B: Kernels>(files: &Files, device: &B::Device) -> Result<LanguageDecoder<B>> {
    let config = read_config(files)?;
    let mut tensors = tensors(files)?;
    let decoder = LanguageDecoder::from_parameters(&config, device, |spec| {
        take(&mut tensors, &config, spec)?.of_model(&config)
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
    let encoder = Encoder::from_parameters(&config, device, |spec| take_own(&mut tensors, spec))?;
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
        let values = take(&mut tensors, config, &spec)?;
        hear(&spec, values.into_floats()?)?;
    }
    none_is_left(&tensors)
}

/// One parameter, of which is known that it is there.
pub(super) fn read_weight(spec: &ParameterSpec, files: &Files) -> Result<Vec<f32>> {
    read(&tensors(files)?, spec)?.into_floats()
}

/// All tensors of all files.
fn tensors(files: &Files) -> Result<Tensors<'_>> {
    check_index(files)?;
    let mut tensors = BTreeMap::new();
    for (file, content) in shards(files) {
        let (header, data) = header(content)
            .ok_or_else(|| broken(format!("{file} is not a safetensors file, or not all of it is there")))?;
        for (name, info) in header.tensors() {
            let start = data + info.data_offsets.0 as u64;
            let stored = Stored { dtype: info.dtype, shape: info.shape.clone(), content, start };
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

/// The values of one tensor, which must have the shape that is wanted. Some tools write out a second time what is
/// tied: it must be the same.
fn take<'a>(tensors: &mut Tensors<'a>, config: &DecoderConfig, spec: &ParameterSpec) -> Result<Values<'a>> {
    for &(copy, name) in config.tied_copies().iter().filter(|(_, name)| *name == spec.name) {
        if tensors.contains_key(copy) {
            let own = ParameterSpec { name: copy.to_owned(), ..spec.clone() };
            if take_own(tensors, &own)?.into_floats()? != read(tensors, spec)?.into_floats()? {
                return Err(broken(format!("{copy} is not {name}, but config.json says that they are tied")));
            }
        }
    }
    take_own(tensors, spec)
}

fn take_own<'a>(tensors: &mut Tensors<'a>, spec: &ParameterSpec) -> Result<Values<'a>> {
    let values = read(tensors, spec)?;
    tensors.remove(&spec.name);
    if let Values::Packed(PackedMatrix { format: Format::Q4 | Format::Q8, .. }) = values {
        tensors.remove(&scales_of(spec));
    }
    Ok(values)
}

fn scales_of(spec: &ParameterSpec) -> String {
    format!("{}{}", spec.name, quantized::SCALES)
}

/// A matrix stays in the bits that it has.
fn read<'a>(tensors: &Tensors<'a>, spec: &ParameterSpec) -> Result<Values<'a>> {
    let find = |name: &str| {
        tensors.get(name).cloned().ok_or_else(|| broken(format!("the tensor {name} is missing")))
    };
    let stored = find(&spec.name)?;
    if stored.dtype == Dtype::U8 {
        return quantized::read(spec, stored, find(&scales_of(spec))?).map(Values::Packed);
    }
    if stored.shape != spec.shape {
        let (is, wanted) = (&stored.shape, &spec.shape);
        return Err(broken(format!("the tensor {} has the shape {is:?} instead of {wanted:?}", spec.name)));
    }
    match (stored.dtype, &spec.shape[..]) {
        (Dtype::F16, &[rows, columns]) => Ok(floats(spec, stored, [rows, columns], Format::F16)),
        (Dtype::BF16, &[rows, columns]) => Ok(floats(spec, stored, [rows, columns], Format::BF16)),
        (Dtype::F32, &[rows, columns]) => Ok(floats(spec, stored, [rows, columns], Format::F32)),
        (_, shape) => to_f32(&spec.name, &stored, 0, shape.iter().product()).map(Values::Full),
    }
}

/// A matrix of floats.
fn floats<'a>(spec: &ParameterSpec, stored: Stored<'a>, shape: [usize; 2], format: Format) -> Values<'a> {
    let ([rows, columns], name) = (shape, spec.name.clone());
    let width = columns * format.bits() / 8;
    let rows = quantized::pieces(rows, width).map(move |(first, count)| {
        let bytes = stored.part(first * width, count * width)?;
        let lost = match format {
            Format::F32 => bytes.as_chunks().0.iter().position(|code| !f32::from_le_bytes(*code).is_finite()),
            Format::BF16 => {
                bytes.as_chunks().0.iter().position(|code| !bf16::from_le_bytes(*code).is_finite())
            }
            _ => bytes.as_chunks().0.iter().position(|code| !f16::from_le_bytes(*code).is_finite()),
        };
        if let Some(place) = lost {
            return Err(not_finite(&name, first * columns + place));
        }
        let mut words = Vec::with_capacity(count * format.row_words(columns));
        quantized::add_whole_words(&bytes, width, &mut words);
        Ok(PackedRows { words, scales: Vec::new() })
    });
    Values::Packed(PackedMatrix { shape, format, rows: Box::new(rows) })
}

fn not_finite(name: &str, place: usize) -> Error {
    broken(format!("the tensor {name} is not finite at place {place}"))
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

/// Values from place `first` on.
pub(super) fn to_f32(name: &str, stored: &Stored<'_>, first: usize, count: usize) -> Result<Vec<f32>> {
    let part = |size: usize| stored.part(first * size, count * size);
    let values: Vec<f32> = match stored.dtype {
        Dtype::F32 => part(4)?.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::F16 => {
            part(2)?.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()
        }
        Dtype::BF16 => {
            part(2)?.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect()
        }
        other => {
            return Err(Error::new(
                ErrorCode::ModelUnsupported,
                format!("the tensor {name} has the type {other:?}; supported: F32, F16, BF16"),
            ));
        }
    };
    match values.iter().position(|value| !value.is_finite()) {
        Some(place) => Err(not_finite(name, first + place)),
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
    use crate::nn::{Family, ParameterKind};

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
    fn a_matrix_of_floats_stays_what_it_is() {
        // More than a piece, and rows that do not end with a word.
        let (rows, columns) = (60_000, 11);
        let spec =
            ParameterSpec { name: "w".into(), shape: vec![rows, columns], kind: ParameterKind::Projection };
        let values: Vec<f32> = (0..rows * columns).map(|place| (place % 509) as f32 - 254.0).collect();
        let half: Vec<u8> = values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        let upper: Vec<u8> = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
        let whole: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        for (dtype, bytes, format) in [
            (Dtype::F16, half, Format::F16),
            (Dtype::BF16, upper, Format::BF16),
            (Dtype::F32, whole, Format::F32),
        ] {
            let read = |bytes: Vec<u8>| {
                let content = Content::from(bytes);
                let stored = Stored::new(dtype, &spec.shape, &content);
                match read(&[("w".to_owned(), stored)].into(), &spec) {
                    Ok(Values::Packed(matrix)) => Ok((matrix.format, matrix.values()?)),
                    _ => panic!("it is not packed"),
                }
            };
            assert_eq!(read(bytes.clone()).unwrap(), (format, values.clone()));
            // Infinity, far behind the first piece.
            let (mut broken, place) = (bytes, 600_003);
            let (infinity, width): (&[u8], _) = match format {
                Format::F16 => (&[0x00, 0x7c], 2),
                Format::BF16 => (&[0x80, 0x7f], 2),
                _ => (&[0x00, 0x00, 0x80, 0x7f], 4),
            };
            broken[width * place..width * (place + 1)].copy_from_slice(infinity);
            let error: Error = read(broken).unwrap_err();
            assert_eq!(error.code(), ErrorCode::ModelIntegrity);
            assert_eq!(error.message(), "the tensor w is not finite at place 600003");
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
