//! The facts of conversations, as an extractor took them out or as a data set gives them: what is decided and
//! answered can then be compared on the same facts.
//!
//! The file is `{"conversation": {"turn": ["fact", …]}}`; a turn without facts is not named. Benchmarks and training
//! runs write it as `facts.json`.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::dialogue::Dialogue;
use crate::error::{Error, ErrorCode, Result};

/// The facts of a conversation, by the names of its turns.
pub type TurnFacts = BTreeMap<String, Vec<String>>;

/// Those of several conversations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownFacts {
    conversations: BTreeMap<String, TurnFacts>,
    from: String,
}

impl KnownFacts {
    /// Reads a file of them.
    pub fn read(path: &Path) -> Result<Self> {
        let from = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::new(ErrorCode::NotReachable, format!("{from} could not be read as text"))
                .with_source(error)
        })?;
        let conversations = serde_json::from_str(&text).map_err(|error| {
            Error::invalid(format!("{from} holds no facts of conversations: {error}")).with_source(error)
        })?;
        Ok(Self { conversations, from })
    }

    /// Those of the conversation of this name; none where there are none.
    pub fn of_name(&self, conversation: &str) -> TurnFacts {
        self.conversations.get(conversation).cloned().unwrap_or_default()
    }

    /// Those of a conversation; an error where there are none, or of turns that it does not have.
    pub fn of(&self, dialogue: &Dialogue) -> Result<&TurnFacts> {
        let known = self.conversations.get(&dialogue.id);
        let known =
            known.ok_or_else(|| Error::invalid(format!("{} has no facts of {}", self.from, dialogue.id)))?;
        let turns: HashSet<&str> = dialogue.turns.iter().map(|turn| &*turn.id).collect();
        match known.keys().find(|name| !turns.contains(name.as_str())) {
            Some(name) => Err(Error::invalid(format!(
                "{}: {} has no turn {name}; the facts are of other data",
                self.from, dialogue.id
            ))),
            None => Ok(known),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialogue::Said;
    use super::*;
    use crate::bank::Timestamp;

    fn dialogue(id: &str, turns: &[&str]) -> Dialogue {
        let said = |turn: &&str| Said {
            session: 0,
            speaker: "ann".to_owned(),
            id: (*turn).to_owned(),
            text: "…".to_owned(),
            at: Timestamp::default(),
        };
        let turns = turns.iter().map(said).collect();
        Dialogue {
            id: id.to_owned(),
            banks: Vec::new(),
            turns,
            questions: Vec::new(),
            superseded: Vec::new(),
        }
    }

    #[test]
    fn facts_of_other_conversations_or_turns_are_errors_that_name_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("facts.json");
        std::fs::write(&path, r#"{"a": {"D1:2": ["Lives in Lyon"]}}"#).unwrap();
        let known = KnownFacts::read(&path).unwrap();
        assert_eq!(known.of(&dialogue("a", &["D1:1", "D1:2"])).unwrap()["D1:2"], ["Lives in Lyon"]);
        let message = |dialogue| known.of(&dialogue).unwrap_err().message().to_owned();
        assert!(message(dialogue("b", &[])).ends_with("has no facts of b"));
        assert!(message(dialogue("a", &["D1:1"])).contains("a has no turn D1:2"));
        std::fs::write(&path, "[]").unwrap();
        assert_eq!(KnownFacts::read(&path).unwrap_err().code(), ErrorCode::InvalidArgument);
        let missing = KnownFacts::read(&folder.path().join("none.json")).unwrap_err();
        assert_eq!(missing.code(), ErrorCode::NotReachable);
    }
}
