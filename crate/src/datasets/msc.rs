//! MSC-Self-Instruct's layout: the sessions of two speakers, and one question that the second asks
//! and the first answers from what was said (Xu et al., "Beyond Goldfish Memory", 2022; Packer et
//! al., "MemGPT", 2023). A file is a list of items or has one a line.

use std::path::Path;

use serde_json::Value;

use super::dialogue::{Asked, Dialogue, Said};
use super::place::Place;
use super::records::Records;
use crate::bank::Timestamp;
use crate::error::Result;

/// When the questions are asked: times of sessions are relative, `14 days 5 hours ago`.
const NOW: i64 = 1_704_103_200_000;
const MINUTE: i64 = 60 * 1000;
const UNITS: [(&str, i64); 6] = [
    ("minute", MINUTE),
    ("hour", 60 * MINUTE),
    ("day", 24 * 60 * MINUTE),
    ("week", 7 * 24 * 60 * MINUTE),
    ("month", 30 * 24 * 60 * MINUTE),
    ("year", 365 * 24 * 60 * MINUTE),
];

/// The items of a file, one by one. Speakers are called `Speaker_3_A` and `Speaker_3_B`, as the
/// harness of Memory-R1 does. An error names file, record and field, and is the last item.
pub fn read(path: &Path) -> Result<impl Iterator<Item = Result<Dialogue>> + use<>> {
    let items = Records::open(path)?.enumerate();
    Ok(items.map(|(number, item)| item.and_then(|(value, place)| dialogue(number, &value, &place))))
}

fn dialogue(number: usize, value: &Value, place: &Place) -> Result<Dialogue> {
    let speakers = ["A", "B"].map(|letter| format!("Speaker_{number}_{letter}"));
    let mut turns = Vec::new();
    let earlier = place.list(value, "previous_dialogs")?;
    if earlier.is_empty() {
        return Err(place.at("previous_dialogs").error("a session"));
    }
    for (session, own) in earlier.iter().enumerate() {
        let place = place.at(&format!("previous_dialogs {session}"));
        let back = place.text(own, "time_back")?;
        let back = millis_back(&back)
            .ok_or_else(|| place.at("time_back").error("a time like 3 days 2 hours ago"))?;
        let at = Timestamp::from_millis(NOW - back)
            .map_err(|error| place.at("time_back").error("a time").with_source(error))?;
        said(own, &place, session, at, &speakers, &mut turns)?;
    }
    // The session in which the question is asked.
    if value.get("dialog").is_some() {
        said(value, place, earlier.len(), Timestamp::from_millis(NOW)?, &speakers, &mut turns)?;
    }
    let asked = place.field(value, "self_instruct")?;
    let own = place.at("self_instruct");
    Ok(Dialogue {
        id: format!("msc-{number}"),
        banks: speakers.into(),
        turns,
        questions: vec![Asked {
            question: own.text(asked, "B")?,
            at: None,
            answer: Some(own.text(asked, "A")?),
            category: "msc".to_owned(),
            evidence: Vec::new(),
        }],
        superseded: Vec::new(),
    })
}

/// The turns of one session, which the speakers take by turns where the file does not say who spoke.
fn said(
    value: &Value,
    place: &Place,
    session: usize,
    at: Timestamp,
    speakers: &[String; 2],
    turns: &mut Vec<Said>,
) -> Result<()> {
    for (number, turn) in place.list(value, "dialog")?.iter().enumerate() {
        let place = place.at(&format!("dialog {number}"));
        let speaker = match place.scalar(turn, "id")?.as_deref() {
            None => number % 2,
            Some("Speaker 1") => 0,
            Some("Speaker 2") => 1,
            Some(_) => return Err(place.at("id").error("Speaker 1 or Speaker 2")),
        };
        turns.push(Said {
            session,
            speaker: speakers[speaker].clone(),
            id: format!("D{}:{}", session + 1, number + 1),
            text: place.text(turn, "text")?,
            at,
        });
    }
    Ok(())
}

