//! `eval locomo`, `longmemeval` and `msc`: reads conversations turn by turn, then asks their questions.
//!
//! As the paper does, a conversation of two people has two banks, one a speaker: each bank
//! takes facts from its own speaker's turns, with the turns before them as context. Time is the
//! conversation's own, so the same model and seed make the same journals, byte for byte.

mod banks;
mod system;
mod transcript;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};

use self::banks::Banks;
pub use self::system::System;
use super::run_folder::RunFolder;
use super::scores::{Category, Pair, Tally, category_as_json};
use super::{Judge, Scores};
use crate::agents::Models;
use crate::bank::Timestamp;
use crate::datasets::{Dialogue, KnownFacts, Said, TurnFacts};
use crate::error::{Error, Result};
use crate::generation::Cancel;

/// What to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkSettings {
    /// What is measured.
    #[serde(default)]
    pub system: System,
    /// Whether the answer agent answers without naming the useful memories first: an ablation of the paper.
    #[serde(default)]
    pub no_distillation: bool,
    /// The most questions, in the file's order; conversations behind the last are not read.
    pub limit: Option<usize>,
    /// The most turns of a conversation, for trying things out.
    pub turns: Option<usize>,
    /// How many turns before a turn the extractor is shown, at most [`crate::agents::CONTEXT_TURNS`].
    pub context_turns: usize,
    /// The sampler's temperature; 0 is greedy, the paper's.
    pub temperature: f32,
    /// The seed of the sampler and of the journals' ids.
    pub seed: u64,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BenchmarkProgress<'a> {
    /// The conversation.
    pub sample_id: &'a str,
    /// Turns read and questions answered, of the whole run, earlier parts of it included.
    pub done: usize,
    /// All of them.
    pub total: usize,
    /// True while questions are answered.
    pub asking: bool,
}

/// The banks of one conversation, and where in it they stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BankState {
    /// The conversation.
    pub sample_id: String,
    /// How many of its turns were read.
    pub turns: usize,
    /// The facts that they gave, in their order.
    pub facts: TurnFacts,
    /// How many operations of each name were decided.
    pub ops: BTreeMap<String, usize>,
    /// The turns that a memory was made, changed or confirmed by.
    pub sources: BTreeMap<String, BTreeSet<String>>,
    /// How many memories each speaker's bank holds.
    pub banks: BTreeMap<String, usize>,
    /// How many of them say what another of the same bank says.
    #[serde(default)]
    pub duplicates: usize,
    /// How many statements the turns changed or took back, where the data say so, and how many of them a memory
    /// still says.
    #[serde(default)]
    pub superseded: Option<Stale>,
    /// How long each turn took.
    #[serde(default)]
    pub turn_seconds: Vec<f64>,
    /// The banks at the end of each session.
    #[serde(default)]
    pub growth: Vec<Growth>,
    /// Both journals, as `memory-r1 export` writes them.
    pub journals: String,
}

/// Statements that no longer hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stale {
    /// How many there are.
    pub superseded: usize,
    /// How many of them a memory of the speaker still says.
    pub stale: usize,
}

/// The banks of a conversation after some of its turns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// How many turns were read.
    pub turns: usize,
    /// How many memories all banks hold together.
    pub memories: usize,
    /// How many operations of each name were decided.
    pub ops: BTreeMap<String, usize>,
}

/// A memory that an answer was given from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub speaker: String,
    /// When it was said last.
    pub observed: Timestamp,
    /// The statement.
    pub text: String,
}

