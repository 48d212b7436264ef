//! Questions about the lives as they stand at the end.

use std::collections::{BTreeMap, BTreeSet};

use super::dialogue::{Entry, Speaker};
use super::tables::{Relation, Tables};
use super::values;
use super::wording::{capitalise, fill, join};
use super::{GoldQuestion, Split, UNKNOWN};
use crate::datasets::locomo::Question;
use crate::random::Random;

/// The most questions of each category in one conversation.
const MOST: [(u8, usize); 5] = [(1, 6), (2, 7), (3, 3), (4, 14), (5, 5)];

struct Asked {
    text: String,
    answer: String,
    category: u8,
    memories: Vec<String>,
    evidence: Vec<String>,
    adversarial: Option<String>,
}

pub(super) fn ask(
    speakers: &[Speaker; 2],
    tables: &'static Tables,
    split: Split,
    random: &mut Random,
) -> (Vec<Question>, Vec<GoldQuestion>) {
    let mut all = Vec::new();
    for (i, speaker) in speakers.iter().enumerate().filter(|(_, speaker)| !speaker.is_assistant) {
        let mut own = about_entries(speaker, split, random);
        own.extend(lists(speaker, tables, split, random));
        drop_ambiguous(&mut own);
        let known: BTreeSet<String> = own.iter().map(|asked| asked.text.clone()).collect();
        let unknown = unanswerable(speaker, &speakers[1 - i], tables, split, random);
        own.extend(unknown.into_iter().filter(|asked| !known.contains(&asked.text)));
        all.extend(own);
    }
    random.shuffle(&mut all);
    let mut left: BTreeMap<u8, usize> = MOST.into();
    let mut seen = BTreeSet::new();
    all.retain(|asked| {
        let left = left.entry(asked.category).or_default();
        let keep = *left > 0 && seen.insert((asked.text.clone(), asked.category));
        *left -= usize::from(keep);
        keep
    });
    all.into_iter()
        .map(|asked| {
            let unknown = asked.category == 5;
            let gold = GoldQuestion { memories: asked.memories, answer: asked.answer.clone() };
            let question = Question {
                question: asked.text,
                answer: (!unknown).then_some(asked.answer),
                adversarial_answer: asked.adversarial,
                evidence: asked.evidence,
                category: asked.category,
            };
            (question, gold)
        })
        .unzip()
}

fn about_entries(speaker: &Speaker, split: Split, random: &mut Random) -> Vec<Asked> {
    let mut all = Vec::new();
    for entry in speaker.entries.iter().filter(|entry| !entry.is_vague()) {
        for (key, category) in [("ask4", 4), ("ask2", 2), ("ask3", 3)] {
            if category == 2 && entry.when.is_none() {
                continue;
            }
            let Some(wording) = random.pick(entry.relation.wordings(key, split)) else { continue };
            let Some(answer) = answer(wording.right, entry) else { continue };
            all.push(Asked {
                text: question(wording.text, speaker, Some(entry), random),
                answer,
                category,
                memories: vec![entry.key.clone()],
                evidence: entry.evidence.clone(),
                adversarial: None,
            });
        }
    }
    all
}

/// Questions over all memories of a relation, or over a memory that is itself a list.
fn lists(speaker: &Speaker, tables: &'static Tables, split: Split, random: &mut Random) -> Vec<Asked> {
    let mut all = Vec::new();
    for relation in &tables.relations {
        let Some(wording) = random.pick(relation.wordings("ask1", split)) else { continue };
        let entries: Vec<&Entry> =
            speaker.entries.iter().filter(|entry| entry.relation.name == relation.name).collect();
        let groups: Vec<Vec<&Entry>> = if wording.text.contains('{') && wording.right == Some("{count}") {
            entries.into_iter().map(|entry| vec![entry]).collect()
        } else {
            vec![entries]
        };
        for group in groups {
            let answers: Vec<String> =
                group.iter().filter_map(|entry| answer(wording.right, entry)).collect();
            let several = answers.len() > 1 || group.iter().any(|entry| entry.evidence.len() > 1);
            if answers.is_empty() || (!several && wording.right != Some("{count}")) {
                continue;
            }
            all.push(Asked {
                text: question(wording.text, speaker, group.first().copied(), random),
                answer: join(&answers),
                category: 1,
                memories: group.iter().map(|entry| entry.key.clone()).collect(),
                evidence: group.iter().flat_map(|entry| entry.evidence.clone()).collect(),
                adversarial: None,
            });
        }
    }
    all
}

