//! Top-k, top-p and min-p, as transformers' logits warpers define them and in their order.
//!
//! What is not allowed is left out first; then the temperature divides, then each filter works on
//! what the one before kept. Unlike a cut by rank, top-k keeps all that are equal to the last one.
//! <https://github.com/huggingface/transformers/blob/main/src/transformers/generation/logits_process.py>

use super::sampler::Choice;
use super::{Bitset, Sampling};

/// The tokens that remain, each with the natural logarithm of its probability among them at the
/// temperature, which is above 0. Logarithms are NaN where a logit was.
///
/// # Shapes
/// - logits: `[vocab_size]`
pub(super) fn warp(logits: &[f32], allowed: Option<&Bitset>, sampling: &Sampling) -> Vec<Choice> {
    let scaled = |id: &u32| logits[*id as usize] / sampling.temperature;
    let is_allowed = |id: &u32| allowed.is_none_or(|set| set.contains(*id));
    let mut kept: Vec<u32> = (0..logits.len() as u32).filter(is_allowed).collect();
    // A filter could drop what is not a number, and nobody would know of the broken device.
    if let Some(id) = kept.iter().find(|id| logits[**id as usize].is_nan()) {
        return vec![Choice { id: *id, logprob: f32::NAN }];
    }
    if (1..kept.len()).contains(&sampling.top_k) {
        let place = kept.len() - sampling.top_k;
        let (_, last, _) = kept.select_nth_unstable_by(place, |a, b| scaled(a).total_cmp(&scaled(b)));
        let least = scaled(last);
        kept.retain(|id| scaled(id) >= least);
    }
    let best = kept.iter().map(scaled).fold(f32::NEG_INFINITY, f32::max);
    let weight = |id: &u32| f64::from(scaled(id) - best).exp();
    if sampling.top_p < 1.0 {
        // From the least probable on, of equal ones from the lowest id on: as torch sorts.
        kept.sort_unstable_by(|a, b| scaled(a).total_cmp(&scaled(b)).then(a.cmp(b)));
        let surplus = (1.0 - f64::from(sampling.top_p)) * kept.iter().map(weight).sum::<f64>();
        let mut sum = 0.0;
        let is_surplus = |id: &&u32| {
            sum += weight(id);
            sum <= surplus
        };
        let dropped = kept.iter().take_while(is_surplus).count();
        kept.drain(..dropped.min(kept.len().saturating_sub(1)));
    }
    if sampling.min_p > 0.0 {
        kept.retain(|id| weight(id) >= f64::from(sampling.min_p));
    }
    let total = kept.iter().map(weight).sum::<f64>().ln();
    let logprob = |id: &u32| (f64::from(scaled(id) - best) - total) as f32;
    kept.iter().map(|id| Choice { id: *id, logprob: logprob(id) }).collect()
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        logits: Vec<f32>,
        allowed: Option<Vec<u32>>,
        temperature: f32,
        top_k: usize,
        top_p: f32,
        min_p: f32,
        logprobs: Vec<Option<f32>>,
    }

    /// `tests/reference/warpers.py` prints the cases.
    #[test]
    fn distributions_are_those_of_transformers() {
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../../tests/fixtures/warpers.json")).unwrap();
        assert_eq!(cases.len(), 72);
        for (place, case) in cases.into_iter().enumerate() {
            let Case { temperature, top_k, top_p, min_p, .. } = case;
            let sampling = Sampling { temperature, top_k, top_p, min_p, ..Sampling::default() };
            let allowed = case.allowed.map(|ids| {
                let mut set = Bitset::new(case.logits.len());
                set.extend(&ids);
                set
            });
            let mut own = vec![None; case.logits.len()];
            for Choice { id, logprob } in warp(&case.logits, allowed.as_ref(), &sampling) {
                own[id as usize] = Some(logprob);
            }
            for (own, wanted) in own.iter().zip(&case.logprobs) {
                let is_equal = match (own, wanted) {
                    (Some(own), Some(wanted)) => (own - wanted).abs() < 1e-5,
                    (own, wanted) => own == wanted,
                };
                assert!(is_equal, "{place}: {own:?} instead of {wanted:?} ({sampling:?})");
            }
        }
    }

    #[test]
    fn what_is_no_number_is_not_filtered_away() {
        for nan in [f32::NAN, -f32::NAN] {
            let sampling = Sampling { temperature: 1.0, top_k: 1, ..Sampling::default() };
            assert!(warp(&[3.0, nan, 2.0], None, &sampling).iter().any(|own| own.logprob.is_nan()));
        }
    }
}