/// One answered question: a line of `questions.jsonl`, which `memory-r1 score` reads too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuestionOutcome {
    /// The conversation.
    pub sample_id: String,
    /// The question's place in it, from 0.
    pub index: usize,
    /// LoCoMo's number, or the word of another benchmark.
    #[serde(with = "category_as_json")]
    pub category: Category,
    /// The question.
    pub question: String,
    /// The gold answer; empty where the file has none.
    pub answer: String,
    /// What the agent answered.
    pub prediction: String,
    /// The scores.
    #[serde(flatten)]
    pub scores: Scores,
    /// Whether it said that it does not know.
    pub declined: bool,
    /// Whether a judge found it right, where one was asked and said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<bool>,
    /// The turns that hold the answer.
    pub evidence: Vec<String>,
    /// Those of them that a candidate came from.
    pub evidence_shown: usize,
    /// Those of them that any memory of the banks came from.
    pub evidence_kept: usize,
    /// The memories that the agent named.
    pub memories: Vec<Shown>,
    /// All that it was shown.
    pub candidates: Vec<Shown>,
    /// How many more would have been, had they fitted into the model's context.
    #[serde(default)]
    pub left_out: usize,
    /// How long it took; in a file of its own, so that two runs give the same lines.
    #[serde(skip)]
    pub seconds: f64,
}

/// A benchmark on one folder.
pub struct BenchmarkRun<'a> {
    /// Play the three parts.
    pub models: Models,
    /// What to run.
    pub settings: BenchmarkSettings,
    /// Where the run is kept.
    pub folder: &'a RunFolder,
    /// Stops it; what is done is kept.
    pub cancel: Cancel,
    /// Marks the answers.
    pub judge: Option<Judge>,
    /// The facts of the conversations, where they are known: the extractor is not asked.
    pub facts: Option<KnownFacts>,
    /// How many conversations, and questions of each, are worked on at once, at least 1.
    pub concurrency: usize,
}

