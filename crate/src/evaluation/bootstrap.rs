//! Intervals by drawing the questions again (Efron, "Bootstrap methods", 1979).

use crate::random::Random;

/// How many times the questions are drawn again.
const RESAMPLES: usize = 1000;

/// For each of `N` scores of the questions, bounds that hold 95 % of the resampled means; zeros
/// where there are no questions.
pub(super) fn intervals<const N: usize>(scores: &[[f64; N]], seed: u64) -> [[f64; 2]; N] {
    if scores.is_empty() {
        return [[0.0; 2]; N];
    }
    let mut random = Random::new(seed, &[0xb007]);
    let mut means: Vec<[f64; N]> = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let mut sums = [0.0; N];
        for _ in 0..scores.len() {
            let drawn = scores[random.below(scores.len())];
            sums.iter_mut().zip(drawn).for_each(|(sum, score)| *sum += score);
        }
        means.push(sums.map(|sum| sum / scores.len() as f64));
    }
    std::array::from_fn(|place| {
        let mut own: Vec<f64> = means.iter().map(|means| means[place]).collect();
        own.sort_by(f64::total_cmp);
        [own[RESAMPLES / 40], own[RESAMPLES - 1 - RESAMPLES / 40]]
    })
}
