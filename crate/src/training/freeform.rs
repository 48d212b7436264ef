//! From situations that were written by hand to cases: the same prompts as for dialogues, around
//! banks that are dated and filled up at random.

use std::collections::{BTreeMap, BTreeSet};

use super::config::{DataConfig, FreeformConfig};
use super::dialogue_cases::{answer_completion, candidates, is_wanted, letters, lines, memories_beside};
use super::examples::{Case, Source, Task, in_two_threads};
use crate::agents::{
    Block, MAX_FACTS, answer_messages, dates, extract_messages, is_same_statement, manage_messages, one_line,
};
use crate::bank::{OperationKind, Role, Timestamp, Turn};
use crate::datasets::freeform::{Decided, Question, Said, Situation, Writer, load, load_questions};
use crate::datasets::synthetic::{GoldMemory, UNKNOWN};
use crate::error::Result;
use crate::generation::{Decision, Grammar, PromptFamily, facts_json};
use crate::random::Random;
use crate::retrieval::terms;

/// How often a question is put to the situation's own memories alone.
const ALONE: f64 = 0.3;
/// How many memories of others are looked at for each that is wanted.
const LOOKS: usize = 6;
/// How many words of a memory say what it is about: `Has a dog`, `Works as a`.
const HEAD: usize = 3;

const DAY: i64 = 24 * 60 * 60 * 1000;
/// The first day of a situation, 1 January 2021, and how many days later the last one is.
const DAYS: (i64, usize) = (18_628, 1_900);
/// The most days between two memories, and between the last and the turn.
const APART: usize = 120;

/// Groups of one case each, as [`super::cases`] has them.
#[derive(Default)]
pub(super) struct Freeform {
    /// The first variant of each situation.
    pub(super) written: Vec<Vec<Case>>,
    /// The other variants.
    pub(super) varied: Vec<Vec<Case>>,
    /// Of the situations that are not trained on.
    pub(super) held_out: Vec<Vec<Case>>,
}

/// All cases of the situations; none where the configuration wants none.
pub(super) fn cases(config: &DataConfig) -> Result<Freeform> {
    match config.freeform {
        Some(FreeformConfig { copies, .. }) => {
            let mut all = load()?;
            if config.batch.answer > 0 {
                all.extend(load_questions()?);
            }
            Ok(Freeform::new(config, &all, copies))
        }
        None => Ok(Freeform::default()),
    }
}

impl Freeform {
    fn new(config: &DataConfig, all: &[Situation], copies: usize) -> Self {
        let writer = Writer::new(config.seed, all);
        let (held_out, training): (Vec<&Situation>, Vec<&Situation>) =
            all.iter().partition(|own| own.is_held_out());
        let make = |situations: &[&Situation], from: usize, until: usize| {
            let written = situations.iter().filter_map(|own| writer.variant(own, 0));
            let others = Others::new(written.flat_map(|own| own.memories));
            let variants = in_two_threads(situations.len(), |i| {
                (from..until).filter_map(|copy| Some((copy, writer.variant(situations[i], copy)?))).collect()
            });
            in_two_threads(variants.len(), |i| {
                situation_cases(config, &variants[i].1, &others, variants[i].0)
            })
        };
        Self {
            written: make(&training, 0, 1),
            varied: make(&training, 1, copies),
            held_out: make(&held_out, 0, 1),
        }
    }
}

/// Memories of all situations, to fill up banks.
struct Others {
    texts: Vec<String>,
    by_head: BTreeMap<String, Vec<usize>>,
}

impl Others {
    fn new(texts: impl Iterator<Item = String>) -> Self {
        let texts: Vec<String> = texts.collect::<BTreeSet<_>>().into_iter().collect();
        let mut by_head: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, text) in texts.iter().enumerate() {
            by_head.entry(head(text)).or_default().push(place);
        }
        Self { texts, by_head }
    }

    /// A memory that contradicts none of the bank.
    fn compatible(&self, bank: &[GoldMemory], random: &mut Random) -> Option<&str> {
        let text = random.pick(&self.texts)?;
        let own = head(text);
        bank.iter().all(|memory| head(&memory.text) != own).then_some(text)
    }

    /// Adds memories that contradict none of the bank, until it has `most` or, as likely, fewer.
    fn fill_up(&self, bank: &mut Vec<GoldMemory>, most: usize, dated: &Dated<'_>, random: &mut Random) {
        for number in 0..random.below(most.saturating_sub(bank.len()) + 1) {
            if let Some(text) = self.compatible(bank, random).map(str::to_owned) {
                bank.push(gold(format!("other {number}"), &text, dated.said, &dated.situation.turn.speaker));
            }
        }
    }

    /// A memory that does not answer questions to which the bank has no answer: it is of the same
    /// kind as one of the bank, and has nothing in common with any of them.
    fn beside(&self, bank: &[GoldMemory], questions: &[&str], random: &mut Random) -> Option<&str> {
        let like = random.pick(bank)?;
        let text = &self.texts[*random.pick(self.by_head.get(&head(&like.text))?)?];
        let asked: Vec<String> = questions.iter().flat_map(|question| terms(question)).collect();
        let is_new = bank.iter().all(|memory| !is_same_statement(&memory.text, text));
        (is_new && terms(text).iter().all(|term| !asked.contains(term))).then_some(text)
    }
}

