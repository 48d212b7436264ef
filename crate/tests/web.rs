//! The models in a real browser: WebGPU (a software adapter will do) and the CPU agree, and a
//! model without any training makes nothing but valid decisions on both.
#![cfg(target_arch = "wasm32")]

#[path = "reference/decoders.rs"]
mod reference;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use burn::backend::wgpu::{RuntimeOptions, Wgpu, WgpuDevice, graphics::AutoGraphicsApi, init_setup_async};
use burn::tensor::{Int, Tensor, TensorData};
use memory_r1::checkpoint::Files;
use memory_r1::generation::{
    Cancel, ChatMessage, ChatTemplate, Decision, Embedder, Grammar, LanguageModel, LocalEmbedder, LocalModel,
    ModelInfo, PromptFamily, Request, Sampling, Tokenizer, no_turn, parse_decision,
};
use memory_r1::kernels::Kernels;
use memory_r1::nn::{Decoder, DecoderConfig, KvCache, read_back};
use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

wasm_bindgen_test_configure!(run_in_browser);

/// An encoder's files, and the embeddings that are wanted of it, one behind the other.
macro_rules! encoder {
    ($name:literal) => {{
        let read = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec().into());
        let files = Files::from([
            read("config.json", include_bytes!(concat!("fixtures/encoders/", $name, "/config.json"))),
            read(
                "model.safetensors",
                include_bytes!(concat!("fixtures/encoders/", $name, "/model.safetensors")),
            ),
            read("tokenizer.json", include_bytes!(concat!("fixtures/encoders/", $name, "/tokenizer.json"))),
            read(
                "sentence_bert_config.json",
                include_bytes!(concat!("fixtures/encoders/", $name, "/sentence_bert_config.json")),
            ),
            read(
                "1_Pooling/config.json",
                include_bytes!(concat!("fixtures/encoders/", $name, "/1_Pooling/config.json")),
            ),
        ]);
        let bytes = include_bytes!(concat!("fixtures/encoders/", $name, "/embeddings.f32"));
        let wanted: Vec<f32> = bytes.as_chunks().0.iter().map(|own| f32::from_le_bytes(*own)).collect();
        (files, wanted)
    }};
}

thread_local! {
    static STARTED: Cell<bool> = const { Cell::new(false) };
}

/// The GPU, set up once for all tests of this page.
async fn gpu() -> WgpuDevice {
    let device = WgpuDevice::default();
    if !STARTED.replace(true) {
        init_setup_async::<AutoGraphicsApi>(&device, RuntimeOptions::default()).await;
    }
    device
}

fn small() -> DecoderConfig {
    DecoderConfig {
        vocab_size: 512,
        num_hidden_layers: 2,
        max_position_embeddings: 256,
        ..DecoderConfig::nano()
    }
}

