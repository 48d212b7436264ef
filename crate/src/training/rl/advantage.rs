//! How much better than expected a trajectory, or a token of it, was.

use serde::{Deserialize, Serialize};

/// What rewards are divided by; TRL's `scale_rewards`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRewards {
    /// The deviation within the group.
    #[default]
    Group,
    /// That of the whole batch.
    Batch,
    /// Nothing (Dr. GRPO).
    None,
}

/// What keeps a group without variance from a division by 0, as in TRL.
const LEAST_DEVIATION: f64 = 1e-4;

/// GRPO's advantages: rewards less their group's mean, scaled; `rewards` are groups of `group` one behind the
/// other.
pub fn group_advantages(rewards: &[f64], group: usize, scale: ScaleRewards) -> Vec<f64> {
    let batch = deviation(rewards);
    let of_group = |own: &[f64]| {
        let mean = mean(own);
        let by = match scale {
            ScaleRewards::Group => deviation(own) + LEAST_DEVIATION,
            ScaleRewards::Batch => batch + LEAST_DEVIATION,
            ScaleRewards::None => 1.0,
        };
        own.iter().map(|reward| (reward - mean) / by).collect::<Vec<_>>()
    };
    rewards.chunks(group.max(1)).flat_map(of_group).collect()
}

/// Whether all rewards of a group are the same: it teaches nothing.
pub fn is_flat(rewards: &[f64]) -> bool {
    deviation(rewards) < 1e-8
}

/// The arithmetic mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The sample's standard deviation (with Bessel's correction); 0 of one.
pub fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / values.len().saturating_sub(1).max(1) as f64).sqrt()
}

/// Generalised advantage estimation over one trajectory (Schulman et al. 2016, eq. 16): advantages and returns of
/// its tokens, from a reward and a value each. Behind the last token nothing is expected.
pub fn gae(rewards: &[f64], values: &[f32], gamma: f64, lambda: f64) -> (Vec<f64>, Vec<f64>) {
    let mut advantages = vec![0.0; rewards.len()];
    let (mut after, mut next) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let value = f64::from(values[t]);
        after = rewards[t] + gamma * next - value + gamma * lambda * after;
        advantages[t] = after;
        next = value;
    }
    let returns = advantages.iter().zip(values).map(|(own, value)| own + f64::from(*value)).collect();
    (advantages, returns)
}

/// Values at mean 0 and deviation 1.
pub fn whiten(values: &mut [f64]) {
    let (mean, deviation) = (mean(values), deviation(values));
    let scale = 1.0 / (deviation.powi(2) + 1e-8).sqrt();
    for value in values {
        *value = (*value - mean) * scale;
    }
}

/// The weight of the KL penalty that steers the divergence towards a target (Ziegler et al. 2019, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveKl {
    /// The divergence to keep, in nats a trajectory.
    pub target: f64,
    /// Over how many trajectories it is steered.
    pub horizon: f64,
}

impl AdaptiveKl {
    /// The weight after a step of so many trajectories with this mean divergence.
    pub fn next(&self, weight: f64, kl: f64, trajectories: usize) -> f64 {
        let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
        weight * (1.0 + error * trajectories as f64 / self.horizon)
    }
}
