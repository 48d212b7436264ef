//! How well a text fits a query, and what that is made of.

use std::cmp::Ordering;

use serde::Serialize;

/// The sum that is worth a score of one half.
pub const HALF_SCORE: f64 = 2.0;

/// How well a text fits a query.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Score {
    /// In 0..1: `sum / (sum + HALF_SCORE)` of BM25 and nearness, or the cosine where that is more; 0 where
    /// nothing is in common.
    pub score: f64,
    /// The BM25 sum.
    pub bm25: f64,
    /// What the word vectors add, where there are any.
    #[serde(skip_serializing_if = "is_zero")]
    pub nearness: f64,
    /// The cosine of the sentence vectors, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
    /// The reciprocal ranks by words and by cosine together, which order a list then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fused: Option<f64>,
    /// What each shared term adds to the BM25 sum.
    pub terms: Vec<TermScore>,
}

/// One term's part of a sum.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TermScore {
    /// The stemmed term.
    pub term: String,
    /// What it adds.
    pub weight: f64,
}

impl Score {
    pub(super) fn of_terms(terms: Vec<TermScore>) -> Self {
        let bm25 = rounded(terms.iter().map(|part| part.weight).sum());
        Self { bm25, terms, ..Self::default() }.with_nearness(0.0)
    }

    /// The score with what word vectors say.
    pub(super) fn with_nearness(self, nearness: f64) -> Self {
        let nearness = rounded(nearness);
        let sum = self.bm25 + nearness;
        Self { score: rounded(sum / (sum + HALF_SCORE)), nearness, ..self }
    }

    /// The score with what sentence vectors say: that of the better of the two.
    pub(super) fn with_cosine(self, cosine: f64, fused: f64) -> Self {
        Self {
            score: self.score.max(cosine.clamp(0.0, 1.0)),
            cosine: Some(cosine),
            fused: Some(fused),
            ..self
        }
    }

    /// The order of a list, the better the greater: by the fused ranks where there are any, then by score.
    pub fn order(&self, other: &Self) -> Ordering {
        let fused = |own: &Self| own.fused.unwrap_or_default();
        fused(self).total_cmp(&fused(other)).then(self.score.total_cmp(&other.score))
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// Rounds to nine decimals: logarithms differ in the last bit between a browser and a native
/// build, and the order of two equal scores must not.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}
