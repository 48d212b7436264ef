//! The scores against NLTK, SQuAD's script and LoCoMo's formulas; and the paper's table against itself.
//!
//! The constants of `fixtures/metrics.json` are printed by `tests/reference/metrics.py`, whose
//! header says how.

#![cfg(not(target_arch = "wasm32"))]

use memory_r1::evaluation::{bleu1, exact_match, f1, locomo_f1, normalise_answer, word_tokenize};
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
    /// By category, from 1.
    locomo: [f64; 5],
}

#[derive(Deserialize)]
struct Constants {
    pairs: Vec<Row>,
}

fn rows() -> Vec<Row> {
    let constants: Constants = serde_json::from_str(include_str!("fixtures/metrics.json")).unwrap();
    assert!(constants.pairs.len() > 200, "{} pairs", constants.pairs.len());
    constants.pairs
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

#[test]
fn the_score_of_locomo_is_its_own() {
    for row in rows() {
        for (wanted, category) in row.locomo.iter().zip(["1", "2", "3", "4", "5"]) {
            let own = locomo_f1(&row.prediction, &row.answer, Some(category));
            assert!((own - wanted).abs() < 1e-9, "{category} {:?} {:?}: {own}", row.prediction, row.answer);
        }
    }
}

/// Table 1 of the paper (version 5; Zep's rows are version 4's): F1, BLEU-1 and the judge's score by category
/// in the order of [`TEST_QUESTIONS`], and then overall.
#[rustfmt::skip]
const TABLE_1: [(&str, [[f64; 3]; 5]); 16] = [
    ("LLaMA-3.1-8B, LoCoMo-RAG", [[12.25, 9.77, 13.81], [13.69, 10.96, 20.48], [11.59, 8.30, 15.96], [9.38, 8.15, 4.65], [11.41, 8.71, 13.62]]),
    ("LLaMA-3.1-8B, Zep", [[30.15, 17.15, 52.38], [15.04, 11.56, 33.33], [26.67, 18.44, 45.36], [3.49, 2.68, 27.58], [22.60, 15.05, 42.80]]),
    ("LLaMA-3.1-8B, A-Mem", [[21.62, 16.93, 44.76], [13.82, 11.45, 34.93], [34.67, 29.13, 49.38], [25.77, 22.14, 36.43], [29.20, 24.40, 44.76]]),
    ("LLaMA-3.1-8B, Mem0", [[27.29, 18.63, 43.93], [18.59, 13.86, 37.35], [34.03, 24.77, 52.27], [26.90, 21.06, 31.40], [30.41, 22.22, 45.68]]),
    ("LLaMA-3.1-8B, MemoryOS", [[31.89, 23.05, 52.72], [13.80, 12.78, 31.33], [40.74, 33.67, 57.36], [28.74, 21.44, 23.64], [35.04, 27.99, 48.20]]),
    ("LLaMA-3.1-8B, Memory-SFT", [[34.64, 23.73, 56.90], [20.80, 16.26, 37.35], [46.47, 37.35, 63.27], [47.18, 34.58, 54.65], [42.81, 32.98, 58.76]]),
    ("LLaMA-3.1-8B, R1-PPO", [[32.52, 24.47, 53.56], [26.86, 23.47, 42.17], [45.30, 39.18, 64.10], [41.57, 26.11, 47.67], [41.05, 32.91, 57.54]]),
    ("LLaMA-3.1-8B, R1-GRPO", [[35.73, 27.70, 59.83], [35.65, 30.77, 53.01], [47.42, 41.24, 68.78], [49.86, 38.27, 51.55], [45.02, 37.51, 62.74]]),
    ("Qwen2.5-7B, LoCoMo-RAG", [[9.57, 7.00, 15.06], [11.84, 10.02, 19.28], [8.67, 6.52, 12.79], [8.35, 8.74, 5.43], [8.97, 7.27, 12.17]]),
    ("Qwen2.5-7B, Zep", [[31.02, 21.39, 42.85], [20.42, 15.76, 23.81], [25.25, 21.34, 42.26], [8.94, 8.42, 29.31], [23.22, 18.78, 38.99]]),
    ("Qwen2.5-7B, A-Mem", [[18.96, 12.86, 40.78], [14.73, 12.66, 31.32], [30.58, 26.14, 46.90], [23.67, 20.67, 28.68], [26.08, 21.78, 40.78]]),
    ("Qwen2.5-7B, Mem0", [[24.96, 18.05, 61.92], [20.31, 15.82, 48.19], [32.74, 25.27, 65.20], [33.16, 26.28, 38.76], [30.61, 23.55, 53.30]]),
    ("Qwen2.5-7B, MemoryOS", [[29.55, 22.59, 48.12], [21.03, 18.41, 38.55], [40.85, 36.26, 63.14], [26.26, 19.70, 24.81], [34.64, 29.36, 51.26]]),
    ("Qwen2.5-7B, Memory-SFT", [[27.81, 20.25, 57.74], [24.62, 22.28, 46.99], [43.33, 34.06, 66.85], [44.41, 34.32, 52.71], [39.51, 30.84, 61.13]]),
    ("Qwen2.5-7B, R1-PPO", [[34.22, 23.61, 57.74], [32.87, 29.48, 53.01], [44.78, 38.72, 66.99], [42.88, 30.30, 42.25], [41.72, 33.70, 59.53]]),
    ("Qwen2.5-7B, R1-GRPO", [[33.64, 26.06, 62.34], [23.55, 20.71, 40.96], [46.86, 40.92, 67.81], [47.75, 38.49, 49.61], [43.14, 36.44, 61.51]]),
];

/// How many questions the test split has: single-hop, multi-hop, open-domain and temporal, as the paper names them.
const TEST_QUESTIONS: [f64; 4] = [239.0, 83.0, 727.0, 258.0];

/// "Overall" is the mean over questions, and where a row says another number it is the row that is wrong.
#[test]
fn the_papers_overall_scores_are_means_over_questions_but_for_these() {
    let mut wrong = Vec::new();
    for (system, scores) in TABLE_1 {
        for (column, name) in ["F1", "BLEU-1", "J"].iter().enumerate() {
            let sum: f64 = TEST_QUESTIONS.iter().zip(&scores).map(|(n, own)| n * own[column]).sum();
            let mean = sum / TEST_QUESTIONS.iter().sum::<f64>();
            // Categories and overall are both rounded to a hundredth.
            if (mean - scores[4][column]).abs() > 0.02 {
                wrong.push(format!("{system} {name} {mean:.2}"));
            }
        }
    }
    let known = [
        "LLaMA-3.1-8B, Zep F1 21.99",
        "LLaMA-3.1-8B, Zep BLEU-1 14.66",
        "LLaMA-3.1-8B, Zep J 42.37",
        "LLaMA-3.1-8B, A-Mem J 45.06",
        "Qwen2.5-7B, Zep F1 22.78",
        "Qwen2.5-7B, Zep BLEU-1 18.44",
        "Qwen2.5-7B, Zep J 38.64",
        "Qwen2.5-7B, A-Mem J 41.19",
        "Qwen2.5-7B, Mem0 J 58.30",
    ];
    assert_eq!(wrong, known);
}
