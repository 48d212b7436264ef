//! `eval ops`: a bank, a turn, and which operations are right.
//!
//! A case runs the whole pipeline: the extractor takes facts out of the turn, and for each the
//! manager decides on the bank that the ones before it left.

use std::collections::{BTreeMap, HashMap};
use std::io::BufRead;
use std::rc::Rc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::agents::{AddOptions, MemoryAgent, Models};
use crate::bank::{
    Change, Journal, MemoryId, Operation, OperationKind, Role, Scope, Timestamp, Turn, seeded_journal_id,
};
use crate::datasets::synthetic::{Accept, OpsCase};
use crate::error::{Error, Result};
use crate::store::{InMemoryStore, Store};

/// How long before the turn a case's memories were said: cases do not say.
const BEFORE: i64 = 7 * 24 * 3_600_000;

/// What the pipeline did with one fact of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// The fact that the extractor took out.
    pub fact: String,
    /// `ADD`, `UPDATE`, `DELETE` or `NOOP`.
    pub op: String,
    /// The case's id of the memory; null for ADD, NOOP, and a memory that the turn itself added.
    pub target: Option<String>,
    /// The text after.
    pub text: String,
    /// The case's ids of the memories that the manager was shown.
    pub shown: Vec<String>,
    /// The probability of the operation.
    pub probability: f64,
    /// How sure the extractor was of the fact.
    pub fact_probability: f64,
}

/// How a case went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpsOutcome {
    /// The case.
    pub id: String,
    /// Whether the operations are one that the case accepts, and nothing else but NOOP.
    pub passed: bool,
    /// What would be right.
    pub accept: Vec<Accept>,
    /// What was said.
    pub turn: String,
    /// What the case is about; empty where it does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub relation: String,
    /// Whether a memory that is easily taken for the target was there.
    #[serde(default)]
    pub lookalike: bool,
    /// What the pipeline did.
    pub decided: Vec<Decided>,
}

/// How often one operation came out right.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpScores {
    /// How many cases ask for it.
    pub n: usize,
    /// How many passed.
    pub passed: usize,
    /// The share.
    pub accuracy: f64,
    /// What was done instead or as asked: `ADD`, `UPDATE+ADD`, … or `NOOP`.
    pub decided: BTreeMap<String, usize>,
}

/// How many of some cases passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// How many there are.
    pub n: usize,
    /// How many passed.
    pub passed: usize,
}

impl Share {
    fn count(&mut self, passed: bool) {
        self.n += 1;
        self.passed += usize::from(passed);
    }
}

/// Of the cases whose operation has a target, how many showed it to the manager.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TargetRecall {
    /// How many memories a manager is shown.
    pub k: usize,
    /// How many cases have a target.
    pub n: usize,
    /// The share that was shown it; a turn without a fact shows nothing.
    pub recall: f64,
    /// The same among the cases where the extractor found a fact.
    pub recall_with_fact: f64,
}

/// The totals of `eval ops`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpsTotals {
    /// How many cases.
    pub n: usize,
    /// How many passed.
    pub passed: usize,
    /// The share.
    pub accuracy: f64,
    /// By the first operation that a case accepts.
    pub by_op: BTreeMap<String, OpScores>,
    /// Whether the manager saw what it should change.
    pub target_recall: TargetRecall,
    /// By what the cases are about, where they say it.
    pub by_relation: BTreeMap<String, Share>,
    /// Cases with a target, without and with a memory that is easily taken for it.
    pub by_lookalike: [Share; 2],
    /// Cases whose target was shown, by its place from the first shown.
    pub by_place: Vec<Share>,
}

/// Reads cases, one JSON object a line; an error names the line.
pub fn read_cases(lines: impl BufRead) -> Result<Vec<OpsCase>> {
    let mut cases: Vec<OpsCase> = Vec::new();
    for (number, line) in (1..).zip(lines.lines()) {
        let wrong = |why: String| Error::invalid(format!("line {number}: {why}"));
        let line = line.map_err(|error| wrong("not UTF-8 text".into()).with_source(error))?;
        if line.trim().is_empty() {
            continue;
        }
        let case: OpsCase =
            serde_json::from_str(&line).map_err(|error| wrong(format!("not a case: {error}")))?;
        check(&case).map_err(|error| wrong(error.message().to_owned()))?;
        cases.push(case);
    }
    Ok(cases)
}

