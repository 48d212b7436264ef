//! Memories that are easily taken for each other: a sister's home and one's own.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate};

use super::Split;
use super::dialogue::Entry;
use super::examples::{GoldMemory, TurnExample};
use super::tables::{Relation, Tables};
use crate::bank::Timestamp;
use crate::random::Random;

/// Relations of like things, by what they are about. One may stand in several.
const FAMILIES: [&[&str]; 38] = [
    &["home", "parents_home", "sibling_home", "elder_home", "hometown", "city_trip", "trip"],
    &["dwelling", "district", "renovation"],
    &["job", "relative_job", "employer"],
    &["employer", "school", "volunteer", "club"],
    &["pet", "child"],
    &["name", "partner", "boss", "roommate", "contact"],
    &["child", "partner", "roommate", "met"],
    &["favorite_film", "saw_film", "watching"],
    &["favorite_book", "reading"],
    &["favorite_band", "concert", "genre", "instrument"],
    &["favorite_food", "dislike", "breakfast", "restaurant"],
    &["favorite_drink", "coffee"],
    &["favorite_color", "favorite_season", "favorite_food", "favorite_drink", "favorite_band"],
    &["dislike", "allergy", "shopping", "diet"],
    &["garden", "shopping"],
    &["health", "medication", "allergy"],
    &["trait", "fear", "diet", "age"],
    &["age", "birthday"],
    &["religion", "native", "diet"],
    &["study", "school", "course", "exam"],
    &["language", "native", "answer_language", "skill", "study"],
    &["answer_language", "answer_style", "time_zone"],
    &["hobby", "game", "collection", "craft"],
    &["side_project", "craft", "deadline", "skill"],
    &["sport", "ball_sport", "gym", "club", "team"],
    &["race", "coming_race", "sport"],
    &["hike", "camping", "city_trip"],
    &["museum", "city_trip", "happening", "trip"],
    &["wake", "bedtime", "workhours"],
    &["wake", "routine", "breakfast"],
    &["workhours", "remote_days", "gym", "commute"],
    &["appointment", "party", "deadline", "trip", "coming_race"],
    &["car", "commute"],
    &["device", "os", "coding", "phone_provider"],
    &["wish", "bought", "lost", "shopping"],
    &["goal", "wish", "skill"],
    &["tattoo", "collection", "craft"],
    &["streaming", "phone_provider", "watching", "podcast"],
];
/// How often values are made up until they fit.
const ATTEMPTS: usize = 30;
/// Words that do not tell two memories apart.
const COMMON: [&str; 17] = [
    "a", "an", "the", "and", "of", "in", "on", "at", "to", "with", "is", "has", "two", "three", "four", "no",
    "named",
];

/// Whether memories of the two relations can be taken for each other; of one relation they can.
pub(super) fn are_alike(one: &str, other: &str) -> bool {
    one == other || FAMILIES.iter().any(|family| family.contains(&one) && family.contains(&other))
}

/// Whether a turn has a word of the target that the other memory has not: `My sister moved` is
/// not about a brother.
pub(super) fn tells_apart(turn: &str, target: &str, other: &str) -> bool {
    let (turn, target, other) = (words(turn), words(target), words(other));
    target.iter().any(|word| turn.contains(word) && !other.contains(word) && !COMMON.contains(&word.as_str()))
}

fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// A memory that the speaker could have beside the target: of the same relation, or else of one
/// that is easily taken for it.
pub(super) fn make_up(
    target: &GoldMemory,
    same: bool,
    example: &TurnExample<'_>,
    split: Split,
    random: &mut Random,
) -> Option<GoldMemory> {
    let count = |relation: &Relation| example.bank.iter().filter(|m| m.relation == relation.name).count();
    let relations: Vec<&'static Relation> = Tables::get()
        .relations
        .iter()
        .filter(|relation| are_alike(relation.name, &target.relation) && count(relation) < relation.max)
        // A person of a conversation is never told to be named otherwise.
        .filter(|relation| (relation.name == target.relation) == same && relation.name != "name")
        .collect();
    for _ in 0..ATTEMPTS {
        let entry = Entry::made_up(*random.pick(&relations)?, split, day(example.at)?, random);
        if is_new(&entry, example) && (!same || is_another(&entry, target, example)) {
            return Some(GoldMemory {
                key: free_key(&example.bank)?,
                text: entry.text,
                observed: example.at,
                speaker: target.speaker.clone(),
                relation: entry.relation.name.to_owned(),
            });
        }
    }
    None
}

/// None of its values stands in the turn or in a memory; words of closed lists may.
fn is_new(entry: &Entry, example: &TurnExample<'_>) -> bool {
    let pools = &Tables::get().pools;
    let open = entry.relation.slots.iter().filter(|(_, pool)| !pools.get(pool).is_some_and(|p| p.closed));
    let values: Vec<String> = open
        .filter_map(|(slot, _)| entry.slots.get(slot))
        .flatten()
        .map(|value| value.to_lowercase())
        .collect();
    let mut texts = example.bank.iter().map(|memory| memory.text.as_str()).chain([example.turn.text]);
    texts.all(|text| {
        let text = text.to_lowercase();
        text != entry.text.to_lowercase() && !values.iter().any(|value| text.contains(value.as_str()))
    })
}

/// Another of the same relation: one of another kind where those of a kind are told as a list,
/// and not the one that the turn is about.
fn is_another(entry: &Entry, target: &GoldMemory, example: &TurnExample<'_>) -> bool {
    let kind = entry.slots.get("k").and_then(|kinds| kinds.first());
    let listed = |memory: &GoldMemory| {
        memory.relation == target.relation
            && kind.is_none_or(|kind| memory.text.to_lowercase().contains(&kind.to_lowercase()))
    };
    let joins_a_list = entry.relation.plural.is_some() && example.bank.iter().any(listed);
    !joins_a_list && tells_apart(example.turn.text, &target.text, &entry.text)
}

fn day(at: Timestamp) -> Option<NaiveDate> {
    DateTime::from_timestamp_millis(at.millis()).map(|time| time.date_naive())
}

/// The first key that no memory has.
fn free_key(bank: &[GoldMemory]) -> Option<String> {
    (0..=bank.len())
        .map(|number| format!("m{number}"))
        .find(|key| bank.iter().all(|memory| memory.key != *key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_relation_has_others_that_look_like_it() {
        let relations = &Tables::get().relations;
        for name in FAMILIES.iter().copied().flatten() {
            assert!(relations.iter().any(|relation| relation.name == *name), "{name} is in no table");
        }
        for relation in relations {
            let other = |r: &&Relation| r.name != relation.name && are_alike(r.name, relation.name);
            assert!(relations.iter().any(|r| other(&r)), "{} has none", relation.name);
        }
    }

    #[test]
    fn a_turn_tells_two_memories_apart_by_what_only_one_of_them_says() {
        let (anna, ben) = ("Sister Anna lives in Rome", "Brother Ben lives in Bonn");
        assert!(tells_apart("my sister has moved to Lyon", anna, ben));
        assert!(tells_apart("anna's in Lyon now", anna, ben));
        assert!(!tells_apart("She lives in Lyon now", anna, ben));
        assert!(!tells_apart(
            "I got two and a half",
            "Has two dogs named Rex and Milo",
            "Has a cat named Mia"
        ));
    }
}
