//! The bundle's format, frozen by a committed bundle of each version: it must open for ever.
#![cfg(not(target_arch = "wasm32"))]

use std::path::{Path, PathBuf};

use burn::backend::flex::FlexDevice;
use burn::backend::{Autodiff, Flex};
use futures_lite::future::block_on;
use memory_r1::checkpoint::{
    Content, Files, MANIFEST, Manifest, PackOptions, Quantization, TrainingRun, add_extractor, extractor,
    pack, small, verify, write_decoder,
};
use memory_r1::error::{Error, ErrorCode};
use memory_r1::generation::{
    Cancel, ChatMessage, FinishReason, Grammar, LanguageModel, LocalModel, PromptFamily, Request, Sampling,
    no_turn,
};
use memory_r1::nn::DecoderConfig;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bundle-v1")
}

fn committed() -> Files {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap().into()))
        .collect()
}

fn load(files: &Files) -> Result<LocalModel<Flex>, Error> {
    LocalModel::load(files, &FlexDevice, no_turn())
}

fn refusal(files: &Files) -> Error {
    load(files).err().expect("the bundle must be refused")
}

#[test]
fn the_committed_bundle_opens() {
    let model = load(&committed()).unwrap();
    let info = model.info();
    assert_eq!(info.name, "tiny");
    assert_eq!(info.prompt_family, PromptFamily::Compact);
    assert_eq!((info.context_length, info.candidates_per_speaker, info.manager_candidates), (200, 12, 5));
    assert_eq!(info.fingerprint, "82ab01c9e84dce532d23575467e2418b331aaae9f420fc3a6fff4d97bb408da0");
    let manifest = model.manifest().unwrap();
    assert_eq!(manifest.quantization, Quantization::F16);
    assert_eq!(manifest.licence, "MIT OR Apache-2.0");
    assert_eq!(manifest.training.commands, ["a test made it"]);
    let difference = block_on(model.self_check()).unwrap().unwrap();
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn the_committed_bundle_writes_as_ever() {
    let model = load(&committed()).unwrap();
    let message = |role: &str, content: &str| ChatMessage { role: role.into(), content: content.into() };
    let request = Request {
        messages: vec![message("system", "extract"), message("user", "> Ann: I have a dog")],
        grammar: Some(Grammar::Facts { max_facts: 2 }),
        max_new_tokens: 40,
        sampling: Sampling::default(),
        stop: Vec::new(),
    };
    let generation = block_on(model.generate(&request, &Cancel::default(), &mut |_| {})).unwrap();
    assert_eq!(generation.prompt_ids.len(), 29);
    assert_eq!(generation.text, r#"{"facts":["ڸLx<􆾲+L$赵:ɒWɵ:ɖ1R"]}"#);
    assert_eq!(generation.finish_reason, FinishReason::Stop);
    let logprob: f32 = generation.logprobs.iter().sum();
    assert!((logprob + 46.6877).abs() < 1e-3, "{logprob}");
}

/// The bytes of a file, to be changed.
fn bytes_of<'a>(files: &'a mut Files, name: &str) -> &'a mut Vec<u8> {
    match files.get_mut(name) {
        Some(Content::Memory(bytes)) => bytes,
        other => panic!("{name}: {other:?}"),
    }
}

fn text_of(files: &Files, name: &str) -> String {
    String::from_utf8(small(files, name).unwrap().to_vec()).unwrap()
}

#[test]
fn weights_on_a_disk_are_those_of_memory() {
    let folder = tempfile::tempdir().unwrap();
    for quantization in [Quantization::F32, Quantization::F16, Quantization::Q6] {
        let options = PackOptions { quantization, ..options() };
        let here = block_on(pack::<Flex>(&committed(), &options, None, &FlexDevice)).unwrap();
        let path = folder.path().join("model.safetensors.partial");
        let there = block_on(pack::<Flex>(&committed(), &options, Some(&path), &FlexDevice)).unwrap();
        assert!(there["model.safetensors"].in_memory().is_none());
        assert_eq!(there, here);
        assert_eq!(std::fs::read(path).unwrap(), small(&here, "model.safetensors").unwrap());
    }
}

