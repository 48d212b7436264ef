//! LoCoMo's layout: dated conversations of two speakers with questions about them
//! (Maharana et al., "Evaluating Very Long-Term Conversational Memory of LLM Agents", 2024).

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::place::Place;
use super::superseded::{Superseded, superseded};
use super::synthetic::GoldTurn;
use crate::bank::Timestamp;
use crate::error::{Error, ErrorCode, Result};

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Who spoke: one of the conversation's two speakers.
    pub speaker: String,
    /// `D3:12`: the twelfth turn of session 3.
    pub dia_id: String,
    /// What was said.
    pub text: String,
    /// What the shared picture shows, where one was shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blip_caption: Option<String>,
}

/// The turns of one sitting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its number, from 1.
    pub number: usize,
    /// When it was.
    pub at: Timestamp,
    /// The same as the file writes it, `1:56 pm on 8 May, 2023`.
    pub date_time: String,
    /// What was said.
    pub turns: Vec<Turn>,
}

/// Who spoke when about what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// The first speaker.
    pub speaker_a: String,
    /// The second.
    pub speaker_b: String,
    /// In order of their numbers.
    pub sessions: Vec<Session>,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// As asked.
    pub question: String,
    /// The gold answer; adversarial questions of the released file have none.
    pub answer: Option<String>,
    /// What a system that falls for an adversarial question says.
    pub adversarial_answer: Option<String>,
    /// The turns that hold the answer.
    pub evidence: Vec<String>,
    /// 1 multi-hop, 2 temporal, 3 open-domain, 4 single-hop, 5 adversarial.
    pub category: u8,
}

/// One conversation with its questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The file's name for it, `conv-26`.
    pub sample_id: String,
    /// What was said.
    pub conversation: Conversation,
    /// What is asked.
    pub questions: Vec<Question>,
    /// What stops to be true; known of synthetic conversations alone.
    pub superseded: Vec<Superseded>,
}

/// Which part of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// Every conversation.
    #[default]
    All,
    /// The first (the paper's split is 1 : 1 : 8).
    Train,
    /// The second.
    Val,
    /// The rest.
    Test,
}

impl std::str::FromStr for Split {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "all" => Ok(Self::All),
            "train" => Ok(Self::Train),
            "val" => Ok(Self::Val),
            "test" => Ok(Self::Test),
            _ => Err(Error::invalid(format!("{text:?} is not a split; write all, train, val or test"))),
        }
    }
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// The conversations, in the file's order.
    pub samples: Vec<Sample>,
    /// Evidence that names no turn of its conversation, left out (the released file has some).
    pub malformed_evidence: usize,
    /// Made by this crate: one split only.
    pub synthetic: bool,
}

impl Dataset {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&read_text(path)?, &path.display().to_string())
    }

    /// Reads a file's content; `name` is for the errors.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let root: Value = serde_json::from_str(text)
            .map_err(|error| Error::invalid(format!("{name} is not JSON")).with_source(error))?;
        let records = root
            .as_array()
            .ok_or_else(|| Error::invalid(format!("{name}: a LoCoMo file is a list of conversations")))?;
        let mut malformed_evidence = 0;
        let samples = records
            .iter()
            .enumerate()
            .map(|(i, record)| {
                let place = Place(format!("{name}: record {i}"));
                sample(record, &place, &mut malformed_evidence)
            })
            .collect::<Result<Vec<_>>>()?;
        let synthetic = records.first().is_some_and(|record| record.get("gold").is_some());
        Ok(Self { samples, malformed_evidence, synthetic })
    }

    /// The conversations of a split, by their order in the file. A synthetic file is one split.
    pub fn split(&self, split: Split) -> &[Sample] {
        let n = self.samples.len();
        let range = match split {
            _ if self.synthetic => 0..n,
            Split::All => 0..n,
            Split::Train => 0..1.min(n),
            Split::Val => 1.min(n)..2.min(n),
            Split::Test => 2.min(n)..n,
        };
        &self.samples[range]
    }
}

