//! `undo`: takes back the latest change.

use std::fmt::Write as _;

use clap::Args;
use futures_lite::future::block_on;
use serde::Serialize;

use super::database::{DatabaseArguments, ScopeArguments, nothing_in, now};
use super::history::line;
use super::output::Output;
use crate::bank::Event;
use crate::error::{Error, ErrorCode, Result};
use crate::store::Store;

/// Takes back the latest change of exactly this scope that is not undone yet.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: DatabaseArguments,
    #[command(flatten)]
    scope: ScopeArguments,
}

#[derive(Serialize)]
struct Events {
    events: Vec<Event>,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let scope = arguments.scope.scope()?;
    let store = arguments.database.open()?;
    let events = block_on(async {
        let _lock = store.lock(&scope).await?;
        let journal = store.load(&scope).await?.ok_or_else(|| nothing_in(&scope))?;
        let events = journal
            .undo(now())?
            .ok_or_else(|| Error::new(ErrorCode::NotFound, "there is no change left to take back"))?;
        store.append(&scope, journal.seq(), &events).await?;
        Ok(events)
    })?;
    let events = Events { events };
    output.result(&events, || {
        events.events.iter().fold(String::new(), |mut text, event| {
            let _ = writeln!(text, "{}", line(event));
            text
        })
    })
}
