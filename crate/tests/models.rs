//! The commands that ask a model, on random weights: what they print is nonsense, but it has its form.

#![cfg(not(target_arch = "wasm32"))]

mod random_bundle;
mod shell;

use std::fs;
use std::path::Path;

use random_bundle::{lines, made_up, model, text, timeless};
use serde_json::Value;
use shell::{failure, json, memory_r1};

#[test]
fn generate_prints_tokens_with_their_probabilities() {
    let greedy =
        ["generate", "--model", model(), "--prompt", "I have a dog", "--max-new-tokens", "12", "--json"];
    let generated = json(&greedy);
    let ids = generated["ids"].as_array().unwrap();
    assert!(!ids.is_empty() && ids.len() <= 12);
    assert_eq!(generated["logprobs"].as_array().unwrap().len(), ids.len());
    assert!(generated["logprobs"].as_array().unwrap().iter().all(|logprob| logprob.as_f64().unwrap() <= 0.0));
    assert!(!generated["prompt_ids"].as_array().unwrap().is_empty());
    assert!(["stop", "length"].contains(&generated["finish_reason"].as_str().unwrap()));
    assert!(generated["timing"]["generate_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(json(&greedy)["ids"], generated["ids"]);

    let sampled =
        |seed| json(&[&greedy[..], &["--temperature", "2", "--seed", seed]].concat())["ids"].clone();
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"));
    let warm = ["--temperature", "2", "--seed", "1"];
    let several = json(&[&greedy[..], &warm, &["--samples", "3"]].concat());
    let samples = several["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 3);
    assert_eq!(samples[0]["ids"], sampled("1"));
    assert!(samples[1]["ids"] != samples[0]["ids"] && samples[1]["ids"] != samples[2]["ids"]);
    assert_eq!(several["prompt_ids"], generated["prompt_ids"]);
    let plain = memory_r1(&greedy[..greedy.len() - 1]).stdout;
    assert_eq!(
        String::from_utf8(plain).unwrap().trim_end_matches('\n'),
        generated["text"].as_str().unwrap().trim_end_matches('\n')
    );
    assert_eq!(memory_r1(&["generate", "--prompt", "x", "--temperature", "-1"]).status.code(), Some(2));
}

#[test]
fn what_was_added_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("memory.db");
    let common = ["--db", text(&db), "--user", "ann", "--model", model(), "--json"];
    let add =
        |text: &str, more: &[&str]| json(&[&["add", text, "--at", "2024-03-02"], &common[..], more].concat());
    let added = add("I adopted a dog named Scout", &["--no-infer", "--speaker", "Ann"]);
    assert_eq!(added["results"][0]["event"], "ADD");
    assert_eq!(added["results"][0]["memory"], "I adopted a dog named Scout");
    let decided = add("I also adopted a cat", &["--speaker", "Ann", "--seed", "4"]);
    for result in decided["results"].as_array().unwrap() {
        assert!(["ADD", "UPDATE", "DELETE", "NONE"].contains(&result["event"].as_str().unwrap()));
        assert_eq!(result["receipt"]["turn"]["timestamp"], "2024-03-02T00:00:00.000Z");
    }
    let memories = json(&["memories", "--db", text(&db), "--json"]);
    let count = memories["results"].as_array().unwrap().len();
    let answered = json(&[&["answer", "What is the dog called?"], &common[..]].concat());
    assert!(!answered["answer"].as_str().unwrap().is_empty());
    assert_eq!(answered["candidates"].as_array().unwrap().len(), count.min(12));
    assert!(answered["memories"].as_array().unwrap().len() <= count);
    let huge = shell::memory_r1_reading(&[&["add", "-"], &common[..]].concat(), &"x ".repeat(600_000));
    assert_eq!(huge.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&huge.stderr).contains("INVALID_ARGUMENT"));
    assert_eq!(json(&["memories", "--db", text(&db), "--json"]), memories);
    assert!(failure(&["answer", "x", "--db", text(&db), "--model", model()]).contains("--user"));
    assert!(failure(&[&["add", " "], &common[..6]].concat()).contains("INVALID_ARGUMENT"));
    assert!(failure(&[&["add", "x", "--at", "soon"], &common[..6]].concat()).contains("--at"));
}

#[test]
fn an_encoder_that_was_chosen_finds_memories_and_its_vectors_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("memory.db");
    let encoder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/encoders/mean");
    let kept = || -> i64 {
        let raw = rusqlite::Connection::open(&db).unwrap();
        raw.query_row("SELECT count(*) FROM vectors WHERE dimensions = 32", [], |row| row.get(0)).unwrap()
    };
    let common = ["--db", text(&db), "--user", "ann", "--model", model(), "--json"];
    for said in ["I adopted a dog", "I live in Lyon"] {
        json(&[&["add", said, "--no-infer"], &common[..]].concat());
    }
    json(&[&["answer", "Where do I live?"], &common[..]].concat());
    assert_eq!(kept(), 0);
    let answered = json(&[&["answer", "I live in Lyon", "--embedder", encoder], &common[..]].concat());
    assert_eq!(answered["candidates"][1]["text"], "I live in Lyon");
    assert_eq!(kept(), 2);
    json(&[&["add", "I have a cat", "--seed", "1", "--embedder", encoder], &common[..]].concat());
    assert!(kept() >= 2);
    let error = failure(&[&["answer", "x", "--embedder", model()], &common[..6]].concat());
    assert!(error.contains("MODEL_UNSUPPORTED") && error.contains("supported: BertModel"), "{error}");

    // A run says which encoder it had, and is not gone on with by another.
    let (conversations, cases) = made_up(folder.path());
    let ops = ["eval", "ops", "--limit", "2", "--model", model(), "--json", "--data", text(&cases)];
    assert!(json(&ops).get("embedder").is_none());
    let hybrid = json(&[&ops[..], &["--embedder", encoder]].concat());
    let out = folder.path().join("run");
    let run = ["eval", "locomo", "--limit", "1", "--turns", "4", "--model", model(), "--json"];
    let run = [&run[..], &["--data", text(&conversations), "--out", text(&out)]].concat();
    let report = json(&[&run[..], &["--embedder", encoder]].concat());
    assert_eq!(report["embedder"], hybrid["embedder"]);
    assert_eq!(report["embedder"].as_str().unwrap().len(), 64);
    let other = encoder.replace("mean", "first");
    let error = failure(&[&run[..], &["--resume", "--embedder", &other]].concat());
    assert!(error.contains("another embedder"), "{error}");
    let error = failure(&[&run[..], &["--resume"]].concat());
    assert!(error.contains("another"), "{error}");
}

