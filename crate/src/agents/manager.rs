//! The Memory Manager: one operation for one fact.

use std::rc::Rc;

use unicode_normalization::UnicodeNormalization;

use super::prompts::{candidate_line, manage_messages, one_line};
use super::stutter::stutters;
use super::{Recall, generate};
use crate::bank::{Memory, MemoryId, Operation, Timestamp, clean_text};
use crate::error::{ErrorCode, Result};
use crate::generation::{
    self, Cancel, Generation, Grammar, LanguageModel, MAX_TEXT_TOKENS, Part, Request, Sampling,
};

/// The longest decision: its text, and the rest of the object.
const MOST_TOKENS: usize = MAX_TEXT_TOKENS + 48;

/// A memory as an agent is shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// When it was said.
    pub observed: Timestamp,
    /// The statement.
    pub text: String,
}

impl Candidate {
    /// Its line, without its id.
    pub fn line(&self) -> String {
        candidate_line(self.observed, &self.text)
    }
}

impl From<&Memory> for Candidate {
    fn from(memory: &Memory) -> Self {
        Self { observed: memory.observed, text: memory.text.clone() }
    }
}

/// What the manager decided for a fact.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The operation; an id is a place among the candidates that were given.
    pub operation: Operation<usize>,
    /// The probability of the operation's name.
    pub probability: f64,
    /// The probability of the id, where there is one.
    pub id_probability: Option<f64>,
    /// The candidate that the fact equals: then no model was asked.
    pub known: Option<usize>,
    /// The first candidate that was shown: those before it did not fit.
    pub shown_from: usize,
}

impl Decision {
    /// What is done with a fact where nobody decides.
    pub(super) fn add(fact: &str) -> Self {
        Self {
            operation: Operation::Add { text: fact.to_owned() },
            probability: 1.0,
            id_probability: None,
            known: None,
            shown_from: 0,
        }
    }
}

/// Decides.
#[derive(Clone)]
pub struct Manager {
    model: Rc<dyn LanguageModel>,
    recall: Recall,
}

impl Manager {
    /// A manager that asks this model, and is shown what is found so.
    pub fn new(model: Rc<dyn LanguageModel>, recall: impl Into<Recall>) -> Self {
        Self { model, recall: recall.into() }
    }

    /// The model that it asks.
    pub fn model(&self) -> &Rc<dyn LanguageModel> {
        &self.model
    }

    /// The operation that `fact` calls for; `candidates` are ordered best last.
    ///
    /// A fact that equals a candidate, but for case, punctuation and spaces, is a NOOP without
    /// a question to the model. Candidates that do not fit into the model's context are left
    /// out, the worst first.
    pub async fn decide(
        &self,
        candidates: &[Candidate],
        fact: &str,
        sampling: Sampling,
        cancel: &Cancel,
    ) -> Result<Decision> {
        let fact = &one_line(fact);
        let same = normalised(fact);
        if let Some(known) = candidates.iter().rposition(|candidate| normalised(&candidate.text) == same) {
            return Ok(Decision {
                operation: Operation::Noop,
                probability: 1.0,
                id_probability: None,
                known: Some(known),
                shown_from: 0,
            });
        }
        let info = self.model.info();
        let lines: Vec<String> = candidates.iter().map(Candidate::line).collect();
        let mut from = 0;
        loop {
            let request = Request {
                messages: manage_messages(info.prompt_family, &lines[from..], fact),
                grammar: Some(Grammar::Decision { shown: lines.len() - from }),
                max_new_tokens: MOST_TOKENS,
                sampling,
                stop: Vec::new(),
            };
            match generate(&*self.model, &request, MOST_TOKENS, cancel, &mut |_| ()).await {
                Ok(generation) => return decision(&generation, fact, lines.len(), from),
                Err(error) if error.code() == ErrorCode::ContextOverflow && from < lines.len() => from += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Manager {
    /// The operation that each fact calls for, each compared with the memories as they are
    /// given: those that are related to it are shown, as many as the model takes.
    pub async fn decide_each(
        &self,
        facts: &[String],
        memories: &[Memory],
        sampling: Sampling,
        cancel: &Cancel,
    ) -> Result<Vec<(Operation<MemoryId>, Decision)>> {
        let memories: Vec<&Memory> = memories.iter().collect();
        let facts = facts.iter().map(|fact| clean_text(fact)).collect::<Result<Vec<_>>>()?;
        let texts = memories.iter().map(|memory| &*memory.text).chain(facts.iter().map(String::as_str));
        let retriever = self.recall.with(texts, cancel).await?;
        let mut decided = Vec::with_capacity(facts.len());
        for fact in facts {
            cancel.check()?;
            let shown = retriever.for_fact(&memories, &fact, "", self.model.info().manager_candidates);
            let candidates: Vec<Candidate> =
                shown.iter().map(|found| Candidate::from(memories[found.place])).collect();
            let decision = self.decide(&candidates, &fact, sampling, cancel).await?;
            let operation =
                decision.operation.clone().map_id(|place| memories[shown[place].place].id.clone());
            decided.push((operation, decision));
        }
        Ok(decided)
    }
}

/// Whether two statements are the same but for case, spaces and punctuation: then there is
/// nothing for a model to decide.
pub fn is_same_statement(a: &str, b: &str) -> bool {
    normalised(a) == normalised(b)
}

/// A statement but for case, spaces and punctuation (in NFC): two that agree here are the same.
/// Signs that carry meaning stay, so that `C++` is not `C#`.
fn normalised(text: &str) -> String {
    const FOLDED: &str = ".,;:!?'\"()[]{}-–—_…“”‘’«»¡¿`、。，！？；：「」『』（）";
    let spaced: String =
        text.nfc().flat_map(char::to_lowercase).map(|c| if FOLDED.contains(c) { ' ' } else { c }).collect();
    let words = spaced.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.is_empty() { text.to_owned() } else { words }
}

/// Where the model fell into a loop, the fact itself is the text.
fn decision(generation: &Generation, fact: &str, candidates: usize, from: usize) -> Result<Decision> {
    let text = |written: &str| if stutters(written) { fact.to_owned() } else { one_line(written) };
    let operation = match generation::parse_decision(&generation.text, candidates - from)? {
        generation::Decision::Add { text: written } => Operation::Add { text: text(&written) },
        generation::Decision::Update { id, text: written } => {
            Operation::Update { id: id + from, text: text(&written) }
        }
        generation::Decision::Delete { id } => Operation::Delete { id: id + from },
        generation::Decision::Noop => Operation::Noop,
    };
    let has_id = matches!(operation, Operation::Update { .. } | Operation::Delete { .. });
    Ok(Decision {
        operation,
        probability: generation.probability(Part::Event).min(1.0),
        id_probability: has_id.then(|| generation.probability(Part::Id).min(1.0)),
        known: None,
        shown_from: from,
    })
}

#[cfg(test)]
mod tests {
    use super::normalised;

    #[test]
    fn case_spaces_and_punctuation_do_not_make_another_fact_and_signs_do() {
        let same = |a, b| normalised(a) == normalised(b);
        assert!(same("Has a dog, named  Scout.", "has a dog named scout"));
        assert!(same("Loves cafe\u{301}s", "Loves cafés"));
        assert!(!same("Likes C++", "Likes C#"));
        assert!(!same("!", "?"));
        assert!(!same("Has a dog", "Has a cat"));
    }
}
