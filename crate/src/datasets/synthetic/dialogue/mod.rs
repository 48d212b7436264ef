//! One conversation: who speaks, what happens in their lives, and how they say it.

mod entry;
mod operations;
mod sentences;

use std::collections::BTreeMap;

use chrono::{Duration, NaiveDate, NaiveDateTime};

use super::tables::{Relation, Tables};
use super::wording::{capitalise, end, fill};
use super::{Gold, GoldFact, GoldTurn, Options, Split, SyntheticDialogue, questions, values};
use crate::bank::{OperationKind, Timestamp};
use crate::datasets::locomo::{Conversation, Sample, Session, Turn};
use crate::datasets::superseded::superseded;
use crate::random::Random;
use sentences::{Clause, sentences};

pub(super) use entry::Entry;
pub(super) use sentences::Said;

/// How often somebody asks for a fact that is not known yet.
const PROMPTED: f64 = 0.15;

/// How often each operation is wanted among the facts.
const BALANCE: [(OperationKind, f64); 4] = [
    (OperationKind::Add, 0.40),
    (OperationKind::Update, 0.27),
    (OperationKind::Delete, 0.13),
    (OperationKind::Noop, 0.20),
];

/// One who talks, and what is true of them.
pub(super) struct Speaker {
    pub(super) name: String,
    /// A person in a chat with an assistant, whose questions are about "me".
    pub(super) is_user: bool,
    pub(super) is_assistant: bool,
    pub(super) entries: Vec<Entry>,
    pub(super) withdrawn: Vec<Entry>,
}

/// A question that the other one should answer.
struct Prompt {
    relation: &'static Relation,
    answer: &'static str,
}

/// Makes up one conversation, draw by draw. The order of the draws is part of what a seed means.
struct Author {
    tables: &'static Tables,
    split: Split,
    random: Random,
    speakers: [Speaker; 2],
    /// The values of this conversation and their lists.
    used: BTreeMap<String, &'static str>,
    counts: BTreeMap<OperationKind, usize>,
    next_key: usize,
    today: NaiveDate,
    dia_id: String,
    /// The values and the slips of the turn that is being written.
    said: Vec<Said>,
    /// Those of the turns before.
    traces: Vec<Vec<Said>>,
}

/// One conversation of a seed, whatever others are made.
pub(super) fn generate_one(seed: u64, index: usize, split: Split, options: Options) -> SyntheticDialogue {
    Author::new(seed, index, split).write(index, options).0
}

/// The same, with the values and slips of each turn.
pub(super) fn trace_one(
    seed: u64,
    index: usize,
    split: Split,
    options: Options,
) -> (SyntheticDialogue, Vec<Vec<Said>>) {
    Author::new(seed, index, split).write(index, options)
}

impl Author {
    fn new(seed: u64, index: usize, split: Split) -> Self {
        let mut random = Random::new(seed, &[split as u64, index as u64]);
        let chat = random.chance(0.45);
        let mut used = BTreeMap::new();
        let speakers = [0, 1].map(|i| {
            let name = match (chat, i) {
                (true, 0) => "user".to_owned(),
                (true, _) => "assistant".to_owned(),
                _ => loop {
                    let name =
                        values::draw(if random.chance(0.5) { "woman" } else { "man" }, split, &mut random);
                    if used.insert(name.clone(), "person").is_none() {
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
        Self {
            tables: Tables::get(),
            split,
            random,
            speakers,
            used,
            counts: BTreeMap::new(),
            next_key: 0,
            today,
            dia_id: String::new(),
            said: Vec::new(),
            traces: Vec::new(),
        }
    }

    fn between(&mut self, (least, most): (usize, usize)) -> usize {
        least + self.random.below(most.saturating_sub(least) + 1)
    }

    fn write(mut self, index: usize, options: Options) -> (SyntheticDialogue, Vec<Vec<Said>>) {
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
        let dialogue = SyntheticDialogue {
            sample: Sample {
                sample_id: format!("synthetic-{split}-{index}"),
                conversation: Conversation { speaker_a: a.name, speaker_b: b.name, sessions },
                questions,
                superseded: superseded(&gold_turns),
            },
            gold: Gold { turns: gold_turns, questions: gold_questions },
        };
        (dialogue, self.traces)
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
            let said = std::mem::take(&mut self.said);
            self.traces.push(said);
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
        if !last && !chat && self.random.chance(PROMPTED) {
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
            && self.random.chance(PROMPTED)
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
        // Not counted: else what is asked for would take the place of what is told unasked.
        let (clause, fact, _) = self.say_new(me, prompt.relation, "state", text, fact)?;
        Some((clause.text, fact))
    }
}

fn timestamp(time: NaiveDateTime) -> Timestamp {
    Timestamp::from_millis(time.and_utc().timestamp_millis()).unwrap_or_default()
}
