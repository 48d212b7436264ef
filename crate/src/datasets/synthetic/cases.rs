//! Cases for `eval ops`: a bank, a turn, and the operations that are right.

use serde::{Deserialize, Serialize};

use super::examples::{Decision, GoldMemory, TurnExample, turn_examples};
use super::lookalikes::{are_alike, make_up, tells_apart};
use super::{Options, Split, generate};
use crate::bank::{OperationKind, Timestamp};
use crate::random::Random;

/// A memory that is there before the turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpsMemory {
    /// Its id in the case.
    pub id: String,
    /// Its statement.
    pub text: String,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpsTurn {
    /// Who.
    pub speaker: String,
    /// What.
    pub text: String,
    /// When.
    pub timestamp: Timestamp,
}

/// An operation that is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// `ADD`, `UPDATE`, `DELETE` or `NOOP`.
    pub op: String,
    /// The memory that it is about; null for ADD and NOOP.
    pub target: Option<String>,
    /// Words that the stored text must hold.
    #[serde(default)]
    pub contains: Vec<String>,
}

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpsCase {
    /// Its name.
    pub id: String,
    /// The bank before.
    pub memories: Vec<OpsMemory>,
    /// The turn.
    pub turn: OpsTurn,
    /// Any one of these is right, and nothing beside it but NOOP.
    pub accept: Vec<Accept>,
    /// What the turn states, its times resolved; nothing where it states none, or the case does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fact: Option<String>,
    /// What the turn is about, a name of the tables; empty where it states nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub relation: String,
    /// A memory other than the target is of that relation or of one that is easily taken for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lookalike: bool,
}

/// The share of turns without any fact among the NOOP cases is one half.
const KINDS: [&str; 5] = ["ADD", "UPDATE", "DELETE", "repeat", "talk"];
/// Those whose target is among the memories.
const TARGETED: [usize; 2] = [1, 2];
/// How many memories a case shows at least and at most.
const MEMORIES: (usize, usize) = (5, 8);

/// At least `count` cases (where the kinds allow), a quarter of each operation. In every second
/// UPDATE and every second DELETE a memory that looks like the target stands beside it, in the
/// others none does.
pub fn ops_cases(seed: u64, count: usize, split: Split) -> Vec<OpsCase> {
    let mut random = Random::new(seed, &[0x0b5]);
    let mut wanted =
        [count.div_ceil(4), count.div_ceil(4), count.div_ceil(4), count.div_ceil(8), count.div_ceil(8)];
    let mut cases = Vec::with_capacity(count + 5);
    for round in 0u64.. {
        // Enough for any kind, whatever the table; 1,000 conversations without one is a defect.
        if wanted.iter().all(|left| *left == 0) || round == 1_000 {
            break;
        }
        let dialogues = generate(seed.wrapping_add(round), 1, split, Options::default());
        for example in dialogues.iter().flat_map(turn_examples) {
            let Some(kind) = kind(&example) else { continue };
            // Not every turn of a conversation: cases should differ.
            if wanted[kind] == 0 || example.bank.len() < MEMORIES.0 || !random.chance(0.5) {
                continue;
            }
            let decision = example.decisions.first();
            let shown = match decision.filter(|_| TARGETED.contains(&kind)) {
                Some(decision) if wanted[kind].is_multiple_of(2) => {
                    beside_lookalike(decision, &example, split, &mut random)
                }
                Some(decision) => alone(decision, &mut random),
                None => Some(any(&example, &mut random)),
            };
            let Some(shown) = shown.filter(|shown| shown.len() >= MEMORIES.0) else { continue };
            wanted[kind] -= 1;
            let id = format!("{}-{:04}", KINDS[kind].to_lowercase(), cases.len());
            cases.push(case(id, &example, shown));
        }
    }
    cases
}

/// The place of the turn's kind; turns of two facts or that need their context are none.
fn kind(example: &TurnExample<'_>) -> Option<usize> {
    if example.assistant || example.needs_context {
        return None;
    }
    match example.decisions.as_slice() {
        [] => Some(4),
        [one] => Some(match one.gold.op {
            OperationKind::Add => 0,
            OperationKind::Update => 1,
            OperationKind::Delete => 2,
            OperationKind::Noop => 3,
        }),
        _ => None,
    }
}

