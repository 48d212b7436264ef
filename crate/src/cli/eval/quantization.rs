//! `eval quantization`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use clap::Args;
use futures_lite::future::block_on;
use serde::Serialize;

use super::ops::read;
use crate::cli::interrupt::on_interrupt;
use crate::cli::model::read_model;
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::error::Result;
use crate::evaluation::{FORMATS, QuantizationReport, quantization_costs};

/// Packs the model in every format, the weights and the tables of embeddings, and compares each with
/// f32: the size, the divergence of its tokens, and how many cases of `eval ops` pass. On the
/// processor; two models are in memory at a time.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The model's folder: a bundle, or Hugging Face's layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The cases, JSON lines (`memory-r1 synth --ops` makes some).
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// At most this many cases.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    costs: QuantizationReport,
    seconds: f64,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let cases = read(&arguments.data, arguments.limit)?;
    let folder = read_model(&arguments.model)?;
    let cancel = on_interrupt()?;
    let start = Instant::now();
    let total = (FORMATS.len() * cases.len()) as u64;
    let mut progress = Progress::new(total);
    let costs = block_on(quantization_costs::<Flex>(&folder, &FlexDevice, &cases, &cancel, &mut |done| {
        progress.at(done as u64, total, "cases", output);
    }));
    progress.finish();
    let report = Report { costs: costs?, seconds: start.elapsed().as_millis() as f64 / 1000.0 };
    output.result(&report, || text(&report))
}

fn text(report: &Report) -> String {
    let costs = &report.costs;
    let mut text = format!(
        "{:<10} {:<10} {:>11} {:>9} {:>9} {:>9}",
        "weights", "embeddings", "MiB", "of f32", "mean KL", "accuracy"
    );
    let ops: Vec<&String> =
        costs.formats.first().into_iter().flat_map(|own| own.accuracy_by_op.keys()).collect();
    for op in &ops {
        let _ = write!(text, " {op:>7}");
    }
    let whole = costs.formats.first().map_or(1, |own| own.bytes) as f64;
    for cost in &costs.formats {
        let embedding = cost.embedding_quantization.unwrap_or(cost.quantization);
        let _ = write!(
            text,
            "\n{:<10} {:<10} {:>11.2} {:>9.3} {:>9.5} {:>9.3}",
            cost.quantization.to_string(),
            embedding.to_string(),
            cost.bytes as f64 / 1_048_576.0,
            cost.bytes as f64 / whole,
            cost.mean_kl,
            cost.accuracy
        );
        for op in &ops {
            let _ = write!(text, " {:>7.3}", cost.accuracy_by_op.get(*op).copied().unwrap_or_default());
        }
    }
    let _ = write!(
        text,
        "\n{} in {} cases, {} chosen tokens, {:.1} s",
        costs.model, costs.cases, costs.tokens, report.seconds
    );
    text
}
