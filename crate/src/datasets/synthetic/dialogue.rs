//! One conversation: who speaks, what happens in their lives, and how they say it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Duration, NaiveDate, NaiveDateTime};

use super::tables::{Relation, Tables, Wording};
use super::times::{self, When};
use super::values;
use super::wording::{capitalise, end, fill, join, lower_first};
use super::{Gold, GoldFact, GoldTurn, Options, Split, SyntheticDialogue, questions};
use crate::bank::{OperationKind, Timestamp};
use crate::datasets::locomo::{Conversation, Sample, Session, Turn};
use crate::random::Random;

/// How often each operation is wanted among the facts.
const BALANCE: [(OperationKind, f64); 4] = [
    (OperationKind::Add, 0.40),
    (OperationKind::Update, 0.27),
    (OperationKind::Delete, 0.13),
    (OperationKind::Noop, 0.20),
];

/// How often a sentence alone stands in a frame (`Did I tell you that …?`).
const FRAMED: f64 = 0.25;
/// How often a sentence has a typing mistake.
const MISTYPED: f64 = 0.04;

/// The values of an entry's slots; several where the memory is a list.
pub(super) type Slots = BTreeMap<&'static str, Vec<String>>;

/// What is true of a person, and how the bank writes it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) relation: &'static Relation,
    pub(super) slots: Slots,
    pub(super) when: Option<When>,
    pub(super) text: String,
    /// The turns that said so.
    pub(super) evidence: Vec<String>,
}

impl Entry {
    /// The value of a slot in a question or an answer.
    pub(super) fn slot(&self, name: &str) -> Option<String> {
        slot_value(&self.slots, self.when.as_ref(), name, When::answer)
    }
}

pub(super) struct Speaker {
    pub(super) name: String,
    /// A person in a chat with an assistant, whose questions are about "me".
    pub(super) is_user: bool,
    pub(super) is_assistant: bool,
    pub(super) entries: Vec<Entry>,
    pub(super) withdrawn: Vec<Entry>,
}

/// A sentence without its end, and the template that it came from.
struct Clause {
    text: String,
    template: &'static str,
}

/// A question that the other one should answer.
struct Prompt {
    relation: &'static Relation,
    answer: &'static str,
}

struct Author {
    tables: &'static Tables,
    split: Split,
    random: Random,
    speakers: [Speaker; 2],
    used: BTreeSet<String>,
    counts: BTreeMap<OperationKind, usize>,
    next_key: usize,
    today: NaiveDate,
    dia_id: String,
}

pub(super) fn generate_one(seed: u64, index: usize, split: Split, options: Options) -> SyntheticDialogue {
    let mut random = Random::new(seed, &[split as u64, index as u64]);
    let chat = random.chance(0.45);
    let mut used = BTreeSet::new();
    let speakers = [0, 1].map(|i| {
        let name = match (chat, i) {
            (true, 0) => "user".to_owned(),
            (true, _) => "assistant".to_owned(),
            _ => loop {
                let name = values::draw(if random.chance(0.5) { "woman" } else { "man" }, split, &mut random);
                if used.insert(name.clone()) {
                    break name;
                }
            },
        };
        Speaker {
            name,
            is_user: chat && i == 0,
            is_assistant: chat && i == 1,
            entries: Vec::new(),
            withdrawn: Vec::new(),
        }
    });
    let start = NaiveDate::from_ymd_opt(2021, 1, 1).unwrap_or_default();
    let today = start + Duration::days(random.below(1900) as i64);
    let author = Author {
        tables: Tables::get(),
        split,
        random,
        speakers,
        used,
        counts: BTreeMap::new(),
        next_key: 0,
        today,
        dia_id: String::new(),
    };
    author.write(index, options)
}

impl Author {
    fn between(&mut self, (least, most): (usize, usize)) -> usize {
        least + self.random.below(most.saturating_sub(least) + 1)
    }