/// What a memory is about: its first words, until one that is a name or a number.
fn head(text: &str) -> String {
    let words = text.split(' ').take(HEAD).enumerate();
    let plain = words.take_while(|(place, word)| {
        *place == 0 || !word.contains(|c: char| c.is_uppercase() || c.is_ascii_digit())
    });
    plain.map(|(_, word)| word.to_lowercase()).collect::<Vec<_>>().join(" ")
}

/// A situation with its days.
struct Dated<'a> {
    situation: &'a Situation,
    /// When the turn was said.
    said: Timestamp,
    /// When each memory was, oldest first.
    observed: Vec<Timestamp>,
}

impl<'a> Dated<'a> {
    fn new(situation: &'a Situation, random: &mut Random) -> Self {
        let moment = |day: i64, random: &mut Random| {
            let minutes = 8 * 60 + random.below(14 * 60) as i64;
            Timestamp::from_millis(day * DAY + minutes * 60_000).unwrap_or_default()
        };
        let mut day = DAYS.0 + random.below(DAYS.1) as i64;
        let said = moment(day, random);
        let mut observed = Vec::new();
        for _ in &situation.memories {
            day -= 1 + random.below(APART) as i64;
            observed.push(moment(day, random));
        }
        observed.reverse();
        Self { situation, said, observed }
    }

    /// The bank before a fact, its times resolved; keys are places.
    fn bank(&self, fact: usize) -> Vec<GoldMemory> {
        let slots = self.situation.bank(fact).into_iter().enumerate();
        let memory = |place: usize, text: &str, fact: Option<usize>| {
            let observed = if fact.is_some() { self.said } else { self.observed[place] };
            gold(place.to_string(), text, observed, &self.situation.turn.speaker)
        };
        slots.filter_map(|(place, slot)| slot.map(|(text, fact)| memory(place, text, fact))).collect()
    }
}

fn gold(key: String, text: &str, observed: Timestamp, speaker: &str) -> GoldMemory {
    let text = dates::resolve(text, observed).text;
    GoldMemory { key, text, observed, speaker: speaker.to_owned(), relation: String::new() }
}

fn situation_cases(config: &DataConfig, own: &Situation, others: &Others, copy: usize) -> Vec<Vec<Case>> {
    let mut random = Random::new(config.seed, &[0xf4ee_ca5e, letters(&own.turn.text), copy as u64]);
    let dated = Dated::new(own, &mut random);
    let facts = 0..own.facts.len();
    let mut groups = vec![vec![extract_case(config, &dated, others, copy)]];
    groups
        .extend(facts.filter_map(|fact| Some(vec![manage_case(config, &dated, others, fact, &mut random)?])));
    groups.extend(answer_cases(config, &dated, others, &mut random));
    groups
}

/// The memories of the situation, and as many of others as there is room for, or fewer.
fn extract_case(config: &DataConfig, dated: &Dated<'_>, others: &Others, copy: usize) -> Case {
    let turn = |said: &Said| Turn {
        role: Role::User,
        speaker: said.speaker.clone(),
        content: said.text.clone(),
        timestamp: dated.said,
    };
    let own = dated.situation;
    let context: Vec<Turn> = own.context.iter().map(turn).collect();
    let mut random = Random::new(config.seed, &[0xbe51_de5b, letters(&own.turn.text), copy as u64]);
    let mut bank = dated.bank(0);
    others.fill_up(&mut bank, config.extractor_candidates, dated, &mut random);
    let bank: Vec<&GoldMemory> = bank.iter().collect();
    let memories = memories_beside(config, &bank, &own.turn.text, &mut random);
    let written = own.facts.iter().map(|statement| &statement.fact[..]);
    let is_wanted = |fact: &&str| is_wanted(config, &memories, &dates::resolve(fact, dated.said).text);
    let facts: Vec<&str> = written.filter(is_wanted).collect();
    Case {
        task: Task::Extract,
        source: Source::Freeform,
        kind: if facts.is_empty() { "free/none" } else { "free/some" }.to_owned(),
        messages: extract_messages(PromptFamily::Compact, &memories, &context, &turn(&own.turn)),
        grammar: Grammar::Facts { max_facts: MAX_FACTS },
        completion: facts_json(&facts),
    }
}