#[test]
fn a_bundle_is_packed_onto_itself() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bundle-v1");
    for entry in fs::read_dir(fixture).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let path = folder.path().to_str().unwrap();
    let names = || {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let before = names();
    for quantization in ["q8", "q4"] {
        json(&[
            "pack",
            "--model",
            path,
            "--out",
            path,
            "--quantize",
            quantization,
            "--licence",
            "MIT",
            "--json",
        ]);
        assert_eq!(names(), before);
        let written =
            json(&["generate", "--model", path, "--prompt", "Hello", "--max-new-tokens", "3", "--json"]);
        assert!(!written["ids"].as_array().unwrap().is_empty(), "{written}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |name| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode("model.safetensors"), mode("manifest.json"));
    }
}

/// A run's model has neither manifest nor licence: those of the bundle that it went on from are its own.
#[test]
fn a_model_is_packed_like_the_bundle_that_it_went_on_from() {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pkg/models/nano");
    let folder = tempfile::tempdir().unwrap();
    let (plain, out) = (folder.path().join("model"), folder.path().join("bundle"));
    fs::create_dir(&plain).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "lexicon.txt"]
    {
        fs::copy(nano.join(name), plain.join(name)).unwrap();
    }
    let pack =
        ["pack", "--model", text(&plain), "--quantize", "q6", "--embedding", "q4", "--out", text(&out)];
    assert!(failure(&pack).contains("--licence"));
    let unlike = failure(&[&pack[..], &["--like", text(&plain)]].concat());
    assert!(unlike.contains("INVALID_ARGUMENT") && unlike.contains("no manifest"), "{unlike}");
    json(
        &[&pack[..], &["--like", text(&nano), "--name", "mine", "--manager-candidates", "4", "--json"]]
            .concat(),
    );
    let manifest = |folder: &Path| -> Value {
        serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap()
    };
    let (own, nano) = (manifest(&out), manifest(&nano));
    for field in
        ["prompt_family", "candidates_per_speaker", "context_length", "licence", "extractor", "quantization"]
    {
        assert_eq!(own[field], nano[field], "{field}");
    }
    assert_eq!((&own["name"], &own["manager_candidates"]), (&"mine".into(), &4.into()));
    for name in ["LICENSE-MIT", "LICENSE-APACHE", "NOTICE", "extractor.safetensors", "model.safetensors"] {
        assert_eq!(own["files"][name], nano["files"][name], "{name}");
    }
}

#[test]
fn a_model_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent");
    assert!(failure(&["generate", "--prompt", "x", "--model", text(&absent)]).contains("there is no folder"));
    assert!(
        failure(&["generate", "--prompt", "x", "--model", text(folder.path())]).contains("no model's folder")
    );
    for entry in fs::read_dir(model()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let weights = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let error = failure(&["generate", "--prompt", "x", "--model", text(folder.path())]);
    assert!(error.contains("MODEL_INTEGRITY") && error.contains("damaged"), "{error}");
    if cfg!(not(feature = "cuda")) {
        let error = failure(&["generate", "--prompt", "x", "--model", model(), "--device", "cuda"]);
        assert!(error.contains("--features cuda"), "{error}");
    } else if json(&["devices", "--json"])["devices"][1]["available"] == false {
        let error = failure(&["generate", "--prompt", "x", "--model", model(), "--device", "cuda"]);
        let said = error.trim_end();
        assert!(said.starts_with("error: MODEL_UNSUPPORTED: cuda cannot run here: "), "{error}");
        assert!(said.ends_with("; use --device cpu") && !said.contains('\n'), "{error}");
    }
}

