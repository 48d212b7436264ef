//! How good the memory is: scores of answers, and benchmarks that run the whole pipeline.

mod metrics;
mod scores;
mod word_tokenizer;

pub use metrics::{Scores, bleu1, declines, exact_match, f1, normalise_answer};
pub use scores::{Category, CategoryScores, Pair, Tally, Totals, read_pairs};
pub use word_tokenizer::word_tokenize;
