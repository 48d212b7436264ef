//! Answers from the turns themselves, without a bank.

use std::collections::BTreeMap;

use super::{BenchmarkRun, Shown, System};
use crate::agents::{AnswerAgent, Candidate, SpeakerCandidates, one_line};
use crate::datasets::Said;
use crate::error::Result;
use crate::generation::Sampling;

/// An answer and what it stands on.
pub(super) struct Reply {
    pub(super) answer: String,
    pub(super) memories: Vec<Shown>,
    pub(super) candidates: Vec<Shown>,
    /// How many turns did not fit.
    pub(super) left_out: usize,
}

/// Answers from the turns that a system without banks shows, each speaker's in a block of their own.
pub(super) async fn answer(
    agent: &AnswerAgent,
    run: &BenchmarkRun<'_>,
    turns: &[Said],
    (question, evidence): (&str, &[String]),
    sampling: Sampling,
) -> Result<Reply> {
    let (cancel, distill) = (&run.cancel, !run.settings.no_distillation);
    let is_shown = |turn: &&Said| match run.settings.system {
        System::Oracle => evidence.contains(&turn.id),
        System::NoMemory => false,
        _ => true,
    };
    let mut by_speaker: BTreeMap<&str, Vec<&Said>> = BTreeMap::new();
    for turn in turns.iter().filter(is_shown) {
        by_speaker.entry(&turn.speaker).or_default().push(turn);
    }
    let shown: Vec<Vec<&Said>> = by_speaker.into_values().collect();
    let blocks: Vec<SpeakerCandidates> = shown
        .iter()
        .map(|own| SpeakerCandidates {
            speaker: own.first().map_or_else(String::new, |turn| turn.speaker.clone()),
            candidates: own.iter().map(|turn| candidate(turn)).collect(),
        })
        .collect();
    let answered = if blocks.is_empty() {
        agent.answer_without_memories(question, sampling, cancel, &mut |_| ()).await?
    } else {
        agent.answer(question, &blocks, distill, sampling, cancel, &mut |_| ()).await?
    };
    let seen = shown.iter().zip(&answered.shown_from).flat_map(|(own, from)| &own[*from..]);
    Ok(Reply {
        answer: answered.text,
        memories: answered.used.iter().map(|(block, place)| Shown::from(shown[*block][*place])).collect(),
        candidates: seen.map(|turn| Shown::from(*turn)).collect(),
        left_out: answered.shown_from.iter().sum(),
    })
}

fn candidate(turn: &Said) -> Candidate {
    Candidate { observed: turn.at, text: one_line(&turn.text) }
}

impl From<&Said> for Shown {
    fn from(turn: &Said) -> Self {
        Self {
            id: turn.id.clone(),
            speaker: turn.speaker.clone(),
            observed: turn.at,
            text: candidate(turn).text,
        }
    }
}
