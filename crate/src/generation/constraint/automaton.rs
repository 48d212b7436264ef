//! The three grammars as automata over bytes. A state says all that matters for what may follow.

use super::super::Grammar;
use super::super::lexicon::{LONGEST_WORD, Words};
use crate::error::{Error, Result};

/// The most memories that an answer may choose from.
pub(crate) const MAX_SHOWN: usize = 256;
/// The longest line that is inserted after an id, in characters; longer ones are cut.
const MAX_LINE_CHARACTERS: usize = 512;

/// Fixed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Literal {
    FactsOpen,
    FactsClose,
    EventOpen,
    AddText,
    UpdateId,
    DeleteId,
    NoneClose,
    UpdateText,
    DeleteClose,
    AnswerOpen,
    AnswerText,
}

impl Literal {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::FactsOpen => b"{\"facts\":[",
            Self::FactsClose | Self::DeleteClose => b"}",
            Self::EventOpen => b"{\"event\":\"",
            Self::AddText => b"\",\"text\":\"",
            Self::UpdateId | Self::DeleteId => b"\",\"id\":\"",
            Self::NoneClose => b"\"}",
            Self::UpdateText => b",\"text\":\"",
            Self::AnswerOpen => b"{\"memories\":[",
            Self::AnswerText => b",\"answer\":\"",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    Add,
    Update,
    Delete,
    None,
}

impl Event {
    const ALL: [Self; 4] = [Self::Add, Self::Update, Self::Delete, Self::None];

    fn name(self) -> &'static [u8] {
        match self {
            Self::Add => b"ADD",
            Self::Update => b"UPDATE",
            Self::Delete => b"DELETE",
            Self::None => b"NONE",
        }
    }

    fn is_allowed(self, shown: u16) -> bool {
        shown > 0 || matches!(self, Self::Add | Self::None)
    }
}

/// What an id belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum IdOf {
    Update,
    Delete,
    Answer,
}

/// What follows a string's closing quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum After {
    Close,
    Facts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Fixed {
        text: Literal,
        at: u8,
    },
    /// Before the first entry of a list, or its end.
    ListStart {
        of_ids: bool,
    },
    /// Behind an entry: the next one, or the end.
    ListNext {
        of_ids: bool,
    },
    /// Behind a comma.
    EntryOpen {
        of_ids: bool,
    },
    EventStart,
    EventName {
        event: Event,
        at: u8,
    },
    Id {
        of: IdOf,
        value: u16,
        digits: u8,
    },
    Line {
        id: u16,
        at: u32,
    },
    Text(Text),
    End,
}

/// Where in a string's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Text {
    after: After,
    /// There is a character that is not white space.
    filled: bool,
    escaped: bool,
    /// The bits of a character whose bytes are not all there.
    partial: u32,
    /// How many of its bytes are missing.
    missing: u8,
    /// The smallest character that may be written with this many bytes.
    least: u32,
}

/// A place in a completion: equal states allow the same continuations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    phase: Phase,
    /// Facts that may still be opened.
    facts_left: u16,
    /// Ids already named by an answer.
    used: [u64; MAX_SHOWN / 64],
    /// Where in a word of a string, and whether that must go on: see [`Words`].
    word: u32,
    word_is_open: bool,
}

/// What a byte is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    Fixed,
    Event,
    /// An id, or the choice between another id and the end of the list.
    Id,
    /// A string's content.
    Content,
    /// The choice between another fact and the end of the list.
    List,
    /// A line that the engine inserts: no part of the JSON.
    Inserted,
}

impl State {
    #[allow(clippy::unnecessary_wraps, reason = "every step is optional")]
    fn go(&self, phase: Phase) -> Option<Self> {
        Some(Self { phase, ..*self })
    }

    pub(crate) fn is_end(&self) -> bool {
        self.phase == Phase::End
    }

