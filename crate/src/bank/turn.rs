//! One message of a conversation.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Who spoke, in a chat's terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person; facts are taken from these turns.
    #[default]
    User,
    /// The application; context only, unless `extractFrom` says "all".
    Assistant,
    /// Instructions; neither a source of facts nor context.
    System,
}

/// One message: who, what, when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// `user` or `assistant`.
    #[serde(default)]
    pub role: Role,
    /// The speaker's name, or the role's where there is none.
    pub speaker: String,
    /// What was said.
    pub content: String,
    /// When.
    pub timestamp: Timestamp,
}
