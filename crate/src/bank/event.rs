//! One entry of the journal, and why it is there.

use serde::{Deserialize, Serialize};

use super::{Memory, MemoryId, Timestamp, Turn};

/// The version of the event's format that this build writes.
pub const EVENT_VERSION: u32 = 1;

/// Who caused an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The Memory Manager decided.
    Agent,
    /// A caller asked for it by name (`update`, `delete`, `infer: false`).
    User,
    /// The inverse of an earlier batch.
    Undo,
    /// Read from an export.
    Import,
    /// Texts were blanked for ever.
    Erase,
}

/// What an event did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventOp {
    /// A memory appeared.
    Add,
    /// Its text or metadata changed.
    Update,
    /// It is gone from the bank; its history stays.
    Delete,
    /// It is gone from the bank and from every event.
    Erase,
}

/// Why an agent decided as it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// What was said.
    pub turn: Turn,
    /// The fact that was taken out of it.
    pub fact: String,
    /// The memories that the manager was shown, in the order of its list.
    pub shown: Vec<MemoryId>,
    /// The fingerprint of the model's weights; empty where no model was asked.
    pub model: String,
    /// The probability of the operation's name under the grammar, in 0..1.
    pub probability: f64,
    /// The probability of the id, where the operation has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_probability: Option<f64>,
    /// How sure the extractor was of the fact: the geometric mean of its tokens' probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fact_probability: Option<f64>,
    /// The seed of the sampler.
    pub seed: u64,
    /// True where the fact equalled a shown memory and no model was asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub known: bool,
}

/// One change: what, when, before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The format's version, [`EVENT_VERSION`].
    pub v: u32,
    /// The journal's id: 32 hexadecimal digits.
    pub journal: String,
    /// Its place in the journal, from 1, without gaps.
    pub seq: u64,
    /// The append that it came in: the first sequence number of that append.
    pub batch: u64,
    /// When it was appended.
    pub at: Timestamp,
    /// Who caused it.
    pub cause: Cause,
    /// What it did.
    pub op: EventOp,
    /// To which memory.
    pub id: MemoryId,
    /// The memory before; blank after an erasure.
    pub before: Option<Memory>,
    /// The memory after.
    pub after: Option<Memory>,
    /// The agent's reasons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// The batch that an undo takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<u64>,
}
