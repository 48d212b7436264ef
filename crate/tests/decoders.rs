//! The decoder against transformers: logits and greedy tokens of tiny random checkpoints.
//!
//! `tests/reference/decoders.py` makes the checkpoints and their reference; its header says how.
#![cfg(not(target_arch = "wasm32"))]

#[path = "reference/decoders.rs"]
mod reference;

use std::process::Command;

use burn::backend::flex::FlexDevice;
use burn::backend::{Autodiff, Flex};
use futures_lite::future::block_on;
use memory_r1::checkpoint::read_decoder;
use memory_r1::error::ErrorCode;
use serde_json::Value;

#[test]
fn logits_are_those_of_transformers() {
    for checkpoint in reference::checkpoints() {
        let largest = reference::largest_difference::<Flex>(&checkpoint, &FlexDevice);
        let difference = block_on(largest).unwrap();
        assert!(difference < 1e-4, "{}: {difference}", checkpoint.name);
    }
}

/// The trait's own operators, which a GPU's backend takes, in place of the CPU backend's.
#[test]
fn logits_of_a_backend_that_overrides_nothing_are_those_of_transformers() {
    for checkpoint in reference::checkpoints() {
        let largest = reference::largest_difference::<Autodiff<Flex>>(&checkpoint, &FlexDevice);
        let difference = block_on(largest).unwrap();
        assert!(difference < 1e-4, "{}: {difference}", checkpoint.name);
    }
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    for checkpoint in reference::checkpoints() {
        let greedy = block_on(reference::greedy::<Flex>(&checkpoint, &FlexDevice)).unwrap();
        assert_eq!(greedy, checkpoint.reference.greedy, "{}", checkpoint.name);
    }
}

/// The whole way: folder, chat template, tokenizer, decoder, sampler, JSON.
#[test]
fn the_command_line_generates_what_transformers_does() {
    for checkpoint in reference::checkpoints() {
        let folder = format!("{}/tests/fixtures/decoders/{}", env!("CARGO_MANIFEST_DIR"), checkpoint.name);
        for chat in &checkpoint.reference.chats {
            let mut command = Command::new(env!("CARGO_BIN_EXE_memory-r1"));
            command.args(["generate", "--json", "--max-new-tokens", "24", "--model", &folder]);
            command.args(["--prompt", &chat.prompt]);
            command.args(chat.system.iter().flat_map(|system| ["--system", system]));
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let generated: Value = serde_json::from_slice(&output.stdout).unwrap();
            let ids = |name: &str| serde_json::from_value::<Vec<u32>>(generated[name].clone()).unwrap();
            assert_eq!(ids("prompt_ids"), chat.prompt_ids, "{}: {}", checkpoint.name, chat.prompt);
            assert_eq!(ids("ids"), chat.ids, "{}: {}", checkpoint.name, chat.prompt);
        }
    }
}

#[test]
fn the_command_line_filters_and_ends_at_a_stop_string() {
    let [checkpoint, ..] = reference::checkpoints();
    let folder = format!("{}/tests/fixtures/decoders/{}", env!("CARGO_MANIFEST_DIR"), checkpoint.name);
    let chat = &checkpoint.reference.chats[0];
    let generate = |more: &[String]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memory-r1"));
        command.args(["generate", "--json", "--max-new-tokens", "24", "--model", &folder]);
        command.args(["--prompt", &chat.prompt]).args(more);
        command.args(chat.system.iter().flat_map(|system| ["--system", system]));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    // Hot as it is, one token is all that each of these leaves.
    for filter in [["--top-k", "1"], ["--top-p", "0"], ["--min-p", "1"]] {
        let drawn = generate(&["--temperature", "9", filter[0], filter[1]].map(str::to_owned));
        assert_eq!(drawn["ids"], serde_json::json!(chat.ids), "{filter:?}");
        assert!(drawn["logprobs"].as_array().unwrap().iter().all(|own| own.as_f64() == Some(0.0)));
    }
    let whole = generate(&[]);
    let whole = whole["text"].as_str().unwrap();
    let stop = whole.chars().filter(char::is_ascii_graphic).nth(2).unwrap();
    let cut = generate(&[format!("--stop={stop}"), "--stop=never said".to_owned()]);
    assert_eq!(cut["text"].as_str(), whole.split(stop).next());
    assert_eq!(cut["finish_reason"], "stop");
}

#[test]
fn a_file_that_the_index_names_and_the_folder_has_not_is_named() {
    let [.., mut checkpoint, _, _] = reference::checkpoints();
    checkpoint.files.remove("model-00002-of-00003.safetensors");
    let error = read_decoder::<Flex>(&checkpoint.files, &FlexDevice).unwrap_err();
    assert_eq!(error.code(), ErrorCode::ModelIntegrity);
    assert_eq!(
        error.message(),
        "model-00002-of-00003.safetensors is missing, which model.safetensors.index.json names"
    );
}

#[test]
fn an_index_that_is_no_index_is_named() {
    let [.., mut checkpoint, _, _] = reference::checkpoints();
    for text in ["[", "{}", r#"{"weight_map":{"norm":1}}"#] {
        checkpoint.files.insert("model.safetensors.index.json".to_owned(), text.as_bytes().to_vec().into());
        let error = read_decoder::<Flex>(&checkpoint.files, &FlexDevice).unwrap_err();
        assert_eq!(error.code(), ErrorCode::ModelIntegrity);
        assert_eq!(error.message(), "model.safetensors.index.json does not map tensors to files");
    }
}
