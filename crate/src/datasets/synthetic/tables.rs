//! The tables that dialogues are made of, read once from the text files beside this one, and
//! their split: of each group of wordings and each list of values a fifth, chosen by a hash of
//! the item, is kept for the test split.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use super::Split;
use crate::random::{Random, keyed};

/// One way to say something, and the fact that it states where that is not the relation's usual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wording {
    pub(super) text: &'static str,
    /// The fact, or the answer of a question.
    pub(super) right: Option<&'static str>,
}

/// Items of which a fifth is kept for the test split.
#[derive(Clone, Debug)]
pub(super) struct Divided<T> {
    train: Vec<T>,
    test: Vec<T>,
}

impl<T> Default for Divided<T> {
    fn default() -> Self {
        Self { train: Vec::new(), test: Vec::new() }
    }
}

impl<T: Copy> Divided<T> {
    fn new(mut items: Vec<T>, text: impl Fn(T) -> &'static str) -> Self {
        items.sort_by_key(|item| (hash(text(*item)), text(*item)));
        let kept = if items.len() < 2 { 0 } else { items.len().div_ceil(5) };
        let train = items.split_off(kept);
        // A text that stands twice, on both sides of the cut, is training's.
        items.retain(|item| train.first().is_none_or(|first| text(*first) != text(*item)));
        Self { train, test: items }
    }

    /// The items of one split.
    pub(super) fn of(&self, split: Split) -> &[T] {
        match split {
            // A group of one item has nothing to keep back.
            Split::Test if !self.test.is_empty() => &self.test,
            _ => &self.train,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.train.is_empty()
    }

    /// How many items there are in all.
    pub(super) fn len(&self) -> usize {
        self.train.len() + self.test.len()
    }

    /// How many of them are kept for the test split.
    pub(super) fn kept(&self) -> usize {
        self.test.len()
    }
}

/// A stable hash of a text.
pub(super) fn hash(text: &str) -> u64 {
    let bytes: Vec<u64> = text.bytes().map(u64::from).collect();
    keyed(0x5e7, &bytes)
}

/// How new values of a list are made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invention {
    Person,
    Pet,
    Town,
    Company,
    Band,
    Title,
}

/// A list of values.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub(super) values: Divided<&'static str>,
    pub(super) invention: Option<Invention>,
    /// The words of a closed class (days, kinds of siblings) are for both splits.
    pub(super) closed: bool,
}

/// A kind of thing that is true of a person for a while.
#[derive(Clone, Debug, Default)]
pub(super) struct Relation {
    pub(super) name: &'static str,
    /// Each slot's name and pool.
    pub(super) slots: Vec<(&'static str, &'static str)>,
    /// The slot that an UPDATE replaces.
    pub(super) change: Option<&'static str>,
    /// How many of it a person can have at once.
    pub(super) max: usize,
    pub(super) weight: f64,
    /// The canonical fact, and its form when the first slot has several values.
    pub(super) fact: &'static str,
    pub(super) plural: Option<&'static str>,
    pub(super) more_fact: &'static str,
    pub(super) less_fact: &'static str,
    pub(super) gone: &'static str,
    /// By their key in the table: `state`, `update`, `repeat`, `withdraw`, `more`, `less`,
    /// `pair` (two at once), `vague` (without the first slot), `refine` (which is told then),
    /// `prompt`, `ask1` to `ask4`.
    pub(super) wordings: BTreeMap<&'static str, Divided<Wording>>,
}

impl Relation {
    pub(super) fn wordings(&self, key: &str, split: Split) -> &[Wording] {
        self.wordings.get(key).map_or(&[], |group| group.of(split))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.wordings.get(key).is_some_and(|group| !group.is_empty())
    }
}

/// All tables.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) relations: Vec<Relation>,
    pub(super) pools: BTreeMap<&'static str, Pool>,
    /// Small talk, fillers, questions: by kind.
    pub(super) talk: BTreeMap<&'static str, Divided<&'static str>>,
    /// Two facts in one sentence, by their two relations.
    pub(super) combos: Vec<Combo>,
    /// English words of any kind, none of which is a value of the test split.
    pub(super) words: Vec<&'static str>,
}

