//! What a policy is trained to make small: GRPO's family of losses, PPO's two, each with its slope.
//!
//! A sequence here is a trajectory: the log-probabilities of all its chosen tokens, one behind the other, over
//! as many prompts and completions as it has. Forced tokens are not part of it. All in natural logarithms.

use serde::{Deserialize, Serialize};

/// How token losses become one number; names and formulas are TRL's (`GRPOConfig.loss_type`), but the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// The mean over a sequence's tokens, then over the sequences (DeepSeekMath, eq. 3).
    Grpo,
    /// The sum over all tokens, divided by sequences times `max_completion_length` (Dr. GRPO).
    DrGrpo,
    /// The mean over the tokens of a micro-batch.
    Bnpo,
    /// The mean over the tokens of the whole step (DAPO).
    #[default]
    Dapo,
    /// As Memory-R1 prints it (eq. 3): one ratio for the whole sequence, the product of its tokens', and no
    /// clipping; the mean over sequences.
    Paper,
}

/// What the ratio of new and old probability is taken of; TRL's `importance_sampling_level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportanceSamplingLevel {
    /// Each token.
    #[default]
    Token,
    /// The geometric mean over the sequence (GSPO).
    Sequence,
}

/// GRPO's loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyLoss {
    /// How token losses become one number.
    pub loss_type: LossType,
    /// How far below 1 a ratio counts.
    pub epsilon: f64,
    /// How far above 1.
    pub epsilon_high: f64,
    /// No ratio counts more than this, whatever the advantage's sign.
    pub delta: Option<f64>,
    /// The weight of the KL divergence from the reference, by Schulman's estimator k3.
    pub beta: f64,
    /// What ratios are taken of.
    pub importance_sampling_level: ImportanceSamplingLevel,
    /// What Dr. GRPO divides by.
    pub max_completion_length: usize,
}

/// A trajectory's chosen tokens.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// How much better than expected it was.
    pub advantage: f64,
    /// Log-probabilities under the policy that is trained.
    pub logprobs: &'a [f32],
    /// Those of the policy that chose.
    pub old: &'a [f32],
    /// Those of the reference; needed where `beta` is not 0.
    pub reference: Option<&'a [f32]>,
}

/// Of what a micro-batch is a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Micro-batches in the step.
    pub micro_batches: usize,
    /// Chosen tokens in the step.
    pub tokens: usize,
}

/// A loss with its slope.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objective {
    /// The loss, its share of the step.
    pub loss: f64,
    /// For every sequence and token, the derivative of the loss by the log-probability.
    pub slopes: Vec<Vec<f32>>,
    /// The mean of the KL estimates over tokens; 0 without a reference.
    pub kl: f64,
    /// The share of tokens (or sequences) whose ratio was clipped from below, at a negative advantage.
    pub clipped_low: f64,
    /// The same from above, at a positive advantage.
    pub clipped_high: f64,
}

