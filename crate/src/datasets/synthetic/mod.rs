//! Dated conversations of people whose lives change, made up from tables, with the gold
//! operations of a perfect memory. Deterministic: the same seed, the same text.
//!
//! A fifth of the wordings and of the names and values serves the test split only, so that a
//! model trained on the other is tested on what it has never read.

mod cases;
mod dialogue;
mod examples;
mod layouts;
mod lookalikes;
pub(crate) mod names;
mod questions;
mod shapes;
mod tables;
mod times;
mod values;
mod wording;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::locomo::Sample;
use crate::bank::{OperationKind, Timestamp};
use crate::error::{Error, ErrorCode, Result};

pub use cases::{Accept, OpsCase, OpsMemory, OpsTurn, ops_cases};
pub use examples::{
    Decision, GoldMemory, QuestionExample, SpokenTurn, TurnExample, final_memories, question_examples,
    turn_examples,
};
pub use layouts::{Layout, write_layout};
pub use shapes::{Count, Overlap, Shapes, Share, Variety, shapes};

/// Which wordings, names and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Four fifths.
    Train,
    /// The rest.
    Test,
}

/// How long a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The fewest and the most sessions.
    pub sessions: (usize, usize),
    /// The fewest and the most turns of a session.
    pub turns: (usize, usize),
}

impl Default for Options {
    fn default() -> Self {
        Self { sessions: (3, 12), turns: (8, 18) }
    }
}

/// What a perfect memory does with one fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldFact {
    /// As an extractor writes it: times as said, `Went hiking last Friday`.
    pub fact: String,
    /// The same with the times resolved: what the manager reads.
    pub resolved: String,
    /// The operation.
    pub op: OperationKind,
    /// The key of the memory that it adds, changes, deletes or repeats.
    pub key: String,
    /// The memory's text after it; nothing after a DELETE.
    pub text: Option<String>,
    /// The kind of thing that it is about, a name of the tables.
    pub relation: String,
    /// Words that the stored text must hold.
    pub words: Vec<String>,
}

/// The facts of one turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldTurn {
    /// The turn.
    pub dia_id: String,
    /// Who said it, and so whose bank it is about.
    pub speaker: String,
    /// When.
    pub at: Timestamp,
    /// Said in answer to the turn before; the facts cannot be understood without it.
    pub needs_context: bool,
    /// In the order of the text.
    pub facts: Vec<GoldFact>,
}

/// Which memories support the answer of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldQuestion {
    /// Keys of memories; none where the answer is unknown.
    pub memories: Vec<String>,
    /// What a perfect agent answers.
    pub answer: String,
}

/// What goes beside a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gold {
    /// One entry a turn.
    pub turns: Vec<GoldTurn>,
    /// One entry a question, in the same order.
    pub questions: Vec<GoldQuestion>,
}

/// A conversation in LoCoMo's layout and what is true of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntheticDialogue {
    /// The conversation and its questions.
    pub sample: Sample,
    /// The facts, operations and supports.
    pub gold: Gold,
}

/// The answer to a question that the memories do not answer.
pub const UNKNOWN: &str = "I don't know";

/// Makes up `dialogues` conversations.
pub fn generate(seed: u64, dialogues: usize, split: Split, options: Options) -> Vec<SyntheticDialogue> {
    (0..dialogues).map(|i| dialogue::generate_one(seed, i, split, options)).collect()
}

/// Writes conversations as one file in LoCoMo's layout, each with its `gold`.
pub fn write_locomo(path: &Path, dialogues: &[SyntheticDialogue]) -> Result<()> {
    let mut records = Vec::with_capacity(dialogues.len());
    for dialogue in dialogues {
        let mut record = dialogue.sample.to_json();
        record.insert("gold".into(), to_value(&dialogue.gold)?);
        records.push(Value::Object(record));
    }
    write(path, &(Value::Array(records).to_string() + "\n"))
}

/// Writes cases for `eval ops`, one JSON object a line.
pub fn write_ops(path: &Path, cases: &[OpsCase]) -> Result<()> {
    let mut text = String::new();
    for case in cases {
        text.push_str(&to_value(case)?.to_string());
        text.push('\n');
    }
    write(path, &text)
}

fn to_value<T: Serialize>(value: &T) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::internal("gold as JSON").with_source(error))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|error| {
        Error::new(ErrorCode::NotReachable, format!("{} could not be written", path.display()))
            .with_source(error)
    })
}

#[cfg(test)]
mod tests;
