//! `data`: where the benchmarks' data come from, and whether a file is what they released.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::digest::sha256_of_file;
use super::download::download;
use super::output::Output;
use crate::datasets::locomo::{Dataset, Split};
use crate::datasets::{ADVERSARIAL, Dialogue, longmemeval, msc, observations};
use crate::error::{Error, ErrorCode, Result};

/// Where a benchmark's data come from and under which licence; downloads, counts and verifies a file.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    set: Set,
}

#[derive(Debug, Subcommand)]
enum Set {
    /// Very long conversations of two speakers, with questions of five categories.
    Locomo {
        #[command(flatten)]
        chosen: Chosen,
        /// Write the authors' own observations there, as the facts of turns that `eval --facts` and `data.facts` of a
        /// training run take in the place of an extractor's.
        #[arg(long, value_name = "FILE")]
        observations: Option<PathBuf>,
    },
    /// Questions to a user's many sessions with an assistant: S, M or oracle.
    Longmemeval {
        /// Which of the three is downloaded.
        #[arg(long, value_enum, default_value_t)]
        variant: Variant,
        #[command(flatten)]
        chosen: Chosen,
    },
    /// What one speaker asks another about their earlier sessions (MSC-Self-Instruct).
    Msc(Chosen),
}

#[derive(Debug, Args)]
struct Chosen {
    /// The file to count and to verify.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Fetch the released file to --file (the working folder without), where nothing is yet. A download that
    /// was cut off goes on.
    #[arg(long)]
    download: bool,
    /// Fetch it from here instead, a mirror for example.
    #[arg(long, value_name = "URL", requires = "download")]
    url: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Variant {
    /// 40 sessions or so a question.
    S,
    /// 500.
    M,
    /// Only the sessions that hold the answer: the paper's.
    #[default]
    Oracle,
}

/// What a benchmark released.
#[derive(Clone, Copy, Serialize)]
struct Release {
    name: &'static str,
    source: &'static str,
    licence: &'static str,
    files: &'static [Released],
}

/// One file of it.
#[derive(Clone, Copy, Serialize)]
struct Released {
    path: &'static str,
    url: &'static str,
    sha256: &'static str,
}

const LOCOMO: Release = Release {
    name: "LoCoMo",
    source: "https://github.com/snap-research/LoCoMo",
    licence: "CC-BY-NC-4.0",
    files: &[Released {
        path: "data/locomo10.json",
        url: "https://raw.githubusercontent.com/snap-research/locomo/3eb6f2c585f5e1699204e3c3bdf7adc5c28cb376/data/locomo10.json",
        sha256: "79fa87e90f04081343b8c8debecb80a9a6842b76a7aa537dc9fdf651ea698ff4",
    }],
};

/// In the order of [`Variant`]. The hashes of its files and of MSC's are those that several projects pin; the
/// files were not here.
const LONGMEMEVAL: Release = Release {
    name: "LongMemEval (cleaned)",
    source: "https://github.com/xiaowu0162/LongMemEval",
    licence: "MIT",
    files: &[
        Released {
            path: "longmemeval_s_cleaned.json",
            url: "https://huggingface.co/datasets/xiaowu0162/longmemeval-cleaned/resolve/98d7416c24c778c2fee6e6f3006e7a073259d48f/longmemeval_s_cleaned.json",
            sha256: "d6f21ea9d60a0d56f34a05b609c79c88a451d2ae03597821ea3d5a9678c3a442",
        },
        Released {
            path: "longmemeval_m_cleaned.json",
            url: "https://huggingface.co/datasets/xiaowu0162/longmemeval-cleaned/resolve/98d7416c24c778c2fee6e6f3006e7a073259d48f/longmemeval_m_cleaned.json",
            sha256: "9d79e5524794a2e6900a3aa9cb7d9152c5a3e8319c9a87c25494ba1eacee495f",
        },
        Released {
            path: "longmemeval_oracle.json",
            url: "https://huggingface.co/datasets/xiaowu0162/longmemeval-cleaned/resolve/98d7416c24c778c2fee6e6f3006e7a073259d48f/longmemeval_oracle.json",
            sha256: "821a2034d219ab45846873dd14c14f12cfe7776e73527a483f9dac095d38620c",
        },
    ],
};

const MSC: Release = Release {
    name: "MSC-Self-Instruct",
    source: "https://huggingface.co/datasets/MemGPT/MSC-Self-Instruct",
    licence: "Apache-2.0",
    files: &[Released {
        path: "msc_self_instruct.jsonl",
        url: "https://huggingface.co/datasets/MemGPT/MSC-Self-Instruct/resolve/5138f416f8fa76b75b2e080da87e8a8e346e1500/msc_self_instruct.jsonl",
        sha256: "d3dbea36848b41dc46c0f1548d0ebf74eeaf6390d6f3fe9318e8480dc984495e",
    }],
};

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    release: Release,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<Counted>,
    /// How many observations were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    observations: Option<usize>,
}

