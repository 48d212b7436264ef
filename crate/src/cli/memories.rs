//! `memories`: what is remembered.

use std::fmt::Write as _;

use clap::Args;
use futures_lite::future::block_on;
use serde::Serialize;

use super::database::{DatabaseArguments, ScopeArguments, count, journals, scope_name};
use super::output::Output;
use crate::bank::{Memory, MemoryBank, Moment, Scope, Timestamp};
use crate::error::{Error, Result};

/// The live memories of every scope that agrees with the ids given; of all scopes without any.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: DatabaseArguments,
    #[command(flatten)]
    scope: ScopeArguments,
    /// As it was then: a time, or the number of an event.
    #[arg(long, value_name = "WHEN")]
    as_of: Option<String>,
}

#[derive(Serialize)]
struct Remembered {
    scope: Scope,
    #[serde(flatten)]
    memory: Memory,
}

#[derive(Serialize)]
struct Results {
    results: Vec<Remembered>,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let filter = arguments.scope.filter()?;
    let moment = arguments.as_of.as_deref().map(moment).transpose()?;
    let store = arguments.database.open()?;
    let mut results = Vec::new();
    for journal in block_on(journals(&store, filter.as_ref()))? {
        let bank: MemoryBank = match moment {
            Some(moment) => journal.as_of(moment)?,
            None => journal.bank().clone(),
        };
        let own = bank
            .memories()
            .map(|memory| Remembered { scope: journal.scope().clone(), memory: memory.clone() });
        results.extend(own);
    }
    let results = Results { results };
    output.result(&results, || text(&results.results))
}

fn moment(text: &str) -> Result<Moment> {
    if let Ok(seq) = text.parse() {
        return Ok(Moment::Seq(seq));
    }
    let time = Timestamp::parse(text).map_err(|error| {
        Error::invalid(format!("--as-of: {}, or the number of an event", error.message()))
    })?;
    Ok(Moment::Time(time))
}

fn text(results: &[Remembered]) -> String {
    let mut text = String::new();
    let mut scope = None;
    for remembered in results {
        if scope != Some(&remembered.scope) {
            scope = Some(&remembered.scope);
            let _ = writeln!(text, "{}", scope_name(&remembered.scope));
        }
        let Memory { id, observed, speaker, text: statement, .. } = &remembered.memory;
        let _ = writeln!(text, "  {id}  {}  {speaker}: {statement}", observed.date());
    }
    let _ = writeln!(text, "{}", count(results.len(), "memory", "memories"));
    text
}