/// Sentences that state something of two relations.
#[derive(Debug)]
pub(super) struct Combo {
    pub(super) relations: [&'static str; 2],
    pub(super) texts: Divided<&'static str>,
}

impl Tables {
    /// The tables; they are part of the program.
    pub(super) fn get() -> &'static Self {
        static TABLES: OnceLock<Tables> = OnceLock::new();
        TABLES.get_or_init(|| {
            let relations = [
                include_str!("relations.txt"),
                include_str!("tastes.txt"),
                include_str!("events.txt"),
                include_str!("everyday.txt"),
            ];
            match Self::parse(&relations, include_str!("values.txt"), include_str!("talk.txt")) {
                Ok(tables) => tables,
                Err(error) => panic!("the tables of the synthetic dialogues: {error}"),
            }
        })
    }

    fn parse(relations: &[&'static str], values: &'static str, talk: &'static str) -> Result<Self, String> {
        let mut parsed = Vec::new();
        for file in relations {
            parsed.extend(parse_relations(file)?);
        }
        let combos = parse_combos(include_str!("combos.txt"), &parsed)?;
        let mut pools = parse_pools(values)?;
        let kept: BTreeSet<String> = pools
            .values()
            .flat_map(|pool| pool.values.of(Split::Test).iter().filter(|_| !pool.closed))
            .flat_map(|value| value.split([' ', '-', '\'']))
            .map(str::to_lowercase)
            .collect();
        let words = lines(include_str!("words.txt")).flat_map(|line| line.split(' '));
        let words = words.filter(|word| !kept.contains(&word.to_lowercase())).collect();
        let mut tables =
            Self { relations: parsed, pools: BTreeMap::new(), talk: parse_talk(talk)?, combos, words };
        let said = tables.said_in_training();
        let is_said = |name: &str| name.split(' ').all(|word| said.contains(word));
        let is_name = |value: &str| value.starts_with(char::is_uppercase);
        for pool in pools.values_mut().filter(|pool| !pool.closed) {
            pool.values.test.retain(|value| !is_name(value) || !is_said(value));
        }
        tables.pools = pools;
        Ok(tables)
    }

    /// The words of the training split's lines: a name among them would not be new in a test.
    fn said_in_training(&self) -> BTreeSet<&'static str> {
        let wordings = self.relations.iter().flat_map(|relation| relation.wordings.values());
        let wordings = wordings.flat_map(|group| group.of(Split::Train)).map(|wording| wording.text);
        let talk = self.talk.values().flat_map(|group| group.of(Split::Train)).copied();
        let combos = self.combos.iter().flat_map(|combo| combo.texts.of(Split::Train)).copied();
        wordings
            .chain(talk)
            .chain(combos)
            .flat_map(|line| line.split(|c: char| !c.is_alphanumeric()))
            .collect()
    }

    /// One phrase of a kind of talk.
    pub(super) fn talk(&self, kind: &str, split: Split, random: &mut Random) -> &'static str {
        let items = self.talk.get(kind).map_or(&[][..], |group| group.of(split));
        random.pick(items).copied().unwrap_or_default()
    }
}

