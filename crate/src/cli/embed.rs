//! `embed`: sentence embeddings.

use std::path::PathBuf;

use clap::Args;
use futures_lite::future::block_on;
use serde::Serialize;

use super::device::Device;
use super::interrupt::on_interrupt;
use super::model::load_embedder;
use super::output::Output;
use crate::error::Result;

/// Sentence embeddings: vectors of length 1.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The encoder's folder, in the layout of Sentence Transformers.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A text; may be given several times.
    #[arg(long, value_name = "TEXT", required = true)]
    text: Vec<String>,
    /// Where it computes.
    #[arg(long, value_enum, default_value_t)]
    device: Device,
}

#[derive(Serialize)]
struct Embedded {
    embeddings: Vec<Vec<f32>>,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let embedder = load_embedder(&arguments.model, arguments.device)?;
    let texts: Vec<&str> = arguments.text.iter().map(String::as_str).collect();
    let embeddings = block_on(embedder.embed(&texts, &on_interrupt()?))?;
    let embedded = Embedded { embeddings };
    output.result(&embedded, || {
        let line = |vector: &Vec<f32>| {
            let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
            numbers.join(" ") + "\n"
        };
        embedded.embeddings.iter().map(line).collect()
    })
}
