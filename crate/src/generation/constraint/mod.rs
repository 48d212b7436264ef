//! A grammar enforced while decoding, so that any weights at all give a valid completion.
//!
//! The grammar is an automaton over bytes, stepped by the bytes of whole tokens along a trie of
//! the vocabulary, so that tokens which cross its parts (`"}` is one in many vocabularies) are
//! allowed as they are. What must follow is not asked of the model but forced, in the
//! tokenizer's canonical spelling.
//!
//! ```text
//! loop { match constraint.next()? {
//!     Step::Forced(ids)    => feed them; log-probability 0, Part::Forced
//!     Step::Choose(allowed) => choose one; part = constraint.accept(id)?
//!     Step::Done           => break
//! } }
//! constraint.text()   // the JSON
//! ```

mod automaton;
mod completion;
mod target;
mod trie;

use std::collections::HashMap;
use std::sync::Arc;

pub(crate) use automaton::State;
use automaton::{Automaton, Spot};
pub use completion::{Answer, Decision, fact_spans, facts_json, parse_answer, parse_decision, parse_facts};
pub use target::{TargetToken, encode_target};
pub use trie::{Bitset, TokenTrie};

use super::lexicon::Words;
use super::tokenizer::{DecodeStream, Tokenizer};
use super::{Grammar, MAX_ANSWER_TOKENS, MAX_TEXT_TOKENS, Part};
use crate::error::{Error, ErrorCode, Result};

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// These tokens; they are already accepted.
    Forced(Vec<u32>),
    /// One of these, to be told by [`Constraint::accept`].
    Choose(Arc<Bitset>),
    /// Nothing: the object is closed.
    Done,
}

/// No token makes the way out of a string longer than this many bytes.
const TEXT_SLACK: usize = 16;
const COSTS_KEPT: usize = 4096;

/// The state of one completion under a grammar.
#[derive(Clone, Debug)]
pub struct Constraint {
    tokenizer: Arc<Tokenizer>,
    automaton: Arc<Automaton>,
    state: State,
    /// Tokens that may still be made.
    remaining: usize,
    /// The most tokens of a string, and how many the current one has.
    string_limit: usize,
    string_tokens: usize,
    allowed: Option<Arc<Bitset>>,
    text: String,
    stream: DecodeStream,
    costs: HashMap<State, Option<usize>>,
}

impl Constraint {
    /// A completion of at most `max_new_tokens`. Fewer than the shortest one needs is
    /// `INVALID_ARGUMENT`; a vocabulary that cannot spell the grammar is `MODEL_UNSUPPORTED`.
    pub fn new(tokenizer: &Arc<Tokenizer>, grammar: &Grammar, max_new_tokens: usize) -> Result<Self> {
        Self::with_words(tokenizer, grammar, None, max_new_tokens)
    }

    /// The same, with strings of these words only. A vocabulary that cannot spell every text has
    /// them free: it could get stuck within a word.
    pub(crate) fn with_words(
        tokenizer: &Arc<Tokenizer>,
        grammar: &Grammar,
        words: Option<Words>,
        max_new_tokens: usize,
    ) -> Result<Self> {
        let words = words.filter(|_| tokenizer.trie().spells_all_text());
        let spells = |text: &str| {
            tokenizer.trie().spells_all_text() || tokenizer.encode_exact(text.as_bytes()).is_some()
        };
        let automaton = Automaton::new(grammar, words, spells)?;
        let string_limit = match grammar {
            Grammar::Answer { .. } => MAX_ANSWER_TOKENS,
            Grammar::Facts { .. } | Grammar::Decision { .. } => MAX_TEXT_TOKENS,
        };
        let mut own = Self {
            tokenizer: Arc::clone(tokenizer),
            state: automaton.start(),
            automaton: Arc::new(automaton),
            remaining: max_new_tokens,
            string_limit,
            string_tokens: 0,
            allowed: None,
            text: String::new(),
            stream: DecodeStream::default(),
            costs: HashMap::new(),
        };
        let shortest = own.cost(&own.automaton.start()).ok_or_else(|| {
            Error::new(ErrorCode::ModelUnsupported, "this vocabulary has no tokens to spell JSON with")
        })?;
        if max_new_tokens < shortest {
            let text =
                format!("the shortest completion has {shortest} tokens, max_new_tokens is {max_new_tokens}");
            return Err(Error::invalid(text));
        }
        Ok(own)
    }

    /// What comes next. Asked again before [`Constraint::accept`], it says the same.
    #[allow(clippy::should_implement_trait, reason = "it can fail and never ends with None")]
    pub fn next(&mut self) -> Result<Step> {
        let mut forced = Vec::new();
        loop {
            if self.state.is_end() {
                return Ok(if forced.is_empty() { Step::Done } else { Step::Forced(forced) });
            }
            if self.allowed.is_none() {
                if let Some(ids) = self.determined_run() {
                    self.force(&ids, &mut forced)?;
                    continue;
                }
                self.allowed = Some(self.find_allowed());
            }
            let allowed = self.allowed.clone().unwrap_or_else(|| Arc::new(Bitset::new(0)));
            match allowed.count() {
                0 => {
                    let ids = self.closing_run()?;
                    self.force(&ids, &mut forced)?;
                }
                1 => {
                    let ids: Vec<u32> = allowed.iter().collect();
                    self.force(&ids, &mut forced)?;
                }
                _ if forced.is_empty() => return Ok(Step::Choose(allowed)),
                _ => return Ok(Step::Forced(forced)),
            }
        }
    }

    /// Takes a token that [`Step::Choose`] allowed, and says what it spells.
    pub fn accept(&mut self, token: u32) -> Result<Part> {
        match &self.allowed {
            Some(allowed) if allowed.contains(token) => self.advance(token),
            _ => Err(Error::internal(format!("token {token} was not among those allowed"))),
        }
    }

