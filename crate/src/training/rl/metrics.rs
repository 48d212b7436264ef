//! What a run says of itself, and whether it is sick.

use std::collections::BTreeMap;

use serde_json::Value;

use super::advantage::{deviation, is_flat, mean};
use super::learner::{PerToken, Rollout};
use super::reward::{RewardWeights, Terms};
use super::trajectory::Trajectory;
use crate::training::means::Means;

/// Means over the steps since the last report, under TRL's names.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics(Means);

impl Metrics {
    /// Counts a number.
    pub(super) fn add(&mut self, name: &str, value: f64) {
        self.0.add(name, value);
    }

    /// Those that a checkpoint kept.
    pub(super) fn of_json(unreported: &Value) -> Self {
        Self(Means::of_json(unreported))
    }

    /// For a checkpoint.
    pub(super) fn to_json(&self) -> Value {
        self.0.to_json()
    }

    /// The means so far, which begin anew.
    pub(super) fn take(&mut self) -> BTreeMap<String, f64> {
        self.0.take()
    }

    /// Counts what was played: all groups, those that nothing is learned from included.
    pub(super) fn played(&mut self, groups: &[Vec<Rollout>], weights: &RewardWeights) {
        let reward = |own: &Rollout| weights.of(own.trajectory.terms);
        let rewards: Vec<Vec<f64>> = groups.iter().map(|own| own.iter().map(reward).collect()).collect();
        let all: Vec<f64> = rewards.concat();
        let flat = rewards.iter().filter(|own| is_flat(own)).count();
        self.add("reward", mean(&all));
        self.add("reward_std", deviation(&all));
        self.add("frac_reward_zero_std", flat as f64 / rewards.len().max(1) as f64);
        let trajectories = || groups.iter().flatten().map(|own| &own.trajectory);
        let terms = Terms::mean(&trajectories().map(|own| own.terms).collect::<Vec<_>>());
        self.add("rewards/exact_match", terms.exact_match);
        self.add("rewards/f1", terms.f1);
        if weights.judge != 0.0 {
            self.add("rewards/judge", terms.judge);
        }
        let share = |count: usize| count as f64 / all.len().max(1) as f64;
        self.add("completions/mean_length", share(trajectories().map(Trajectory::chosen).sum()));
        self.add("completions/clipped_ratio", share(trajectories().filter(|own| own.is_truncated()).count()));
        let operations: Vec<&str> = trajectories().flat_map(|own| own.operations.iter().copied()).collect();
        if !operations.is_empty() {
            for name in ["ADD", "UPDATE", "DELETE", "NONE"] {
                let count = operations.iter().filter(|own| **own == name).count();
                self.add(&format!("operations/{name}"), count as f64 / operations.len() as f64);
            }
        }
    }

    /// Counts how far what the trainer finds is from what the generator said when it chose.
    pub(super) fn mismatch(&mut self, rollouts: &[Rollout], logprobs: &PerToken) {
        let said = rollouts.iter().map(|own| {
            let segments = own.trajectory.segments.iter().zip(&own.sets);
            segments
                .flat_map(|(segment, sets)| sets.iter().map(|(place, _)| segment.generation.logprobs[*place]))
                .collect::<Vec<f32>>()
        });
        let largest = said
            .zip(logprobs)
            .flat_map(|(said, own)| said.into_iter().zip(own).map(|(a, b)| f64::from((a - b).abs())))
            .fold(0.0, f64::max);
        self.add("sampling/sampling_logp_difference/max", largest);
    }
}

/// What a researcher should look at, where something is wrong.
pub(super) fn sickness(means: &BTreeMap<String, f64>) -> Vec<String> {
    let of = |name: &str| means.get(name).copied();
    let mut found = Vec::new();
    if let Some(share) = of("frac_reward_zero_std").filter(|share| *share > 0.8) {
        found.push(format!(
            "{:.0} % of the groups have no signal: their rewards are all the same",
            share * 100.0
        ));
    }
    if let Some(entropy) = of("entropy").filter(|entropy| *entropy < 0.01) {
        found.push(format!("the entropy is {entropy:.4}: nothing is tried any more"));
    }
    if let Some(kl) = of("kl").filter(|kl| *kl > 1.0) {
        found.push(format!("the divergence from the reference is {kl:.2} nats a token"));
    }
    for name in ["ADD", "UPDATE", "DELETE", "NONE"] {
        if let Some(share) = of(&format!("operations/{name}")).filter(|share| *share > 0.9) {
            found.push(format!("{:.0} % of the operations are {name}", share * 100.0));
        }
    }
    found
}
