//! The command line as a shell sees it: what it prints where, and its exit status.

#![cfg(not(target_arch = "wasm32"))]

mod shell;

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use shell::{failure, json, memory_r1};

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

/// A database with two scopes: Ann moved and sold her car, Bob has a cat.
fn database(folder: &Path) -> String {
    use memory_r1::bank::{Change, Journal, Operation, Scope, Timestamp, seeded_journal_id};
    use memory_r1::store::{SqliteStore, Store};
    let path = folder.join("memory.db");
    let store = SqliteStore::open(&path).unwrap();
    let day = |day: u32| Timestamp::parse(&format!("2024-03-{day:02}")).unwrap();
    for (user, texts) in [("ann", &["Lives in Lyon", "Has a red car"][..]), ("bob", &["Has a cat"])] {
        let scope = Scope::user(user);
        let mut journal = Journal::new(seeded_journal_id(1, &scope), scope.clone()).unwrap();
        let mut say = |day, operation: &Operation| {
            let mut draft = journal.draft(day);
            draft.apply(operation, Change::by_user(user, day)).unwrap();
            journal.append(draft.finish()).unwrap();
            journal.bank().memories().last().map(|memory| memory.id.clone())
        };
        let mut ids = Vec::new();
        for text in texts {
            ids.push(say(day(1), &Operation::Add { text: (*text).to_owned() }).unwrap());
        }
        if user == "ann" {
            say(day(5), &Operation::Update { id: ids[0].clone(), text: "Lives in Rome".to_owned() });
            say(day(9), &Operation::Delete { id: ids[1].clone() });
        }
        futures_lite::future::block_on(store.append(&scope, 0, journal.events())).unwrap();
    }
    path.to_str().unwrap().to_owned()
}

fn texts(results: &Value) -> Vec<&str> {
    results["results"].as_array().unwrap().iter().map(|memory| memory["text"].as_str().unwrap()).collect()
}

#[test]
fn the_bank_is_shown_undone_and_shown_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let db = database(folder.path());
    assert_eq!(texts(&json(&["memories", "--db", &db, "--json"])), ["Lives in Rome", "Has a cat"]);
    let ann = ["--db", &db, "--user", "ann", "--json"];
    let with = |command: &[&str]| json(&[command, &ann[..]].concat());
    assert_eq!(texts(&with(&["memories"])), ["Lives in Rome"]);
    assert_eq!(texts(&with(&["memories", "--as-of", "2"])), ["Lives in Lyon", "Has a red car"]);
    assert_eq!(texts(&with(&["memories", "--as-of", "2024-03-06"])), ["Lives in Rome", "Has a red car"]);
    let events = with(&["history"]);
    let ops: Vec<&str> =
        events["events"].as_array().unwrap().iter().map(|event| event["op"].as_str().unwrap()).collect();
    assert_eq!(ops, ["ADD", "ADD", "UPDATE", "DELETE"]);
    let id = events["events"][0]["id"].as_str().unwrap();
    assert_eq!(json(&["history", id, "--db", &db, "--json"])["events"].as_array().unwrap().len(), 2);

    assert_eq!(with(&["undo"])["events"][0]["op"], "ADD");
    assert_eq!(texts(&with(&["memories"])), ["Lives in Rome", "Has a red car"]);
    for _ in 0..3 {
        with(&["undo"]);
    }
    assert_eq!(texts(&with(&["memories"])).len(), 0);
    assert!(failure(&["undo", "--db", &db, "--user", "ann"]).contains("NOT_FOUND"));
}

