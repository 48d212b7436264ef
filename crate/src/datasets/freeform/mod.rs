//! Chat situations written by hand, one by one, and what a memory should do with each. Their
//! language is what tables cannot give: no two have a sentence in common.
//!
//! A case is a block of lines, and a blank line ends it:
//!
//! ```text
//! @ Lives in Ghent                                        a memory before the turn
//! . Ana: so where are you these days?                     up to two turns of context
//! > user: Still unpacking, but the flat in Mechelen is ours   the turn
//! ~ Lives in Mechelen ~ Lives in Ghent ~ Lives in Mechelen    a fact, and what to do with it
//! ? Which town do I live in? ~ Lives in Mechelen ~ Mechelen   questions to the memories after
//! ```
//!
//! Facts are `+ fact` (ADD), `~ fact ~ memory ~ new text` (UPDATE), `- fact ~ memory` (DELETE) and
//! `= fact ~ memory` (NOOP), in order of mention; a turn with nothing to remember has none. A
//! question that takes several memories to answer names them all, `? question ~ memory ~ memory ~
//! answer`, and one that the memories do not answer is `? question ~ ~ unknown`.

mod held_out;
mod parse;
mod variants;

use crate::error::{Error, Result};

pub use held_out::held_out_cases;
pub use parse::parse;
pub use variants::Writer;

/// The committed files; each is a name for errors and its text.
const FILES: &[(&str, &str)] = &[
    ("sample.txt", include_str!("sample.txt")),
    ("work_and_money.txt", include_str!("work_and_money.txt")),
    ("changes_and_talk.txt", include_str!("changes_and_talk.txt")),
    ("additions.txt", include_str!("additions.txt")),
    ("assistant.txt", include_str!("assistant.txt")),
    ("belongings.txt", include_str!("belongings.txt")),
    ("careers.txt", include_str!("careers.txt")),
    ("catching_up.txt", include_str!("catching_up.txt")),
    ("changes.txt", include_str!("changes.txt")),
    ("chat.txt", include_str!("chat.txt")),
    ("context.txt", include_str!("context.txt")),
    ("endings.txt", include_str!("endings.txt")),
    ("endings_b.txt", include_str!("endings_b.txt")),
    ("everyday.txt", include_str!("everyday.txt")),
    ("family.txt", include_str!("family.txt")),
    ("food.txt", include_str!("food.txt")),
    ("friends.txt", include_str!("friends.txt")),
    ("health.txt", include_str!("health.txt")),
    ("hobbies.txt", include_str!("hobbies.txt")),
    ("homes.txt", include_str!("homes.txt")),
    ("idioms.txt", include_str!("idioms.txt")),
    ("leisure.txt", include_str!("leisure.txt")),
    ("life.txt", include_str!("life.txt")),
    ("mixed_ops.txt", include_str!("mixed_ops.txt")),
    ("needs.txt", include_str!("needs.txt")),
    ("neutral.txt", include_str!("neutral.txt")),
    ("numbers.txt", include_str!("numbers.txt")),
    ("once_more.txt", include_str!("once_more.txt")),
    ("people.txt", include_str!("people.txt")),
    ("pets.txt", include_str!("pets.txt")),
    ("plain.txt", include_str!("plain.txt")),
    ("plans.txt", include_str!("plans.txt")),
    ("relations.txt", include_str!("relations.txt")),
    ("replaced.txt", include_str!("replaced.txt")),
    ("requests.txt", include_str!("requests.txt")),
    ("revisions.txt", include_str!("revisions.txt")),
    ("schedules.txt", include_str!("schedules.txt")),
    ("several.txt", include_str!("several.txt")),
    ("shifts.txt", include_str!("shifts.txt")),
    ("shifts_b.txt", include_str!("shifts_b.txt")),
    ("simple.txt", include_str!("simple.txt")),
    ("study.txt", include_str!("study.txt")),
    ("tempting.txt", include_str!("tempting.txt")),
    ("things.txt", include_str!("things.txt")),
    ("travel.txt", include_str!("travel.txt")),
    ("turnover.txt", include_str!("turnover.txt")),
    ("updates.txt", include_str!("updates.txt")),
    ("work.txt", include_str!("work.txt")),
];

/// Banks and questions to them.
const QUESTIONS: &[(&str, &str)] = &[("questions.txt", include_str!("questions.txt"))];

/// Who said what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// A name, or `user`.
    pub speaker: String,
    /// The text.
    pub text: String,
}

