//! A model that is asked otherwise than it says of itself.

use std::rc::Rc;

use async_trait::async_trait;

use super::language_model::{Cancel, ChatMessage, Generation, LanguageModel, ModelInfo, Request};
use crate::error::Result;

/// The same model with other facts about it.
pub struct Described {
    model: Rc<dyn LanguageModel>,
    info: ModelInfo,
}

impl Described {
    /// This model, of which `info` holds.
    pub fn new(model: Rc<dyn LanguageModel>, info: ModelInfo) -> Self {
        Self { model, info }
    }
}

#[async_trait(?Send)]
impl LanguageModel for Described {
    fn info(&self) -> &ModelInfo {
        &self.info
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
        self.model.generate(request, cancel, on_text).await
    }

    async fn samples(&self, request: &Request, count: usize, cancel: &Cancel) -> Result<Vec<Generation>> {
        self.model.samples(request, count, cancel).await
    }

    async fn samples_each(
        &self,
        asked: &[(Request, usize)],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Generation>>> {
        self.model.samples_each(asked, cancel).await
    }
}