/// Any memories, in any order, and the one that is said again.
fn any(example: &TurnExample<'_>, random: &mut Random) -> Vec<GoldMemory> {
    let said_again = example.decisions.first().and_then(|decision| decision.target());
    let is_it = |memory: &GoldMemory| Some(memory.key.as_str()) == said_again;
    let (must, others) = example.bank.iter().cloned().partition(is_it);
    shown(must, others, random)
}

/// The target among memories of which none looks like it.
fn alone(decision: &Decision<'_>, random: &mut Random) -> Option<Vec<GoldMemory>> {
    let (target, _, others) = around(decision)?;
    Some(shown(vec![target], others, random))
}

/// The target, a memory that looks like it, and others, among which there may be more that do.
fn beside_lookalike(
    decision: &Decision<'_>,
    example: &TurnExample<'_>,
    split: Split,
    random: &mut Random,
) -> Option<Vec<GoldMemory>> {
    let (target, mut alike, mut others) = around(decision)?;
    let same = |memory: &GoldMemory| memory.relation == target.relation;
    // Which of two is meant must be clear from the turn.
    alike.retain(|memory| !same(memory) || tells_apart(example.turn.text, &target.text, &memory.text));
    random.shuffle(&mut alike);
    let lookalike = match alike.iter().position(same) {
        Some(place) => alike.remove(place),
        None => match make_up(&target, true, example, split, random) {
            Some(memory) => memory,
            None if alike.is_empty() => make_up(&target, false, example, split, random)?,
            None => alike.remove(0),
        },
    };
    others.append(&mut alike);
    Some(shown(vec![target, lookalike], others, random))
}

/// The target of a decision, the memories that look like it, and the rest.
fn around(decision: &Decision<'_>) -> Option<(GoldMemory, Vec<GoldMemory>, Vec<GoldMemory>)> {
    let is_target = |memory: &GoldMemory| Some(memory.key.as_str()) == decision.target();
    let target = decision.bank.iter().find(|memory| is_target(memory))?;
    let others = decision.bank.iter().filter(|memory| !is_target(memory)).cloned();
    let (alike, others) = others.partition(|memory| are_alike(&memory.relation, &target.relation));
    Some((target.clone(), alike, others))
}

/// The memories that must be there and as many others as there is room for, in any order.
fn shown(mut shown: Vec<GoldMemory>, mut others: Vec<GoldMemory>, random: &mut Random) -> Vec<GoldMemory> {
    random.shuffle(&mut others);
    shown.extend(others);
    shown.truncate(MEMORIES.1);
    random.shuffle(&mut shown);
    shown
}

fn case(id: String, example: &TurnExample<'_>, shown: Vec<GoldMemory>) -> OpsCase {
    let decision = example.decisions.first();
    let target = decision.and_then(|decision| decision.target());
    let relation = decision.map_or_else(String::new, |decision| decision.gold.relation.clone());
    let lookalike = shown
        .iter()
        .any(|memory| Some(memory.key.as_str()) != target && are_alike(&memory.relation, &relation));
    let accept = match decision {
        Some(decision) if decision.gold.op != OperationKind::Noop => Accept {
            op: decision.gold.op.wire_name().to_owned(),
            target: target.map(str::to_owned),
            contains: decision.gold.words.clone(),
        },
        _ => Accept { op: "NOOP".to_owned(), target: None, contains: Vec::new() },
    };
    OpsCase {
        id,
        memories: shown.into_iter().map(|memory| OpsMemory { id: memory.key, text: memory.text }).collect(),
        turn: OpsTurn {
            speaker: example.turn.speaker.to_owned(),
            text: example.turn.text.to_owned(),
            timestamp: example.at,
        },
        accept: vec![accept],
        fact: decision.map(|decision| decision.gold.resolved.clone()),
        relation,
        lookalike,
    }
}