/// Milliseconds of `14 days 5 hours ago`, `1 month`; nothing where it is not of this form.
fn millis_back(text: &str) -> Option<i64> {
    let words: Vec<&str> = text.split_whitespace().filter(|word| *word != "ago" && *word != "and").collect();
    let pairs = words.chunks(2).map(|pair| {
        let [number, unit] = pair else { return None };
        let unit = unit.trim_end_matches(',').trim_end_matches('s');
        let (_, length) = UNITS.iter().find(|(name, _)| *name == unit)?;
        number.parse::<i64>().ok()?.checked_mul(*length)
    });
    let total = pairs.collect::<Option<Vec<i64>>>()?.iter().sum();
    (!words.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(change: impl Fn(&mut Value)) -> Result<Dialogue> {
        let mut value = serde_json::json!({
            "personas": [["I have a dog."], ["I ski."]],
            "previous_dialogs": [
                {"dialog": [{"text": "I got a dog."}, {"text": "Nice!"}], "time_num": 2, "time_unit": "days", "time_back": "3 days 2 hours ago"},
            ],
            "dialog": [{"id": "Speaker 2", "text": "Hi again."}],
            "self_instruct": {"B": "What pet do you have?", "A": "A dog!"},
        });
        change(&mut value);
        dialogue(4, &value, &Place("x.jsonl: record 4".into()))
    }

    #[test]
    fn speakers_take_turns_and_times_are_relative() {
        let own = item(|_| ()).unwrap();
        let turns: Vec<_> = own.turns.iter().map(|turn| (&*turn.speaker, &*turn.id, turn.session)).collect();
        assert_eq!(
            turns,
            [("Speaker_4_A", "D1:1", 0), ("Speaker_4_B", "D1:2", 0), ("Speaker_4_B", "D2:1", 1)]
        );
        assert_eq!(own.turns[2].at.millis() - own.turns[0].at.millis(), 74 * 60 * MINUTE);
        assert_eq!(own.banks, ["Speaker_4_A", "Speaker_4_B"]);
        let [question] = &own.questions[..] else { panic!() };
        assert_eq!(
            (&*question.question, question.answer.as_deref()),
            ("What pet do you have?", Some("A dog!"))
        );
    }

    #[test]
    fn an_error_names_record_and_field() {
        type Change = fn(&mut Value);
        let cases: [(&str, Change); 6] = [
            ("self_instruct: expected this field", |v| {
                v.as_object_mut().unwrap().remove("self_instruct");
            }),
            ("self_instruct: A: expected a string", |v| v["self_instruct"]["A"] = 3.into()),
            ("previous_dialogs: expected a session", |v| v["previous_dialogs"] = Value::Array(vec![])),
            ("previous_dialogs 0: time_back: expected a time like", |v| {
                v["previous_dialogs"][0]["time_back"] = "lately".into();
            }),
            ("previous_dialogs 0: dialog 1: text: expected a string", |v| {
                v["previous_dialogs"][0]["dialog"][1]["text"] = Value::Null;
            }),
            ("dialog 0: id: expected Speaker 1", |v| v["dialog"][0]["id"] = "Bob".into()),
        ];
        for (why, change) in cases {
            let error = item(change).unwrap_err();
            assert!(error.message().starts_with(&format!("x.jsonl: record 4: {why}")), "{error}");
        }
    }

    #[test]
    fn a_time_back_is_numbers_with_units() {
        assert_eq!(millis_back("1 hour"), Some(60 * MINUTE));
        assert_eq!(millis_back("2 weeks, 1 day and 3 hours ago"), Some((15 * 24 + 3) * 60 * MINUTE));
        for wrong in ["", "ago", "2", "two days", "2 moons", "9223372036854775807 years"] {
            assert_eq!(millis_back(wrong), None, "{wrong}");
        }
    }
}
