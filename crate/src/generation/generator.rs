//! A local model that answers prompts.

mod distributions;

use std::rc::Rc;
use std::sync::Arc;

use async_trait::async_trait;
use burn::tensor::Tensor;
use futures::future::LocalBoxFuture;

use super::constraint::{Constraint, Step};
use super::free_text::FreeText;
use super::sampler::choose;
use super::{
    Bitset, Cancel, ChatMessage, ChatTemplate, FinishReason, Generation, Grammar, LanguageModel, Lexicon,
    ModelInfo, Part, PromptFamily, Request, Tokenizer,
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
        let file = |name: &str| files.get(name).map(Vec::as_slice);
        let missing = |name| Error::new(ErrorCode::ModelIntegrity, format!("{name} is missing"));
        let tokenizer_json = file("tokenizer.json").ok_or_else(|| missing("tokenizer.json"))?;
        let generation_config = file("generation_config.json").or_else(|| file(checkpoint::CONFIG));
        let tokenizer =
            Tokenizer::from_bytes(tokenizer_json, file("tokenizer_config.json"), generation_config)?;
        let jinja = file("chat_template.jinja").map(std::str::from_utf8).transpose().map_err(|cause| {
            Error::new(ErrorCode::ModelIntegrity, "chat_template.jinja is not text").with_source(cause)
        })?;
        let template = ChatTemplate::new(file("tokenizer_config.json"), jinja)?;
        let info = info(manifest.as_ref(), checkpoint::fingerprint(files), &decoder)?;
        let lexicon = file(checkpoint::LEXICON).map(|text| Lexicon::parse(&String::from_utf8_lossy(text)));
        let lexicon = lexicon.filter(|lexicon| *lexicon != Lexicon::default());
        let model = Self::new(decoder, Arc::new(tokenizer), template, info, manifest, turn)?;
        Ok(Self { lexicon, ..model })
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
    fn prepare(&self, request: &Request) -> Result<(Vec<u32>, usize)> {
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
    Ok(ModelInfo {
        name: manifest.name.clone(),
        fingerprint,
        prompt_family,
        context_length: manifest.context_length.min(longest),
        candidates_per_speaker: manifest.candidates_per_speaker,
        manager_candidates: manifest.manager_candidates,
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

/// What is being written.
#[derive(Default)]
struct Output {
    ids: Vec<u32>,
    logprobs: Vec<f32>,
    parts: Vec<Part>,
    text: String,
}

impl Output {
    fn push(&mut self, id: u32, logprob: f32, part: Part) {
        self.ids.push(id);
        self.logprobs.push(logprob);
        self.parts.push(part);
    }

    fn finish(self, prompt_ids: Vec<u32>, finish_reason: FinishReason) -> Generation {
        let Self { ids, logprobs, parts, text } = self;
        Generation { prompt_ids, ids, logprobs, parts, text, finish_reason }
    }
}

impl<B: Kernels> LocalModel<B> {
    /// Under a grammar, forced tokens are read together with the next chosen one, without a head.
    async fn generate_constrained(
        &self,
        request: &Request,
        mut constraint: Constraint,
        (prompt, room): (Vec<u32>, usize),
        cancel: &Cancel,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Generation> {
        let device = self.decoder.device();
        let mut cache = KvCache::new(self.decoder.config(), 1, prompt.len() + room, &device);
        let mut output = Output::default();
        let mut unread = prompt.clone();
        loop {
            match constraint.next()? {
                Step::Forced(ids) => {
                    unread.extend_from_slice(&ids);
                    for id in ids {
                        output.push(id, 0.0, Part::Forced);
                    }
                }
                Step::Choose(allowed) => {
                    let hidden = self.read(&unread, &prompt, &mut cache, cancel).await?;
                    let hidden =
                        hidden.ok_or_else(|| Error::internal("there is nothing to choose behind"))?;
                    let logits = self.decoder.logits(hidden);
                    let choice = choose(logits, Some(&allowed), &request.sampling, output.ids.len()).await?;
                    let part = constraint.accept(choice.id)?;
                    unread = vec![choice.id];
                    output.push(choice.id, choice.logprob, part);
                }
                Step::Done => break,
            }
            let new = &constraint.text()[output.text.len()..];
            if !new.is_empty() {
                on_text(new);
                output.text.push_str(new);
            }
        }
        cancel.check()?;
        Ok(output.finish(prompt, FinishReason::Stop))
    }

    async fn generate_freely(
        &self,
        request: &Request,
        (prompt, room): (Vec<u32>, usize),
        cancel: &Cancel,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Generation> {
        let device = self.decoder.device();
        let mut cache = KvCache::new(self.decoder.config(), 1, prompt.len() + room, &device);
        let mut output = Output::default();
        let mut text = FreeText::new(&request.stop)?;
        let mut unread = prompt.clone();
        let mut reason = FinishReason::Length;
        // The logits may be wider than the vocabulary.
        let mut known = Bitset::new(self.tokenizer.vocabulary_size());
        (0..known.len() as u32).for_each(|id| known.insert(id));
        let is_padded = known.len() < self.decoder.config().vocab_size;
        while output.ids.len() < room {
            let Some(hidden) = self.read(&unread, &prompt, &mut cache, cancel).await? else { break };
            let allowed = is_padded.then_some(&known);
            let choice =
                choose(self.decoder.logits(hidden), allowed, &request.sampling, output.ids.len()).await?;
            output.push(choice.id, choice.logprob, Part::Text);
            if self.tokenizer.end_tokens().contains(&choice.id) {
                reason = FinishReason::Stop;
                break;
            }
            let new = text.push(&self.tokenizer, choice.id);
            if !new.is_empty() {
                on_text(&new);
                output.text.push_str(&new);
            }
            if text.is_stopped() {
                break;
            }
            unread = vec![choice.id];
        }
        cancel.check()?;
        let (rest, stopped) = text.finish();
        if stopped {
            reason = FinishReason::Stop;
        }
        if !rest.is_empty() {
            on_text(&rest);
            output.text.push_str(&rest);
        }
        Ok(output.finish(prompt, reason))
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
        cancel.check()?;
        request.sampling.check()?;
        if request.grammar.is_some() && !request.stop.is_empty() {
            return Err(Error::invalid("stop strings end free text; a grammar knows its own end"));
        }
        let (prompt, room) = self.prepare(request)?;
        let Some(grammar) = &request.grammar else {
            return self.generate_freely(request, (prompt, room), cancel, on_text).await;
        };
        let constraint = self.constraint(request, grammar, (prompt.len(), room))?;
        self.generate_constrained(request, constraint, (prompt, room), cancel, on_text).await
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use std::cell::Cell;

    use burn::backend::Flex;
    use burn::backend::flex::FlexDevice;
    use futures_lite::future::block_on;

    use super::*;
    use crate::generation::tokenizer::testing;
    use crate::generation::{Sampling, parse_decision};
    use crate::nn::{CHUNK, DecoderConfig, Family, token_tensor};

    const TEMPLATE: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>";

    fn config() -> DecoderConfig {
        DecoderConfig {
            vocab_size: testing::trained().vocabulary_size() + 3,
            hidden_size: 32,
            intermediate_size: 48,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            // Loud weights, so that nothing is nearly equal.
            initializer_range: 0.3,
            ..DecoderConfig::nano()
        }
    }

    fn model(context_length: usize, turn: Turn) -> LocalModel<Flex> {
        model_of(&config(), context_length, turn)
    }

    /// Its prompts are two blocks: what ends with the name of the user's role, and the rest.
    fn prefix_model(turn: Turn) -> LocalModel<Flex> {
        let block_token_id = testing::trained().token_id("<|user|>");
        assert!(block_token_id.is_some());
        let config =
            DecoderConfig { family: Family::Bert, num_key_value_heads: 4, block_token_id, ..config() };
        model_of(&config, 1024, turn)
    }

    fn model_of(config: &DecoderConfig, context_length: usize, turn: Turn) -> LocalModel<Flex> {
        let tokenizer = testing::trained();
        let info = ModelInfo {
            name: "random".into(),
            fingerprint: String::new(),
            prompt_family: PromptFamily::Compact,
            context_length,
            candidates_per_speaker: 12,
            manager_candidates: 5,
            fact_threshold: 0.0,
        };
        let template = ChatTemplate::new(None, Some(TEMPLATE)).unwrap();
        let decoder = LanguageDecoder::init(config, 3, &FlexDevice);
        LocalModel::new(decoder, tokenizer, template, info, None, turn).unwrap()
    }

    fn request(text: &str, grammar: Option<Grammar>) -> Request {
        let message = |role: &str, content: &str| ChatMessage { role: role.into(), content: content.into() };
        Request {
            messages: vec![message("system", "manage"), message("user", text)],
            grammar,
            max_new_tokens: 60,
            sampling: Sampling { temperature: 1.0, seed: 5, ..Sampling::default() },
            stop: Vec::new(),
        }
    }

    fn generate(model: &LocalModel<Flex>, request: &Request) -> Result<(Generation, String)> {
        let mut streamed = String::new();
        let generation =
            block_on(model.generate(request, &Cancel::default(), &mut |text| streamed.push_str(text)))?;
        Ok((generation, streamed))
    }

    #[test]
    fn a_decision_is_valid_and_streams_what_it_says() {
        let model = model(1024, no_turn());
        for sample in 0..20 {
            let mut request =
                request("8 May 2023: Has a dog #0\n> Has a cat", Some(Grammar::Decision { shown: 1 }));
            request.sampling.key = [0, 0, sample];
            let (generation, streamed) = generate(&model, &request).unwrap();
            parse_decision(&generation.text, 1).unwrap();
            assert_eq!(streamed, generation.text);
            assert_eq!(generation.ids.len(), generation.logprobs.len());
            assert_eq!(generation.ids.len(), generation.parts.len());
            assert_eq!(generation.finish_reason, FinishReason::Stop);
            for (part, logprob) in generation.parts.iter().zip(&generation.logprobs) {
                assert!(if *part == Part::Forced { *logprob == 0.0 } else { *logprob <= 0.0 });
            }
        }
    }

    /// One forward pass over prompt and completion, without cache or chunks, says the same about
    /// every chosen token as the generator did.
    #[test]
    fn log_probabilities_are_those_of_one_pass() {
        let model = model(1024, no_turn());
        let text = "Has a dog named Scout ".repeat(60);
        let (generation, _) = generate(&model, &request(&text, None)).unwrap();
        assert!(generation.prompt_ids.len() > 2 * CHUNK, "{}", generation.prompt_ids.len());
        let ids: Vec<u32> = generation.prompt_ids.iter().chain(&generation.ids).copied().collect();
        let LanguageDecoder::Causal(decoder) = &model.decoder else { unreachable!("it is nano's family") };
        let hidden = decoder.forward(token_tensor(&ids, &FlexDevice));
        let start = generation.prompt_ids.len() - 1;
        let count = generation.ids.len();
        let rows = hidden.narrow(1, start, count).reshape([count, 32]);
        let known = model.tokenizer.vocabulary_size();
        let logits = model.decoder.logits(rows).narrow(1, 0, known);
        let logprobs =
            burn::tensor::activation::log_softmax(logits, 1).into_data().into_vec::<f32>().unwrap();
        for (place, (id, logprob)) in generation.ids.iter().zip(&generation.logprobs).enumerate() {
            let wanted = logprobs[place * known + *id as usize];
            assert!((wanted - logprob).abs() < 1e-3, "{place}: {logprob} instead of {wanted}");
        }
    }

    /// The generator's own completion, read again: the chosen token's probability is the same.
    #[test]
    fn distributions_are_those_that_were_chosen_from() {
        let model = model(1024, no_turn());
        let request = request("8 May 2023: Has a dog #0\n> Has a cat", Some(Grammar::Decision { shown: 1 }));
        let (generation, _) = generate(&model, &request).unwrap();
        let distributions = |ids: &[u32]| block_on(model.distributions(&request, ids, &Cancel::default()));
        let own = distributions(&generation.ids).unwrap();
        let chosen: Vec<f32> = (generation.parts.iter().zip(&generation.logprobs))
            .filter_map(|(part, logprob)| (*part != Part::Forced).then_some(*logprob))
            .collect();
        assert_eq!(own.len(), chosen.len());
        for (distribution, logprob) in own.iter().zip(chosen) {
            let total: f32 = distribution.iter().map(|own| own.exp()).sum();
            assert!((total - 1.0).abs() < 1e-4, "{total}");
            assert!(distribution.iter().any(|own| (own - logprob).abs() < 1e-5), "{logprob}");
        }
        let cut = &generation.ids[..generation.ids.len() - 1];
        let longer = [&generation.ids[..], &[0]].concat();
        for wrong in [cut, &longer] {
            assert_eq!(distributions(wrong).unwrap_err().code(), ErrorCode::InvalidArgument);
        }
    }

    #[test]
    fn the_same_request_gives_the_same_and_another_key_another() {
        let model = model(1024, no_turn());
        let mut request = request("> Has a cat", None);
        let first = generate(&model, &request).unwrap();
        assert_eq!(generate(&model, &request).unwrap(), first);
        request.sampling.key = [0, 0, 1];
        assert_ne!(generate(&model, &request).unwrap(), first);
    }

    #[test]
    fn free_text_ends_before_a_stop_string() {
        let model = model(1024, no_turn());
        let mut request = request("> Has a cat", None);
        let (whole, _) = generate(&model, &request).unwrap();
        let characters: Vec<char> = whole.text.chars().collect();
        let stop: String = characters[characters.len() / 2..][..4].iter().collect();
        request.stop = vec!["never said".into(), stop.clone()];
        let (cut, streamed) = generate(&model, &request).unwrap();
        assert_eq!(cut.text, whole.text[..whole.text.find(&stop).unwrap()]);
        assert_eq!((streamed, cut.finish_reason), (cut.text, FinishReason::Stop));
        assert!(cut.ids.len() < whole.ids.len() && whole.ids.starts_with(&cut.ids));
    }

    #[test]
    fn what_cannot_be_asked_for_is_refused() {
        let model = model(1024, no_turn());
        let refused = |grammar, change: fn(&mut Request)| {
            let mut request = request("> Has a cat", grammar);
            change(&mut request);
            let error = generate(&model, &request).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument);
            error.message().to_owned()
        };
        let top_p = refused(None, |request| request.sampling.top_p = f32::NAN);
        assert_eq!(top_p, "top_p must be a number from 0 to 1, not NaN");
        assert_eq!(refused(None, |request| request.stop.push(String::new())), "a stop string is empty");
        let both = refused(Some(Grammar::Decision { shown: 0 }), |request| request.stop.push("x".into()));
        assert_eq!(both, "stop strings end free text; a grammar knows its own end");
    }

    #[test]
    fn a_prompt_without_room_is_refused_before_any_work() {
        let turns = Rc::new(Cell::new(0));
        let counter = Rc::clone(&turns);
        let turn: Turn = Rc::new(move || {
            counter.set(counter.get() + 1);
            Box::pin(std::future::ready(()))
        });
        let model = model(40, turn);
        let long = "a b c d ".repeat(40);
        for grammar in [None, Some(Grammar::Decision { shown: 0 })] {
            let error = generate(&model, &request(&long, grammar)).unwrap_err();
            assert_eq!(error.code(), ErrorCode::ContextOverflow);
        }
        // A prompt that fits, but leaves too little for the shortest decision.
        let words = (1..30).map(|count| "家 ".repeat(count)).find(|text| {
            let messages = request(text, None).messages;
            model.template.encode(&model.tokenizer, &messages).unwrap().len() == 38
        });
        if let Some(text) = words {
            let error = generate(&model, &request(&text, Some(Grammar::Decision { shown: 0 }))).unwrap_err();
            assert_eq!(error.code(), ErrorCode::ContextOverflow);
        }
        assert_eq!(turns.get(), 0);
    }

    #[test]
    fn a_cancellation_is_heard_at_the_next_token() {
        let cancel = Cancel::default();
        let (seen, own) = (Rc::new(Cell::new(0)), cancel.clone());
        let counter = Rc::clone(&seen);
        let turn: Turn = Rc::new(move || {
            counter.set(counter.get() + 1);
            if counter.get() == 5 {
                own.cancel();
            }
            Box::pin(std::future::ready(()))
        });
        let model = model(1024, turn);
        let error = block_on(model.generate(&request("> Hi", None), &cancel, &mut |_| {})).unwrap_err();
        assert_eq!((error.code(), seen.get()), (ErrorCode::Aborted, 5));
    }

    /// Behind the two blocks of a prompt every token sees what stands before it: a pass over prompt
    /// and completion says the same about every chosen token as the generator did.
    #[test]
    fn a_prefix_model_writes_behind_the_two_blocks_of_its_prompt() {
        let model = prefix_model(no_turn());
        let mut request = request(&"Has a dog named Scout ".repeat(30), None);
        request.max_new_tokens = 12;
        let (generation, _) = generate(&model, &request).unwrap();
        let (prompt, ids) = (&generation.prompt_ids, &generation.ids);
        let LanguageDecoder::Prefix(decoder) = &model.decoder else { unreachable!("it is BERT's family") };
        let first = decoder.config().first_block(prompt);
        assert_eq!(prompt[first - 1], decoder.config().block_token_id.unwrap());
        assert!(first < CHUNK && prompt.len() - first > CHUNK, "{first} {}", prompt.len());
        let known = model.tokenizer.vocabulary_size();
        for (place, (id, logprob)) in ids.iter().zip(&generation.logprobs).enumerate() {
            let mut cache = KvCache::new(decoder.config(), 1, prompt.len() + place, &FlexDevice);
            let mut hidden = None;
            for block in [&prompt[..first], &prompt[first..]] {
                let block = token_tensor(block, &FlexDevice);
                hidden = Some(block_on(decoder.extend_block(block, &mut cache, async || Ok(()))).unwrap());
            }
            if place > 0 {
                hidden = Some(decoder.extend(token_tensor(&ids[..place], &FlexDevice), &mut cache));
            }
            let logits = decoder.logits(hidden.unwrap()).narrow(1, 0, known);
            let logprobs = burn::tensor::activation::log_softmax(logits, 1).into_data();
            let wanted = logprobs.as_slice::<f32>().unwrap()[*id as usize];
            assert!((wanted - logprob).abs() < 1e-3, "{place}: {logprob} instead of {wanted}");
        }
    }

    #[test]
    fn a_prefix_model_decides_validly() {
        let model = prefix_model(no_turn());
        for sample in 0..10 {
            let mut request = request("Has a dog #0\n> Has a cat", Some(Grammar::Decision { shown: 1 }));
            request.sampling.key = [0, 0, sample];
            let (generation, _) = generate(&model, &request).unwrap();
            parse_decision(&generation.text, 1).unwrap();
        }
    }

    /// A turn before each of the two blocks, one between the two layers of the long one, and one
    /// before each token: in every one of them a cancellation is heard.
    #[test]
    fn a_long_block_gives_turns_between_its_layers() {
        let mut request = request(&"Has a dog named Scout ".repeat(30), None);
        request.max_new_tokens = 3;
        for stop in 1..=6 {
            let cancel = Cancel::default();
            let (seen, own) = (Rc::new(Cell::new(0)), cancel.clone());
            let counter = Rc::clone(&seen);
            let turn: Turn = Rc::new(move || {
                counter.set(counter.get() + 1);
                if counter.get() == stop {
                    own.cancel();
                }
                Box::pin(std::future::ready(()))
            });
            let made = block_on(prefix_model(turn).generate(&request, &cancel, &mut |_| {}));
            if stop <= 5 {
                assert_eq!((made.unwrap_err().code(), seen.get()), (ErrorCode::Aborted, stop));
            } else {
                assert_eq!((made.unwrap().ids.len(), seen.get()), (3, 5));
            }
        }
    }

    /// `cargo test --release --lib speed_of_decoding -- --ignored --nocapture`
    #[test]
    #[ignore = "prints a speed; run it alone"]
    #[allow(clippy::print_stdout)]
    fn speed_of_decoding() {
        let decoder = DecoderConfig::nano().init::<Flex>(3, &FlexDevice);
        let tokenizer = testing::trained();
        let template = ChatTemplate::new(None, Some(TEMPLATE)).unwrap();
        let info = model(1024, no_turn()).info;
        let model = LocalModel::new(decoder, tokenizer, template, info, None, no_turn()).unwrap();
        let mut request = request(&"Has a dog named Scout ".repeat(60), None);
        for max_new_tokens in [1, 257, 1, 257] {
            request.max_new_tokens = max_new_tokens;
            request.sampling.temperature = 0.0;
            let start = std::time::Instant::now();
            let (generation, _) = generate(&model, &request).unwrap();
            println!(
                "{} read, {} written: {:.1} ms",
                generation.prompt_ids.len(),
                generation.ids.len(),
                start.elapsed().as_secs_f64() * 1e3
            );
        }
    }
}
