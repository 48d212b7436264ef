//! What an outcome is worth.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::evaluation::{exact_match, f1};

/// The weights of the terms of a reward; their sum is the reward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardWeights {
    /// Whether the answer is the gold answer (Memory-R1, eq. 4), normalised as SQuAD does.
    #[serde(default)]
    pub exact_match: f64,
    /// The F1 of their words, as LoCoMo is scored.
    #[serde(default)]
    pub f1: f64,
}

/// The terms of one outcome, before they are weighted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// 0 or 1.
    pub exact_match: f64,
    /// 0 to 1.
    pub f1: f64,
}

impl Terms {
    /// What an answer scores.
    pub fn of(prediction: &str, answer: &str) -> Self {
        Self { exact_match: f64::from(u8::from(exact_match(prediction, answer))), f1: f1(prediction, answer) }
    }

    /// The mean of several outcomes; zeros of none.
    pub fn mean(all: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> f64| all.iter().map(of).sum::<f64>() / all.len().max(1) as f64;
        Self { exact_match: mean(|own| own.exact_match), f1: mean(|own| own.f1) }
    }
}

impl RewardWeights {
    /// The reward.
    pub fn of(&self, terms: Terms) -> f64 {
        self.exact_match * terms.exact_match + self.f1 * terms.f1
    }

    /// `INVALID_ARGUMENT` where nothing is rewarded.
    pub fn check(&self) -> Result<()> {
        let all = [self.exact_match, self.f1];
        if all.iter().all(|weight| weight.is_finite()) && all.iter().any(|weight| *weight > 0.0) {
            return Ok(());
        }
        Err(Error::invalid("reward: give exact_match or f1 a weight above 0"))
    }
}
