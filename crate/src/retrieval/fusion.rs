//! Reciprocal rank fusion (Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion Outperforms Condorcet and
//! Individual Rank Learning Methods", 2009).

/// The constant of the paper: how little a first place counts more than a second.
const K: f64 = 60.0;

/// What each of some things is worth by two rankings of them, given as scores.
///
/// `sum over rankings of 1 / (K + rank)`, where the best has rank 1, equal scores share the better rank,
/// and a score of 0 or less, which says nothing, adds nothing; K = 60.
pub(super) fn fused(one: &[f64], other: &[f64]) -> Vec<f64> {
    reciprocal_ranks(one).into_iter().zip(reciprocal_ranks(other)).map(|(one, other)| one + other).collect()
}

fn reciprocal_ranks(scores: &[f64]) -> Vec<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let worth = |score: &f64| {
        let better = sorted.partition_point(|other| other > score);
        if *score > 0.0 { 1.0 / (K + 1.0 + better as f64) } else { 0.0 }
    };
    scores.iter().map(worth).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(own: &[f64], wanted: &[f64]) {
        assert_eq!(own.len(), wanted.len());
        assert!(own.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12), "{own:?} is not {wanted:?}");
    }

    #[test]
    fn ranks_are_worth_what_the_formula_says() {
        // By words: c, a, and b and d not at all. By cosine: a, d, c, b.
        let fused = fused(&[1.5, 0.0, 2.0, 0.0], &[0.9, 0.1, 0.2, 0.6]);
        // 1/62 + 1/61, 1/64, 1/61 + 1/63, 1/62.
        assert_close(&fused, &[0.032_522_474_881, 0.015_625, 0.032_266_458_496, 0.016_129_032_258]);
    }

    #[test]
    fn equal_scores_share_the_better_rank_and_what_follows_is_counted_behind_them() {
        let fused = fused(&[1.0, 3.0, 1.0, 0.5], &[0.0, -1.0, 0.0, 0.0]);
        assert_close(&fused, &[1.0 / 62.0, 1.0 / 61.0, 1.0 / 62.0, 1.0 / 64.0]);
        // First and second in turn is the same as second and first, to the bit.
        let [a, b] = super::fused(&[2.0, 1.0], &[0.1, 0.2])[..] else { panic!() };
        assert!(a.total_cmp(&b).is_eq());
    }

    #[test]
    fn nothing_to_rank_and_nothing_in_common_are_worth_nothing() {
        assert_eq!(fused(&[], &[]), [0.0; 0]);
        assert_eq!(fused(&[0.0, -0.5], &[0.0, 0.0]), [0.0, 0.0]);
    }
}
