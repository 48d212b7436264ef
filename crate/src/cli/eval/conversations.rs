//! `eval locomo`, `eval longmemeval` and `eval msc`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use futures_lite::future::block_on;
use serde_json::json;

use crate::agents::CONTEXT_TURNS;
use crate::cli::digest::sha256_of_file;
use crate::cli::generate::temperature;
use crate::cli::interrupt::on_interrupt;
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::cli::roles::RoleArguments;
use crate::cli::score::table;
use crate::datasets::locomo::{Dataset, Sample, Split};
use crate::datasets::{Corrections, Dialogue, KnownFacts, TurnFacts, longmemeval, msc, read_corrections};
use crate::error::{Error, ErrorCode, Result};
use crate::evaluation::{
    BenchmarkReport, BenchmarkRun, BenchmarkSettings, Corrected, Judge, RunFolder, System, page,
};

/// Reads conversations turn by turn into two banks, one a speaker, then answers their questions.
/// Ctrl-C keeps what is done; --resume goes on.
#[derive(Debug, Args)]
pub(super) struct Locomo {
    #[command(flatten)]
    common: Common,
    /// Which conversations: the first trains, the second validates, the rest tests. A synthetic
    /// file is one split.
    #[arg(long, value_enum, default_value = "all")]
    split: Part,
    /// Only this conversation: its name, or its place in the split from 1.
    #[arg(long, value_name = "K")]
    conversation: Option<String>,
    /// An audit of the labels (dial481/locomo-audit's errors.json): the scores against its corrected answers
    /// stand beside those against the released ones.
    #[arg(long, value_name = "FILE")]
    label_errors: Option<PathBuf>,
}

/// Reads the sessions of a user and an assistant into the user's bank, for each question anew, and
/// answers it. Ctrl-C keeps what is done; --resume goes on.
#[derive(Debug, Args)]
pub(super) struct LongMemEval {
    #[command(flatten)]
    common: Common,
}

/// Reads the sessions of two speakers into two banks, for each item anew, and answers what one asks
/// the other. Ctrl-C keeps what is done; --resume goes on.
#[derive(Debug, Args)]
pub(super) struct Msc {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// A file in the benchmark's layout (`memory-r1 synth` makes some).
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    models: RoleArguments,
    /// Another model that answers.
    #[arg(long, value_name = "MODEL")]
    answerer: Option<String>,
    /// A model that marks the answers; its name and the hash of its prompt stand in the report.
    #[arg(long, value_name = "MODEL")]
    judge: Option<String>,
    /// What is measured: memory-r1, add-only (every fact is added), rag (turns as they are), full-context
    /// (all turns), oracle (the turns that hold the answer) or no-memory.
    #[arg(long, value_name = "S", default_value_t)]
    system: System,
    /// The paper's ablation without a manager: --system add-only.
    #[arg(long, conflicts_with = "system")]
    no_manager: bool,
    /// The paper's ablation without distillation: the answer agent answers at once, and names no memories.
    #[arg(long)]
    no_distillation: bool,
    /// At most this many questions; conversations behind the last are not read.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// At most this many turns of a conversation, for trying things out.
    #[arg(long, value_name = "N")]
    turns: Option<usize>,
    /// How many turns before a turn the extractor is shown: with the one before, it reads pairs.
    #[arg(long, value_name = "N", default_value_t = CONTEXT_TURNS, value_parser = context_turns)]
    context_turns: usize,
    /// What every turn says, as the facts.json of another run has it: the extractor is not asked, so that managers
    /// and answer agents are compared on the same facts.
    #[arg(long, value_name = "FILE", conflicts_with = "extractor")]
    facts: Option<PathBuf>,
    /// The sampler's temperature; 0 is greedy.
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = temperature)]
    temperature: f32,
    /// The seed of the sampler and of the journals' ids.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The run's folder: questions.jsonl, report.json, report.html, facts.json, and the banks.
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

fn context_turns(text: &str) -> std::result::Result<usize, String> {
    let turns = text.parse().ok().filter(|turns| *turns <= CONTEXT_TURNS);
    turns.ok_or_else(|| format!("a whole number of at most {CONTEXT_TURNS}"))
}

type Dialogues<'a> = Box<dyn Iterator<Item = Result<Dialogue>> + 'a>;

