//! A completion while it is written, under a grammar or freely.

use std::sync::Arc;

use crate::error::Result;
use crate::generation::constraint::{Constraint, Step};
use crate::generation::free_text::FreeText;
use crate::generation::sampler::Choice;
use crate::generation::{Bitset, FinishReason, Generation, Part, Tokenizer};

/// What comes next.
pub(super) enum Next {
    /// One of these tokens, all where there is no set.
    Choose(Option<Arc<Bitset>>),
    /// Nothing.
    Done,
}

#[derive(Clone)]
enum Form<'a> {
    Constrained(Box<Constraint>),
    Free {
        text: FreeText<'a>,
        /// The tokens that there are, where the logits are wider than the vocabulary.
        known: Option<Arc<Bitset>>,
        room: usize,
    },
}

/// Its tokens and its text so far.
#[derive(Clone)]
pub(super) struct Writing<'a> {
    form: Form<'a>,
    ids: Vec<u32>,
    logprobs: Vec<f32>,
    parts: Vec<Part>,
    ends: Vec<usize>,
    text: String,
    told: usize,
    reason: Option<FinishReason>,
}

impl<'a> Writing<'a> {
    pub(super) fn constrained(constraint: Constraint) -> Self {
        Self::new(Form::Constrained(Box::new(constraint)))
    }

    /// At most `room` tokens.
    pub(super) fn free(text: FreeText<'a>, known: Option<Arc<Bitset>>, room: usize) -> Self {
        Self::new(Form::Free { text, known, room })
    }

    fn new(form: Form<'a>) -> Self {
        let (ids, logprobs, parts, ends) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { form, ids, logprobs, parts, ends, text: String::new(), told: 0, reason: None }
    }

    /// What comes next, after the model has read `unread`: what must follow is put there too.
    pub(super) fn next(&mut self, unread: &mut Vec<u32>) -> Result<Next> {
        if self.reason.is_some() {
            return Ok(Next::Done);
        }
        match &mut self.form {
            Form::Constrained(constraint) => loop {
                match constraint.next()? {
                    Step::Forced(forced) => {
                        unread.extend_from_slice(&forced);
                        self.logprobs.resize(self.ids.len() + forced.len(), 0.0);
                        self.parts.resize(self.ids.len() + forced.len(), Part::Forced);
                        self.ends.resize(self.ids.len() + forced.len(), constraint.text().len());
                        self.ids.extend(forced);
                    }
                    Step::Choose(allowed) => return Ok(Next::Choose(Some(allowed))),
                    Step::Done => {
                        self.reason = Some(FinishReason::Stop);
                        return Ok(Next::Done);
                    }
                }
            },
            Form::Free { known, room, .. } if self.ids.len() < *room => Ok(Next::Choose(known.clone())),
            Form::Free { .. } => {
                self.end(FinishReason::Length);
                Ok(Next::Done)
            }
        }
    }

    /// Takes what was chosen.
    pub(super) fn accept(&mut self, choice: Choice, tokenizer: &Tokenizer) -> Result<()> {
        let mut ends = false;
        let part = match &mut self.form {
            Form::Constrained(constraint) => constraint.accept(choice.id)?,
            Form::Free { text, .. } => {
                ends = tokenizer.end_tokens().contains(&choice.id);
                if !ends {
                    self.text.push_str(&text.push(tokenizer, choice.id));
                    ends = text.is_stopped();
                }
                Part::Text
            }
        };
        self.ids.push(choice.id);
        self.logprobs.push(choice.logprob);
        self.parts.push(part);
        self.ends.push(self.text().len());
        if ends {
            self.end(FinishReason::Stop);
        }
        Ok(())
    }

    /// Ends free text, of which half a character or the beginning of a stop string may be left.
    fn end(&mut self, reason: FinishReason) {
        if let Form::Free { text, .. } = &mut self.form {
            let (rest, stopped) = text.finish();
            self.text.push_str(&rest);
            self.reason = Some(if stopped { FinishReason::Stop } else { reason });
        }
    }

    /// The tokens.
    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    fn text(&self) -> &str {
        match &self.form {
            Form::Constrained(constraint) => constraint.text(),
            Form::Free { .. } => &self.text,
        }
    }

    /// Tells the text that is new since the last time.
    pub(super) fn tell(&mut self, on_text: &mut dyn FnMut(&str)) {
        let new = &self.text()[self.told..];
        if !new.is_empty() {
            on_text(new);
            self.told = self.text().len();
        }
    }

    pub(super) fn finish(self, prompt_ids: Vec<u32>) -> Generation {
        let text = self.text().to_owned();
        let Self { ids, logprobs, parts, ends, reason, .. } = self;
        let finish_reason = reason.unwrap_or(FinishReason::Length);
        Generation { prompt_ids, ids, logprobs, parts, ends, text, finish_reason }
    }
}
