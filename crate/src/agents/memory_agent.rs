//! The agent that remembers: models, a store, a clock.

mod add;
mod answer;
mod change;
mod read;
mod vectors;

use std::rc::Rc;

use serde::Serialize;

pub use add::{AddOptions, AddResult, ExtractFrom, OnProgress, Progress};
pub use answer::{Answer, AnswerOptions, OnText};
pub use change::Imported;
pub use read::{Recalled, SearchOptions};
pub use vectors::OnEmbedded;

use super::{AnswerAgent, Extractor, Manager, Recall};
use crate::bank::{Event, Journal, Memory, MemoryId, Scope, Timestamp};
use crate::error::{Error, ErrorCode, Result};
use crate::generation::{Embedder, LanguageModel};
use crate::retrieval::Retriever;
use crate::store::Store;

/// How often a decision is made again when somebody else appended in the meantime.
const REDECISIONS: usize = 3;

/// The time, as the edges know it.
pub type Clock = Rc<dyn Fn() -> Timestamp>;
/// Where the id of a scope's new journal comes from: 32 hexadecimal digits.
pub type JournalIds = Rc<dyn Fn(&Scope) -> String>;

/// Which model plays which part.
#[derive(Clone)]
pub struct Models {
    /// Takes facts out of turns.
    pub extractor: Rc<dyn LanguageModel>,
    /// Decides.
    pub manager: Rc<dyn LanguageModel>,
    /// Answers.
    pub answer_agent: Rc<dyn LanguageModel>,
    /// Finds what they are shown.
    pub retriever: Retriever,
    /// Where there is one, what is found by its sentence vectors counts as much as what the retriever finds.
    pub embedder: Option<Rc<dyn Embedder>>,
}

impl Models {
    /// One model for all three, and lexical retrieval.
    pub fn one(model: Rc<dyn LanguageModel>) -> Self {
        let retriever = Retriever::default();
        Self {
            extractor: model.clone(),
            manager: model.clone(),
            answer_agent: model,
            retriever,
            embedder: None,
        }
    }

    /// The same models with another retriever.
    pub fn with_retriever(self, retriever: Retriever) -> Self {
        Self { retriever, ..self }
    }

    /// What finds memories for them.
    pub fn recall(&self) -> Recall {
        Recall::new(self.retriever.clone(), self.embedder.clone())
    }
}

/// A memory and whose it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Remembered {
    /// The scope that it was found in.
    pub scope: Scope,
    /// The memory.
    pub memory: Memory,
}

/// Remembers, answers and forgets, in the scopes of one store.
pub struct MemoryAgent {
    extractor: Extractor,
    manager: Manager,
    answer_agent: AnswerAgent,
    recall: Recall,
    store: Rc<dyn Store>,
    clock: Clock,
    journal_ids: JournalIds,
    on_embedded: Option<OnEmbedded>,
}

impl MemoryAgent {
    /// An agent on a store.
    pub fn new(models: Models, store: Rc<dyn Store>, clock: Clock, journal_ids: JournalIds) -> Self {
        let recall = models.recall();
        Self {
            extractor: Extractor::new(models.extractor),
            manager: Manager::new(models.manager, recall.clone()),
            answer_agent: AnswerAgent::new(models.answer_agent, recall.clone()),
            recall,
            store,
            clock,
            journal_ids,
            on_embedded: None,
        }
    }

    /// Tells a listener how far it is where many memories have to be embedded before a call can go on:
    /// all of them after another encoder was chosen.
    #[must_use]
    pub fn with_on_embedded(self, listener: OnEmbedded) -> Self {
        Self { on_embedded: Some(listener), ..self }
    }

    /// The extractor, bare.
    pub fn extractor(&self) -> &Extractor {
        &self.extractor
    }

    /// The manager, bare.
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// The answer agent, bare.
    pub fn answer_agent(&self) -> &AnswerAgent {
        &self.answer_agent
    }

    /// The sentence encoder, where there is one.
    pub fn embedder(&self) -> Option<&dyn Embedder> {
        self.recall.embedder()
    }

    /// Where the journals are.
    pub fn store(&self) -> &Rc<dyn Store> {
        &self.store
    }

    /// The clock's time: what turns without a time of their own are given.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The journal of exactly this scope, a new one where there is none.
    async fn journal(&self, scope: &Scope) -> Result<Journal> {
        match self.store.load(scope).await? {
            Some(journal) => Ok(journal),
            None => Journal::new((self.journal_ids)(scope), scope.clone()),
        }
    }

    /// The journals of every scope that agrees with the filter's ids.
    async fn journals(&self, filter: &Scope) -> Result<Vec<Journal>> {
        filter.validate()?;
        self.journals_where(|scope| scope.agrees_with(filter)).await
    }

    async fn journals_where(&self, wanted: impl Fn(&Scope) -> bool) -> Result<Vec<Journal>> {
        let mut journals = Vec::new();
        for scope in self.store.scopes().await?.iter().filter(|scope| wanted(scope)) {
            journals.extend(self.store.load(scope).await?);
        }
        Ok(journals)
    }

    /// The journal that ever had this memory, or `NOT_FOUND`.
    async fn journal_of(&self, id: &MemoryId) -> Result<Journal> {
        for scope in self.store.scopes().await? {
            if let Some(journal) = self.store.load(&scope).await?
                && journal.history(id).is_ok()
            {
                return Ok(journal);
            }
        }
        Err(Error::new(ErrorCode::NotFound, format!("no memory has the id {id}")))
    }

    /// Makes a batch on top of the scope's journal and appends it, under the scope's lock; made
    /// again where another process was faster.
    async fn append(
        &self,
        scope: &Scope,
        mut make: impl FnMut(&Journal) -> Result<Vec<Event>>,
    ) -> Result<Vec<Event>> {
        scope.validate()?;
        let _lock = self.store.lock(scope).await?;
        let mut conflicts = 0;
        loop {
            let journal = self.journal(scope).await?;
            let events = make(&journal)?;
            if events.is_empty() {
                return Ok(events);
            }
            match self.store.append(scope, journal.seq(), &events).await {
                Err(error) if error.code() == ErrorCode::StoreConflict && conflicts < REDECISIONS => {
                    conflicts += 1;
                }
                appended => return appended.map(|()| events),
            }
        }
    }
}

impl Journal {
    /// The live memories with their scope.
    fn remembered(&self) -> impl Iterator<Item = Remembered> + '_ {
        self.bank()
            .memories()
            .map(|memory| Remembered { scope: self.scope().clone(), memory: memory.clone() })
    }
}
