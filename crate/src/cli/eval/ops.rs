//! `eval ops`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use futures::stream::{self, StreamExt as _};
use futures_lite::future::block_on;
use serde::Serialize;

use crate::agents::{AddOptions, Models};
use crate::cli::interrupt::on_interrupt;
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::cli::roles::RoleArguments;
use crate::datasets::synthetic::OpsCase;
use crate::error::{Error, ErrorCode, Result};
use crate::evaluation::{
    OpsOutcome, OpsTotals, PlaceTotals, Share, ops_totals, read_cases, run_case, run_places,
};
use crate::generation::{Cancel, Sampling};

/// Each case is a bank and a turn; it passes when the pipeline decides an operation that the case
/// accepts, and nothing else but NOOP.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The cases, JSON lines (`memory-r1 synth --ops` makes some).
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    models: RoleArguments,
    /// At most this many cases.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// The seed of the sampler.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write what became of each case to DIR/cases.jsonl, and the totals to DIR/report.json.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Run the manager alone on each case that has a target and says its fact, with the target in each
    /// place among the memories in turn.
    #[arg(long, conflicts_with_all = ["out", "worst"])]
    places: bool,
    /// Give the manager the fact that each case states (none where it states none), in the
    /// extractor's place.
    #[arg(long, conflicts_with = "places")]
    given_facts: bool,
    /// Print this many cases that failed, the surest mistakes first.
    #[arg(long, value_name = "N", default_value_t = 0)]
    worst: usize,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    totals: OpsTotals,
    device: &'static str,
    model: String,
    fingerprint: String,
    /// The encoder's fingerprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    embedder: Option<String>,
    /// How often models wrote what is not of the form that was asked for.
    malformed: usize,
    seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    worst: Vec<OpsOutcome>,
}

/// The first cases of a file, all without a limit; there must be one.
pub(super) fn read(path: &Path, limit: Option<usize>) -> Result<Vec<OpsCase>> {
    let name = path.display();
    let file = File::open(path).map_err(|error| {
        Error::new(ErrorCode::NotReachable, format!("{name} could not be read")).with_source(error)
    })?;
    let mut cases = read_cases(BufReader::new(file))
        .map_err(|error| Error::new(error.code(), format!("{name}: {}", error.message())))?;
    cases.truncate(limit.unwrap_or(usize::MAX));
    if cases.is_empty() {
        return Err(Error::invalid(format!("{name} holds no cases")));
    }
    Ok(cases)
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let cases = read(&arguments.data, arguments.limit)?;
    let (models, malformed) = arguments.models.load(None)?;
    let cancel = on_interrupt()?;
    if arguments.places {
        return places(arguments, &models, &cases, &cancel, output);
    }
    let start = Instant::now();
    let mut progress = Progress::new(cases.len() as u64);
    let run = async |case: &OpsCase| {
        let options = AddOptions {
            facts: arguments.given_facts.then(|| vec![case.fact.iter().cloned().collect()]),
            sampling: Sampling { seed: arguments.seed, ..Sampling::default() },
            cancel: cancel.clone(),
            ..AddOptions::default()
        };
        run_case(&models, case, &options).await.map_err(|error| of_case(case, &error))
    };
    let mut outcomes = Vec::with_capacity(cases.len());
    block_on(async {
        let mut running = stream::iter(cases.iter().map(run)).buffered(arguments.models.concurrency.into());
        while let Some(outcome) = running.next().await {
            outcomes.push(outcome?);
            progress.at(outcomes.len() as u64, cases.len() as u64, "cases", output);
        }
        Ok::<_, Error>(())
    })?;
    progress.finish();
    let info = models.manager.info();
    let mut report = Report {
        totals: ops_totals(&outcomes, info.manager_candidates),
        device: arguments.models.model.device.name(),
        model: info.name.clone(),
        fingerprint: info.fingerprint.clone(),
        embedder: models.embedder.as_ref().map(|own| own.info().fingerprint.clone()),
        malformed: malformed.get(),
        seconds: start.elapsed().as_millis() as f64 / 1000.0,
        worst: Vec::new(),
    };
    if let Some(folder) = &arguments.out {
        write(folder, &outcomes, &report).map_err(|error| {
            Error::new(ErrorCode::NotReachable, format!("{} could not be written", folder.display()))
                .with_source(error)
        })?;
    }
    report.worst = worst(outcomes, arguments.worst);
    output.result(&report, || text(&report))
}

fn of_case(case: &OpsCase, error: &Error) -> Error {
    Error::new(error.code(), format!("case {}: {}", case.id, error.message()))
}