/// Logits behind `prompt`, read at once, then behind three more tokens through the cache.
async fn logits<B: Kernels>(decoder: &Decoder<B>, prompt: &[i32], device: &B::Device) -> Vec<f32> {
    let tensor =
        |ids: &[i32]| Tensor::<B, 2, Int>::from_data(TensorData::new(ids.to_vec(), [1, ids.len()]), device);
    let mut cache = KvCache::new(decoder.config(), 1, prompt.len() + 3, device);
    let mut hidden = decoder.extend(tensor(prompt), &mut cache);
    let mut all = read_back(decoder.logits(hidden)).await.unwrap();
    for id in [3, 141, 59] {
        hidden = decoder.extend(tensor(&[id]), &mut cache);
        all.extend(read_back(decoder.logits(hidden)).await.unwrap());
    }
    all
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().chain(b).all(|logit| logit.is_finite()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[wasm_bindgen_test]
async fn webgpu_and_cpu_agree_on_logits() {
    let (config, prompt) = (small(), (0..37).map(|place| place * 31 % 512).collect::<Vec<i32>>());
    let device = gpu().await;
    let on_cpu = logits(&config.init::<Flex>(7, &FlexDevice), &prompt, &FlexDevice).await;
    let on_gpu = logits(&config.init::<Wgpu>(7, &device), &prompt, &device).await;
    let spread = on_cpu.iter().copied().fold(0.0, f32::max);
    assert!(spread > 0.01, "the logits are all alike: {spread}");
    let difference = furthest(&on_cpu, &on_gpu);
    assert!(difference < 1e-3, "the logits differ by {difference}");
}

/// What transformers computes (`tests/reference/decoders.py`), on both backends.
#[wasm_bindgen_test]
async fn both_agree_with_transformers() {
    let device = gpu().await;
    for checkpoint in reference::checkpoints() {
        let on_cpu = reference::largest_difference::<Flex>(&checkpoint, &FlexDevice).await.unwrap();
        let on_gpu = reference::largest_difference::<Wgpu>(&checkpoint, &device).await.unwrap();
        assert!(on_cpu < 1e-4, "{}: {on_cpu}", checkpoint.name);
        assert!(on_gpu < 1e-3, "{}: {on_gpu}", checkpoint.name);
        let on_cpu = reference::greedy::<Flex>(&checkpoint, &FlexDevice).await.unwrap();
        let on_gpu = reference::greedy::<Wgpu>(&checkpoint, &device).await.unwrap();
        assert_eq!(on_cpu, checkpoint.reference.greedy, "{}", checkpoint.name);
        assert_eq!(on_gpu, checkpoint.reference.greedy, "{}", checkpoint.name);
    }
}

/// Tiny encoders give Sentence Transformers' embeddings (`tests/reference/encoder.py`) on both.
#[wasm_bindgen_test]
async fn encoders_agree_with_sentence_transformers() {
    let device = gpu().await;
    let sentences: Vec<String> =
        serde_json::from_slice(include_bytes!("fixtures/encoders/sentences.json")).unwrap();
    let texts: Vec<&str> = sentences.iter().map(String::as_str).collect();
    for (files, wanted) in [encoder!("mean"), encoder!("first")] {
        let on_cpu = LocalEmbedder::<Flex>::load(&files, &FlexDevice, no_turn()).unwrap();
        let on_gpu = LocalEmbedder::<Wgpu>::load(&files, &device, no_turn()).unwrap();
        for embedder in [&on_cpu as &dyn Embedder, &on_gpu] {
            let own = embedder.embed(&texts, &Cancel::default()).await.unwrap();
            let width = embedder.info().dimensions;
            assert_eq!(own.len() * width, wanted.len());
            for (place, (own, wanted)) in own.iter().zip(wanted.chunks_exact(width)).enumerate() {
                let cosine: f32 = own.iter().zip(wanted).map(|(a, b)| a * b).sum();
                assert!(cosine > 0.9999, "{place}: {cosine}");
            }
        }
    }
}

const SPECIAL: [&str; 5] = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"];

/// A vocabulary of all bytes, as GPT-2 writes them, and nano's special tokens.
fn tokenizer() -> Arc<Tokenizer> {
    let is_shown = |byte: u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut moved = 0x100..;
    let shown = (0..=255u32).map(|byte| if is_shown(byte) { byte } else { moved.next().unwrap() });
    let bytes = shown.map(|code| char::from_u32(code).unwrap().to_string());
    let tokens = SPECIAL.iter().map(|name| (*name).to_owned()).chain(bytes);
    let vocab: serde_json::Map<_, _> = tokens.enumerate().map(|(id, token)| (token, id.into())).collect();
    let added: Vec<_> = SPECIAL
        .iter()
        .enumerate()
        .map(|(id, content)| {
            serde_json::json!({
                "id": id, "content": content, "special": true,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    let byte_level = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    let json = serde_json::json!({
        "version": "1.0", "added_tokens": added, "normalizer": null, "pre_tokenizer": byte_level,
        "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    Arc::new(Tokenizer::from_bytes(json.to_string().as_bytes(), None, None).unwrap())
}

fn untrained<B: Kernels>(seed: u64, device: &B::Device) -> LocalModel<B> {
    let config = DecoderConfig {
        vocab_size: 320,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 16,
        // Far from uniform: the model insists on nonsense.
        initializer_range: 1.0,
        ..DecoderConfig::nano()
    };
    let template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>";
    let info = ModelInfo {
        name: "untrained".to_owned(),
        fingerprint: String::new(),
        prompt_family: PromptFamily::Compact,
        context_length: 1024,
        candidates_per_speaker: 12,
        manager_candidates: 5,
        extractor_candidates: 0,
        fact_threshold: 0.0,
    };
    let template = ChatTemplate::new(None, Some(template)).unwrap();
    LocalModel::new(config.init(seed, device), tokenizer(), template, info, None, no_turn()).unwrap()
}

async fn decisions_are_valid<B: Kernels>(models: u64, each: u64, device: &B::Device) {
    let mut events = [0; 4];
    for seed in 0..models {
        let model: Rc<dyn LanguageModel> = Rc::new(untrained::<B>(seed, device));
        for example in 0..each {
            let shown = (example % 6) as usize;
            let lines: Vec<String> =
                (0..shown).map(|id| format!("8 May 2023: Has {id} dogs #{id}")).collect();
            let message = |role: &str, content: String| ChatMessage { role: role.to_owned(), content };
            let request = Request {
                messages: vec![
                    message("system", "manage".to_owned()),
                    message("user", format!("{}\n> Has a dog named Scout", lines.join("\n"))),
                ],
                grammar: Some(Grammar::Decision { shown }),
                max_new_tokens: 64,
                sampling: Sampling { temperature: 1.0, seed, key: [0, example, 0], ..Sampling::default() },
                stop: Vec::new(),
            };
            let made = model.generate(&request, &Cancel::default(), &mut |_| ()).await.unwrap();
            // An error for malformed text and for an id that was not shown.
            let event = match parse_decision(&made.text, shown).unwrap() {
                Decision::Add { .. } => 0,
                Decision::Update { .. } => 1,
                Decision::Delete { .. } => 2,
                Decision::Noop => 3,
            };
            events[event] += 1;
            assert!(made.ids.len() <= 64);
            assert!(made.logprobs.iter().all(|logprob| *logprob <= 1e-6), "{:?}", made.logprobs);
        }
    }
    assert!(events.iter().filter(|count| **count > 0).count() > 1, "all decisions are the same: {events:?}");
}

#[wasm_bindgen_test]
async fn decisions_of_an_untrained_model_are_valid_on_the_cpu() {
    decisions_are_valid::<Flex>(10, 10, &FlexDevice).await;
}

#[wasm_bindgen_test]
async fn decisions_of_an_untrained_model_are_valid_on_webgpu() {
    let device = gpu().await;
    decisions_are_valid::<Wgpu>(2, 2, &device).await;
}
