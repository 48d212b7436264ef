//! What is measured: the agents, and what they are to be compared with.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A way to answer questions to a conversation. All ask the same answer agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// The agents as they are: a manager keeps the banks.
    #[default]
    MemoryR1,
    /// Every fact is added, and none is ever changed or deleted: what Mem0 does since version 3.
    AddOnly,
    /// Every turn is a memory, word for word; retrieval finds those that are shown.
    Rag,
    /// Every turn is shown; where they do not fit, the oldest of the speaker with most are left out.
    FullContext,
    /// The turns that hold the answer are shown, and no others: the ceiling of the answer agent.
    Oracle,
    /// Nothing is shown.
    NoMemory,
}

impl System {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::MemoryR1, Self::AddOnly, Self::Rag, Self::FullContext, Self::Oracle, Self::NoMemory];

    /// As a command and a report name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryR1 => "memory-r1",
            Self::AddOnly => "add-only",
            Self::Rag => "rag",
            Self::FullContext => "full-context",
            Self::Oracle => "oracle",
            Self::NoMemory => "no-memory",
        }
    }

    /// Whether it has banks, which turns are read into.
    pub fn has_banks(self) -> bool {
        matches!(self, Self::MemoryR1 | Self::AddOnly | Self::Rag)
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for System {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|own| own.name() == name).ok_or_else(|| format!("systems are {}", names()))
    }
}