/// One question, two answers: which of two hikes? Such questions are left out.
fn drop_ambiguous(all: &mut Vec<Asked>) {
    let mut answers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for asked in all.iter() {
        answers.entry(asked.text.clone()).or_default().insert(asked.answer.clone());
    }
    all.retain(|asked| answers.get(&asked.text).is_some_and(|answers| answers.len() == 1));
}

/// Questions about what this speaker never said, or has taken back.
fn unanswerable(
    speaker: &Speaker,
    other: &Speaker,
    tables: &'static Tables,
    split: Split,
    random: &mut Random,
) -> Vec<Asked> {
    let mut all = Vec::new();
    let knows = |relation: &Relation| speaker.entries.iter().any(|e| e.relation.name == relation.name);
    // Relations that ask for the same: having one of them answers the other's question.
    let family = |name: &str| {
        let families: [&[&str]; 6] = [
            &["home", "district", "dwelling", "hometown"],
            &["job", "employer"],
            &["sibling_home", "relative_job"],
            &["study", "school"],
            &["hobby", "sport", "game", "craft", "collection"],
            &["language", "native"],
        ];
        families
            .into_iter()
            .find(|family| family.contains(&name))
            .map_or(vec![name.to_owned()], |family| family.iter().map(|name| (*name).to_owned()).collect())
    };
    let taken = |relation: &Relation| {
        let family = family(relation.name);
        tables.relations.iter().any(|r| family.contains(&r.name.to_owned()) && knows(r))
    };
    for relation in tables.relations.iter().filter(|relation| !taken(relation)) {
        let mine = speaker
            .withdrawn
            .iter()
            .rev()
            .find(|entry| entry.relation.name == relation.name && !entry.is_vague());
        let theirs =
            other.entries.iter().find(|entry| entry.relation.name == relation.name && !entry.is_vague());
        let source = mine.or(theirs);
        // Without somebody whose values could be asked for, only some relations are asked.
        if source.is_none() && !random.chance(0.15) {
            continue;
        }
        let key = if source.is_some_and(|entry| entry.when.is_some()) && random.chance(0.5) {
            "ask2"
        } else {
            "ask4"
        };
        let Some(wording) = random.pick(relation.wordings(key, split)) else { continue };
        let invented = source.is_none().then(|| invent(relation, split, random));
        let Some(entry) = source.or(invented.as_ref()) else { continue };
        let adversarial = source.and_then(|entry| answer(wording.right, entry));
        all.push(Asked {
            text: question(wording.text, speaker, Some(entry), random),
            answer: UNKNOWN.to_owned(),
            category: 5,
            memories: Vec::new(),
            evidence: source.map(|entry| entry.evidence.clone()).unwrap_or_default(),
            adversarial: Some(adversarial.unwrap_or_else(|| "Not mentioned".to_owned())),
        });
    }
    all
}

/// An entry of a relation with values out of the blue.
fn invent(relation: &'static Relation, split: Split, random: &mut Random) -> Entry {
    let slots = relation
        .slots
        .iter()
        .map(|(name, pool)| {
            let pool = if *pool == "person" { "woman" } else { pool };
            (*name, vec![values::draw(pool, split, random)])
        })
        .collect();
    Entry { key: String::new(), relation, slots, when: None, text: String::new(), evidence: Vec::new() }
}

fn answer(template: Option<&'static str>, entry: &Entry) -> Option<String> {
    let mut known = true;
    let text = fill(template?, &mut Random::new(0, &[]), &mut |name, _| {
        entry.slot(name).unwrap_or_else(|| {
            known = false;
            String::new()
        })
    });
    known.then_some(text)
}

/// A question in the third person, or in the first of a chat's user.
fn question(template: &'static str, speaker: &Speaker, entry: Option<&Entry>, random: &mut Random) -> String {
    let (me, name) = (speaker.is_user, &speaker.name);
    let subject = if me { "I".to_owned() } else { name.clone() };
    let text = fill(template, random, &mut |slot, _| match slot {
        "S" => subject.clone(),
        "s" => {
            if me {
                "my".to_owned()
            } else {
                format!("{name}'s")
            }
        }
        "O" => {
            if me {
                "me".to_owned()
            } else {
                name.clone()
            }
        }
        "has" => format!("{} {subject}", if me { "have" } else { "has" }),
        "does" => format!("{} {subject}", if me { "do" } else { "does" }),
        "is" => format!("{} {subject}", if me { "am" } else { "is" }),
        _ => entry.and_then(|entry| entry.slot(slot)).unwrap_or_else(|| format!("<{slot}>")),
    });
    capitalise(&text)
}
