//! BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009) over the texts
//! of a bank.

use std::collections::HashMap;

use super::score::{Score, TermScore, rounded};
use super::terms;

/// How fast a repeated term stops to count.
const K1: f64 = 1.2;
/// How much a long text pays for its length.
const B: f64 = 0.75;
/// The term counts of some texts.
///
/// ```
/// use memory_r1::retrieval::Bm25;
/// let index = Bm25::new(["Has a dog named Scout", "Lives in Lyon"]);
/// let scores = index.scores("What are my dogs called?");
/// assert!(scores[0].score > 0.1 && scores[1].score == 0.0);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Bm25 {
    texts: Vec<Text>,
    /// In how many texts a term stands.
    spread: HashMap<String, usize>,
    mean_length: f64,
}

#[derive(Clone, Debug)]
struct Text {
    counts: HashMap<String, usize>,
    length: usize,
}

impl Bm25 {
    /// Counts the terms of the texts.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut spread = HashMap::new();
        let texts: Vec<Text> = texts
            .into_iter()
            .map(|text| {
                let terms = terms(text);
                let length = terms.len();
                let mut counts = HashMap::new();
                for term in terms {
                    *counts.entry(term).or_insert(0) += 1;
                }
                for term in counts.keys() {
                    *spread.entry(term.clone()).or_insert(0) += 1;
                }
                Text { counts, length }
            })
            .collect();
        let total: usize = texts.iter().map(|text| text.length).sum();
        let mean_length = (total as f64 / texts.len().max(1) as f64).max(1.0);
        Self { texts, spread, mean_length }
    }

    /// The score of every text, in the order in which they were given.
    ///
    /// `sum over shared terms of idf · f (k1 + 1) / (f + k1 (1 - b + b · length / mean length))`
    /// with `idf = ln(1 + (N - n + 0.5) / (n + 0.5))`, where `f` is the term's count in the text,
    /// `n` the texts that have it and `N` all texts; k1 = 1.2, b = 0.75. A term that the query
    /// repeats counts once.
    pub fn scores(&self, query: &str) -> Vec<Score> {
        let mut query = terms(query);
        let mut seen = std::collections::HashSet::new();
        query.retain(|term| seen.insert(term.clone()));
        let inverse: Vec<f64> = query
            .iter()
            .map(|term| {
                let spread = self.spread.get(term).copied().unwrap_or(0) as f64;
                (1.0 + (self.texts.len() as f64 - spread + 0.5) / (spread + 0.5)).ln()
            })
            .collect();
        self.texts
            .iter()
            .map(|text| {
                let norm = K1 * (1.0 - B + B * text.length as f64 / self.mean_length);
                let parts = query.iter().zip(&inverse).filter_map(|(term, inverse)| {
                    let count = *text.counts.get(term)? as f64;
                    let weight = rounded(inverse * count * (K1 + 1.0) / (count + norm));
                    Some(TermScore { term: term.clone(), weight })
                });
                Score::of_terms(parts.collect())
            })
            .collect()
    }
}

/// [`Bm25::scores`] of texts that are asked about once.
pub fn scores<'a>(texts: impl IntoIterator<Item = &'a str>, query: &str) -> Vec<Score> {
    Bm25::new(texts).scores(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_the_formula() {
        // N = 3, lengths 4, 2, 3, mean 3. "dog": n = 2, idf = ln(1 + 1.5 / 2.5) = 0.470003629;
        // "scout": n = 1, idf = ln(1 + 2.5 / 1.5) = 0.980829253.
        let index = Bm25::new(["Adopted a dog named Scout", "Lives in Lyon", "dog walks dogs"]);
        let scores = index.scores("Is Scout a dog, a dog?");
        // norm of the first: 1.2 (0.25 + 0.75 · 4/3) = 1.5, so each weight is idf · 2.2 / 2.5.
        assert_eq!(scores[0].terms[0].term, "scout");
        assert!((scores[0].terms[0].weight - 0.863_129_743).abs() < 2e-9);
        assert!((scores[0].terms[1].weight - 0.413_603_194).abs() < 2e-9);
        assert!((scores[0].bm25 - 1.276_732_937).abs() < 4e-9);
        assert!((scores[0].score - 1.276_732_937 / 3.276_732_937).abs() < 4e-9);
        assert_eq!(scores[1], Score::default());
        // f = 2, norm 1.2: 0.470003629 · 4.4 / 3.2.
        assert!((scores[2].bm25 - 0.646_254_990).abs() < 2e-9);
    }

    #[test]
    fn nothing_in_common_an_empty_query_and_an_empty_bank_score_nothing() {
        assert_eq!(scores([], "dog"), []);
        for query in ["", "the of and", "zebra", "🐕"] {
            assert_eq!(scores(["Has a dog", ""], query), [Score::default(), Score::default()]);
        }
    }

    #[test]
    fn scores_stay_in_range_and_one_text_alone_can_be_found() {
        let long = "dog ".repeat(4000);
        for score in scores([long.as_str(), "dog", "Has a dog and a cat"], "dog cat") {
            assert!(score.score > 0.0 && score.score < 1.0);
        }
        assert!(scores(["Has a dog named Scout"], "dog")[0].score > 0.1);
    }
}
