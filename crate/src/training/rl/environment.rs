//! The two environments of Memory-R1 (section 3): a manager whose operations are judged by the answers that they
//! make possible, and an answer agent that is judged by its answer.
//!
//! Both are played by the code that serves users. A conversation is read once by the models as they are at the
//! beginning of a phase; that gives every turn's facts, the banks before every turn and at the end, and from those
//! the tasks. Gold operations are never looked at.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use async_trait::async_trait;
use futures::future::try_join_all;

use super::recorder::Recorder;
use super::reward::Terms;
use super::trajectory::Trajectory;
use crate::agents::{
    AddOptions, AnswerAgent, AnswerOptions, CONTEXT_TURNS, MemoryAgent, Models, NO_ANSWER, SpeakerCandidates,
};
use crate::bank::{Journal, Memory, MemoryId, Scope, Timestamp, Turn, seeded_journal_id};
use crate::datasets::{Dialogue, TurnFacts, heard};
use crate::error::{Error, Result};
use crate::evaluation::Judge;
use crate::generation::{
    Cancel, ChatMessage, Generation, LanguageModel, Malformed, ModelInfo, Request, Sampling, Unconstrained,
};
use crate::random::keyed;
use crate::retrieval::{Retriever, Speakers};
use crate::store::{InMemoryStore, Store as _};

/// A conversation that was read.
pub struct Reading {
    dialogue: Dialogue,
    facts: TurnFacts,
    /// The banks at the end.
    journals: Vec<Journal>,
    /// For every turn, how many events each of these had before it.
    before: Vec<Vec<u64>>,
}

/// Something to decide, and what comes of it if it is decided well.
#[derive(Clone)]
pub enum Task {
    /// Operations for the turns that hold the answer to a question.
    Manage {
        /// The banks before the first of them.
        journals: Vec<Journal>,
        /// The turns, with the facts that were taken out of them.
        turns: Vec<(Turn, Vec<String>)>,
        /// Which banks.
        scope: Scope,
        /// What is asked then, and what should be answered: first what these turns are the evidence of.
        questions: Vec<(String, String)>,
    },
    /// An answer from memories.
    Answer {
        /// The candidates.
        blocks: Vec<SpeakerCandidates>,
        /// What is asked.
        question: String,
        /// What should be answered.
        answer: String,
    },
}

fn scope(dialogue: &str, speaker: &str) -> Scope {
    Scope { user_id: Some(speaker.to_owned()), run_id: Some(dialogue.to_owned()), agent_id: None }
}

/// A memory over these journals.
async fn agent(models: Models, journals: &[Journal], seed: u64, now: Timestamp) -> Result<MemoryAgent> {
    let store = Rc::new(InMemoryStore::default());
    for journal in journals.iter().filter(|journal| journal.seq() > 0) {
        store.append(journal.scope(), 0, journal.events()).await?;
    }
    let ids = Rc::new(move |scope: &Scope| seeded_journal_id(seed, scope));
    Ok(MemoryAgent::new(models, store, Rc::new(move || now), ids))
}

