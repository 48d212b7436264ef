//! `eval locomo`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use futures_lite::future::block_on;
use serde_json::json;

use crate::checkpoint::sha256;
use crate::cli::interrupt::on_interrupt;
use crate::cli::model::ModelArguments;
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::cli::score::table;
use crate::datasets::locomo::{Dataset, Sample, Split};
use crate::error::{Error, ErrorCode, Result};
use crate::evaluation::{LocomoReport, LocomoRun, LocomoSettings, RunFolder, System};

/// Reads conversations turn by turn into two banks, one a speaker, then answers their questions.
/// Ctrl-C keeps what is done; --resume goes on.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A file in LoCoMo's layout (`memory-r1 synth` makes some).
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    model: ModelArguments,
    /// What is measured: memory-r1, add-only (every fact is added), rag (turns as they are), full-context
    /// (all turns), oracle (the turns that hold the answer) or no-memory.
    #[arg(long, value_name = "S", default_value_t)]
    system: System,
    /// Which conversations: the first trains, the second validates, the rest tests. A synthetic
    /// file is one split.
    #[arg(long, value_enum, default_value = "all")]
    split: Part,
    /// Only this conversation: its name, or its place in the split from 1.
    #[arg(long, value_name = "K")]
    conversation: Option<String>,
    /// At most this many questions; conversations behind the last are not read.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// At most this many turns of a conversation, for trying things out.
    #[arg(long, value_name = "N")]
    turns: Option<usize>,
    /// The seed of the sampler and of the journals' ids.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The run's folder: questions.jsonl, report.json, and the banks.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Go on with the run in the folder.
    #[arg(long)]
    resume: bool,
    /// Also write the journals, as `memory-r1 export` does, to this file.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    Train,
    Val,
    Test,
    All,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let name = arguments.data.display().to_string();
    let text = fs::read_to_string(&arguments.data).map_err(|error| {
        Error::new(ErrorCode::NotReachable, format!("{name} could not be read as text")).with_source(error)
    })?;
    let dataset = Dataset::parse(&text, &name)?;
    if dataset.malformed_evidence > 0 {
        output.note(&format!(
            "{} names of evidence turns are malformed and left out",
            dataset.malformed_evidence
        ));
    }
    let samples = choose(arguments, &dataset)?;
    let models = arguments.model.load()?;
    let info = models.manager.info().clone();
    let settings = LocomoSettings {
        system: arguments.system,
        limit: arguments.limit,
        turns: arguments.turns,
        seed: arguments.seed,
    };
    let ids: Vec<&str> = samples.iter().map(|sample| sample.sample_id.as_str()).collect();
    let device = arguments.model.device.name();
    let run = json!({
        "benchmark": "locomo",
        "data": sha256(text.as_bytes()),
        "conversations": ids,
        "model": info.fingerprint,
        "device": device,
        "settings": settings,
    });
    let folder = RunFolder::open(&arguments.out, &run, arguments.resume)?;
    let run = LocomoRun { models, settings, folder: &folder, cancel: on_interrupt()? };
    let mut progress = Progress::new(0);
    let done = block_on(run.run(samples, &mut |at| {
        let what = format!("{} {}", at.sample_id, if at.asking { "questions" } else { "turns" });
        progress.at(at.done as u64, at.total as u64, &what, output);
    }));
    progress.finish();
    let (states, outcomes) = done.map_err(|error| match error.code() {
        ErrorCode::Aborted => Error::new(
            ErrorCode::Aborted,
            format!("stopped; what is done is kept, go on with --resume --out {}", arguments.out.display()),
        ),
        _ => error,
    })?;
    let report = LocomoReport::new(&states, &outcomes, &info, device, &run.settings);
    folder.write("report.json", &report)?;
    if let Some(path) = &arguments.journal {
        let journals: String = states.iter().map(|state| state.journals.as_str()).collect();
        fs::write(path, journals).map_err(|error| {
            Error::new(ErrorCode::NotReachable, format!("{} could not be written", path.display()))
                .with_source(error)
        })?;
    }
    output.result(&report, || text_of(&report))
}

fn choose<'a>(arguments: &Arguments, dataset: &'a Dataset) -> Result<&'a [Sample]> {
    let samples = dataset.split(match arguments.split {
        Part::Train => Split::Train,
        Part::Val => Split::Val,
        Part::Test => Split::Test,
        Part::All => Split::All,
    });
    let chosen = match &arguments.conversation {
        None => samples,
        Some(wanted) => {
            let named = samples.iter().position(|sample| sample.sample_id == *wanted);
            let place = named.or_else(|| wanted.parse::<usize>().ok()?.checked_sub(1));
            place.and_then(|place| samples.get(place..=place)).ok_or_else(|| {
                let ids: Vec<&str> = samples.iter().map(|sample| sample.sample_id.as_str()).collect();
                Error::invalid(format!("there is no conversation {wanted:?}; there are {}", ids.join(", ")))
            })?
        }
    };
    if chosen.is_empty() {
        return Err(Error::invalid(format!(
            "{} has no conversation in this split",
            arguments.data.display()
        )));
    }
    Ok(chosen)
}

fn text_of(report: &LocomoReport) -> String {
    let mut text = table(&report.totals);
    let ops: Vec<String> = report.ops.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let _ = writeln!(
        text,
        "{} turns, {} facts: {}; {} memories in {} conversations",
        report.turns,
        report.facts,
        ops.join(", "),
        report.bank,
        report.conversations
    );
    let evidence = report.evidence;
    let _ = writeln!(
        text,
        "evidence recall@{}: {:.3} of {} questions (kept in the banks: {:.3})",
        evidence.k, evidence.recall, evidence.n, evidence.kept
    );
    let _ = writeln!(
        text,
        "{} with {} on {}, {:.1} s ({:.1} s reading){}",
        report.system,
        report.model,
        report.device,
        report.seconds,
        report.seconds_reading,
        if report.left_out > 0.0 {
            format!("; {:.1} % of what was to be shown did not fit", 100.0 * report.left_out)
        } else {
            String::new()
        }
    );
    text
}
