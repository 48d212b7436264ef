//! `synth`: made-up conversations with gold operations.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::database::count;
use super::output::Output;
use crate::datasets::synthetic::{self, Options, generate, ops_cases, write_locomo, write_ops};
use crate::error::Result;

/// Dated conversations of people whose lives change, in LoCoMo's layout with gold operations.
/// The same seed gives the same text.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The seed of all that is random.
    #[arg(long, value_name = "N")]
    seed: u64,
    /// How many conversations.
    #[arg(long, value_name = "N")]
    dialogues: usize,
    /// The file of conversations.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Which names, values and wordings.
    #[arg(long, value_enum, default_value = "train")]
    split: Split,
    /// Also write cases for `eval ops` to this file.
    #[arg(long, value_name = "FILE")]
    ops: Option<PathBuf>,
    /// How many cases, a quarter of each operation.
    #[arg(long, value_name = "N", default_value_t = 200, requires = "ops")]
    cases: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Split {
    /// Four fifths: what models are trained on.
    Train,
    /// The fifth that no model was trained on.
    Test,
}

#[derive(Serialize)]
struct Made {
    dialogues: usize,
    sessions: usize,
    turns: usize,
    questions: usize,
    /// Gold operations by name.
    ops: std::collections::BTreeMap<&'static str, usize>,
    /// Cases for `eval ops`.
    cases: usize,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let split = match arguments.split {
        Split::Train => synthetic::Split::Train,
        Split::Test => synthetic::Split::Test,
    };
    let dialogues = generate(arguments.seed, arguments.dialogues, split, Options::default());
    write_locomo(&arguments.out, &dialogues)?;
    let mut made = Made {
        dialogues: dialogues.len(),
        sessions: dialogues.iter().map(|dialogue| dialogue.sample.conversation.sessions.len()).sum(),
        turns: dialogues.iter().map(|dialogue| dialogue.gold.turns.len()).sum(),
        questions: dialogues.iter().map(|dialogue| dialogue.sample.questions.len()).sum(),
        ops: std::collections::BTreeMap::new(),
        cases: 0,
    };
    for fact in dialogues.iter().flat_map(|dialogue| &dialogue.gold.turns).flat_map(|turn| &turn.facts) {
        *made.ops.entry(fact.op.wire_name()).or_default() += 1;
    }
    if let Some(path) = &arguments.ops {
        let cases = ops_cases(arguments.seed, arguments.cases, split);
        write_ops(path, &cases)?;
        made.cases = cases.len();
    }
    output.result(&made, || {
        let mut text = format!(
            "{} of {} turns and {} questions written to {}",
            count(made.dialogues, "conversation", "conversations"),
            made.turns,
            made.questions,
            arguments.out.display()
        );
        if let Some(path) = &arguments.ops {
            let _ = write!(text, "\n{} written to {}", count(made.cases, "case", "cases"), path.display());
        }
        text
    })
}
