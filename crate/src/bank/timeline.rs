//! The journal as a line of time: a bank as it was, what changed between two moments, and the
//! story of one memory.

use serde::{Deserialize, Serialize};

use super::{Event, Journal, Memory, MemoryBank, MemoryId, Timestamp};
use crate::error::{Error, ErrorCode, Result};

/// A place in a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// After all events up to this time, that millisecond included.
    Time(Timestamp),
    /// After this event; 0 is before the first.
    Seq(u64),
}

/// What changed between two moments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Memories that are only in the second bank.
    pub added: Vec<Memory>,
    /// Memories that are only in the first.
    pub removed: Vec<Memory>,
    /// Memories that are in both and differ.
    pub changed: Vec<Changed>,
}

/// A memory that two banks hold differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// As the first bank holds it.
    pub before: Memory,
    /// As the second does.
    pub after: Memory,
}

impl Journal {
    /// The bank as it was then, without what was erased since.
    pub fn as_of(&self, moment: Moment) -> Result<MemoryBank> {
        let count = match moment {
            Moment::Time(time) => self.events().partition_point(|event| event.at <= time),
            Moment::Seq(seq) if seq <= self.seq() => seq as usize,
            Moment::Seq(seq) => {
                return Err(Error::invalid(format!(
                    "the journal ends at event {}; there is no {seq} yet",
                    self.seq()
                )));
            }
        };
        let bank = MemoryBank::replay(self.id(), self.scope().clone(), &self.events()[..count])?;
        Ok(bank.without(self.bank().erased()))
    }

    /// What changed from `a` to `b`, each part in the order of creation.
    pub fn diff(&self, a: Moment, b: Moment) -> Result<Difference> {
        let (a, b) = (self.as_of(a)?, self.as_of(b)?);
        Ok(Difference {
            added: b.memories().filter(|memory| a.get(&memory.id).is_none()).cloned().collect(),
            removed: a.memories().filter(|memory| b.get(&memory.id).is_none()).cloned().collect(),
            changed: b
                .memories()
                .filter_map(|after| Some((a.get(&after.id)?, after)))
                .filter(|(before, after)| before != after)
                .map(|(before, after)| Changed { before: before.clone(), after: after.clone() })
                .collect(),
        })
    }

    /// Every event of one memory, from its first; [`ErrorCode::NotFound`] for an id that the
    /// journal never had.
    pub fn history(&self, id: &MemoryId) -> Result<Vec<&Event>> {
        let events: Vec<_> = self.events().iter().filter(|event| event.id == *id).collect();
        if events.is_empty() {
            return Err(Error::new(ErrorCode::NotFound, format!("no memory of this scope had the id {id}")));
        }
        Ok(events)
    }

    /// The ids of all memories that can be erased: the live ones and the deleted ones, in the
    /// order of their creation.
    pub fn erasable_ids(&self) -> Vec<MemoryId> {
        let mut ids: Vec<MemoryId> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for event in self.events() {
            if !self.bank().is_erased(&event.id) && seen.insert(&event.id) {
                ids.push(event.id.clone());
            }
        }
        ids
    }
}