impl Sample {
    /// The layout's JSON.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut conversation = Map::new();
        conversation.insert("speaker_a".into(), self.conversation.speaker_a.clone().into());
        conversation.insert("speaker_b".into(), self.conversation.speaker_b.clone().into());
        for session in &self.conversation.sessions {
            let key = format!("session_{}", session.number);
            conversation.insert(format!("{key}_date_time"), session.date_time.clone().into());
            conversation.insert(key, serde_json::json!(session.turns));
        }
        let questions = self.questions.iter().map(|q| {
            let mut map = Map::new();
            map.insert("question".into(), q.question.clone().into());
            if let Some(answer) = &q.answer {
                map.insert("answer".into(), answer.clone().into());
            }
            map.insert("evidence".into(), q.evidence.clone().into());
            map.insert("category".into(), q.category.into());
            if let Some(answer) = &q.adversarial_answer {
                map.insert("adversarial_answer".into(), answer.clone().into());
            }
            Value::Object(map)
        });
        let mut record = Map::new();
        record.insert("sample_id".into(), self.sample_id.clone().into());
        record.insert("qa".into(), questions.collect());
        record.insert("conversation".into(), Value::Object(conversation));
        record
    }
}

pub(super) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        Error::new(ErrorCode::NotReachable, format!("{} could not be read as text", path.display()))
            .with_source(error)
    })
}

fn sample(record: &Value, place: &Place, malformed: &mut usize) -> Result<Sample> {
    let sample_id = place.text(record, "sample_id")?;
    let conversation = conversation(place.field(record, "conversation")?, &place.at("conversation"))?;
    let turns: BTreeSet<&str> =
        conversation.sessions.iter().flat_map(|s| &s.turns).map(|turn| turn.dia_id.as_str()).collect();
    let mut questions = Vec::new();
    for (i, record) in place.list(record, "qa")?.iter().enumerate() {
        questions.push(question(record, &place.at(&format!("qa {i}")), &turns, malformed)?);
    }
    let superseded = match record.get("gold") {
        Some(gold) => superseded(&gold_turns(gold, &place.at("gold"))?),
        None => Vec::new(),
    };
    Ok(Sample { sample_id, conversation, questions, superseded })
}

fn gold_turns(gold: &Value, place: &Place) -> Result<Vec<GoldTurn>> {
    Vec::deserialize(place.field(gold, "turns")?)
        .map_err(|error| place.at("turns").error("gold operations").with_source(error))
}

fn conversation(value: &Value, place: &Place) -> Result<Conversation> {
    let map = value.as_object().ok_or_else(|| place.error("an object"))?;
    let speaker_a = place.text(value, "speaker_a")?;
    let speaker_b = place.text(value, "speaker_b")?;
    // The released file dates sessions that it does not hold; those dates are of no use.
    let mut numbers: Vec<usize> =
        map.keys().filter_map(|key| key.strip_prefix("session_")?.parse().ok()).collect();
    numbers.sort_unstable();
    let mut sessions = Vec::new();
    for number in numbers {
        let key = format!("session_{number}");
        let date_key = format!("{key}_date_time");
        let date_time = place.text(value, &date_key)?;
        let at = Timestamp::parse(&date_time)
            .map_err(|error| place.at(&date_key).error("a time").with_source(error))?;
        let mut turns = Vec::new();
        for (i, record) in place.list(value, &key)?.iter().enumerate() {
            let place = place.at(&format!("{key}: turn {i}"));
            let turn = Turn {
                speaker: place.text(record, "speaker")?,
                dia_id: place.text(record, "dia_id")?,
                text: place.text(record, "text")?,
                blip_caption: place.scalar(record, "blip_caption")?,
            };
            if turn.speaker != speaker_a && turn.speaker != speaker_b {
                return Err(place.at("speaker").error(&format!("{speaker_a:?} or {speaker_b:?}")));
            }
            turns.push(turn);
        }
        sessions.push(Session { number, at, date_time, turns });
    }
    if sessions.is_empty() {
        return Err(place.error("a session"));
    }
    Ok(Conversation { speaker_a, speaker_b, sessions })
}

fn question(value: &Value, place: &Place, turns: &BTreeSet<&str>, malformed: &mut usize) -> Result<Question> {
    let category = place
        .field(value, "category")?
        .as_u64()
        .filter(|category| (1..=5).contains(category))
        .ok_or_else(|| place.at("category").error("a number from 1 to 5"))?;
    let mut evidence = Vec::new();
    for (i, item) in place.list(value, "evidence")?.iter().enumerate() {
        let text = item.as_str().ok_or_else(|| place.at(&format!("evidence {i}")).error("a string"))?;
        // Some entries name several turns at once, "D9:1 D4:4 D4:6" or "D8:6; D9:17".
        for part in text.split([' ', ';', ',']).filter(|part| !part.is_empty()) {
            match normal_dia_id(part).filter(|id| turns.contains(id.as_str())) {
                Some(id) => evidence.push(id),
                None => *malformed += 1,
            }
        }
    }
    let question = Question {
        question: place.text(value, "question")?,
        answer: place.scalar(value, "answer")?,
        adversarial_answer: place.scalar(value, "adversarial_answer")?,
        evidence,
        category: category as u8,
    };
    if question.answer.is_none() && question.category != 5 {
        return Err(place.at("answer").error("an answer; only category 5 has none"));
    }
    Ok(question)
}