#[test]
fn eval_ops_judges_every_case() {
    let folder = tempfile::tempdir().unwrap();
    let (_, cases) = made_up(folder.path());
    let run = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let own =
            ["eval", "ops", "--data", text(&cases), "--model", model(), "--out", text(&out), "--worst", "2"];
        let report = json(&[&own[..], more, &["--json"]].concat());
        (timeless(report), lines(&out.join("cases.jsonl")))
    };
    let (report, outcomes) = run("a", &[]);
    assert_eq!(report["n"], 8);
    assert_eq!(outcomes.len(), 8);
    let passed = outcomes.iter().filter(|outcome| outcome["passed"] == true).count();
    assert_eq!(report["passed"], passed);
    assert_eq!(report["accuracy"], passed as f64 / 8.0);
    for op in ["ADD", "UPDATE", "DELETE", "NOOP"] {
        assert_eq!(report["by_op"][op]["n"], 2, "{op}");
    }
    assert_eq!(report["target_recall"]["k"], 5);
    assert!(report["worst"].as_array().unwrap().len() <= 2);
    assert_eq!(run("b", &[]), (report, outcomes.clone()));

    // Several cases at once are decided alike, in their order; a fact that is not believed is not decided on.
    let facts = |own: &Value| -> Vec<String> {
        let decided = own["decided"].as_array().unwrap().iter();
        decided.map(|own| format!("{} {} {}", own["op"], own["target"], own["fact"])).collect()
    };
    let all = |own: &[Value]| own.iter().map(facts).collect::<Vec<_>>();
    assert_eq!(all(&run("wide", &["--concurrency", "4"]).1), all(&outcomes));
    assert!(outcomes.iter().any(|own| !facts(own).is_empty()));
    let (_, sure) = run("sure", &["--fact-threshold", "0.9999999"]);
    assert!(sure.iter().all(|own| facts(own).is_empty()));
}

#[test]
fn eval_quantization_compares_every_format_with_f32() {
    let folder = tempfile::tempdir().unwrap();
    let (_, cases) = made_up(folder.path());
    let command = ["eval", "quantization", "--data", text(&cases), "--model", model(), "--limit", "6"];
    let report = json(&[&command[..], &["--json"]].concat());
    assert_eq!((&report["model"], &report["cases"]), (&"random".into(), &6.into()));
    assert!(report["tokens"].as_u64().unwrap() > 0);
    let formats = report["formats"].as_array().unwrap();
    let names: Vec<&str> = formats.iter().map(|own| own["quantization"].as_str().unwrap()).collect();
    assert_eq!(names, ["f32", "f16", "q8", "q6", "q4", "q4"]);
    assert_eq!(formats[4]["embedding_quantization"], "q8");
    assert!(formats[5].get("embedding_quantization").is_none());
    let [f32, f16, q8, q6, mixed, q4] = &formats[..] else { unreachable!() };
    let bytes = |own: &Value| own["weights_bytes"].as_u64().unwrap();
    assert!(bytes(f32) > bytes(f16) && bytes(f16) > bytes(q8) && bytes(q8) > bytes(q6));
    assert!(bytes(q6) > bytes(q4) && bytes(mixed) > bytes(q4) && bytes(q8) > bytes(mixed));
    let kl = |own: &Value| own["mean_kl"].as_f64().unwrap();
    // The bundle is in 16 bits itself.
    assert!(kl(f32) == 0.0 && kl(f16) == 0.0 && kl(mixed) > 0.0, "{report}");
    assert!(0.0 < kl(q8) && kl(q8) < kl(q6) && kl(q6) < kl(q4) && kl(q4) < 0.5, "{report}");
    let packed = folder.path().join("mixed");
    let pack = ["pack", "--model", model(), "--out", text(&packed), "--quantize", "q4"];
    json(&[&pack[..], &["--json"]].concat());
    assert_eq!(fs::metadata(packed.join("model.safetensors")).unwrap().len(), bytes(mixed));
    let manifest: Value = serde_json::from_slice(&fs::read(packed.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(
        (&manifest["quantization"], &manifest["embedding_quantization"]),
        (&"q4".into(), &"q8".into())
    );
    let typed = manifest["training"]["commands"].as_array().unwrap().last().unwrap();
    assert_eq!(*typed, format!("memory-r1 {} --json", pack.join(" ")));
    let wrong = failure(&[&pack[..], &["--fact-threshold", "1.5"]].concat());
    assert!(wrong.contains("INVALID_ARGUMENT") && wrong.contains("1.5"), "{wrong}");
    let plain = String::from_utf8(memory_r1(&command).stdout).unwrap();
    assert!(plain.starts_with("weights") && plain.contains("mean KL"), "{plain}");
}