#[test]
fn a_flipped_byte_is_refused_by_the_name_of_its_file() {
    let files = committed();
    for name in files.keys().filter(|name| *name != MANIFEST) {
        let mut damaged = files.clone();
        let bytes = bytes_of(&mut damaged, name);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let error = refusal(&damaged);
        assert_eq!(error.code(), ErrorCode::ModelIntegrity);
        assert!(error.message().contains(name.as_str()) && error.message().contains("damaged"), "{error}");
    }
}

#[test]
fn a_file_that_is_missing_cut_or_unlisted_is_named() {
    let files = committed();
    let mut missing = files.clone();
    missing.remove("tokenizer.json");
    assert!(refusal(&missing).message().starts_with("the bundle's file tokenizer.json is missing"));
    let mut cut = files.clone();
    bytes_of(&mut cut, "model.safetensors").pop();
    assert!(refusal(&cut).message().starts_with("the bundle's file model.safetensors has "));
    let mut extra = files;
    extra.insert("more.safetensors".into(), vec![].into());
    assert_eq!(refusal(&extra).message(), "the bundle's file more.safetensors is not in its manifest");
}

#[test]
fn a_newer_format_is_told_from_a_broken_one() {
    let mut files = committed();
    let text = text_of(&files, MANIFEST);
    let newer = text.replace("\"format_version\": 1", "\"format_version\": 2");
    files.insert(MANIFEST.into(), newer.into_bytes().into());
    assert_eq!(refusal(&files).code(), ErrorCode::ModelUnsupported);
    // A bundle of before there was a threshold believes all; one that is no probability is damaged.
    assert!(!text.contains("fact_threshold"));
    files.insert(MANIFEST.into(), text.clone().into_bytes().into());
    assert!(load(&files).unwrap().info().fact_threshold.abs() < f64::EPSILON);
    let wrong = text.replacen('{', "{ \"fact_threshold\": 1.5,", 1);
    files.insert(MANIFEST.into(), wrong.into_bytes().into());
    assert!(refusal(&files).message().contains("fact_threshold"));
    files.insert(MANIFEST.into(), text.as_bytes()[..text.len() / 2].to_vec().into());
    assert_eq!(refusal(&files).code(), ErrorCode::ModelIntegrity);
    files.remove(MANIFEST);
    assert_eq!(load(&files).unwrap().info().prompt_family, PromptFamily::Instruct);
}

fn options() -> PackOptions {
    PackOptions {
        name: "tiny".into(),
        quantization: Quantization::F16,
        embedding_quantization: None,
        prompt_family: "compact".into(),
        context_length: Some(200),
        candidates_per_speaker: 12,
        manager_candidates: 5,
        extractor_candidates: 0,
        fact_threshold: 0.0,
        licence: "MIT OR Apache-2.0".into(),
        training: TrainingRun { run: "none".into(), commands: vec!["a test made it".into()] },
    }
}

#[test]
fn packing_writes_what_is_committed() {
    let files = committed();
    let packed = block_on(pack::<Flex>(&files, &options(), None, &FlexDevice)).unwrap();
    let manifest = |files: &Files| verify(files).unwrap().unwrap();
    let (own, wanted): (Manifest, Manifest) = (manifest(&packed), manifest(&files));
    let logits = |manifest: &Manifest| manifest.self_check.clone().unwrap().logits;
    for (own, wanted) in logits(&own).iter().zip(logits(&wanted)) {
        assert!((own - wanted).abs() < 1e-4);
    }
    let with_logits_of = |mut manifest: Manifest, other: &Manifest| {
        manifest.self_check = other.self_check.clone();
        manifest
    };
    assert_eq!(with_logits_of(own, &wanted), wanted);
    for (name, bytes) in files.iter().filter(|(name, _)| *name != MANIFEST) {
        assert_eq!(&packed[name], bytes, "{name}");
    }
}

