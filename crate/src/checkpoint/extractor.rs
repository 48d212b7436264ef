//! A bundle's second model, which only takes facts out of turns. It shares the tokenizer and the
//! prompts of the first; its own files lie beside the first's, under names of their own.

use serde::{Deserialize, Serialize};

use super::{
    CONFIG, Content, FileEntry, Files, LEXICON, MANIFEST, Manifest, Quantization, SelfCheck, WEIGHTS,
    WORD_VECTORS, small, verify,
};
use crate::error::{Error, Result};

/// `extractor_config.json`
pub const EXTRACTOR_CONFIG: &str = "extractor_config.json";
/// `extractor.safetensors`
pub const EXTRACTOR_WEIGHTS: &str = "extractor.safetensors";
/// `extractor_lexicon.txt`
pub const EXTRACTOR_LEXICON: &str = "extractor_lexicon.txt";

const NOTICE: &str = "NOTICE";
/// What stands before the extractor's run in a bundle's.
const RUN_OF_EXTRACTOR: &str = "; extractor: ";

/// The extractor's file names in the bundle, and in a folder of its own.
const NAMES: [(&str, &str); 3] =
    [(EXTRACTOR_CONFIG, CONFIG), (EXTRACTOR_WEIGHTS, WEIGHTS), (EXTRACTOR_LEXICON, LEXICON)];

/// What a manifest says of its extractor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExtractorEntry {
    /// As in its `config.json`.
    pub architecture: String,
    /// How its weights lie on disk.
    pub quantization: Quantization,
    /// How its tables of embeddings lie there, where it is in another way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_quantization: Option<Quantization>,
    /// The longest prompt and completion together, in tokens.
    pub context_length: usize,
    /// How many related memories it is shown beside a turn.
    pub extractor_candidates: usize,
    /// A fact whose tokens have a lower mean probability is not believed.
    pub fact_threshold: f64,
    /// Logits that a device must reproduce.
    pub self_check: Option<SelfCheck>,
}

/// Makes a bundle's extractor out of another bundle, which has the same tokenizer.
pub fn add_extractor(bundle: &mut Files, extractor: &Files) -> Result<()> {
    let whole = |files| {
        verify(files)?
            .ok_or_else(|| Error::invalid("an extractor is added as a bundle to a bundle: pack both"))
    };
    let (mut manifest, own) = (whole(bundle)?, whole(extractor)?);
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        if bundle.get(name) != extractor.get(name) {
            return Err(Error::invalid(format!("the extractor's {name} is not the model's")));
        }
    }
    for (in_bundle, name) in NAMES {
        bundle.remove(in_bundle);
        manifest.files.remove(in_bundle);
        if let Some(bytes) = extractor.get(name) {
            manifest.files.insert(in_bundle.to_owned(), FileEntry::of(bytes)?);
            bundle.insert(in_bundle.to_owned(), bytes.clone());
        }
    }
    if let Some(notice) = small(extractor, NOTICE) {
        let mut all = small(bundle, NOTICE).unwrap_or_default().to_vec();
        if !all.windows(notice.len()).any(|part| part == notice) {
            all.extend(notice);
        }
        let all = Content::from(all);
        manifest.files.insert(NOTICE.to_owned(), FileEntry::of(&all)?);
        bundle.insert(NOTICE.to_owned(), all);
    }
    let mut commands = own.training.commands;
    // How both began may be the same.
    let rest = manifest.training.commands.iter().skip_while(|command| commands.contains(command));
    let rest: Vec<String> = rest.cloned().collect();
    commands.extend(rest);
    manifest.training.commands = commands;
    // An extractor that was taken out of this very bundle says already where both come from.
    if manifest.training.run != own.training.run {
        let last = own.training.run.rsplit(RUN_OF_EXTRACTOR).next().unwrap_or_default();
        manifest.training.run = format!("{}{RUN_OF_EXTRACTOR}{last}", manifest.training.run);
    }
    manifest.extractor = Some(ExtractorEntry {
        architecture: own.architecture,
        quantization: own.quantization,
        embedding_quantization: own.embedding_quantization,
        context_length: own.context_length,
        extractor_candidates: own.extractor_candidates,
        fact_threshold: own.fact_threshold,
        self_check: own.self_check,
    });
    bundle.insert(MANIFEST.to_owned(), manifest.to_json().into_bytes().into());
    Ok(())
}

/// The extractor as a bundle of its own; none where one model does everything.
pub fn extractor(files: &Files) -> Result<Option<Files>> {
    let Some(bytes) = small(files, MANIFEST) else { return Ok(None) };
    let manifest = Manifest::from_json(bytes)?;
    let Some(entry) = manifest.extractor.clone() else { return Ok(None) };
    let own_name = |name: &str| NAMES.iter().find(|(in_bundle, _)| *in_bundle == name).map(|(_, own)| *own);
    let is_first_model = |name: &str| {
        NAMES.iter().any(|(_, own)| *own == name) || name.starts_with("model") || name == WORD_VECTORS
    };
    let renamed = |name: &str| match own_name(name) {
        Some(own) => Some(own.to_owned()),
        None => (!is_first_model(name) && name != MANIFEST).then(|| name.to_owned()),
    };
    let mut own: Files =
        files.iter().filter_map(|(name, bytes)| Some((renamed(name)?, bytes.clone()))).collect();
    let listed = manifest.files.iter().filter_map(|(name, entry)| Some((renamed(name)?, entry.clone())));
    let manifest = Manifest {
        architecture: entry.architecture,
        quantization: entry.quantization,
        embedding_quantization: entry.embedding_quantization,
        context_length: entry.context_length,
        extractor_candidates: entry.extractor_candidates,
        fact_threshold: entry.fact_threshold,
        self_check: entry.self_check,
        files: listed.collect(),
        extractor: None,
        ..manifest
    };
    own.insert(MANIFEST.to_owned(), manifest.to_json().into_bytes().into());
    Ok(Some(own))
}
