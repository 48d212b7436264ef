//! A real local model with random weights and a byte-level vocabulary, on the CPU.

use std::rc::Rc;
use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use memory_r1::generation::{ChatTemplate, LocalModel, ModelInfo, PromptFamily, Tokenizer, Turn};
use memory_r1::nn::DecoderConfig;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

const TEMPLATE: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>";

/// A model whose weights come from `seed`; `turn` is called before each step.
pub(crate) fn model(context_length: usize, seed: u64, turn: Turn) -> Rc<LocalModel<Flex>> {
    let tokenizer = tokenizer();
    let config = DecoderConfig {
        vocab_size: tokenizer.vocabulary_size(),
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        initializer_range: 0.3,
        ..DecoderConfig::nano()
    };
    let info = ModelInfo {
        name: "random".into(),
        fingerprint: "0".repeat(64),
        prompt_family: PromptFamily::Compact,
        context_length,
        candidates_per_speaker: 12,
        manager_candidates: 5,
        extractor_candidates: 0,
        fact_threshold: 0.0,
    };
    let template = ChatTemplate::new(None, Some(TEMPLATE)).unwrap();
    let decoder = config.init(seed, &FlexDevice);
    Rc::new(LocalModel::new(decoder, tokenizer, template, info, None, turn).unwrap())
}

fn tokenizer() -> Arc<Tokenizer> {
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    let special = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"];
    let trainer = BpeTrainer::builder()
        .vocab_size(420)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(special.map(|name| tokenizers::AddedToken::from(name, true)).to_vec())
        .build();
    let corpus = [
        r#"{"facts":["Has a dog named Scout","Lives in Lyon"]} 8 May 2023: Has a dog named Scout #11"#,
        r#"{"event":"UPDATE","id":"2","text":"Works as a nurse"}{"event":"DELETE","id":"0"}{"event":"NONE"}"#,
        r#"{"memories":["3","17"],"answer":"Scout"}{"event":"ADD","text":"Adopted a second dog"}"#,
    ];
    tokenizer.train(&mut TrainerWrapper::from(trainer), corpus.iter().cycle().take(30).copied()).unwrap();
    Arc::new(Tokenizer::from_bytes(tokenizer.to_string(false).unwrap().as_bytes(), None, None).unwrap())
}
