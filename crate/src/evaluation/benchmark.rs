//! `eval locomo`, `longmemeval` and `msc`: reads conversations turn by turn, then asks their questions.
//!
//! As the paper does, a conversation of two people has two banks, one a speaker: each bank
//! takes facts from its own speaker's turns, with the turns before them as context. Time is the
//! conversation's own, so the same model and seed make the same journals, byte for byte.

mod system;
mod transcript;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

use futures::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};

pub use self::system::System;
use self::transcript::Reply;
use super::ops::seconds_since;
use super::run_folder::RunFolder;
use super::scores::{Category, Pair, Tally, category_as_json};
use super::{Judge, Scores, metrics::declines};
use crate::agents::dates::format_day;
use crate::agents::{AddOptions, AnswerOptions, MemoryAgent, Models, Remembered, is_same_statement};
use crate::bank::{Journal, OperationKind, Scope, Timestamp, seeded_journal_id};
use crate::datasets::{Asked, Dialogue, KnownFacts, Said, Superseded, TurnFacts, heard};
use crate::error::{Error, Result};
use crate::generation::{Cancel, PromptFamily, Sampling};
use crate::store::{InMemoryStore, Store};

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

/// The banks of a conversation, one for each speaker who has one.
struct Banks {
    agent: MemoryAgent,
    now: Rc<Cell<Timestamp>>,
    speakers: Vec<String>,
    /// Each with the place of the turn since which it does not hold.
    superseded: Vec<(usize, Superseded)>,
    /// The facts of its turns, where they are known.
    known: Option<TurnFacts>,
    state: BankState,
}

impl Banks {
    async fn open(run: &BenchmarkRun<'_>, dialogue: &Dialogue, state: Option<BankState>) -> Result<Self> {
        let store = Rc::new(InMemoryStore::default());
        let state =
            state.unwrap_or_else(|| BankState { sample_id: dialogue.id.clone(), ..BankState::default() });
        if state.sample_id != dialogue.id {
            return Err(Error::invalid(format!(
                "the run's folder holds {} where the data has {}; it belongs to other data",
                state.sample_id, dialogue.id
            )));
        }
        if !state.journals.is_empty() {
            for journal in Journal::read_export(&state.journals)? {
                store.append(journal.scope(), 0, journal.events()).await?;
            }
        }
        let now = Rc::new(Cell::new(Timestamp::default()));
        let (clock, seed) = (now.clone(), run.settings.seed);
        let agent = MemoryAgent::new(
            run.models.clone(),
            store,
            Rc::new(move || clock.get()),
            Rc::new(move |scope| seeded_journal_id(seed, scope)),
        );
        let place = |own: &Superseded| dialogue.turns.iter().position(|turn| turn.id == own.turn);
        let superseded = dialogue.superseded.iter().filter(|_| run.settings.system.has_banks());
        let superseded = superseded.filter_map(|own| Some((place(own)?, own.clone()))).collect();
        let known = run.facts.as_ref().map(|facts| facts.of_name(&dialogue.id));
        Ok(Self { agent, now, speakers: dialogue.banks.clone(), superseded, known, state })
    }

    fn scope(&self, speaker: &str) -> Scope {
        Scope {
            user_id: Some(speaker.to_owned()),
            run_id: Some(self.state.sample_id.clone()),
            agent_id: None,
        }
    }

    fn sampling(run: &BenchmarkRun<'_>, example: usize) -> Sampling {
        let BenchmarkSettings { seed, temperature, .. } = run.settings;
        Sampling { seed, temperature, key: [0, example as u64, 0], ..Sampling::default() }
    }