fn check(case: &OpsCase) -> Result<()> {
    let ids: Vec<&str> = case.memories.iter().map(|memory| memory.id.as_str()).collect();
    if ids.iter().enumerate().any(|(place, id)| ids[..place].contains(id)) {
        return Err(Error::invalid(format!("case {:?} has two memories of one id", case.id)));
    }
    if case.accept.is_empty() {
        return Err(Error::invalid(format!("case {:?} accepts nothing", case.id)));
    }
    for accept in &case.accept {
        if !["ADD", "UPDATE", "DELETE", "NOOP", "NONE"].contains(&accept.op.as_str()) {
            return Err(Error::invalid(format!(
                "{:?} is not an operation; write ADD, UPDATE, DELETE or NOOP",
                accept.op
            )));
        }
        if let Some(target) = &accept.target
            && !ids.contains(&target.as_str())
        {
            return Err(Error::invalid(format!("the target {target:?} is not one of the case's memories")));
        }
    }
    Ok(())
}

/// The bank of a case, and the case's ids of its memories.
pub(super) fn bank_of(case: &OpsCase, seed: u64) -> Result<(Journal, HashMap<MemoryId, String>)> {
    let scope = Scope::user("case");
    let now = case.turn.timestamp;
    let mut journal = Journal::new(seeded_journal_id(seed, &scope), scope)?;
    let said = Timestamp::from_millis(now.millis() - BEFORE).unwrap_or(now);
    let mut names: HashMap<MemoryId, String> = HashMap::new();
    for memory in &case.memories {
        let mut draft = journal.draft(said);
        let operation = Operation::Add { text: memory.text.clone() };
        draft.apply(&operation, Change::by_user(&case.turn.speaker, said))?;
        journal.append(draft.finish())?;
        names.extend(journal.events().last().map(|event| (event.id.clone(), memory.id.clone())));
    }
    Ok((journal, names))
}

/// Runs one case on a bank of its own.
pub async fn run_case(models: &Models, case: &OpsCase, options: &AddOptions) -> Result<OpsOutcome> {
    let seed = options.sampling.seed;
    let (journal, names) = bank_of(case, seed)?;
    let (scope, now) = (journal.scope().clone(), case.turn.timestamp);
    let store = Rc::new(InMemoryStore::default());
    store.append(&scope, 0, journal.events()).await?;
    let agent = MemoryAgent::new(
        models.clone(),
        store,
        Rc::new(move || now),
        Rc::new(move |scope| seeded_journal_id(seed, scope)),
    );
    let turn = Turn {
        role: Role::User,
        speaker: case.turn.speaker.clone(),
        content: case.turn.text.clone(),
        timestamp: now,
    };
    let results = agent.add(&[turn], &scope, options).await?;
    let decided: Vec<Decided> = results
        .into_iter()
        .map(|result| {
            let receipt = result.receipt.as_ref();
            Decided {
                fact: result.fact,
                op: op_name(result.event).to_owned(),
                target: match result.event {
                    OperationKind::Add | OperationKind::Noop => None,
                    _ => result.id.as_ref().and_then(|id| names.get(id).cloned()),
                },
                text: result.memory,
                shown: receipt.map_or(Vec::new(), |receipt| {
                    receipt.shown.iter().filter_map(|id| names.get(id).cloned()).collect()
                }),
                probability: receipt.map_or(1.0, |receipt| receipt.probability),
                fact_probability: receipt.and_then(|receipt| receipt.fact_probability).unwrap_or(1.0),
            }
        })
        .collect();
    let passed = case.accept.iter().any(|accept| accepts(accept, &decided));
    Ok(OpsOutcome {
        id: case.id.clone(),
        passed,
        accept: case.accept.clone(),
        turn: case.turn.text.clone(),
        relation: case.relation.clone(),
        lookalike: case.lookalike,
        decided,
    })
}