    fn write(mut self, index: usize, options: Options) -> SyntheticDialogue {
        let mut sessions = Vec::new();
        let mut gold_turns = Vec::new();
        for number in 1..=self.between(options.sessions).max(1) {
            let time =
                self.today.and_hms_opt(8 + self.random.below(14) as u32, self.random.below(60) as u32, 0);
            let time = time.unwrap_or_default();
            let (turns, gold) = self.session(number, time, options);
            gold_turns.extend(gold);
            sessions.push(Session {
                number,
                at: timestamp(time),
                date_time: time.format("%-I:%M %P on %-d %B, %Y").to_string(),
                turns,
            });
            self.today += Duration::days(2 + self.random.below(38) as i64);
        }
        let (questions, gold_questions) =
            questions::ask(&self.speakers, self.tables, self.split, &mut self.random);
        let split = if self.split == Split::Train { "train" } else { "test" };
        let [a, b] = self.speakers;
        SyntheticDialogue {
            sample: Sample {
                sample_id: format!("synthetic-{split}-{index}"),
                conversation: Conversation { speaker_a: a.name, speaker_b: b.name, sessions },
                questions,
            },
            gold: Gold { turns: gold_turns, questions: gold_questions },
        }
    }

    fn session(
        &mut self,
        number: usize,
        time: NaiveDateTime,
        options: Options,
    ) -> (Vec<Turn>, Vec<GoldTurn>) {
        let count = self.between(options.turns).max(1);
        let mut prompt: Option<Prompt> = None;
        let mut turns = Vec::new();
        let mut gold = Vec::new();
        for i in 0..count {
            let me = i % 2;
            self.dia_id = format!("D{number}:{}", i + 1);
            let needs_context = prompt.is_some();
            let (text, facts, asked) = self.turn(me, i == 0, i + 1 == count, prompt.take());
            prompt = asked;
            let speaker = self.speakers[me].name.clone();
            turns.push(Turn {
                speaker: speaker.clone(),
                dia_id: self.dia_id.clone(),
                text,
                blip_caption: None,
            });
            gold.push(GoldTurn {
                dia_id: self.dia_id.clone(),
                speaker,
                at: timestamp(time),
                needs_context,
                facts,
            });
        }
        (turns, gold)
    }

    fn turn(
        &mut self,
        me: usize,
        first: bool,
        last: bool,
        prompt: Option<Prompt>,
    ) -> (String, Vec<GoldFact>, Option<Prompt>) {
        if self.speakers[me].is_assistant {
            return self.assistant_turn(me, last);
        }
        let chat = self.speakers[me].is_user;
        let mut parts: Vec<String> = Vec::new();
        let mut facts = Vec::new();
        if let Some(prompt) = prompt {
            if let Some((text, fact)) = self.answer(me, &prompt) {
                let mark = *self.random.pick(&[".", "!", "", "."]).unwrap_or(&".");
                parts.push(end(&capitalise(&text), mark));
                facts.push(fact);
                if self.random.chance(0.3) {
                    parts.push(self.small_talk(me));
                }
            }
        } else {
            if first {
                parts.push(self.phrase(me, if chat { "hello" } else { "greeting" }));
            } else if self.random.chance(if chat { 0.08 } else { 0.45 }) {
                parts.push(self.phrase(me, "reaction"));
            }
            let wanted = match self.random.below(100) {
                0..=36 => 0,
                37..=81 => 1,
                _ => 2,
            };
            if first && self.random.chance(0.7) {
                parts.truncate(usize::from(wanted == 0 || !chat));
            }
            let clauses = self.clauses(me, wanted, &mut facts);
            if clauses.is_empty() {
                self.no_fact(me, &mut parts);
            } else {
                self.compose(me, clauses, &mut parts);
            }
        }
        let other = 1 - me;
        let mut asked = None;
        if !last && !chat && self.random.chance(0.3) {
            if let Some((question, prompt)) = self.prompt(other) {
                parts.push(question);
                asked = Some(prompt);
            }
        } else if !last && !chat && self.random.chance(0.2) {
            parts.push(self.phrase(me, "question"));
        }
        if parts.is_empty() {
            parts.push(self.small_talk(me));
        }
        let text = sentences(&parts);
        (self.style(text), facts, asked)
    }

    fn assistant_turn(&mut self, me: usize, last: bool) -> (String, Vec<GoldFact>, Option<Prompt>) {
        let mut text = self.phrase(me, "assistant");
        if !last
            && self.random.chance(0.3)
            && let Some((question, prompt)) = self.prompt(1 - me)
        {
            text = if self.random.chance(0.5) { question } else { format!("{text} {question}") };
            return (text, Vec::new(), Some(prompt));
        }
        (text, Vec::new(), None)
    }

