//! What the agents know of a model: it has facts about itself, and it generates.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Grammar;
use crate::error::{Error, Result};

/// How prompts are worded for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptFamily {
    /// For instruction-tuned models: the paper's instructions in full.
    Instruct,
    /// For models trained on the task itself, such as nano: data and nothing else.
    Compact,
}

/// What a caller should know about a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Its name.
    pub name: String,
    /// The sha256 of its weights, 64 hexadecimal digits.
    pub fingerprint: String,
    /// The wording of its prompts.
    pub prompt_family: PromptFamily,
    /// The longest prompt and completion together, in tokens.
    pub context_length: usize,
    /// How many memories of one speaker the answer agent is shown (Memory-R1: 30).
    pub candidates_per_speaker: usize,
    /// How many related memories the manager is shown (Memory-R1's code: 5).
    pub manager_candidates: usize,
    /// How many related memories the extractor is shown beside a turn (Memory-R1: none).
    pub extractor_candidates: usize,
    /// A fact whose tokens have a lower mean probability is not believed; 0 believes all.
    pub fact_threshold: f64,
}

/// One message of a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

/// How the next token is chosen: by transformers' logits warpers in their order, that is
/// temperature, top-k, top-p, min-p, behind the grammar's mask.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Only the k most probable tokens and those equal to the last of them; 0 is all.
    pub top_k: usize,
    /// Only the smallest set with this much probability, 0 to 1, at least the best; 1 is all.
    pub top_p: f32,
    /// Only tokens at least this probable relative to the best, 0 to 1; 0 is all.
    pub min_p: f32,
    /// The seed of the random numbers.
    pub seed: u64,
    /// What else keys them: (step, example, sample); the position is added.
    pub key: [u64; 3],
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0, key: [0; 3] }
    }
}

impl Sampling {
    /// `INVALID_ARGUMENT` where a number is out of its range.
    pub fn check(&self) -> Result<()> {
        let Self { temperature, top_p, min_p, .. } = *self;
        if !(temperature.is_finite() && temperature >= 0.0) {
            return Err(Error::invalid(format!(
                "temperature must be a number of at least 0, not {temperature}"
            )));
        }
        for (name, share) in [("top_p", top_p), ("min_p", min_p)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::invalid(format!("{name} must be a number from 0 to 1, not {share}")));
            }
        }
        Ok(())
    }

    /// The same with the random numbers of another sample of the same prompt.
    #[must_use]
    pub fn of_sample(&self, sample: u64) -> Self {
        let [step, example, first] = self.key;
        Self { key: [step, example, first.wrapping_add(sample)], ..*self }
    }

    /// One seed for a server, of all that keys the random numbers.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn server_seed(&self) -> u64 {
        crate::random::keyed(self.seed, &self.key) >> 33
    }

    /// Whether a draw may leave out tokens that are allowed. Greedy takes the best, which every
    /// filter keeps.
    pub(super) fn is_filtered(&self) -> bool {
        self.temperature > 0.0 && (self.top_k > 0 || self.top_p < 1.0 || self.min_p > 0.0)
    }
}

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The conversation so far; the model's chat template renders it.
    pub messages: Vec<ChatMessage>,
    /// What the completion must look like; free text where it is `None`.
    pub grammar: Option<Grammar>,
    /// The most tokens to generate.
    pub max_new_tokens: usize,
    /// How to choose.
    pub sampling: Sampling,
    /// Free text ends before the first of these, none of them empty. Not with a grammar, which
    /// knows its own end.
    pub stop: Vec<String>,
}

/// What a generated token spells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The only one allowed: log-probability 0, no weight in any loss.
    Forced,
    /// (A piece of) an operation's name.
    Event,
    /// (A piece of) an id.
    Id,
    /// Anything else that was chosen.
    Text,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The grammar is complete, an end token was chosen, or the text came to a stop string.
    Stop,
    /// `max_new_tokens` or the context is used up.
    Length,
}