    /// Inside a string, at a character's boundary, outside an escape: a state worth a cache.
    pub(crate) fn is_plain_text(&self) -> bool {
        matches!(self.phase, Phase::Text(Text { missing: 0, escaped: false, .. }))
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self.phase, Phase::Text(_))
    }

    pub(crate) fn is_event_start(&self) -> bool {
        self.phase == Phase::EventStart
    }

    /// Inside the same string as `other`, as far as one token reaches.
    pub(crate) fn is_in_the_same_string(&self, other: &Self) -> bool {
        self.is_text() && other.is_text() && self.facts_left == other.facts_left
    }

    pub(crate) fn is_closable_text(&self) -> bool {
        let closable =
            matches!(self.phase, Phase::Text(Text { missing: 0, escaped: false, filled: true, .. }));
        closable && !self.word_is_open
    }

    /// What the next byte would be part of.
    pub(crate) fn spot(&self) -> Spot {
        match self.phase {
            Phase::Fixed { .. } | Phase::End => Spot::Fixed,
            Phase::ListStart { of_ids } | Phase::ListNext { of_ids } | Phase::EntryOpen { of_ids } => {
                if of_ids {
                    Spot::Id
                } else {
                    Spot::List
                }
            }
            Phase::EventStart | Phase::EventName { .. } => Spot::Event,
            Phase::Id { .. } => Spot::Id,
            Phase::Line { .. } => Spot::Inserted,
            Phase::Text(_) => Spot::Content,
        }
    }
}

/// What a request allows: its grammar, and the lines as they are inserted.
#[derive(Debug)]
pub(crate) struct Automaton {
    start: State,
    shown: u16,
    /// A space and the candidate's line, by id.
    lines: Vec<Vec<u8>>,
    /// The words of strings, where they are not free.
    words: Option<Words>,
}

impl Automaton {
    /// `keep` says which text the tokenizer can spell; what it cannot becomes `?` in a line.
    pub(crate) fn new(grammar: &Grammar, words: Option<Words>, keep: impl Fn(&str) -> bool) -> Result<Self> {
        let (text, shown, facts_left, lines) = match grammar {
            Grammar::Facts { max_facts } => {
                (Literal::FactsOpen, 0, (*max_facts).min(u16::MAX as usize), Vec::new())
            }
            Grammar::Decision { shown } => (Literal::EventOpen, *shown, 0, Vec::new()),
            Grammar::Answer { lines } => {
                let lines: Vec<_> = lines.iter().map(|line| inserted(line, &keep).into_bytes()).collect();
                (Literal::AnswerOpen, lines.len(), 0, lines)
            }
        };
        if shown > MAX_SHOWN {
            return Err(Error::invalid(format!(
                "at most {MAX_SHOWN} memories can be shown at once, not {shown}"
            )));
        }
        let phase = Phase::Fixed { text, at: 0 };
        let start = State {
            phase,
            facts_left: facts_left as u16,
            used: [0; MAX_SHOWN / 64],
            word: 0,
            word_is_open: false,
        };
        Ok(Self { start, shown: shown as u16, lines, words })
    }

    pub(crate) fn start(&self) -> State {
        self.start
    }

