//! `score`: F1, BLEU-1 and exact match of predictions beside their gold answers.

use std::fmt::Write as _;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use clap::Args;

use super::output::Output;
use crate::datasets::ABSTENTION;
use crate::error::{Error, ErrorCode, Result};
use crate::evaluation::{Tally, Totals, read_pairs};

/// F1, BLEU-1 and exact match, each in 0..1. Category 5 (adversarial) is not in the totals.
#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// JSON lines of {"prediction", "answer", "category"}; the category may be left out.
    #[arg(long, value_name = "FILE")]
    pairs: PathBuf,
}

pub(in crate::cli) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let name = arguments.pairs.display();
    let file = File::open(&arguments.pairs).map_err(|error| {
        Error::new(ErrorCode::NotReachable, format!("{name} could not be read")).with_source(error)
    })?;
    let pairs = read_pairs(BufReader::new(file))
        .map_err(|error| Error::new(error.code(), format!("{name}: {}", error.message())))?;
    if pairs.is_empty() {
        return Err(Error::invalid(format!("{name} holds no pairs")));
    }
    let mut tally = Tally::default();
    for pair in &pairs {
        tally.add(pair);
    }
    let totals = tally.totals();
    output.result(&totals, || table(&totals))
}

/// The totals for people, times 100 as papers print them.
pub(in crate::cli) fn table(totals: &Totals) -> String {
    let mut text = format!(
        "{:<10} {:>6} {:>7} {:>7} {:>7} {:>9} {:>9}\n",
        "category", "n", "F1", "BLEU-1", "EM", "LoCoMo F1", "declined"
    );
    for (name, category) in &totals.by_category {
        let scores = category.scores;
        let _ = writeln!(
            text,
            "{name:<10} {:>6} {:>7.2} {:>7.2} {:>7.2} {:>9.2} {:>9.2}",
            category.n,
            100.0 * scores.f1,
            100.0 * scores.bleu1,
            100.0 * scores.exact_match,
            100.0 * scores.locomo_f1,
            100.0 * category.declined
        );
    }
    let has = |category: &str| totals.by_category.contains_key(category);
    let pooled = if has("5") {
        "all but 5"
    } else if has(ABSTENTION) {
        "answerable"
    } else {
        "all"
    };
    let _ = writeln!(
        text,
        "{pooled:<10} {:>6} {:>7.2} {:>7.2} {:>7.2} {:>9.2}",
        totals.n,
        100.0 * totals.scores.f1,
        100.0 * totals.scores.bleu1,
        100.0 * totals.scores.exact_match,
        100.0 * totals.scores.locomo_f1
    );
    text
}
