//! The command line: arguments in, agents called, text or JSON out. One file a command.
//!
//! Results go to standard output, progress and errors to standard error. The exit status is 0
//! for success, 1 for a failure (one line says which) and 2 for wrong usage.

mod device;
mod devices;
mod output;
mod score;

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
    /// F1, BLEU-1 and exact match of predictions.
    Score(score::Arguments),
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
        Command::Score(arguments) => score::run(arguments, output),
        Command::Devices(arguments) => devices::run(arguments, output),
    }
}
