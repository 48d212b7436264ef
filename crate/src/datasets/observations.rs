//! LoCoMo's own observations: what its authors had a model say of each session, as the facts of turns.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;

use super::known_facts::TurnFacts;
use super::locomo::{Dataset, Sample, normal_dia_id, read_text};
use super::place::Place;
use crate::error::{Error, Result};

/// The observations of every conversation of a file, each with the first turn of its speaker that it names; one that
/// names none is left out. They can be used in the place of an extractor's facts ([`super::KnownFacts`]).
pub fn observations(path: &Path) -> Result<BTreeMap<String, TurnFacts>> {
    parse(&read_text(path)?, &path.display().to_string())
}

fn parse(text: &str, name: &str) -> Result<BTreeMap<String, TurnFacts>> {
    let dataset = Dataset::parse(text, name)?;
    let records: Vec<Value> = serde_json::from_str(text)
        .map_err(|error| Error::invalid(format!("{name} is no list")).with_source(error))?;
    let pairs = dataset.samples.iter().zip(&records).enumerate();
    pairs
        .map(|(number, (sample, record))| {
            let facts = of_sample(sample, record, &Place(format!("{name}: record {number}")))?;
            Ok((sample.sample_id.clone(), facts))
        })
        .collect()
}

fn of_sample(sample: &Sample, record: &Value, place: &Place) -> Result<TurnFacts> {
    let turns = sample.conversation.sessions.iter().flat_map(|session| &session.turns);
    let speakers: HashMap<&str, &str> =
        turns.map(|turn| (turn.dia_id.as_str(), turn.speaker.as_str())).collect();
    let sessions = place.field(record, "observation")?;
    let place = place.at("observation");
    let mut facts = TurnFacts::new();
    for (session, own) in sessions.as_object().ok_or_else(|| place.error("an object"))? {
        let place = place.at(session);
        for (speaker, statements) in own.as_object().ok_or_else(|| place.error("an object"))? {
            let place = place.at(speaker);
            for statement in statements.as_array().ok_or_else(|| place.error("a list"))? {
                let wrong = || place.error("statements, each with the turns that it is from");
                let Some([Value::String(text), from]) = statement.as_array().map(Vec::as_slice) else {
                    return Err(wrong());
                };
                let named: Vec<&str> = match from {
                    Value::String(named) => vec![named],
                    Value::Array(all) => {
                        all.iter().map(|own| own.as_str().ok_or_else(wrong)).collect::<Result<_>>()?
                    }
                    _ => return Err(wrong()),
                };
                let mut named =
                    named.iter().flat_map(|names| names.split([' ', ';', ','])).filter_map(normal_dia_id);
                if let Some(turn) = named.find(|id| speakers.get(id.as_str()) == Some(&speaker.as_str())) {
                    facts.entry(turn).or_default().push(text.clone());
                }
            }
        }
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(observation: &Value) -> String {
        let turn = |speaker, id| serde_json::json!({ "speaker": speaker, "dia_id": id, "text": "…" });
        serde_json::json!([{
            "sample_id": "conv-1",
            "conversation": {
                "speaker_a": "Ann",
                "speaker_b": "Bob",
                "session_1_date_time": "1:56 pm on 8 May, 2023",
                "session_1": [turn("Ann", "D1:1"), turn("Bob", "D1:2"), turn("Ann", "D1:3")],
            },
            "qa": [],
            "observation": observation,
        }])
        .to_string()
    }

    #[test]
    fn statements_go_to_the_first_turn_of_their_speaker() {
        let found = parse(
            &file(&serde_json::json!({
                "session_1_observation": {
                    "Ann": [["Ann paints.", "D1:1"], ["Ann sings.", "D1:2, D1:03"], ["Ann runs.", ["D1:1", "D1:3"]]],
                    "Bob": [["Bob cooks.", "D1:2"], ["Bob swims.", "D1:3"], ["Bob waits.", "D9:9"]],
                }
            })),
            "x.json",
        );
        let wanted = [
            ("D1:1", vec!["Ann paints.", "Ann runs."]),
            ("D1:2", vec!["Bob cooks."]),
            ("D1:3", vec!["Ann sings."]),
        ];
        let wanted = wanted.map(|(id, all)| (id.to_owned(), all.into_iter().map(str::to_owned).collect()));
        assert_eq!(found.unwrap()["conv-1"], TurnFacts::from(wanted));
    }

    #[test]
    fn an_error_says_where_it_is() {
        for (observation, wanted) in [
            (serde_json::json!([]), "record 0: observation: expected an object"),
            (serde_json::json!({ "session_1_observation": [] }), "session_1_observation: expected an object"),
            (serde_json::json!({ "s": { "Ann": [["x"]] } }), "Ann: expected statements"),
            (serde_json::json!({ "s": { "Ann": [["x", 1]] } }), "Ann: expected statements"),
        ] {
            let error = parse(&file(&observation), "x.json").unwrap_err();
            assert!(error.message().contains(wanted), "{error}");
        }
    }
}