    /// More tokens than the shortest completion needs from any state (no token is empty).
    pub(crate) fn slack(&self) -> usize {
        64 + self.lines.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Whether strings may use any word.
    pub(crate) fn is_free_text(&self) -> bool {
        self.words.is_none()
    }

    /// The most bytes that end a word.
    pub(crate) fn longest_word(&self) -> usize {
        if self.is_free_text() { 0 } else { LONGEST_WORD }
    }

    fn is_free(&self, state: &State, id: u16) -> bool {
        id < self.shown && state.used[id as usize / 64] >> (id % 64) & 1 == 0
    }

    /// Whether a free id starts with these digits.
    fn leads_to_id(&self, state: &State, value: u16, digits: u8) -> bool {
        if digits == 0 {
            return (0..self.shown).any(|id| self.is_free(state, id));
        }
        let (mut from, mut past) = (u32::from(value), u32::from(value) + 1);
        while from < u32::from(self.shown) {
            if (from..past.min(u32::from(self.shown))).any(|id| self.is_free(state, id as u16)) {
                return true;
            }
            if value == 0 {
                return false;
            }
            (from, past) = (from * 10, past * 10);
        }
        false
    }

    /// The state after one more byte, if the grammar allows it.
    pub(crate) fn step(&self, state: &State, byte: u8) -> Option<State> {
        match state.phase {
            Phase::Fixed { text, at } => {
                let bytes = text.bytes();
                if bytes[at as usize] != byte {
                    None
                } else if at as usize + 1 < bytes.len() {
                    state.go(Phase::Fixed { text, at: at + 1 })
                } else {
                    state.go(behind(text))
                }
            }
            Phase::ListStart { of_ids } | Phase::ListNext { of_ids } => self.step_list(state, of_ids, byte),
            Phase::EntryOpen { of_ids } => (byte == b'"').then(|| open_entry(state, of_ids)),
            Phase::EventStart => Event::ALL
                .into_iter()
                .find(|event| event.name()[0] == byte && event.is_allowed(self.shown))
                .and_then(|event| state.go(Phase::EventName { event, at: 1 })),
            Phase::EventName { event, at } => {
                if event.name()[at as usize] != byte {
                    None
                } else if at as usize + 1 < event.name().len() {
                    state.go(Phase::EventName { event, at: at + 1 })
                } else {
                    let text = match event {
                        Event::Add => Literal::AddText,
                        Event::Update => Literal::UpdateId,
                        Event::Delete => Literal::DeleteId,
                        Event::None => Literal::NoneClose,
                    };
                    state.go(Phase::Fixed { text, at: 0 })
                }
            }
            Phase::Id { of, value, digits } => self.step_id(state, of, value, digits, byte),
            Phase::Line { id, at } => {
                let line = &self.lines[id as usize];
                if line[at as usize] != byte {
                    None
                } else if at as usize + 1 < line.len() {
                    state.go(Phase::Line { id, at: at + 1 })
                } else {
                    state.go(Phase::ListNext { of_ids: true })
                }
            }
            Phase::Text(text) => {
                let next = step_text(state, text, byte)?;
                let Some(words) = &self.words else { return Some(next) };
                let word = words.step(state.word, byte)?;
                Some(State { word, word_is_open: words.is_open(word), ..next })
            }
            Phase::End => None,
        }
    }

    fn may_open_entry(&self, state: &State, of_ids: bool) -> bool {
        if of_ids { self.leads_to_id(state, 0, 0) } else { state.facts_left > 0 }
    }

    fn step_list(&self, state: &State, of_ids: bool, byte: u8) -> Option<State> {
        let first = matches!(state.phase, Phase::ListStart { .. });
        match byte {
            b']' if of_ids => {
                let phase = Phase::Fixed { text: Literal::AnswerText, at: 0 };
                Some(State { phase, used: [0; MAX_SHOWN / 64], ..*state })
            }
            b']' => state.go(Phase::Fixed { text: Literal::FactsClose, at: 0 }),
            b'"' if first && self.may_open_entry(state, of_ids) => Some(open_entry(state, of_ids)),
            b',' if !first && self.may_open_entry(state, of_ids) => state.go(Phase::EntryOpen { of_ids }),
            _ => None,
        }
    }

    fn step_id(&self, state: &State, of: IdOf, value: u16, digits: u8, byte: u8) -> Option<State> {
        if byte == b'"' {
            if digits == 0 || !self.is_free(state, value) {
                return None;
            }
            let fixed = |text| state.go(Phase::Fixed { text, at: 0 });
            return match of {
                IdOf::Update => fixed(Literal::UpdateText),
                IdOf::Delete => fixed(Literal::DeleteClose),
                IdOf::Answer => {
                    let mut used = state.used;
                    used[value as usize / 64] |= 1 << (value % 64);
                    Some(State { phase: Phase::Line { id: value, at: 0 }, used, ..*state })
                }
            };
        }
        if !byte.is_ascii_digit() || (digits > 0 && value == 0) {
            return None;
        }
        let value = value * 10 + u16::from(byte - b'0');
        self.leads_to_id(state, value, digits + 1)
            .then_some(State { phase: Phase::Id { of, value, digits: digits + 1 }, ..*state })
    }

    /// The names that an event may have.
    pub(crate) fn event_names(&self) -> impl Iterator<Item = &'static [u8]> {
        let shown = self.shown;
        let allowed = Event::ALL.into_iter().filter(move |event| event.is_allowed(shown));
        allowed.map(Event::name)
    }