    /// Something that is not a fact about the speaker.
    fn no_fact(&mut self, me: usize, parts: &mut Vec<String>) {
        let kind = match (self.speakers[me].is_user, self.random.below(10)) {
            (true, 0..=4) => "request",
            (_, 5..=6) => "hypothetical",
            _ => "smalltalk",
        };
        parts.push(self.phrase(me, kind));
        if self.random.chance(0.2) {
            parts.push(self.small_talk(me));
        }
    }

    fn small_talk(&mut self, me: usize) -> String {
        self.phrase(me, "smalltalk")
    }

    /// A phrase of a kind of talk, its slots filled from the lists.
    fn phrase(&mut self, me: usize, kind: &str) -> String {
        let template = self.tables.talk(kind, self.split, &mut self.random);
        let (split, other) = (self.split, self.speakers[1 - me].name.clone());
        let text = fill(template, &mut self.random, &mut |name, random| match name {
            "O" if other == "assistant" || other == "user" => String::new(),
            "O" => other.clone(),
            pool => values::draw(pool, split, random),
        });
        text.replace(", !", "!").replace(", ?", "?").replace(",!", "!").replace(",,", ",").trim().to_owned()
    }

    fn clauses(&mut self, me: usize, wanted: usize, facts: &mut Vec<GoldFact>) -> Vec<Clause> {
        let mut clauses = Vec::new();
        let mut touched: Vec<&'static str> = Vec::new();
        if wanted > 0
            && self.random.chance(0.08)
            && let Some((clause, both)) = self.combo(me)
        {
            for fact in both {
                *self.counts.entry(fact.op).or_default() += 1;
                facts.push(fact);
            }
            return vec![clause];
        }
        for _ in 0..wanted {
            let made = match self.choose_operation() {
                OperationKind::Update => self.update(me, &touched),
                OperationKind::Delete => self.delete(me, &touched),
                OperationKind::Noop => self.repeat(me, &touched),
                OperationKind::Add => None,
            };
            let made = made.or_else(|| self.add(me, &touched));
            if let Some((clause, fact, relation)) = made {
                *self.counts.entry(fact.op).or_default() += 1;
                clauses.push(clause);
                facts.push(fact);
                touched.push(relation);
            }
        }
        clauses
    }

    /// Mostly the operation that is furthest behind its share.
    fn choose_operation(&mut self) -> OperationKind {
        let total: usize = self.counts.values().sum();
        let weights = BALANCE.map(|(op, share)| {
            let have = self.counts.get(&op).copied().unwrap_or_default() as f64;
            (share * (total as f64 + 4.0) - have).max(0.08)
        });
        let mut point = self.random.uniform() * weights.iter().sum::<f64>();
        for (weight, (op, _)) in weights.iter().zip(BALANCE) {
            if point < *weight {
                return op;
            }
            point -= weight;
        }
        OperationKind::Add
    }

    fn count(&self, me: usize, relation: &Relation) -> usize {
        self.speakers[me].entries.iter().filter(|entry| entry.relation.name == relation.name).count()
    }

    fn add(&mut self, me: usize, touched: &[&str]) -> Option<(Clause, GoldFact, &'static str)> {
        let tables = self.tables;
        let is_user = self.speakers[me].is_user;
        let open: Vec<&'static Relation> = tables
            .relations
            .iter()
            .filter(|r| !touched.contains(&r.name) && r.has("state") && (is_user || r.name != "name"))
            .filter(|r| self.count(me, r) < r.max)
            .collect();
        let mut point = self.random.uniform() * open.iter().map(|r| r.weight).sum::<f64>();
        let relation = open.iter().find(|r| {
            point -= r.weight;
            point < 0.0
        })?;
        let key = match self.random.below(100) {
            0..=9 if relation.has("pair") => "pair",
            10..=24 if relation.has("vague") => "vague",
            _ => "state",
        };
        let wording = *self.random.pick(relation.wordings(key, self.split))?;
        let usual = if key == "pair" { relation.plural? } else { relation.fact };
        self.say_new(me, relation, key, wording.text, wording.right.unwrap_or(usual))
    }

