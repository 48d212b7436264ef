//! A learned long-term memory: two small language models decide what to keep and how to
//! answer from it.

pub mod agents;
pub mod bank;
pub mod checkpoint;
#[cfg(not(target_arch = "wasm32"))]
pub mod cli;
#[cfg(not(target_arch = "wasm32"))]
pub mod datasets;
pub mod error;
#[cfg(not(target_arch = "wasm32"))]
pub mod evaluation;
pub mod generation;
pub mod kernels;
pub mod nn;
pub mod random;
pub mod retrieval;
pub mod store;
#[cfg(not(target_arch = "wasm32"))]
pub mod training;
#[cfg(target_arch = "wasm32")]
pub mod web;