    /// The byte that must follow, where only one may and it is not a matter of wording.
    pub(crate) fn determined(&self, state: &State) -> Option<u8> {
        match state.phase {
            Phase::Text(_) | Phase::EventStart | Phase::End => None,
            Phase::Fixed { text, at } => Some(text.bytes()[at as usize]),
            Phase::EntryOpen { .. } => Some(b'"'),
            Phase::EventName { event, at } => Some(event.name()[at as usize]),
            Phase::Line { id, at } => Some(self.lines[id as usize][at as usize]),
            Phase::ListStart { of_ids } | Phase::ListNext { of_ids } => {
                (!self.may_open_entry(state, of_ids)).then_some(b']')
            }
            Phase::Id { .. } => {
                let mut allowed = b"\"0123456789".iter().filter(|byte| self.step(state, **byte).is_some());
                match (allowed.next(), allowed.next()) {
                    (Some(byte), None) => Some(*byte),
                    _ => None,
                }
            }
        }
    }

    /// The next byte of a shortest completion.
    fn closing_byte(&self, state: &State) -> u8 {
        match state.phase {
            Phase::EventStart => b'N',
            Phase::ListStart { .. } | Phase::ListNext { .. } => b']',
            Phase::Id { .. } => {
                let mut allowed = b"\"0123456789".iter().filter(|byte| self.step(state, **byte).is_some());
                *allowed.next().unwrap_or(&b'"')
            }
            Phase::Text(text) => match (text, &self.words) {
                (_, Some(words)) if state.word_is_open => words.way_out(state.word),
                (Text { missing: 0, escaped: true, .. }, _) => b'\\',
                (Text { missing: 0, filled: true, .. }, _) => b'"',
                (Text { missing: 0, .. }, _) => b'?',
                // A continuation byte that leads to a printable character.
                _ => (0x80..=0xBF)
                    .rev()
                    .find(|byte| {
                        let next = self.step(state, *byte);
                        next.is_some_and(|next| {
                            matches!(next.phase, Phase::Text(Text { missing, filled, .. })
                            if missing > 0 || filled)
                        })
                    })
                    .unwrap_or(b'?'),
            },
            _ => self.determined(state).unwrap_or(b'"'),
        }
    }

    /// The bytes of a shortest completion from a state on.
    pub(crate) fn closing(&self, state: &State) -> Vec<u8> {
        self.closing_until(state, State::is_end)
    }

    /// The bytes that bring a string to where its closing quote may stand.
    pub(crate) fn finishing(&self, state: &State) -> Vec<u8> {
        self.closing_until(state, State::is_closable_text)
    }

    fn closing_until(&self, state: &State, done: impl Fn(&State) -> bool) -> Vec<u8> {
        let (mut bytes, mut state) = (Vec::new(), *state);
        while !done(&state) {
            let byte = self.closing_byte(&state);
            // Every state has a way to its end; a state without one would be a defect here.
            let Some(next) = self.step(&state, byte) else { break };
            bytes.push(byte);
            state = next;
        }
        bytes
    }
}

