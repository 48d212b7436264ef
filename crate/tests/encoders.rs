//! Sentence encoders against Sentence Transformers: tiny random ones, and all-MiniLM-L6-v2 itself.
//!
//! `tests/reference/encoder.py` makes the encoders and the embeddings; its header says how.
#![cfg(not(target_arch = "wasm32"))]

use std::path::{Path, PathBuf};
use std::process::Command;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use futures_lite::future::block_on;
use memory_r1::checkpoint::{Files, read_encoder};
use memory_r1::error::ErrorCode;
use memory_r1::generation::{Cancel, Embedder, LocalEmbedder, no_turn};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders")
}

fn files(folder: &Path) -> Files {
    let names = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
    ];
    names
        .into_iter()
        .map(|name| (name.to_owned(), std::fs::read(folder.join(name)).unwrap().into()))
        .collect()
}

fn sentences() -> Vec<String> {
    serde_json::from_slice(&std::fs::read(fixtures().join("sentences.json")).unwrap()).unwrap()
}

fn reference(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(fixtures().join(name).join("embeddings.f32")).unwrap();
    bytes.chunks_exact(4).map(|own| f32::from_le_bytes(own.try_into().unwrap())).collect()
}

/// The smallest cosine of a sentence's embedding with the reference.
fn least_cosine(name: &str, folder: &Path) -> f32 {
    let embedder = LocalEmbedder::<Flex>::load(&files(folder), &FlexDevice, no_turn()).unwrap();
    let sentences = sentences();
    let texts: Vec<&str> = sentences.iter().map(String::as_str).collect();
    let own = block_on(embedder.embed(&texts, &Cancel::default())).unwrap();
    let wanted = reference(name);
    assert_eq!(own.len() * embedder.info().dimensions, wanted.len());
    let cosines = own.iter().zip(wanted.chunks_exact(embedder.info().dimensions)).map(|(own, wanted)| {
        let length = own.iter().map(|value| value * value).sum::<f32>();
        assert!((length - 1.0).abs() < 1e-4, "{length}");
        own.iter().zip(wanted).map(|(a, b)| a * b).sum::<f32>()
    });
    cosines.fold(f32::INFINITY, |least, own| if own.is_nan() { f32::NEG_INFINITY } else { least.min(own) })
}

#[test]
fn tiny_encoders_agree_with_sentence_transformers() {
    for name in ["mean", "first"] {
        let least = least_cosine(name, &fixtures().join(name));
        assert!(least > 0.99999, "{name}: {least}");
    }
}

/// `./build.sh encoder` fetches it; `./build.sh test` runs this.
#[test]
#[ignore = "needs runs/all-MiniLM-L6-v2: ./build.sh encoder"]
fn the_real_minilm_agrees_with_sentence_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runs/all-MiniLM-L6-v2");
    let least = least_cosine("minilm", &folder);
    assert!(least > 0.9999, "{least}");
}

#[test]
fn the_command_line_embeds() {
    let folder = fixtures().join("mean");
    let sentences = sentences();
    let mut command = Command::new(env!("CARGO_BIN_EXE_memory-r1"));
    command.args(["embed", "--json", "--model"]).arg(&folder);
    command.args(["--text", &sentences[3], "--text", &sentences[0]]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let own: Vec<Vec<f32>> = serde_json::from_value(printed["embeddings"].clone()).unwrap();
    let wanted = reference("mean");
    for (own, place) in own.iter().zip([3, 0]) {
        let wanted = &wanted[place * own.len()..][..own.len()];
        assert!(own.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-4), "{place}");
    }
    // A decoder is no encoder.
    let decoder = fixtures().join("../decoders/qwen3");
    let output = Command::new(env!("CARGO_BIN_EXE_memory-r1"))
        .args(["embed", "--text", "x", "--model"])
        .arg(decoder)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("supported: BertModel"), "{error}");
}

#[test]
fn what_is_wrong_with_an_encoder_is_named() {
    let with = |name: &str, from: &str, to: &str| {
        let mut files = files(&fixtures().join("mean"));
        let text = String::from_utf8(files[name].whole().unwrap().into_owned()).unwrap();
        assert!(text.contains(from), "{text}");
        files.insert(name.to_owned(), text.replace(from, to).into_bytes().into());
        let error = LocalEmbedder::<Flex>::load(&files, &FlexDevice, no_turn()).err().unwrap();
        (error.code(), error.message().to_owned())
    };
    let (code, message) = with("config.json", "\"gelu\"", "\"relu\"");
    assert_eq!(code, ErrorCode::ModelUnsupported);
    assert_eq!(message, "hidden_act \"relu\" is not supported; supported: gelu");
    let (code, message) = with("config.json", "\"num_attention_heads\": 4", "\"num_attention_heads\": 5");
    assert_eq!(code, ErrorCode::ModelIntegrity);
    assert_eq!(message, "5 heads cannot share a width of 32 evenly");
    let (code, message) = with("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
    assert_eq!(code, ErrorCode::ModelIntegrity);
    assert!(message.starts_with("the tensor encoder.layer.1.") && message.contains("left over"), "{message}");
    let (code, message) = with("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    assert_eq!(code, ErrorCode::ModelIntegrity);
    assert_eq!(message, "the tensor encoder.layer.2.attention.self.query.weight is missing");
    let (code, message) = with("1_Pooling/config.json", "true", "false");
    assert_eq!(code, ErrorCode::ModelUnsupported);
    assert_eq!(message, "only mean and [CLS] pooling are supported");
    let mut files = files(&fixtures().join("mean"));
    files.remove("tokenizer.json");
    assert!(read_encoder::<Flex>(&files, &FlexDevice).is_ok());
    let error = LocalEmbedder::<Flex>::load(&files, &FlexDevice, no_turn()).err().unwrap();
    assert_eq!((error.code(), error.message()), (ErrorCode::ModelIntegrity, "tokenizer.json is missing"));
}
