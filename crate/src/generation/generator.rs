//! A local model that answers prompts.

mod distributions;
mod side_by_side;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;
mod writing;

use std::rc::Rc;
use std::sync::Arc;

use async_trait::async_trait;
use burn::tensor::Tensor;
use futures::future::LocalBoxFuture;

use self::writing::{Next, Writing};
use super::constraint::Constraint;
use super::free_text::FreeText;
use super::sampler::{Choice, choose};
use super::{
    Bitset, Cancel, ChatMessage, ChatTemplate, Generation, Grammar, LanguageModel, Lexicon, ModelInfo,
    PromptFamily, Request, Tokenizer,
};
use crate::checkpoint::{self, Files, Manifest, SelfCheck};
use crate::error::{Error, ErrorCode, Result};
use crate::kernels::Kernels;
use crate::nn::{KvCache, LanguageDecoder};

/// Gives the event loop a turn (a macrotask in a browser), so that a cancellation is heard.
pub type Turn = Rc<dyn Fn() -> LocalBoxFuture<'static, ()>>;

/// A turn where nobody waits for one.
pub fn no_turn() -> Turn {
    Rc::new(|| Box::pin(std::future::ready(())))
}

/// Weights, tokenizer and chat template on one device.
pub struct LocalModel<B: Kernels> {
    decoder: LanguageDecoder<B>,
    tokenizer: Arc<Tokenizer>,
    template: ChatTemplate,
    info: ModelInfo,
    manifest: Option<Manifest>,
    lexicon: Option<Lexicon>,
    turn: Turn,
}

impl<B: Kernels> LocalModel<B> {
    /// Loads a bundle, or a folder in Hugging Face's layout without a manifest: then its prompts
    /// are the instructions, and the paper's numbers of candidates hold.
    pub fn load(files: &Files, device: &B::Device, turn: Turn) -> Result<Self> {
        let manifest = checkpoint::verify(files)?;
        let decoder = checkpoint::read_decoder(files, device)?;
        let file = |name: &str| checkpoint::small(files, name);
        let missing = |name| Error::new(ErrorCode::ModelIntegrity, format!("{name} is missing"));
        let tokenizer_json = file("tokenizer.json").ok_or_else(|| missing("tokenizer.json"))?;
        let generation_config = file("generation_config.json").or_else(|| file(checkpoint::CONFIG));
        let tokenizer =
            Tokenizer::from_bytes(tokenizer_json, file("tokenizer_config.json"), generation_config)?;
        let jinja = file("chat_template.jinja").map(std::str::from_utf8).transpose().map_err(|cause| {
            Error::new(ErrorCode::ModelIntegrity, "chat_template.jinja is not text").with_source(cause)
        })?;
        let template = ChatTemplate::new(file("tokenizer_config.json"), jinja)?;
        let info = info(manifest.as_ref(), checkpoint::fingerprint(files)?, &decoder)?;
        let lexicon = file(checkpoint::LEXICON).map(|text| Lexicon::parse(&String::from_utf8_lossy(text)));
        let model = Self::new(decoder, Arc::new(tokenizer), template, info, manifest, turn)?;
        Ok(model.with_lexicon(lexicon))
    }

    /// Puts a model together from its parts.
    pub fn new(
        decoder: impl Into<LanguageDecoder<B>>,
        tokenizer: Arc<Tokenizer>,
        template: ChatTemplate,
        info: ModelInfo,
        manifest: Option<Manifest>,
        turn: Turn,
    ) -> Result<Self> {
        let decoder = decoder.into();
        let (known, width) = (tokenizer.vocabulary_size(), decoder.config().vocab_size);
        if known > width {
            return Err(Error::new(
                ErrorCode::ModelIntegrity,
                format!("the tokenizer has {known} tokens, the model {width}: they do not belong together"),
            ));
        }
        Ok(Self { decoder, tokenizer, template, info, manifest, lexicon: None, turn })
    }

    /// The same model, whose strings under a grammar hold the words of the prompt and of this lexicon only.
    #[must_use]
    pub fn with_lexicon(self, lexicon: Option<Lexicon>) -> Self {
        Self { lexicon: lexicon.filter(|lexicon| *lexicon != Lexicon::default()), ..self }
    }

    /// What the bundle says of itself; none of a folder without a manifest.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The weights.
    pub fn decoder(&self) -> &LanguageDecoder<B> {
        &self.decoder
    }

    /// The largest difference between this device's logits and the bundle's; none where the
    /// bundle has none. Infinite where a logit is not a number.
    pub async fn self_check(&self) -> Result<Option<f32>> {
        match self.manifest.as_ref().and_then(|manifest| manifest.self_check.as_ref()) {
            Some(check) => self_check(&self.decoder, check).await.map(Some),
            None => Ok(None),
        }
    }