    /// The completion so far: JSON without the inserted lines, whole characters only.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// True once the object is closed.
    pub fn is_done(&self) -> bool {
        self.state.is_end()
    }

    fn force(&mut self, ids: &[u32], forced: &mut Vec<u32>) -> Result<()> {
        for id in ids {
            self.advance(*id)?;
        }
        forced.extend_from_slice(ids);
        Ok(())
    }

    fn advance(&mut self, token: u32) -> Result<Part> {
        let tokenizer = Arc::clone(&self.tokenizer);
        let (mut event, mut id, mut content) = (false, false, false);
        for byte in tokenizer.token_bytes(token) {
            let spot = self.state.spot();
            let next = self
                .automaton
                .step(&self.state, *byte)
                .ok_or_else(|| Error::internal(format!("the grammar does not allow token {token} here")))?;
            if spot != Spot::Inserted {
                self.text.push_str(&self.stream.push_bytes(&[*byte]));
            }
            event |= spot == Spot::Event;
            id |= spot == Spot::Id;
            content |= spot == Spot::Content;
            if next.is_text() && !next.is_in_the_same_string(&self.state) {
                self.string_tokens = 0;
                content = false;
            }
            self.state = next;
        }
        self.string_tokens += usize::from(content);
        self.remaining = self
            .remaining
            .checked_sub(1)
            .ok_or_else(|| Error::internal("the completion has outgrown its budget"))?;
        self.allowed = None;
        Ok(match (event, id) {
            (true, _) => Part::Event,
            (_, true) => Part::Id,
            _ => Part::Text,
        })
    }

    /// The tokens of the bytes that must follow, if any must.
    fn determined_run(&mut self) -> Option<Vec<u32>> {
        let (mut run, mut state) = (Vec::new(), self.state);
        if state.is_closable_text() && self.string_tokens >= self.string_limit {
            run.push(b'"');
            state = self.automaton.step(&state, b'"')?;
        }
        while let Some(byte) = self.automaton.determined(&state) {
            run.push(byte);
            state = self.automaton.step(&state, byte)?;
        }
        if run.is_empty() {
            return None;
        }
        let ids = self.tokenizer.encode_exact(&run);
        let roomy = self.remaining > run.len() + self.automaton.slack() && self.spells_all();
        let fits = roomy
            || ids
                .as_ref()
                .is_some_and(|ids| self.cost(&state).is_some_and(|cost| ids.len() + cost <= self.remaining));
        // Spelled in one go to the end, the rest may need fewer tokens than in pieces.
        if fits { ids } else { self.tokenizer.encode_exact(&self.automaton.closing(&self.state)) }
    }

    fn closing_run(&self) -> Result<Vec<u32>> {
        let bytes = self.automaton.closing(&self.state);
        self.tokenizer.encode_exact(&bytes).ok_or_else(|| Error::internal("the completion cannot be closed"))
    }

    fn spells_all(&self) -> bool {
        self.tokenizer.trie().spells_all_text()
    }

    /// The tokens of a shortest completion from a state on.
    fn cost(&mut self, state: &State) -> Option<usize> {
        if state.is_end() {
            return Some(0);
        }
        if let Some(known) = self.costs.get(state) {
            return *known;
        }
        let cost = self.tokenizer.encode_exact(&self.automaton.closing(state)).map(|ids| ids.len());
        if self.costs.len() >= COSTS_KEPT {
            self.costs.clear();
        }
        self.costs.insert(*state, cost);
        cost
    }

    fn find_allowed(&mut self) -> Arc<Bitset> {
        let (state, tokenizer, automaton) =
            (self.state, Arc::clone(&self.tokenizer), Arc::clone(&self.automaton));
        let trie = tokenizer.trie();
        let step = |state: &State, byte: u8| automaton.step(state, byte);
        let text_slack = TEXT_SLACK + automaton.longest_word();
        let slack = if state.is_text() { text_slack } else { automaton.slack() };
        let string_left = self.string_limit.saturating_sub(self.string_tokens);
        let is_roomy = self.remaining > slack && (!state.is_text() || string_left > text_slack);
        let mut allowed = Bitset::new(trie.vocabulary_size());
        if is_roomy && self.spells_all() && !state.is_event_start() {
            let find = || {
                trie.walk(state, step, |ids, _| allowed.extend(ids));
                allowed
            };
            let is_common = state.is_plain_text() && automaton.is_free_text();
            return if is_common { tokenizer.mask(&state, find) } else { Arc::new(find()) };
        }
        let left = self.remaining.saturating_sub(1);
        // One spelling for each event, so that its token's probability is the event's.
        let names = automaton.event_names().filter(|_| state.is_event_start());
        let spellings: Vec<u32> =
            names.filter_map(|name| tokenizer.encode_exact(name)?.first().copied()).collect();
        trie.walk(state, step, |ids, next| {
            let fits = self.cost(next).is_some_and(|cost| cost <= left)
                && (!next.is_in_the_same_string(&state) || self.finishes_within(next, string_left));
            if fits {
                allowed.extend(ids.iter().filter(|id| !state.is_event_start() || spellings.contains(id)));
            }
        });
        Arc::new(allowed)
    }

    /// Whether a string that has taken one token more can still be brought to a good end.
    fn finishes_within(&self, state: &State, string_left: usize) -> bool {
        if string_left > TEXT_SLACK + self.automaton.longest_word() {
            return true;
        }
        let bytes = self.automaton.finishing(state);
        bytes.is_empty() && string_left > 0
            || self.tokenizer.encode_exact(&bytes).is_some_and(|ids| ids.len() < string_left)
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;