/// `D30:05` is `D30:5`; what is not `D<session>:<turn>` is nothing.
pub(super) fn normal_dia_id(text: &str) -> Option<String> {
    let (session, turn) = text.strip_prefix('D')?.split_once(':')?;
    let (session, turn): (usize, usize) = (session.parse().ok()?, turn.parse().ok()?);
    Some(format!("D{session}:{turn}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(change: impl Fn(&mut Value)) -> String {
        let mut value = serde_json::json!([{
            "sample_id": "conv-1",
            "conversation": {
                "speaker_a": "Ann", "speaker_b": "Bob",
                "session_1_date_time": "1:56 pm on 8 May, 2023",
                "session_1": [
                    {"speaker": "Ann", "dia_id": "D1:1", "text": "Hi!"},
                    {"speaker": "Bob", "dia_id": "D1:2", "text": "I painted this in 2022.", "img_url": ["x"]}
                ],
                "session_2_date_time": "1:14 pm on 25 May, 2023"
            },
            "qa": [
                {"question": "When?", "answer": 2022, "evidence": ["D1:2"], "category": 2},
                {"question": "Who?", "answer": "Bob", "evidence": ["D1:01; D1:2", "D", "D:1:2", "D9:9"], "category": 4},
                {"question": "Why?", "evidence": [], "category": 5, "adversarial_answer": "Fun"}
            ]
        }]);
        change(&mut value);
        value.to_string()
    }

    #[test]
    fn numbers_become_text_and_malformed_evidence_is_counted() {
        let data = Dataset::parse(&file(|_| {}), "x.json").unwrap();
        assert_eq!(data.malformed_evidence, 3);
        let sample = &data.samples[0];
        assert_eq!(sample.conversation.sessions.len(), 1);
        assert_eq!(sample.conversation.sessions[0].at.to_string(), "2023-05-08T13:56:00.000Z");
        assert_eq!(sample.questions[0].answer.as_deref(), Some("2022"));
        assert_eq!(sample.questions[1].evidence, ["D1:1", "D1:2"]);
        assert_eq!(sample.questions[2].answer, None);
    }

    #[test]
    fn an_error_names_file_record_and_field() {
        type Change = fn(&mut Value);
        let cases: [(&str, Change); 5] = [
            ("x.json: record 0: conversation: speaker_a", |v| {
                v[0]["conversation"].as_object_mut().unwrap().remove("speaker_a");
            }),
            ("x.json: record 0: conversation: session_1: turn 1: text", |v| {
                v[0]["conversation"]["session_1"][1]["text"] = 3.into();
            }),
            ("x.json: record 0: qa 0: category", |v| v[0]["qa"][0]["category"] = 6.into()),
            ("x.json: record 0: qa 0: answer", |v| {
                v[0]["qa"][0].as_object_mut().unwrap().remove("answer");
            }),
            ("x.json: record 0: conversation: session_1_date_time", |v| {
                v[0]["conversation"]["session_1_date_time"] = "soon".into();
            }),
        ];
        for (expected, change) in cases {
            let error = Dataset::parse(&file(change), "x.json").unwrap_err();
            assert!(error.message().starts_with(expected), "{error}");
        }
        assert!(Dataset::parse("{}", "x.json").is_err());
        assert!(Dataset::parse("[", "x.json").is_err());
    }

    #[test]
    fn the_layout_survives_a_round_trip() {
        let data = Dataset::parse(&file(|_| {}), "x.json").unwrap();
        let text = Value::Array(vec![Value::Object(data.samples[0].to_json())]).to_string();
        let again = Dataset::parse(&text, "y.json").unwrap();
        assert_eq!(again.samples, data.samples);
    }

    #[test]
    fn a_split_is_by_order() {
        let mut data = Dataset::parse(&file(|_| {}), "x.json").unwrap();
        data.samples =
            (0..10).map(|i| Sample { sample_id: i.to_string(), ..data.samples[0].clone() }).collect();
        let ids = |split| data.split(split).iter().map(|s| s.sample_id.clone()).collect::<String>();
        assert_eq!(ids(Split::Train), "0");
        assert_eq!(ids(Split::Val), "1");
        assert_eq!(ids(Split::Test), "23456789");
        assert_eq!(ids(Split::All), "0123456789");
    }
}
