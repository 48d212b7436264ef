//! Against TRL: `tests/reference/policy_losses.py` writes the constants.

use serde::Deserialize;

use super::*;
use crate::training::rl::advantage::{AdaptiveKl, ScaleRewards, gae, group_advantages, whiten};

type Rows<T> = Vec<Vec<T>>;

#[derive(Deserialize)]
struct Reference {
    old: Rows<f32>,
    new: Rows<f32>,
    #[serde(rename = "reference")]
    before: Rows<f32>,
    advantages: Vec<f64>,
    tokens: usize,
    cases: Vec<Case>,
    rewards: Vec<f64>,
    group: usize,
    scaled: std::collections::BTreeMap<String, Vec<f64>>,
    ppo: Ppo,
}

#[derive(Deserialize)]
struct Case {
    loss_type: LossType,
    importance_sampling_level: ImportanceSamplingLevel,
    beta: f64,
    delta: Option<f64>,
    micro_batches: usize,
    loss: f64,
    slopes: Rows<f32>,
}

#[derive(Deserialize)]
struct Ppo {
    advantages: Rows<f64>,
    values: Rows<f32>,
    predicted: Rows<f32>,
    returns: Rows<f64>,
    policy_loss: f64,
    policy_slopes: Rows<f32>,
    value_loss: f64,
    value_slopes: Rows<f32>,
    token_rewards: Rows<f64>,
    whitened: Rows<f64>,
    gae_returns: Rows<f64>,
    weights: Vec<f64>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("trl.json")).unwrap()
}

fn sequences(own: &Reference, with_reference: bool) -> Vec<Sequence<'_>> {
    let rows = own.new.iter().zip(&own.old).zip(&own.before).zip(&own.advantages);
    rows.map(|(((logprobs, old), reference), advantage)| Sequence {
        advantage: *advantage,
        logprobs,
        old,
        reference: with_reference.then_some(&reference[..]),
    })
    .collect()
}

fn close(own: f64, other: f64, what: &str) {
    assert!((own - other).abs() < 1e-5 * (1.0 + other.abs()), "{what}: {own} {other}");
}

fn all_close<T: Copy + Into<f64>>(own: &[T], other: &[T], what: &str) {
    assert_eq!(own.len(), other.len(), "{what}");
    own.iter().zip(other).for_each(|(own, other)| close((*own).into(), (*other).into(), what));
}

#[test]
fn every_loss_and_its_slopes_are_trls() {
    let own = reference();
    assert_eq!(own.cases.len(), 96);
    // A trajectory of which nothing counts is among them.
    assert!(own.new.iter().any(Vec::is_empty));
    for case in &own.cases {
        let loss = PolicyLoss {
            loss_type: case.loss_type,
            epsilon: 0.2,
            epsilon_high: 0.28,
            delta: case.delta,
            beta: case.beta,
            importance_sampling_level: case.importance_sampling_level,
            max_completion_length: 7,
        };
        let share = Share { micro_batches: case.micro_batches, tokens: own.tokens };
        let found = loss.evaluate(&sequences(&own, case.beta > 0.0), share);
        let what = format!("{loss:?} {}", case.micro_batches);
        close(found.loss, case.loss, &what);
        // Some of these are clipped from below, and some from above.
        assert!(found.clipped_low > 0.0 && found.clipped_high > 0.0, "{what}");
        found.slopes.iter().zip(&case.slopes).for_each(|(own, other)| all_close(own, other, &what));
    }
}

/// `gradient_accumulation_steps`: the mean of parts is the whole, but for `bnpo`, which knows the tokens of a part alone.
#[test]
fn a_loss_is_the_same_in_parts_as_at_once() {
    let own = reference();
    let all = sequences(&own, true);
    for loss_type in [LossType::Grpo, LossType::DrGrpo, LossType::Dapo, LossType::Paper] {
        let loss = PolicyLoss {
            loss_type,
            epsilon: 0.2,
            epsilon_high: 0.28,
            delta: None,
            beta: 0.04,
            importance_sampling_level: ImportanceSamplingLevel::Token,
            max_completion_length: 7,
        };
        let whole = loss.evaluate(&all, Share { micro_batches: 1, tokens: own.tokens });
        let share = Share { micro_batches: all.len(), tokens: own.tokens };
        let parts: Vec<_> = all.chunks(1).map(|part| loss.evaluate(part, share)).collect();
        let what = format!("{loss_type:?}");
        close(parts.iter().map(|part| part.loss).sum(), whole.loss, &what);
        for (part, slopes) in parts.iter().zip(&whole.slopes) {
            all_close(&part.slopes[0], slopes, &what);
        }
    }
}