impl PolicyLoss {
    /// The loss of a micro-batch.
    pub fn evaluate(&self, sequences: &[Sequence<'_>], share: Share) -> Objective {
        let count: usize = sequences.iter().map(|own| own.logprobs.len()).sum();
        let mut found = Objective::default();
        let (mut low, mut high) = (0, 0);
        for own in sequences {
            let weight = self.weight(own.logprobs.len(), sequences.len(), count, share);
            let differences: Vec<f64> =
                own.logprobs.iter().zip(own.old).map(|(a, b)| f64::from(a - b)).collect();
            let total: f64 = differences.iter().sum();
            let whole = match (self.loss_type, self.importance_sampling_level) {
                (LossType::Paper, _) => Some(total.exp()),
                (_, ImportanceSamplingLevel::Sequence) => {
                    Some((total / own.logprobs.len().max(1) as f64).exp())
                }
                (_, ImportanceSamplingLevel::Token) => None,
            };
            // The paper's ratio counts once a sequence, all others once a token.
            let once = self.loss_type == LossType::Paper;
            if let (true, Some(ratio)) = (once, whole) {
                found.loss -= ratio * own.advantage * weight;
            }
            let mut slopes = Vec::with_capacity(own.logprobs.len());
            for (place, logprob) in own.logprobs.iter().enumerate() {
                let ratio = whole.unwrap_or_else(|| differences[place].exp());
                let mut slope = -own.advantage * ratio;
                if !once {
                    let (loss, clipped) = self.clipped(ratio, own.advantage);
                    found.loss += loss * weight;
                    if clipped {
                        slope = 0.0;
                    }
                    low += usize::from(ratio < 1.0 - self.epsilon && own.advantage < 0.0);
                    high += usize::from(ratio > 1.0 + self.epsilon_high && own.advantage > 0.0);
                }
                if let Some(reference) = own.reference {
                    let behind = f64::from(reference[place] - logprob);
                    let kl = behind.exp() - behind - 1.0;
                    found.kl += kl / count.max(1) as f64;
                    found.loss += self.beta * kl * weight;
                    slope += self.beta * (1.0 - behind.exp());
                }
                slopes.push((slope * weight) as f32);
            }
            found.slopes.push(slopes);
        }
        found.clipped_low = f64::from(low as u32) / count.max(1) as f64;
        found.clipped_high = f64::from(high as u32) / count.max(1) as f64;
        found
    }

    /// What one token of a sequence counts.
    fn weight(&self, length: usize, sequences: usize, tokens: usize, share: Share) -> f64 {
        let per = |count: usize| 1.0 / (count.max(1) * share.micro_batches.max(1)) as f64;
        match self.loss_type {
            LossType::Grpo => per(sequences) / length.max(1) as f64,
            LossType::DrGrpo => per(sequences) / self.max_completion_length.max(1) as f64,
            LossType::Bnpo => per(tokens),
            LossType::Dapo => 1.0 / share.tokens.max(1) as f64,
            LossType::Paper => per(sequences),
        }
    }

    /// `-min(ratio A, clip(ratio) A)`, and whether it is flat there.
    fn clipped(&self, ratio: f64, advantage: f64) -> (f64, bool) {
        let within = ratio.clamp(1.0 - self.epsilon, 1.0 + self.epsilon_high);
        let capped = self.delta.map_or(ratio, |delta| ratio.min(delta));
        let (free, bound) = (capped * advantage, within * advantage);
        if free < bound { (-free, capped < ratio) } else { (-bound, (within - ratio).abs() > 0.0) }
    }
}

/// PPO's clipped policy loss of all tokens, their mean, and its derivatives by the log-probabilities
/// (Schulman et al. 2017, eq. 7; Memory-R1, eq. 2). Every token has its own advantage.
pub fn ppo_policy_loss(logprobs: &[f32], old: &[f32], advantages: &[f64], epsilon: f64) -> (f64, Vec<f32>) {
    let scale = 1.0 / logprobs.len().max(1) as f64;
    let mut loss = 0.0;
    let tokens = logprobs.iter().zip(old).zip(advantages);
    let slopes = tokens
        .map(|((own, old), advantage)| {
            let ratio = f64::from(own - old).exp();
            let bound = -advantage * ratio.clamp(1.0 - epsilon, 1.0 + epsilon);
            let free = -advantage * ratio;
            loss += free.max(bound) * scale;
            if free >= bound { (free * scale) as f32 } else { 0.0 }
        })
        .collect();
    (loss, slopes)
}

/// PPO's clipped value loss of all tokens, half their mean square, and its derivatives by the values: a value
/// that moved away by more than `clip` counts as if it had not.
pub fn ppo_value_loss(values: &[f32], old: &[f32], returns: &[f64], clip: f64) -> (f64, Vec<f32>) {
    let scale = 1.0 / values.len().max(1) as f64;
    let mut loss = 0.0;
    let tokens = values.iter().zip(old).zip(returns);
    let slopes = tokens
        .map(|((own, old), target)| {
            let (own, old) = (f64::from(*own), f64::from(*old));
            let bound = own.clamp(old - clip, old + clip);
            let (free, bounded) = ((own - target).powi(2), (bound - target).powi(2));
            loss += 0.5 * free.max(bounded) * scale;
            let is_free = free >= bounded;
            if is_free { ((own - target) * scale) as f32 } else { 0.0 }
        })
        .collect();
    (loss, slopes)
}

#[cfg(test)]
#[path = "objective/tests.rs"]
mod tests;
