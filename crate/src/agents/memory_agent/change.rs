//! Changing what is remembered by name, and forgetting.

use serde::Serialize;

use super::{MemoryAgent, REDECISIONS, Remembered};
use crate::bank::{Change, Event, Journal, MemoryId, Operation, Scope, clean_text};
use crate::error::{Error, ErrorCode, Result};
use crate::store::ScopeLock;

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Events that were new.
    pub imported: u64,
    /// Events that were there already.
    pub skipped: u64,
}

impl MemoryAgent {
    /// Gives a memory another text.
    pub async fn update(&self, id: &MemoryId, text: &str) -> Result<Remembered> {
        let text = clean_text(text)?;
        let operation = Operation::Update { id: id.clone(), text };
        self.change(id, &operation).await?;
        self.get(id).await
    }

    /// Takes a memory out of the bank. Its history stays, unless `erase` blanks it for ever;
    /// a memory that was deleted before can still be erased.
    pub async fn delete(&self, id: &MemoryId, erase: bool) -> Result<()> {
        if !erase {
            self.change(id, &Operation::Delete { id: id.clone() }).await?;
            return Ok(());
        }
        let scope = self.journal_of(id).await?.scope().clone();
        self.erase(&scope, |_| vec![id.clone()]).await?;
        Ok(())
    }

    /// Erases every memory, the deleted ones too, of every scope that agrees with the filter's
    /// ids; how many there were.
    pub async fn delete_all(&self, filter: &Scope) -> Result<usize> {
        filter.validate()?;
        let mut erased = 0;
        for scope in self.store.scopes().await?.iter().filter(|scope| scope.agrees_with(filter)) {
            erased += self.erase(scope, Journal::erasable_ids).await?;
        }
        Ok(erased)
    }

    /// Removes every journal of the store, as if there had never been one.
    pub async fn reset(&self) -> Result<()> {
        for scope in self.store.scopes().await? {
            let _lock = self.store.lock(&scope).await?;
            self.store.remove(&scope).await?;
        }
        Ok(())
    }

    /// Takes back the latest change of exactly this scope that is not undone; its events, none
    /// where there is nothing to take back. What was erased does not come back.
    pub async fn undo(&self, scope: &Scope) -> Result<Vec<Event>> {
        self.append(scope, |journal| Ok(journal.undo(self.now())?.unwrap_or_default())).await
    }

    /// Appends what an export has beyond the journals here. Importing it twice changes nothing;
    /// a journal that parts from the one here is [`ErrorCode::StoreConflict`], and then nothing
    /// is imported. Only where the platform has no locks can another tab write in between; then the
    /// journals before that one are imported, and importing again takes up the rest.
    pub async fn import(&self, data: &str) -> Result<Imported> {
        let mut journals = Journal::read_export(data)?;
        journals.sort_by_key(|journal| journal.scope().key());
        if journals.windows(2).any(|pair| pair[0].scope() == pair[1].scope()) {
            return Err(Error::invalid("the export holds two journals of one scope"));
        }
        let mut locks: Vec<ScopeLock> = Vec::with_capacity(journals.len());
        let mut batches: Vec<(Scope, u64, Vec<Event>)> = Vec::with_capacity(journals.len());
        let mut done = Imported::default();
        for theirs in &journals {
            locks.push(self.store.lock(theirs.scope()).await?);
            let (seq, events) = match self.store.load(theirs.scope()).await? {
                Some(own) => (own.seq(), own.missing_from(theirs)?),
                None => (0, theirs.events().to_vec()),
            };
            done.imported += events.len() as u64;
            done.skipped += theirs.seq() - events.len() as u64;
            batches.push((theirs.scope().clone(), seq, events));
        }
        for (scope, seq, events) in batches.iter().filter(|(_, _, events)| !events.is_empty()) {
            self.store.append(scope, *seq, events).await?;
        }
        Ok(done)
    }

    /// One operation that a caller asked for by name.
    async fn change(&self, id: &MemoryId, operation: &Operation) -> Result<Vec<Event>> {
        let scope = self.journal_of(id).await?.scope().clone();
        self.append(&scope, |journal| {
            let speaker = journal.bank().require(id)?.speaker.clone();
            let mut draft = journal.draft(self.now());
            draft.apply(operation, Change::by_user(speaker, self.now()))?;
            Ok(draft.finish())
        })
        .await
    }

    async fn erase(&self, scope: &Scope, ids: impl Fn(&Journal) -> Vec<MemoryId>) -> Result<usize> {
        let _lock = self.store.lock(scope).await?;
        let mut conflicts = 0;
        loop {
            let journal = self.journal(scope).await?;
            let ids = ids(&journal);
            if ids.is_empty() {
                return Ok(0);
            }
            match self.store.rewrite(journal.seq(), &journal.erase(&ids, self.now())?).await {
                Err(error) if error.code() == ErrorCode::StoreConflict && conflicts < REDECISIONS => {
                    conflicts += 1;
                }
                rewritten => return rewritten.map(|()| ids.len()),
            }
        }
    }
}
