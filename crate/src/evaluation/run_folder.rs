//! The folder of a benchmark's run: what is done stays done, and `--resume` goes on from there.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::benchmark::{BankState, QuestionOutcome};
use crate::error::{Error, ErrorCode, Result};

const RUN: &str = "run.json";
const QUESTIONS: &str = "questions.jsonl";
const TIMINGS: &str = "timings.jsonl";

/// A line of [`TIMINGS`].
#[derive(Serialize, Deserialize)]
struct Timing<'a> {
    sample_id: Cow<'a, str>,
    index: usize,
    seconds: f64,
}

/// A folder with `run.json` (what makes two runs the same), `banks/` (the banks of each
/// conversation), `questions.jsonl`, `timings.jsonl` (how long each question took) and, at the end,
/// `report.json` and `report.html`.
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder, or opens it to go on; `run` says what makes two runs the same.
    ///
    /// A folder that holds a run is not written over: without `resume` it is an error, and with
    /// it so is another run than this one.
    pub fn open(path: &Path, run: &Value, resume: bool) -> Result<Self> {
        fs::create_dir_all(path.join("banks")).map_err(|error| unwritable(path, error))?;
        let folder = Self { path: path.to_owned() };
        let name = path.display();
        let earlier: Option<Value> = folder.read(RUN)?;
        match (earlier, resume) {
            (Some(_), false) => Err(Error::invalid(format!(
                "{name} holds a run already; go on with it by --resume, or name another folder"
            ))),
            (Some(earlier), true) if earlier != *run => {
                let differ =
                    run.as_object().into_iter().flatten().find(|(key, value)| earlier[*key] != **value);
                let differ = differ.map_or("settings", |(key, _)| key);
                Err(Error::invalid(format!(
                    "{name} holds a run with another {differ}; name another folder, or repeat its settings"
                )))
            }
            (Some(_), true) => Ok(folder),
            (None, _) => {
                folder.write(RUN, run)?;
                Ok(folder)
            }
        }
    }

    /// The banks of the conversation at this place of the run, where any were saved.
    pub fn bank(&self, place: usize) -> Result<Option<BankState>> {
        self.read(&bank_name(place))
    }

    /// Saves them.
    pub fn save_bank(&self, place: usize, state: &BankState) -> Result<()> {
        self.write(&bank_name(place), state)
    }

    /// The answers so far, by conversation and place. A last line that was cut off is dropped.
    pub fn questions(&self) -> Result<BTreeMap<(String, usize), QuestionOutcome>> {
        let path = self.path.join(QUESTIONS);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(unreadable(&path, error)),
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            let file =
                OpenOptions::new().write(true).open(&path).map_err(|error| unwritable(&path, error))?;
            file.set_len(whole as u64).map_err(|error| unwritable(&path, error))?;
        }
        let seconds = self.timings()?;
        let outcomes = parse(&text[..whole], &path)?.into_iter();
        let timed = outcomes.map(|outcome| {
            let key = (outcome.sample_id.clone(), outcome.index);
            let seconds = seconds.get(&key).copied().unwrap_or_default();
            (key, QuestionOutcome { seconds, ..outcome })
        });
        Ok(timed.collect())
    }

    /// How long each answered question took. What a kill cut off is not read.
    fn timings(&self) -> Result<BTreeMap<(String, usize), f64>> {
        let path = self.path.join(TIMINGS);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(unreadable(&path, error)),
        };
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Timing>(line).ok());
        Ok(lines.map(|line| ((line.sample_id.into_owned(), line.index), line.seconds)).collect())
    }

    /// Adds an answer.
    pub fn add_question(&self, outcome: &QuestionOutcome) -> Result<()> {
        let (sample_id, index) = (outcome.sample_id.as_str().into(), outcome.index);
        self.append(TIMINGS, &Timing { sample_id, index, seconds: outcome.seconds })?;
        self.append(QUESTIONS, outcome)
    }

    /// Writes all answers anew, in this order.
    pub fn write_questions(&self, outcomes: &[QuestionOutcome]) -> Result<()> {
        let lines: Vec<String> = outcomes.iter().map(to_json).collect::<Result<_>>()?;
        self.write_text(QUESTIONS, &(lines.join("\n") + "\n"))
    }

    fn append(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.path.join(name);
        let line = to_json(value)? + "\n";
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(|error| unwritable(&path, error))
    }

    /// Writes a file whole or not at all.
    pub fn write(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Error::internal("a run's state as JSON").with_source(error))?;
        self.write_text(name, &(text + "\n"))
    }

    /// The same of a text.
    pub fn write_text(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path.join(name);
        let aside = path.with_extension("tmp");
        let written = File::create(&aside)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&aside, &path));
        written.map_err(|error| unwritable(&path, error))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.path.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&path, error)),
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| Error::invalid(format!("{} is not of a run", path.display())).with_source(error))
    }
}

/// The answers of a run that is done.
pub fn read_questions(folder: &Path) -> Result<Vec<QuestionOutcome>> {
    let path = folder.join(QUESTIONS);
    let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
    parse(&text, &path)
}

fn parse(text: &str, path: &Path) -> Result<Vec<QuestionOutcome>> {
    let read = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            let line = format!("{}: line {} cannot be read", path.display(), number + 1);
            Error::invalid(line).with_source(error)
        })
    };
    text.lines().enumerate().map(read).collect()
}

fn bank_name(place: usize) -> String {
    format!("banks/{place:03}.json")
}

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal("an outcome as JSON").with_source(error))
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorCode::NotReachable, format!("{} could not be read", path.display())).with_source(error)
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorCode::NotReachable, format!("{} could not be written", path.display())).with_source(error)
}
