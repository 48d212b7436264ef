//! `manifest.json`: what a bundle is, and the hash of each of its files.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Content, EXTRACTOR_CONFIG, EXTRACTOR_LEXICON, ExtractorEntry, Files, small};
use crate::error::{Error, ErrorCode, Result};

/// `manifest.json`
pub const MANIFEST: &str = "manifest.json";
const FORMAT_VERSION: u32 = 1;

/// How the weights lie on disk; they are computed with in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// 32-bit floats.
    F32,
    /// 16-bit floats (IEEE half precision).
    #[default]
    F16,
    /// Matrices in 8 bits a value with a 16-bit scale for every 64; vectors as 16-bit floats.
    Q8,
    /// The same in 6 bits.
    Q6,
    /// The same in 4 bits.
    Q4,
}

impl Quantization {
    /// The bits of a matrix's value; none of floats.
    pub fn bits(self) -> Option<usize> {
        match self {
            Self::F32 | Self::F16 => None,
            Self::Q8 => Some(8),
            Self::Q6 => Some(6),
            Self::Q4 => Some(4),
        }
    }

    /// How the tables of embeddings lie beside weights that lie so, where nothing else is said: beside 4 bits in 8, for
    /// in 4 they alone cost nano nearly two points of accuracy (`eval quantization`; figures in `docs/nano.md`).
    pub fn of_embeddings(self) -> Self {
        if self == Self::Q4 { Self::Q8 } else { self }
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
            Self::Q6 => "q6",
            Self::Q4 => "q4",
        })
    }
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// In bytes.
    pub size: u64,
    /// 64 hexadecimal digits.
    pub sha256: String,
}

impl FileEntry {
    /// The entry of a file with these bytes.
    pub fn of(content: &Content) -> Result<Self> {
        Ok(Self { size: content.len(), sha256: content.sha256()? })
    }
}

/// Where the weights come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingRun {
    /// The run's name.
    pub run: String,
    /// The exact commands, in order.
    pub commands: Vec<String>,
}

/// Logits that a device must reproduce before it is trusted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfCheck {
    /// The prompt.
    pub prompt_ids: Vec<u32>,
    /// Tokens that may follow it.
    pub token_ids: Vec<u32>,
    /// Their logits, by the CPU backend.
    pub logits: Vec<f32>,
}

/// What a bundle is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// 1.
    pub format_version: u32,
    /// The model's name.
    pub name: String,
    /// As in `config.json`.
    pub architecture: String,
    /// How the weights lie on disk.
    pub quantization: Quantization,
    /// How the tables of embeddings lie there, where it is in another way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_quantization: Option<Quantization>,
    /// Every file but the manifest, by name.
    pub files: BTreeMap<String, FileEntry>,
    /// `compact` or `instruct`.
    pub prompt_family: String,
    /// The longest prompt and completion together, in tokens.
    pub context_length: usize,
    /// How many memories of one speaker the answer agent is shown.
    pub candidates_per_speaker: usize,
    /// How many related memories the manager is shown.
    pub manager_candidates: usize,
    /// How many related memories the extractor is shown beside a turn.
    #[serde(default)]
    pub extractor_candidates: usize,
    /// A fact whose tokens have a lower mean probability is not believed.
    #[serde(default)]
    pub fact_threshold: f64,
    /// An SPDX expression.
    pub licence: String,
    /// Where the weights come from.
    pub training: TrainingRun,
    /// Logits that a device must reproduce.
    pub self_check: Option<SelfCheck>,
    /// The second model, which takes facts out of turns, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extractor: Option<ExtractorEntry>,
}

impl Manifest {
    /// The version that this crate writes, and the newest that it reads.
    pub const FORMAT_VERSION: u32 = FORMAT_VERSION;

    /// Reads a `manifest.json`. One of a newer format is `MODEL_UNSUPPORTED`.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let broken = |cause: serde_json::Error| {
            Error::new(ErrorCode::ModelIntegrity, "manifest.json cannot be read").with_source(cause)
        };
        let Version { format_version } = serde_json::from_slice(bytes).map_err(broken)?;
        if format_version > FORMAT_VERSION {
            return Err(Error::new(
                ErrorCode::ModelUnsupported,
                format!(
                    "the bundle has format version {format_version}, this build reads up to {FORMAT_VERSION}: update it"
                ),
            ));
        }
        serde_json::from_slice(bytes).map_err(broken)
    }

    /// Its text.
    pub fn to_json(&self) -> String {
        format!("{:#}\n", serde_json::to_value(self).unwrap_or_default())
    }
}

/// Whether a file has a part in what a model does; a licence, for one, need not be downloaded.
fn is_read(name: &str) -> bool {
    name.ends_with(".safetensors")
        || [super::CONFIG, EXTRACTOR_CONFIG, EXTRACTOR_LEXICON].contains(&name)
        || super::COMPANIONS.contains(&name)
}

/// The manifest of a bundle all of whose files are there, but for those that are not read, and
/// have the right hash; none of a folder without one.
pub fn verify(files: &Files) -> Result<Option<Manifest>> {
    let Some(bytes) = small(files, MANIFEST) else { return Ok(None) };
    let manifest = Manifest::from_json(bytes)?;
    let broken = |message: String| Err(Error::new(ErrorCode::ModelIntegrity, message));
    for (name, entry) in &manifest.files {
        let Some(bytes) = files.get(name) else {
            if !is_read(name) {
                continue;
            }
            return broken(format!("the bundle's file {name} is missing; get the bundle again"));
        };
        if bytes.len() != entry.size {
            return broken(format!(
                "the bundle's file {name} has {} bytes instead of {}; get the bundle again",
                bytes.len(),
                entry.size
            ));
        }
        if bytes.sha256()? != entry.sha256 {
            return broken(format!(
                "the bundle's file {name} is damaged: its sha256 is not the manifest's; get the bundle again"
            ));
        }
    }
    for name in files.keys() {
        if is_read(name) && !manifest.files.contains_key(name) {
            return broken(format!("the bundle's file {name} is not in its manifest"));
        }
    }
    Ok(Some(manifest))
}
