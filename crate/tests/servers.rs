//! Benchmarks whose models are behind an OpenAI-compatible server: what it is asked, what is made
//! of its replies, and what happens when it fails.

#![cfg(not(target_arch = "wasm32"))]

mod local_server;
mod shell;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use local_server::{Fault, LocalServer};
use serde_json::Value;
use shell::{failure, json};
use tempfile::TempDir;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

struct Place {
    folder: TempDir,
    data: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("conversations.json");
        let numbers = ["synth", "--seed", "5", "--dialogues", "2", "--split", "test", "--json"];
        json(&[&numbers[..], &["--out", text(&data)]].concat());
        Self { folder, data }
    }

    /// `eval locomo` of the first turns and questions, with a model.
    fn arguments(&self, model: &str, name: &str, more: &[&str]) -> Vec<String> {
        let out = self.folder.path().join(name);
        let paths = ["eval", "locomo", "--data", text(&self.data), "--out", text(&out), "--model", model];
        let rest = ["--turns", "6", "--limit", "50", "--json"];
        [&paths[..], &rest, more].concat().into_iter().map(str::to_owned).collect()
    }

    fn run(&self, server: &LocalServer, name: &str, more: &[&str]) -> Value {
        let own = self.arguments(&format!("{}#some/model", server.base), name, more);
        json(&own.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn fails(&self, model: &str, name: &str, more: &[&str]) -> String {
        let own = self.arguments(model, name, more);
        failure(&own.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn answers(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name).join("questions.jsonl")).unwrap()
    }
}

#[test]
fn a_server_plays_all_parts_and_its_failures_change_nothing() {
    let (server, place) = (LocalServer::new(), Place::new());
    let report = place.run(&server, "whole", &[]);
    assert_eq!((&report["model"], &report["malformed"]), (&"some/model".into(), &0.into()));
    assert!(report["facts"].as_u64().unwrap() >= 6 && report["ops"]["ADD"] == report["facts"], "{report}");
    let asked = server.asked();
    let first = &asked[0];
    assert_eq!((&first["model"], &first["temperature"]), (&"some/model".into(), &0.0.into()));
    assert_eq!(first["messages"][0]["role"], "system");
    let answers = place.answers("whole");
    assert_eq!(answers.lines().count(), 50);

    // Every kind of failure that passes, in the middle of work on several conversations at once.
    let faults = [Fault::Busy, Fault::Broken, Fault::Cut, Fault::Lost, Fault::Failed, Fault::CutWhole];
    server.fail(&faults);
    place.run(&server, "troubled", &["--concurrency", "4"]);
    assert_eq!(place.answers("troubled"), answers);
    assert_eq!(server.asked().len(), asked.len() + faults.len());

    // A server that does not stream.
    server.fail(&vec![Fault::Whole; asked.len()]);
    place.run(&server, "whole-replies", &[]);
    assert_eq!(place.answers("whole-replies"), answers);
}

/// Cases of operations are decided by a server too, several at once as one after the other.
#[test]
fn a_server_decides_cases() {
    let (server, folder) = (LocalServer::new(), tempfile::tempdir().unwrap());
    let cases = folder.path().join("ops.jsonl");
    let dialogues = folder.path().join("dialogues.json");
    let numbers = ["synth", "--seed", "5", "--dialogues", "1", "--split", "test", "--cases", "8", "--json"];
    json(&[&numbers[..], &["--out", text(&dialogues), "--ops", text(&cases)]].concat());
    let model = format!("{}#some/model", server.base);
    let run = |more: &[&str]| {
        let own = ["eval", "ops", "--data", text(&cases), "--model", &model, "--json"];
        json(&[&own[..], more].concat())
    };
    let report = run(&[]);
    assert_eq!((&report["model"], &report["n"]), (&"some/model".into(), &8.into()));
    assert!(server.asked().len() >= 8);
    server.fail(&[Fault::Busy, Fault::Prose]);
    let troubled = run(&["--concurrency", "4"]);
    assert_eq!((&troubled["n"], &troubled["malformed"]), (&8.into(), &1.into()));
    assert_eq!(run(&["--concurrency", "4"])["by_op"], report["by_op"]);
}

#[test]
fn replies_are_kept_and_not_asked_for_twice() {
    let (server, place) = (LocalServer::new(), Place::new());
    let cache = place.folder.path().join("cache");
    let more = ["--cache", text(&cache)];
    // The run stops in the middle; what was asked is kept.
    server.fail(&[Fault::Locked]);
    let model = format!("{}#some/model", server.base);
    let error = place.fails(&model, "stopped", &more);
    assert!(error.contains("INVALID_ARGUMENT") && error.contains("status 401: no such key"), "{error}");
    place.run(&server, "first", &more);
    assert!(server.asked().len() > 50);
    place.run(&server, "second", &more);
    assert_eq!(server.asked(), Vec::<Value>::new());
    assert_eq!(place.answers("first"), place.answers("second"));
    let kept = fs::read_dir(&cache).unwrap().flat_map(|entry| fs::read_dir(entry.unwrap().path()).unwrap());
    for file in kept {
        let entry: Value = serde_json::from_slice(&fs::read(file.unwrap().path()).unwrap()).unwrap();
        assert!(entry["request"]["messages"].is_array() && entry["reply"].is_string());
    }
}

#[test]
fn a_server_that_is_gone_or_refuses_is_named() {
    let place = Place::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let model = format!("http://127.0.0.1:{port}/v1#some/model");
    let error = place.fails(&model, "gone", &["--attempts", "2"]);
    assert!(error.contains("NOT_REACHABLE") && error.contains(&format!("127.0.0.1:{port}")), "{error}");
    assert!(error.contains("tried 2 times"), "{error}");

    let server = LocalServer::new();
    server.fail(&[Fault::Broken; 3]);
    let error = place.fails(&format!("{}#m", server.base), "broken", &["--attempts", "2"]);
    assert!(error.contains("status 500: out of memory (tried 2 times)"), "{error}");
    let error = place.fails(&server.base, "nameless", &[]);
    assert!(error.contains("names no model; write") && error.contains("#NAME"), "{error}");
}

#[test]
fn what_is_no_json_changes_nothing_and_a_long_prompt_is_cut() {
    let (server, place) = (LocalServer::new(), Place::new());
    server.fail(&[Fault::Prose]);
    let report = place.run(&server, "prose", &[]);
    assert_eq!(report["malformed"], 1);
    let whole = place.run(&server, "whole", &[]);
    assert_eq!(report["facts"].as_u64().unwrap() + 1, whole["facts"].as_u64().unwrap());

    // The second turn's prompt has context before it, which is left out then.
    server.asked();
    let plain = place.run(&server, "plain", &[]);
    let calls = server.asked();
    let place_of_second =
        calls.iter().skip(1).position(|own| own["messages"][0] == calls[0]["messages"][0]).unwrap();
    let faults: Vec<Fault> =
        std::iter::repeat_n(Fault::Slow, place_of_second + 1).chain([Fault::TooLong]).collect();
    server.fail(&faults);
    let cut = place.run(&server, "cut", &[]);
    assert_eq!((&cut["facts"], server.asked().len()), (&plain["facts"], calls.len() + 1));
}

#[test]
fn a_server_is_asked_as_the_options_say() {
    let (server, place) = (LocalServer::new(), Place::new());
    let prompts = ["--prompts", "compact", "--candidates-per-speaker", "2", "--fact-threshold", "0"];
    let more = [&prompts[..], &["--temperature", "0.5", "--context-turns", "0"]].concat();
    place.run(&server, "compact", &more);
    let asked = server.asked();
    assert!(asked.iter().all(|own| own["temperature"] == 0.5 && own["stream"] == true));
    let extracted: Vec<_> = asked.iter().filter(|own| own["messages"][0]["content"] == "extract").collect();
    let said = |own: &Value| own["messages"][1]["content"].as_str().unwrap().lines().count();
    assert!(extracted.len() == 12 && extracted.iter().all(|own| said(own) == 1), "{extracted:?}");
    let first: Vec<Value> =
        place.answers("compact").lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(first.iter().all(|own| own["candidates"].as_array().unwrap().len() <= 4));
    // The same folder is another run without them.
    let model = format!("{}#some/model", server.base);
    let error = place.fails(&model, "compact", &["--resume"]);
    assert!(error.contains("another models"), "{error}");
    let error = place.fails(&model, "wrong", &["--fact-threshold", "1.5"]);
    assert!(error.contains("--fact-threshold is in 0..1"), "{error}");
}

#[test]
fn a_part_may_be_played_by_another_model_and_the_key_is_sent() {
    let (server, place) = (LocalServer::new(), Place::new());
    let base = format!("{}#small", server.base);
    let answerer = format!("{}#large", server.base);
    let arguments = place.arguments(&base, "mixed", &["--answerer", &answerer]);
    let run = Command::new(env!("CARGO_BIN_EXE_memory-r1"))
        .args(arguments)
        .env("OPENAI_API_KEY", "secret")
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&report["model"], &report["answer_agent"]), (&"small".into(), &"large".into()));
    let asked = server.asked();
    let of = |model: &str| asked.iter().filter(|own| own["model"] == model).count();
    assert_eq!(of("large"), 50);
    assert!(of("small") >= 12);
    assert!(server.keys().iter().all(|key| key.as_deref() == Some("Bearer secret")));
}
