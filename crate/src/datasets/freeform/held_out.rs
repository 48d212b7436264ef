//! The situations that no training reads, as cases for `eval ops`: every so-manieth of those that
//! training reads, and a file of their own.

use super::{Decided, Situation, load, parse};
use crate::bank::Timestamp;
use crate::datasets::synthetic::{Accept, OpsCase, OpsMemory, OpsTurn};
use crate::error::Result;
use crate::random::keyed;

const FILE: (&str, &str) = ("held_out.txt", include_str!("held_out.txt"));
/// One situation of so many is held out of the other files.
const ONE_OF: u64 = 20;
/// The shortest word that a text is recognised by, where it has neither name nor number.
const TELLING: usize = 5;

impl Situation {
    /// Whether it is for validation.
    pub fn is_held_out(&self) -> bool {
        let letters: Vec<u64> = self.turn.text.bytes().map(u64::from).collect();
        keyed(0xe7ab, &[keyed(0, &letters)]).is_multiple_of(ONE_OF)
    }
}

/// The held-out situations that a single turn and at most one fact make up.
pub fn held_out_cases() -> Result<Vec<OpsCase>> {
    let mut situations: Vec<Situation> = load()?.into_iter().filter(Situation::is_held_out).collect();
    situations.extend(parse(FILE.0, FILE.1)?);
    let fit = situations.iter().filter(|own| own.context.is_empty() && own.facts.len() < 2);
    Ok(fit.enumerate().map(|(number, own)| case(number, own)).collect())
}

fn case(number: usize, situation: &Situation) -> OpsCase {
    let id = |place: usize| format!("m{place}");
    let memories = situation.memories.iter().enumerate();
    let accept = |op: &str, target: Option<usize>, text: &str| Accept {
        op: op.to_owned(),
        target: target.map(id),
        contains: telling(text),
    };
    let accepted = match situation.facts.first() {
        None => accept("NOOP", None, ""),
        Some(statement) => match &statement.decided {
            Decided::Add => accept("ADD", None, &statement.fact),
            Decided::Update { target, text } => accept("UPDATE", Some(*target), text),
            Decided::Delete { target } => accept("DELETE", Some(*target), ""),
            Decided::Noop { .. } => accept("NOOP", None, ""),
        },
    };
    OpsCase {
        id: format!("situation-{number:04}"),
        memories: memories.map(|(place, text)| OpsMemory { id: id(place), text: text.clone() }).collect(),
        turn: OpsTurn {
            speaker: situation.turn.speaker.clone(),
            text: situation.turn.text.clone(),
            timestamp: Timestamp::from_millis(1_704_103_200_000).unwrap_or_default(),
        },
        accept: vec![accepted],
        fact: situation.facts.first().map(|statement| statement.fact.clone()),
        relation: String::new(),
        lookalike: false,
    }
}

/// The names and numbers of a statement behind its first word; its longest word where it has none.
fn telling(text: &str) -> Vec<String> {
    let words = || text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let marked = |word: &&str| word.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit());
    let names: Vec<String> = words().skip(1).filter(marked).map(str::to_owned).collect();
    if !names.is_empty() {
        return names;
    }
    let longest = words().skip(1).filter(|word| word.len() >= TELLING).max_by_key(|word| word.len());
    longest.map(str::to_owned).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_recognised_by_its_names_or_its_longest_word() {
        assert_eq!(telling("Works as a nurse at St Mary's"), ["St", "Mary"]);
        assert_eq!(telling("Is allergic to peanuts"), ["allergic"]);
        assert_eq!(telling("Likes jazz"), Vec::<String>::new());
        assert!(telling("").is_empty());
    }

    #[test]
    fn a_part_is_held_out_and_every_case_names_its_target() {
        let cases = held_out_cases().unwrap();
        let all = load().unwrap().len();
        assert!((200..all / 4).contains(&cases.len()), "{} beside {all}", cases.len());
        for case in &cases {
            let [accept] = &case.accept[..] else { panic!("{}", case.id) };
            let named = accept.target.as_ref();
            assert!(
                named.is_none_or(|id| case.memories.iter().any(|memory| memory.id == *id)),
                "{}",
                case.id
            );
            assert_eq!(named.is_some(), ["UPDATE", "DELETE"].contains(&&accept.op[..]));
        }
    }
}