/// The same weights and the same layout, for ever: the fingerprints are literals.
#[test]
fn quantised_bundles_open_and_lie_as_ever() {
    let (q8, q6, q4) = (Quantization::Q8, Quantization::Q6, Quantization::Q4);
    for (quantization, embedding, fingerprint) in [
        (q8, None, "d3aca0e8fd3192800691fde379ea3b3da23fced9683e31e0de8424821b236bed"),
        (q6, Some(q6), "007d16a7627a731b02ee383ebd21e1e49b33f6cf4de89f8d39ab7cd572ab4adb"),
        (q4, Some(q4), "26f2b32aa981bc855d4e5955b3b8f5d2721951ee206dce78f60d4d266c60f41d"),
        (q4, None, "c8054d0fd6b0b55aea2c9b954285663a0a6009de2efbd86dc7f5027370bdf0ec"),
    ] {
        let options = PackOptions { quantization, embedding_quantization: embedding, ..options() };
        let files = block_on(pack::<Flex>(&committed(), &options, None, &FlexDevice)).unwrap();
        let model = load(&files).unwrap();
        let manifest = model.manifest().unwrap();
        assert_eq!(manifest.quantization, quantization);
        let own = embedding.unwrap_or(if quantization == q4 { q8 } else { quantization });
        assert_eq!(manifest.embedding_quantization, (own != quantization).then_some(own));
        let difference = block_on(model.self_check()).unwrap().unwrap();
        assert!(difference < 1e-4, "{quantization}: {difference}");
        assert_eq!(model.info().fingerprint, fingerprint, "{quantization}, embeddings {embedding:?}");
        // What was packed is packed again, in more bits, without change.
        let exact = PackOptions { quantization: Quantization::F32, embedding_quantization: None, ..options };
        let wide = block_on(pack::<Flex>(&files, &exact, None, &FlexDevice)).unwrap();
        let logits = |files: &Files| verify(files).unwrap().unwrap().self_check.unwrap().logits;
        assert_eq!(logits(&wide), logits(&files));
    }
}

#[test]
fn a_quantised_bundle_is_told_what_is_wrong_with_it() {
    let options = PackOptions { quantization: Quantization::Q6, ..options() };
    let mut files = block_on(pack::<Flex>(&committed(), &options, None, &FlexDevice)).unwrap();
    let config = text_of(&files, "config.json");
    files.remove(MANIFEST);
    let config = config.replace("\"vocab_size\": 262", "\"vocab_size\": 263");
    files.insert("config.json".into(), config.into_bytes().into());
    let error = refusal(&files);
    assert_eq!(error.code(), ErrorCode::ModelIntegrity);
    assert_eq!(
        error.message(),
        "the tensor model.embed_tokens.weight has the shape [262, 24], quantised, instead of [263, 16], \
         [263, 24], [263, 32]"
    );
}

/// A second model in the first's folder, under names of its own.
#[test]
fn a_bundle_may_have_an_extractor_of_its_own() {
    let packed = |quantization, options: PackOptions| {
        block_on(pack::<Flex>(&committed(), &PackOptions { quantization, ..options }, None, &FlexDevice))
            .unwrap()
    };
    let mut bundle = packed(Quantization::F16, options());
    let alone = load(&bundle).unwrap().info().fingerprint.clone();
    assert!(extractor(&bundle).unwrap().is_none());
    let training = TrainingRun { run: "second".into(), commands: vec!["first of all".into()] };
    let own = PackOptions {
        extractor_candidates: 3,
        fact_threshold: 0.5,
        context_length: Some(128),
        training,
        ..options()
    };
    let mut other = packed(Quantization::Q8, own);
    other.insert("NOTICE".into(), b"of the second".to_vec().into());
    let text = text_of(&other, MANIFEST);
    other.insert(MANIFEST.into(), text.clone().into_bytes().into());
    add_extractor(&mut bundle, &other).unwrap();

    let manifest = verify(&bundle).unwrap().unwrap();
    assert_eq!(manifest.training.commands, ["first of all", "a test made it"]);
    assert_eq!(manifest.training.run, "none; extractor: second");
    assert_eq!(text_of(&bundle, "NOTICE"), "of the second");
    assert!(manifest.files.contains_key("NOTICE") && manifest.files.contains_key("extractor.safetensors"));
    let second = extractor(&bundle).unwrap().unwrap();
    let model = load(&second).unwrap();
    let info = model.info();
    assert_eq!((info.extractor_candidates, info.context_length), (3, 128));
    assert!((info.fact_threshold - 0.5).abs() < f64::EPSILON);
    assert_eq!(model.manifest().unwrap().quantization, Quantization::Q8);
    assert!(block_on(model.self_check()).unwrap().unwrap() < 1e-4);
    assert_eq!(info.fingerprint, load(&other).unwrap().info().fingerprint);
    // The first is what it was, and the bundle's fingerprint is that of both.
    let first = load(&bundle).unwrap();
    assert!(block_on(first.self_check()).unwrap().unwrap() < 1e-4);
    assert_ne!(first.info().fingerprint, alone);
    assert_eq!((first.info().extractor_candidates, first.info().context_length), (0, 200));

    // It stays when the bundle is packed again, and goes with another of the same names.
    let again =
        block_on(pack::<Flex>(&bundle, &PackOptions::of(Some(&manifest)), None, &FlexDevice)).unwrap();
    assert_eq!(verify(&again).unwrap().unwrap().training, manifest.training);
    assert_eq!(again["extractor.safetensors"], bundle["extractor.safetensors"]);
    assert!(extractor(&again).unwrap().is_some());
    add_extractor(&mut bundle, &other).unwrap();
    assert_eq!(text_of(&bundle, "NOTICE"), "of the second");

    let mut damaged = bundle.clone();
    bytes_of(&mut damaged, "extractor.safetensors")[500] ^= 1;
    assert!(refusal(&damaged).message().contains("extractor.safetensors is damaged"));
    damaged.remove("extractor.safetensors");
    assert!(refusal(&damaged).message().contains("extractor.safetensors is missing"));
    let mut stranger = other.clone();
    stranger.remove(MANIFEST);
    assert!(add_extractor(&mut bundle, &stranger).unwrap_err().message().contains("pack both"));
    let mut files = committed();
    files.insert(
        "tokenizer_config.json".into(),
        br#"{"eos_token":"<|end|>","chat_template":"x"}"#.to_vec().into(),
    );
    files.remove(MANIFEST);
    let stranger = block_on(pack::<Flex>(&files, &options(), None, &FlexDevice)).unwrap();
    let error = add_extractor(&mut bundle, &stranger).unwrap_err();
    assert_eq!(error.message(), "the extractor's tokenizer_config.json is not the model's");
}

