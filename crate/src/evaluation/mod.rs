//! How good the memory is: scores of answers, and benchmarks that run the whole pipeline.

mod benchmark;
mod bootstrap;
mod compare;
mod judge;
mod locomo_scorer;
mod metrics;
mod ops;
mod page;
mod places;
mod porter;
mod quantization;
mod report;
mod run_folder;
mod scores;
pub mod speed;
mod word_tokenizer;

pub use benchmark::{
    BankState, BenchmarkProgress, BenchmarkRun, BenchmarkSettings, Growth, QuestionOutcome, Shown, Stale,
    System,
};
pub use compare::{Changed, Compared, Comparison, Difference, McNemar, compare};

pub use judge::Judge;
pub use locomo_scorer::locomo_f1;
pub use metrics::{Scores, bleu1, declines, exact_match, f1, normalise_answer};
pub use ops::{
    Decided, OpScores, OpsOutcome, OpsTotals, Share, TargetRecall, ops_totals, read_cases, run_case,
};
pub use page::page;
pub use places::{PlaceTotals, run_places};
pub use quantization::{FORMATS, FormatCost, QuantizationReport, quantization_costs};
pub use report::{BenchmarkReport, Corrected, EvidenceRecall, Intervals, Judged, Percentiles};
pub use run_folder::{RunFolder, read_questions};
pub use scores::{Category, CategoryScores, Pair, Tally, Totals, read_pairs};
pub use word_tokenizer::word_tokenize;
