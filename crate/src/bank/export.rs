//! Journals as JSON lines: a header, then the events, one a line.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{EVENT_VERSION, Event, Journal, Scope};
use crate::error::{Error, ErrorCode, Result};

const FORMAT: &str = "memory-r1-journal";

/// The first line of an exported journal.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    journal: String,
    scope: Scope,
    /// How many events follow: a file that was cut off is told from a whole one.
    events: u64,
}

impl Event {
    /// One line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads one line of JSON; [`ErrorCode::StoreCorrupt`] for what is not an event, or is one of
    /// a newer format.
    pub fn from_json(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|error| {
            let version = serde_json::from_str::<Value>(json).ok().and_then(|value| value["v"].as_u64());
            match version {
                Some(version) if version > u64::from(EVENT_VERSION) => newer(version),
                _ => corrupt("a stored event cannot be read").with_source(error),
            }
        })
    }
}

impl Journal {
    /// The whole journal as JSON lines, the last with a line break.
    pub fn export(&self) -> String {
        let header = Header {
            format: FORMAT.to_owned(),
            version: EVENT_VERSION,
            journal: self.id().to_owned(),
            scope: self.scope().clone(),
            events: self.seq(),
        };
        let mut lines = serde_json::to_string(&header).unwrap_or_default();
        lines.push('\n');
        for event in self.events() {
            lines.push_str(&event.to_json());
            lines.push('\n');
        }
        lines
    }

    /// Reads an export of one or several journals.
    pub fn read_export(text: &str) -> Result<Vec<Journal>> {
        let mut journals = Vec::new();
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).peekable();
        if lines.peek().is_none() {
            return Err(corrupt("the export is empty"));
        }
        while let Some((number, line)) = lines.next() {
            let header = read_header(line, number + 1)?;
            let events = lines
                .by_ref()
                .take(usize::try_from(header.events).unwrap_or(usize::MAX))
                .map(|(number, line)| {
                    Event::from_json(line).map_err(|error| {
                        Error::new(error.code(), format!("line {}: {}", number + 1, error.message()))
                    })
                })
                .collect::<Result<Vec<_>>>()?;
            if events.len() as u64 != header.events {
                return Err(corrupt(format!(
                    "the export was cut off: {} of {} events are there",
                    events.len(),
                    header.events
                )));
            }
            header.scope.validate().map_err(|error| corrupt(error.message()))?;
            let journal = if events.is_empty() {
                Journal::new(&*header.journal, header.scope).map_err(|error| corrupt(error.message()))?
            } else {
                Journal::from_events(header.scope, events)?
            };
            if journal.id() != header.journal {
                return Err(corrupt("the header names another journal than the events"));
            }
            journals.push(journal);
        }
        Ok(journals)
    }
}

fn read_header(line: &str, number: usize) -> Result<Header> {
    let value: Value = serde_json::from_str(line)
        .map_err(|error| corrupt(format!("line {number} is not JSON")).with_source(error))?;
    if value["format"] != FORMAT {
        return Err(corrupt(format!("line {number} is not the header of an exported journal")));
    }
    match value["version"].as_u64() {
        Some(version) if version > u64::from(EVENT_VERSION) => Err(newer(version)),
        Some(1..) => serde_json::from_value(value)
            .map_err(|error| corrupt(format!("line {number} is a broken header")).with_source(error)),
        _ => Err(corrupt(format!("line {number} names no format version"))),
    }
}

fn newer(version: u64) -> Error {
    corrupt(format!(
        "the journal has the format {version} and this build reads up to {EVENT_VERSION}: it was written by a \
         newer version; update this one"
    ))
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::StoreCorrupt, message)
}
