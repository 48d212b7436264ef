//! `history`: the events of a memory or of a scope.

use std::fmt::Write as _;

use clap::Args;
use futures_lite::future::block_on;
use serde::Serialize;

use super::database::{DatabaseArguments, ScopeArguments, count, journals, nothing_in};
use super::output::Output;
use crate::bank::{Event, MemoryId};
use crate::error::{Error, ErrorCode, Result};

/// Every event of one memory, from its first, also after it is gone; without an id every event
/// of the scopes that agree with the ids given.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: DatabaseArguments,
    #[command(flatten)]
    scope: ScopeArguments,
    /// The id of a memory, as `memories` prints it.
    id: Option<String>,
}

#[derive(Serialize)]
struct Events {
    events: Vec<Event>,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let filter = arguments.scope.filter()?;
    let store = arguments.database.open()?;
    let journals = block_on(journals(&store, filter.as_ref()))?;
    let events: Vec<Event> = if let Some(id) = &arguments.id {
        let id = MemoryId(id.clone());
        let found = journals.iter().find_map(|journal| journal.history(&id).ok());
        let unknown = || format!("no memory has the id {id}; `memory-r1 memories` lists them");
        let found = found.ok_or_else(|| Error::new(ErrorCode::NotFound, unknown()))?;
        found.into_iter().cloned().collect()
    } else {
        if let (true, Some(filter)) = (journals.is_empty(), &filter) {
            return Err(nothing_in(filter));
        }
        journals.iter().flat_map(|journal| journal.events().to_vec()).collect()
    };
    let events = Events { events };
    output.result(&events, || text(&events.events))
}

fn text(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        let _ = writeln!(text, "{}", line(event));
    }
    let _ = writeln!(text, "{}", count(events.len(), "event", "events"));
    text
}

/// One event in a line: `3  2024-03-02T00:00:00.000Z  agent UPDATE  Has a dog → Has two dogs`.
pub(super) fn line(event: &Event) -> String {
    let name = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let cause = name(serde_json::json!(event.cause));
    let op = name(serde_json::json!(event.op));
    let text = |memory: &Option<crate::bank::Memory>| memory.as_ref().map(|memory| memory.text.clone());
    let change = match (text(&event.before), text(&event.after)) {
        (Some(before), Some(after)) => format!("{before} → {after}"),
        (one, other) => one.or(other).unwrap_or_default(),
    };
    let probability =
        event.receipt.as_ref().map_or(String::new(), |receipt| format!("  (p {:.3})", receipt.probability));
    format!("{:>4}  {}  {cause} {op}  {change}{probability}", event.seq, event.at)
}