fn lines(file: &'static str) -> impl Iterator<Item = &'static str> {
    file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"))
}

fn parse_relations(file: &'static str) -> Result<Vec<Relation>, String> {
    let mut relations: Vec<Relation> = Vec::new();
    let mut groups: BTreeMap<&'static str, Vec<Wording>> = BTreeMap::new();
    for line in lines(file).chain(["# end"]) {
        let (key, rest) = line.split_once(' ').ok_or_else(|| format!("a line without a value: {line}"))?;
        if key == "#" {
            if let Some(last) = relations.last_mut() {
                last.wordings = std::mem::take(&mut groups)
                    .into_iter()
                    .map(|(key, wordings)| (key, Divided::new(wordings, |wording| wording.text)))
                    .collect();
            }
            relations.push(Relation { name: rest, max: 1, weight: 1.0, ..Relation::default() });
            continue;
        }
        let relation = relations.last_mut().ok_or("a line before the first relation")?;
        match key {
            "slots" => {
                relation.slots = rest
                    .split(' ')
                    .map(|slot| slot.split_once(':').ok_or_else(|| format!("{}: slot {slot}", relation.name)))
                    .collect::<Result<_, _>>()?;
            }
            "change" => relation.change = Some(rest),
            "max" => relation.max = rest.parse().map_err(|_| line)?,
            "weight" => relation.weight = rest.parse().map_err(|_| line)?,
            "fact" => relation.fact = rest,
            "plural" => relation.plural = Some(rest),
            "morefact" => relation.more_fact = rest,
            "lessfact" => relation.less_fact = rest,
            "gone" => relation.gone = rest,
            "state" | "update" | "repeat" | "withdraw" | "more" | "less" | "pair" | "vague" | "refine" => {
                let wording = match rest.split_once(" => ") {
                    Some((text, fact)) => Wording { text, right: Some(fact) },
                    None => Wording { text: rest, right: None },
                };
                groups.entry(key).or_default().push(wording);
            }
            "prompt" | "ask1" | "ask2" | "ask3" | "ask4" => {
                let (text, answer) =
                    rest.split_once(" :: ").ok_or_else(|| format!("{}: {line}", relation.name))?;
                groups.entry(key).or_default().push(Wording { text, right: Some(answer) });
            }
            _ => return Err(format!("{}: unknown key {key}", relation.name)),
        }
    }
    relations.pop();
    Ok(relations)
}

fn parse_pools(file: &'static str) -> Result<BTreeMap<&'static str, Pool>, String> {
    let mut pools = BTreeMap::new();
    for line in lines(file) {
        let (head, items) = line.split_once(": ").ok_or_else(|| format!("a list without a name: {line}"))?;
        let (name, kind) = head.split_once(' ').unwrap_or((head, ""));
        let invention = match kind {
            "" | "closed" => None,
            "person" => Some(Invention::Person),
            "pet" => Some(Invention::Pet),
            "town" => Some(Invention::Town),
            "company" => Some(Invention::Company),
            "band" => Some(Invention::Band),
            "title" => Some(Invention::Title),
            _ => return Err(format!("{name}: unknown invention {kind}")),
        };
        let mut values: Vec<&'static str> = items.split('|').map(str::trim).collect();
        let closed = kind == "closed";
        // In a closed list a word that stands twice is drawn twice as often.
        if !closed {
            values.sort_unstable();
            values.dedup();
        }
        let values = if closed {
            Divided { train: values, test: Vec::new() }
        } else {
            Divided::new(values, |value| value)
        };
        pools.insert(name, Pool { values, invention, closed });
    }
    Ok(pools)
}

fn parse_combos(file: &'static str, relations: &[Relation]) -> Result<Vec<Combo>, String> {
    let mut groups: BTreeMap<[&'static str; 2], Vec<&'static str>> = BTreeMap::new();
    for line in lines(file) {
        let (pair, text) =
            line.split_once(" :: ").ok_or_else(|| format!("a combo without a text: {line}"))?;
        let (one, two) = pair.split_once(' ').ok_or_else(|| format!("a combo of one: {line}"))?;
        if [one, two].iter().any(|name| !relations.iter().any(|r| r.name == *name)) {
            return Err(format!("a combo of an unknown relation: {line}"));
        }
        groups.entry([one, two]).or_default().push(text);
    }
    Ok(groups
        .into_iter()
        .map(|(relations, texts)| Combo { relations, texts: Divided::new(texts, |text| text) })
        .collect())
}

fn parse_talk(file: &'static str) -> Result<BTreeMap<&'static str, Divided<&'static str>>, String> {
    let mut groups: BTreeMap<&'static str, Vec<&'static str>> = BTreeMap::new();
    let mut current = None;
    for line in lines(file) {
        if let Some(name) = line.strip_prefix("# ") {
            current = Some(name);
        } else {
            groups.entry(current.ok_or("a line before the first kind of talk")?).or_default().push(line);
        }
    }
    Ok(groups.into_iter().map(|(kind, items)| (kind, Divided::new(items, |item| item))).collect())
}
