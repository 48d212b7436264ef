//! The decoder language model.

mod config;
mod decoder;

pub use config::DecoderConfig;
pub use decoder::{Decoder, DecoderLayer, ParameterKind, ParameterSpec, Rotary};
