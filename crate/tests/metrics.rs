//! The scores against NLTK and SQuAD's script.
//!
//! The constants of `fixtures/metrics.json` are printed by `tests/reference/metrics.py`, whose
//! header says how.

#![cfg(not(target_arch = "wasm32"))]

use memory_r1::evaluation::{bleu1, exact_match, f1, normalise_answer, word_tokenize};
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    prediction: String,
    answer: String,
    tokens: Vec<String>,
    f1: f64,
    bleu1: f64,
    normalised: String,
    exact_match: bool,
}

fn rows() -> Vec<Row> {
    let rows: Vec<Row> = serde_json::from_str(include_str!("fixtures/metrics.json")).unwrap();
    assert!(rows.len() > 200, "{} pairs", rows.len());
    rows
}

#[test]
fn words_end_where_nltk_ends_them() {
    for row in rows() {
        assert_eq!(word_tokenize(&row.prediction), row.tokens, "{:?}", row.prediction);
    }
}

#[test]
fn f1_and_bleu_are_the_harness_own() {
    for row in rows() {
        let (own_f1, own_bleu) = (f1(&row.prediction, &row.answer), bleu1(&row.prediction, &row.answer));
        assert!((own_f1 - row.f1).abs() < 1e-9, "{:?} {:?}: {own_f1}", row.prediction, row.answer);
        assert!((own_bleu - row.bleu1).abs() < 1e-9, "{:?} {:?}: {own_bleu}", row.prediction, row.answer);
    }
}

#[test]
fn exact_match_is_squads() {
    for row in rows() {
        assert_eq!(normalise_answer(&row.prediction), row.normalised, "{:?}", row.prediction);
        assert_eq!(exact_match(&row.prediction, &row.answer), row.exact_match, "{:?}", row.prediction);
    }
}
