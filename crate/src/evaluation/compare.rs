//! Two runs of a benchmark, question by question.
//!
//! Both answered the same questions, so the differences are paired: their intervals are by the
//! bootstrap over questions, and whether one run is right more often is McNemar's exact test
//! ("Note on the sampling error of the difference between correlated proportions", 1947).

use std::collections::BTreeMap;

use serde::Serialize;

use super::benchmark::QuestionOutcome;
use super::bootstrap::intervals;
use super::scores::{Category, category_as_json, is_adversarial};
use crate::error::{Error, Result};

/// A score's means and their difference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The mean of the first run.
    pub a: f64,
    /// The mean of the second run.
    pub b: f64,
    /// The second less the first.
    pub difference: f64,
    /// 95 % of the resampled differences lie within these bounds.
    pub interval: [f64; 2],
}

/// Who was right where the other was not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct McNemar {
    /// Questions that the first run alone has right.
    pub only_a: usize,
    /// Questions that the second run alone has right.
    pub only_b: usize,
    /// How probable at least so uneven a split is where neither is better, two-sided.
    pub p: f64,
}

/// The questions of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// How many both answered.
    pub n: usize,
    /// F1.
    pub f1: Difference,
    /// BLEU-1.
    pub bleu1: Difference,
    /// Exact match; of category 5 the share that was declined.
    pub exact_match: Difference,
    /// Of exact match; of category 5 of declining.
    pub mcnemar: McNemar,
}

/// A question whose answer is right in one run only, or whose F1 differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed {
    /// The conversation.
    pub sample_id: String,
    /// The question's place in it, from 0.
    pub index: usize,
    /// LoCoMo's number, or the word of another benchmark.
    #[serde(with = "category_as_json")]
    pub category: Category,
    /// The question.
    pub question: String,
    /// The gold answer.
    pub answer: String,
    /// What the first run answered, and its F1.
    pub a: (String, f64),
    /// What the second run answered, and its F1.
    pub b: (String, f64),
}

/// What `eval compare` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Categories 1 to 4.
    #[serde(flatten)]
    pub pooled: Compared,
    /// Each category by itself.
    pub by_category: BTreeMap<String, Compared>,
    /// Questions that only one of the runs has answered, which are not compared.
    pub unpaired: usize,
    /// What changed, in the order of the first run.
    pub changed: Vec<Changed>,
}

/// Compares two runs by conversation and place. `INVALID_ARGUMENT` where a question of that place
/// is another one, or none is answered by both.
pub fn compare(a: &[QuestionOutcome], b: &[QuestionOutcome], seed: u64) -> Result<Comparison> {
    let key = |own: &QuestionOutcome| (own.sample_id.clone(), own.index);
    let others: BTreeMap<_, &QuestionOutcome> = b.iter().map(|own| (key(own), own)).collect();
    let mut pairs = Vec::new();
    for own in a {
        let Some(other) = others.get(&key(own)) else { continue };
        if (&own.question, &own.answer) != (&other.question, &other.answer) {
            return Err(Error::invalid(format!(
                "the runs are of other data: question {} of {} is {:?} in one and {:?} in the other",
                own.index, own.sample_id, own.question, other.question
            )));
        }
        pairs.push((own, *other));
    }
    if pairs.is_empty() {
        return Err(Error::invalid("the runs have answered no question both"));
    }
    let mut by_category: BTreeMap<String, Vec<Paired<'_>>> = BTreeMap::new();
    for pair in &pairs {
        by_category.entry(pair.0.category.clone()).or_default().push(*pair);
    }
    let is_pooled = |pair: &&Paired<'_>| !is_adversarial(&pair.0.category);
    let pooled: Vec<Paired<'_>> = pairs.iter().filter(is_pooled).copied().collect();
    Ok(Comparison {
        pooled: Compared::of(&pooled, seed),
        by_category: by_category.into_iter().map(|(name, own)| (name, Compared::of(&own, seed))).collect(),
        unpaired: a.len() + b.len() - 2 * pairs.len(),
        changed: pairs.iter().filter_map(changed).collect(),
    })
}

type Paired<'a> = (&'a QuestionOutcome, &'a QuestionOutcome);

fn is_right(own: &QuestionOutcome) -> bool {
    if is_adversarial(&own.category) { own.declined } else { own.scores.exact_match >= 1.0 }
}

fn scores(own: &QuestionOutcome) -> [f64; 3] {
    [own.scores.f1, own.scores.bleu1, f64::from(u8::from(is_right(own)))]
}

fn changed(pair: &Paired<'_>) -> Option<Changed> {
    let (a, b) = pair;
    let is_same = is_right(a) == is_right(b) && a.scores.f1.total_cmp(&b.scores.f1).is_eq();
    (!is_same).then(|| Changed {
        sample_id: a.sample_id.clone(),
        index: a.index,
        category: a.category.clone(),
        question: a.question.clone(),
        answer: a.answer.clone(),
        a: (a.prediction.clone(), a.scores.f1),
        b: (b.prediction.clone(), b.scores.f1),
    })
}

