//! The network that is trained, as the model that the agents ask.

use std::path::Path;
use std::sync::Arc;

use super::learner::Sets;
use crate::checkpoint::{CONFIG, MANIFEST, Manifest};
use crate::error::{Error, Result};
use crate::generation::{
    ChatTemplate, Generation, LanguageModel, Lexicon, LocalModel, ModelInfo, PromptFamily, Request,
    Tokenizer, no_turn,
};
use crate::kernels::Kernels;
use crate::nn::{DecoderConfig, Family, LanguageDecoder};
use crate::retrieval::Retriever;
use crate::training::bpe::TokenizerFiles;
use crate::training::network::Layout;
use crate::training::run_folder::read_text;
use crate::training::start::read_start;

/// How many memories the agents are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// By the manager, beside a fact.
    pub manager_candidates: usize,
    /// By the answer agent, of each speaker.
    pub candidates_per_speaker: usize,
    /// In the words of which prompts; without it in those that the model's manifest names, else in nano's.
    pub prompt_family: Option<PromptFamily>,
}

/// A model that plays: what it wrote can be written again.
pub trait PlayedModel: LanguageModel {
    /// [`LocalModel::prepare`]
    fn prepare(&self, request: &Request) -> Result<(Vec<u32>, usize)>;
    /// [`LocalModel::written`]
    fn written(&self, request: &Request, ids: &[u32], logprobs: &[f32]) -> Result<Generation>;
    /// [`LocalModel::replay`]
    fn replay(&self, request: &Request, ids: &[u32]) -> Result<Sets>;
}

impl<B: Kernels> PlayedModel for LocalModel<B> {
    fn prepare(&self, request: &Request) -> Result<(Vec<u32>, usize)> {
        self.prepare(request)
    }

    fn written(&self, request: &Request, ids: &[u32], logprobs: &[f32]) -> Result<Generation> {
        self.written(request, ids, logprobs)
    }

    fn replay(&self, request: &Request, ids: &[u32]) -> Result<Sets> {
        self.replay(request, ids)
    }
}

/// All of a model but its weights.
pub struct Policy {
    /// Where the weights lie in the flat buffer.
    pub layout: Layout,
    /// The tokenizer's files, and what else lies beside the weights.
    pub files: TokenizerFiles,
    /// The tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    lexicon: Lexicon,
    info: ModelInfo,
}

impl Policy {
    /// A model folder or bundle, and its weights.
    pub fn load(folder: &Path, shown: Shown) -> Result<(Self, Vec<f32>)> {
        let config = DecoderConfig::from_json(&read_text(&folder.join(CONFIG))?)?;
        if config.family == Family::Bert {
            return Err(Error::invalid("a prefix language model cannot be trained by reinforcement yet"));
        }
        let layout = Layout::new(config)?;
        let parameters = read_start(folder, &layout)?;
        let manifest = std::fs::read(folder.join(MANIFEST)).ok();
        let manifest = manifest.map(|bytes| Manifest::from_json(&bytes)).transpose()?;
        let named = manifest.filter(|own| own.prompt_family == "instruct").map(|_| PromptFamily::Instruct);
        let files = TokenizerFiles::load(folder)?;
        let tokenizer =
            Arc::new(Tokenizer::from_bytes(files.tokenizer.as_bytes(), Some(files.config.as_bytes()), None)?);
        let info = ModelInfo {
            name: "policy".to_owned(),
            fingerprint: "0".repeat(64),
            prompt_family: shown.prompt_family.or(named).unwrap_or(PromptFamily::Compact),
            context_length: layout.config.max_position_embeddings,
            candidates_per_speaker: shown.candidates_per_speaker,
            manager_candidates: shown.manager_candidates,
            extractor_candidates: 0,
            fact_threshold: 0.0,
        };
        let lexicon = Lexicon::parse(&files.lexicon);
        Ok((Self { layout, files, tokenizer, lexicon, info }, parameters))
    }

    /// What finds the memories that the agents are shown.
    pub fn retriever(&self) -> Result<Retriever> {
        Retriever::read(Some(&self.files.word_vectors[..]).filter(|bytes| !bytes.is_empty()))
    }

    /// The model with these weights: the generator that serves users.
    pub fn model<B: Kernels>(&self, parameters: &[f32], device: &B::Device) -> Result<LocalModel<B>> {
        let config = &self.layout.config;
        let decoder = LanguageDecoder::<B>::from_parameters(config, device, |spec| {
            let tensor = self.layout.tensors.iter().find(|tensor| tensor.name == spec.name);
            let tensor = tensor.ok_or_else(|| Error::internal(format!("{} is not trained", spec.name)))?;
            Ok(parameters[tensor.range()].to_vec().into())
        })?;
        let template = ChatTemplate::new(Some(self.files.config.as_bytes()), None)?;
        let model =
            LocalModel::new(decoder, self.tokenizer.clone(), template, self.info.clone(), None, no_turn())?;
        Ok(model.with_lexicon(Some(self.lexicon.clone())))
    }
}
