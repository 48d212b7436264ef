//! Completions that no constraint held to their form: a server's, or a local model's without it.

use std::cell::Cell;
use std::rc::Rc;

use async_trait::async_trait;

use super::constraint::{Decision, facts_json, parse_answer, parse_decision, parse_facts};
use super::grammar::Grammar;
use super::language_model::{Cancel, ChatMessage, Generation, LanguageModel, ModelInfo, Request};
use crate::error::Result;

/// How many completions were not of the form that was asked for.
pub type Malformed = Rc<Cell<usize>>;

/// The JSON object of a completion in the wire format, or what changes nothing in its place: no
/// facts, NONE, or the whole text as the answer. What is put in its place is counted.
pub fn held_to_form(text: &str, grammar: &Grammar, malformed: &Malformed) -> String {
    let candidate = first_object(text).unwrap_or(text);
    let is_well_formed = match grammar {
        Grammar::Facts { max_facts } => parse_facts(candidate, *max_facts).is_ok(),
        Grammar::Decision { shown } => parse_decision(candidate, *shown).is_ok(),
        Grammar::Answer { lines } => parse_answer(candidate, lines.len()).is_ok(),
    };
    if is_well_formed {
        return candidate.to_owned();
    }
    malformed.set(malformed.get() + 1);
    match grammar {
        Grammar::Facts { .. } => facts_json::<&str>(&[]),
        Grammar::Decision { .. } => Decision::Noop.to_json(),
        Grammar::Answer { .. } => {
            let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let answer = if plain.trim().is_empty() { "I don't know" } else { plain.trim() };
            serde_json::json!({"memories": [], "answer": answer}).to_string()
        }
    }
}

/// The first JSON object of a text: from the first brace to its partner.
pub fn first_object(text: &str) -> Option<&str> {
    let start = text.find('{')?;
    let (mut depth, mut in_string, mut is_escaped) = (0usize, false, false);
    for (place, byte) in text.bytes().enumerate().skip(start) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'{' if !in_string => depth += 1,
            b'}' if !in_string => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&text[start..=place]);
        }
    }
    None
}

/// A model whose completions are not held to the grammar while it writes, but read afterwards.
pub struct Unconstrained {
    model: Rc<dyn LanguageModel>,
    malformed: Malformed,
}

impl Unconstrained {
    /// The same model without its constraint.
    pub fn new(model: Rc<dyn LanguageModel>, malformed: Malformed) -> Self {
        Self { model, malformed }
    }

    fn held(&self, generation: Generation, request: &Request) -> Generation {
        let text = match &request.grammar {
            Some(grammar) => held_to_form(&generation.text, grammar, &self.malformed),
            None => generation.text.clone(),
        };
        // What the tokens spell is no longer the text.
        Generation { parts: Vec::new(), ends: Vec::new(), text, ..generation }
    }
}

#[async_trait(?Send)]
impl LanguageModel for Unconstrained {
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
        let free = Request { grammar: None, ..request.clone() };
        let generation = self.model.generate(&free, cancel, &mut |_| ()).await?;
        let generation = self.held(generation, request);
        on_text(&generation.text);
        Ok(generation)
    }

    async fn samples(&self, request: &Request, count: usize, cancel: &Cancel) -> Result<Vec<Generation>> {
        let free = Request { grammar: None, ..request.clone() };
        let written = self.model.samples(&free, count, cancel).await?;
        Ok(written.into_iter().map(|own| self.held(own, request)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_found_in_what_stands_around_it() {
        let malformed = Malformed::default();
        let facts = Grammar::Facts { max_facts: 4 };
        let read = |text: &str, grammar: &Grammar| held_to_form(text, grammar, &malformed);
        let wanted = r#"{"facts":["Has a dog named \"}\""]}"#;
        assert_eq!(read(&format!("Sure!\n```json\n{wanted}\n```"), &facts), wanted);
        assert_eq!(malformed.get(), 0);
        assert_eq!(read("no idea", &facts), r#"{"facts":[]}"#);
        assert_eq!(read(r#"{"facts":["x""#, &facts), r#"{"facts":[]}"#);
        let decision = Grammar::Decision { shown: 1 };
        assert_eq!(read(r#"{"event":"DELETE","id":"0"}"#, &decision), r#"{"event":"DELETE","id":"0"}"#);
        assert_eq!(malformed.get(), 2);
        assert_eq!(read(r#"{"event":"DELETE","id":"7"}"#, &decision), r#"{"event":"NONE"}"#);
        let answer = Grammar::Answer { lines: vec!["x".into()] };
        assert_eq!(read("Lyon\nFrance", &answer), r#"{"answer":"Lyon France","memories":[]}"#);
        assert_eq!(malformed.get(), 4);
    }
}
