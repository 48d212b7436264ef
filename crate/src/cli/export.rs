//! `export`: journals as JSON lines.

use std::path::PathBuf;

use clap::Args;
use futures_lite::future::block_on;
use serde::Serialize;

use super::database::{DatabaseArguments, ScopeArguments, count, journals, nothing_in};
use super::output::Output;
use crate::bank::{Journal, Scope};
use crate::error::{Error, ErrorCode, Result};

/// The journals of every scope that agrees with the ids given; of all scopes without any.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: DatabaseArguments,
    #[command(flatten)]
    scope: ScopeArguments,
    /// Write to this file instead of standard output (which `--json` keeps for its document).
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Serialize)]
struct Exported {
    journals: Vec<Described>,
    /// The export itself, where it was not written to a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    export: Option<String>,
}

#[derive(Serialize)]
struct Described {
    journal: String,
    scope: Scope,
    events: u64,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let filter = arguments.scope.filter()?;
    let store = arguments.database.open()?;
    let journals = block_on(journals(&store, filter.as_ref()))?;
    if journals.is_empty() {
        return Err(filter
            .as_ref()
            .map_or_else(|| Error::new(ErrorCode::NotFound, "the database holds no journal"), nothing_in));
    }
    let export: String = journals.iter().map(Journal::export).collect();
    let describe = |journal: &Journal| Described {
        journal: journal.id().to_owned(),
        scope: journal.scope().clone(),
        events: journal.seq(),
    };
    let described = journals.iter().map(describe).collect();
    let Some(path) = &arguments.out else {
        if output.is_json() {
            return output.result(&Exported { journals: described, export: Some(export) }, String::new);
        }
        return output.write(&export);
    };
    std::fs::write(path, export).map_err(|error| {
        Error::new(ErrorCode::NotReachable, format!("{} could not be written", path.display()))
            .with_source(error)
    })?;
    let exported = Exported { journals: described, export: None };
    output.result(&exported, || {
        format!("{} written to {}", count(exported.journals.len(), "journal", "journals"), path.display())
    })
}