#[derive(Serialize)]
struct Counted {
    sha256: String,
    /// Whether it is a file that was released.
    verified: bool,
    /// Which one, if it is.
    released: Option<&'static str>,
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
            self.scored += usize::from(!ADVERSARIAL.contains(&&*question.category));
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

impl Chosen {
    /// The file to count: the one that was named, or fetched.
    fn place(&self, released: &Released, output: &Output) -> Result<Option<PathBuf>> {
        if !self.download {
            return Ok(self.file.clone());
        }
        let name = Path::new(released.path).file_name().unwrap_or_default();
        let path = self.file.clone().unwrap_or_else(|| name.into());
        if !path.exists() {
            download(self.url.as_deref().unwrap_or(released.url), &path, released.sha256, output)?;
        }
        Ok(Some(path))
    }
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let (release, wanted, chosen) = match &arguments.set {
        Set::Locomo { chosen, .. } => (LOCOMO, 0, chosen),
        Set::Longmemeval { variant, chosen } => (LONGMEMEVAL, *variant as usize, chosen),
        Set::Msc(chosen) => (MSC, 0, chosen),
    };
    let path = chosen.place(&release.files[wanted], output)?;
    let counted = path.as_ref().map(|path| {
        let sha256 = sha256_of_file(path)?;
        let (mut splits, mut malformed_evidence) = (BTreeMap::new(), 0);
        let all = match arguments.set {
            Set::Locomo { .. } => {
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
            Set::Longmemeval { .. } => Counts::of(longmemeval::read(path)?)?,
            Set::Msc(_) => Counts::of(msc::read(path)?)?,
        };
        let released = release.files.iter().find(|own| own.sha256 == sha256).map(|own| own.path);
        Ok(Counted { sha256, verified: released.is_some(), released, all, malformed_evidence, splits })
    });
    let mut written = None;
    if let Set::Locomo { observations: Some(to), .. } = &arguments.set {
        let from = path.as_ref().ok_or_else(|| Error::invalid("--observations: of which --file?"))?;
        written = Some(write_observations(from, to)?);
    }
    let report = Report { release, file: counted.transpose()?, observations: written };
    output.result(&report, || text(&report))
}

/// How many there are.
fn write_observations(from: &Path, to: &Path) -> Result<usize> {
    let known = observations(from)?;
    let text = serde_json::to_string_pretty(&known)
        .map_err(|error| Error::internal("facts as JSON").with_source(error))?;
    std::fs::write(to, text + "\n").map_err(|error| {
        Error::new(ErrorCode::NotReachable, format!("{} could not be written", to.display()))
            .with_source(error)
    })?;
    Ok(known.values().flat_map(|own| own.values()).map(Vec::len).sum())
}

fn text(report: &Report) -> String {
    let Release { name, source, licence, files } = report.release;
    let mut text = format!("{name}: {source}\nlicence {licence}\n");
    for Released { path, url, sha256 } in files {
        let _ = writeln!(text, "{path}\n  sha256 {sha256}\n  {url}");
    }
    let Some(file) = &report.file else { return text };
    let verdict = match file.released {
        Some(path) => format!("the released {path}"),
        None => "no released file, but one in their layout".to_owned(),
    };
    let _ = writeln!(text, "this is {verdict} (sha256 {})", file.sha256);
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
    if let Some(count) = report.observations {
        let _ = writeln!(text, "{count} observations were written");
    }
    text
}