impl BenchmarkRun<'_> {
    /// Runs what the folder does not have yet; the state of each conversation's banks and all
    /// answers, in the file's order. `total` is [`Self::total`].
    pub async fn run(
        &self,
        dialogues: impl Iterator<Item = Result<Dialogue>>,
        total: usize,
        on_progress: &mut dyn FnMut(BenchmarkProgress<'_>),
    ) -> Result<(Vec<BankState>, Vec<QuestionOutcome>)> {
        let shared = Shared {
            answered: RefCell::new(self.folder.questions()?),
            done: Cell::new(0),
            total,
            on_progress: RefCell::new(on_progress),
        };
        let works =
            self.plan(dialogues).enumerate().map(|(place, dialogue)| self.one(place, dialogue, &shared));
        let mut works = stream::iter(works).buffered(self.concurrency.max(1));
        let (mut states, mut outcomes) = (Vec::new(), Vec::new());
        while let Some(done) = works.next().await {
            let (state, own) = done?;
            states.push(state);
            outcomes.extend(own);
        }
        if self.concurrency > 1 {
            self.folder.write_questions(&outcomes)?;
        }
        Ok((states, outcomes))
    }

    /// Reads one conversation and asks its questions.
    async fn one(
        &self,
        place: usize,
        dialogue: Result<Dialogue>,
        shared: &Shared<'_, '_>,
    ) -> Result<(BankState, Vec<QuestionOutcome>)> {
        let dialogue = dialogue?;
        let sample_id = dialogue.id.as_str();
        let state = self.folder.bank(place)?;
        let mut banks = Banks::open(self, &dialogue, state).await?;
        let mut before = 0;
        let mut report = |now: usize, asking| {
            shared.advance(sample_id, now - before, asking);
            before = now;
        };
        self.read(&dialogue.turns, place, &mut banks, &mut |turns| report(turns, false)).await?;
        let read = banks.state.turns;
        let (own, asked) = (&banks, &dialogue);
        let asks = dialogue.questions.iter().enumerate().map(|(index, question)| async move {
            let known = shared.answered.borrow_mut().remove(&(asked.id.clone(), index));
            match known {
                Some(outcome) => Ok::<_, Error>((outcome, false)),
                None => Ok((own.ask(self, asked, index, question).await?, true)),
            }
        });
        let mut asks = stream::iter(asks).buffered(self.concurrency.max(1));
        let mut outcomes = Vec::new();
        while let Some(asked) = asks.next().await {
            let (outcome, is_new) = asked?;
            if is_new {
                self.folder.add_question(&outcome)?;
            }
            outcomes.push(outcome);
            report(read + outcomes.len(), true);
        }
        drop(asks);
        // The folder has the journals; a long benchmark's do not fit into memory.
        Ok((BankState { journals: String::new(), ..banks.state }, outcomes))
    }

    /// How many turns will be read and questions asked.
    pub fn total(&self, dialogues: impl Iterator<Item = Result<Dialogue>>) -> Result<usize> {
        let counts = self.plan(dialogues).map(|own| own.map(|own| own.turns.len() + own.questions.len()));
        counts.sum()
    }

    /// The conversations to read, with the turns to read and the questions to ask.
    fn plan<'d>(
        &'d self,
        dialogues: impl Iterator<Item = Result<Dialogue>> + 'd,
    ) -> impl Iterator<Item = Result<Dialogue>> + 'd {
        let (limit, most) = (self.settings.limit, self.settings.turns.unwrap_or(usize::MAX));
        let mut left = limit.unwrap_or(usize::MAX);
        dialogues.map_while(move |dialogue| {
            let mut dialogue = match dialogue {
                Ok(dialogue) => dialogue,
                Err(error) => return Some(Err(error)),
            };
            if limit.is_some() && left == 0 {
                return None;
            }
            if let Some(Err(error)) = self.facts.as_ref().map(|facts| facts.of(&dialogue)) {
                return Some(Err(error));
            }
            dialogue.questions.truncate(left);
            left -= dialogue.questions.len();
            dialogue.turns.retain(|turn| !turn.text.trim().is_empty());
            dialogue.turns.truncate(most);
            Some(Ok(dialogue))
        })
    }

    /// Reads the turns that the banks have not read. The state is saved at each session's end
    /// and when the run is stopped, never within a turn.
    async fn read(
        &self,
        turns: &[Said],
        place: usize,
        banks: &mut Banks,
        on_turn: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let mut saved = banks.state.turns;
        on_turn(saved);
        while banks.state.turns < turns.len() {
            let next = banks.state.turns;
            if let Err(error) = banks.read(self, turns, next).await {
                if next > saved {
                    self.folder.save_bank(place, &banks.saved().await?)?;
                }
                return Err(error);
            }
            on_turn(next + 1);
            if turns.get(next + 1).is_none_or(|turn| turn.session != turns[next].session) {
                saved = next + 1;
                banks.end_session().await?;
                self.folder.save_bank(place, &banks.state)?;
            }
        }
        Ok(())
    }
}

/// What the conversations of a run share.
struct Shared<'a, 'p> {
    answered: RefCell<BTreeMap<(String, usize), QuestionOutcome>>,
    done: Cell<usize>,
    total: usize,
    on_progress: RefCell<&'a mut (dyn FnMut(BenchmarkProgress<'_>) + 'p)>,
}

impl Shared<'_, '_> {
    fn advance(&self, sample_id: &str, more: usize, asking: bool) {
        self.done.set(self.done.get() + more);
        let progress = BenchmarkProgress { sample_id, done: self.done.get(), total: self.total, asking };
        (self.on_progress.borrow_mut())(progress);
    }
}

impl QuestionOutcome {
    /// What `memory-r1 score` would score.
    pub fn pair(&self) -> Pair {
        Pair {
            prediction: self.prediction.clone(),
            answer: self.answer.clone(),
            category: Some(self.category.clone()),
        }
    }
}

/// Scores all answers again, as `memory-r1 score` would.
pub(super) fn tally(outcomes: &[QuestionOutcome]) -> Tally {
    let mut tally = Tally::default();
    for outcome in outcomes {
        tally.add(&outcome.pair());
    }
    tally
}
