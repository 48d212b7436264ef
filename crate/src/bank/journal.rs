//! The append-only list of events of one scope: the truth.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::{Cause, Draft, Event, EventOp, MemoryBank, MemoryId, Scope, Timestamp};
use crate::error::{Error, ErrorCode, Result};

/// The events of one exact scope, and the bank that they fold to.
///
/// A value of this type is always whole: the sequence has no gap, every event starts from the
/// state that the ones before it left, and time never runs back.
#[derive(Clone, Debug, PartialEq)]
pub struct Journal {
    events: Vec<Event>,
    bank: MemoryBank,
}

impl Journal {
    /// A journal without events. `id` is 32 hexadecimal digits: [`journal_id`] of random bytes,
    /// or [`seeded_journal_id`].
    pub fn new(id: impl Into<String>, scope: Scope) -> Result<Self> {
        Ok(Self { events: Vec::new(), bank: MemoryBank::new(id, scope)? })
    }

    /// The journal of a loaded list of events, which must be a journal from its first event on;
    /// otherwise [`ErrorCode::StoreCorrupt`].
    pub fn from_events(scope: Scope, events: Vec<Event>) -> Result<Self> {
        let first = events
            .first()
            .ok_or_else(|| Error::new(ErrorCode::StoreCorrupt, "the journal has no first event"))?;
        check_journal_id(&first.journal)
            .map_err(|error| Error::new(ErrorCode::StoreCorrupt, error.message()))?;
        let mut journal = Self::new(first.journal.clone(), scope)?;
        journal.extend(events)?;
        Ok(journal)
    }

    /// Its id: 32 hexadecimal digits.
    pub fn id(&self) -> &str {
        self.bank.journal()
    }

    /// Whose journal it is.
    pub fn scope(&self) -> &Scope {
        self.bank.scope()
    }

    /// The sequence number of the last event; 0 before the first.
    pub fn seq(&self) -> u64 {
        self.bank.seq()
    }

    /// All events, in order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The memories as they are now.
    pub fn bank(&self) -> &MemoryBank {
        &self.bank
    }

    /// A draft on top of this journal, at the clock's time; a clock that ran back is held at the
    /// last event's time.
    pub fn draft(&self, now: Timestamp) -> Draft {
        let last = self.events.last().map_or(now, |event| event.at);
        Draft::new(self.bank.clone(), now.max(last))
    }

    /// Appends whole batches; [`ErrorCode::StoreConflict`] where they were made on top of another
    /// sequence number. An error changes nothing.
    pub fn append(&mut self, events: Vec<Event>) -> Result<()> {
        if let Some(first) = events.first()
            && first.seq != self.seq() + 1
        {
            return Err(conflict(first.seq.saturating_sub(1), self.seq()));
        }
        let whole = (self.events.len(), self.bank.clone());
        self.extend(events).inspect_err(|_| {
            self.events.truncate(whole.0);
            self.bank = whole.1;
        })
    }

    fn extend(&mut self, events: Vec<Event>) -> Result<()> {
        self.events.reserve(events.len());
        for event in events {
            self.bank.apply(&event)?;
            let corrupt = |why: &str| {
                Error::new(ErrorCode::StoreCorrupt, format!("event {} of the journal {why}", event.seq))
            };
            let last = self.events.last();
            if event.batch != event.seq && last.is_none_or(|last| last.batch != event.batch) {
                return Err(corrupt("is not in the batch that it names"));
            }
            if last.is_some_and(|last| last.at > event.at) {
                return Err(corrupt("is older than the one before it"));
            }
            self.events.push(event);
        }
        Ok(())
    }

    /// The events of a batch that takes back the latest batch not yet undone, and names it.
    /// Nothing where there is no such batch. Erased memories do not come back.
    pub fn undo(&self, now: Timestamp) -> Result<Option<Vec<Event>>> {
        let Some(batch) = self.undoable_batch() else { return Ok(None) };
        let mut draft = self.draft(now);
        for event in self.events.iter().rev().filter(|event| event.batch == batch) {
            if self.bank.is_erased(&event.id) {
                continue;
            }
            let op = match event.op {
                EventOp::Add => EventOp::Delete,
                EventOp::Update => EventOp::Update,
                EventOp::Delete => EventOp::Add,
                EventOp::Erase => continue,
            };
            let inverse = draft.event(Cause::Undo, op, event.id.clone(), event.before.clone());
            draft.push(Event { undoes: Some(batch), ..inverse })?;
        }
        Ok(Some(draft.finish()))
    }

    fn undoable_batch(&self) -> Option<u64> {
        let mut open: Vec<u64> = Vec::new();
        for event in &self.events {
            if let Some(undone) = event.undoes {
                open.retain(|batch| *batch != undone);
            } else if event.op != EventOp::Erase
                && !self.bank.is_erased(&event.id)
                && open.last() != Some(&event.batch)
            {
                open.push(event.batch);
            }
        }
        open.pop()
    }

    /// The events that an import of `other` appends here; none where it holds nothing new.
    /// [`ErrorCode::StoreConflict`] where the two differ in an event that both have.
    pub fn missing_from(&self, other: &Journal) -> Result<Vec<Event>> {
        if self.scope() != other.scope() {
            return Err(Error::invalid("the two journals belong to different scopes"));
        }
        if self.events.is_empty() {
            return Ok(other.events.clone());
        }
        if self.id() != other.id() {
            return Err(Error::new(
                ErrorCode::StoreConflict,
                format!(
                    "this scope already has another journal ({}, not {}); delete it first, or import into \
                     an empty store",
                    self.id(),
                    other.id()
                ),
            ));
        }
        if let Some((own, _)) = self.events.iter().zip(&other.events).find(|(own, theirs)| own != theirs) {
            return Err(Error::new(
                ErrorCode::StoreConflict,
                format!("the journals part at event {}; nothing was imported", own.seq),
            ));
        }
        Ok(other.events.get(self.events.len()..).unwrap_or_default().to_vec())
    }
}

/// The error of an append at another sequence number than the journal's last.
pub(crate) fn conflict(expected: u64, found: u64) -> Error {
    Error::new(
        ErrorCode::StoreConflict,
        format!("the journal ends at event {found}, not {expected}: somebody else appended; read it again"),
    )
}

/// A journal's id out of 128 random bits.
pub fn journal_id(bytes: [u8; 16]) -> String {
    hex(&bytes)
}

/// The same journal id for the same seed and scope: for runs that must be repeatable.
pub fn seeded_journal_id(seed: u64, scope: &Scope) -> String {
    let digest = Sha256::new()
        .chain_update(b"memory-r1 journal")
        .chain_update(seed.to_be_bytes())
        .chain_update(scope.key().as_bytes())
        .finalize();
    hex(&digest[..16])
}

pub(super) fn check_journal_id(id: &str) -> Result<()> {
    if id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        Ok(())
    } else {
        Err(Error::invalid(format!("a journal's id is 32 lower-case hexadecimal digits, not {id:?}")))
    }
}

/// The id of the memory that event `seq` of a journal adds: a UUID of version 8 out of
/// sha256 of the journal's id and, in eight big-endian bytes, the sequence number.
pub(super) fn memory_id(journal: &str, seq: u64) -> MemoryId {
    let digest = Sha256::new().chain_update(journal.as_bytes()).chain_update(seq.to_be_bytes()).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let digits = hex(&bytes);
    MemoryId(format!(
        "{}-{}-{}-{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..]
    ))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
