//! What happens to a person's entries: each fact adds one, changes it, takes it back or says it
//! again.

use super::Author;
use super::entry::{Entry, Slots, facts_of, gender, slot_value, words_in};
use super::sentences::Clause;
use crate::bank::OperationKind;
use crate::datasets::synthetic::tables::{Relation, Wording};
use crate::datasets::synthetic::times::{self, When};
use crate::datasets::synthetic::wording::{fill, join};
use crate::datasets::synthetic::{GoldFact, values};

/// A sentence, its fact and the fact's relation.
pub(super) type Told = (Clause, GoldFact, &'static str);

impl Author {
    pub(super) fn count(&self, me: usize, relation: &Relation) -> usize {
        self.speakers[me].entries.iter().filter(|entry| entry.relation.name == relation.name).count()
    }

    pub(super) fn add(&mut self, me: usize, touched: &[&str]) -> Option<Told> {
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
    pub(super) fn combo(&mut self, me: usize) -> Option<(Clause, Vec<GoldFact>)> {
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
        for slots in &filled {
            self.note(slots);
        }
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
    pub(super) fn say_new(
        &mut self,
        me: usize,
        relation: &'static Relation,
        way: &str,
        text: &'static str,
        fact: &'static str,
    ) -> Option<Told> {
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
        let list = if pool == "person" { gender(slots, &mut self.random) } else { pool };
        let mut value = values::draw(list, self.split, &mut self.random);
        for _ in 0..20 {
            if closed || !self.used.contains_key(&value) {
                break;
            }
            value = values::draw(list, self.split, &mut self.random);
        }
        self.used.insert(value.clone(), pool);
        value
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

    /// Entries that an operation may be about.
    fn candidates(&self, me: usize, touched: &[&str], fits: impl Fn(&Entry) -> bool) -> Vec<usize> {
        let entries = &self.speakers[me].entries;
        (0..entries.len())
            .filter(|i| !touched.contains(&entries[*i].relation.name) && fits(&entries[*i]))
            .filter(|i| entries[*i].evidence.last() != Some(&self.dia_id))
            .collect()
    }

    pub(super) fn update(&mut self, me: usize, touched: &[&str]) -> Option<Told> {
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
    fn refine(&mut self, me: usize, at: usize, entry: &Entry) -> Option<Told> {
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
    fn more(&mut self, me: usize, at: usize, entry: Entry) -> Option<Told> {
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
    fn less(&mut self, me: usize, at: usize, entry: Entry) -> Option<Told> {
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
    ) -> Told {
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

    pub(super) fn delete(&mut self, me: usize, touched: &[&str]) -> Option<Told> {
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

    pub(super) fn repeat(&mut self, me: usize, touched: &[&str]) -> Option<Told> {
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
}
