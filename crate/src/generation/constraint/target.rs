//! A known completion as the tokens that decoding would make of it, to train on.

use std::collections::VecDeque;
use std::sync::Arc;

use super::automaton::{Automaton, Spot};
use super::{Constraint, Step};
use crate::error::{Error, Result};
use crate::generation::tokenizer::Tokenizer;
use crate::generation::{Grammar, Part};

/// A token of a known completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetToken {
    /// The token.
    pub id: u32,
    /// What it spells.
    pub part: Part,
}

/// Replays the constraint over `json`, a completion in its wire format (no white space between
/// its parts, no escapes but `\"` and `\\`, without the inserted lines). What decoding forces
/// is forced, inserted lines included; what the model chooses is spelled canonically.
pub fn encode_target(tokenizer: &Arc<Tokenizer>, grammar: &Grammar, json: &str) -> Result<Vec<TargetToken>> {
    let mut constraint = Constraint::new(tokenizer, grammar, usize::MAX)?;
    let full = with_lines(&constraint.automaton, json)?;
    let mut rest = &full[..];
    let mut target = Vec::new();
    let mut planned: VecDeque<u32> = VecDeque::new();
    loop {
        match constraint.next()? {
            Step::Done if rest.is_empty() => return Ok(target),
            Step::Done => return Err(Error::internal("a completion ended before its text did")),
            Step::Forced(ids) => {
                planned.clear();
                for id in ids {
                    rest = rest.strip_prefix(tokenizer.token_bytes(id)).ok_or_else(|| {
                        Error::invalid(format!("a string of {json} has more tokens than the format allows"))
                    })?;
                    target.push(TargetToken { id, part: Part::Forced });
                }
            }
            Step::Choose(allowed) => {
                if planned.is_empty() {
                    planned = std::str::from_utf8(rest)
                        .ok()
                        .map(|text| tokenizer.encode(text))
                        .transpose()?
                        .unwrap_or_default()
                        .into();
                }
                let fits = |id: &u32| allowed.contains(*id) && rest.starts_with(tokenizer.token_bytes(*id));
                let canonical = planned.pop_front().filter(fits);
                if canonical.is_none() {
                    planned.clear();
                }
                let longest =
                    || tokenizer.trie().prefixes(rest).into_iter().rev().map(|(_, id)| id).find(fits);
                let id = canonical
                    .or_else(longest)
                    .ok_or_else(|| Error::invalid(format!("{json} cannot be spelled within the format")))?;
                rest = &rest[tokenizer.token_bytes(id).len()..];
                target.push(TargetToken { id, part: constraint.accept(id)? });
            }
        }
    }
}

/// The completion's bytes with the inserted lines, once they are known to follow the grammar.
fn with_lines(automaton: &Automaton, json: &str) -> Result<Vec<u8>> {
    let (mut full, mut state) = (Vec::with_capacity(json.len()), automaton.start());
    for (at, byte) in json.bytes().enumerate() {
        while state.spot() == Spot::Inserted {
            let Some(own) = automaton.determined(&state) else { break };
            full.push(own);
            state = automaton
                .step(&state, own)
                .ok_or_else(|| Error::internal("a line does not follow itself"))?;
        }
        full.push(byte);
        state = automaton
            .step(&state, byte)
            .ok_or_else(|| Error::invalid(format!("byte {at} of {json} breaks its format")))?;
    }
    if state.is_end() { Ok(full) } else { Err(Error::invalid(format!("{json} is not complete"))) }
}
