//! Intervals by drawing the questions again (Efron, "Bootstrap methods", 1979).

use crate::random::Random;

/// How many times the questions are drawn again.
const RESAMPLES: usize = 1000;

/// For each of three scores of the questions, bounds that hold 95 % of the resampled means; zeros
/// where there are no questions.
pub(super) fn intervals(scores: &[[f64; 3]], seed: u64) -> [[f64; 2]; 3] {
    if scores.is_empty() {
        return [[0.0; 2]; 3];
    }
    let mut random = Random::new(seed, &[0xb007]);
    let mut means: Vec<[f64; 3]> = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let mut sums = [0.0; 3];
        for _ in 0..scores.len() {
            let drawn = scores[random.below(scores.len())];
            sums.iter_mut().zip(drawn).for_each(|(sum, score)| *sum += score);
        }
        means.push(sums.map(|sum| sum / scores.len() as f64));
    }
    [0, 1, 2].map(|place| {
        let mut own: Vec<f64> = means.iter().map(|means| means[place]).collect();
        own.sort_by(f64::total_cmp);
        [own[RESAMPLES / 40], own[RESAMPLES - 1 - RESAMPLES / 40]]
    })
}