fn behind(text: Literal) -> Phase {
    let string = |after| Phase::Text(Text::open(after));
    match text {
        Literal::FactsOpen => Phase::ListStart { of_ids: false },
        Literal::EventOpen => Phase::EventStart,
        Literal::AnswerOpen => Phase::ListStart { of_ids: true },
        Literal::AddText | Literal::UpdateText | Literal::AnswerText => string(After::Close),
        Literal::UpdateId => Phase::Id { of: IdOf::Update, value: 0, digits: 0 },
        Literal::DeleteId => Phase::Id { of: IdOf::Delete, value: 0, digits: 0 },
        Literal::FactsClose | Literal::NoneClose | Literal::DeleteClose => Phase::End,
    }
}

fn open_entry(state: &State, of_ids: bool) -> State {
    if of_ids {
        State { phase: Phase::Id { of: IdOf::Answer, value: 0, digits: 0 }, ..*state }
    } else {
        let phase = Phase::Text(Text::open(After::Facts));
        State { phase, facts_left: state.facts_left - 1, ..*state }
    }
}

impl Text {
    fn open(after: After) -> Self {
        Self { after, filled: false, escaped: false, partial: 0, missing: 0, least: 0 }
    }
}

fn step_text(state: &State, text: Text, byte: u8) -> Option<State> {
    let go = |text| state.go(Phase::Text(text));
    if text.escaped {
        let known = matches!(byte, b'"' | b'\\');
        return if known { go(Text { escaped: false, filled: true, ..text }) } else { None };
    }
    if text.missing > 0 {
        if byte & 0xC0 != 0x80 {
            return None;
        }
        let partial = text.partial << 6 | u32::from(byte & 0x3F);
        let missing = text.missing - 1;
        if missing > 0 {
            // Some character with these leading bits must be allowed: not overlong, no surrogate.
            let (low, high) = (partial << (6 * missing), (partial + 1) << (6 * missing));
            let reachable = high > text.least && low <= 0x10_FFFF && !(low >= 0xD800 && high <= 0xE000);
            return if reachable { go(Text { partial, missing, ..text }) } else { None };
        }
        let character = char::from_u32(partial).filter(|_| partial >= text.least)?;
        if !is_allowed(character) {
            return None;
        }
        let filled = text.filled || !character.is_whitespace();
        return go(Text { partial: 0, missing: 0, least: 0, filled, ..text });
    }
    match byte {
        b'"' if text.filled => match text.after {
            After::Close => state.go(Phase::Fixed { text: Literal::FactsClose, at: 0 }),
            After::Facts => state.go(Phase::ListNext { of_ids: false }),
        },
        b'"' | 0..0x20 | 0x7F..0xC2 | 0xF5.. => None,
        b'\\' => go(Text { escaped: true, ..text }),
        b' ' => go(text),
        0x21..0x7F => go(Text { filled: true, ..text }),
        0xC2..0xE0 => go(Text { partial: u32::from(byte & 0x1F), missing: 1, least: 0x80, ..text }),
        0xE0..0xF0 => go(Text { partial: u32::from(byte & 0x0F), missing: 2, least: 0x800, ..text }),
        0xF0..0xF5 => go(Text { partial: u32::from(byte & 0x07), missing: 3, least: 0x1_0000, ..text }),
    }
}

/// Characters that a string may hold: no controls (C1 too), no line or paragraph separators.
pub(crate) fn is_allowed(character: char) -> bool {
    !character.is_control() && !matches!(character, '\u{2028}' | '\u{2029}')
}

/// A candidate's line as it is inserted: a space, then the line on one line, cut where it is long.
fn inserted(line: &str, keep: impl Fn(&str) -> bool) -> String {
    let mut text = String::with_capacity(line.len() + 1);
    text.push(' ');
    text.extend(line.chars().take(MAX_LINE_CHARACTERS).map(|c| if is_allowed(c) { c } else { ' ' }));
    if !keep(&text) {
        text = text.chars().map(|c| if keep(c.encode_utf8(&mut [0; 4])) { c } else { '?' }).collect();
    }
    text
}