/// Made the committed bundle: `cargo test --release --test bundle -- --ignored`. Only a new
/// format version needs another one, in another folder.
#[test]
#[ignore = "overwrites the committed bundle"]
fn write_the_bundle() {
    let config = DecoderConfig {
        vocab_size: 262,
        hidden_size: 32,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: 256,
        initializer_range: 0.3,
        ..DecoderConfig::nano()
    };
    let decoder = config.init::<Flex>(1, &FlexDevice);
    let mut files = block_on(write_decoder(&decoder.into(), Quantization::F32)).unwrap();
    files.insert("tokenizer.json".into(), byte_level_tokenizer().into_bytes().into());
    let template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>";
    let tokenizer_config = serde_json::json!({"chat_template": template, "eos_token": "<|end|>"});
    files.insert("tokenizer_config.json".into(), format!("{tokenizer_config:#}\n").into_bytes().into());
    std::fs::create_dir_all(folder()).unwrap();
    for (name, bytes) in block_on(pack::<Flex>(&files, &options(), None, &FlexDevice)).unwrap() {
        std::fs::write(folder().join(name), bytes.whole().unwrap()).unwrap();
    }
}

/// A prefix model's self-check reads its prompt as a generator does: in a block, then causally.
#[test]
fn a_bundle_of_bert_checks_itself() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decoders/bert");
    let names = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ];
    let files: Files =
        names.map(|name| (name.to_owned(), std::fs::read(folder.join(name)).unwrap().into())).into();
    let bundle = block_on(pack::<Flex>(&files, &options(), None, &FlexDevice)).unwrap();
    let model = load(&bundle).unwrap();
    assert_eq!(model.manifest().unwrap().architecture, "BertLMHeadModel");
    assert_eq!(model.decoder().config().block_token_id, Some(298));
    let difference = block_on(model.self_check()).unwrap().unwrap();
    assert!(difference < 1e-5, "{difference}");
    // Another device's operators.
    let model = LocalModel::<Autodiff<Flex>>::load(&bundle, &FlexDevice, no_turn()).unwrap();
    let difference = block_on(model.self_check()).unwrap().unwrap();
    assert!(difference < 1e-3, "{difference}");
}

/// Special tokens, then every byte, without merges.
fn byte_level_tokenizer() -> String {
    let special = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"];
    let mut alphabet: Vec<char> =
        tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let names = special.iter().map(|name| (*name).to_owned()).chain(alphabet.iter().map(char::to_string));
    let vocab: serde_json::Map<_, _> = names.enumerate().map(|(id, name)| (name, id.into())).collect();
    let added: Vec<_> = special
        .iter()
        .enumerate()
        .map(|(id, content)| {
            serde_json::json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect();
    let level = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    format!("{tokenizer:#}\n")
}
