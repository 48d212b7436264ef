//! One step of GRPO.

use super::actor::{Actor, move_actor};
use super::advantage::group_advantages;
use super::config::RlConfig;
use super::learner::{Item, Learner, PerToken, Rollout};
use super::metrics::Metrics;
use super::objective::{Sequence, Share};
use crate::error::Result;

/// Learns from groups of rollouts; the optimiser's steps are counted from `first`.
pub(super) fn learn(
    config: &RlConfig,
    learner: &mut Learner,
    actor: &mut Actor<'_>,
    groups: Vec<Vec<Rollout>>,
    first: u64,
    metrics: &mut Metrics,
) -> Result<()> {
    let own = &config.grpo;
    let rollouts: Vec<Rollout> = groups.into_iter().flatten().collect();
    let rewards: Vec<f64> =
        rollouts.iter().map(|rollout| config.reward.of(rollout.trajectory.terms)).collect();
    let advantages = group_advantages(&rewards, config.num_generations, own.scale_rewards);
    let items = Item::all(&rollouts);
    let shape: Vec<usize> = rollouts.iter().map(|own| own.sets.iter().map(Vec::len).sum()).collect();
    let (old, entropies) = learner.logprobs(actor.layout, actor.parameters, &items, &shape, &[])?;
    if (config.temperature - 1.0).abs() < f64::EPSILON {
        metrics.mismatch(&rollouts, &old);
    }
    let total: usize = shape.iter().sum();
    let spread: f64 = entropies.iter().flatten().map(|own| f64::from(*own)).sum();
    metrics.add("entropy", spread / total.max(1) as f64);
    let reference = if own.beta > 0.0 {
        Some(learner.logprobs(actor.layout, actor.reference, &items, &shape, &[])?.0)
    } else {
        None
    };
    let hidden: Vec<bool> = rollouts
        .iter()
        .map(|rollout| own.mask_truncated_completions && rollout.trajectory.is_truncated())
        .collect();
    let seen = |row: usize, values: &PerToken| if hidden[row] { 0 } else { values[row].len() };
    let tokens: usize = (0..rollouts.len()).map(|row| seen(row, &old)).sum();
    let loss = own.loss();
    // Parts of this size; the last one may be smaller, and then counts as much as the others.
    let size = rollouts.len().div_ceil(own.gradient_accumulation_steps.max(1)).max(1);
    let parts = rollouts.len().div_ceil(size).max(1);
    for iteration in 0..own.num_iterations {
        let new = if iteration == 0 {
            old.clone()
        } else {
            learner.logprobs(actor.layout, actor.parameters, &items, &shape, &[])?.0
        };
        let rows: Vec<usize> = (0..rollouts.len()).collect();
        let (mut slopes, mut bonuses): (PerToken, Vec<f32>) = (Vec::new(), Vec::new());
        let (mut value, mut kl, mut low, mut high) = (0.0, 0.0, 0.0, 0.0);
        for part in rows.chunks(size) {
            let sequence = |row: &usize| Sequence {
                advantage: advantages[*row],
                logprobs: &new[*row][..seen(*row, &new)],
                old: &old[*row][..seen(*row, &old)],
                reference: reference.as_ref().map(|own| &own[*row][..seen(*row, own)]),
            };
            let sequences: Vec<Sequence<'_>> = part.iter().map(sequence).collect();
            let found = loss.evaluate(&sequences, Share { micro_batches: parts, tokens });
            let inside: usize = sequences.iter().map(|own| own.logprobs.len()).sum();
            let bonus = own.entropy_coef / (inside.max(1) * parts) as f64;
            bonuses.extend(part.iter().map(|_| bonus as f32));
            let share = 1.0 / parts as f64;
            value += found.loss;
            (kl, low, high) =
                (kl + found.kl * share, low + found.clipped_low * share, high + found.clipped_high * share);
            slopes.extend(found.slopes);
        }
        if own.entropy_coef == 0.0 {
            bonuses.clear();
        } else {
            value -= own.entropy_coef * spread / total.max(1) as f64;
        }
        let number = first + iteration as u64;
        let gradient = actor.gradient(learner, &items, &slopes, &bonuses, number)?;
        let norm = move_actor(config, actor, gradient, number)?;
        metrics.add("loss", value);
        metrics.add("grad_norm", norm);
        metrics.add("clip_ratio/low_mean", low);
        metrics.add("clip_ratio/high_mean", high);
        if own.beta > 0.0 {
            metrics.add("kl", kl);
        }
    }
    Ok(())
}