#[test]
fn an_export_is_read_back_once() {
    let folder = tempfile::tempdir().unwrap();
    let db = database(folder.path());
    let file = folder.path().join("export.jsonl");
    let file = file.to_str().unwrap();
    let printed = memory_r1(&["export", "--db", &db]).stdout;
    let described = json(&["export", "--db", &db, "--out", file, "--json"]);
    assert_eq!(described["journals"][0]["events"], 4);
    assert_eq!(printed, std::fs::read(file).unwrap());

    let copy = folder.path().join("copy.db");
    let copy = copy.to_str().unwrap();
    let first = json(&["import", file, "--db", copy, "--json"]);
    assert_eq!((first["imported"].as_u64(), first["skipped"].as_u64()), (Some(5), Some(0)));
    let second = json(&["import", file, "--db", copy, "--json"]);
    assert_eq!((second["imported"].as_u64(), second["skipped"].as_u64()), (Some(0), Some(5)));
    assert_eq!(memory_r1(&["export", "--db", copy]).stdout, printed);

    json(&["undo", "--db", &db, "--user", "ann", "--json"]);
    json(&["undo", "--db", copy, "--user", "ann", "--json"]);
    let diverged = folder.path().join("diverged.jsonl");
    let diverged = diverged.to_str().unwrap();
    json(&["export", "--db", &db, "--out", diverged, "--json"]);
    // The two undos happened at two times: the journals part there.
    assert!(failure(&["import", diverged, "--db", copy]).contains("STORE_CONFLICT"));
    let cut = write(folder.path(), "cut.jsonl", std::str::from_utf8(&printed[..printed.len() / 2]).unwrap());
    assert!(failure(&["import", &cut, "--db", copy]).contains("STORE_CORRUPT"));
}

#[test]
fn what_is_not_there_is_said_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let db = database(folder.path());
    let absent = folder.path().join("absent.db");
    let absent = absent.to_str().unwrap();
    assert!(failure(&["memories", "--db", absent]).contains("is not there"));
    assert!(!Path::new(absent).exists(), "reading must not make a database");
    assert!(failure(&["export", "--db", &db, "--user", "eve"]).contains("user=eve"));
    assert!(failure(&["history", "no-such-id", "--db", &db]).contains("NOT_FOUND"));
    assert!(failure(&["undo", "--db", &db]).contains("--user"));
    assert!(failure(&["memories", "--db", &db, "--user", " "]).contains("INVALID_ARGUMENT"));
    let other =
        write(folder.path(), "other.db", "not a database at all, but text that is long enough to be one");
    let error = failure(&["memories", "--db", &other]);
    assert!(error.contains("STORE_CORRUPT"), "{error}");
}

#[test]
fn synth_repeats_itself_and_has_two_splits() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, split: &str| {
        let out = folder.path().join(name);
        let ops = folder.path().join(format!("{name}.ops"));
        let arguments =
            ["synth", "--seed", "3", "--dialogues", "2", "--cases", "40", "--json", "--split", split];
        let paths = ["--out", out.to_str().unwrap(), "--ops", ops.to_str().unwrap()];
        let made = json(&[&arguments[..], &paths].concat());
        (made, std::fs::read_to_string(&out).unwrap(), std::fs::read_to_string(&ops).unwrap())
    };
    let (made, conversations, cases) = make("a", "test");
    assert_eq!(made["dialogues"], 2);
    assert!(made["questions"].as_u64().unwrap() > 0 && made["ops"]["ADD"].as_u64().unwrap() > 0);
    assert_eq!(cases.lines().count() as u64, made["cases"].as_u64().unwrap());
    assert_eq!(make("b", "test"), (made, conversations.clone(), cases));
    assert_ne!(make("c", "train").1, conversations);
    assert_eq!(memory_r1(&["synth", "--seed", "x", "--dialogues", "1", "--out", "o"]).status.code(), Some(2));
}

