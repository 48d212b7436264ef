//! LoCoMo's official score (`task_eval/evaluation.py` of its repository): F1 over **multisets** of
//! stemmed words, by rules of its own for each category. It is not the F1 of Mem0 and Memory-R1.

use std::collections::BTreeMap;

use super::porter::stem;
use super::word_tokenizer::split;

/// The score of one answer in 0..1: in category 1 the mean over the gold answer's parts between
/// commas of the best part of the prediction, in 3 against what stands before the first
/// semicolon, in 5 whether it is declined, otherwise F1.
pub fn locomo_f1(prediction: &str, answer: &str, category: Option<&str>) -> f64 {
    match category {
        Some("1") => {
            let parts: Vec<f64> = answer
                .split(',')
                .map(|gold| prediction.split(',').map(|own| stemmed_f1(own, gold)).fold(0.0, f64::max))
                .collect();
            parts.iter().sum::<f64>() / parts.len() as f64
        }
        Some("3") => stemmed_f1(prediction, answer.split(';').next().unwrap_or_default()),
        Some("5") => {
            let lower = prediction.to_lowercase();
            let declined =
                ["no information available", "not mentioned"].iter().any(|form| lower.contains(form));
            f64::from(u8::from(declined))
        }
        _ => stemmed_f1(prediction, answer),
    }
}

fn stemmed_f1(prediction: &str, answer: &str) -> f64 {
    let count = |text: &str| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for word in split(&normalised(text)) {
            *counts.entry(stem(word)).or_default() += 1;
        }
        counts
    };
    let (predicted, gold) = (count(prediction), count(answer));
    let common: usize = predicted.iter().map(|(word, n)| *n.min(gold.get(word).unwrap_or(&0))).sum();
    if common == 0 {
        return 0.0;
    }
    let total = |counts: &BTreeMap<String, usize>| counts.values().sum::<usize>() as f64;
    let (precision, recall) = (common as f64 / total(&predicted), common as f64 / total(&gold));
    2.0 * precision * recall / (precision + recall)
}

/// As SQuAD's, but that `and` goes too.
fn normalised(text: &str) -> String {
    super::metrics::without_words(text, &["a", "an", "the", "and"])
}
