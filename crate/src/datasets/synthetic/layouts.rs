//! Made-up conversations in the layouts of other benchmarks: a record for each question, with the
//! sessions that it is about.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use chrono::DateTime;
use serde_json::{Value, json};

use super::SyntheticDialogue;
use crate::bank::Timestamp;
use crate::datasets::locomo::{Question, Sample, Session, Turn};
use crate::error::{Error, ErrorCode, Result};

const HOUR: i64 = 60 * 60 * 1000;

/// Which layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// LongMemEval's S and M: all sessions of the conversation, whose first speaker is the user.
    LongMemEval,
    /// LongMemEval's oracle: the sessions that hold the answer.
    LongMemEvalOracle,
    /// MSC-Self-Instruct: the last session is the one in which the question is asked.
    Msc,
}

/// Writes a record for each question that the layout has a place for; returns how many.
pub fn write_layout(path: &Path, dialogues: &[SyntheticDialogue], layout: Layout) -> Result<usize> {
    let unwritable = |error| {
        Error::new(ErrorCode::NotReachable, format!("{} could not be written", path.display()))
            .with_source(error)
    };
    let mut file = BufWriter::new(File::create(path).map_err(unwritable)?);
    let mut written = 0;
    for sample in dialogues.iter().map(|dialogue| &dialogue.sample) {
        for (index, question) in sample.questions.iter().enumerate() {
            let record = match layout {
                Layout::LongMemEval => Some(longmemeval(sample, index, question, |_| true)),
                Layout::LongMemEvalOracle => Some(longmemeval(sample, index, question, |session| {
                    session.turns.iter().any(|turn| question.evidence.contains(&turn.dia_id))
                })),
                Layout::Msc => msc(sample, question),
            };
            let Some(record) = record else { continue };
            let before = if written == 0 { "[\n" } else { ",\n" };
            write!(file, "{before}{record}").map_err(unwritable)?;
            written += 1;
        }
    }
    let end = if written == 0 { "[]\n" } else { "\n]\n" };
    file.write_all(end.as_bytes()).and_then(|()| file.flush()).map_err(unwritable)?;
    Ok(written)
}

fn longmemeval(
    sample: &Sample,
    index: usize,
    question: &Question,
    is_shown: impl Fn(&Session) -> bool,
) -> Value {
    let conversation = &sample.conversation;
    let sessions: Vec<&Session> = conversation.sessions.iter().filter(|session| is_shown(session)).collect();
    let name = |session: &Session| format!("{}_{}", sample.sample_id, session.number);
    let is_evidence = |turn: &&Turn| question.evidence.contains(&turn.dia_id);
    let turns = |session: &Session| -> Value {
        let turns = session.turns.iter().map(|turn| {
            let role = if turn.speaker == conversation.speaker_a { "user" } else { "assistant" };
            let mut value = json!({"role": role, "content": turn.text});
            if is_evidence(&turn) {
                value["has_answer"] = true.into();
            }
            value
        });
        turns.collect()
    };
    let kind = match question.category {
        1 => "multi-session",
        2 => "temporal-reasoning",
        3 => "single-session-preference",
        _ => "single-session-user",
    };
    let answers = sessions.iter().filter(|session| session.turns.iter().any(|turn| is_evidence(&turn)));
    let last = conversation.sessions.last().map_or_else(Timestamp::default, |session| session.at);
    json!({
        "question_id": format!("{}_{index}{}", sample.sample_id, if question.category == 5 { "_abs" } else { "" }),
        "question_type": kind,
        "question": question.question,
        "answer": question.answer,
        "question_date": date(last.millis() + HOUR),
        "answer_session_ids": answers.map(|session| name(session)).collect::<Vec<_>>(),
        "haystack_dates": sessions.iter().map(|session| date(session.at.millis())).collect::<Vec<_>>(),
        "haystack_session_ids": sessions.iter().map(|session| name(session)).collect::<Vec<_>>(),
        "haystack_sessions": sessions.iter().map(|session| turns(session)).collect::<Vec<_>>(),
    })
}

/// `2023/05/20 (Sat) 02:21`.
fn date(millis: i64) -> String {
    DateTime::from_timestamp_millis(millis).unwrap_or_default().format("%Y/%m/%d (%a) %H:%M").to_string()
}

/// An item; nothing for a question that cannot be answered, or without an earlier session.
fn msc(sample: &Sample, question: &Question) -> Option<Value> {
    let conversation = &sample.conversation;
    let (last, earlier) = conversation.sessions.split_last()?;
    let answer = question.answer.as_ref().filter(|_| question.category != 5 && !earlier.is_empty())?;
    let dialog = |session: &Session| -> Value {
        let turns = session.turns.iter().map(|turn| {
            let number = if turn.speaker == conversation.speaker_a { 1 } else { 2 };
            json!({"id": format!("Speaker {number}"), "text": turn.text})
        });
        turns.collect()
    };
    let between = |earlier: &Session, later: &Session| (later.at.millis() - earlier.at.millis()) / HOUR;
    let next = earlier.iter().skip(1).chain([last]);
    let sessions = earlier.iter().zip(next).map(|(session, next)| {
        let back = between(session, last);
        json!({
            "personas": [[], []],
            "dialog": dialog(session),
            "time_num": between(session, next),
            "time_unit": "hours",
            "time_back": format!("{} days {} hours ago", back / 24, back % 24),
        })
    });
    Some(json!({
        "personas": [[], []],
        "previous_dialogs": sessions.collect::<Vec<_>>(),
        "dialog": dialog(last),
        "self_instruct": {"B": question.question, "A": answer},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::synthetic::{Options, Split, generate};
    use crate::datasets::{ABSTENTION, Dialogue, longmemeval, msc};

    /// What is written is what the loaders read.
    #[test]
    fn every_layout_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made.json");
        let dialogues = generate(4, 2, Split::Train, Options { sessions: (3, 4), turns: (8, 10) });
        let all: Vec<Dialogue> = dialogues.iter().map(|own| Dialogue::from(&own.sample)).collect();
        let questions: Vec<_> = all.iter().flat_map(|own| &own.questions).collect();
        let read = |layout| -> Vec<Dialogue> {
            let written = write_layout(&path, &dialogues, layout).unwrap();
            let read: Vec<Dialogue> = match layout {
                Layout::Msc => msc::read(&path).unwrap().collect::<Result<_>>().unwrap(),
                _ => longmemeval::read(&path).unwrap().collect::<Result<_>>().unwrap(),
            };
            assert_eq!(read.len(), written);
            read
        };
        let own = read(Layout::LongMemEval);
        assert_eq!(own.len(), questions.len());
        for (own, question) in own.iter().zip(&questions) {
            assert_eq!(own.questions[0].question, question.question);
            assert_eq!(own.questions[0].evidence.len(), question.evidence.len());
            assert_eq!(own.questions[0].category == ABSTENTION, question.category == "5");
        }
        let whole: usize = own.iter().map(|own| own.turns.len()).sum();
        let oracle: usize = read(Layout::LongMemEvalOracle).iter().map(|own| own.turns.len()).sum();
        assert!(oracle < whole && oracle > 0, "{oracle} {whole}");

        let own = read(Layout::Msc);
        let answerable = questions.iter().filter(|question| question.category != "5");
        assert_eq!(own.len(), answerable.count());
        assert_eq!(own[0].turns.len(), all[0].turns.len());
        let texts = |own: &Dialogue| own.turns.iter().map(|turn| turn.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&own[0]), texts(&all[0]));
    }
}