fn places(
    arguments: &Arguments,
    models: &Models,
    cases: &[OpsCase],
    cancel: &Cancel,
    output: &mut Output,
) -> Result<()> {
    let mut progress = Progress::new(cases.len() as u64);
    let mut totals = PlaceTotals::default();
    for (done, case) in (1..).zip(cases) {
        let passed = block_on(run_places(models, case, arguments.seed, cancel))
            .map_err(|error| of_case(case, &error))?;
        if let Some(passed) = passed {
            totals.add(&passed);
        }
        progress.at(done, cases.len() as u64, "cases", output);
    }
    progress.finish();
    output.result(&totals, || {
        let share = |passed: &usize| format!("{:.3}", *passed as f64 / totals.n.max(1) as f64);
        let shares: Vec<String> = totals.passed.iter().map(share).collect();
        format!(
            "{} cases with the right fact; target in the first to the last place: {}",
            totals.n,
            shares.join(", ")
        )
    })
}

fn write(folder: &Path, outcomes: &[OpsOutcome], report: &Report) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut cases = BufWriter::new(File::create(folder.join("cases.jsonl"))?);
    for outcome in outcomes {
        serde_json::to_writer(&mut cases, outcome)?;
        cases.write_all(b"\n")?;
    }
    cases.flush()?;
    fs::write(folder.join("report.json"), serde_json::to_string_pretty(report)? + "\n")
}

/// How many relations are named whose cases failed most.
const RELATIONS: usize = 10;

/// The failed cases, those first where the wrong operation was the most probable.
fn worst(outcomes: Vec<OpsOutcome>, most: usize) -> Vec<OpsOutcome> {
    let surest =
        |outcome: &OpsOutcome| outcome.decided.iter().map(|decided| decided.probability).fold(0.0, f64::max);
    let mut failed: Vec<OpsOutcome> = outcomes.into_iter().filter(|outcome| !outcome.passed).collect();
    failed.sort_by(|a, b| surest(b).total_cmp(&surest(a)));
    failed.truncate(most);
    failed
}

fn text(report: &Report) -> String {
    let totals = &report.totals;
    let mut text = format!("{:<8} {:>5} {:>7} {:>9}  decided\n", "asked", "n", "passed", "accuracy");
    for (op, scores) in &totals.by_op {
        let decided: Vec<String> =
            scores.decided.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let _ = writeln!(
            text,
            "{op:<8} {:>5} {:>7} {:>9.3}  {}",
            scores.n,
            scores.passed,
            scores.accuracy,
            decided.join(", ")
        );
    }
    let _ = writeln!(text, "{:<8} {:>5} {:>7} {:>9.3}", "all", totals.n, totals.passed, totals.accuracy);
    let recall = totals.target_recall;
    let _ = writeln!(
        text,
        "target recall@{}: {:.3} of {} cases ({:.3} where a fact was found)",
        recall.k, recall.recall, recall.n, recall.recall_with_fact
    );
    let part = |share: &Share| format!("{} of {}", share.passed, share.n);
    let [without, with] = &totals.by_lookalike;
    if with.n > 0 {
        let _ = writeln!(text, "targets without a look-alike: {}; with one: {}", part(without), part(with));
    }
    let places: Vec<String> = totals.by_place.iter().map(part).collect();
    if !places.is_empty() {
        let _ = writeln!(text, "targets by their place, best last: {}", places.join(", "));
    }
    let mut relations: Vec<(&String, &Share)> = totals.by_relation.iter().collect();
    relations.sort_by_key(|(_, share)| std::cmp::Reverse(share.n - share.passed));
    let relations: Vec<String> =
        relations.iter().take(RELATIONS).map(|(name, share)| format!("{name} {}", part(share))).collect();
    if !relations.is_empty() {
        let _ = writeln!(text, "most missed: {}", relations.join(", "));
    }
    if report.malformed > 0 {
        let _ = writeln!(text, "{} outputs were not of the form that was asked for", report.malformed);
    }
    let _ = writeln!(text, "{} on {}, {:.1} s", report.model, report.device, report.seconds);
    for outcome in &report.worst {
        let _ = writeln!(text, "\n{}  {:?}", outcome.id, outcome.turn);
        for accept in &outcome.accept {
            let target = accept.target.as_deref().unwrap_or("-");
            let _ = writeln!(text, "  wanted  {} {target} {:?}", accept.op, accept.contains);
        }
        if outcome.decided.is_empty() {
            let _ = writeln!(text, "  decided nothing: no fact was found");
        }
        for decided in &outcome.decided {
            let target = decided.target.as_deref().unwrap_or("-");
            let _ = writeln!(
                text,
                "  decided {} {target} {:?} (p {:.3}) for {:?}",
                decided.op, decided.text, decided.probability, decided.fact
            );
        }
    }
    text
}
