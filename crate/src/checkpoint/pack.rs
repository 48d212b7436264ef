//! A model folder made into a bundle.

use std::borrow::Cow;
use std::path::Path;

use super::weights::{each_weight, read_config, read_decoder, read_weight};
use super::writing::Writer;
use super::{
    COMPANIONS, CONFIG, Content, FileEntry, Files, MANIFEST, Manifest, Quantization, SelfCheck, TrainingRun,
    WEIGHTS, add_extractor, extractor,
};
use crate::error::{Error, ErrorCode, Result};
use crate::kernels::Kernels;
use crate::nn::{DecoderConfig, LanguageDecoder, ParameterKind, read_back, token_tensor};
use crate::random::Random;

/// What a bundle says beside its weights.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// The model's name.
    pub name: String,
    /// How the weights are to lie on disk.
    pub quantization: Quantization,
    /// How the tables of embeddings are to lie there; [`Quantization::of_embeddings`] where it is `None`.
    pub embedding_quantization: Option<Quantization>,
    /// `compact` or `instruct`.
    pub prompt_family: String,
    /// The longest prompt and completion together, in tokens; the model's own where it is `None`.
    pub context_length: Option<usize>,
    /// How many memories of one speaker the answer agent is shown.
    pub candidates_per_speaker: usize,
    /// How many related memories the manager is shown.
    pub manager_candidates: usize,
    /// How many related memories the extractor is shown beside a turn.
    pub extractor_candidates: usize,
    /// A fact whose tokens have a lower mean probability is not believed.
    pub fact_threshold: f64,
    /// An SPDX expression.
    pub licence: String,
    /// Where the weights come from.
    pub training: TrainingRun,
}

impl PackOptions {
    /// What a bundle says of itself; where there is none, the paper's numbers of candidates, and
    /// no licence.
    pub fn of(manifest: Option<&Manifest>) -> Self {
        let Some(manifest) = manifest else {
            return Self {
                name: "model".to_owned(),
                quantization: Quantization::default(),
                embedding_quantization: None,
                prompt_family: "instruct".to_owned(),
                context_length: None,
                candidates_per_speaker: 30,
                manager_candidates: 5,
                extractor_candidates: 0,
                fact_threshold: 0.0,
                licence: String::new(),
                training: TrainingRun::default(),
            };
        };
        Self {
            name: manifest.name.clone(),
            quantization: manifest.quantization,
            embedding_quantization: Some(manifest.embedding_quantization.unwrap_or(manifest.quantization)),
            prompt_family: manifest.prompt_family.clone(),
            context_length: Some(manifest.context_length),
            candidates_per_speaker: manifest.candidates_per_speaker,
            manager_candidates: manifest.manager_candidates,
            extractor_candidates: manifest.extractor_candidates,
            fact_threshold: manifest.fact_threshold,
            licence: manifest.licence.clone(),
            training: manifest.training.clone(),
        }
    }

    /// How the tables of embeddings are to lie on disk.
    fn embeddings(&self) -> Quantization {
        self.embedding_quantization.unwrap_or(self.quantization.of_embeddings())
    }

    /// How parameters of one kind are.
    fn format(&self, kind: ParameterKind) -> Quantization {
        if kind == ParameterKind::Embedding { self.embeddings() } else { self.quantization }
    }
}

/// Whether a file says under which licence the others are, and what they were made of.
pub fn is_notice(name: &str) -> bool {
    name.starts_with("LICEN") || name == "NOTICE"
}

