//! `eval`: benchmarks of the whole pipeline.

mod compare;
mod conversations;
mod ops;
mod quantization;

use clap::{Args, Subcommand};

use super::output::Output;
use crate::error::Result;

/// Runs a benchmark of the whole pipeline.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// Single turns on given memories: is the operation right?
    Ops(ops::Arguments),
    /// Long conversations of two speakers, then questions about them.
    Locomo(conversations::Locomo),
    /// Questions to a user's many sessions with an assistant.
    Longmemeval(conversations::LongMemEval),
    /// What one speaker asks another about their earlier sessions (MSC-Self-Instruct).
    Msc(conversations::Msc),
    /// Two runs of a benchmark, question by question.
    Compare(compare::Arguments),
    /// What weights in fewer bits cost.
    Quantization(quantization::Arguments),
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    match &arguments.benchmark {
        Benchmark::Ops(arguments) => ops::run(arguments, output),
        Benchmark::Locomo(arguments) => conversations::locomo(arguments, output),
        Benchmark::Longmemeval(arguments) => conversations::longmemeval(arguments, output),
        Benchmark::Msc(arguments) => conversations::msc(arguments, output),
        Benchmark::Compare(arguments) => compare::run(arguments, output),
        Benchmark::Quantization(arguments) => quantization::run(arguments, output),
    }
}
