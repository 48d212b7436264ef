//! A model that keeps what it was asked and what it wrote: from that a trajectory is made.

use std::cell::RefCell;
use std::rc::Rc;

use async_trait::async_trait;

use super::trajectory::Segment;
use crate::error::Result;
use crate::generation::{Cancel, ChatMessage, Generation, LanguageModel, ModelInfo, Request};

/// Asks another model, and keeps everything.
pub struct Recorder {
    model: Rc<dyn LanguageModel>,
    kept: RefCell<Vec<Segment>>,
}

impl Recorder {
    /// Of this model, with nothing kept.
    pub fn new(model: Rc<dyn LanguageModel>) -> Self {
        Self { model, kept: RefCell::default() }
    }

    /// What was asked since the last time, in order.
    pub fn take(&self) -> Vec<Segment> {
        self.kept.take()
    }
}

#[async_trait(?Send)]
impl LanguageModel for Recorder {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    fn room(&self, messages: &[ChatMessage]) -> Result<usize> {
        self.model.room(messages)
    }

    async fn generate(
        &self,
        request: &Request,
        cancel: &Cancel,
        on_text: &mut dyn for<'a> FnMut(&'a str),
    ) -> Result<Generation> {
        let generation = self.model.generate(request, cancel, on_text).await?;
        self.kept.borrow_mut().push(Segment { request: request.clone(), generation: generation.clone() });
        Ok(generation)
    }

    async fn samples(&self, request: &Request, count: usize, cancel: &Cancel) -> Result<Vec<Generation>> {
        let written = self.model.samples(request, count, cancel).await?;
        let kept = written.iter().enumerate().map(|(sample, generation)| Segment {
            request: Request { sampling: request.sampling.of_sample(sample as u64), ..request.clone() },
            generation: generation.clone(),
        });
        self.kept.borrow_mut().extend(kept);
        Ok(written)
    }
}
