//! An extractor that is told what it should find: what goes wrong behind it is the manager's.

use std::rc::Rc;

use async_trait::async_trait;

use crate::agents::Models;
use crate::datasets::synthetic::OpsCase;
use crate::error::Result;
use crate::generation::{Cancel, FinishReason, Generation, LanguageModel, ModelInfo, Request, facts_json};

/// A model that takes the same facts out of whatever it reads.
pub struct GivenFacts {
    info: ModelInfo,
    text: String,
}

impl GivenFacts {
    /// In the place of a model that says this of itself.
    pub fn new<S: AsRef<str>>(info: &ModelInfo, facts: &[S]) -> Self {
        Self { info: info.clone(), text: facts_json(facts) }
    }
}

/// The same models, with the fact that the case states in the extractor's place; no fact where it
/// states none.
pub fn with_given_facts(models: &Models, case: &OpsCase) -> Models {
    let facts: Vec<&str> = case.fact.as_deref().into_iter().collect();
    let extractor = GivenFacts::new(models.extractor.info(), &facts);
    Models { extractor: Rc::new(extractor), ..models.clone() }
}

#[async_trait(?Send)]
impl LanguageModel for GivenFacts {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn generate(
        &self,
        _request: &Request,
        cancel: &Cancel,
        on_text: &mut dyn for<'a> FnMut(&'a str),
    ) -> Result<Generation> {
        cancel.check()?;
        on_text(&self.text);
        Ok(Generation {
            prompt_ids: Vec::new(),
            ids: Vec::new(),
            logprobs: Vec::new(),
            parts: Vec::new(),
            ends: Vec::new(),
            text: self.text.clone(),
            finish_reason: FinishReason::Stop,
        })
    }
}
