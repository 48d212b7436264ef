//! The scores of one answer, as the harness of Memory-R1 (after Mem0's) and LoCoMo compute them.
//!
//! `tests/reference/metrics.py` prints the constants that `crate/tests/metrics.rs` checks.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::locomo_scorer::locomo_f1;
use super::word_tokenizer::{split, word_tokenize};

/// The scores of one answer, or their means, in 0..1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// [`f1`].
    pub f1: f64,
    /// [`bleu1`].
    pub bleu1: f64,
    /// [`exact_match`], 0 or 1.
    pub exact_match: f64,
    /// [`locomo_f1`].
    #[serde(default)]
    pub locomo_f1: f64,
}

impl Scores {
    /// All of them.
    pub fn of(prediction: &str, answer: &str, category: Option<&str>) -> Self {
        Self {
            f1: f1(prediction, answer),
            bleu1: bleu1(prediction, answer),
            exact_match: f64::from(u8::from(exact_match(prediction, answer))),
            locomo_f1: locomo_f1(prediction, answer, category),
        }
    }
}

/// The harmonic mean of precision and recall over the **sets** of lower-case words, where
/// `.` `,` `!` and `?` part words; 0 where either text has none.
pub fn f1(prediction: &str, answer: &str) -> f64 {
    let words = |text: &str| -> BTreeSet<String> {
        let parted = text.to_lowercase().replace(['.', ',', '!', '?'], " ");
        split(&parted).map(str::to_owned).collect()
    };
    let (predicted, gold) = (words(prediction), words(answer));
    let common = predicted.intersection(&gold).count() as f64;
    if common == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (common / predicted.len() as f64, common / gold.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

/// NLTK's `sentence_bleu` of one reference with the weights (1, 0, 0, 0) on lower-case words:
/// the clipped share of the prediction's words that the answer has, times the brevity penalty.
///
/// The harness smooths by NLTK's `method1`, which only touches orders without any match; an
/// answer without a common word scores 0 before it would come to that.
pub fn bleu1(prediction: &str, answer: &str) -> f64 {
    let (predicted, gold) =
        (word_tokenize(&prediction.to_lowercase()), word_tokenize(&answer.to_lowercase()));
    let count = |words: &[String]| {
        words.iter().cloned().fold(BTreeMap::<String, usize>::new(), |mut counts, word| {
            *counts.entry(word).or_default() += 1;
            counts
        })
    };
    let gold_counts = count(&gold);
    let clipped: usize =
        count(&predicted).iter().map(|(word, count)| *count.min(gold_counts.get(word).unwrap_or(&0))).sum();
    if clipped == 0 {
        return 0.0;
    }
    let (length, wanted) = (predicted.len() as f64, gold.len() as f64);
    let brevity = if length > wanted { 1.0 } else { (1.0 - wanted / length).exp() };
    brevity * clipped as f64 / length
}

/// Whether the two are equal as SQuAD compares answers, by [`normalise_answer`].
pub fn exact_match(prediction: &str, answer: &str) -> bool {
    normalise_answer(prediction) == normalise_answer(answer)
}

/// SQuAD's normal form: lower case, without ASCII punctuation, without the words `a`, `an` and
/// `the`, one space between words.
pub fn normalise_answer(text: &str) -> String {
    without_words(text, &["a", "an", "the"])
}

/// The same without these words.
pub(super) fn without_words(text: &str, words: &[&str]) -> String {
    let plain: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    // SQuAD's `\b` stands between `\w` and anything else: "the€5" loses its article, "theX" not.
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut kept = String::with_capacity(plain.len());
    let mut rest = plain.as_str();
    while let Some(first) = rest.chars().next() {
        let same = |c: char| is_word(c) == is_word(first);
        let end = rest.find(|c| !same(c)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        kept.push_str(if words.contains(&run) { " " } else { run });
        rest = after;
    }
    split(&kept).collect::<Vec<_>>().join(" ")
}

/// Whether an answer says that it does not know: our own wording, or what LoCoMo's scorer takes
/// for it in category 5.
pub fn declines(prediction: &str) -> bool {
    let plain = normalise_answer(prediction);
    plain.is_empty()
        || ["i dont know", "no information available", "not mentioned"]
            .iter()
            .any(|form| plain.contains(form))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f1_counts_each_word_once() {
        assert!((f1("the dog the dog", "the cat") - 0.5).abs() < 1e-12);
        assert!((f1("7 May, 2023.", "7 may 2023") - 1.0).abs() < 1e-12);
        assert!(f1("", "x") == 0.0 && f1("x", "") == 0.0 && f1("", "") == 0.0);
    }

    #[test]
    fn bleu_clips_repeats_and_punishes_short_answers() {
        assert!((bleu1("dog dog dog dog", "dog dog") - 0.5).abs() < 1e-12);
        assert!((bleu1("dog", "the dog") - (-1.0f64).exp()).abs() < 1e-12);
    }

    #[test]
    fn articles_case_and_punctuation_do_not_matter_to_an_exact_match() {
        assert!(exact_match("The Golden-Gate Bridge.", "goldengate bridge"));
        assert!(!exact_match("theatre", "atre"));
    }

    #[test]
    fn a_refusal_is_recognised_and_an_answer_is_not() {
        assert!(declines("I don't know") && declines("Not mentioned in the conversation.") && declines(""));
        assert!(!declines("Lyon"));
    }
}
