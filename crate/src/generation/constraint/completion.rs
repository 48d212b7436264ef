//! The three completions, typed: read strictly, written in the one way that the grammars allow.

use std::ops::RangeInclusive;

use serde::Deserialize;

use super::automaton::is_allowed;
use crate::error::{Error, ErrorCode, Result};

/// What the manager decided. Ids are places among the memories shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A new memory.
    Add {
        /// What it says.
        text: String,
    },
    /// Another text for a memory.
    Update {
        /// Which.
        id: usize,
        /// What it says from now on.
        text: String,
    },
    /// A memory is no longer true.
    Delete {
        /// Which.
        id: usize,
    },
    /// Nothing changes (NONE).
    Noop,
}

/// What the answer agent said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The useful memories, as places among those shown.
    pub memories: Vec<usize>,
    /// The answer.
    pub answer: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FactsWire {
    facts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(tag = "event", deny_unknown_fields)]
enum DecisionWire {
    #[serde(rename = "ADD")]
    Add { text: String },
    #[serde(rename = "UPDATE")]
    Update { id: String, text: String },
    #[serde(rename = "DELETE")]
    Delete { id: String },
    #[serde(rename = "NONE")]
    None {},
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerWire {
    memories: Vec<String>,
    answer: String,
}

/// Reads an extractor's completion.
pub fn parse_facts(json: &str, max_facts: usize) -> Result<Vec<String>> {
    let FactsWire { facts } = read(json)?;
    if facts.len() > max_facts {
        return Err(malformed(format!("{} facts, at most {max_facts} are allowed", facts.len())));
    }
    facts.iter().map(|fact| filled(fact, "a fact")).collect()
}

/// Which part of an extractor's completion writes each fact: the tokens that end there spell it, from
/// the decision that there is one more to the mark behind it.
pub fn fact_spans(json: &str) -> Vec<RangeInclusive<usize>> {
    let Some(list) = json.find('[') else { return Vec::new() };
    let (mut ends, mut is_open, mut is_escaped) = (Vec::new(), false, false);
    for (place, byte) in json.bytes().enumerate().skip(list) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_open => is_escaped = true,
            b'"' => {
                if is_open {
                    ends.push(place + 1);
                }
                is_open = !is_open;
            }
            b']' if !is_open => break,
            _ => {}
        }
    }
    // That the list ends behind the last one belongs to it.
    if let Some(last) = ends.last_mut() {
        *last = json.len();
    }
    let starts = std::iter::once(0).chain(ends.iter().map(|end| end + 1));
    starts.zip(&ends).map(|(start, end)| start..=*end).collect()
}

/// Reads a manager's completion; `shown` is how many memories it was shown.
pub fn parse_decision(json: &str, shown: usize) -> Result<Decision> {
    Ok(match read(json)? {
        DecisionWire::Add { text } => Decision::Add { text: filled(&text, "the text")? },
        DecisionWire::Update { id, text } => {
            Decision::Update { id: place(&id, shown)?, text: filled(&text, "the text")? }
        }
        DecisionWire::Delete { id } => Decision::Delete { id: place(&id, shown)? },
        DecisionWire::None {} => Decision::Noop,
    })
}

/// Reads an answer agent's completion, without inserted lines; `shown` is how many memories it
/// was shown.
pub fn parse_answer(json: &str, shown: usize) -> Result<Answer> {
    let AnswerWire { memories: ids, answer } = read(json)?;
    let mut memories = Vec::with_capacity(ids.len());
    for id in ids {
        let own = place(&id, shown)?;
        if memories.contains(&own) {
            return Err(malformed(format!("the id {id:?} is named twice")));
        }
        memories.push(own);
    }
    Ok(Answer { memories, answer: filled(&answer, "the answer")? })
}

/// An extractor's completion in its wire format.
pub fn facts_json<S: AsRef<str>>(facts: &[S]) -> String {
    let facts: Vec<String> = facts.iter().map(|fact| quoted(fact.as_ref())).collect();
    format!("{{\"facts\":[{}]}}", facts.join(","))
}

impl Decision {
    /// The wire format.
    pub fn to_json(&self) -> String {
        match self {
            Self::Add { text } => format!("{{\"event\":\"ADD\",\"text\":{}}}", quoted(text)),
            Self::Update { id, text } => {
                format!("{{\"event\":\"UPDATE\",\"id\":\"{id}\",\"text\":{}}}", quoted(text))
            }
            Self::Delete { id } => format!("{{\"event\":\"DELETE\",\"id\":\"{id}\"}}"),
            Self::Noop => "{\"event\":\"NONE\"}".to_owned(),
        }
    }
}

impl Answer {
    /// The wire format.
    pub fn to_json(&self) -> String {
        let ids: Vec<String> = self.memories.iter().map(|id| format!("\"{id}\"")).collect();
        format!("{{\"memories\":[{}],\"answer\":{}}}", ids.join(","), quoted(&self.answer))
    }
}

/// A JSON string as the grammars want it: control characters are spaces.
fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            character => json.push(if is_allowed(character) { character } else { ' ' }),
        }
    }
    json.push('"');
    json
}

fn malformed(text: String) -> Error {
    Error::new(ErrorCode::MalformedOutput, text)
}

fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T> {
    serde_json::from_str(json).map_err(|cause| {
        Error::new(ErrorCode::MalformedOutput, "the completion is not the requested object")
            .with_source(cause)
    })
}

/// A string's text: one line, without white space around it. (Only a remote model can have
/// written a line break.)
fn filled(text: &str, what: &str) -> Result<String> {
    let line: String = text.chars().map(|c| if is_allowed(c) { c } else { ' ' }).collect();
    match line.trim() {
        "" => Err(malformed(format!("{what} is empty"))),
        text => Ok(text.to_owned()),
    }
}

fn place(id: &str, shown: usize) -> Result<usize> {
    let found = id.parse().ok().filter(|place: &usize| *place < shown && place.to_string() == id);
    found.ok_or_else(|| malformed(format!("the id {id:?} was not shown (there were {shown})")))
}
