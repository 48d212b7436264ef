//! What the Memory Manager decides.

use serde::{Deserialize, Serialize};

/// The name of an operation. On the wire NOOP is `NONE` (Memory-R1, Figures 9 and 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum OperationKind {
    /// A new memory.
    Add,
    /// A new text for a memory that is there.
    Update,
    /// A memory that no longer holds.
    Delete,
    /// Nothing new.
    #[serde(rename = "NONE", alias = "NOOP")]
    Noop,
}

impl OperationKind {
    /// All four, in the order of the paper.
    pub const ALL: [Self; 4] = [Self::Add, Self::Update, Self::Delete, Self::Noop];

    /// The name on the wire.
    pub fn wire_name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Noop => "NONE",
        }
    }
}

/// One operation. `Id` is a [`super::MemoryId`] in a bank, and a place in the list of shown
/// memories in a manager's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation<Id = super::MemoryId> {
    /// Remember `text`.
    Add {
        /// The new statement.
        text: String,
    },
    /// Replace the text of `id`.
    Update {
        /// Which memory.
        id: Id,
        /// Its new statement.
        text: String,
    },
    /// Forget `id`; its history stays.
    Delete {
        /// Which memory.
        id: Id,
    },
    /// Change nothing.
    Noop,
}

impl<Id> Operation<Id> {
    /// Its name.
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::Add { .. } => OperationKind::Add,
            Self::Update { .. } => OperationKind::Update,
            Self::Delete { .. } => OperationKind::Delete,
            Self::Noop => OperationKind::Noop,
        }
    }

    /// The same operation on what `rename` calls the id.
    pub fn map_id<Other>(self, rename: impl FnOnce(Id) -> Other) -> Operation<Other> {
        match self {
            Self::Add { text } => Operation::Add { text },
            Self::Update { id, text } => Operation::Update { id: rename(id), text },
            Self::Delete { id } => Operation::Delete { id: rename(id) },
            Self::Noop => Operation::Noop,
        }
    }
}