    /// One sentence with two facts; each is new, or changes what a single-valued relation says.
    fn combo(&mut self, me: usize) -> Option<(Clause, Vec<GoldFact>)> {
        let tables = self.tables;
        let combo = self.random.pick(&tables.combos)?;
        let text = *self.random.pick(combo.texts.of(self.split))?;
        if combo.relations.contains(&"name") && !self.speakers[me].is_user {
            return None;
        }
        let relations: Vec<&'static Relation> = combo
            .relations
            .iter()
            .filter_map(|name| tables.relations.iter().find(|relation| relation.name == *name))
            .collect();
        if !relations.iter().all(|relation| self.can_put(me, relation)) {
            return None;
        }
        let mut facts = Vec::new();
        let mut filled = Vec::new();
        for relation in &relations {
            let (slots, fact) = self.put(me, relation);
            facts.push(fact);
            filled.push(slots);
        }
        let text_of = fill(text, &mut self.random, &mut |name, _| {
            let (at, slot) = name.split_at(1);
            let at = usize::from(at == "2");
            let slot = if slot.is_empty() { relations[at].slots[0].0 } else { slot };
            slot_value(&filled[at], None, slot, |when| &when.said).unwrap_or_else(|| format!("<{name}>"))
        });
        let place = |n: &str| text.find(&format!("{{{n}")).or_else(|| text.find(&format!("{{a:{n}")));
        if place("2") < place("1") {
            facts.reverse();
        }
        Some((Clause { text: text_of, template: text }, facts))
    }

    fn can_put(&self, me: usize, relation: &Relation) -> bool {
        let mut own = self.speakers[me].entries.iter().filter(|entry| entry.relation.name == relation.name);
        match own.next() {
            None => true,
            Some(entry) => {
                relation.max == 1
                    && relation.change.is_some_and(|slot| relation.slots.len() == 1 && slot != "f")
                    && !entry.is_plural()
                    && entry.evidence.last() != Some(&self.dia_id)
            }
        }
    }

    /// States the usual fact of a relation, as an ADD or as an UPDATE of what is there.
    fn put(&mut self, me: usize, relation: &'static Relation) -> (Slots, GoldFact) {
        let mut slots = Slots::new();
        for (name, _) in relation.slots.iter().rev() {
            let value = self.fresh(relation, name, &slots);
            slots.insert(*name, vec![value]);
        }
        let (said, resolved) = facts_of(relation.fact, &slots, None);
        let at = self.speakers[me].entries.iter().position(|entry| entry.relation.name == relation.name);
        let Some(at) = at else {
            let fact = self.remember(me, relation, slots.clone(), None, said, resolved);
            return (slots, fact);
        };
        let evidence = vec![self.dia_id.clone()];
        let entry = &mut self.speakers[me].entries[at];
        let op = if entry.text == resolved { OperationKind::Noop } else { OperationKind::Update };
        if op == OperationKind::Update {
            entry.slots.clone_from(&slots);
            entry.when = None;
            entry.text.clone_from(&resolved);
            entry.evidence = evidence;
        }
        let fact = GoldFact {
            fact: said,
            words: words_in(&resolved, &slots, None),
            text: Some(resolved.clone()),
            resolved,
            op,
            key: entry.key.clone(),
            relation: relation.name.to_owned(),
        };
        (slots, fact)
    }

    fn remember(
        &mut self,
        me: usize,
        relation: &'static Relation,
        slots: Slots,
        when: Option<When>,
        said: String,
        resolved: String,
    ) -> GoldFact {
        let key = format!("m{}", self.next_key);
        self.next_key += 1;
        let fact = GoldFact {
            fact: said,
            text: Some(resolved.clone()),
            words: words_in(&resolved, &slots, when.as_ref()),
            resolved: resolved.clone(),
            op: OperationKind::Add,
            key: key.clone(),
            relation: relation.name.to_owned(),
        };
        let evidence = vec![self.dia_id.clone()];
        self.speakers[me].entries.push(Entry { key, relation, slots, when, text: resolved, evidence });
        fact
    }

    /// States something new in these words.
    fn say_new(
        &mut self,
        me: usize,
        relation: &'static Relation,
        way: &str,
        text: &'static str,
        fact: &'static str,
    ) -> Option<(Clause, GoldFact, &'static str)> {
        let mut slots = Slots::new();
        for (i, (name, _)) in relation.slots.iter().enumerate().rev() {
            if i == 0 && way == "vague" {
                continue;
            }
            let value = self.fresh(relation, name, &slots);
            slots.insert(*name, vec![value]);
        }
        if way == "pair" {
            let (first, _) = *relation.slots.first()?;
            let second = self.fresh(relation, first, &slots);
            slots.get_mut(first).filter(|values| values[0] != second)?.push(second);
        }
        // A second dog is told as another dog, by `more`.
        let has_kind =
            |entry: &Entry| entry.relation.name == relation.name && entry.slots.get("k") == slots.get("k");
        if relation.plural.is_some() && self.speakers[me].entries.iter().any(has_kind) {
            return None;
        }
        let when = self.time_of(text, fact);
        let (said, resolved) = facts_of(fact, &slots, when.as_ref());
        let clause = self.clause(text, &slots, when.as_ref(), "");
        let fact = self.remember(me, relation, slots, when, said, resolved);
        Some((clause, fact, relation.name))
    }

