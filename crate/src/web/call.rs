//! The verbs: each reads its arguments, calls the agent, and makes a plain value.

use std::rc::Rc;

use js_sys::Function;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wasm_bindgen::JsValue;

use super::convert::{from_js, to_js};
use super::measure::measure;
use super::view::{AnswerView, BareDecisionView, DecisionView, EventView, MemoryView, Results, changes};
use crate::agents::{
    AddOptions, AddResult, AnswerOptions, ExtractFrom, MemoryAgent, Progress, SearchOptions,
};
use crate::bank::{Memory, MemoryId, Moment, Scope, Timestamp, Turn};
use crate::error::{Error, Result};
use crate::generation::{Cancel, Sampling};

/// What a call needs beside its arguments.
pub(super) struct Context {
    pub(super) agent: MemoryAgent,
    pub(super) extract_from: ExtractFrom,
    pub(super) seed: u64,
    /// Whether the hooks of the tests and measurements are open.
    pub(super) test: bool,
    /// What `info` answers.
    pub(super) info: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Add {
    scope: Scope,
    turns: Vec<Turn>,
    #[serde(default)]
    context: Vec<Turn>,
    metadata: Option<Map<String, Value>>,
    infer: bool,
    extract_from: Option<ExtractFrom>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ask {
    question: String,
    scope: Scope,
    top_k: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Search {
    query: String,
    scope: Scope,
    top_k: Option<usize>,
    threshold: Option<f64>,
    explain: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    scope: Scope,
    top_k: Option<usize>,
}

#[derive(Deserialize)]
struct One {
    id: MemoryId,
}

#[derive(Deserialize)]
struct Update {
    id: MemoryId,
    text: String,
}

#[derive(Deserialize)]
struct Delete {
    id: MemoryId,
    erase: bool,
}

#[derive(Deserialize)]
struct Owner {
    scope: Scope,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum When {
    Sequence(u64),
    Time(Timestamp),
}

impl From<When> for Moment {
    fn from(when: When) -> Self {
        match when {
            When::Sequence(seq) => Self::Seq(seq),
            When::Time(time) => Self::Time(time),
        }
    }
}

#[derive(Deserialize)]
struct AsOf {
    scope: Scope,
    when: When,
}

#[derive(Deserialize)]
struct Diff {
    scope: Scope,
    a: When,
    b: When,
}

#[derive(Deserialize)]
struct Import {
    data: String,
}

#[derive(Deserialize)]
struct BareMemory {
    id: MemoryId,
    memory: String,
    timestamp: Timestamp,
    speaker: String,
}

impl From<BareMemory> for Memory {
    fn from(bare: BareMemory) -> Self {
        let time = bare.timestamp;
        Self {
            id: bare.id,
            text: bare.memory,
            speaker: bare.speaker,
            created: time,
            updated: time,
            observed: time,
            metadata: Map::new(),
        }
    }
}

#[derive(Deserialize)]
struct Decide {
    facts: Vec<String>,
    memories: Vec<BareMemory>,
}

#[derive(Deserialize)]
struct AnswerFrom {
    question: String,
    memories: Vec<BareMemory>,
}

impl Context {
    /// Runs one verb.
    pub(super) async fn run(
        &self,
        method: &str,
        arguments: JsValue,
        cancel: Cancel,
        on_event: Option<Function>,
    ) -> Result<JsValue> {
        let agent = &self.agent;
        match method {
            "add" => self.add(from_js(arguments)?, cancel, on_event).await,
            "answer" => self.answer(from_js(arguments)?, cancel, on_event).await,
            "search" => {
                let Search { query, scope, top_k, threshold, explain } = from_js(arguments)?;
                let default = SearchOptions::default();
                let options = SearchOptions {
                    top_k: top_k.unwrap_or(default.top_k),
                    threshold: threshold.unwrap_or(default.threshold),
                    explain,
                    cancel,
                };
                let found = agent.search(&query, &scope, &options).await?;
                to_js(&found.into_iter().map(MemoryView::from).collect::<Results<_>>())
            }
            "get" => to_js(&MemoryView::from(agent.get(&from_js::<One>(arguments)?.id).await?)),
            "getAll" => {
                let List { scope, top_k } = from_js(arguments)?;
                let all = agent.get_all(&scope, top_k.unwrap_or(usize::MAX)).await?;
                to_js(&all.into_iter().map(MemoryView::from).collect::<Results<_>>())
            }
            "update" => {
                let Update { id, text } = from_js(arguments)?;
                to_js(&MemoryView::from(agent.update(&id, &text).await?))
            }
            "delete" => {
                let Delete { id, erase } = from_js(arguments)?;
                agent.delete(&id, erase).await.map(|()| JsValue::UNDEFINED)
            }
            "deleteAll" => {
                agent.delete_all(&from_js::<Owner>(arguments)?.scope).await.map(|_| JsValue::UNDEFINED)
            }
            "history" => {
                let events = agent.history(&from_js::<One>(arguments)?.id).await?;
                to_js(&events.into_iter().map(EventView::from).collect::<Vec<_>>())
            }
            "reset" => agent.reset().await.map(|()| JsValue::UNDEFINED),
            "undo" => {
                let events = agent.undo(&from_js::<Owner>(arguments)?.scope).await?;
                to_js(&events.into_iter().map(EventView::from).collect::<Results<_>>())
            }
            "asOf" => {
                let AsOf { scope, when } = from_js(arguments)?;
                let bank = agent.as_of(&scope, when.into()).await?;
                let view = |memory: &Memory| MemoryView::new(memory.clone(), scope.clone());
                to_js(&bank.memories().map(view).collect::<Results<_>>())
            }
            "diff" => {
                let Diff { scope, a, b } = from_js(arguments)?;
                to_js(&changes(agent.diff(&scope, a.into(), b.into()).await?))
            }
            "export" => {
                let Owner { scope } = from_js(arguments)?;
                let filter = (scope != Scope::default()).then_some(&scope);
                agent.export(filter).await.map(Into::into)
            }
            "import" => to_js(&agent.import(&from_js::<Import>(arguments)?.data).await?),
            "decide" => self.decide(from_js(arguments)?, &cancel).await,
            "answerFrom" => self.answer_from(from_js(arguments)?, &cancel).await,
            "info" => to_js(&self.info),
            "measure" if self.test => measure(self, arguments, &cancel).await,
            #[allow(clippy::panic)]
            "panic" if self.test => panic!("a test asked for it"),
            other => Err(Error::invalid(format!("there is no method {other:?}"))),
        }
    }

    fn sampling(&self) -> Sampling {
        Sampling { seed: self.seed, ..Sampling::default() }
    }

    async fn add(&self, add: Add, cancel: Cancel, on_event: Option<Function>) -> Result<JsValue> {
        let options = AddOptions {
            infer: add.infer,
            extract_from: add.extract_from.unwrap_or(self.extract_from),
            context: add.context,
            metadata: add.metadata.unwrap_or_default(),
            sampling: self.sampling(),
            on_progress: on_event.map(|on_event| {
                Rc::new(move |progress: &Progress| tell(&on_event, &progress_view(progress)))
                    as Rc<dyn Fn(&Progress)>
            }),
            cancel,
            ..AddOptions::default()
        };
        let results = self.agent.add(&add.turns, &add.scope, &options).await?;
        to_js(&results.into_iter().map(DecisionView::from).collect::<Results<_>>())
    }

    async fn answer(&self, ask: Ask, cancel: Cancel, on_event: Option<Function>) -> Result<JsValue> {
        let options = AnswerOptions {
            per_speaker: ask.top_k,
            sampling: self.sampling(),
            on_text: on_event.map(|on_event| {
                Rc::new(move |text: &str| tell(&on_event, &json!({ "text": text }))) as Rc<dyn Fn(&str)>
            }),
            cancel,
            ..AnswerOptions::default()
        };
        to_js(&AnswerView::from(self.agent.answer(&ask.question, &ask.scope, &options).await?))
    }

    async fn decide(&self, decide: Decide, cancel: &Cancel) -> Result<JsValue> {
        let memories: Vec<Memory> = decide.memories.into_iter().map(Into::into).collect();
        let decided =
            self.agent.manager().decide_each(&decide.facts, &memories, self.sampling(), cancel).await?;
        let view =
            |(fact, (operation, decision))| BareDecisionView::new(fact, operation, &decision, &memories);
        to_js(&decide.facts.into_iter().zip(decided).map(view).collect::<Results<_>>())
    }

    async fn answer_from(&self, ask: AnswerFrom, cancel: &Cancel) -> Result<JsValue> {
        let memories: Vec<Memory> = ask.memories.into_iter().map(Into::into).collect();
        let agent = self.agent.answer_agent();
        let (answer, used) =
            agent.answer_from(&ask.question, &memories, self.sampling(), cancel, &mut |_| ()).await?;
        to_js(&json!({ "answer": answer, "used": used }))
    }
}

fn progress_view(progress: &Progress) -> Value {
    match progress {
        Progress::Facts(facts) => json!({ "type": "facts", "facts": facts }),
        Progress::Decided { index, total, result } => json!({
            "type": "decision", "index": index, "total": total, "decision": DecisionView::from(AddResult::clone(result)),
        }),
        Progress::Restarted => json!({ "type": "restarted" }),
    }
}

/// A listener that throws does not stop the work that it listens to.
fn tell(listener: &Function, event: &Value) {
    if let Ok(event) = to_js(event) {
        let _ = listener.call1(&JsValue::NULL, &event);
    }
}
