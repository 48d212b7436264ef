//! The command line: arguments in, agents called, text or JSON out. One file a command.
//!
//! Results go to standard output, progress and errors to standard error. The exit status is 0
//! for success, 1 for a failure (one line says which) and 2 for wrong usage.

mod add;
mod agent;
mod answer;
mod asking;
mod bench;
mod data;
mod database;
mod device;
mod devices;
mod digest;
mod download;
mod embed;
mod embedder;
mod eval;
mod export;
mod generate;
mod history;
mod import;
mod interrupt;
mod memories;
mod model;
mod output;
mod pack;
mod precision;
mod progress;
mod roles;
mod score;
mod synth;
mod train;
mod undo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Result;
use output::Output;

/// A learned long-term memory: two small language models decide what to keep and how to answer
/// from it.
#[derive(Debug, Parser)]
#[command(name = "memory-r1", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Print one JSON document on standard output and nothing else there.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Chat-templated generation.
    Generate(generate::Arguments),
    /// Sentence embeddings.
    Embed(embed::Arguments),
    /// Remember what was said.
    Add(add::Arguments),
    /// Answer a question from what is remembered.
    Answer(answer::Arguments),
    /// What is remembered.
    Memories(memories::Arguments),
    /// What happened to one memory, or all events of a scope.
    History(history::Arguments),
    /// Take back the latest change of a scope.
    Undo(undo::Arguments),
    /// Write journals as JSON lines.
    Export(export::Arguments),
    /// Read journals that `export` wrote; reading a file twice changes nothing.
    Import(import::Arguments),
    /// Made-up conversations with gold operations.
    Synth(synth::Arguments),
    /// Benchmarks of the whole pipeline.
    Eval(Box<eval::Arguments>),
    /// F1, BLEU-1 and exact match of predictions.
    Score(score::Arguments),
    /// Trains a model.
    Train(train::Arguments),
    /// A bundle for the browser out of a model's folder.
    Pack(pack::Arguments),
    /// Speed, with what the machine can do measured in the same run.
    Bench(bench::Arguments),
    /// Where a benchmark's data come from, and what a file holds.
    Data(data::Arguments),
    /// The backends and adapters that this build sees.
    Devices(devices::Arguments),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Where nobody listens any more there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let mut output = Output::new(arguments.json);
    match run(&arguments.command, &mut output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output.fail(&error),
    }
}

fn run(command: &Command, output: &mut Output) -> Result<()> {
    match command {
        Command::Generate(arguments) => generate::run(arguments, output),
        Command::Embed(arguments) => embed::run(arguments, output),
        Command::Add(arguments) => add::run(arguments, output),
        Command::Answer(arguments) => answer::run(arguments, output),
        Command::Memories(arguments) => memories::run(arguments, output),
        Command::History(arguments) => history::run(arguments, output),
        Command::Undo(arguments) => undo::run(arguments, output),
        Command::Export(arguments) => export::run(arguments, output),
        Command::Import(arguments) => import::run(arguments, output),
        Command::Synth(arguments) => synth::run(arguments, output),
        Command::Eval(arguments) => eval::run(arguments, output),
        Command::Pack(arguments) => pack::run(arguments, output),
        Command::Score(arguments) => score::run(arguments, output),
        Command::Train(arguments) => train::run(arguments, output),
        Command::Bench(arguments) => bench::run(arguments, output),
        Command::Data(arguments) => data::run(arguments, output),
        Command::Devices(arguments) => devices::run(arguments, output),
    }
}