/// The operations but for NOOP, which does nothing.
fn changes(decided: &[Decided]) -> Vec<&Decided> {
    decided.iter().filter(|decided| decided.op != "NOOP").collect()
}

fn accepts(accept: &Accept, decided: &[Decided]) -> bool {
    let changes = changes(decided);
    if file_name(&accept.op) == "NOOP" {
        return changes.is_empty();
    }
    let [only] = changes[..] else { return false };
    // A DELETE stores no text that could hold the words.
    let holds = accept.op == "DELETE" || accepts_text(accept, &only.text);
    only.op == accept.op && (accept.op == "ADD" || only.target == accept.target) && holds
}

/// Whether a text that is stored holds the words that it must.
pub(super) fn accepts_text(accept: &Accept, text: &str) -> bool {
    let text = text.to_lowercase();
    accept.contains.iter().all(|word| text.contains(&word.to_lowercase()))
}

/// NOOP is NONE on the wire; the files write the first.
fn file_name(op: &str) -> &str {
    if op == "NONE" { "NOOP" } else { op }
}

fn op_name(kind: OperationKind) -> &'static str {
    file_name(kind.wire_name())
}

/// Adds up the outcomes; `k` is how many memories a manager is shown.
pub fn ops_totals(outcomes: &[OpsOutcome], k: usize) -> OpsTotals {
    let share = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let mut totals = OpsTotals { n: outcomes.len(), ..OpsTotals::default() };
    let (mut targets, mut with_fact, mut shown) = (0, 0, 0);
    for outcome in outcomes {
        totals.passed += usize::from(outcome.passed);
        let first = &outcome.accept[0];
        let by_op = totals.by_op.entry(file_name(&first.op).to_owned()).or_default();
        by_op.n += 1;
        by_op.passed += usize::from(outcome.passed);
        let ops: Vec<&str> = changes(&outcome.decided).iter().map(|decided| decided.op.as_str()).collect();
        let name = if ops.is_empty() { "NOOP".to_owned() } else { ops.join("+") };
        *by_op.decided.entry(name).or_default() += 1;
        if !outcome.relation.is_empty() {
            totals.by_relation.entry(outcome.relation.clone()).or_default().count(outcome.passed);
        }
        if let Some(target) = &first.target {
            totals.by_lookalike[usize::from(outcome.lookalike)].count(outcome.passed);
            let place = |decided: &Decided| decided.shown.iter().position(|id| id == target);
            if let Some(place) = outcome.decided.iter().find_map(place) {
                totals.by_place.resize(totals.by_place.len().max(place + 1), Share::default());
                totals.by_place[place].count(outcome.passed);
            }
            targets += 1;
            with_fact += usize::from(!outcome.decided.is_empty());
            shown += usize::from(outcome.decided.iter().any(|decided| decided.shown.contains(target)));
        }
    }
    totals.accuracy = share(totals.passed, totals.n);
    for by_op in totals.by_op.values_mut() {
        by_op.accuracy = share(by_op.passed, by_op.n);
    }
    totals.target_recall = TargetRecall {
        k,
        n: targets,
        recall: share(shown, targets),
        recall_with_fact: share(shown, with_fact),
    };
    totals
}

