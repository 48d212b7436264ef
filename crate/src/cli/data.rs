//! `data`: where the benchmarks' data come from, and whether a file is what they released.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::digest::sha256_of_file;
use super::output::Output;
use crate::datasets::locomo::{Dataset, Split};
use crate::datasets::{ABSTENTION, Dialogue, longmemeval, msc};
use crate::error::Result;

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
    /// Questions to a user's many sessions with an assistant: S, M or oracle.
    Longmemeval(File),
    /// What one speaker asks another about their earlier sessions (MSC-Self-Instruct).
    Msc(File),
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
    /// Of the released file; null where this program does not know it.
    sha256: Option<&'static str>,
}

const LOCOMO: Release = Release {
    name: "LoCoMo",
    source: "https://github.com/snap-research/LoCoMo",
    path: "data/locomo10.json",
    licence: "CC-BY-NC-4.0",
    sha256: Some("79fa87e90f04081343b8c8debecb80a9a6842b76a7aa537dc9fdf651ea698ff4"),
};

const LONGMEMEVAL: Release = Release {
    name: "LongMemEval",
    source: "https://github.com/xiaowu0162/LongMemEval",
    path: "longmemeval_s.json, longmemeval_m.json, longmemeval_oracle.json",
    licence: "MIT",
    sha256: None,
};

const MSC: Release = Release {
    name: "MSC-Self-Instruct",
    source: "https://huggingface.co/datasets/MemGPT/MSC-Self-Instruct",
    path: "msc_self_instruct.jsonl",
    licence: "Apache-2.0",
    sha256: None,
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
    /// Whether it is the file that was released; null where this program does not know its hash.
    verified: Option<bool>,
    #[serde(flatten)]
    all: Counts,
    /// Names of evidence turns that no turn has, which are left out.
    malformed_evidence: usize,
    /// The paper's parts of LoCoMo, by conversation in the file's order.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    splits: BTreeMap<&'static str, Counts>,
}

#[derive(Default, Serialize)]
struct Counts {
    conversations: usize,
    turns: usize,
    questions: usize,
    /// Those that the conversation answers, which the paper counts and scores.
    scored: usize,
    /// By LoCoMo's number (1 multi-hop, 2 temporal, 3 open-domain, 4 single-hop, 5 adversarial) or another
    /// benchmark's word.
    by_category: BTreeMap<String, usize>,
}

impl Counts {
    fn add(&mut self, dialogue: &Dialogue) {
        self.conversations += 1;
        self.turns += dialogue.turns.len();
        for question in &dialogue.questions {
            self.questions += 1;
            self.scored += usize::from(!["5", ABSTENTION].contains(&&*question.category));
            *self.by_category.entry(question.category.clone()).or_default() += 1;
        }
    }

    fn of(dialogues: impl Iterator<Item = Result<Dialogue>>) -> Result<Self> {
        let mut counts = Self::default();
        for dialogue in dialogues {
            counts.add(&dialogue?);
        }
        Ok(counts)
    }
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let (release, file) = match &arguments.set {
        Set::Locomo(File { file }) => (LOCOMO, file),
        Set::Longmemeval(File { file }) => (LONGMEMEVAL, file),
        Set::Msc(File { file }) => (MSC, file),
    };
    let counted = file.as_ref().map(|path| {
        let sha256 = sha256_of_file(path)?;
        let (mut splits, mut malformed_evidence) = (BTreeMap::new(), 0);
        let all = match arguments.set {
            Set::Locomo(_) => {
                let dataset = Dataset::load(path)?;
                let of = |split| {
                    let mut counts = Counts::default();
                    for category in 1..=5 {
                        counts.by_category.insert(category.to_string(), 0);
                    }
                    dataset.split(split).iter().for_each(|sample| counts.add(&sample.into()));
                    counts
                };
                splits = [("train", Split::Train), ("val", Split::Val), ("test", Split::Test)]
                    .map(|(name, split)| (name, of(split)))
                    .into();
                malformed_evidence = dataset.malformed_evidence;
                of(Split::All)
            }
            Set::Longmemeval(_) => Counts::of(longmemeval::read(path)?)?,
            Set::Msc(_) => Counts::of(msc::read(path)?)?,
        };
        let verified = release.sha256.map(|known| known == sha256);
        Ok(Counted { sha256, verified, all, malformed_evidence, splits })
    });
    let report = Report { release, file: counted.transpose()? };
    output.result(&report, || text(&report))
}

fn text(report: &Report) -> String {
    let Release { name, source, path, licence, sha256 } = report.release;
    let mut text = format!("{name}: {path} of {source}\nlicence {licence}\n");
    if let Some(sha256) = sha256 {
        let _ = writeln!(text, "sha256 {sha256}");
    }
    let Some(file) = &report.file else { return text };
    let verdict = match file.verified {
        Some(true) => "is the released file",
        Some(false) => "is another file than the released one",
        None => "is a file in its layout",
    };
    let _ = writeln!(text, "this {verdict} (sha256 {})", file.sha256);
    let mut line = |name: &str, own: &Counts| {
        let categories: Vec<String> =
            own.by_category.iter().map(|(name, count)| format!("{name}: {count}")).collect();
        let _ = writeln!(
            text,
            "{name:<6} {:>3} conversations {:>6} turns {:>6} questions ({}), {} that can be answered",
            own.conversations,
            own.turns,
            own.questions,
            categories.join(", "),
            own.scored
        );
    };
    line("all", &file.all);
    for name in ["train", "val", "test"] {
        if let Some(own) = file.splits.get(name) {
            line(name, own);
        }
    }
    if file.malformed_evidence > 0 {
        let _ = writeln!(text, "{} names of evidence turns are malformed", file.malformed_evidence);
    }
    text
}
