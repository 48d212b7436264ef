//! The shapes that JavaScript sees: Mem0's names, in camel case.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::agents::{AddResult, Answer, Decision, Recalled, Remembered};
use crate::bank::{
    Cause, Difference, Event, EventOp, Memory, MemoryId, Operation, OperationKind, Receipt, Scope, Timestamp,
    Turn,
};

/// Mem0's envelope.
#[derive(Serialize)]
pub(super) struct Results<T> {
    results: Vec<T>,
}

impl<T> FromIterator<T> for Results<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self { results: items.into_iter().collect() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MemoryView {
    id: MemoryId,
    memory: String,
    speaker: String,
    created_at: Timestamp,
    updated_at: Timestamp,
    observed_at: Timestamp,
    metadata: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Value>,
}

impl MemoryView {
    pub(super) fn new(memory: Memory, scope: Scope) -> Self {
        Self {
            id: memory.id,
            memory: memory.text,
            speaker: memory.speaker,
            created_at: memory.created,
            updated_at: memory.updated,
            observed_at: memory.observed,
            metadata: memory.metadata,
            user_id: scope.user_id,
            agent_id: scope.agent_id,
            run_id: scope.run_id,
            score: None,
            explanation: None,
        }
    }
}

impl From<Remembered> for MemoryView {
    fn from(remembered: Remembered) -> Self {
        Self::new(remembered.memory, remembered.scope)
    }
}

impl From<Recalled> for MemoryView {
    fn from(recalled: Recalled) -> Self {
        Self {
            score: Some(recalled.score),
            explanation: recalled.explanation.and_then(|parts| serde_json::to_value(parts).ok()),
            ..recalled.found.into()
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReceiptView {
    turn: Turn,
    fact: String,
    shown: Vec<MemoryId>,
    model: String,
    probability: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_probability: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fact_probability: Option<f64>,
    seed: u64,
    known: bool,
}

impl From<Receipt> for ReceiptView {
    fn from(receipt: Receipt) -> Self {
        let Receipt { turn, fact, shown, model, probability, id_probability, fact_probability, seed, known } =
            receipt;
        Self { turn, fact, shown, model, probability, id_probability, fact_probability, seed, known }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DecisionView {
    id: Option<MemoryId>,
    event: OperationKind,
    memory: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_memory: Option<String>,
    fact: String,
    probability: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ReceiptView>,
}

impl From<AddResult> for DecisionView {
    fn from(result: AddResult) -> Self {
        Self {
            id: result.id,
            event: result.event,
            memory: result.memory,
            previous_memory: result.previous_memory,
            fact: result.fact,
            probability: result.receipt.as_ref().map_or(1.0, |receipt| receipt.probability),
            receipt: result.receipt.map(Into::into),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BareDecisionView {
    id: Option<MemoryId>,
    event: OperationKind,
    memory: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_memory: Option<String>,
    fact: String,
    probability: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_probability: Option<f64>,
    known: bool,
}

impl BareDecisionView {
    pub(super) fn new(fact: String, operation: Operation, decision: &Decision, memories: &[Memory]) -> Self {
        let text_of =
            |id: &MemoryId| memories.iter().find(|memory| memory.id == *id).map(|memory| memory.text.clone());
        let event = operation.kind();
        let (id, memory, previous_memory) = match operation {
            Operation::Add { text } => (None, text, None),
            Operation::Update { id, text } => {
                let before = text_of(&id);
                (Some(id), text, before)
            }
            Operation::Delete { id } => {
                let before = text_of(&id);
                (Some(id), before.clone().unwrap_or_default(), before)
            }
            Operation::Noop => (None, fact.clone(), None),
        };
        Self {
            id,
            event,
            memory,
            previous_memory,
            fact,
            probability: decision.probability,
            id_probability: decision.id_probability,
            known: decision.known.is_some(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct AnswerView {
    answer: String,
    memories: Vec<MemoryView>,
    candidates: Vec<MemoryView>,
}

impl From<Answer> for AnswerView {
    fn from(answer: Answer) -> Self {
        Self {
            answer: answer.answer,
            memories: answer.memories.into_iter().map(Into::into).collect(),
            candidates: answer.candidates.into_iter().map(Into::into).collect(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventView {
    seq: u64,
    batch: u64,
    journal: String,
    memory_id: MemoryId,
    event: EventOp,
    cause: Cause,
    previous_memory: Option<String>,
    memory: Option<String>,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    undoes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ReceiptView>,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            seq: event.seq,
            batch: event.batch,
            journal: event.journal,
            memory_id: event.id,
            event: event.op,
            cause: event.cause,
            previous_memory: event.before.map(|memory| memory.text),
            memory: event.after.map(|memory| memory.text),
            created_at: event.at,
            undoes: event.undoes,
            receipt: event.receipt.map(Into::into),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChangeView {
    id: MemoryId,
    event: EventOp,
    memory: Option<String>,
    previous_memory: Option<String>,
}

/// One entry for each memory that differs: what is new, what changed, what is gone.
pub(super) fn changes(difference: Difference) -> Results<ChangeView> {
    let added = difference.added.into_iter().map(|memory| ChangeView {
        id: memory.id,
        event: EventOp::Add,
        memory: Some(memory.text),
        previous_memory: None,
    });
    let changed = difference.changed.into_iter().map(|changed| ChangeView {
        id: changed.after.id,
        event: EventOp::Update,
        memory: Some(changed.after.text),
        previous_memory: Some(changed.before.text),
    });
    let removed = difference.removed.into_iter().map(|memory| ChangeView {
        id: memory.id,
        event: EventOp::Delete,
        memory: None,
        previous_memory: Some(memory.text),
    });
    added.chain(changed).chain(removed).collect()
}
