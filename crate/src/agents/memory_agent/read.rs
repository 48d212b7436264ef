//! Looking at what is remembered, without a model.

use serde::Serialize;

use super::super::extractor::clean_content;
use super::{MemoryAgent, Remembered};
use crate::bank::{Difference, Event, Journal, MemoryBank, MemoryId, Moment, Scope};
use crate::error::{Error, ErrorCode, Result};
use crate::generation::Cancel;
use crate::retrieval::Score;

/// How to search.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// The most results.
    pub top_k: usize,
    /// The least score, in 0..1: by words or by sentence vectors, whichever is more. What has nothing in
    /// common with the query is never a result.
    pub threshold: f64,
    /// Whether results say what their score is made of.
    pub explain: bool,
    /// Stops the work.
    pub cancel: Cancel,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self { top_k: 20, threshold: 0.0, explain: false, cancel: Cancel::default() }
    }
}

/// A found memory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recalled {
    /// The memory and whose it is.
    #[serde(flatten)]
    pub found: Remembered,
    /// How well it fits, in 0..1; where sentence vectors count too, their ranks order the list, not this.
    pub score: f64,
    /// With `explain`: what the score is made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Score>,
}

impl MemoryAgent {
    /// The memories that fit the query best, best first, of every scope that agrees with the
    /// filter's ids.
    pub async fn search(
        &self,
        query: &str,
        filter: &Scope,
        options: &SearchOptions,
    ) -> Result<Vec<Recalled>> {
        let query = clean_content(query, "a query")?;
        if !(0.0..=1.0).contains(&options.threshold) {
            return Err(Error::invalid(format!(
                "a threshold is a number in 0..1, not {}",
                options.threshold
            )));
        }
        let journals = self.journals(filter).await?;
        let own: Vec<&Journal> = journals.iter().collect();
        let mut retriever = self.retriever_of(&own, &options.cancel).await?;
        self.recall.teach(&mut retriever, [&*query], &options.cancel).await?;
        let memories: Vec<Remembered> = journals.iter().flat_map(Journal::remembered).collect();
        let texts: Vec<&str> = memories.iter().map(|remembered| remembered.memory.text.as_str()).collect();
        let scores = retriever.scores(&texts, &query);
        let mut found: Vec<(Remembered, Score)> = memories
            .into_iter()
            .zip(scores)
            .filter(|(_, score)| score.score > 0.0 && score.score >= options.threshold)
            .collect();
        found.sort_by(|(_, a), (_, b)| b.order(a));
        found.truncate(options.top_k);
        let recalled = found.into_iter().map(|(found, score)| Recalled {
            found,
            score: score.score,
            explanation: options.explain.then_some(score),
        });
        Ok(recalled.collect())
    }

    /// The live memory of this id, in whatever scope; otherwise [`ErrorCode::NotFound`].
    pub async fn get(&self, id: &MemoryId) -> Result<Remembered> {
        let journal = self.journal_of(id).await?;
        let memory = journal.bank().require(id)?.clone();
        Ok(Remembered { scope: journal.scope().clone(), memory })
    }

    /// The live memories of every scope that agrees with the filter's ids, in the order of
    /// their creation within a scope, at most `top_k`.
    pub async fn get_all(&self, filter: &Scope, top_k: usize) -> Result<Vec<Remembered>> {
        let journals = self.journals(filter).await?;
        Ok(journals.iter().flat_map(Journal::remembered).take(top_k).collect())
    }

    /// Every event of one memory, from its first, also after it is gone.
    pub async fn history(&self, id: &MemoryId) -> Result<Vec<Event>> {
        Ok(self.journal_of(id).await?.history(id)?.into_iter().cloned().collect())
    }

    /// The bank of exactly this scope as it was then.
    pub async fn as_of(&self, scope: &Scope, when: Moment) -> Result<MemoryBank> {
        self.existing(scope).await?.as_of(when)
    }

    /// What changed in exactly this scope from `a` to `b`.
    pub async fn diff(&self, scope: &Scope, a: Moment, b: Moment) -> Result<Difference> {
        self.existing(scope).await?.diff(a, b)
    }

    /// The journal of exactly this scope; an empty one, in no store, where there is none.
    pub async fn existing(&self, scope: &Scope) -> Result<Journal> {
        scope.validate()?;
        self.journal(scope).await
    }

    /// The journals of every scope that agrees with the filter's ids, or of all, as JSON lines.
    /// Where there is none, [`ErrorCode::NotFound`].
    pub async fn export(&self, filter: Option<&Scope>) -> Result<String> {
        let journals = match filter {
            Some(filter) => self.journals(filter).await?,
            None => self.journals_where(|_| true).await?,
        };
        if journals.is_empty() {
            return Err(Error::new(
                ErrorCode::NotFound,
                "there is nothing to export: no journal in this scope",
            ));
        }
        Ok(journals.iter().map(Journal::export).collect())
    }
}