/// What Memory-R1 prints has no reference implementation: its slope is that of its formula.
#[test]
fn the_papers_loss_is_its_formula() {
    let own = reference();
    let loss = PolicyLoss {
        loss_type: LossType::Paper,
        epsilon: 0.2,
        epsilon_high: 0.2,
        delta: None,
        beta: 0.04,
        importance_sampling_level: ImportanceSamplingLevel::Token,
        max_completion_length: 7,
    };
    let value = |new: &Rows<f32>| {
        let rows = new.iter().zip(&own.old).zip(&own.before).zip(&own.advantages);
        let terms = rows.map(|(((new, old), reference), advantage)| {
            let ratio: f64 =
                new.iter().zip(old).map(|(a, b)| f64::from(*a) - f64::from(*b)).sum::<f64>().exp();
            let kl: f64 = new
                .iter()
                .zip(reference)
                .map(|(a, b)| f64::from(*b) - f64::from(*a))
                .map(|d| d.exp() - d - 1.0)
                .sum();
            -ratio * advantage + 0.04 * kl
        });
        terms.sum::<f64>() / own.new.len() as f64
    };
    let found = loss.evaluate(&sequences(&own, true), Share { micro_batches: 1, tokens: 0 });
    close(found.loss, value(&own.new), "the loss");
    for (row, place) in [(0, 0), (2, 0), (5, 1)] {
        let along = |step: f32| {
            let mut moved = own.new.clone();
            moved[row][place] += step;
            value(&moved)
        };
        let slope = (along(1e-3) - along(-1e-3)) / 2e-3;
        assert!((slope - f64::from(found.slopes[row][place])).abs() < 1e-3);
    }
}

#[test]
fn a_trajectory_without_a_token_counts_as_one() {
    let own = reference();
    let loss = PolicyLoss {
        loss_type: LossType::Grpo,
        epsilon: 0.2,
        epsilon_high: 0.2,
        delta: None,
        beta: 0.0,
        importance_sampling_level: ImportanceSamplingLevel::Sequence,
        max_completion_length: 7,
    };
    let share = Share { micro_batches: 1, tokens: 0 };
    let mut two = sequences(&own, false)[..1].to_vec();
    let alone = loss.evaluate(&two, share);
    two.push(Sequence { advantage: 1.0, logprobs: &[], old: &[], reference: None });
    let beside = loss.evaluate(&two, share);
    close(beside.loss * 2.0, alone.loss, "half");
    assert!(beside.slopes[1].is_empty());
}

#[test]
fn rewards_are_scaled_as_trl_scales_them() {
    let own = reference();
    for (name, scale) in
        [("group", ScaleRewards::Group), ("batch", ScaleRewards::Batch), ("none", ScaleRewards::None)]
    {
        all_close(&group_advantages(&own.rewards, own.group, scale), &own.scaled[name], name);
    }
}

#[test]
fn ppos_losses_advantages_and_kl_weight_are_trls() {
    let Reference { old, new, ppo, .. } = reference();
    let flat = |rows: &Rows<f32>| rows.concat();
    let (loss, slopes) = ppo_policy_loss(&flat(&new), &flat(&old), &ppo.advantages.concat(), 0.2);
    close(loss, ppo.policy_loss, "policy");
    all_close(&slopes, &flat(&ppo.policy_slopes), "policy slopes");
    let (loss, slopes) =
        ppo_value_loss(&flat(&ppo.predicted), &flat(&ppo.values), &ppo.returns.concat(), 0.3);
    close(loss, ppo.value_loss, "value");
    all_close(&slopes, &flat(&ppo.value_slopes), "value slopes");

    let rows = ppo.token_rewards.iter().zip(&ppo.values);
    let (advantages, returns): (Rows<f64>, Rows<f64>) =
        rows.map(|(rewards, values)| gae(rewards, values, 0.97, 0.9)).unzip();
    let mut advantages = advantages.concat();
    whiten(&mut advantages);
    all_close(&advantages, &ppo.whitened.concat(), "advantages");
    all_close(&returns.concat(), &ppo.gae_returns.concat(), "returns");

    let adaptive = AdaptiveKl { target: 6.0, horizon: 10_000.0 };
    let mut weight = 0.2;
    for (kl, wanted) in [3.0, 6.6, 60.0].into_iter().zip(ppo.weights) {
        weight = adaptive.next(weight, kl, 256);
        close(weight, wanted, "the weight of the penalty");
    }
}
