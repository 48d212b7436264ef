//! The banks of one conversation: what it is read into and asked from.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

use super::super::metrics::{Scores, declines};
use super::super::ops::seconds_since;
use super::transcript::{self, Reply};
use super::{BankState, BenchmarkRun, BenchmarkSettings, Growth, QuestionOutcome, Shown, Stale, System};
use crate::agents::dates::format_day;
use crate::agents::{AddOptions, AnswerOptions, MemoryAgent, Remembered, is_same_statement};
use crate::bank::{Journal, OperationKind, Scope, Timestamp, seeded_journal_id};
use crate::datasets::{Asked, Dialogue, Said, Superseded, TurnFacts, heard};
use crate::error::{Error, Result};
use crate::generation::{PromptFamily, Sampling};
use crate::store::{InMemoryStore, Store};

/// The banks of a conversation, one for each speaker who has one.
pub(super) struct Banks {
    agent: MemoryAgent,
    now: Rc<Cell<Timestamp>>,
    speakers: Vec<String>,
    /// Each with the place of the turn since which it does not hold.
    superseded: Vec<(usize, Superseded)>,
    /// The facts of its turns, where they are known.
    known: Option<TurnFacts>,
    pub(super) state: BankState,
}

impl Banks {
    pub(super) async fn open(
        run: &BenchmarkRun<'_>,
        dialogue: &Dialogue,
        state: Option<BankState>,
    ) -> Result<Self> {
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
    pub(super) async fn read(&mut self, run: &BenchmarkRun<'_>, turns: &[Said], place: usize) -> Result<()> {
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
    pub(super) async fn end_session(&mut self) -> Result<()> {
        let state = self.saved().await?;
        let memories = state.banks.values().sum();
        self.state.growth.push(Growth { turns: state.turns, memories, ops: state.ops });
        Ok(())
    }

    /// The state with its journals.
    pub(super) async fn saved(&mut self) -> Result<BankState> {
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

    pub(super) async fn ask(
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