/// What was generated.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// The rendered prompt.
    pub prompt_ids: Vec<u32>,
    /// The new tokens; those of a stop string too.
    pub ids: Vec<u32>,
    /// The natural logarithm of each new token's probability, renormalised over the allowed set;
    /// with top-k, top-p or min-p, of the distribution that it was drawn from.
    pub logprobs: Vec<f32>,
    /// What each new token spells.
    pub parts: Vec<Part>,
    /// How long the text is, in bytes, once each new token is written.
    pub ends: Vec<usize>,
    /// The completion; under a grammar a JSON object, without the lines that the engine inserted,
    /// and without a stop string.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

impl Generation {
    /// The probability of the tokens of one part, taken together.
    pub fn probability(&self, part: Part) -> f64 {
        let chosen = self.parts.iter().zip(&self.logprobs).filter(|(own, _)| **own == part);
        chosen.map(|(_, logprob)| f64::from(*logprob)).sum::<f64>().exp()
    }

    /// The geometric mean of the probabilities of the chosen tokens that end in this part of the text;
    /// 1 where none does.
    pub fn mean_probability(&self, text: &RangeInclusive<usize>) -> f64 {
        let tokens = self.parts.iter().zip(&self.ends).zip(&self.logprobs);
        let chosen = tokens.filter(|((part, end), _)| **part != Part::Forced && text.contains(end));
        let (count, sum) =
            chosen.fold((0, 0.0), |(count, sum), (_, logprob)| (count + 1, sum + f64::from(*logprob)));
        (sum / f64::from(count.max(1))).exp()
    }
}

/// A flag that stops the work at its next step.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks for the stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// `ABORTED` once it was asked for.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::aborted()) } else { Ok(()) }
    }
}

/// A model that answers prompts: local weights or a server. Not `Send`: a browser's is not.
#[async_trait(?Send)]
pub trait LanguageModel {
    /// What it is.
    fn info(&self) -> &ModelInfo;

    /// How many tokens fit behind this prompt; [`usize::MAX`] where the model cannot tell.
    fn room(&self, _messages: &[ChatMessage]) -> Result<usize> {
        Ok(usize::MAX)
    }

    /// Generates. `on_text` gets the completion piece by piece, whole characters
    /// only, without the lines that the engine inserts.
    /// A prompt that does not fit is `CONTEXT_OVERFLOW` before any work.
    async fn generate(
        &self,
        request: &Request,
        cancel: &Cancel,
        on_text: &mut dyn for<'a> FnMut(&'a str),
    ) -> Result<Generation>;

    /// So many samples of one prompt: each is what [`LanguageModel::generate`] gives with
    /// [`Sampling::of_sample`]. A local model reads the prompt once and writes them side by side,
    /// which rounds otherwise than one alone (log-probabilities within 1e-5 in f32).
    async fn samples(&self, request: &Request, count: usize, cancel: &Cancel) -> Result<Vec<Generation>> {
        let mut samples = Vec::with_capacity(count);
        for sample in 0..count as u64 {
            let request = Request { sampling: request.sampling.of_sample(sample), ..request.clone() };
            samples.push(self.generate(&request, cancel, &mut |_| {}).await?);
        }
        Ok(samples)
    }

    /// The samples of several requests, so many of each, in order; the first error of any is the error of all. A
    /// local model writes all of them side by side, which rounds as [`LanguageModel::samples`] does.
    async fn samples_each(
        &self,
        asked: &[(Request, usize)],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Generation>>> {
        let mut written = Vec::with_capacity(asked.len());
        for (request, count) in asked {
            written.push(self.samples(request, *count, cancel).await?);
        }
        Ok(written)
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn numbers_out_of_their_range_are_named() {
        let plain = Sampling::default();
        assert!(Sampling { temperature: 2.0, top_k: 9, top_p: 0.0, min_p: 1.0, ..plain }.check().is_ok());
        for (wrong, message) in [
            (Sampling { temperature: -1.0, ..plain }, "temperature must be a number of at least 0, not -1"),
            (
                Sampling { temperature: f32::NAN, ..plain },
                "temperature must be a number of at least 0, not NaN",
            ),
            (Sampling { top_p: 1.5, ..plain }, "top_p must be a number from 0 to 1, not 1.5"),
            (Sampling { min_p: -0.5, ..plain }, "min_p must be a number from 0 to 1, not -0.5"),
        ] {
            let error = wrong.check().unwrap_err();
            assert_eq!((error.code(), error.message()), (ErrorCode::InvalidArgument, message));
        }
    }
}
