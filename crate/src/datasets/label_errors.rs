//! An audit of LoCoMo's labels, in the layout of `dial481/locomo-audit`'s `errors.json`: which of the
//! released answers are wrong, and what would be right.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::locomo::Dataset;
use super::place::Place;
use crate::error::{Error, ErrorCode, Result};

/// What this error leaves right is the answer; only the turns named for it are others.
const WRONG_CITATION: &str = "WRONG_CITATION";

/// An entry of the audit.
#[derive(Deserialize)]
struct Entry {
    /// `locomo_3_qa12`: the place of the conversation in the file and that of the question in it, from 0.
    question_id: String,
    question: String,
    golden_answer: String,
    error_type: String,
    correct_answer: String,
}

/// The corrected answers, by conversation and the question's place in it.
pub type Corrections = BTreeMap<(String, usize), String>;

/// Reads the audit of `dataset`. An entry whose question or released answer is not the dataset's is an
/// error that names it; entries that only name other evidence correct nothing.
pub fn read_corrections(path: &Path, dataset: &Dataset) -> Result<Corrections> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::new(ErrorCode::NotReachable, format!("{name} could not be read as text")).with_source(error)
    })?;
    let entries: Vec<Entry> = serde_json::from_str(&text).map_err(|error| {
        Error::invalid(format!("{name} is no list of label errors: {error}")).with_source(error)
    })?;
    let mut corrections = Corrections::new();
    for (i, entry) in entries.into_iter().enumerate() {
        let place = Place(format!("{name}: record {i}"));
        let key = find(&entry, dataset).map_err(|expected| place.at("question_id").error(expected))?;
        if entry.error_type != WRONG_CITATION {
            corrections.insert(key, entry.correct_answer);
        }
    }
    Ok(corrections)
}

/// The question that an entry is about, or what was expected of the entry.
fn find(entry: &Entry, dataset: &Dataset) -> std::result::Result<(String, usize), &'static str> {
    let places = entry.question_id.strip_prefix("locomo_").and_then(|places| places.split_once("_qa"));
    let places = places.and_then(|(sample, index)| Some((sample.parse().ok()?, index.parse().ok()?)));
    let (sample, index): (usize, usize) = places.ok_or("a string like locomo_0_qa0")?;
    let sample = dataset.samples.get(sample);
    let question = sample.and_then(|sample| sample.questions.get(index));
    match (sample, question) {
        (Some(sample), Some(question))
            if question.question == entry.question
                && question.answer.as_deref().unwrap_or_default() == entry.golden_answer =>
        {
            Ok((sample.sample_id.clone(), index))
        }
        _ => Err("the place of the entry's question and released answer in the data"),
    }
}
