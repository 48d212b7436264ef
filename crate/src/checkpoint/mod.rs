//! Hugging Face's layout and bundles: files to a model and back.
//!
//! A bundle is a folder in Hugging Face's layout with a [`Manifest`] that names every file's
//! size and hash. Files come and go as [`Files`]; only the hub's cache is on a disk.

mod content;
mod extractor;
#[cfg(not(target_arch = "wasm32"))]
mod hub;
mod manifest;
mod pack;
mod quantized;
mod weights;
mod writing;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::error::Result;

#[cfg(not(target_arch = "wasm32"))]
pub use content::OnDisk;
pub use content::{Content, Source};
pub use extractor::{
    EXTRACTOR_CONFIG, EXTRACTOR_LEXICON, EXTRACTOR_WEIGHTS, ExtractorEntry, add_extractor, extractor,
};
#[cfg(not(target_arch = "wasm32"))]
pub use hub::{Downloaded, Hub, HubName};
pub use manifest::{FileEntry, MANIFEST, Manifest, Quantization, SelfCheck, TrainingRun, verify};
pub use pack::{PackOptions, is_notice, pack};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use weights::read_config;
pub use weights::{read_decoder, read_encoder, read_weights};
#[cfg(not(target_arch = "wasm32"))]
pub use writing::write_weights_file;
pub use writing::{write_decoder, write_weights};

/// File names and contents. Only weights may lie elsewhere than in memory ([`is_weights`]).
pub type Files = BTreeMap<String, Content>;

/// A file of a model's folder that is read whole.
pub fn small<'a>(files: &'a Files, name: &str) -> Option<&'a [u8]> {
    files.get(name).and_then(Content::in_memory)
}

/// How many bytes all files have.
pub fn total(files: &Files) -> u64 {
    files.values().map(Content::len).sum()
}

/// Whether a file of a model's folder is read tensor by tensor.
pub fn is_weights(name: &str) -> bool {
    name == EXTRACTOR_WEIGHTS || name.starts_with("model") && name.ends_with(".safetensors")
}

/// `config.json`
pub const CONFIG: &str = "config.json";
/// `model.safetensors`
pub const WEIGHTS: &str = "model.safetensors";
/// `model.safetensors.index.json`: which file has which tensor, where there are several.
pub const INDEX: &str = "model.safetensors.index.json";
/// `1_Pooling/config.json`: how a sentence encoder's tokens become one vector.
pub const POOLING: &str = "1_Pooling/config.json";
/// `sentence_bert_config.json`: how long a sentence encoder's texts may be.
pub const SENTENCES: &str = "sentence_bert_config.json";
/// `lexicon.txt`: the words that a model may write though its prompt has them not.
pub const LEXICON: &str = "lexicon.txt";
/// `word_vectors.safetensors`: what retrieval knows of words.
pub const WORD_VECTORS: &str = "word_vectors.safetensors";
/// What else of a model folder belongs into a bundle, where it is there.
pub const COMPANIONS: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    LEXICON,
    WORD_VECTORS,
];

/// What else is read of a model's folder, beside its weights and licences.
const OTHERS: [&str; 10] = [
    CONFIG,
    INDEX,
    MANIFEST,
    POOLING,
    SENTENCES,
    EXTRACTOR_CONFIG,
    EXTRACTOR_WEIGHTS,
    EXTRACTOR_LEXICON,
    "NOTICE",
    "README.md",
];

/// Whether a file of a model's folder is one that a model is read from, its licence or its card. A
/// checkpoint has an optimiser's state beside them, a repository the same weights in other formats.
pub fn is_model_file(name: &str) -> bool {
    let is_kind = name.starts_with("model") && name.ends_with(".safetensors") || name.starts_with("LICEN");
    OTHERS.contains(&name) || COMPANIONS.contains(&name) || is_kind && !name.contains(['/', '\\'])
}

/// 64 hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"))
}

/// The sha256 of the weights; of the hashes one behind the other where there are several files of
/// them, an extractor's among them.
pub fn fingerprint(files: &Files) -> Result<String> {
    let own = weights::shards(files).map(|(_, bytes)| bytes);
    let hashes = own.chain(files.get(EXTRACTOR_WEIGHTS)).map(Content::sha256);
    let hashes = hashes.collect::<Result<Vec<String>>>()?;
    Ok(match &hashes[..] {
        [only] => only.clone(),
        several => sha256(several.concat().as_bytes()),
    })
}
