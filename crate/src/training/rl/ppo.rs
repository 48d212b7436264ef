//! One step of PPO.

use super::actor::{Actor, move_actor};
use super::advantage::{gae, mean, whiten};
use super::config::RlConfig;
use super::critic::Critic;
use super::learner::{Item, Learner, PerToken, Rollout};
use super::metrics::Metrics;
use super::objective::{ppo_policy_loss, ppo_value_loss};
use crate::error::Result;
use crate::random::Random;

/// Learns from rollouts in the phase's `step`-th step, and returns the weight of the KL penalty for the next.
#[allow(clippy::too_many_arguments)]
pub(super) fn learn(
    config: &RlConfig,
    learner: &mut Learner,
    actor: &mut Actor<'_>,
    critic: &mut Critic,
    groups: Vec<Vec<Rollout>>,
    (phase, step): (usize, u64),
    kl_weight: f64,
    metrics: &mut Metrics,
) -> Result<f64> {
    let own = &config.ppo;
    let layout = actor.layout;
    let rollouts: Vec<Rollout> = groups.into_iter().flatten().collect();
    let items = Item::all(&rollouts);
    let shape: Vec<usize> = rollouts.iter().map(|own| own.sets.iter().map(Vec::len).sum()).collect();
    let (old, entropies) = learner.logprobs(layout, actor.parameters, &items, &shape, &[])?;
    if (config.temperature - 1.0).abs() < f64::EPSILON {
        metrics.mismatch(&rollouts, &old);
    }
    let (reference, _) = learner.logprobs(layout, actor.reference, &items, &shape, &[])?;
    let values = critic.values(learner, layout, &items, &shape, &[])?;
    let total: usize = shape.iter().sum();
    let spread: f64 = entropies.iter().flatten().map(|own| f64::from(*own)).sum();
    metrics.add("entropy", spread / total.max(1) as f64);

    // The penalty is paid token by token, and the outcome's reward with the last one.
    let (mut advantages, mut returns, mut divergences) = (Vec::new(), Vec::new(), Vec::new());
    for (row, rollout) in rollouts.iter().enumerate() {
        let apart: Vec<f64> =
            old[row].iter().zip(&reference[row]).map(|(old, reference)| f64::from(old - reference)).collect();
        let mut rewards: Vec<f64> = apart.iter().map(|kl| -kl_weight * kl).collect();
        if let Some(last) = rewards.last_mut() {
            *last += config.reward.of(rollout.trajectory.terms);
        }
        let (better, expected) = gae(&rewards, &values[row], own.gamma, own.lam);
        advantages.push(better);
        returns.push(expected);
        divergences.push(apart.iter().sum::<f64>());
    }
    let mut flat = advantages.concat();
    whiten(&mut flat);
    let mut rest = &flat[..];
    for row in &mut advantages {
        let (mine, after) = rest.split_at(row.len());
        row.copy_from_slice(mine);
        rest = after;
    }
    let kl = mean(&divergences);
    metrics.add("kl", divergences.iter().sum::<f64>() / total.max(1) as f64);
    metrics.add("kl_coef", kl_weight);
    metrics.add("val/mean", mean(&values.iter().flatten().map(|own| f64::from(*own)).collect::<Vec<_>>()));

    let rounds = (own.num_ppo_epochs * own.num_mini_batches) as u64;
    let mut number = (step - 1) * rounds;
    let rate = config.lr_scheduler_type.at(step, config.phases[phase].max_steps, config.warmup_ratio);
    let optimizer = config.optimizer();
    for epoch in 0..own.num_ppo_epochs as u64 {
        let mut order: Vec<usize> = (0..rollouts.len()).collect();
        Random::new(config.seed, &[0x0bb0, phase as u64, step, epoch]).shuffle(&mut order);
        for part in order.chunks(rollouts.len().div_ceil(own.num_mini_batches).max(1)) {
            number += 1;
            let inside: Vec<bool> = (0..rollouts.len()).map(|row| part.contains(&row)).collect();
            let pick =
                |all: &PerToken| part.iter().flat_map(|row| all[*row].iter().copied()).collect::<Vec<f32>>();
            let pick_exact = |all: &[Vec<f64>]| {
                part.iter().flat_map(|row| all[*row].iter().copied()).collect::<Vec<f64>>()
            };
            // A row of its slopes for each trajectory of the part, and none for the others.
            let spread_out = |slopes: &[f32]| {
                let mut rows: PerToken = vec![Vec::new(); rollouts.len()];
                let mut rest = slopes;
                for row in part {
                    let (mine, after) = rest.split_at(shape[*row]);
                    rows[*row] = mine.to_vec();
                    rest = after;
                }
                rows
            };
            let now = critic.values(learner, layout, &items, &shape, &inside)?;
            let (value_loss, slopes) =
                ppo_value_loss(&pick(&now), &pick(&values), &pick_exact(&returns), own.cliprange_value);
            let how = (&optimizer, number, (own.critic_learning_rate * rate) as f32);
            critic.learn(learner, layout, &items, &spread_out(&slopes), how, config.max_grad_norm)?;
            metrics.add("loss/value_avg", value_loss);
            if step <= own.critic_warmup_steps {
                continue;
            }
            let (new, _) = learner.logprobs(layout, actor.parameters, &items, &shape, &inside)?;
            let (new, before) = (pick(&new), pick(&old));
            let (policy_loss, slopes) =
                ppo_policy_loss(&new, &before, &pick_exact(&advantages), own.cliprange);
            let clipped = slopes.iter().filter(|slope| **slope == 0.0).count();
            let bonus = (own.entropy_coef / new.len().max(1) as f64) as f32;
            let bonuses = if bonus > 0.0 { vec![bonus; rollouts.len()] } else { Vec::new() };
            let gradient = actor.gradient(learner, &items, &spread_out(&slopes), &bonuses, number)?;
            let norm = move_actor(config, actor, gradient, number)?;
            metrics.add("loss/policy_avg", policy_loss);
            metrics.add("policy/clipfrac_avg", clipped as f64 / new.len().max(1) as f64);
            metrics.add("grad_norm", norm);
        }
    }
    let next = own.adaptive_kl.map_or(kl_weight, |own| own.next(kl_weight, kl, rollouts.len()));
    // It is kept in 32 bits: a resumed run must not differ from an unbroken one.
    Ok(f64::from(next as f32))
}