impl Reading {
    /// Reads a conversation turn by turn; with `known` facts the extractor is not asked.
    pub async fn new(
        dialogue: Dialogue,
        models: &Models,
        known: Option<&TurnFacts>,
        seed: u64,
        cancel: &Cancel,
    ) -> Result<Self> {
        let store = Rc::new(InMemoryStore::default());
        let now = Rc::new(Cell::new(Timestamp::default()));
        let scopes: Vec<Scope> = dialogue.banks.iter().map(|speaker| scope(&dialogue.id, speaker)).collect();
        let (mut facts, mut before) = (TurnFacts::new(), Vec::new());
        let mut last = vec![0; scopes.len()];
        let clock = now.clone();
        let agent = MemoryAgent::new(
            models.clone(),
            store.clone(),
            Rc::new(move || clock.get()),
            Rc::new(move |scope| seeded_journal_id(seed, scope)),
        );
        for (place, said) in dialogue.turns.iter().enumerate() {
            before.push(last.clone());
            let bank = dialogue.banks.iter().position(|speaker| *speaker == said.speaker);
            let own = known.map(|known| known.get(&said.id).cloned().unwrap_or_default());
            let (Some(bank), false) =
                (bank, own.as_ref().is_some_and(Vec::is_empty) || said.text.trim().is_empty())
            else {
                continue;
            };
            now.set(said.at);
            let (context, turn) = heard(&dialogue.turns, place, CONTEXT_TURNS);
            let options = AddOptions {
                bank_speaker: Some(said.speaker.clone()),
                facts: own.map(|own| vec![own]),
                context,
                cancel: cancel.clone(),
                ..AddOptions::default()
            };
            let results = agent.add(&[turn], &scopes[bank], &options).await?;
            let found: Vec<String> = results.into_iter().map(|result| result.fact).collect();
            if !found.is_empty() {
                facts.insert(said.id.clone(), found);
            }
            last[bank] = store.load(&scopes[bank]).await?.map_or(0, |journal| journal.seq());
        }
        let mut journals = Vec::new();
        for scope in &scopes {
            journals.push(match store.load(scope).await? {
                Some(journal) => journal,
                None => Journal::new(seeded_journal_id(seed, scope), scope.clone())?,
            });
        }
        Ok(Self { dialogue, facts, journals, before })
    }

    /// What was said, turn by turn.
    #[cfg(test)]
    pub fn turns(&self) -> impl Iterator<Item = &str> {
        self.dialogue.turns.iter().map(|turn| &*turn.text)
    }

    /// The conversation's name and its facts, to be kept.
    pub fn facts(&self) -> (&str, &TurnFacts) {
        (&self.dialogue.id, &self.facts)
    }

    /// A task for the manager from every question whose evidence gave a fact: it decides on the turns of the
    /// evidence, and on no others, from the bank before the first of them. With a `window`, that bank holds only
    /// what the so many turns before said or confirmed (Memory-R1, algorithm 1: 50). So many `earlier` questions, whose
    /// evidence that bank has heard already, are asked beside its own: what an operation takes from the bank shows in
    /// their answers.
    pub fn manager_tasks(&self, window: Option<usize>, earlier: usize) -> Result<Vec<Task>> {
        // The questions, with the turns of their evidence that gave a fact.
        let asked = self.dialogue.questions.iter().filter_map(|asked| {
            let is_evidence = |place: &usize| asked.evidence.contains(&self.dialogue.turns[*place].id);
            let places: Vec<usize> = (0..self.dialogue.turns.len())
                .filter(|place| {
                    is_evidence(place) && self.facts.contains_key(&self.dialogue.turns[*place].id)
                })
                .collect();
            let pair = (asked.question.clone(), asked.answerable()?.to_owned());
            Some((places.first().copied()?, places.last().copied()?, places, pair))
        });
        let asked: Vec<_> = asked.collect();
        let mut tasks = Vec::new();
        for (first, _, places, pair) in &asked {
            let start = window.map_or(0, |window| first.saturating_sub(window));
            let mut before: Vec<_> =
                asked.iter().filter(|(begin, end, ..)| *begin >= start && end < first).collect();
            // The latest first; what was said at the same time in the order of the questions.
            before.sort_by_key(|(_, end, ..)| std::cmp::Reverse(*end));
            let before = before.into_iter().take(earlier).map(|(.., pair)| pair);
            let questions: Vec<_> = std::iter::once(pair).chain(before).cloned().collect();
            let mut journals = Vec::new();
            let now = self.dialogue.turns[*first].at;
            let bounds = self.before[start].iter().zip(&self.before[*first]);
            for (journal, (from, to)) in self.journals.iter().zip(bounds) {
                journals.push(part(journal, *from as usize..*to as usize, now)?);
            }
            let turn = |place: &usize| {
                let facts = self.facts.get(&self.dialogue.turns[*place].id).cloned().unwrap_or_default();
                (heard(&self.dialogue.turns, *place, 0).1, facts)
            };
            tasks.push(Task::Manage {
                journals,
                turns: places.iter().map(turn).collect(),
                scope: Scope { run_id: Some(self.dialogue.id.clone()), ..Scope::default() },
                questions,
            });
        }
        Ok(tasks)
    }

