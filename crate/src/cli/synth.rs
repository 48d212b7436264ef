//! `synth`: made-up conversations with gold operations.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::database::count;
use super::output::Output;
use crate::datasets::freeform::held_out_cases;
use crate::datasets::synthetic::{
    self, Count, Options, Shapes, Share, generate, ops_cases, shapes, write_layout, write_locomo, write_ops,
};
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
    #[arg(long, value_name = "FILE", required_unless_present = "shapes")]
    out: Option<PathBuf>,
    /// The benchmark whose layout the file has; of the others than LoCoMo's, a record for each question.
    #[arg(long, value_enum, default_value = "locomo")]
    layout: Layout,
    /// Which names, values and wordings.
    #[arg(long, value_enum, default_value = "train")]
    split: Split,
    /// Also write cases for `eval ops` to this file.
    #[arg(long, value_name = "FILE")]
    ops: Option<PathBuf>,
    /// How many cases, a quarter of each operation.
    #[arg(long, value_name = "N", default_value_t = 200, requires = "ops")]
    cases: usize,
    /// Also write the situations written one by one that no training reads, as cases for `eval ops`.
    #[arg(long, value_name = "FILE", conflicts_with = "shapes")]
    held_out: Option<PathBuf>,
    /// The fewest and the most sessions of a conversation.
    #[arg(long, value_name = "A-B", default_value_t = Range(Options::default().sessions))]
    sessions: Range,
    /// The fewest and the most turns of a session.
    #[arg(long, value_name = "A-B", default_value_t = Range(Options::default().turns))]
    turns: Range,
    /// Write no file, but print how varied the language is, and how much of what the test split
    /// says is said in training too: in as many conversations and in ten times as many.
    #[arg(long, conflicts_with_all = ["out", "ops", "split"])]
    shapes: bool,
}

/// The fewest and the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range((usize, usize));

/// More than any use; a slip of the finger should not fill a disk.
const MOST: usize = 1_000;

impl FromStr for Range {
    type Err = String;

