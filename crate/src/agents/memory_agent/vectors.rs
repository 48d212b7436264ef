//! The sentence vectors of memories: read from the store, or made and kept there.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tracing::warn;

use super::super::recall::CHUNK;
use super::MemoryAgent;
use crate::bank::{Event, Journal};
use crate::error::Result;
use crate::generation::{Cancel, Embedder};
use crate::retrieval::Retriever;
use crate::store::{Space, TextKey, TextVector};

/// Hears how many of how many memories are embedded, where they are many.
pub type OnEmbedded = Rc<dyn Fn(usize, usize)>;

impl MemoryAgent {
    /// The retriever with the sentence vectors of all live memories of these journals, where there is an encoder.
    ///
    /// Those that the store has are read; the others are embedded, and kept as they come: a stop loses
    /// at most [`CHUNK`] of them.
    pub(super) async fn retriever_of(&self, journals: &[&Journal], cancel: &Cancel) -> Result<Retriever> {
        let mut retriever = self.recall.retriever().clone();
        let Some(embedder) = self.recall.embedder() else { return Ok(retriever) };
        let space = space_of(embedder);
        let mut lacking = Vec::with_capacity(journals.len());
        for journal in journals {
            let kept = self.store.vectors(journal.scope(), &space).await?;
            let kept: HashMap<TextKey, Arc<[f32]>> =
                kept.into_iter().map(|own| (own.text, own.vector)).collect();
            for memory in journal.bank().memories() {
                if let Some(vector) = kept.get(&TextKey::of(&memory.text)) {
                    // One that is damaged is made again.
                    let _ = retriever.learn(&memory.text, vector.clone());
                }
            }
            lacking.push(retriever.lacking(journal.bank().memories().map(|memory| &*memory.text)));
        }
        let total: usize = lacking.iter().map(Vec::len).sum();
        let mut done = 0;
        for (journal, texts) in journals.iter().zip(&lacking) {
            for texts in texts.chunks(CHUNK) {
                self.recall.teach(&mut retriever, texts.iter().copied(), cancel).await?;
                self.keep_vectors(journal, &retriever, texts).await;
                done += texts.len();
                if let (Some(heard), true) = (&self.on_embedded, total > CHUNK) {
                    heard(done, total);
                }
            }
        }
        Ok(retriever)
    }

    /// Keeps what the retriever has of the memories that these events, appended to the journal, made.
    pub(super) async fn keep_new(&self, mut journal: Journal, events: Vec<Event>, retriever: &Retriever) {
        let texts = events.iter().filter_map(|event| Some(event.after.as_ref()?.text.clone()));
        let texts: Vec<String> = texts.collect();
        if self.recall.embedder().is_some() && journal.append(events).is_ok() {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            self.keep_vectors(&journal, retriever, &texts).await;
        }
    }

    /// Keeps what the retriever has of these texts, memories of the journal, beside it.
    ///
    /// Vectors are derived: where they cannot be kept, they are made again next time.
    async fn keep_vectors(&self, journal: &Journal, retriever: &Retriever, texts: &[&str]) {
        let Some(embedder) = self.recall.embedder() else { return };
        let own = |text: &&str| {
            let vector = retriever.vector(text)?.clone();
            Some(TextVector { text: TextKey::of(text), vector })
        };
        let vectors: Vec<TextVector> = texts.iter().filter_map(own).collect();
        if let Err(error) = self.store.keep_vectors(journal, &space_of(embedder), &vectors).await {
            warn!(%error, "sentence vectors are not kept");
        }
    }
}

fn space_of(embedder: &dyn Embedder) -> Space {
    let info = embedder.info();
    Space { embedder: info.fingerprint.clone(), dimensions: info.dimensions }
}
