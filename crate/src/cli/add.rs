//! `add`: what was said is remembered.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use futures_lite::future::block_on;
use serde::Serialize;

use super::agent::agent;
use super::database::{DatabaseArguments, ScopeArguments, count, now};
use super::embedder::EmbedderArguments;
use super::import::read_text;
use super::interrupt::on_interrupt;
use super::model::ModelArguments;
use super::output::Output;
use crate::agents::{AddOptions, AddResult};
use crate::bank::{Role, Timestamp, Turn};
use crate::error::{Error, Result};
use crate::generation::Sampling;

/// Takes the facts out of a message and decides for each what becomes of it: ADD, UPDATE, DELETE
/// or NONE.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: DatabaseArguments,
    #[command(flatten)]
    scope: ScopeArguments,
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    embedder: EmbedderArguments,
    /// Who says it.
    #[arg(long, value_name = "NAME", default_value = "user")]
    speaker: String,
    /// When it is said: 2024-03-02 or 2024-03-02T10:00:00Z; now where it is left out.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// The seed of the sampler and of a new journal's id, which is random without it.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Remember the text as it is, without a model.
    #[arg(long)]
    no_infer: bool,
    /// What is said; `-` reads it from standard input.
    text: String,
}

#[derive(Serialize)]
struct Results {
    results: Vec<AddResult>,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let scope = arguments.scope.scope()?;
    let time = arguments.at.as_deref().map(Timestamp::parse).transpose();
    let timestamp =
        time.map_err(|error| Error::invalid(format!("--at: {}", error.message())))?.unwrap_or_else(now);
    let turn = Turn {
        role: Role::User,
        speaker: arguments.speaker.clone(),
        content: if arguments.text == "-" { read_text(Path::new("-"))? } else { arguments.text.clone() },
        timestamp,
    };
    let models = arguments.model.load_with(&arguments.embedder)?;
    let agent = agent(models, arguments.database.open_or_create()?, &scope, arguments.seed)?;
    let options = AddOptions {
        infer: !arguments.no_infer,
        sampling: Sampling { seed: arguments.seed.unwrap_or(0), ..Sampling::default() },
        cancel: on_interrupt()?,
        ..AddOptions::default()
    };
    let results = Results { results: block_on(agent.add(&[turn], &scope, &options))? };
    output.result(&results, || text(&results.results))
}

fn text(results: &[AddResult]) -> String {
    let mut text = String::new();
    for result in results {
        let before = result.previous_memory.as_deref().filter(|before| *before != result.memory);
        let before = before.map_or(String::new(), |before| format!("{before} → "));
        let probability = result
            .receipt
            .as_ref()
            .map_or(String::new(), |receipt| format!("  (p {:.3})", receipt.probability));
        let _ = writeln!(text, "{:<6} {before}{}{probability}", result.event.wire_name(), result.memory);
    }
    let _ = writeln!(text, "{}", count(results.len(), "fact", "facts"));
    text
}
