//! Writes safetensors under Hugging Face's names, one tensor at a time where they go to a disk.

use std::borrow::Cow;
use std::cell::RefCell;

use half::f16;
use safetensors::tensor::{Dtype, View};

use super::{CONFIG, Files, Quantization, WEIGHTS, quantized};
use crate::error::{Error, Result};
use crate::kernels::{Kernels, row_groups};
use crate::nn::LanguageDecoder;
#[cfg(not(target_arch = "wasm32"))]
use crate::nn::ParameterSpec;

/// `config.json` and `model.safetensors` of a decoder.
pub async fn write_decoder<B: Kernels>(
    decoder: &LanguageDecoder<B>,
    quantization: Quantization,
) -> Result<Files> {
    let parameters = decoder.to_parameters().await?;
    let tensors = parameters
        .iter()
        .map(|(spec, values)| (spec.name.as_str(), &spec.shape[..], &values[..], quantization));
    Ok(Files::from([
        (CONFIG.to_owned(), decoder.config().to_json().into_bytes().into()),
        (WEIGHTS.to_owned(), write_weights(tensors)?.into()),
    ]))
}

/// A safetensors file of tensors given as name, shape, values, and how these are to lie there. What
/// quantisation spares, vectors above all, is in 16 bits where it fits, else in 32. A matrix with a
/// value that does not fit is `INVALID_ARGUMENT`.
pub fn write_weights<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize], &'a [f32], Quantization)>,
) -> Result<Vec<u8>> {
    let mut writer = Writer::default();
    for (name, shape, values, quantization) in tensors {
        writer.add(name, shape, values, quantization, move || Ok(Cow::Borrowed(values)))?;
    }
    writer.to_bytes()
}

/// Writes the weights of a decoder into a file, one tensor at a time; `values` is asked for each once or twice.
#[cfg(not(target_arch = "wasm32"))]
pub fn write_weights_file(
    path: &std::path::Path,
    specs: &[ParameterSpec],
    quantization: Quantization,
    values: impl Fn(&ParameterSpec) -> Vec<f32> + Copy,
) -> Result<()> {
    let mut writer = Writer::default();
    for spec in specs {
        let again = move || Ok(Cow::Owned(values(spec)));
        writer.add(&spec.name, &spec.shape, &values(spec), quantization, again)?;
    }
    writer.to_file(path).map(drop)
}

/// Where a tensor's values are read again when it is written.
type Again<'a> = Box<dyn Fn() -> Result<Cow<'a, [f32]>> + 'a>;

/// Collects what is to be written: of each tensor the scales alone are kept.
#[derive(Default)]
pub(super) struct Writer<'a> {
    tensors: Vec<(String, Tensor<'a>)>,
}

impl<'a> Writer<'a> {
    /// Adds a tensor, whose values `again` gives when they are written.
    pub(super) fn add(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &[f32],
        quantization: Quantization,
        again: impl Fn() -> Result<Cow<'a, [f32]>> + 'a,
    ) -> Result<()> {
        let outside = values.iter().find(|value| !f16::from_f32(**value).is_finite());
        let bits = quantization.bits().filter(|_| quantized::is_quantizable(shape));
        let is_half = match (quantization, bits, outside) {
            (Quantization::F32, ..) => false,
            (Quantization::F16, _, Some(value)) | (_, Some(_), Some(value)) => {
                return Err(Error::invalid(format!(
                    "{value} of {name} does not fit into 16 bits: pack as f32"
                )));
            }
            _ => outside.is_none(),
        };
        let mut add = |name: String, dtype, shape: Vec<usize>, data| {
            self.tensors.push((name, Tensor { dtype, shape, data }));
        };
        if let (Some(bits), &[rows, columns]) = (bits, shape) {
            let (bytes, groups) = (quantized::row_bytes(columns, bits), row_groups(columns));
            let scales = quantized::scales(values, columns, bits);
            let codes = Data::Codes { columns, bits, scales: scales.clone(), again: Box::new(again) };
            let scales = Data::Scales(scales.iter().flat_map(|scale| scale.to_le_bytes()).collect());
            add(format!("{name}{}", quantized::SCALES), Dtype::F16, vec![rows, groups], scales);
            add(name.to_owned(), Dtype::U8, vec![rows, bytes], codes);
        } else {
            let dtype = if is_half { Dtype::F16 } else { Dtype::F32 };
            add(name.to_owned(), dtype, shape.to_vec(), Data::Floats(Box::new(again)));
        }
        Ok(())
    }

    /// All in memory.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        self.write(|views, metadata| safetensors::serialize(views, metadata))
    }

    /// One tensor after the other into a file.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn to_file(&self, path: &std::path::Path) -> Result<super::Content> {
        // The file that takes its place could be read by its owner alone.
        let usual =
            std::fs::File::create(path).and_then(|file| file.metadata()).map_err(unwritten)?.permissions();
        self.write(|views, metadata| safetensors::serialize_to_file(views, metadata, path))?;
        std::fs::set_permissions(path, usual).map_err(unwritten)?;
        let file = super::OnDisk::open(path).map_err(unwritten)?;
        Ok(super::Content::Elsewhere(std::sync::Arc::new(file)))
    }

    fn write<T>(
        &self,
        write: impl FnOnce(
            Vec<(&str, Attempt<'_, 'a>)>,
            Option<std::collections::HashMap<String, String>>,
        ) -> Result<T, safetensors::SafeTensorError>,
    ) -> Result<T> {
        let failure = RefCell::new(None);
        let attempts = self.tensors.iter();
        let attempts =
            attempts.map(|(name, tensor)| (&**name, Attempt { tensor, failure: &failure })).collect();
        let written = write(attempts, Some([("format".to_owned(), "pt".to_owned())].into()));
        match failure.into_inner() {
            Some(error) => Err(error),
            None => written.map_err(unwritten),
        }
    }
}

fn unwritten(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(crate::error::ErrorCode::NotReachable, "the weights cannot be written").with_source(cause)
}

/// What is to be written under a name.
struct Tensor<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Data<'a>,
}

enum Data<'a> {
    Floats(Again<'a>),
    Scales(Vec<u8>),
    Codes { columns: usize, bits: usize, scales: Vec<f16>, again: Again<'a> },
}

impl Tensor<'_> {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(match &self.data {
            Data::Scales(bytes) => Cow::Borrowed(bytes),
            Data::Codes { columns, bits, scales, again } => {
                Cow::Owned(quantized::codes(&again()?, scales, *columns, *bits))
            }
            Data::Floats(again) if self.dtype == Dtype::F16 => {
                Cow::Owned(again()?.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect())
            }
            Data::Floats(again) => {
                Cow::Owned(again()?.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
        })
    }
}

/// A tensor's bytes as safetensors asks for them: without a way to fail.
struct Attempt<'t, 'a> {
    tensor: &'t Tensor<'a>,
    failure: &'t RefCell<Option<Error>>,
}

impl View for Attempt<'_, '_> {
    fn dtype(&self) -> Dtype {
        self.tensor.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.tensor.bytes().unwrap_or_else(|error| {
            self.failure.replace(Some(error));
            Cow::Owned(vec![0; self.data_len()])
        })
    }

    fn data_len(&self) -> usize {
        self.tensor.shape.iter().product::<usize>() * self.tensor.dtype.bitsize() / 8
    }
}
