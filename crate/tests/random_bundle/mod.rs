//! A bundle of random weights, made-up conversations, and what tests read of their runs.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use futures_lite::future::block_on;
use memory_r1::checkpoint::{Quantization, write_decoder};
use memory_r1::nn::{Decoder, DecoderConfig};
use serde_json::Value;
use tempfile::TempDir;

use crate::shell::json;

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A bundle of random weights, packed by the command itself.
static MODEL: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("random");
    fs::create_dir(&source).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bundle-v1");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture.join(name), source.join(name)).unwrap();
    }
    let config = DecoderConfig::from_json(&fs::read_to_string(fixture.join("config.json")).unwrap()).unwrap();
    let config = DecoderConfig { max_position_embeddings: 1024, initializer_range: 0.3, ..config };
    let decoder: Decoder<Flex> = config.init(3, &FlexDevice);
    for (name, bytes) in block_on(write_decoder(&decoder.into(), Quantization::F32)).unwrap() {
        let bytes = bytes.whole().unwrap();
        fs::write(source.join(name), bytes).unwrap();
    }
    let bundle = folder.path().join("bundle");
    let options = ["--prompts", "compact", "--licence", "MIT", "--candidates-per-speaker", "12", "--json"];
    let paths = ["pack", "--model", text(&source), "--out", text(&bundle), "--quantize", "f16"];
    let packed = json(&[&paths[..], &options].concat());
    assert_eq!(packed["name"], "random");
    let bytes: u64 =
        fs::read_dir(&bundle).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(packed["bytes"], bytes);
    (folder, bundle)
});

pub fn model() -> &'static str {
    text(&MODEL.1)
}

/// Two short conversations and eight cases.
pub fn made_up(folder: &Path) -> (PathBuf, PathBuf) {
    let (conversations, cases) = (folder.join("conversations.json"), folder.join("cases.jsonl"));
    let paths = ["--out", text(&conversations), "--ops", text(&cases)];
    let numbers = ["synth", "--seed", "5", "--dialogues", "2", "--split", "test", "--cases", "8", "--json"];
    json(&[&numbers[..], &paths].concat());
    (conversations, cases)
}

/// The JSON without what depends on the machine's speed.
pub fn timeless(mut value: Value) -> Value {
    let fields = value.as_object_mut().unwrap();
    fields.retain(|name, _| !name.starts_with("seconds"));
    value
}

pub fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
