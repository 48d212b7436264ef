//! `eval compare`.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use crate::cli::output::Output;
use crate::error::Result;
use crate::evaluation::{Compared, Comparison, Difference, compare, read_questions};

/// The most changed questions that the text lists; the JSON has all.
const LISTED: usize = 20;

/// Two runs of `eval locomo` on the same data, question by question: the paired bootstrap of each
/// score's difference, McNemar's exact test of who is right, and what changed.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The folder of the first run.
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The folder of the second run.
    #[arg(value_name = "B")]
    b: PathBuf,
    /// The seed of the bootstrap.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let (a, b) = (read_questions(&arguments.a)?, read_questions(&arguments.b)?);
    let comparison = compare(&a, &b, arguments.seed)?;
    output.result(&comparison, || text(&comparison))
}

fn text(both: &Comparison) -> String {
    let mut text =
        format!("{:<10} {:>5} {:<31} {:<31} {}\n", "category", "n", "F1", "exact match", "only A, only B, p");
    let mut line = |name: &str, own: &Compared| {
        let tested = own.mcnemar;
        let _ = writeln!(
            text,
            "{name:<10} {:>5} {:<31} {:<31} {}, {}, {:.4}",
            own.n,
            difference(own.f1),
            difference(own.exact_match),
            tested.only_a,
            tested.only_b,
            tested.p
        );
    };
    line("1 to 4", &both.pooled);
    for (name, own) in &both.by_category {
        line(name, own);
    }
    if both.unpaired > 0 {
        let _ = writeln!(text, "{} questions were answered by one run only", both.unpaired);
    }
    let _ = writeln!(text, "{} answers score otherwise", both.changed.len());
    for own in both.changed.iter().take(LISTED) {
        let _ = writeln!(
            text,
            "{} {} ({}) {}\n  gold {:?}, A {:?} ({:.2}), B {:?} ({:.2})",
            own.sample_id,
            own.index,
            own.category,
            own.question,
            own.answer,
            own.a.0,
            own.a.1,
            own.b.0,
            own.b.1
        );
    }
    text
}

fn difference(own: Difference) -> String {
    let [low, high] = own.interval.map(|bound| 100.0 * bound);
    format!("{:.1} → {:.1} ({low:+.1} to {high:+.1})", 100.0 * own.a, 100.0 * own.b)
}
