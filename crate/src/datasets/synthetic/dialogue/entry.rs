//! The entries of a person's life, and how the bank writes them.

use std::collections::BTreeMap;

use chrono::NaiveDate;

use crate::datasets::synthetic::tables::Relation;
use crate::datasets::synthetic::times::{self, When};
use crate::datasets::synthetic::wording::{capitalise, fill, join};
use crate::datasets::synthetic::{Split, values};
use crate::random::Random;

/// The values of an entry's slots; several where the memory is a list.
pub(in crate::datasets::synthetic) type Slots = BTreeMap<&'static str, Vec<String>>;

/// Something that is true of a person.
#[derive(Clone, Debug)]
pub(in crate::datasets::synthetic) struct Entry {
    pub(in crate::datasets::synthetic) key: String,
    pub(in crate::datasets::synthetic) relation: &'static Relation,
    pub(in crate::datasets::synthetic) slots: Slots,
    pub(in crate::datasets::synthetic) when: Option<When>,
    pub(in crate::datasets::synthetic) text: String,
    /// The turns that said so.
    pub(in crate::datasets::synthetic) evidence: Vec<String>,
}

impl Entry {
    /// An entry of a relation with values out of the blue, as of a day.
    pub(in crate::datasets::synthetic) fn made_up(
        relation: &'static Relation,
        split: Split,
        today: NaiveDate,
        random: &mut Random,
    ) -> Self {
        let mut slots = Slots::new();
        // The kind stands last, and tells what name fits.
        for (name, pool) in relation.slots.iter().rev() {
            let pool = if *pool == "person" { gender(&slots, random) } else { pool };
            slots.insert(*name, vec![values::draw(pool, split, random)]);
        }
        let when = if relation.fact.contains("{w}") {
            Some(times::past(today, random))
        } else if relation.fact.contains("{f}") {
            Some(times::future(today, random))
        } else {
            None
        };
        let (_, text) = facts_of(relation.fact, &slots, when.as_ref());
        Self { key: String::new(), relation, slots, when, text, evidence: Vec::new() }
    }

    /// The value of a slot in a question or an answer.
    pub(in crate::datasets::synthetic) fn slot(&self, name: &str) -> Option<String> {
        slot_value(&self.slots, self.when.as_ref(), name, When::answer)
    }

    /// Told without its first slot: a dog, whose name is not known.
    pub(in crate::datasets::synthetic) fn is_vague(&self) -> bool {
        self.slots.len() < self.relation.slots.len()
    }

    /// Neither a list nor vague: every wording fits to it.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_plural() && !self.is_vague()
    }

    pub(super) fn is_plural(&self) -> bool {
        self.slots.values().any(|values| values.len() > 1)
    }
}

/// The list that a person's name is drawn from; a kind (`sister`) says which.
pub(super) fn gender(slots: &Slots, random: &mut Random) -> &'static str {
    let kind = slots.get("k").map_or(String::new(), |kind| join(kind));
    let has = |words: &[&str]| words.iter().any(|word| kind.contains(word));
    if has(&["sister", "wife", "girl", "daughter", "fiancee"]) {
        "woman"
    } else if has(&["brother", "husband", "boy", "son"]) || random.chance(0.5) {
        "man"
    } else {
        "woman"
    }
}

pub(super) fn slot_value(
    slots: &Slots,
    when: Option<&When>,
    name: &str,
    time: impl Fn(&When) -> &str,
) -> Option<String> {
    match name {
        "w" | "f" => when.map(|when| time(when).to_owned()),
        "K" => slots.get("k").map(|kind| capitalise(&join(kind))),
        "count" => {
            let n = slots.values().map(Vec::len).max().unwrap_or_default();
            ["zero", "one", "two", "three", "four"].get(n).map(|word| (*word).to_owned())
        }
        _ => slots.get(name).map(|values| join(values)),
    }
}

/// A fact as said and as resolved.
pub(super) fn facts_of(template: &'static str, slots: &Slots, when: Option<&When>) -> (String, String) {
    let render = |time: fn(&When) -> &str| {
        let text = fill(template, &mut Random::new(0, &[]), &mut |name, _| {
            slot_value(slots, when, name, time).unwrap_or_else(|| format!("<{name}>"))
        });
        capitalise(&text)
    };
    (render(|when| &when.said), render(|when| &when.resolved))
}

/// The values that stand in a text.
pub(super) fn words_in(text: &str, slots: &Slots, when: Option<&When>) -> Vec<String> {
    let values = slots.values().flatten().cloned().chain(when.map(|when| when.answer().to_owned()));
    let mut words: Vec<String> = values.filter(|value| text.contains(value.as_str())).collect();
    words.sort();
    words.dedup();
    words
}