    /// `3-12`, or `3` for `3-3`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| {
            text.trim().parse::<usize>().map_err(|_| "write the fewest and the most, like 3-12".to_owned())
        };
        let (least, most) = (number(least)?, number(most)?);
        if least == 0 {
            return Err("there must be at least 1".to_owned());
        }
        if least > most {
            return Err(format!("the fewest, {least}, are more than the most, {most}"));
        }
        if most > MOST {
            return Err(format!("{most} are more than {MOST}"));
        }
        Ok(Self((least, most)))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.0.0, self.0.1)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Split {
    /// Four fifths: what models are trained on.
    Train,
    /// The fifth that no model was trained on.
    Test,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Layout {
    Locomo,
    /// S and M: a question with all sessions.
    Longmemeval,
    /// A question with the sessions that hold its answer.
    LongmemevalOracle,
    /// MSC-Self-Instruct: a question that one speaker asks the other.
    Msc,
}

#[derive(Serialize)]
struct Made {
    dialogues: usize,
    /// Conversations, or questions with their sessions, in the file.
    records: usize,
    sessions: usize,
    turns: usize,
    questions: usize,
    /// Gold operations by name.
    ops: std::collections::BTreeMap<&'static str, usize>,
    /// Cases for `eval ops`.
    cases: usize,
    /// Cases of held-out situations.
    held_out: usize,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let options = Options { sessions: arguments.sessions.0, turns: arguments.turns.0 };
    match &arguments.out {
        Some(out) if !arguments.shapes => write(arguments, options, out, output),
        _ => {
            let shapes = shapes(arguments.seed, arguments.dialogues, options);
            output.result(&shapes, || table(&shapes))
        }
    }
}

fn write(arguments: &Arguments, options: Options, out: &Path, output: &mut Output) -> Result<()> {
    let split = match arguments.split {
        Split::Train => synthetic::Split::Train,
        Split::Test => synthetic::Split::Test,
    };
    let dialogues = generate(arguments.seed, arguments.dialogues, split, options);
    let layout = match arguments.layout {
        Layout::Locomo => None,
        Layout::Longmemeval => Some(synthetic::Layout::LongMemEval),
        Layout::LongmemevalOracle => Some(synthetic::Layout::LongMemEvalOracle),
        Layout::Msc => Some(synthetic::Layout::Msc),
    };
    let records = match layout {
        None => write_locomo(out, &dialogues).map(|()| dialogues.len())?,
        Some(layout) => write_layout(out, &dialogues, layout)?,
    };
    let mut made = Made {
        dialogues: dialogues.len(),
        records,
        sessions: dialogues.iter().map(|dialogue| dialogue.sample.conversation.sessions.len()).sum(),
        turns: dialogues.iter().map(|dialogue| dialogue.gold.turns.len()).sum(),
        questions: dialogues.iter().map(|dialogue| dialogue.sample.questions.len()).sum(),
        ops: std::collections::BTreeMap::new(),
        cases: 0,
        held_out: 0,
    };
    for fact in dialogues.iter().flat_map(|dialogue| &dialogue.gold.turns).flat_map(|turn| &turn.facts) {
        *made.ops.entry(fact.op.wire_name()).or_default() += 1;
    }
    if let Some(path) = &arguments.ops {
        let cases = ops_cases(arguments.seed, arguments.cases, split);
        write_ops(path, &cases)?;
        made.cases = cases.len();
    }
    if let Some(path) = &arguments.held_out {
        let cases = held_out_cases()?;
        write_ops(path, &cases)?;
        made.held_out = cases.len();
    }
    output.result(&made, || {
        let mut text = format!(
            "{} of {} turns and {} questions written to {}",
            count(made.dialogues, "conversation", "conversations"),
            made.turns,
            made.questions,
            out.display()
        );
        for (path, made) in [(&arguments.ops, made.cases), (&arguments.held_out, made.held_out)] {
            if let Some(path) = path {
                let _ = write!(text, "\n{} written to {}", count(made, "case", "cases"), path.display());
            }
        }
        text
    })
}

/// The figures as a small table.
fn table(shapes: &Shapes) -> String {
    let mut text = String::new();
    let mut line = |name: &str, cells: [String; 4]| {
        let _ = write!(text, "{name:<28}");
        for cell in cells {
            let _ = write!(text, "{cell:>12}");
        }
        let length = text.trim_end().len();
        text.truncate(length);
        text.push('\n');
    };
    let none = String::new;
    let head = |one: &str, two: &str| [one.to_owned(), two.to_owned(), none(), none()];
    line("in the tables", head("all", "test only"));
    line("  relations", [shapes.relations.to_string(), none(), none(), none()]);
    let counts: [(&str, Count); 5] = [
        ("  wordings of facts", shapes.wordings),
        ("  wordings of questions", shapes.questions),
        ("  two facts at once", shapes.combos),
        ("  small talk, fillers", shapes.small_talk),
        ("  values", shapes.values),
    ];
    for (name, count) in counts {
        line(name, [count.all.to_string(), count.test.to_string(), none(), none()]);
    }
    line("in conversations", head("train", "test"));
    let (train, test) = (&shapes.train, &shapes.test);
    for (name, train, test) in [
        ("  conversations", train.dialogues, test.dialogues),
        ("  turns", train.turns, test.turns),
        ("  distinct turns", train.distinct_turns, test.distinct_turns),
        ("  sentences", train.sentences, test.sentences),
        ("  distinct sentences", train.distinct_sentences, test.distinct_sentences),
        ("  distinct sentence shapes", train.shapes, test.shapes),
    ] {
        line(name, [train.to_string(), test.to_string(), none(), none()]);
    }
    let heads = ["distinct", "distinct", "all said", "all said"];
    line("of the test split in train", heads.map(str::to_owned));
    line("  of this many times its size", ["1", "10", "1", "10"].map(str::to_owned));
    for overlap in &shapes.overlap {
        let Share { distinct: one, running: all } = overlap.same_size;
        let Share { distinct: ten, running: all_ten } = overlap.ten_times;
        let cells = [one, ten, all, all_ten].map(|share| format!("{:.1} %", 100.0 * share));
        line(&format!("  {}", overlap.of), cells);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_two_numbers_in_order() {
        let range = |text: &str| text.parse::<Range>().map(|range| range.0);
        assert_eq!(range("3-12"), Ok((3, 12)));
        assert_eq!(range("7"), Ok((7, 7)));
        for (wrong, why) in [
            ("", "like 3-12"),
            ("a-b", "like 3-12"),
            ("3-", "like 3-12"),
            ("3-4-5", "like 3-12"),
            ("0-4", "at least 1"),
            ("9-3", "9, are more than the most, 3"),
            ("1-1001", "more than 1000"),
        ] {
            assert!(range(wrong).is_err_and(|error| error.contains(why)), "{wrong}");
        }
        let usual = Range(Options::default().sessions);
        assert_eq!(usual.to_string().parse::<Range>(), Ok(usual));
    }
}
