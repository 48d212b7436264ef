//! A conversation with its questions, whatever benchmark it comes from.

use super::locomo::Sample;
use super::superseded::Superseded;
use crate::bank::{Role, Timestamp, Turn};

/// The category of questions that the conversation does not answer, where a benchmark has no number
/// for them.
pub const ABSTENTION: &str = "abstention";

/// The categories of such questions, LoCoMo's and others'. The released file has an answer for a few of them all the same.
pub const ADVERSARIAL: [&str; 2] = ["5", ABSTENTION];

/// What a benchmark reads, and then asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialogue {
    /// The file's name for it.
    pub id: String,
    /// The speakers who have a bank; the turns of others are context only.
    pub banks: Vec<String>,
    /// What was said, in order of time.
    pub turns: Vec<Said>,
    /// What is asked.
    pub questions: Vec<Asked>,
    /// What stops to be true, where that is known.
    pub superseded: Vec<Superseded>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Which sitting it belongs to, from 0.
    pub session: usize,
    /// Who spoke.
    pub speaker: String,
    /// The name that evidence calls it by.
    pub id: String,
    /// What was said.
    pub text: String,
    /// When.
    pub at: Timestamp,
}

/// A turn as its speaker's bank reads it, behind up to `most` turns of the same sitting: the mirrored roles of
/// Memory-R1's harness.
pub fn heard(turns: &[Said], place: usize, most: usize) -> (Vec<Turn>, Turn) {
    let own = &turns[place];
    let turn = |said: &Said| Turn {
        role: if said.speaker == own.speaker { Role::User } else { Role::Assistant },
        speaker: said.speaker.clone(),
        content: said.text.clone(),
        timestamp: said.at,
    };
    let before = &turns[place.saturating_sub(most)..place];
    (before.iter().filter(|said| said.session == own.session).map(turn).collect(), turn(own))
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// As asked.
    pub question: String,
    /// When, where the benchmark says so.
    pub at: Option<Timestamp>,
    /// The gold answer; some that cannot be answered have none.
    pub answer: Option<String>,
    /// LoCoMo's number, LongMemEval's type, or [`ABSTENTION`].
    pub category: String,
    /// The ids of the turns that hold the answer.
    pub evidence: Vec<String>,
}

impl Asked {
    /// The answer, where the conversation gives one.
    pub fn answerable(&self) -> Option<&str> {
        self.answer.as_deref().filter(|_| !ADVERSARIAL.contains(&&*self.category))
    }
}

impl From<&Sample> for Dialogue {
    fn from(sample: &Sample) -> Self {
        let conversation = &sample.conversation;
        let turns = conversation.sessions.iter().enumerate().flat_map(|(session, own)| {
            own.turns.iter().map(move |turn| Said {
                session,
                speaker: turn.speaker.clone(),
                id: turn.dia_id.clone(),
                text: turn.text.clone(),
                at: own.at,
            })
        });
        let questions = sample.questions.iter().map(|question| Asked {
            question: question.question.clone(),
            at: None,
            answer: question.answer.clone(),
            category: question.category.to_string(),
            evidence: question.evidence.clone(),
        });
        Self {
            id: sample.sample_id.clone(),
            banks: vec![conversation.speaker_a.clone(), conversation.speaker_b.clone()],
            turns: turns.collect(),
            questions: questions.collect(),
            superseded: sample.superseded.clone(),
        }
    }
}