    /// Reads tokens, a turn at a time; gives back what the model makes of the last one. Those that
    /// begin a text begin with its prompt.
    async fn read(
        &self,
        tokens: &[u32],
        prompt: &[u32],
        cache: &mut KvCache<B>,
        cancel: &Cancel,
    ) -> Result<Option<Tensor<B, 2>>> {
        let pause = async || {
            (self.turn)().await;
            cancel.check()
        };
        self.decoder.read(tokens, prompt.len(), cache, pause).await
    }

    /// The prompt's tokens and how many may follow, or `CONTEXT_OVERFLOW`.
    pub fn prepare(&self, request: &Request) -> Result<(Vec<u32>, usize)> {
        let prompt = self.template.encode(&self.tokenizer, &request.messages)?;
        if prompt.is_empty() {
            return Err(Error::invalid("the prompt is empty"));
        }
        if let Some(id) = prompt.iter().find(|id| **id as usize >= self.decoder.config().vocab_size) {
            return Err(Error::internal(format!(
                "the prompt has the token {id}, which the model does not know"
            )));
        }
        let context = self.info.context_length;
        if prompt.len() >= context {
            return Err(overflow(prompt.len(), context));
        }
        let room = request.max_new_tokens.min(context - prompt.len());
        Ok((prompt, room))
    }

    /// What a grammar allows behind a prompt of so many tokens, or `CONTEXT_OVERFLOW`.
    fn constraint(
        &self,
        request: &Request,
        grammar: &Grammar,
        (prompt, room): (usize, usize),
    ) -> Result<Constraint> {
        let said = request.messages.iter().filter(|message| message.role != "system");
        let words = self.lexicon.as_ref().map(|own| own.beside(said.map(|message| &*message.content)));
        match Constraint::with_words(&self.tokenizer, grammar, words, room) {
            // It was the context that cut the budget, not the caller.
            Err(error) if error.code() == ErrorCode::InvalidArgument && room < request.max_new_tokens => {
                Err(overflow(prompt, self.info.context_length).with_source(error))
            }
            constraint => constraint,
        }
    }
}

fn overflow(prompt: usize, context: usize) -> Error {
    Error::new(
        ErrorCode::ContextOverflow,
        format!(
            "the prompt has {prompt} tokens, and the model's context of {context} has no room for an answer"
        ),
    )
}

fn info<B: Kernels>(
    manifest: Option<&Manifest>,
    fingerprint: String,
    decoder: &LanguageDecoder<B>,
) -> Result<ModelInfo> {
    let longest = decoder.config().max_position_embeddings;
    let Some(manifest) = manifest else {
        return Ok(ModelInfo {
            name: "local".to_owned(),
            fingerprint,
            prompt_family: PromptFamily::Instruct,
            context_length: longest,
            candidates_per_speaker: 30,
            manager_candidates: 5,
            extractor_candidates: 0,
            fact_threshold: 0.0,
        });
    };
    let prompt_family = match manifest.prompt_family.as_str() {
        "instruct" => PromptFamily::Instruct,
        "compact" => PromptFamily::Compact,
        other => {
            return Err(Error::new(
                ErrorCode::ModelUnsupported,
                format!("the prompt family {other:?} is not supported; supported: compact, instruct"),
            ));
        }
    };
    if !(0.0..1.0).contains(&manifest.fact_threshold) {
        return Err(Error::new(
            ErrorCode::ModelIntegrity,
            format!("the manifest's fact_threshold is {}, and must be in 0..1", manifest.fact_threshold),
        ));
    }
    Ok(ModelInfo {
        name: manifest.name.clone(),
        fingerprint,
        prompt_family,
        context_length: manifest.context_length.min(longest),
        candidates_per_speaker: manifest.candidates_per_speaker,
        manager_candidates: manifest.manager_candidates,
        extractor_candidates: manifest.extractor_candidates,
        fact_threshold: manifest.fact_threshold,
    })
}

/// The largest difference between a decoder's logits and a bundle's constants.
pub async fn self_check<B: Kernels>(decoder: &LanguageDecoder<B>, check: &SelfCheck) -> Result<f32> {
    let vocabulary = decoder.config().vocab_size;
    let known = |ids: &[u32]| ids.iter().all(|id| (*id as usize) < vocabulary);
    if check.prompt_ids.is_empty() || !known(&check.prompt_ids) || !known(&check.token_ids) {
        return Err(Error::new(ErrorCode::ModelIntegrity, "the manifest's self_check has unknown tokens"));
    }
    let logits = decoder.logits_behind(&check.prompt_ids).await?;
    let difference = |(id, wanted): (&u32, &f32)| (logits[*id as usize] - wanted).abs();
    let differences = check.token_ids.iter().zip(&check.logits).map(difference);
    Ok(differences.fold(0.0, |largest, own| if own.is_nan() { f32::INFINITY } else { own.max(largest) }))
}

