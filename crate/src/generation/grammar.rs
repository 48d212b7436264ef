//! The three forms that a completion may have (the wire formats of the agents).

/// A form of completion. Strings are non-empty, valid UTF-8, without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Grammar {
    /// `{"facts":["…"]}`, with 0 to `max_facts` facts.
    Facts {
        /// The most facts.
        max_facts: usize,
    },
    /// `{"event":"ADD","text":"…"}`, `{"event":"UPDATE","id":"2","text":"…"}`,
    /// `{"event":"DELETE","id":"0"}` or `{"event":"NONE"}`, with an id of `0..shown`; where
    /// `shown` is 0 there is neither UPDATE nor DELETE.
    Decision {
        /// How many memories were shown.
        shown: usize,
    },
    /// `{"memories":["3","17"],"answer":"…"}`, ids distinct and of the lines' places. After the
    /// closing quote of each id the engine inserts a space and that line as forced tokens.
    Answer {
        /// `timestamp: text` of each candidate, by its id.
        lines: Vec<String>,
    },
}

/// The longest fact, memory text or merged text, in tokens.
pub const MAX_TEXT_TOKENS: usize = 128;
/// The longest answer, in tokens.
pub const MAX_ANSWER_TOKENS: usize = 64;
