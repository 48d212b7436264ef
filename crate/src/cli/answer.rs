//! `answer`: a question about what is remembered.

use std::fmt::Write as _;

use clap::Args;
use futures_lite::future::block_on;
use serde::Serialize;

use super::agent::agent;
use super::database::{DatabaseArguments, ScopeArguments};
use super::embedder::EmbedderArguments;
use super::interrupt::on_interrupt;
use super::model::ModelArguments;
use super::output::Output;
use crate::agents::{AnswerOptions, Remembered};
use crate::bank::{Memory, Scope};
use crate::error::Result;
use crate::generation::Sampling;

/// Picks the memories that matter for a question, then answers from them. Reads every scope that
/// agrees with the ids given.
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
    /// How many memories of a speaker to consider; the model's own number where it is left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    candidates: Option<u32>,
    /// The seed of the sampler.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The question.
    question: String,
}

#[derive(Serialize)]
struct Shown<'a> {
    scope: &'a Scope,
    #[serde(flatten)]
    memory: &'a Memory,
}

#[derive(Serialize)]
struct Answered<'a> {
    answer: &'a str,
    memories: Vec<Shown<'a>>,
    candidates: Vec<Shown<'a>>,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let scope = arguments.scope.scope()?;
    let store = arguments.database.open()?;
    let agent = agent(arguments.model.load_with(&arguments.embedder)?, store, &scope, Some(0))?;
    let options = AnswerOptions {
        per_speaker: arguments.candidates.map(|count| count as usize),
        sampling: Sampling { seed: arguments.seed, ..Sampling::default() },
        cancel: on_interrupt()?,
        ..AnswerOptions::default()
    };
    let answered = block_on(agent.answer(&arguments.question, &scope, &options))?;
    let value = Answered {
        answer: &answered.answer,
        memories: answered.memories.iter().map(Shown::of).collect(),
        candidates: answered.candidates.iter().map(Shown::of).collect(),
    };
    output.result(&value, || {
        let mut text = format!("{}\n", value.answer);
        for Shown { memory, .. } in &value.memories {
            let _ = writeln!(text, "  from {}  {}: {}", memory.observed.date(), memory.speaker, memory.text);
        }
        text
    })
}

impl<'a> Shown<'a> {
    fn of(found: &'a Remembered) -> Self {
        Self { scope: &found.scope, memory: &found.memory }
    }
}
