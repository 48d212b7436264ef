//! Scores of many answers: what can be answered is pooled, the rest stands apart.

use std::collections::BTreeMap;
use std::io::BufRead;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::metrics::{Scores, declines};
use crate::datasets::ADVERSARIAL;
use crate::error::{Error, Result};

/// The name of a question's category: LoCoMo's number, or another benchmark's word.
pub type Category = String;

/// Whether the questions of a category should be declined; no pool holds them.
pub(super) fn is_adversarial(category: &str) -> bool {
    ADVERSARIAL.contains(&category)
}

/// LoCoMo's categories are numbers in JSON, others' strings.
pub(super) mod category_as_json {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Category;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Word(Category),
    }

    pub(crate) fn serialize<S: Serializer>(category: &str, to: S) -> Result<S::Ok, S::Error> {
        match category.parse::<u64>() {
            Ok(number) => to.serialize_u64(number),
            Err(_) => to.serialize_str(category),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Category, D::Error> {
        Ok(match Written::deserialize(from)? {
            Written::Number(number) => number.to_string(),
            Written::Word(word) => word,
        })
    }
}

/// A prediction beside its gold answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// What was answered.
    pub prediction: String,
    /// What should have been; empty for an adversarial question without one.
    pub answer: String,
    /// What sort of question it was, where that is known.
    pub category: Option<Category>,
}

/// The means over one category.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CategoryScores {
    /// How many questions.
    pub n: usize,
    /// The means.
    #[serde(flatten)]
    pub scores: Scores,
    /// The share of answers that say that they do not know: what questions without an answer ask for.
    pub declined: f64,
}

/// The means over a benchmark.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// How many questions are pooled: all that can be answered.
    pub n: usize,
    /// Their means.
    #[serde(flatten)]
    pub scores: Scores,
    /// The means of each category by itself.
    pub by_category: BTreeMap<Category, CategoryScores>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    n: usize,
    scores: Scores,
    declined: usize,
}

impl Sums {
    fn add(&mut self, scores: Scores, declined: bool) {
        self.n += 1;
        self.scores.f1 += scores.f1;
        self.scores.bleu1 += scores.bleu1;
        self.scores.exact_match += scores.exact_match;
        self.scores.locomo_f1 += scores.locomo_f1;
        self.declined += usize::from(declined);
    }

    fn means(&self) -> CategoryScores {
        let mean = |sum: f64| if self.n == 0 { 0.0 } else { sum / self.n as f64 };
        CategoryScores {
            n: self.n,
            scores: Scores {
                f1: mean(self.scores.f1),
                bleu1: mean(self.scores.bleu1),
                exact_match: mean(self.scores.exact_match),
                locomo_f1: mean(self.scores.locomo_f1),
            },
            declined: mean(self.declined as f64),
        }
    }
}

/// Adds up scores as answers come in.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pooled: Sums,
    by_category: BTreeMap<Category, Sums>,
}

impl Tally {
    /// Scores one answer and takes it in.
    pub fn add(&mut self, pair: &Pair) -> Scores {
        let scores = Scores::of(&pair.prediction, &pair.answer, pair.category.as_deref());
        let declined = declines(&pair.prediction);
        if !pair.category.as_deref().is_some_and(is_adversarial) {
            self.pooled.add(scores, declined);
        }
        if let Some(category) = &pair.category {
            self.by_category.entry(category.clone()).or_default().add(scores, declined);
        }
        scores
    }

    /// The means so far.
    pub fn totals(&self) -> Totals {
        let pooled = self.pooled.means();
        Totals {
            n: pooled.n,
            scores: pooled.scores,
            by_category: self.by_category.iter().map(|(name, sums)| (name.clone(), sums.means())).collect(),
        }
    }
}

/// Reads JSON lines of `{"prediction", "answer", "category"}`; the last may be absent, and
/// numbers are taken for their text. An error names the line.
pub fn read_pairs(lines: impl BufRead) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for (number, line) in (1..).zip(lines.lines()) {
        let wrong = |why: String| Error::invalid(format!("line {number}: {why}"));
        let line = line.map_err(|error| wrong("not UTF-8 text".into()).with_source(error))?;
        if line.trim().is_empty() {
            continue;
        }
        let value: Value =
            serde_json::from_str(&line).map_err(|error| wrong(format!("not JSON: {error}")))?;
        if !value.is_object() {
            return Err(wrong("a pair is an object of prediction, answer and category".into()));
        }
        let category = scalar(&value["category"])
            .map_err(|()| wrong("category: expected a number or a string".into()))?;
        let field = |name: &str| {
            let text =
                scalar(&value[name]).map_err(|()| wrong(format!("{name}: expected a string or a number")))?;
            match text {
                Some(text) => Ok(text),
                // The released file has no gold answers in category 5.
                None if name == "answer" && category.as_deref().is_some_and(is_adversarial) => {
                    Ok(String::new())
                }
                None => Err(wrong(format!("{name} is missing"))),
            }
        };
        pairs.push(Pair {
            prediction: field("prediction")?,
            answer: field("answer")?,
            category: category.clone(),
        });
    }
    Ok(pairs)
}

fn scalar(value: &Value) -> Result<Option<String>, ()> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Number(number) => Ok(Some(number.to_string())),
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn category_5_stands_apart_and_the_rest_is_pooled_by_question() {
        let lines = r#"{"prediction": "Lyon", "answer": "Lyon", "category": 1}
            {"prediction": "a red car", "answer": "blue", "category": 4}

            {"prediction": 2022, "answer": "2022"}
            {"prediction": "I don't know", "category": 5}"#;
        let mut tally = Tally::default();
        for pair in read_pairs(lines.as_bytes()).unwrap() {
            tally.add(&pair);
        }
        let totals = tally.totals();
        assert_eq!(totals.n, 3);
        assert!((totals.scores.exact_match - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(totals.by_category.keys().collect::<Vec<_>>(), ["1", "4", "5"]);
        assert!((totals.by_category["5"].declined - 1.0).abs() < 1e-12);
        assert!((totals.by_category["1"].scores.f1 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn an_error_names_its_line() {
        for (text, expected) in [
            ("\n{", "line 2: not JSON"),
            ("[]", "line 1: a pair is an object"),
            (r#"{"answer": "x"}"#, "line 1: prediction is missing"),
            (r#"{"prediction": "x", "category": 4}"#, "line 1: answer is missing"),
            (r#"{"prediction": ["x"], "answer": "x"}"#, "line 1: prediction: expected a string"),
        ] {
            let error = read_pairs(text.as_bytes()).unwrap_err();
            assert!(error.message().starts_with(expected), "{error}");
        }
    }
}
