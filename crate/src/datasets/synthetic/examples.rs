//! The gold, as a trainer reads it: turns with their decisions, questions with their memories.

use super::{Gold, GoldFact, SyntheticDialogue};
use crate::bank::{OperationKind, Timestamp};

/// Who said what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpokenTurn<'a> {
    /// The speaker's name.
    pub speaker: &'a str,
    /// The text.
    pub text: &'a str,
}

/// A memory of a gold bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoldMemory {
    /// Its key in the gold.
    pub key: String,
    /// Its statement.
    pub text: String,
    /// When it was last said.
    pub observed: Timestamp,
    /// Whose it is.
    pub speaker: String,
    /// The kind of thing that it is about, a name of the tables.
    pub relation: String,
}

/// One decision of a perfect manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The speaker's bank before it, oldest entry first.
    pub bank: Vec<GoldMemory>,
    /// The fact and what to do.
    pub gold: &'a GoldFact,
}

impl Decision<'_> {
    /// The memory that is changed, deleted or repeated; nothing for ADD.
    pub fn target(&self) -> Option<&str> {
        (self.gold.op != OperationKind::Add).then_some(self.gold.key.as_str())
    }
}

/// One turn for the extractor and its decisions for the manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnExample<'a> {
    /// Its id.
    pub dia_id: &'a str,
    /// Up to two turns of the same session before it.
    pub context: Vec<SpokenTurn<'a>>,
    /// The turn.
    pub turn: SpokenTurn<'a>,
    /// When it was said.
    pub at: Timestamp,
    /// Said by the assistant of a chat, from whom no facts are taken.
    pub assistant: bool,
    /// It answers the turn before.
    pub needs_context: bool,
    /// One entry a fact, in order.
    pub decisions: Vec<Decision<'a>>,
    /// The speaker's bank before the turn.
    pub bank: Vec<GoldMemory>,
}

/// One question with everything that is remembered at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestionExample<'a> {
    /// The question.
    pub question: &'a str,
    /// LoCoMo's number.
    pub category: u8,
    /// What a perfect agent answers.
    pub answer: &'a str,
    /// Keys of the memories that support it.
    pub supporting: &'a [String],
    /// The two speakers.
    pub speakers: [&'a str; 2],
    /// Both banks at the end, each oldest entry first.
    pub memories: Vec<GoldMemory>,
}

/// Applies a fact's gold operation to a bank.
pub(super) fn apply(bank: &mut Vec<GoldMemory>, fact: &GoldFact, speaker: &str, at: Timestamp) {
    let place = bank.iter().position(|memory| memory.key == fact.key);
    match (fact.op, place, &fact.text) {
        (OperationKind::Add, None, Some(text)) => bank.push(GoldMemory {
            key: fact.key.clone(),
            text: text.clone(),
            observed: at,
            speaker: speaker.to_owned(),
            relation: fact.relation.clone(),
        }),
        (OperationKind::Update, Some(i), Some(text)) => {
            bank[i].text.clone_from(text);
            bank[i].observed = at;
        }
        (OperationKind::Delete, Some(i), None) => {
            bank.remove(i);
        }
        (OperationKind::Noop, Some(_), _) => {}
        _ => unreachable!("the gold of {} does not fit to its bank: {fact:?}", fact.key),
    }
}

fn own(memories: &[GoldMemory], speaker: &str) -> Vec<GoldMemory> {
    memories.iter().filter(|memory| memory.speaker == speaker).cloned().collect()
}

/// Every turn of a conversation, in order.
pub fn turn_examples(dialogue: &SyntheticDialogue) -> impl Iterator<Item = TurnExample<'_>> {
    let gold: &Gold = &dialogue.gold;
    let mut memories: Vec<GoldMemory> = Vec::new();
    let sessions = dialogue.sample.conversation.sessions.iter();
    let turns = sessions.flat_map(|session| {
        session.turns.iter().enumerate().map(move |(i, turn)| (&session.turns[i.saturating_sub(2)..i], turn))
    });
    turns.zip(&gold.turns).map(move |((before, turn), gold)| {
        let context =
            before.iter().map(|turn| SpokenTurn { speaker: &turn.speaker, text: &turn.text }).collect();
        let bank = own(&memories, &gold.speaker);
        let mut decisions = Vec::new();
        for fact in &gold.facts {
            decisions.push(Decision { bank: own(&memories, &gold.speaker), gold: fact });
            apply(&mut memories, fact, &gold.speaker, gold.at);
        }
        TurnExample {
            dia_id: &turn.dia_id,
            context,
            turn: SpokenTurn { speaker: &turn.speaker, text: &turn.text },
            at: gold.at,
            assistant: gold.speaker == "assistant",
            needs_context: gold.needs_context,
            decisions,
            bank,
        }
    })
}

/// The gold banks of both speakers after the whole conversation.
pub fn final_memories(dialogue: &SyntheticDialogue) -> Vec<GoldMemory> {
    let mut memories = Vec::new();
    for turn in &dialogue.gold.turns {
        for fact in &turn.facts {
            apply(&mut memories, fact, &turn.speaker, turn.at);
        }
    }
    memories
}

/// Every question of a conversation.
pub fn question_examples(dialogue: &SyntheticDialogue) -> impl Iterator<Item = QuestionExample<'_>> {
    let memories = final_memories(dialogue);
    let conversation = &dialogue.sample.conversation;
    dialogue.sample.questions.iter().zip(&dialogue.gold.questions).map(move |(question, gold)| {
        QuestionExample {
            question: &question.question,
            category: question.category,
            answer: &gold.answer,
            supporting: &gold.memories,
            speakers: [&conversation.speaker_a, &conversation.speaker_b],
            memories: memories.clone(),
        }
    })
}
