//! Cases for `eval ops`: a bank, a turn, and the operations that are right.

use serde::{Deserialize, Serialize};

use super::examples::{GoldMemory, TurnExample, turn_examples};
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
}

/// The share of turns without any fact among the NOOP cases is one half.
const KINDS: [&str; 5] = ["ADD", "UPDATE", "DELETE", "repeat", "talk"];
/// How many memories a case shows at most.
const MOST_MEMORIES: usize = 8;

/// At least `count` cases (where the kinds allow), a quarter of each operation.
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
            if wanted[kind] == 0 || example.bank.len() < 5 || !random.chance(0.5) {
                continue;
            }
            wanted[kind] -= 1;
            let id = format!("{}-{:04}", KINDS[kind].to_lowercase(), cases.len());
            cases.push(case(id, &example, &mut random));
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

fn case(id: String, example: &TurnExample<'_>, random: &mut Random) -> OpsCase {
    let decision = example.decisions.first();
    let target = decision.and_then(|decision| decision.target());
    let mut bank: Vec<&GoldMemory> = example.bank.iter().collect();
    random.shuffle(&mut bank);
    bank.sort_by_key(|memory| Some(memory.key.as_str()) != target);
    bank.truncate(MOST_MEMORIES);
    random.shuffle(&mut bank);
    let memories = bank.iter().map(|m| OpsMemory { id: m.key.clone(), text: m.text.clone() }).collect();
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
        memories,
        turn: OpsTurn {
            speaker: example.turn.speaker.to_owned(),
            text: example.turn.text.to_owned(),
            timestamp: example.at,
        },
        accept: vec![accept],
    }
}