/// Makes a bundle of the files of a model folder: the weights in one file, the tokenizer's files
/// as they are, licences, notices and model cards as they are, a bundle's extractor as it is, and the
/// manifest. `B` computes the
/// self-check's logits: the CPU backend, so that every other one is measured against it.
///
/// With a path the weights are written there, one tensor at a time, and stay there; else they are in memory.
pub async fn pack<B: Kernels>(
    folder: &Files,
    options: &PackOptions,
    weights: Option<&Path>,
    device: &B::Device,
) -> Result<Files> {
    if !(0.0..1.0).contains(&options.fact_threshold) {
        return Err(Error::invalid(format!(
            "a threshold of facts is in 0..1, not {}",
            options.fact_threshold
        )));
    }
    let config = read_config(folder)?;
    let mut writer = Writer::default();
    each_weight(&config, folder, |spec, values| {
        let own = spec.clone();
        let again = move || read_weight(&own, folder).map(Cow::Owned);
        writer.add(&spec.name, &spec.shape, &values, options.format(spec.kind), again)
    })?;
    let weights = match weights {
        #[cfg(not(target_arch = "wasm32"))]
        Some(path) => writer.to_file(path)?,
        _ => writer.to_bytes()?.into(),
    };
    let mut files = Files::from([
        (CONFIG.to_owned(), config.to_json().into_bytes().into()),
        (WEIGHTS.to_owned(), weights),
    ]);
    if !folder.contains_key("tokenizer.json") {
        return Err(Error::new(ErrorCode::ModelIntegrity, "tokenizer.json is missing"));
    }
    for (name, bytes) in folder {
        if COMPANIONS.contains(&&**name) || is_notice(name) || name == "README.md" {
            files.insert(name.clone(), bytes.clone());
        }
    }
    let self_check = self_check(&read_decoder::<B>(&files, device)?).await?;
    let entry = |(name, content): (&String, &Content)| Ok((name.clone(), FileEntry::of(content)?));
    let longest = config.max_position_embeddings;
    let manifest = Manifest {
        format_version: Manifest::FORMAT_VERSION,
        name: options.name.clone(),
        architecture: config.family.architecture().to_owned(),
        quantization: options.quantization,
        embedding_quantization: Some(options.embeddings()).filter(|own| *own != options.quantization),
        files: files.iter().map(entry).collect::<Result<_>>()?,
        prompt_family: options.prompt_family.clone(),
        context_length: options.context_length.map_or(longest, |length| length.min(longest)),
        candidates_per_speaker: options.candidates_per_speaker,
        manager_candidates: options.manager_candidates,
        extractor_candidates: options.extractor_candidates,
        fact_threshold: options.fact_threshold,
        licence: options.licence.clone(),
        training: options.training.clone(),
        self_check: Some(self_check),
        extractor: None,
    };
    files.insert(MANIFEST.to_owned(), manifest.to_json().into_bytes().into());
    if let Some(own) = extractor(folder)? {
        add_extractor(&mut files, &own)?;
    }
    Ok(files)
}

/// Sixteen tokens in, the logits of sixteen out, the greedy one among them.
async fn self_check<B: Kernels>(decoder: &LanguageDecoder<B>) -> Result<SelfCheck> {
    let DecoderConfig { vocab_size, .. } = *decoder.config();
    let mut random = Random::new(0, &[]);
    let mut draw = || -> Vec<u32> { (0..16).map(|_| random.below(vocab_size) as u32).collect() };
    let (prompt_ids, mut token_ids) = (draw(), draw());
    let all = last_logits(decoder, &prompt_ids).await?;
    let best = (0..vocab_size).max_by(|a, b| all[*a].total_cmp(&all[*b])).unwrap_or(0);
    token_ids[0] = best as u32;
    let logits = token_ids.iter().map(|id| all[*id as usize]).collect();
    Ok(SelfCheck { prompt_ids, token_ids, logits })
}

/// The logits behind a prompt, in one forward pass without a cache where the model has one.
async fn last_logits<B: Kernels>(decoder: &LanguageDecoder<B>, prompt: &[u32]) -> Result<Vec<f32>> {
    let LanguageDecoder::Causal(causal) = decoder else { return decoder.logits_behind(prompt).await };
    let hidden = causal.forward(token_tensor(prompt, &causal.device()));
    let last = hidden.narrow(1, prompt.len() - 1, 1).reshape([1, causal.config().hidden_size]);
    read_back(causal.logits(last)).await
}
