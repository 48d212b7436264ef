//! Remembering what was said.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::extractor::{CONTEXT_TURNS, Fact, clean_turn};
use super::super::{Candidate, Decision};
use super::{MemoryAgent, REDECISIONS};
use crate::bank::{
    Change, Draft, Journal, Memory, MemoryId, Operation, OperationKind, Receipt, Role, Scope, Turn,
    clean_text,
};
use crate::error::{Error, ErrorCode, Result};
use crate::generation::{Cancel, Sampling};
use crate::random::keyed;
use crate::retrieval::Retriever;

/// The key of a memory's metadata that keeps the relative dates as they were said.
const WHEN: &str = "when";

/// Whose turns give facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExtractFrom {
    /// The user's; the assistant's are context.
    #[default]
    User,
    /// The user's and the assistant's.
    All,
}

/// How to add.
#[derive(Clone)]
pub struct AddOptions {
    /// False adds the turns as they are, without the models.
    pub infer: bool,
    /// The facts of every turn, where they are known: the extractor is not asked.
    pub facts: Option<Vec<Vec<String>>>,
    /// False adds every fact, without the manager.
    pub manage: bool,
    /// Whose turns give facts.
    pub extract_from: ExtractFrom,
    /// The bank of one speaker of a conversation: facts are taken from this speaker's turns,
    /// whatever their role, and all others are context.
    pub bank_speaker: Option<String>,
    /// Turns before the first, as context only.
    pub context: Vec<Turn>,
    /// Put on each memory that is added or updated.
    pub metadata: Map<String, Value>,
    /// How tokens are chosen; greedy by default. Its seed goes into the receipts.
    pub sampling: Sampling,
    /// Told what happens, as it happens. It counts only when the whole call succeeds.
    pub on_progress: Option<OnProgress>,
    /// Stops the work; nothing is appended then.
    pub cancel: Cancel,
}

impl Default for AddOptions {
    fn default() -> Self {
        Self {
            infer: true,
            facts: None,
            manage: true,
            extract_from: ExtractFrom::default(),
            bank_speaker: None,
            context: Vec::new(),
            metadata: Map::new(),
            sampling: Sampling::default(),
            on_progress: None,
            cancel: Cancel::default(),
        }
    }
}

/// Hears of the progress of an add.
pub type OnProgress = Rc<dyn Fn(&Progress)>;

/// What happens during an add.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// The facts of all turns, before the first decision.
    Facts(Vec<String>),
    /// One operation was decided.
    Decided {
        /// Its place among the facts.
        index: usize,
        /// How many facts there are.
        total: usize,
        /// The operation.
        result: Box<AddResult>,
    },
    /// Another process appended first: the decisions so far are void and made again.
    Restarted,
}

/// What became of one fact.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddResult {
    /// The memory that was touched; for a fact that is known, the one that says it.
    pub id: Option<MemoryId>,
    /// The text after; of a DELETE the text that went, of a NOOP the fact.
    pub memory: String,
    /// The operation.
    pub event: OperationKind,
    /// The text before, of an UPDATE or DELETE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_memory: Option<String>,
    /// The fact that it was decided for.
    pub fact: String,
    /// Why; nothing where no agent was asked (`infer: false`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
}

