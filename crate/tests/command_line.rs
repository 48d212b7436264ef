//! The command line as a shell sees it: what it prints where, and its exit status.

#![cfg(not(target_arch = "wasm32"))]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn memory_r1(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_memory-r1"))
        .args(arguments)
        .env_remove("MEMORY_R1_MODEL")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Standard output as JSON; the command must succeed.
fn json(arguments: &[&str]) -> Value {
    let output = memory_r1(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}

/// The line on standard error of a command that must fail, with nothing on standard output.
fn failure(arguments: &[&str]) -> String {
    let output = memory_r1(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn help_succeeds_and_wrong_usage_is_status_2() {
    let help = memory_r1(&["-h"]);
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("score") && text.contains("devices"), "{text}");
    for wrong in [&[][..], &["remember"], &["score"], &["score", "--pairs"], &["devices", "--wrong"]] {
        let output = memory_r1(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{wrong:?}");
    }
}

#[test]
fn score_pools_the_categories_1_to_4() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = write(
        folder.path(),
        "pairs.jsonl",
        r#"{"prediction": "7 May, 2023", "answer": "7 May 2023", "category": 2}
{"prediction": "the dog", "answer": "a dog", "category": 4}
{"prediction": "blue", "answer": "no information", "category": 5}
"#,
    );
    let totals = json(&["score", "--pairs", &pairs, "--json"]);
    assert_eq!(totals["n"], 2);
    assert_eq!(totals["f1"], 0.75);
    // NLTK takes the comma for a word: 3 of 4 match. Then 1 of 2.
    assert_eq!(totals["bleu1"], 0.625);
    assert_eq!(totals["exact_match"], 1.0);
    assert_eq!(totals["by_category"]["5"]["n"], 1);
    assert_eq!(totals["by_category"]["4"]["f1"], 0.5);
    let text = memory_r1(&["score", "--pairs", &pairs]);
    assert!(String::from_utf8(text.stdout).unwrap().contains("75.00"));
}

#[test]
fn score_names_the_line_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = write(folder.path(), "pairs.jsonl", "{\"prediction\": \"x\", \"answer\": \"x\"}\n{\n");
    let error = failure(&["score", "--pairs", &pairs]);
    assert!(error.contains("INVALID_ARGUMENT") && error.contains("pairs.jsonl: line 2: not JSON"), "{error}");
    let empty = write(folder.path(), "empty.jsonl", "\n");
    assert!(failure(&["score", "--pairs", &empty, "--json"]).contains("holds no pairs"));
    let absent = folder.path().join("absent");
    assert!(failure(&["score", "--pairs", absent.to_str().unwrap()]).contains("NOT_REACHABLE"));
}

#[test]
fn devices_has_the_processor_in_every_build() {
    let devices = json(&["devices", "--json"]);
    let names: Vec<&str> = devices["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| device["device"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["cpu", "cuda", "vulkan", "webgpu"]);
    assert_eq!(devices["devices"][0]["available"], true);
    assert_eq!(devices["devices"][1]["built"], cfg!(feature = "cuda"));
}

#[test]
#[cfg(unix)]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_memory-r1"))
        .arg("devices")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