    /// A value that this dialogue has not had, if the list has one.
    fn fresh(&mut self, relation: &Relation, slot: &str, slots: &Slots) -> String {
        let pool = relation.slots.iter().find(|(name, _)| *name == slot).map_or("", |(_, pool)| *pool);
        let closed = self.tables.pools.get(pool).is_some_and(|pool| pool.closed);
        let pool = if pool == "person" { self.gender(slots) } else { pool };
        let mut value = values::draw(pool, self.split, &mut self.random);
        for _ in 0..20 {
            if closed || !self.used.contains(&value) {
                break;
            }
            value = values::draw(pool, self.split, &mut self.random);
        }
        self.used.insert(value.clone());
        value
    }

    fn gender(&mut self, slots: &Slots) -> &'static str {
        let kind = slots.get("k").map_or(String::new(), |kind| join(kind));
        let has = |words: &[&str]| words.iter().any(|word| kind.contains(word));
        if has(&["sister", "wife", "girl", "daughter", "fiancee"]) {
            "woman"
        } else if has(&["brother", "husband", "boy", "son"]) || self.random.chance(0.5) {
            "man"
        } else {
            "woman"
        }
    }

    fn time_of(&mut self, text: &str, fact: &str) -> Option<When> {
        if text.contains("{w}") || fact.contains("{w}") {
            Some(times::past(self.today, &mut self.random))
        } else if text.contains("{f}") || fact.contains("{f}") {
            Some(times::future(self.today, &mut self.random))
        } else {
            None
        }
    }

    fn clause(&mut self, template: &'static str, slots: &Slots, when: Option<&When>, old: &str) -> Clause {
        let text = fill(template, &mut self.random, &mut |name, _| match name {
            "o" => old.to_owned(),
            _ => slot_value(slots, when, name, |when| &when.said).unwrap_or_else(|| format!("<{name}>")),
        });
        let text = if self.random.chance(MISTYPED) { self.mistype(&text, slots) } else { text };
        Clause { text, template }
    }

    /// One slip of the finger in a longer word that is no value: two letters in the wrong order,
    /// one left out, one typed twice.
    fn mistype(&mut self, text: &str, slots: &Slots) -> String {
        let values: Vec<&String> = slots.values().flatten().collect();
        let plain = |word: &&str| {
            word.len() > 4
                && word.bytes().all(|b| b.is_ascii_lowercase())
                && !values.iter().any(|value| value.contains(*word))
        };
        let words: Vec<&str> = text.split(' ').filter(plain).collect();
        let Some(&word) = self.random.pick(&words) else { return text.to_owned() };
        let mut letters = word.as_bytes().to_vec();
        let at = 1 + self.random.below(letters.len() - 2);
        match self.random.below(3) {
            0 => letters.swap(at, at + 1),
            1 => drop(letters.remove(at)),
            _ => letters.insert(at, letters[at]),
        }
        text.replacen(word, &String::from_utf8_lossy(&letters), 1)
    }

    /// Entries that an operation may be about.
    fn candidates(&self, me: usize, touched: &[&str], fits: impl Fn(&Entry) -> bool) -> Vec<usize> {
        let entries = &self.speakers[me].entries;
        (0..entries.len())
            .filter(|i| !touched.contains(&entries[*i].relation.name) && fits(&entries[*i]))
            .filter(|i| entries[*i].evidence.last() != Some(&self.dia_id))
            .collect()
    }

    fn update(&mut self, me: usize, touched: &[&str]) -> Option<(Clause, GoldFact, &'static str)> {
        let ways = self.candidates(me, touched, |entry| {
            let many = entry.is_plural();
            let relation = entry.relation;
            if entry.is_vague() {
                return relation.has("refine");
            }
            (!many && relation.change.is_some() && relation.has("update"))
                || (!many && relation.has("more"))
                || (many && relation.has("less"))
        });
        let at = *self.random.pick(&ways)?;
        let entry = self.speakers[me].entries[at].clone();
        let relation = entry.relation;
        if entry.is_plural() {
            return self.less(me, at, entry);
        }
        if entry.is_vague() {
            return self.refine(me, at, &entry);
        }
        if relation.has("more") && (relation.change.is_none() || self.random.chance(0.5)) {
            return self.more(me, at, entry);
        }
        let change = relation.change?;
        let as_new = relation.max == 1 && change != "f" && self.random.chance(0.25);
        let key = if as_new { "state" } else { "update" };
        let wording = *self.random.pick(relation.wordings(key, self.split))?;
        let mut slots = entry.slots.clone();
        if change != "f" {
            let value = self.fresh(relation, change, &entry.slots);
            if slots.get(change).is_some_and(|old| old[0] == value) {
                return None;
            }
            slots.insert(change, vec![value]);
        }
        let template = wording.right.unwrap_or(relation.fact);
        let when = self.time_of(wording.text, template);
        let old = entry.slots.get(change).map_or(String::new(), |old| join(old));
        let clause = self.clause(wording.text, &slots, when.as_ref(), &old);
        let (said, resolved) = facts_of(template, &slots, when.as_ref());
        if resolved == entry.text {
            return None;
        }
        let words = words_in(&resolved, &slots, when.as_ref());
        let entry = &mut self.speakers[me].entries[at];
        entry.slots = slots;
        entry.when = when;
        entry.text.clone_from(&resolved);
        entry.evidence = vec![self.dia_id.clone()];
        let fact = GoldFact {
            fact: said,
            text: Some(resolved.clone()),
            resolved,
            op: OperationKind::Update,
            key: entry.key.clone(),
            relation: relation.name.to_owned(),
            words,
        };
        Some((clause, fact, relation.name))
    }

    /// What was left open before is told: the dog has a name.
    fn refine(&mut self, me: usize, at: usize, entry: &Entry) -> Option<(Clause, GoldFact, &'static str)> {
        let relation = entry.relation;
        let (slot, _) = *relation.slots.first()?;
        let wording = *self.random.pick(relation.wordings("refine", self.split))?;
        let mut slots = entry.slots.clone();
        let value = self.fresh(relation, slot, &slots);
        slots.insert(slot, vec![value]);
        let clause = self.clause(wording.text, &slots, None, "");
        let (said, resolved) = facts_of(wording.right.unwrap_or(relation.fact), &slots, None);
        Some(self.rewrite(me, at, slots, resolved.clone(), clause, said, resolved))
    }

    /// Another one of the same: the memory becomes a list.
    fn more(&mut self, me: usize, at: usize, entry: Entry) -> Option<(Clause, GoldFact, &'static str)> {
        let relation = entry.relation;
        let (slot, _) = *relation.slots.first()?;
        let wording = *self.random.pick(relation.wordings("more", self.split))?;
        let value = self.fresh(relation, slot, &entry.slots);
        if entry.slots.get(slot).is_some_and(|old| old.contains(&value)) {
            return None;
        }
        let mut new = entry.slots.clone();
        new.insert(slot, vec![value.clone()]);
        let old = entry.slots.get(slot).map_or(String::new(), |old| join(old));
        let clause = self.clause(wording.text, &new, None, &old);
        let (said, resolved) = facts_of(wording.right.unwrap_or(relation.more_fact), &new, None);
        let mut all = entry.slots.clone();
        all.entry(slot).or_default().push(value);
        let (_, text) = facts_of(relation.plural?, &all, None);
        Some(self.rewrite(me, at, all, text, clause, said, resolved))
    }

    /// One of several is gone; the others stay.
    fn less(&mut self, me: usize, at: usize, entry: Entry) -> Option<(Clause, GoldFact, &'static str)> {
        let relation = entry.relation;
        let (slot, _) = *relation.slots.first()?;
        let wording = *self.random.pick(relation.wordings("less", self.split))?;
        let mut rest = entry.slots.get(slot)?.clone();
        let value = rest.remove(self.random.below(rest.len()));
        let mut gone = entry.slots.clone();
        gone.insert(slot, vec![value]);
        let clause = self.clause(wording.text, &gone, None, &join(&rest));
        let (said, resolved) = facts_of(wording.right.unwrap_or(relation.less_fact), &gone, None);
        let mut left = entry.slots.clone();
        left.insert(slot, rest);
        let (_, text) = facts_of(relation.fact, &left, None);
        Some(self.rewrite(me, at, left, text, clause, said, resolved))
    }

    #[expect(clippy::too_many_arguments, reason = "the two callers share all that an update writes")]
    fn rewrite(
        &mut self,
        me: usize,
        at: usize,
        slots: Slots,
        text: String,
        clause: Clause,
        said: String,
        resolved: String,
    ) -> (Clause, GoldFact, &'static str) {
        let words = words_in(&text, &slots, None);
        let entry = &mut self.speakers[me].entries[at];
        entry.slots = slots;
        entry.when = None;
        entry.text.clone_from(&text);
        entry.evidence.push(self.dia_id.clone());
        let fact = GoldFact {
            fact: said,
            resolved,
            op: OperationKind::Update,
            key: entry.key.clone(),
            text: Some(text),
            relation: entry.relation.name.to_owned(),
            words,
        };
        (clause, fact, entry.relation.name)
    }

    fn delete(&mut self, me: usize, touched: &[&str]) -> Option<(Clause, GoldFact, &'static str)> {
        let ways = self.candidates(me, touched, |entry| entry.is_whole() && entry.relation.has("withdraw"));
        let at = *self.random.pick(&ways)?;
        let relation = self.speakers[me].entries[at].relation;
        let wording = *self.random.pick(relation.wordings("withdraw", self.split))?;
        let mut entry = self.speakers[me].entries.remove(at);
        let (said, resolved) = facts_of(wording.right.unwrap_or(relation.gone), &entry.slots, None);
        let clause = self.clause(wording.text, &entry.slots, entry.when.as_ref(), "");
        let fact = GoldFact {
            fact: said,
            resolved,
            op: OperationKind::Delete,
            key: entry.key.clone(),
            text: None,
            relation: relation.name.to_owned(),
            words: Vec::new(),
        };
        entry.evidence.push(self.dia_id.clone());
        self.speakers[me].withdrawn.push(entry);
        Some((clause, fact, relation.name))
    }

    fn repeat(&mut self, me: usize, touched: &[&str]) -> Option<(Clause, GoldFact, &'static str)> {
        let ways = self.candidates(me, touched, |entry| entry.is_whole() && entry.relation.has("repeat"));
        let at = *self.random.pick(&ways)?;
        let entry = self.speakers[me].entries[at].clone();
        let relation = entry.relation;
        let as_new = self.random.chance(0.2);
        let timed = |w: &&Wording| !w.text.contains("{w}") && !w.text.contains("{f}");
        let states: Vec<Wording> =
            relation.wordings("state", self.split).iter().filter(timed).copied().collect();
        let wording = if as_new && !states.is_empty() {
            *self.random.pick(&states)?
        } else {
            *self.random.pick(relation.wordings("repeat", self.split))?
        };
        let template = wording.right.unwrap_or(relation.fact);
        if template.contains("{w}") || template.contains("{f}") {
            return None;
        }
        let (said, resolved) = facts_of(template, &entry.slots, None);
        let clause = self.clause(wording.text, &entry.slots, None, "");
        let fact = GoldFact {
            fact: said,
            resolved,
            op: OperationKind::Noop,
            key: entry.key,
            text: Some(entry.text),
            relation: relation.name.to_owned(),
            words: Vec::new(),
        };
        Some((clause, fact, relation.name))
    }

    /// A question to `other` about something that is not known yet.
    fn prompt(&mut self, other: usize) -> Option<(String, Prompt)> {
        if self.speakers[other].is_assistant {
            return None;
        }
        let open: Vec<&'static Relation> =
            self.tables.relations.iter().filter(|r| r.has("prompt") && self.count(other, r) == 0).collect();
        let relation = *self.random.pick(&open)?;
        let wording = *self.random.pick(relation.wordings("prompt", self.split))?;
        let text = fill(wording.text, &mut self.random, &mut |name, _| format!("<{name}>"));
        Some((text, Prompt { relation, answer: wording.right? }))
    }

    fn answer(&mut self, me: usize, prompt: &Prompt) -> Option<(String, GoldFact)> {
        let (text, fact) = match prompt.answer.split_once(" => ") {
            Some((text, fact)) => (text, fact),
            None => (prompt.answer, prompt.relation.fact),
        };
        let (clause, fact, _) = self.say_new(me, prompt.relation, "state", text, fact)?;
        *self.counts.entry(fact.op).or_default() += 1;
        Some((clause.text, fact))
    }

    /// Sentences with fillers around them.
    fn compose(&mut self, me: usize, clauses: Vec<Clause>, parts: &mut Vec<String>) {
        let mark = *self.random.pick(&[".", ".", "!", ".", "", "!!", "..."]).unwrap_or(&".");
        let mut sentence = String::new();
        let alone = clauses.len() == 1;
        for (i, clause) in clauses.into_iter().enumerate() {
            let template = clause.template;
            let low = lower_first(&clause.text, template);
            if i > 0 {
                let word = self.phrase(me, "between");
                if word == "and" {
                    sentence = format!("{}, and {low}", sentence.trim_end_matches('.'));
                } else if word.ends_with(',') || word.ends_with(':') || word == "And" {
                    sentence = format!("{} {word} {low}", end(&sentence, "."));
                } else {
                    sentence = format!("{} {}", end(&sentence, "."), capitalise(&clause.text));
                }
            } else if self.random.chance(0.35) {
                let opener = self.phrase(me, "opener");
                let full = opener.ends_with(['!', '.', ':', '?']);
                let rest = if full { capitalise(&clause.text) } else { low };
                sentence = format!("{opener} {rest}");
            } else if alone && self.random.chance(FRAMED) {
                let frame = self.tables.talk("frame", self.split, &mut self.random);
                let inner = if frame.starts_with("{c}") { capitalise(&clause.text) } else { low };
                sentence = frame.replace("{c}", &inner);
            } else {
                sentence = capitalise(&clause.text);
            }
        }
        parts.push(end(&sentence, mark));
        if self.random.chance(0.25) {
            if mark.is_empty() {
                let last = parts.pop().unwrap_or_default();
                parts.push(end(&last, "."));
            }
            let kind = if self.random.chance(0.6) { "closer" } else { "smalltalk" };
            parts.push(self.phrase(me, kind));
        }
    }

    /// Now and then people type without capitals at the start and for `I`.
    fn style(&mut self, text: String) -> String {
        if self.random.chance(0.08) {
            let low = text
                .replace("I'm ", "i'm ")
                .replace("I've ", "i've ")
                .replace(" I ", " i ")
                .replace("I'd ", "i'd ");
            let low = if let Some(rest) = low.strip_prefix("I ") { format!("i {rest}") } else { low };
            let low = if low.starts_with("My ") { low.replacen("My ", "my ", 1) } else { low };
            return low.trim_end_matches('.').to_owned();
        }
        if self.random.chance(0.04) {
            return text.replace("I'm ", "Im ").replace("don't", "dont");
        }
        text
    }
}