#[test]
fn bench_measures_speed_beside_the_machines_limits() {
    let decode =
        json(&["bench", "decode", "--random", "nano", "--prompt-tokens", "4", "--new-tokens", "3", "--json"]);
    assert_eq!(decode["token"]["n"], 3);
    // All parameters of nano are multiplied with each token: its embedding is its head.
    assert_eq!(decode["weight_bytes"], 4 * 7_610_624);
    let prefill = json(&[
        "bench",
        "prefill",
        "--random",
        "minilm-prefix",
        "--prompt-tokens",
        "9",
        "--runs",
        "1",
        "--json",
    ]);
    assert_eq!(prefill["prompt_tokens"], 9);
    let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bundle-v1");
    let load = json(&["bench", "load", "--model", bundle, "--runs", "2", "--json"]);
    assert_eq!(load["load"]["n"], 2);
    let retrieval = json(&[
        "bench",
        "retrieval",
        "--memories",
        "2000",
        "--width",
        "24",
        "--top-k",
        "5",
        "--runs",
        "3",
        "--json",
    ]);
    assert_eq!(retrieval["recall"], 1.0);
    let train = |more: &[&str]| {
        let size = ["bench", "train", "--sequences", "3", "--tokens", "16", "--runs", "2", "--json"];
        json(&[&size[..], more].concat())
    };
    let (train, adapter) = (train(&[]), train(&["--lora", "4"]));
    for (report, per_weight) in [(&train, 6.0), (&adapter, 4.0)] {
        assert_eq!((&report["step"]["n"], &report["workers"]), (&2.into(), &2.into()));
        let number = |field: &str| report[field].as_f64().unwrap();
        let per_token = number("flops") / number("tokens_per_second");
        assert!((per_token / (per_weight * 7_610_624.0) - 1.0).abs() < 1e-6, "{report}");
    }
    assert_eq!((&train["lora"], &adapter["lora"]), (&serde_json::Value::Null, &4.into()));
    for (report, fields) in [
        (&decode, &["tokens_per_second", "bytes_per_second", "copy_bytes_per_second", "percent_of_copy"][..]),
        (&prefill, &["tokens_per_second", "flops", "matmul_flops", "percent_of_matmul"]),
        (&load, &["bytes", "bytes_per_second"]),
        (&retrieval, &["bytes_per_second", "copy_bytes_per_second", "percent_of_copy"]),
        (&train, &["matmul_flops", "percent_of_matmul"]),
    ] {
        for field in fields {
            assert!(report[field].as_f64().is_some_and(|value| value > 0.0), "{field}: {report}");
        }
    }
    let unknown = failure(&["bench", "decode", "--random", "gpt-9"]);
    assert!(unknown.contains("MODEL_UNSUPPORTED") && unknown.contains("qwen2.5-0.5b"), "{unknown}");
    let long = failure(&["bench", "prefill", "--random", "nano", "--prompt-tokens", "4097"]);
    assert!(long.contains("INVALID_ARGUMENT") && long.contains("4096"), "{long}");
    for wrong in [
        &["retrieval", "--memories", "0"][..],
        &["train", "--sequences", "0"],
        &["train", "--lora", "0"],
        &["train", "--bf16"],
    ] {
        assert!(failure(&[&["bench"], wrong].concat()).contains("INVALID_ARGUMENT"), "{wrong:?}");
    }
}

#[test]
fn a_training_run_says_in_a_line_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = write(folder.path(), "wrong.toml", "output_dir = \"x\"\nseeds = 3\n");
    let config = include_str!("../../configs/grpo.toml")
        .replace("runs/", &format!("{}/", folder.path().display()))
        .replace("pkg/models/nano", "no-model");
    let config = write(folder.path(), "grpo.toml", &config);
    for method in ["grpo", "ppo"] {
        assert!(failure(&["train", method, "--config", "missing.toml"]).contains("missing.toml"));
        assert!(failure(&["train", method, "--config", &wrong]).contains("seeds"));
        let error = failure(&["train", method, "--config", &config, "--resume"]);
        assert!(error.contains("config.toml could not be read"), "{error}");
        if !cfg!(feature = "cuda") {
            let error = failure(&["train", method, "--config", &config, "--device", "cuda"]);
            assert!(error.contains("MODEL_UNSUPPORTED") && error.contains("--features cuda"), "{error}");
        }
    }
    // The model that it would begin as is not there; the folder may be used again all the same.
    for _ in 0..2 {
        let error = failure(&["train", "grpo", "--config", &config]);
        assert!(error.contains("no-model"), "{error}");
    }
    let folder = folder.path().to_str().unwrap();
    let error = failure(&[
        "train",
        "merge",
        "--model",
        folder,
        "--adapter",
        folder,
        "--out",
        &format!("{folder}/out"),
    ]);
    assert!(error.contains("config.json"), "{error}");
}
