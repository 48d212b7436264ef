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
    /// Whether a judge, a model of a server, finds the answer right.
    #[serde(default)]
    pub judge: f64,
}

/// The terms of one outcome, before they are weighted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// 0 or 1.
    pub exact_match: f64,
    /// 0 to 1.
    pub f1: f64,
    /// 0 or 1; 0 where no judge was asked, or it did not say.
    #[serde(default)]
    pub judge: f64,
}

impl Terms {
    /// What an answer scores.
    pub fn of(prediction: &str, answer: &str) -> Self {
        let exact_match = f64::from(u8::from(exact_match(prediction, answer)));
        Self { exact_match, f1: f1(prediction, answer), judge: 0.0 }
    }

    /// The mean of several outcomes; zeros of none.
    pub fn mean(all: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> f64| all.iter().map(of).sum::<f64>() / all.len().max(1) as f64;
        Self {
            exact_match: mean(|own| own.exact_match),
            f1: mean(|own| own.f1),
            judge: mean(|own| own.judge),
        }
    }
}

impl RewardWeights {
    /// The reward.
    pub fn of(&self, terms: Terms) -> f64 {
        self.exact_match * terms.exact_match + self.f1 * terms.f1 + self.judge * terms.judge
    }

    /// `INVALID_ARGUMENT` where nothing is rewarded.
    pub fn check(&self) -> Result<()> {
        let all = [self.exact_match, self.f1, self.judge];
        if all.iter().all(|weight| weight.is_finite()) && all.iter().any(|weight| *weight > 0.0) {
            return Ok(());
        }
        Err(Error::invalid("reward: give exact_match, f1 or judge a weight above 0"))
    }
}