    /// A task for the answer agent from every question, with what retrieval finds in the banks at the end, and of
    /// those without an answer from as many as `keep` likes. Where nothing is remembered there is nothing to learn.
    pub fn answer_tasks(
        &self,
        retriever: &Retriever,
        per_speaker: usize,
        mut keep: impl FnMut() -> bool,
    ) -> Vec<Task> {
        let memories: Vec<&Memory> = self.journals.iter().flat_map(|own| own.bank().memories()).collect();
        if memories.is_empty() {
            return Vec::new();
        }
        let questions = self.dialogue.questions.iter().filter(|asked| asked.answerable().is_some() || keep());
        let tasks = questions.map(|asked| {
            let found = retriever.for_question(&memories, &asked.question, Speakers::Named, per_speaker);
            Task::Answer {
                blocks: SpeakerCandidates::of(&memories, &found),
                question: asked.question.clone(),
                answer: asked.answerable().unwrap_or(NO_ANSWER).to_owned(),
            }
        });
        tasks.collect()
    }
}

/// A journal up to an event, with the memories alone that these last ones are about.
fn part(journal: &Journal, events: Range<usize>, now: Timestamp) -> Result<Journal> {
    if events.end == 0 {
        return Journal::new(journal.id(), journal.scope().clone());
    }
    let part = Journal::from_events(journal.scope().clone(), journal.events()[..events.end].to_vec())?;
    let recent: HashSet<&MemoryId> = journal.events()[events].iter().map(|event| &event.id).collect();
    let is_old = |memory: &&Memory| !recent.contains(&memory.id);
    let old: Vec<MemoryId> = part.bank().memories().filter(is_old).map(|memory| memory.id.clone()).collect();
    if old.is_empty() { Ok(part) } else { part.erase(&old, now) }
}

/// Who plays: the policy, and an answer agent that does not learn.
pub struct Players {
    policy: Rc<dyn LanguageModel>,
    frozen: Rc<Frozen>,
    constrained: bool,
    retriever: Retriever,
    judge: Option<Judge>,
}

impl Players {
    /// Of these models.
    pub fn new(
        policy: Rc<dyn LanguageModel>,
        frozen: Rc<dyn LanguageModel>,
        retriever: Retriever,
        judge: Option<Judge>,
    ) -> Self {
        let frozen = Rc::new(Frozen { model: frozen, known: RefCell::default() });
        Self { policy, frozen, constrained: true, retriever, judge }
    }

    /// The same, the policy held to its grammar or not.
    #[must_use]
    pub fn constrained(self, constrained: bool) -> Self {
        Self { constrained, ..self }
    }

    /// The policy as the agents of one game ask it, and what they asked and heard.
    fn seat(&self) -> (Rc<dyn LanguageModel>, Rc<Recorder>) {
        let recorder = Rc::new(Recorder::new(self.policy.clone()));
        if self.constrained {
            return (recorder.clone(), recorder);
        }
        (Rc::new(Unconstrained::new(recorder.clone(), Malformed::default())), recorder)
    }

    async fn terms(&self, question: &str, answer: &str, said: &str, cancel: &Cancel) -> Result<Terms> {
        let terms = Terms::of(said, answer);
        let verdict = match &self.judge {
            Some(judge) => judge.judge("", [question, answer, said], cancel).await?,
            None => None,
        };
        Ok(Terms { judge: f64::from(u8::from(verdict == Some(true))), ..terms })
    }

