//! Forgetting for good: blanking memories in every event.

use std::collections::HashSet;

use serde_json::Map;

use super::{Cause, Event, EventOp, Journal, Memory, MemoryId, Receipt, Timestamp, Turn};
use crate::error::{Error, ErrorCode, Result};

impl Journal {
    /// The journal without these memories' texts, speakers, metadata and receipts, with one
    /// erase event for each appended. Sequence numbers, ids and times stay.
    ///
    /// What was said and the fact taken out of it are also blanked in the receipts of other
    /// memories where they come from the same turn or quote an erased text. An id that the
    /// journal does not have, or that was erased before, is [`ErrorCode::NotFound`].
    pub fn erase(&self, ids: &[MemoryId], now: Timestamp) -> Result<Journal> {
        let erased: HashSet<&MemoryId> = ids.iter().collect();
        if let Some(id) = ids.iter().find(|id| !self.bank().has_known(id) || self.bank().is_erased(id)) {
            return Err(Error::new(ErrorCode::NotFound, format!("no memory of this scope has the id {id}")));
        }
        let traces = Traces::of(self.events().iter().filter(|event| erased.contains(&event.id)));
        let blanked = self
            .events()
            .iter()
            .cloned()
            .map(|event| if erased.contains(&event.id) { blank(event) } else { traces.remove(event) })
            .collect();
        if self.events().is_empty() {
            return Ok(self.clone());
        }
        let mut journal = Self::from_events(self.scope().clone(), blanked)?;
        let mut draft = journal.draft(now);
        let mut done = HashSet::new();
        for id in ids.iter().filter(|id| done.insert(*id)) {
            let event = draft.event(Cause::Erase, EventOp::Erase, id.clone(), None);
            draft.push(event)?;
        }
        journal.append(draft.finish())?;
        Ok(journal)
    }
}

fn blank(event: Event) -> Event {
    let blank = |memory: Memory| Memory {
        text: String::new(),
        speaker: String::new(),
        metadata: Map::new(),
        ..memory
    };
    Event { before: event.before.map(blank), after: event.after.map(blank), receipt: None, ..event }
}

/// Where else the erased words may stand.
struct Traces {
    texts: HashSet<String>,
    turns: Vec<Turn>,
}

impl Traces {
    fn of<'a>(events: impl Iterator<Item = &'a Event>) -> Self {
        let mut traces = Self { texts: HashSet::new(), turns: Vec::new() };
        for event in events {
            for memory in [&event.before, &event.after].into_iter().flatten() {
                traces.texts.insert(memory.text.to_lowercase());
            }
            if let Some(receipt) = &event.receipt {
                traces.texts.insert(receipt.fact.to_lowercase());
                traces.turns.push(receipt.turn.clone());
            }
        }
        traces.texts.remove("");
        traces
    }

    fn quoted_in(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        self.texts.iter().any(|trace| text.contains(trace.as_str()))
    }

    fn remove(&self, event: Event) -> Event {
        let receipt = event.receipt.map(|receipt| {
            let said = self.turns.contains(&receipt.turn) || self.quoted_in(&receipt.turn.content);
            let fact = self.quoted_in(&receipt.fact);
            Receipt {
                turn: if said { Turn { content: String::new(), ..receipt.turn } } else { receipt.turn },
                fact: if fact { String::new() } else { receipt.fact },
                ..receipt
            }
        });
        Event { receipt, ..event }
    }
}
