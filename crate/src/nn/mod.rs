//! The decoder language model.

mod config;
mod decoder;
mod kv_cache;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

pub(crate) use config::ARCHITECTURE;
pub use config::DecoderConfig;
pub use decoder::{Decoder, DecoderLayer, ParameterKind, ParameterSpec, Rotary};
pub use kv_cache::KvCache;

use crate::error::{Error, ErrorCode, Result};

/// The values of a tensor. Waiting for a GPU is only possible this way in a browser.
pub async fn read_back<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>> {
    let data = tensor.into_data_async().await.map_err(|cause| {
        Error::new(ErrorCode::DeviceLost, format!("the device did not give its results back: {cause:?}"))
    })?;
    data.convert::<f32>().into_vec().map_err(|cause| Error::internal(format!("{cause:?}")))
}
