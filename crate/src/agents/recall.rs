//! What the agents find memories by: the retriever, and a sentence encoder where there is one.

use std::rc::Rc;

use crate::error::Result;
use crate::generation::{Cancel, Embedder};
use crate::retrieval::Retriever;

/// How many texts are embedded before a stop is heard and what is done is kept.
pub(super) const CHUNK: usize = 16;

/// A retriever, and the encoder that gives it sentence vectors.
#[derive(Clone)]
pub struct Recall {
    retriever: Retriever,
    embedder: Option<Rc<dyn Embedder>>,
}

impl From<Retriever> for Recall {
    /// Without an encoder.
    fn from(retriever: Retriever) -> Self {
        Self { retriever, embedder: None }
    }
}

impl Recall {
    /// With this encoder, or without one.
    pub fn new(retriever: Retriever, embedder: Option<Rc<dyn Embedder>>) -> Self {
        Self { retriever, embedder }
    }

    /// The retriever, without a sentence vector.
    pub(super) fn retriever(&self) -> &Retriever {
        &self.retriever
    }

    /// The encoder.
    pub(super) fn embedder(&self) -> Option<&dyn Embedder> {
        self.embedder.as_deref()
    }

    /// The retriever with the sentence vectors of these texts, where there is an encoder.
    pub async fn with<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
        cancel: &Cancel,
    ) -> Result<Retriever> {
        let mut retriever = self.retriever.clone();
        self.teach(&mut retriever, texts, cancel).await?;
        Ok(retriever)
    }

    /// Embeds those of the texts that a retriever of this one has no sentence vector of. Without an encoder
    /// nothing is done.
    pub(super) async fn teach<'a>(
        &self,
        retriever: &mut Retriever,
        texts: impl IntoIterator<Item = &'a str>,
        cancel: &Cancel,
    ) -> Result<()> {
        let Some(embedder) = &self.embedder else { return Ok(()) };
        for texts in retriever.lacking(texts).chunks(CHUNK) {
            cancel.check()?;
            for (text, vector) in texts.iter().zip(embedder.embed(texts, cancel).await?) {
                retriever.learn(text, vector.into())?;
            }
        }
        Ok(())
    }
}