pub(super) fn locomo(arguments: &Locomo, output: &mut Output) -> Result<()> {
    let dataset = Dataset::load(&arguments.common.data)?;
    if dataset.malformed_evidence > 0 {
        output.note(&format!(
            "{} names of evidence turns are malformed and left out",
            dataset.malformed_evidence
        ));
    }
    let samples = choose(arguments, &dataset)?;
    let corrections =
        arguments.label_errors.as_ref().map(|path| read_corrections(path, &dataset)).transpose()?;
    let read = |_: &Path| -> Result<Dialogues<'_>> {
        Ok(Box::new(samples.iter().map(|sample| Ok(Dialogue::from(sample)))))
    };
    let ids: Vec<&str> = samples.iter().map(|sample| sample.sample_id.as_str()).collect();
    run(&arguments.common, "locomo", (&ids, corrections.as_ref()), &read, output)
}

pub(super) fn longmemeval(arguments: &LongMemEval, output: &mut Output) -> Result<()> {
    run(&arguments.common, "longmemeval", (&[], None), &|path| Ok(Box::new(longmemeval::read(path)?)), output)
}

pub(super) fn msc(arguments: &Msc, output: &mut Output) -> Result<()> {
    run(&arguments.common, "msc", (&[], None), &|path| Ok(Box::new(msc::read(path)?)), output)
}

/// Runs a benchmark on what `read` gives; `conversations` are the names of a part of the file, `corrections`
/// those of its labels.
fn run<'d>(
    arguments: &Common,
    benchmark: &str,
    (conversations, corrections): (&[&str], Option<&Corrections>),
    read: &dyn Fn(&Path) -> Result<Dialogues<'d>>,
    output: &mut Output,
) -> Result<()> {
    let settings = BenchmarkSettings {
        system: if arguments.no_manager { System::AddOnly } else { arguments.system },
        no_distillation: arguments.no_distillation,
        limit: arguments.limit,
        turns: arguments.turns,
        context_turns: arguments.context_turns,
        temperature: arguments.temperature,
        seed: arguments.seed,
    };
    let (models, malformed) = arguments.models.load(arguments.answerer.as_deref())?;
    let judge = arguments.judge.as_deref().map(|given| arguments.models.judge(given)).transpose()?;
    let judge = judge.map(|model| Judge::new(model, benchmark));
    let infos = [&models.extractor, &models.manager, &models.answer_agent].map(|own| own.info().clone());
    let device = arguments.models.model.device.name();
    let mut run = json!({
        "benchmark": benchmark,
        "data": sha256_of_file(&arguments.data)?,
        "conversations": conversations,
        "models": infos,
        "judge": judge.as_ref().map(Judge::name),
        "device": device,
        "facts": arguments.facts.as_deref().map(sha256_of_file).transpose()?,
        "settings": settings,
    });
    if let Some(embedder) = &models.embedder {
        run["embedder"] = json!(embedder.info());
    }
    let folder = RunFolder::open(&arguments.out, &run, arguments.resume)?;
    let run = BenchmarkRun {
        models,
        settings,
        folder: &folder,
        cancel: on_interrupt()?,
        judge,
        facts: arguments.facts.as_deref().map(KnownFacts::read).transpose()?,
        concurrency: arguments.models.concurrency.into(),
    };
    let total = run.total(read(&arguments.data)?)?;
    let mut progress = Progress::new(0);
    let done = block_on(run.run(read(&arguments.data)?, total, &mut |at| {
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
    let mut report = BenchmarkReport::new(
        &states,
        &outcomes,
        &run.models,
        malformed.get(),
        run.judge.as_ref(),
        device,
        &run.settings,
    );
    report.corrected = corrections.map(|own| Corrected::new(&outcomes, own, run.settings.seed));
    let facts: BTreeMap<&str, &TurnFacts> =
        states.iter().map(|state| (&*state.sample_id, &state.facts)).collect();
    folder.write("facts.json", &facts)?;
    folder.write("report.json", &report)?;
    folder.write_text("report.html", &page(&report, &states, &outcomes)?)?;
    if let Some(path) = &arguments.journal {
        let mut journals = String::new();
        for place in 0..states.len() {
            journals.push_str(&folder.bank(place)?.unwrap_or_default().journals);
        }
        fs::write(path, journals).map_err(|error| {
            Error::new(ErrorCode::NotReachable, format!("{} could not be written", path.display()))
                .with_source(error)
        })?;
    }
    output.result(&report, || text_of(&report))
}

fn choose<'a>(arguments: &Locomo, dataset: &'a Dataset) -> Result<&'a [Sample]> {
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
            arguments.common.data.display()
        )));
    }
    Ok(chosen)
}

fn text_of(report: &BenchmarkReport) -> String {
    let mut text = table(&report.totals);
    if let Some(own) = &report.corrected {
        let _ = write!(text, "against {} corrected labels\n{}", own.corrections, table(&own.totals));
    }
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
    if let Some(own) = report.stale {
        let _ = writeln!(
            text,
            "{} statements were changed or taken back, {} of them still in a bank",
            own.superseded, own.stale
        );
    }
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