    /// So many trajectories of one task.
    pub async fn play(
        &self,
        task: &Task,
        sampling: Sampling,
        count: usize,
        cancel: &Cancel,
    ) -> Result<Vec<Trajectory>> {
        match task {
            Task::Answer { blocks, question, answer } => {
                let (asked, recorder) = self.seat();
                let agent = AnswerAgent::new(asked, self.retriever.clone());
                let answered = agent.answers(question, blocks, sampling, count, cancel).await?;
                let mut trajectories = Vec::with_capacity(count);
                for (segment, answered) in recorder.take().into_iter().zip(answered) {
                    trajectories.push(Trajectory {
                        segments: vec![segment],
                        terms: self.terms(question, answer, &answered.text, cancel).await?,
                        operations: Vec::new(),
                        answer: answered.text,
                    });
                }
                Ok(trajectories)
            }
            Task::Manage { .. } => {
                let games =
                    (0..count as u64).map(|sample| self.manage(task, sampling.of_sample(sample), cancel));
                try_join_all(games).await
            }
        }
    }

    async fn manage(&self, task: &Task, sampling: Sampling, cancel: &Cancel) -> Result<Trajectory> {
        let Task::Manage { journals, turns, scope: filter, questions } = task else {
            return Err(Error::internal("not the manager's task"));
        };
        let (manager, recorder) = self.seat();
        let models = Models {
            extractor: self.frozen.clone(),
            manager,
            answer_agent: self.frozen.clone(),
            retriever: self.retriever.clone(),
            embedder: None,
        };
        let mut journals = journals.clone();
        let mut operations = Vec::new();
        let run = filter.run_id.as_deref().unwrap_or_default();
        for (place, (turn, facts)) in turns.iter().enumerate() {
            let own = scope(run, &turn.speaker);
            let agent = agent(models.clone(), &journals, sampling.seed, turn.timestamp).await?;
            let [step, example, sample] = sampling.key;
            let options = AddOptions {
                bank_speaker: Some(turn.speaker.clone()),
                facts: Some(vec![facts.clone()]),
                sampling: Sampling { key: [step, keyed(example, &[place as u64]), sample], ..sampling },
                cancel: cancel.clone(),
                ..AddOptions::default()
            };
            let results = agent.add(std::slice::from_ref(turn), &own, &options).await?;
            operations.extend(results.iter().map(|result| result.event.wire_name()));
            if let (Some(changed), Some(journal)) =
                (agent.store().load(&own).await?, journals.iter_mut().find(|journal| *journal.scope() == own))
            {
                *journal = changed;
            }
        }
        let now = turns.last().map(|(turn, _)| turn.timestamp).unwrap_or_default();
        let agent = agent(models, &journals, sampling.seed, now).await?;
        let options = AnswerOptions { cancel: cancel.clone(), ..AnswerOptions::default() };
        let (agent, options) = (&agent, &options);
        let outcomes = try_join_all(questions.iter().map(|(question, answer)| async move {
            let said = agent.answer(question, filter, options).await?.answer;
            Ok::<_, Error>((self.terms(question, answer, &said, cancel).await?, said))
        }));
        let (terms, said): (Vec<_>, Vec<_>) = outcomes.await?.into_iter().unzip();
        Ok(Trajectory {
            segments: recorder.take(),
            terms: Terms::mean(&terms),
            operations,
            answer: said.into_iter().next().unwrap_or_default(),
        })
    }
}

/// A model that is asked greedily, and so never asked the same twice.
struct Frozen {
    model: Rc<dyn LanguageModel>,
    known: RefCell<HashMap<String, Generation>>,
}

#[async_trait(?Send)]
impl LanguageModel for Frozen {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    fn room(&self, messages: &[ChatMessage]) -> Result<usize> {
        self.model.room(messages)
    }

    async fn generate(
        &self,
        request: &Request,
        cancel: &Cancel,
        on_text: &mut dyn for<'a> FnMut(&'a str),
    ) -> Result<Generation> {
        let key = serde_json::to_string(&request.messages).unwrap_or_default();
        if let Some(known) = self.known.borrow().get(&key) {
            on_text(&known.text);
            return Ok(known.clone());
        }
        let generation = self.model.generate(request, cancel, on_text).await?;
        self.known.borrow_mut().insert(key, generation.clone());
        Ok(generation)
    }
}
