//! The models: decoders that write, and sentence encoders.

mod bert;
mod config;
mod decoder;
mod encoder;
mod family;
mod kv_cache;
mod language_decoder;
mod prefix_decoder;
mod rotary;
mod weight;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

pub use config::DecoderConfig;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use decoder::Parameter;
pub use decoder::{Decoder, DecoderLayer, ParameterKind, ParameterSpec};
pub use encoder::{Encoder, EncoderConfig, Pooling};
pub use family::Family;
pub use kv_cache::KvCache;
pub(crate) use language_decoder::token_tensor;
pub use language_decoder::{CHUNK, LanguageDecoder};
pub use prefix_decoder::PrefixDecoder;
pub use rotary::{Llama3Scaling, Rotary};
pub use weight::{Values, Weight};

use crate::error::{Error, ErrorCode, Result};

/// The values of a tensor. Waiting for a GPU is only possible this way in a browser.
pub async fn read_back<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>> {
    let data = tensor.into_data_async().await.map_err(|cause| {
        Error::new(ErrorCode::DeviceLost, format!("the device did not give its results back: {cause:?}"))
    })?;
    data.convert::<f32>().into_vec().map_err(|cause| Error::internal(format!("{cause:?}")))
}
