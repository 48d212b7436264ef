//! LongMemEval's layout: a question each, with the sessions of one user and an assistant that hold
//! its answer among others (Wu et al., "LongMemEval: Benchmarking Chat Assistants on Long-Term
//! Interactive Memory", 2024). S, M and oracle differ only in how many sessions there are.

use std::path::Path;

use chrono::NaiveDateTime;
use serde_json::Value;

use super::dialogue::{ABSTENTION, Asked, Dialogue, Said};
use super::place::Place;
use super::records::Records;
use crate::bank::Timestamp;
use crate::error::Result;

/// Who has a bank.
const USER: &str = "user";
const ASSISTANT: &str = "assistant";
/// What the ids of questions end in that the sessions do not answer.
const ABSTENTION_SUFFIX: &str = "_abs";
const TYPES: [&str; 6] = [
    "single-session-user",
    "single-session-assistant",
    "single-session-preference",
    "multi-session",
    "temporal-reasoning",
    "knowledge-update",
];

/// The questions of a file, one by one, each with its sessions in order of time. An error names file,
/// record and field, and is the last item.
pub fn read(path: &Path) -> Result<impl Iterator<Item = Result<Dialogue>> + use<>> {
    Ok(Records::open(path)?.map(|record| record.and_then(|(value, place)| dialogue(&value, &place))))
}

fn dialogue(value: &Value, place: &Place) -> Result<Dialogue> {
    let id = place.text(value, "question_id")?;
    let kind = place.text(value, "question_type")?;
    if !TYPES.contains(&&*kind) {
        return Err(place.at("question_type").error(&format!("one of {}", TYPES.join(", "))));
    }
    let dates = place.list(value, "haystack_dates")?;
    let names = place.list(value, "haystack_session_ids")?;
    let sessions = place.list(value, "haystack_sessions")?;
    for (field, own) in [("haystack_dates", dates), ("haystack_session_ids", names)] {
        if own.len() != sessions.len() {
            return Err(place.at(field).error(&format!("{} of them, one a session", sessions.len())));
        }
    }
    let mut sittings = Vec::with_capacity(sessions.len());
    let mut evidence = Vec::new();
    for (i, ((date, name), turns)) in dates.iter().zip(names).zip(sessions).enumerate() {
        let at = time(date, &place.at(&format!("haystack_dates {i}")))?;
        let name =
            name.as_str().ok_or_else(|| place.at(&format!("haystack_session_ids {i}")).error("a string"))?;
        let place = place.at(&format!("haystack_sessions {i}"));
        let turns = turns.as_array().ok_or_else(|| place.error("a list"))?;
        let mut said = Vec::with_capacity(turns.len());
        for (number, turn) in turns.iter().enumerate() {
            let place = place.at(&format!("turn {number}"));
            let role = place.text(turn, "role")?;
            if role != USER && role != ASSISTANT {
                return Err(place.at("role").error("user or assistant"));
            }
            let id = format!("{name}:{number}");
            match turn.get("has_answer") {
                None | Some(Value::Null | Value::Bool(false)) => {}
                Some(Value::Bool(true)) => evidence.push(id.clone()),
                Some(_) => return Err(place.at("has_answer").error("true or false")),
            }
            said.push(Said { session: 0, speaker: role, id, text: place.text(turn, "content")?, at });
        }
        sittings.push((at, said));
    }
    sittings.sort_by_key(|(at, _)| *at);
    let turns = sittings
        .into_iter()
        .enumerate()
        .flat_map(|(session, (_, said))| said.into_iter().map(move |turn| Said { session, ..turn }));
    let is_abstention = id.ends_with(ABSTENTION_SUFFIX);
    let answer = place.scalar(value, "answer")?;
    if answer.is_none() && !is_abstention {
        return Err(place.at("answer").error("an answer"));
    }
    Ok(Dialogue {
        banks: vec![USER.to_owned()],
        turns: turns.collect(),
        questions: vec![Asked {
            question: place.text(value, "question")?,
            at: Some(time(place.field(value, "question_date")?, &place.at("question_date"))?),
            answer,
            category: if is_abstention { ABSTENTION.to_owned() } else { kind },
            evidence,
        }],
        superseded: Vec::new(),
        id,
    })
}

/// `2023/05/20 (Sat) 02:21`.
fn time(value: &Value, place: &Place) -> Result<Timestamp> {
    let parsed =
        value.as_str().and_then(|text| NaiveDateTime::parse_from_str(text, "%Y/%m/%d (%a) %H:%M").ok());
    let time = parsed.ok_or_else(|| place.error("a time like 2023/05/20 (Sat) 02:21"))?;
    Timestamp::from_millis(time.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn record(change: impl Fn(&mut Value)) -> Result<Dialogue> {
        let mut value = serde_json::json!({
            "question_id": "q1",
            "question_type": "knowledge-update",
            "question": "Where do I live?",
            "question_date": "2023/05/30 (Tue) 23:40",
            "answer": 7,
            "answer_session_ids": ["b"],
            "haystack_dates": ["2023/05/21 (Sun) 10:00", "2023/05/20 (Sat) 02:21"],
            "haystack_session_ids": ["a", "b"],
            "haystack_sessions": [
                [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
                [{"role": "user", "content": "I live in Lyon", "has_answer": true}],
            ],
        });
        change(&mut value);
        dialogue(&value, &Place("x.json: record 0".into()))
    }

    #[test]
    fn sessions_stand_in_order_of_time_and_evidence_is_named() {
        let own = record(|_| ()).unwrap();
        let turns: Vec<_> = own.turns.iter().map(|turn| (turn.session, &*turn.id, &*turn.speaker)).collect();
        assert_eq!(turns, [(0, "b:0", "user"), (1, "a:0", "user"), (1, "a:1", "assistant")]);
        assert_eq!(own.turns[0].at.to_string(), "2023-05-20T02:21:00.000Z");
        let [question] = &own.questions[..] else { panic!() };
        assert_eq!((&*question.category, question.answer.as_deref()), ("knowledge-update", Some("7")));
        assert_eq!(question.evidence, ["b:0"]);
        let abstention = record(|value| value["question_id"] = "q1_abs".into()).unwrap();
        assert_eq!(abstention.questions[0].category, ABSTENTION);
    }

    #[test]
    fn an_error_names_record_and_field() {
        type Change = fn(&mut Value);
        let cases: [(&str, Change); 8] = [
            ("question_id: expected this field", |v| drop(v.as_object_mut().unwrap().remove("question_id"))),
            ("question_type: expected one of single", |v| v["question_type"] = "trivia".into()),
            ("question_date: expected a time", |v| v["question_date"] = "May 2023".into()),
            ("answer: expected an answer", |v| v["answer"] = Value::Null),
            ("haystack_dates: expected 2 of them", |v| v["haystack_dates"] = vec!["x"].into()),
            ("haystack_dates 1: expected a time", |v| v["haystack_dates"][1] = 3.into()),
            ("haystack_sessions 0: turn 1: role: expected user", |v| {
                v["haystack_sessions"][0][1]["role"] = "system".into();
            }),
            ("haystack_sessions 1: turn 0: content: expected a string", |v| {
                v["haystack_sessions"][1][0]["content"] = 3.into();
            }),
        ];
        for (why, change) in cases {
            let error: Error = record(change).unwrap_err();
            assert!(error.message().starts_with(&format!("x.json: record 0: {why}")), "{error}");
        }
    }
}