impl MemoryAgent {
    /// Takes the facts out of the turns and decides one operation for each, in order, each on
    /// the bank that the ones before it left; then appends all of them at once.
    ///
    /// If anything fails or is cancelled, nothing is appended. Where another process appended
    /// in the meantime the decisions are made again, at most three times; then it is
    /// [`ErrorCode::StoreConflict`].
    pub async fn add(&self, turns: &[Turn], scope: &Scope, options: &AddOptions) -> Result<Vec<AddResult>> {
        scope.validate()?;
        if turns.is_empty() {
            return Err(Error::invalid("there is nothing to add: give at least one message"));
        }
        if options.facts.as_ref().is_some_and(|facts| facts.len() != turns.len()) {
            return Err(Error::invalid("facts: give a list for every message"));
        }
        let turns = turns.iter().map(clean_turn).collect::<Result<Vec<_>>>()?;
        let context = options.context.iter().map(clean_turn).collect::<Result<Vec<_>>>()?;
        if !options.infer {
            return self.add_as_is(&turns, scope, options).await;
        }
        let _lock = self.store.lock(scope).await?;
        let facts = self.facts(scope, &context, &turns, options).await?;
        options.report(|| Progress::Facts(facts.iter().map(|(fact, _)| fact.text.clone()).collect()));
        let mut conflicts = 0;
        loop {
            let journal = self.journal(scope).await?;
            let mut retriever = if options.manage {
                self.retriever_of(&[&journal], &options.cancel).await?
            } else {
                Retriever::default()
            };
            let mut draft = journal.draft(self.now());
            let mut results = Vec::with_capacity(facts.len());
            for (index, (fact, speaker)) in facts.iter().enumerate() {
                options.cancel.check()?;
                let result =
                    self.decide_on(&mut draft, &mut retriever, fact, speaker, index, options).await?;
                let total = facts.len();
                options.report(|| Progress::Decided { index, total, result: Box::new(result.clone()) });
                results.push(result);
            }
            options.cancel.check()?;
            let events = draft.finish();
            if events.is_empty() {
                return Ok(results);
            }
            match self.store.append(scope, journal.seq(), &events).await {
                Err(error) if error.code() == ErrorCode::StoreConflict && conflicts < REDECISIONS => {
                    conflicts += 1;
                    options.report(|| Progress::Restarted);
                }
                Ok(()) => {
                    self.keep_new(journal, events, &retriever).await;
                    return Ok(results);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The facts of all turns that give any, each with its speaker. They are taken out once, beside
    /// the memories that the bank has before the first turn.
    async fn facts(
        &self,
        scope: &Scope,
        before: &[Turn],
        turns: &[Turn],
        options: &AddOptions,
    ) -> Result<Vec<(Fact, String)>> {
        if let Some(known) = &options.facts {
            let heard = turns.iter().zip(known).filter(|(turn, _)| options.takes_facts_from(turn));
            let facts = heard.flat_map(|(turn, facts)| facts.iter().map(move |fact| Fact::known(fact, turn)));
            let facts = facts.filter(|fact| !fact.text.is_empty());
            return Ok(facts
                .map(|fact| {
                    let speaker = fact.said.speaker.clone();
                    (fact, speaker)
                })
                .collect());
        }
        let heard: Vec<&Turn> = before.iter().chain(turns).filter(|turn| turn.role != Role::System).collect();
        let given = before.iter().filter(|turn| turn.role != Role::System).count();
        let most = self.extractor.model().info().extractor_candidates;
        let mut beside = None;
        if most > 0 {
            let journal = self.journal(scope).await?;
            let retriever = self.retriever_of(&[&journal], &options.cancel).await?;
            beside = Some((journal, retriever));
        }
        let mut facts = Vec::new();
        for (place, turn) in heard.iter().enumerate().skip(given) {
            if !options.takes_facts_from(turn) {
                continue;
            }
            options.cancel.check()?;
            let context: Vec<Turn> =
                heard[place.saturating_sub(CONTEXT_TURNS)..place].iter().map(|&turn| turn.clone()).collect();
            let sampling = options.sampling_of(&[0, place as u64]);
            let memories = match &mut beside {
                Some((journal, retriever)) => {
                    self.recall.teach(retriever, [&*turn.content], &options.cancel).await?;
                    related(journal, retriever, turn, most)
                }
                None => Vec::new(),
            };
            let found = self.extractor.extract(&memories, &context, turn, sampling, &options.cancel).await?;
            facts.extend(found.into_iter().map(|fact| (fact, turn.speaker.clone())));
        }
        Ok(facts)
    }

    async fn decide_on(
        &self,
        draft: &mut Draft,
        retriever: &mut Retriever,
        fact: &Fact,
        speaker: &str,
        index: usize,
        options: &AddOptions,
    ) -> Result<AddResult> {
        let info = self.manager.model().info();
        let own: Vec<&Memory> = draft.bank().memories().filter(|memory| memory.speaker == speaker).collect();
        let most = if options.manage { info.manager_candidates } else { 0 };
        if most > 0 {
            // The memories of this draft are among them.
            let texts = own.iter().map(|memory| &*memory.text).chain([&*fact.text]);
            self.recall.teach(retriever, texts, &options.cancel).await?;
        }
        let found = retriever.for_fact(&own, &fact.text, speaker, most);
        let shown: Vec<Memory> = found.into_iter().map(|found| own[found.place].clone()).collect();
        let candidates: Vec<Candidate> = shown.iter().map(Candidate::from).collect();
        let sampling = options.sampling_of(&[1, index as u64]);
        let decision = if options.manage {
            self.manager.decide(&candidates, &fact.text, sampling, &options.cancel).await?
        } else {
            Decision::add(&fact.text)
        };
        let receipt = Receipt {
            turn: fact.said.clone(),
            fact: fact.text.clone(),
            shown: shown[decision.shown_from..].iter().map(|memory| memory.id.clone()).collect(),
            model: if options.manage && decision.known.is_none() {
                info.fingerprint.clone()
            } else {
                String::new()
            },
            probability: decision.probability,
            id_probability: decision.id_probability,
            fact_probability: Some(fact.probability),
            seed: options.sampling.seed,
            known: decision.known.is_some(),
        };
        let known = decision.known.map(|place| shown[place].id.clone());
        let operation = decision.operation.map_id(|place| shown[place].id.clone());
        let before = match &operation {
            Operation::Update { id, .. } | Operation::Delete { id } => {
                Some(draft.bank().require(id)?.clone())
            }
            Operation::Add { .. } | Operation::Noop => None,
        };
        let mut change = Change::by_agent(speaker, fact.said.timestamp, receipt.clone());
        change.metadata = Some(options.metadata_for(fact, before.as_ref()));
        let noop = AddResult {
            id: known,
            memory: fact.text.clone(),
            event: OperationKind::Noop,
            previous_memory: None,
            fact: fact.text.clone(),
            receipt: Some(receipt.clone()),
        };
        let Some(event) = draft.apply(&operation, change)? else { return Ok(noop) };
        let previous = before.map(|memory| memory.text);
        let memory = event.after.as_ref().map(|memory| memory.text.clone()).or_else(|| previous.clone());
        Ok(AddResult {
            id: Some(event.id.clone()),
            memory: memory.unwrap_or_default(),
            event: operation.kind(),
            previous_memory: previous,
            ..noop
        })
    }

    async fn add_as_is(&self, turns: &[Turn], scope: &Scope, options: &AddOptions) -> Result<Vec<AddResult>> {
        let texts: Vec<(String, &Turn)> = turns
            .iter()
            .filter(|turn| turn.role != Role::System)
            .map(|turn| Ok((clean_text(&turn.content)?, turn)))
            .collect::<Result<_>>()?;
        options.cancel.check()?;
        let events = self
            .append(scope, |journal| {
                let mut draft = journal.draft(self.now());
                for (text, turn) in &texts {
                    let mut change = Change::by_user(
                        options.bank_speaker.as_ref().unwrap_or(&turn.speaker),
                        turn.timestamp,
                    );
                    change.metadata = Some(options.metadata.clone());
                    draft.apply(&Operation::Add { text: text.clone() }, change)?;
                }
                Ok(draft.finish())
            })
            .await?;
        Ok(events
            .into_iter()
            .zip(texts)
            .map(|(event, (text, _))| AddResult {
                id: Some(event.id),
                memory: text.clone(),
                event: OperationKind::Add,
                previous_memory: None,
                fact: text,
                receipt: None,
            })
            .collect())
    }
}

/// The texts of the speaker's memories that a turn may have to do with, best last.
fn related(journal: &Journal, retriever: &Retriever, turn: &Turn, most: usize) -> Vec<String> {
    let own: Vec<&Memory> =
        journal.bank().memories().filter(|memory| memory.speaker == turn.speaker).collect();
    let found = retriever.for_fact(&own, &turn.content, &turn.speaker, most);
    found.into_iter().map(|found| own[found.place].text.clone()).collect()
}

impl AddOptions {
    fn report(&self, progress: impl FnOnce() -> Progress) {
        if let Some(on_progress) = &self.on_progress {
            on_progress(&progress());
        }
    }

    fn takes_facts_from(&self, turn: &Turn) -> bool {
        match (&self.bank_speaker, self.extract_from) {
            (Some(speaker), _) => turn.speaker == *speaker,
            (None, ExtractFrom::User) => turn.role == Role::User,
            (None, ExtractFrom::All) => true,
        }
    }

    /// Each question to a model draws its own random numbers.
    fn sampling_of(&self, question: &[u64]) -> Sampling {
        let [step, example, sample] = self.sampling.key;
        Sampling { key: [step, keyed(example, question), sample], ..self.sampling }
    }

    /// The memory's own fields, the caller's, and the relative dates as they were said.
    fn metadata_for(&self, fact: &Fact, before: Option<&Memory>) -> Map<String, Value> {
        let mut metadata = before.map(|memory| memory.metadata.clone()).unwrap_or_default();
        metadata.remove(WHEN);
        if !fact.phrases.is_empty() {
            metadata.insert(WHEN.to_owned(), Value::from(fact.phrases.join("; ")));
        }
        metadata.extend(self.metadata.clone());
        metadata
    }
}