    /// Reads one turn into its speaker's bank.
    async fn read(&mut self, run: &BenchmarkRun<'_>, turns: &[Said], place: usize) -> Result<()> {
        let system = run.settings.system;
        let own = &turns[place];
        if !system.has_banks() || !self.speakers.contains(&own.speaker) {
            self.state.turns = place + 1;
            return Ok(());
        }
        let known = self.known.as_ref().map(|facts| facts.get(&own.id).cloned().unwrap_or_default());
        if known.as_ref().is_some_and(Vec::is_empty) {
            self.state.turns = place + 1;
            return Ok(());
        }
        let start = Instant::now();
        let (context, turn) = heard(turns, place, run.settings.context_turns);
        self.now.set(own.at);
        let options = AddOptions {
            infer: system != System::Rag,
            facts: known.map(|facts| vec![facts]),
            manage: system != System::AddOnly,
            bank_speaker: Some(own.speaker.clone()),
            context,
            sampling: Self::sampling(run, place),
            cancel: run.cancel.clone(),
            ..AddOptions::default()
        };
        let results = self.agent.add(&[turn], &self.scope(&own.speaker), &options).await?;
        let state = &mut self.state;
        state.turns = place + 1;
        for result in results {
            state.facts.entry(own.id.clone()).or_default().push(result.fact);
            *state.ops.entry(result.event.wire_name().to_owned()).or_default() += 1;
            // A NOOP has an id where the fact was known word for word: the turn confirms it.
            if let (Some(id), OperationKind::Add | OperationKind::Update | OperationKind::Noop) =
                (result.id, result.event)
            {
                state.sources.entry(id.0).or_default().insert(own.id.clone());
            }
        }
        state.turn_seconds.push(seconds_since(start));
        Ok(())
    }

    /// Notes what the banks hold.
    async fn end_session(&mut self) -> Result<()> {
        let state = self.saved().await?;
        let memories = state.banks.values().sum();
        self.state.growth.push(Growth { turns: state.turns, memories, ops: state.ops });
        Ok(())
    }

    /// The state with its journals.
    async fn saved(&mut self) -> Result<BankState> {
        let store = self.agent.store();
        let (mut journals, mut banks, mut duplicates) = (String::new(), BTreeMap::new(), 0);
        let mut stale = 0;
        for scope in store.scopes().await? {
            if let Some(journal) = store.load(&scope).await? {
                let texts: Vec<&str> = journal.bank().memories().map(|memory| &*memory.text).collect();
                let says_again =
                    |i: &usize| texts[..*i].iter().any(|other| is_same_statement(other, texts[*i]));
                duplicates += (0..texts.len()).filter(says_again).count();
                let ended = self.superseded.iter().filter(|(place, own)| {
                    *place < self.state.turns && scope.user_id.as_ref() == Some(&own.speaker)
                });
                stale += ended.filter(|(_, own)| self.is_stale(own, &journal)).count();
                banks.insert(scope.user_id.unwrap_or_default(), texts.len());
                journals.push_str(&journal.export());
            }
        }
        self.state.journals = journals;
        self.state.banks = banks;
        self.state.duplicates = duplicates;
        let superseded = self.superseded.iter().filter(|(place, _)| *place < self.state.turns).count();
        self.state.superseded = (!self.superseded.is_empty()).then_some(Stale { superseded, stale });
        Ok(self.state.clone())
    }

    /// Whether a memory still says the statement: in its words, or in others without having heard its end.
    fn is_stale(&self, own: &Superseded, journal: &Journal) -> bool {
        journal.bank().memories().any(|memory| {
            let sources = self.state.sources.get(&memory.id.0);
            let heard = sources.is_some_and(|turns| turns.contains(&own.turn));
            own.is_said_by(&memory.text) && (!heard || is_same_statement(&memory.text, &own.text))
        })
    }

