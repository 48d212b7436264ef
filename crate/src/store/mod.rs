//! Where a journal is kept. One trait, compare-and-append at its heart: whoever appends says
//! which event they saw last, and where somebody else was faster nothing is written.
//!
//! [`InMemoryStore`] forgets at the end of the process; `IndexedDbStore` (wasm) lives in the
//! browser; `SqliteStore` (native) is one file.

mod in_memory;
#[cfg(target_arch = "wasm32")]
mod indexed_db;
mod lock;
#[cfg(not(target_arch = "wasm32"))]
mod sqlite;
mod vectors;

use async_trait::async_trait;

pub use in_memory::InMemoryStore;
#[cfg(target_arch = "wasm32")]
pub use indexed_db::IndexedDbStore;
pub use lock::{LockQueue, ScopeLock};
#[cfg(not(target_arch = "wasm32"))]
pub use sqlite::SqliteStore;
pub use vectors::{Space, TextKey, TextVector, VectorsInMemory};

use crate::bank::{Event, Journal, Scope, conflict};
use crate::error::{Error, ErrorCode, Result};

/// Keeps the journals of many scopes. Every change is whole or not there, also after a crash.
#[async_trait(?Send)]
pub trait Store {
    /// The scopes that have a journal, in the order of [`Scope::key`].
    async fn scopes(&self) -> Result<Vec<Scope>>;

    /// The journal of exactly this scope.
    async fn load(&self, scope: &Scope) -> Result<Option<Journal>>;

    /// Appends events made on top of event `expected` (0 for a scope without a journal);
    /// [`ErrorCode::StoreConflict`] where the journal ends elsewhere. It is durable on return.
    async fn append(&self, scope: &Scope, expected: u64, events: &[Event]) -> Result<()>;

    /// Puts `journal`, made by [`Journal::erase`] of the one that ends at `expected`, in its
    /// place, and leaves no byte of what it no longer has where the storage allows it.
    async fn rewrite(&self, expected: u64, journal: &Journal) -> Result<()>;

    /// Removes a scope's journal as if it had never been; whether there was one.
    async fn remove(&self, scope: &Scope) -> Result<bool>;

    /// The vectors of one space beside the journal of exactly this scope. They are derived: a store need not keep
    /// any, and this one does not.
    async fn vectors(&self, _scope: &Scope, _space: &Space) -> Result<Vec<TextVector>> {
        Ok(Vec::new())
    }

    /// Keeps vectors of the journal's memories beside it, in place of those of any other space. A rewrite drops those
    /// whose text is no live memory's, and [`Self::remove`] all. Nothing is kept where the stored journal is no
    /// longer this one: it may have erased a text.
    async fn keep_vectors(&self, _journal: &Journal, _space: &Space, _vectors: &[TextVector]) -> Result<()> {
        Ok(())
    }

    /// Waits for the exclusive right to decide in this scope, until the guard is dropped.
    async fn lock(&self, scope: &Scope) -> Result<ScopeLock>;

    /// Closes the store; what comes after is [`ErrorCode::StoreFailed`].
    async fn close(&self) -> Result<()>;
}

/// Whether `events` follow a journal that ends at `head` (its id and last sequence number).
fn check_append(head: Option<(&str, u64)>, expected: u64, events: &[Event]) -> Result<()> {
    let found = head.map_or(0, |(_, seq)| seq);
    if found != expected {
        return Err(conflict(expected, found));
    }
    let Some(first) = events.first() else { return Ok(()) };
    if let Some((journal, _)) = head
        && journal != first.journal
    {
        return Err(Error::new(
            ErrorCode::StoreConflict,
            format!("this scope has the journal {journal}, and the events belong to {}", first.journal),
        ));
    }
    let follows = events.iter().zip(expected + 1..).all(|(event, seq)| event.seq == seq);
    if !follows || events.iter().any(|event| event.journal != first.journal) {
        return Err(Error::internal("the events to append do not follow each other"));
    }
    Ok(())
}

/// Whether `journal` may take the place of the one that ends at `head`.
fn check_rewrite(head: Option<(&str, u64)>, expected: u64, journal: &Journal) -> Result<()> {
    let found = head.map_or(0, |(_, seq)| seq);
    match head {
        Some((id, seq)) if seq == expected && id == journal.id() => Ok(()),
        _ => Err(conflict(expected, found)),
    }
}

/// Whether `journal` is the stored one that ends at `head`.
fn is_stored(head: Option<(&str, u64)>, journal: &Journal) -> bool {
    check_rewrite(head, journal.seq(), journal).is_ok()
}

fn closed() -> Error {
    Error::new(ErrorCode::StoreFailed, "the store was closed; open it again")
}

/// The rows of a stored journal as a journal again.
fn read_journal(
    scope: &Scope,
    id: &str,
    seq: u64,
    rows: impl IntoIterator<Item = String>,
) -> Result<Journal> {
    let events = rows.into_iter().map(|row| Event::from_json(&row)).collect::<Result<Vec<_>>>()?;
    let journal = Journal::from_events(scope.clone(), events)?;
    if journal.id() != id || journal.seq() != seq {
        return Err(Error::new(
            ErrorCode::StoreCorrupt,
            format!("the store names event {seq} of {id} as the last, and holds {}", journal.seq()),
        ));
    }
    Ok(journal)
}