impl Compared {
    fn of(pairs: &[Paired<'_>], seed: u64) -> Self {
        let (first, second): (Vec<_>, Vec<_>) = pairs.iter().map(|(a, b)| (scores(a), scores(b))).unzip();
        let differences: Vec<[f64; 3]> =
            first.iter().zip(&second).map(|(a, b)| [0, 1, 2].map(|place| b[place] - a[place])).collect();
        let intervals = intervals(&differences, seed);
        let mean = |all: &[[f64; 3]], place: usize| {
            all.iter().map(|own| own[place]).sum::<f64>() / all.len().max(1) as f64
        };
        let difference = |place: usize| {
            let (a, b) = (mean(&first, place), mean(&second, place));
            Difference { a, b, difference: b - a, interval: intervals[place] }
        };
        Self {
            n: pairs.len(),
            f1: difference(0),
            bleu1: difference(1),
            exact_match: difference(2),
            mcnemar: McNemar::of(pairs),
        }
    }
}

impl McNemar {
    fn of(pairs: &[Paired<'_>]) -> Self {
        let only =
            |first: bool| pairs.iter().filter(|(a, b)| is_right(a) == first && is_right(b) != first).count();
        let (only_a, only_b) = (only(true), only(false));
        Self { only_a, only_b, p: two_sided(only_a, only_b) }
    }
}

/// The exact binomial test of an even split.
fn two_sided(a: usize, b: usize) -> f64 {
    let n = a + b;
    // In logarithms: half to the power of a thousand is no f64.
    let mut term = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = 0.0;
    for k in 0..=a.min(b) {
        sum += term.exp();
        term += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    (2.0 * sum).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::Scores;

    fn outcome(index: usize, category: u8, right: bool, f1: f64) -> QuestionOutcome {
        QuestionOutcome {
            sample_id: "c".into(),
            index,
            category: category.to_string(),
            question: format!("q{index}"),
            answer: "a".into(),
            prediction: if right { "a" } else { "b" }.into(),
            scores: Scores { f1, bleu1: f1, exact_match: f64::from(u8::from(right)), ..Scores::default() },
            declined: right && category == 5,
            judged: None,
            evidence: Vec::new(),
            evidence_shown: 0,
            evidence_kept: 0,
            memories: Vec::new(),
            candidates: Vec::new(),
            left_out: 0,
            seconds: 0.0,
        }
    }

    /// The p values are those of `scipy.stats.binomtest(min(a, b), a + b, 0.5)`.
    #[test]
    fn the_exact_test_is_scipys() {
        for (a, b, p) in [
            (0, 0, 1.0),
            (1, 0, 1.0),
            (3, 3, 1.0),
            (5, 12, 0.143_463_134_765_625),
            (70, 40, 0.005_447_429_511_444_476),
            (700, 600, 0.006_015_793_861_044_94),
            (0, 1200, 0.0),
        ] {
            assert!((two_sided(a, b) - p).abs() < 1e-10, "{a} {b}: {}", two_sided(a, b));
        }
    }

    #[test]
    fn runs_are_paired_by_question() {
        let a: Vec<_> =
            (0..10).map(|i| outcome(i, 1, i < 2, 0.2)).chain([outcome(10, 5, false, 0.0)]).collect();
        let mut b: Vec<_> =
            (0..10).map(|i| outcome(i, 1, i > 0, 0.7)).chain([outcome(10, 5, true, 0.0)]).collect();
        b.push(outcome(11, 1, true, 1.0));
        let both = compare(&a, &b, 0).unwrap();
        assert_eq!((both.pooled.n, both.unpaired), (10, 1));
        assert_eq!((both.pooled.mcnemar.only_a, both.pooled.mcnemar.only_b), (1, 8));
        assert!((both.pooled.f1.difference - 0.5).abs() < 1e-12);
        // Every question differs by the same.
        assert!(both.pooled.f1.interval.iter().all(|bound| (bound - 0.5).abs() < 1e-12));
        let [low, high] = both.pooled.exact_match.interval;
        assert!(low < 0.7 && 0.7 < high && low > 0.0, "{low} {high}");
        assert_eq!((both.by_category["5"].exact_match.a, both.by_category["5"].exact_match.b), (0.0, 1.0));
        assert_eq!(both.changed.len(), 11);
        let same = compare(&a, &a, 0).unwrap();
        assert!(same.changed.is_empty() && (same.pooled.mcnemar.p - 1.0).abs() < 1e-12);
    }

    #[test]
    fn runs_of_other_data_are_refused() {
        let a = [outcome(0, 1, true, 1.0)];
        let mut b = a.clone();
        b[0].question = "another".into();
        assert!(compare(&a, &b, 0).unwrap_err().message().contains("other data"));
        assert!(compare(&a, &[outcome(1, 1, true, 1.0)], 0).unwrap_err().message().contains("no question"));
    }
}
