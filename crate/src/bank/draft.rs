//! A staged bank: several operations, one after another, that become one batch of events.

use serde_json::{Map, Value};

use super::journal::memory_id;
use super::text::{clean_metadata, clean_speaker, clean_text, stable_json};
use super::{
    Cause, EVENT_VERSION, Event, EventOp, Memory, MemoryBank, MemoryId, Operation, Receipt, Timestamp,
};
use crate::error::{Error, Result};

/// What goes with an operation: who asked, whose statement it is, and why.
#[derive(Clone, Debug)]
pub struct Change {
    /// Who asked.
    pub cause: Cause,
    /// Whose statement it is. An update keeps the speaker that the memory has.
    pub speaker: String,
    /// The time of the turn; what prompts show.
    pub observed: Timestamp,
    /// The caller's own fields. `None` leaves those of an updated memory as they are.
    pub metadata: Option<Map<String, Value>>,
    /// The agent's reasons.
    pub receipt: Option<Receipt>,
}

impl Change {
    /// A change that a caller asked for by name.
    pub fn by_user(speaker: impl Into<String>, observed: Timestamp) -> Self {
        Self { cause: Cause::User, speaker: speaker.into(), observed, metadata: None, receipt: None }
    }

    /// A change that an agent decided.
    pub fn by_agent(speaker: impl Into<String>, observed: Timestamp, receipt: Receipt) -> Self {
        Self {
            cause: Cause::Agent,
            speaker: speaker.into(),
            observed,
            metadata: None,
            receipt: Some(receipt),
        }
    }
}

/// Operations applied to a bank that nobody else sees yet.
///
/// The next operation sees what the last one did; an operation that fails changes nothing.
#[derive(Clone, Debug)]
pub struct Draft {
    bank: MemoryBank,
    first: u64,
    at: Timestamp,
    events: Vec<Event>,
}

impl Draft {
    /// A draft on top of a bank. [`super::Journal::draft`] also keeps time from running back.
    pub(super) fn new(bank: MemoryBank, at: Timestamp) -> Self {
        Self { first: bank.seq() + 1, bank, at, events: Vec::new() }
    }

    /// The bank as the operations so far have left it.
    pub fn bank(&self) -> &MemoryBank {
        &self.bank
    }

    /// The events so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Applies one operation and returns its event; nothing for a NOOP, nor for an update that
    /// would leave the memory as it is.
    pub fn apply(&mut self, operation: &Operation, change: Change) -> Result<Option<&Event>> {
        let (op, id, after) = match operation {
            Operation::Noop => return Ok(None),
            Operation::Add { text } => {
                let id = memory_id(self.bank.journal(), self.bank.seq() + 1);
                let memory = Memory {
                    id: id.clone(),
                    text: clean_text(text)?,
                    speaker: clean_speaker(&change.speaker)?,
                    created: self.at,
                    updated: self.at,
                    observed: change.observed,
                    metadata: clean_metadata(change.metadata.clone().unwrap_or_default())?,
                };
                (EventOp::Add, id, Some(memory))
            }
            Operation::Update { id, text } => {
                let before = self.bank.require(id)?;
                let mut memory =
                    Memory { text: clean_text(text)?, observed: change.observed, ..before.clone() };
                if let Some(metadata) = &change.metadata {
                    memory.metadata = clean_metadata(metadata.clone())?;
                }
                if memory == *before {
                    return Ok(None);
                }
                memory.updated = self.at;
                (EventOp::Update, id.clone(), Some(memory))
            }
            Operation::Delete { id } => {
                self.bank.require(id)?;
                (EventOp::Delete, id.clone(), None)
            }
        };
        let receipt = change.receipt.map(checked_receipt).transpose()?;
        let event = self.event(change.cause, op, id, after);
        self.push(Event { receipt, ..event }).map(Some)
    }

    /// The events of the batch, to be appended at once; empty where nothing changed.
    pub fn finish(self) -> Vec<Event> {
        self.events
    }

    /// The next event: `before` is the state of the draft.
    pub(super) fn event(&self, cause: Cause, op: EventOp, id: MemoryId, after: Option<Memory>) -> Event {
        Event {
            v: EVENT_VERSION,
            journal: self.bank.journal().to_owned(),
            seq: self.bank.seq() + 1,
            batch: self.first,
            at: self.at,
            cause,
            op,
            before: self.bank.get(&id).cloned(),
            id,
            after,
            receipt: None,
            undoes: None,
        }
    }

    pub(super) fn push(&mut self, event: Event) -> Result<&Event> {
        self.bank.apply(&event)?;
        self.events.push(event);
        self.events.last().ok_or_else(|| Error::internal("a pushed event is not there"))
    }
}

fn checked_receipt(mut receipt: Receipt) -> Result<Receipt> {
    let others = [receipt.id_probability.as_mut(), receipt.fact_probability.as_mut()];
    for probability in others.into_iter().flatten().chain([&mut receipt.probability]) {
        if !(0.0..=1.0 + 1e-6).contains(probability) {
            return Err(Error::internal(format!("{probability} is not a probability")));
        }
        *probability = stable_json(probability.min(1.0))?;
    }
    Ok(receipt)
}