/// Nothing where the fact equals a candidate: then no model is asked.
fn manage_case(
    config: &DataConfig,
    dated: &Dated<'_>,
    others: &Others,
    number: usize,
    random: &mut Random,
) -> Option<Case> {
    let statement = &dated.situation.facts[number];
    let resolved = |text: &str| one_line(&dates::resolve(text, dated.said).text);
    let fact = resolved(&statement.fact);
    let (kind, target) = match &statement.decided {
        Decided::Add => (OperationKind::Add, None),
        Decided::Update { target, .. } => (OperationKind::Update, Some(*target)),
        Decided::Delete { target } => (OperationKind::Delete, Some(*target)),
        Decided::Noop { target } => (OperationKind::Noop, Some(*target)),
    };
    let key = target.map(|place| place.to_string());
    let needed: Vec<&str> = key.iter().map(|key| &key[..]).collect();
    let mut bank = dated.bank(number);
    others.fill_up(&mut bank, config.manager_candidates, dated, random);
    let bank: Vec<&GoldMemory> = bank.iter().collect();
    let mut shown = candidates(&bank, &fact, config.manager_candidates, &needed);
    if random.chance(config.shuffled_candidates) {
        random.shuffle(&mut shown);
    }
    if shown.iter().any(|memory| is_same_statement(&memory.text, &fact)) {
        return None;
    }
    let place = shown.iter().position(|memory| Some(&memory.key) == key.as_ref());
    let operation = match (&statement.decided, place) {
        (Decided::Add, _) => Decision::Add { text: fact.clone() },
        (Decided::Update { text, .. }, Some(id)) => Decision::Update { id, text: resolved(text) },
        (Decided::Delete { .. }, Some(id)) => Decision::Delete { id },
        (Decided::Noop { .. }, _) => Decision::Noop,
        _ => return None,
    };
    let lines = lines(&shown);
    Some(Case {
        task: Task::Manage,
        source: Source::Freeform,
        kind: format!("free/{}", kind.wire_name()),
        messages: manage_messages(PromptFamily::Compact, &lines, &fact),
        grammar: Grammar::Decision { shown: lines.len() },
        completion: operation.to_json(),
    })
}

/// The situation's questions to its bank and to what of others is beside it, in one group: a prompt
/// shows all of them the same memories. Nothing where nothing is asked, or no memory is left: then no
/// model is asked.
fn answer_cases(
    config: &DataConfig,
    dated: &Dated<'_>,
    others: &Others,
    random: &mut Random,
) -> Option<Vec<Case>> {
    let own = dated.situation;
    let lead = own.questions.first()?;
    let mut bank = dated.bank(own.facts.len());
    let mut asked: Vec<(&str, Vec<String>, String)> = Vec::new();
    for Question { text, answer } in &own.questions {
        let Some((places, answer)) = answer else {
            asked.push((text, Vec::new(), UNKNOWN.to_owned()));
            continue;
        };
        let keys: Vec<String> = places.iter().map(usize::to_string).collect();
        let used: Vec<&GoldMemory> = bank.iter().filter(|memory| keys.contains(&memory.key)).collect();
        let Some(first) = used.first().filter(|_| used.len() == keys.len()) else { continue };
        // A date that reads otherwise alone than in its sentence is no answer.
        let resolved = dates::resolve(answer, first.observed).text;
        let stands = |memory: &&GoldMemory| memory.text.to_lowercase().contains(&resolved.to_lowercase());
        if resolved == *answer || used.iter().any(stands) {
            asked.push((text, keys, resolved));
        }
    }
    let room = config.candidates_per_speaker.saturating_sub(bank.len());
    let wanted = if random.chance(ALONE) { 0 } else { random.below(room + 1) };
    let full = bank.len() + wanted;
    let unanswered: Vec<&str> = asked.iter().filter(|own| own.1.is_empty()).map(|own| own.0).collect();
    for look in 0..wanted * LOOKS {
        let found = match unanswered[..] {
            [] => others.compatible(&bank, random),
            _ => others.beside(&bank, &unanswered, random),
        };
        if let Some(text) = found.filter(|_| bank.len() < full) {
            let days = 1 + random.below(6 * APART) as i64;
            let observed = Timestamp::from_millis(dated.said.millis() - days * DAY).unwrap_or_default();
            bank.push(gold(format!("other {look}"), text, observed, &own.turn.speaker));
        }
    }
    bank.sort_by_key(|memory| memory.observed);
    let bank: Vec<&GoldMemory> = bank.iter().collect();
    let needed: Vec<&str> = asked.iter().flat_map(|own| own.1.iter().map(|key| &key[..])).collect();
    let mut shown = candidates(&bank, &lead.text, config.candidates_per_speaker, &needed);
    if shown.is_empty() {
        return None;
    }
    if random.chance(config.shuffled_candidates) {
        random.shuffle(&mut shown);
    }
    let lines = lines(&shown);
    let blocks = [Block { speaker: own.turn.speaker.clone(), lines: lines.clone() }];
    let case = |(text, keys, answer): &(&str, Vec<String>, String)| Case {
        task: Task::Answer,
        source: Source::Freeform,
        kind: if keys.is_empty() { "free/unknown" } else { "free/known" }.to_owned(),
        messages: answer_messages(PromptFamily::Compact, &blocks, text),
        grammar: Grammar::Answer { lines: lines.clone() },
        completion: answer_completion(
            (0..shown.len()).filter(|&place| keys.contains(&shown[place].key)).collect(),
            answer,
        ),
    };
    let group: Vec<Case> = asked.iter().take(config.questions_per_prompt).map(case).collect();
    (!group.is_empty()).then_some(group)
}

#[cfg(test)]
mod tests;
