//! One entry of a bank.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Timestamp;

/// The id of a memory: a UUID (version 8) made of its journal and the event that added it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemoryId(pub String);

impl std::fmt::Display for MemoryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is remembered: a short statement and where it came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Its id, the same through all updates.
    pub id: MemoryId,
    /// The statement.
    pub text: String,
    /// Whose statement it is, in a conversation of several.
    pub speaker: String,
    /// When the journal took it in.
    pub created: Timestamp,
    /// When the journal last changed it.
    pub updated: Timestamp,
    /// The time of the turn that said it last; what prompts show.
    pub observed: Timestamp,
    /// The caller's own fields.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}