impl Entry {
    /// Told without its first slot: a dog, whose name is not known.
    pub(super) fn is_vague(&self) -> bool {
        self.slots.len() < self.relation.slots.len()
    }

    /// Neither a list nor vague: every wording fits to it.
    fn is_whole(&self) -> bool {
        !self.is_plural() && !self.is_vague()
    }

    fn is_plural(&self) -> bool {
        self.slots.values().any(|values| values.len() > 1)
    }
}

/// One after the other, each but the last with an end.
fn sentences(parts: &[String]) -> String {
    let last = parts.len().saturating_sub(1);
    let ended =
        parts.iter().enumerate().map(|(i, part)| if i < last { end(part, ".") } else { part.clone() });
    ended.collect::<Vec<_>>().join(" ")
}

fn timestamp(time: NaiveDateTime) -> Timestamp {
    Timestamp::from_millis(time.and_utc().timestamp_millis()).unwrap_or_default()
}

fn slot_value(
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
fn facts_of(template: &'static str, slots: &Slots, when: Option<&When>) -> (String, String) {
    let render = |time: fn(&When) -> &str| {
        let text = fill(template, &mut Random::new(0, &[]), &mut |name, _| {
            slot_value(slots, when, name, time).unwrap_or_else(|| format!("<{name}>"))
        });
        capitalise(&text)
    };
    (render(|when| &when.said), render(|when| &when.resolved))
}

/// The values that stand in a text.
fn words_in(text: &str, slots: &Slots, when: Option<&When>) -> Vec<String> {
    let values = slots.values().flatten().cloned().chain(when.map(|when| when.answer().to_owned()));
    let mut words: Vec<String> = values.filter(|value| text.contains(value.as_str())).collect();
    words.sort();
    words.dedup();
    words
}