    async fn ask(
        &self,
        run: &BenchmarkRun<'_>,
        dialogue: &Dialogue,
        index: usize,
        question: &Asked,
    ) -> Result<QuestionOutcome> {
        let start = Instant::now();
        let system = run.settings.system;
        let wording = asked(question, self.agent.answer_agent().model().info().prompt_family);
        let sample_id = &*dialogue.id;
        let (answered, shown, kept) = if system.has_banks() {
            let scope = Scope { run_id: Some(sample_id.to_owned()), ..Scope::default() };
            let answered = self.answer(run, &scope, index, &wording).await?;
            let kept = self.agent.get_all(&scope, usize::MAX).await?;
            let shown = self.sources_of(answered.candidates.iter().map(|own| &*own.id));
            let kept = self.sources_of(kept.iter().map(|found| &*found.memory.id.0));
            (answered, shown, kept)
        } else {
            let (agent, asked) = (self.agent.answer_agent(), (&*wording, &*question.evidence));
            let sampling = Self::sampling(run, index);
            let answered = transcript::answer(agent, run, &dialogue.turns, asked, sampling).await?;
            let of_turns: BTreeSet<&str> = dialogue.turns.iter().map(|turn| &*turn.id).collect();
            let shown =
                of_turns.iter().copied().filter(|id| answered.candidates.iter().any(|own| own.id == *id));
            let shown: BTreeSet<&str> = shown.collect();
            let kept = if system == System::FullContext { of_turns } else { shown.clone() };
            (answered, shown, kept)
        };
        let answer = question.answer.clone().unwrap_or_default();
        let judged = match &run.judge {
            Some(judge) => {
                let texts = [&*question.question, &*answer, &*answered.answer];
                judge.judge(&question.category, texts, &run.cancel).await?
            }
            None => None,
        };
        let count = |turns: &BTreeSet<&str>| {
            question.evidence.iter().filter(|turn| turns.contains(turn.as_str())).count()
        };
        Ok(QuestionOutcome {
            sample_id: sample_id.to_owned(),
            index,
            category: question.category.clone(),
            question: question.question.clone(),
            scores: Scores::of(&answered.answer, &answer, Some(&question.category)),
            declined: declines(&answered.answer),
            judged,
            evidence: question.evidence.clone(),
            evidence_shown: count(&shown),
            evidence_kept: count(&kept),
            memories: answered.memories,
            candidates: answered.candidates,
            left_out: answered.left_out,
            prediction: answered.answer,
            answer,
            seconds: seconds_since(start),
        })
    }

    /// Answers from the banks.
    async fn answer(
        &self,
        run: &BenchmarkRun<'_>,
        scope: &Scope,
        index: usize,
        question: &str,
    ) -> Result<Reply> {
        let options = AnswerOptions {
            sampling: Self::sampling(run, index),
            distill: !run.settings.no_distillation,
            cancel: run.cancel.clone(),
            ..AnswerOptions::default()
        };
        let answered = self.agent.answer(question, scope, &options).await?;
        Ok(Reply {
            memories: answered.memories.iter().map(Shown::from).collect(),
            candidates: answered.candidates.iter().map(Shown::from).collect(),
            answer: answered.answer,
            left_out: answered.left_out,
        })
    }

    /// The turns that the memories of these ids come from.
    fn sources_of<'i>(&self, ids: impl Iterator<Item = &'i str>) -> BTreeSet<&str> {
        ids.filter_map(|id| self.state.sources.get(id)).flatten().map(String::as_str).collect()
    }
}

/// The question as it is put: with its day where the benchmark has one, and the model's prompts do not come
/// from training on questions without.
fn asked(question: &Asked, family: PromptFamily) -> String {
    match (question.at, family) {
        (Some(at), PromptFamily::Instruct) => {
            format!("{} (Asked on {}.)", question.question, format_day(at.date()))
        }
        _ => question.question.clone(),
    }
}

impl From<&Remembered> for Shown {
    fn from(found: &Remembered) -> Self {
        let memory = &found.memory;
        Self {
            id: memory.id.0.clone(),
            speaker: memory.speaker.clone(),
            observed: memory.observed,
            text: memory.text.clone(),
        }
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
