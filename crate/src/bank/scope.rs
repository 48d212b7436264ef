//! Whose memory it is.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The owner of a journal: at least one of the three ids. Scopes never leak into each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// The person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The conversation or run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
}

impl Scope {
    /// The scope of one user.
    pub fn user(id: impl Into<String>) -> Self {
        Self { user_id: Some(id.into()), ..Self::default() }
    }

    /// An error unless one id at least is there and none is empty, huge or has control characters.
    pub fn validate(&self) -> Result<()> {
        let ids = [&self.user_id, &self.agent_id, &self.run_id];
        if ids.iter().all(|id| id.is_none()) {
            return Err(Error::invalid("a scope needs one of userId, agentId, runId"));
        }
        for id in ids.into_iter().flatten() {
            if id.trim().is_empty() || id.len() > 512 || id.chars().any(char::is_control) {
                return Err(Error::invalid(
                    "an id of a scope is 1 to 512 bytes of text without control characters",
                ));
            }
        }
        Ok(())
    }

    /// Whether this scope agrees with every id that `filter` gives.
    pub fn agrees_with(&self, filter: &Self) -> bool {
        let agrees = |own: &Option<String>, wanted: &Option<String>| wanted.is_none() || own == wanted;
        agrees(&self.user_id, &filter.user_id)
            && agrees(&self.agent_id, &filter.agent_id)
            && agrees(&self.run_id, &filter.run_id)
    }

    /// A text that is equal for equal scopes only: the key of a journal in a store.
    pub fn key(&self) -> String {
        serde_json::to_string(&[&self.user_id, &self.agent_id, &self.run_id]).unwrap_or_default()
    }
}
