//! What a conversation takes back or changes, where its gold operations are known: a memory that still says
//! it is stale.

use std::collections::HashMap;

use super::synthetic::GoldTurn;
use crate::bank::OperationKind;

/// A statement that held until a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superseded {
    /// Whose it is.
    pub speaker: String,
    /// The turn since which it does not hold.
    pub turn: String,
    /// The statement.
    pub text: String,
    /// The words that tell it from everything that holds of the speaker in the end.
    pub words: Vec<String>,
}

/// The statements that UPDATE and DELETE ended, but for those that nothing tells from what holds in the end.
pub(super) fn superseded(turns: &[GoldTurn]) -> Vec<Superseded> {
    let mut live: HashMap<(&str, &str), (&str, &[String])> = HashMap::new();
    let mut ended = Vec::new();
    for turn in turns {
        for fact in &turn.facts {
            let key = (&*turn.speaker, &*fact.key);
            let before = match fact.op {
                OperationKind::Update | OperationKind::Delete => live.remove(&key),
                OperationKind::Add | OperationKind::Noop => None,
            };
            if let Some((text, words)) = before {
                ended.push((turn, text, words));
            }
            if let (OperationKind::Add | OperationKind::Update, Some(text)) = (fact.op, &fact.text) {
                live.insert(key, (text, &fact.words));
            }
        }
    }
    let told_apart = ended.into_iter().filter_map(|(turn, text, words)| {
        let mut own = live.iter().filter(|((speaker, _), _)| *speaker == turn.speaker);
        let holds = |text: &str| says(text, words);
        let is_new = !words.is_empty() && !own.any(|(_, (text, _))| holds(text));
        is_new.then(|| Superseded {
            speaker: turn.speaker.clone(),
            turn: turn.dia_id.clone(),
            text: text.to_owned(),
            words: words.to_vec(),
        })
    });
    told_apart.collect()
}

impl Superseded {
    /// Whether a memory of these words says the statement.
    pub fn is_said_by(&self, text: &str) -> bool {
        says(text, &self.words)
    }
}

/// Whether all words stand in the text, in any case.
fn says(text: &str, words: &[String]) -> bool {
    let text = text.to_lowercase();
    words.iter().all(|word| text.contains(&word.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::Timestamp;
    use crate::datasets::synthetic::GoldFact;

    fn turn(id: &str, op: OperationKind, key: &str, text: Option<&str>, words: &[&str]) -> GoldTurn {
        let fact = text.unwrap_or("No longer").to_owned();
        GoldTurn {
            dia_id: id.to_owned(),
            speaker: "Ann".to_owned(),
            at: Timestamp::default(),
            needs_context: false,
            facts: vec![GoldFact {
                resolved: fact.clone(),
                fact,
                op,
                key: key.to_owned(),
                text: text.map(str::to_owned),
                relation: "home".to_owned(),
                words: words.iter().map(|&word| word.to_owned()).collect(),
            }],
        }
    }

    #[test]
    fn what_is_changed_or_taken_back_is_superseded_unless_it_holds_again() {
        use OperationKind::{Add, Delete, Noop, Update};
        let turns = [
            turn("D1:1", Add, "a", Some("Lives in Lyon"), &["Lyon"]),
            turn("D1:2", Noop, "a", Some("Lives in Lyon"), &["Lyon"]),
            turn("D1:3", Add, "b", Some("Has a dog named Rex"), &["dog", "Rex"]),
            turn("D1:4", Update, "a", Some("Lives in Oslo"), &["Oslo"]),
            turn("D2:1", Delete, "b", None, &[]),
            turn("D2:2", Update, "a", Some("Lives in Rome"), &["Rome"]),
            turn("D2:3", Update, "a", Some("Lives in Oslo again"), &["Oslo"]),
        ];
        let found = superseded(&turns);
        let told: Vec<_> = found.iter().map(|own| (&*own.turn, &*own.text)).collect();
        let wanted = [("D1:4", "Lives in Lyon"), ("D2:1", "Has a dog named Rex"), ("D2:3", "Lives in Rome")];
        assert_eq!(told, wanted);
        assert!(found[1].is_said_by("Rex is a DOG") && !found[1].is_said_by("Has a dog"));
    }
}