impl<B: Kernels> LocalModel<B> {
    /// The prompt's tokens, an empty cache with room for them and the completion, and the completion,
    /// of which nothing is written. All errors of a request are found here.
    fn begin<'a>(
        &self,
        request: &'a Request,
        cancel: &Cancel,
    ) -> Result<(Vec<u32>, KvCache<B>, Writing<'a>)> {
        cancel.check()?;
        let (prompt, room, writing) = self.writing(request)?;
        let cache = KvCache::new(self.decoder.config(), 1, prompt.len() + room, &self.decoder.device());
        Ok((prompt, cache, writing))
    }

    /// The prompt's tokens, how many may follow, and a completion of which nothing is written.
    fn writing<'a>(&self, request: &'a Request) -> Result<(Vec<u32>, usize, Writing<'a>)> {
        request.sampling.check()?;
        if request.grammar.is_some() && !request.stop.is_empty() {
            return Err(Error::invalid("stop strings end free text; a grammar knows its own end"));
        }
        let (prompt, room) = self.prepare(request)?;
        let writing = match &request.grammar {
            Some(grammar) => Writing::constrained(self.constraint(request, grammar, (prompt.len(), room))?),
            None => Writing::free(FreeText::new(&request.stop)?, self.known(), room),
        };
        Ok((prompt, room, writing))
    }

    /// What each token of a completion was chosen from, as writing it again finds: the places of the tokens that
    /// were not forced, and the sets that were allowed there, all tokens where there is none. A completion that
    /// this model cannot have written for the request is an error.
    pub fn replay(&self, request: &Request, ids: &[u32]) -> Result<Vec<(usize, Option<Arc<Bitset>>)>> {
        let mut places = Vec::new();
        self.again(request, ids, |place, allowed| {
            places.push((place, allowed));
            0.0
        })?;
        Ok(places)
    }

    /// A completion that was written elsewhere, with the log-probability of each of its tokens, as this model gives
    /// it. One that this model cannot have written for the request is an error.
    pub fn written(&self, request: &Request, ids: &[u32], logprobs: &[f32]) -> Result<Generation> {
        self.again(request, ids, |place, _| logprobs.get(place).copied().unwrap_or_default())
    }

    /// Writes a completion again; `chosen` gives the log-probability of each token that was not forced.
    fn again(
        &self,
        request: &Request,
        ids: &[u32],
        mut chosen: impl FnMut(usize, Option<Arc<Bitset>>) -> f32,
    ) -> Result<Generation> {
        let (prompt, _, mut writing) = self.writing(request)?;
        let foreign = || Error::invalid("these tokens are no completion of the request");
        let mut unread = Vec::new();
        while let Next::Choose(allowed) = writing.next(&mut unread)? {
            let place = writing.len();
            let id = *ids.get(place).ok_or_else(foreign)?;
            if allowed.as_ref().is_some_and(|allowed| !allowed.contains(id)) {
                return Err(foreign());
            }
            writing.accept(Choice { id, logprob: chosen(place, allowed) }, &self.tokenizer)?;
        }
        if writing.ids() == ids { Ok(writing.finish(prompt)) } else { Err(foreign()) }
    }

    /// The tokens that there are, where the logits are wider than the vocabulary.
    fn known(&self) -> Option<Arc<Bitset>> {
        let count = self.tokenizer.vocabulary_size();
        (count < self.decoder.config().vocab_size).then(|| {
            let mut known = Bitset::new(count);
            (0..count as u32).for_each(|id| known.insert(id));
            Arc::new(known)
        })
    }
}

#[async_trait(?Send)]
impl<B: Kernels> LanguageModel for LocalModel<B> {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn room(&self, messages: &[ChatMessage]) -> Result<usize> {
        let prompt = self.template.encode(&self.tokenizer, messages)?;
        Ok(self.info.context_length.saturating_sub(prompt.len()))
    }

    async fn generate(
        &self,
        request: &Request,
        cancel: &Cancel,
        on_text: &mut dyn for<'a> FnMut(&'a str),
    ) -> Result<Generation> {
        let (prompt, mut cache, mut writing) = self.begin(request, cancel)?;
        // What must follow is read together with what was chosen before it.
        let mut unread = prompt.clone();
        while let Next::Choose(allowed) = writing.next(&mut unread)? {
            writing.tell(on_text);
            let hidden = self.read(&unread, &prompt, &mut cache, cancel).await?;
            let hidden = hidden.ok_or_else(|| Error::internal("there is nothing to choose behind"))?;
            let logits = self.decoder.logits(hidden);
            let choice = choose(logits, allowed.as_deref(), &request.sampling, writing.len()).await?;
            writing.accept(choice, &self.tokenizer)?;
            writing.tell(on_text);
            unread = vec![choice.id];
        }
        writing.tell(on_text);
        cancel.check()?;
        Ok(writing.finish(prompt))
    }

    async fn samples(&self, request: &Request, count: usize, cancel: &Cancel) -> Result<Vec<Generation>> {
        self.write(&[(request, count)], cancel).await
    }

    async fn samples_each(
        &self,
        asked: &[(Request, usize)],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Generation>>> {
        let all: Vec<(&Request, usize)> = asked.iter().map(|(request, count)| (request, *count)).collect();
        let mut written = self.write(&all, cancel).await?.into_iter();
        Ok(all.iter().map(|(_, count)| written.by_ref().take(*count).collect()).collect())
    }
}
