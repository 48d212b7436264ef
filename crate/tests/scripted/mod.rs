//! A model that says what a test tells it to, for the decisions that no real model can be made
//! to take on purpose.

#![allow(dead_code, reason = "each test uses its part")]

use std::cell::RefCell;
use std::rc::Rc;

use async_trait::async_trait;
use memory_r1::error::{Error, ErrorCode, Result};
use memory_r1::generation::{
    Cancel, ChatMessage, FinishReason, Generation, LanguageModel, ModelInfo, Part, PromptFamily, Request,
};

type Script = Box<dyn FnMut(&str, &str) -> Result<String>>;

/// Answers by a script, which gets the task (`extract`, `manage` or `answer`) and the prompt's
/// body, and keeps every request.
pub(crate) struct ScriptedModel {
    info: ModelInfo,
    script: RefCell<Script>,
    pub(crate) asked: RefCell<Vec<(String, String)>>,
}

impl ScriptedModel {
    pub(crate) fn new(script: impl FnMut(&str, &str) -> Result<String> + 'static) -> Rc<Self> {
        Self::with_context(8192, script)
    }

    /// Believes a list of facts only where its tokens have this mean probability: its own is 0.687.
    pub(crate) fn doubting(
        fact_threshold: f64,
        script: impl FnMut(&str, &str) -> Result<String> + 'static,
    ) -> Rc<Self> {
        let mut model = Self::new(script);
        if let Some(own) = Rc::get_mut(&mut model) {
            own.info.fact_threshold = fact_threshold;
        }
        model
    }

    /// Is shown so many memories beside a turn that it takes facts out of.
    pub(crate) fn with_extractor_candidates(
        candidates: usize,
        context: usize,
        script: impl FnMut(&str, &str) -> Result<String> + 'static,
    ) -> Rc<Self> {
        let mut model = Self::with_context(context, script);
        if let Some(own) = Rc::get_mut(&mut model) {
            own.info.extractor_candidates = candidates;
        }
        model
    }

    /// Prompts longer than `context` bytes do not fit.
    pub(crate) fn with_context(
        context: usize,
        script: impl FnMut(&str, &str) -> Result<String> + 'static,
    ) -> Rc<Self> {
        let info = ModelInfo {
            name: "scripted".into(),
            fingerprint: "f".repeat(64),
            prompt_family: PromptFamily::Compact,
            context_length: context,
            candidates_per_speaker: 12,
            manager_candidates: 5,
            extractor_candidates: 0,
            fact_threshold: 0.0,
        };
        Rc::new(Self { info, script: RefCell::new(Box::new(script)), asked: RefCell::default() })
    }

    /// The bodies of the prompts of one task.
    pub(crate) fn bodies(&self, task: &str) -> Vec<String> {
        self.asked.borrow().iter().filter(|(own, _)| own == task).map(|(_, body)| body.clone()).collect()
    }
}

#[async_trait(?Send)]
impl LanguageModel for ScriptedModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn room(&self, messages: &[ChatMessage]) -> Result<usize> {
        Ok(self.info.context_length.saturating_sub(messages[1].content.len()))
    }

    async fn generate(
        &self,
        request: &Request,
        cancel: &Cancel,
        on_text: &mut dyn for<'a> FnMut(&'a str),
    ) -> Result<Generation> {
        cancel.check()?;
        let (task, body) = (&request.messages[0].content, &request.messages[1].content);
        if body.len() > self.info.context_length {
            return Err(Error::new(ErrorCode::ContextOverflow, "too long"));
        }
        self.asked.borrow_mut().push((task.clone(), body.clone()));
        let text = (self.script.borrow_mut())(task, body)?;
        for piece in text.chars().collect::<Vec<_>>().chunks(3) {
            on_text(&piece.iter().collect::<String>());
        }
        Ok(Generation {
            prompt_ids: vec![0; body.len()],
            ids: vec![1, 2, 3],
            logprobs: vec![0.0, -0.5, -0.25],
            parts: vec![Part::Forced, Part::Event, Part::Id],
            ends: vec![0, text.len(), text.len()],
            text,
            finish_reason: FinishReason::Stop,
        })
    }
}