/// What a perfect manager does with a fact. Memories are named by their places: those of the case
/// come first, in its order, then what the turn adds; a deleted one keeps its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It is new.
    Add,
    /// It changes a memory.
    Update {
        /// Which one.
        target: usize,
        /// What it says from now on.
        text: String,
    },
    /// It ends a memory.
    Delete {
        /// Which one.
        target: usize,
    },
    /// It says what a memory says.
    Noop {
        /// Which one.
        target: usize,
    },
}

/// A fact of the turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// As an extractor writes it: times as said.
    pub fact: String,
    /// What to do with it.
    pub decided: Decided,
}

/// A question to the memories after the turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// In the speaker's voice.
    pub text: String,
    /// The places of the memories that answer it and the answer; nothing where none does.
    pub answer: Option<(Vec<usize>, String)>,
}

/// One situation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situation {
    /// What the speaker's bank holds before.
    pub memories: Vec<String>,
    /// Up to two turns before.
    pub context: Vec<Said>,
    /// The turn that is read.
    pub turn: Said,
    /// What it states, in order of mention.
    pub facts: Vec<Statement>,
    /// What is asked afterwards.
    pub questions: Vec<Question>,
}

impl Situation {
    /// The bank before the fact of a place (after the turn, for the number of facts): by their
    /// places, the memories with the number of the fact that wrote them, if one did.
    pub fn bank(&self, fact: usize) -> Vec<Option<(&str, Option<usize>)>> {
        let mut bank: Vec<_> = self.memories.iter().map(|text| Some((&text[..], None))).collect();
        for (number, statement) in self.facts[..fact].iter().enumerate() {
            match &statement.decided {
                Decided::Add => bank.push(Some((&statement.fact, Some(number)))),
                Decided::Update { target, text } => bank[*target] = Some((text, Some(number))),
                Decided::Delete { target } => bank[*target] = None,
                Decided::Noop { .. } => {}
            }
        }
        bank
    }

    /// Every text: first what is read (memories, context, turn), then what is written from it.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.read().chain(self.written())
    }

    /// What stands in the case before anything is concluded from it.
    fn read(&self) -> impl Iterator<Item = &str> {
        let said = self.context.iter().chain([&self.turn]);
        self.memories.iter().map(|text| &text[..]).chain(said.flat_map(|s| [&s.speaker[..], &s.text]))
    }

    /// Facts, new texts, the questions and their answers.
    fn written(&self) -> impl Iterator<Item = &str> {
        let facts = self.facts.iter().flat_map(|statement| {
            let text = match &statement.decided {
                Decided::Update { text, .. } => Some(&text[..]),
                _ => None,
            };
            [Some(&statement.fact[..]), text].into_iter().flatten()
        });
        let question = self.questions.iter().flat_map(|question| {
            let answer = question.answer.as_ref().map(|(_, text)| &text[..]);
            [Some(&question.text[..]), answer].into_iter().flatten()
        });
        facts.chain(question)
    }

    /// The same with every text rewritten, and the speakers renamed.
    fn map(&self, rewrite: impl Fn(&str) -> String, rename: impl Fn(&str) -> String) -> Self {
        let said = |said: &Said| Said { speaker: rename(&said.speaker), text: rewrite(&said.text) };
        Self {
            memories: self.memories.iter().map(|text| rewrite(text)).collect(),
            context: self.context.iter().map(said).collect(),
            turn: said(&self.turn),
            facts: self
                .facts
                .iter()
                .map(|statement| Statement {
                    fact: rewrite(&statement.fact),
                    decided: match &statement.decided {
                        Decided::Update { target, text } => {
                            Decided::Update { target: *target, text: rewrite(text) }
                        }
                        other => other.clone(),
                    },
                })
                .collect(),
            questions: self
                .questions
                .iter()
                .map(|question| Question {
                    text: rewrite(&question.text),
                    answer: question.answer.as_ref().map(|(used, text)| (used.clone(), rewrite(text))),
                })
                .collect(),
        }
    }
}

/// All situations but those that are there for their questions. An error names every line that is wrong.
pub fn load() -> Result<Vec<Situation>> {
    read(FILES)
}

/// Banks with questions to them, whose turns say nothing.
pub fn load_questions() -> Result<Vec<Situation>> {
    read(QUESTIONS)
}

fn read(files: &[(&str, &str)]) -> Result<Vec<Situation>> {
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    for (name, text) in files {
        match parse(name, text) {
            Ok(own) => all.extend(own),
            Err(error) => errors.push(error.message().to_owned()),
        }
    }
    if errors.is_empty() { Ok(all) } else { Err(Error::invalid(errors.join("\n"))) }
}

#[cfg(test)]
mod tests;
