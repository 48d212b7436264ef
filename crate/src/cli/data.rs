//! `data`: where the benchmarks' data come from, and whether a file is what they released.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::Output;
use crate::checkpoint::sha256;
use crate::datasets::locomo::{Dataset, Sample, Split};
use crate::error::{Error, ErrorCode, Result};

/// Where a benchmark's data come from and under which licence; counts and verifies a file.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    set: Set,
}

#[derive(Debug, Subcommand)]
enum Set {
    /// Very long conversations of two speakers, with questions of five categories.
    Locomo(File),
}

#[derive(Debug, Args)]
struct File {
    /// The file to count and to verify.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// What a benchmark released.
#[derive(Clone, Copy, Serialize)]
struct Release {
    name: &'static str,
    source: &'static str,
    path: &'static str,
    licence: &'static str,
    sha256: &'static str,
}

const LOCOMO: Release = Release {
    name: "LoCoMo",
    source: "https://github.com/snap-research/LoCoMo",
    path: "data/locomo10.json",
    licence: "CC-BY-NC-4.0",
    sha256: "79fa87e90f04081343b8c8debecb80a9a6842b76a7aa537dc9fdf651ea698ff4",
};

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    release: Release,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<Counted>,
}

#[derive(Serialize)]
struct Counted {
    sha256: String,
    /// Whether it is the file that was released.
    verified: bool,
    #[serde(flatten)]
    all: Counts,
    /// Names of evidence turns that no turn has.
    malformed_evidence: usize,
    /// The paper's parts, by conversation in the file's order.
    splits: BTreeMap<&'static str, Counts>,
}

#[derive(Serialize)]
struct Counts {
    conversations: usize,
    turns: usize,
    questions: usize,
    /// Those of categories 1 to 4, which the paper counts and scores.
    scored: usize,
    /// By LoCoMo's number: 1 multi-hop, 2 temporal, 3 open-domain, 4 single-hop, 5 adversarial.
    by_category: BTreeMap<u8, usize>,
}

impl Counts {
    fn of(samples: &[Sample]) -> Self {
        let mut by_category: BTreeMap<u8, usize> = (1..=5).map(|number| (number, 0)).collect();
        for question in samples.iter().flat_map(|sample| &sample.questions) {
            *by_category.entry(question.category).or_default() += 1;
        }
        let sessions = samples.iter().flat_map(|sample| &sample.conversation.sessions);
        Self {
            conversations: samples.len(),
            turns: sessions.map(|session| session.turns.len()).sum(),
            questions: by_category.values().sum(),
            scored: by_category.range(1..=4).map(|(_, count)| count).sum(),
            by_category,
        }
    }
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let Set::Locomo(File { file }) = &arguments.set;
    let counted = file.as_ref().map(|path| {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| {
            Error::new(ErrorCode::NotReachable, format!("{name} could not be read as text"))
                .with_source(error)
        })?;
        let dataset = Dataset::parse(&text, &name)?;
        let parts = [("train", Split::Train), ("val", Split::Val), ("test", Split::Test)];
        let sha256 = sha256(text.as_bytes());
        Ok(Counted {
            verified: sha256 == LOCOMO.sha256,
            sha256,
            all: Counts::of(&dataset.samples),
            malformed_evidence: dataset.malformed_evidence,
            splits: parts.map(|(name, split)| (name, Counts::of(dataset.split(split)))).into(),
        })
    });
    let report = Report { release: LOCOMO, file: counted.transpose()? };
    output.result(&report, || text(&report))
}

fn text(report: &Report) -> String {
    let Release { name, source, path, licence, sha256 } = report.release;
    let mut text = format!("{name}: {path} of {source}\nlicence {licence}\nsha256 {sha256}\n");
    let Some(file) = &report.file else { return text };
    let verdict =
        if file.verified { "is the released file" } else { "is another file than the released one" };
    let _ = writeln!(text, "this {verdict} (sha256 {})", file.sha256);
    let mut line = |name: &str, own: &Counts| {
        let categories: Vec<String> = own.by_category.values().map(usize::to_string).collect();
        let _ = writeln!(
            text,
            "{name:<6} {:>3} conversations {:>6} turns {:>6} questions ({} by category), {} of categories 1 to 4",
            own.conversations,
            own.turns,
            own.questions,
            categories.join("/"),
            own.scored
        );
    };
    line("all", &file.all);
    for name in ["train", "val", "test"] {
        line(name, &file.splits[name]);
    }
    let _ = writeln!(text, "{} names of evidence turns are malformed", file.malformed_evidence);
    text
}