/// How long it took since, in seconds to the millisecond.
pub(super) fn seconds_since(start: Instant) -> f64 {
    start.elapsed().as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(op: &str, target: Option<&str>, text: &str) -> Decided {
        Decided {
            fact: text.to_owned(),
            op: op.to_owned(),
            target: target.map(str::to_owned),
            text: text.to_owned(),
            shown: vec!["a".to_owned()],
            probability: 1.0,
            fact_probability: 1.0,
        }
    }

    fn accept(op: &str, target: Option<&str>, contains: &[&str]) -> Accept {
        Accept {
            op: op.to_owned(),
            target: target.map(str::to_owned),
            contains: contains.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    #[test]
    fn a_case_passes_on_its_operation_target_and_words_and_nothing_beside_it() {
        let right = decided("UPDATE", Some("a"), "Lives in Rome");
        let none = decided("NOOP", None, "Likes tea");
        let update = accept("UPDATE", Some("a"), &["rome"]);
        assert!(accepts(&update, &[none.clone(), right.clone()]));
        assert!(!accepts(&update, &[right.clone(), right.clone()]));
        assert!(!accepts(&update, &[decided("UPDATE", Some("b"), "Lives in Rome")]));
        assert!(!accepts(&update, &[decided("UPDATE", Some("a"), "Lives in Lyon")]));
        assert!(!accepts(&update, &[]));
        assert!(accepts(&accept("DELETE", Some("a"), &["x"]), &[decided("DELETE", Some("a"), "Has a car")]));
        assert!(accepts(&accept("NOOP", None, &[]), &[none]) && accepts(&accept("NONE", None, &[]), &[]));
        assert!(!accepts(&accept("NOOP", None, &[]), &[right]));
        assert!(accepts(&accept("ADD", None, &["Tea"]), &[decided("ADD", None, "Likes green tea")]));
    }

    #[test]
    fn totals_count_by_the_operation_that_was_asked_for() {
        let outcome = |passed, accept: Accept, decided: Vec<Decided>| OpsOutcome {
            id: String::new(),
            passed,
            accept: vec![accept],
            turn: String::new(),
            relation: "home".to_owned(),
            lookalike: true,
            decided,
        };
        let outcomes = [
            outcome(true, accept("UPDATE", Some("a"), &[]), vec![decided("UPDATE", Some("a"), "x")]),
            outcome(false, accept("UPDATE", Some("b"), &[]), vec![decided("ADD", None, "x")]),
            outcome(false, accept("DELETE", Some("a"), &[]), vec![]),
            outcome(true, accept("NONE", None, &[]), vec![]),
        ];
        let totals = ops_totals(&outcomes, 5);
        assert_eq!((totals.n, totals.passed), (4, 2));
        assert_eq!(totals.by_op.keys().collect::<Vec<_>>(), ["DELETE", "NOOP", "UPDATE"]);
        assert_eq!(totals.by_op["UPDATE"].decided, BTreeMap::from([("ADD".into(), 1), ("UPDATE".into(), 1)]));
        assert!((totals.target_recall.recall - 1.0 / 3.0).abs() < 1e-12);
        assert!((totals.target_recall.recall_with_fact - 0.5).abs() < 1e-12);
        assert_eq!(totals.by_relation["home"], Share { n: 4, passed: 2 });
        assert_eq!(totals.by_lookalike, [Share::default(), Share { n: 3, passed: 1 }]);
        assert_eq!(totals.by_place, [Share { n: 1, passed: 1 }]);
    }

    #[test]
    fn a_wrong_case_is_refused_with_its_line() {
        let line = |accept: &str| {
            format!(
                r#"{{"id":"x","memories":[{{"id":"a","text":"Has a dog"}}],"turn":{{"speaker":"Ann","text":"Hi","timestamp":"2024-03-02"}},"accept":[{accept}]}}"#
            )
        };
        let good = line(r#"{"op":"UPDATE","target":"a","contains":["dog"]}"#);
        assert_eq!(read_cases(good.as_bytes()).unwrap().len(), 1);
        for (bad, expected) in [
            (line(r#"{"op":"KEEP","target":null}"#), "not an operation"),
            (line(r#"{"op":"DELETE","target":"z"}"#), "not one of the case's memories"),
            (line(""), "accepts nothing"),
            ("{}".to_owned(), "not a case"),
        ] {
            let error = read_cases(format!("{good}\n{bad}\n").as_bytes()).unwrap_err();
            assert!(error.message().starts_with("line 2") && error.message().contains(expected), "{error}");
        }
    }
}
