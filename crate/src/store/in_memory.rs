//! A store that ends with the process.

use std::cell::RefCell;
use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{
    LockQueue, ScopeLock, Space, Store, TextVector, VectorsInMemory, check_append, check_rewrite, closed,
    is_stored,
};
use crate::bank::{Event, Journal, Scope};
use crate::error::Result;

/// Journals in memory.
pub struct InMemoryStore {
    /// `None` once it is closed.
    journals: RefCell<Option<BTreeMap<String, Journal>>>,
    vectors: VectorsInMemory,
    locks: LockQueue,
}

impl Default for InMemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl InMemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self {
            journals: RefCell::new(Some(BTreeMap::new())),
            vectors: VectorsInMemory::default(),
            locks: LockQueue::default(),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Journal>) -> Result<T>) -> Result<T> {
        work(self.journals.borrow_mut().as_mut().ok_or_else(closed)?)
    }
}

#[async_trait(?Send)]
impl Store for InMemoryStore {
    async fn scopes(&self) -> Result<Vec<Scope>> {
        self.with(|journals| Ok(journals.values().map(|journal| journal.scope().clone()).collect()))
    }

    async fn load(&self, scope: &Scope) -> Result<Option<Journal>> {
        self.with(|journals| Ok(journals.get(&scope.key()).cloned()))
    }

    async fn append(&self, scope: &Scope, expected: u64, events: &[Event]) -> Result<()> {
        scope.validate()?;
        self.with(|journals| {
            let journal = journals.get_mut(&scope.key());
            check_append(journal.as_ref().map(|journal| (journal.id(), journal.seq())), expected, events)?;
            match journal {
                Some(journal) => journal.append(events.to_vec())?,
                None if events.is_empty() => {}
                None => {
                    journals.insert(scope.key(), Journal::from_events(scope.clone(), events.to_vec())?);
                }
            }
            Ok(())
        })
    }

    async fn rewrite(&self, expected: u64, journal: &Journal) -> Result<()> {
        self.with(|journals| {
            let old = journals.get(&journal.scope().key());
            check_rewrite(old.map(|old| (old.id(), old.seq())), expected, journal)?;
            journals.insert(journal.scope().key(), journal.clone());
            self.vectors.keep_live(journal);
            Ok(())
        })
    }

    async fn remove(&self, scope: &Scope) -> Result<bool> {
        self.vectors.remove(scope);
        self.with(|journals| Ok(journals.remove(&scope.key()).is_some()))
    }

    async fn vectors(&self, scope: &Scope, space: &Space) -> Result<Vec<TextVector>> {
        self.with(|_| Ok(self.vectors.read(scope, space)))
    }

    async fn keep_vectors(&self, journal: &Journal, space: &Space, vectors: &[TextVector]) -> Result<()> {
        self.with(|journals| {
            let stored = journals.get(&journal.scope().key());
            if is_stored(stored.map(|own| (own.id(), own.seq())), journal) {
                self.vectors.keep(journal.scope(), space, vectors);
            }
            Ok(())
        })
    }

    async fn lock(&self, scope: &Scope) -> Result<ScopeLock> {
        self.locks.lock(&scope.key()).await
    }

    async fn close(&self) -> Result<()> {
        self.journals.borrow_mut().take();
        Ok(())
    }
}
