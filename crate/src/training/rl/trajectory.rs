//! What a reward is given for.

use super::reward::Terms;
use crate::generation::{Generation, Part, Request};

/// One prompt and its completion, with their log-probabilities.
///
/// What the tokens were chosen from is not kept: [`crate::generation::LocalModel::replay`] finds it again.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// The prompt, the grammar and the sampling.
    pub request: Request,
    /// The completion.
    pub generation: Generation,
}

impl Segment {
    /// How many of its tokens were chosen.
    pub fn chosen(&self) -> usize {
        self.generation.parts.iter().filter(|part| **part != Part::Forced).count()
    }
}

/// Everything that was decided for one reward.
#[derive(Clone, Debug, PartialEq)]
pub struct Trajectory {
    /// In order of time.
    pub segments: Vec<Segment>,
    /// What came of it, term by term.
    pub terms: Terms,
    /// The operations that a manager decided, by their wire names.
    pub operations: Vec<&'static str>,
    /// What was answered to the first question.
    pub answer: String,
}

impl Trajectory {
    /// How many tokens were chosen.
    pub fn chosen(&self) -> usize {
        self.segments.iter().map(Segment::chosen).sum()
    }

    /// Whether a completion was cut by its budget and not ended by the model.
    pub fn is_truncated(&self) -> bool {
        self.segments.iter().any(|own| own.generation.ids.len() >= own.request.max_new_tokens)
    }
}
