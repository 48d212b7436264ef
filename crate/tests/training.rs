//! Training as a shell runs it: the same seed is the same run, also where it was killed on the way.

#![cfg(not(target_arch = "wasm32"))]

mod adapter_server;
mod local_server;
mod shell;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use adapter_server::{AdapterServer, Manner};
use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use futures_lite::future::block_on;
use local_server::LocalServer;
use memory_r1::checkpoint::{Quantization, write_decoder};
use memory_r1::nn::{Decoder, DecoderConfig};
use serde_json::Value;
use shell::{failure, json, memory_r1};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A model folder with random weights.
fn model(folder: &Path) -> PathBuf {
    let model = folder.join("model");
    fs::create_dir(&model).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bundle-v1");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture.join(name), model.join(name)).unwrap();
    }
    let config = DecoderConfig::from_json(&fs::read_to_string(fixture.join("config.json")).unwrap()).unwrap();
    let config = DecoderConfig { max_position_embeddings: 1024, ..config };
    let decoder: Decoder<Flex> = config.init(3, &FlexDevice);
    for (name, bytes) in block_on(write_decoder(&decoder.into(), Quantization::F32)).unwrap() {
        let bytes = bytes.whole().unwrap();
        fs::write(model.join(name), bytes).unwrap();
    }
    model
}

/// The configuration of a run of 20 steps in this folder.
fn config(folder: &Path, name: &str, seed: u64) -> PathBuf {
    let path = folder.join(format!("{name}.toml"));
    let own = format!(
        r#"
        output_dir = "{}"
        seed = {seed}
        model_name_or_path = "{model}"
        extractor_name_or_path = "{model}"
        learning_rate = 1e-3
        generation_batch_size = 6
        num_generations = 3
        logging_steps = 3
        eval_steps = 5
        save_steps = 4
        phases = [{{ agent = "answer", max_steps = 11 }}, {{ agent = "manager", max_steps = 9 }}]
        data = {{ seed = 3, dialogues = 1, eval_dialogues = 1, eval_tasks = 2, manager_candidates = 3, candidates_per_speaker = 4 }}
        reward = {{ f1 = 1.0 }}
        # So that there is something to learn where no answer is right.
        grpo = {{ beta = 0.05, entropy_coef = 0.05 }}
        "#,
        folder.join(name).display(),
        model = folder.join("model").display(),
    );
    fs::write(&path, own).unwrap();
    path
}

/// Facts as a good extractor would find them, in the place where a run keeps them.
fn tell_facts(folder: &Path, name: &str) {
    let conversations = folder.join("conversations.json");
    if !conversations.exists() {
        json(&["synth", "--seed", "3", "--dialogues", "2", "--out", text(&conversations), "--json"]);
    }
    let made: Value = serde_json::from_slice(&fs::read(&conversations).unwrap()).unwrap();
    let facts_of = |turn: &Value| -> (String, Vec<Value>) {
        let facts = turn["facts"].as_array().unwrap().iter().map(|fact| fact["resolved"].clone());
        (turn["dia_id"].as_str().unwrap().to_owned(), facts.collect())
    };
    let facts: BTreeMap<&str, BTreeMap<String, Vec<Value>>> = made
        .as_array()
        .unwrap()
        .iter()
        .map(|own| {
            let turns = own["gold"]["turns"].as_array().unwrap();
            (own["sample_id"].as_str().unwrap(), turns.iter().map(facts_of).collect())
        })
        .collect();
    fs::create_dir_all(folder.join(name)).unwrap();
    fs::write(folder.join(name).join("facts.json"), serde_json::to_vec(&facts).unwrap()).unwrap();
}

/// Starts the run and kills it (signal 9) once so many bytes of metrics and so much time have come.
fn kill_on_the_way(config: &Path, run: &Path, more: &[&str], bytes: u64, then: Duration) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_memory-r1"))
        .args(["train", "grpo", "--config", text(config)])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let length = || fs::metadata(run.join("metrics.jsonl")).map_or(0, |own| own.len());
    let (start, wanted) = (Instant::now(), length() + bytes);
    while length() < wanted && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_mins(5), "no metrics come");
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(then);
    assert!(child.try_wait().unwrap().is_none(), "the run ended before it was killed");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn made(run: &Path) -> [Vec<u8>; 4] {
    ["metrics.jsonl", "samples.jsonl", "model/model.safetensors", "checkpoint-20/optimizer.safetensors"]
        .map(|name| fs::read(run.join(name)).unwrap())
}

#[test]
fn a_run_that_is_killed_and_resumed_is_the_unbroken_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    model(folder);
    for seed in 1..=3 {
        let train = |name: &str, more: &[&str]| {
            let config = config(folder, name, seed);
            let output = memory_r1(&[&["train", "grpo", "--config", text(&config), "--json"], more].concat());
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let [whole, again, killed] = ["whole", "again", "killed"].map(|name| format!("{name}-{seed}"));
        for name in [&whole, &again, &killed] {
            tell_facts(folder, name);
        }
        train(&whole, &[]);
        train(&again, &[]);
        let whole = made(&folder.join(whole));
        assert!(whole == made(&folder.join(again)), "two runs of the seed {seed} differ");

        let (run, config) = (folder.join(&killed), config(folder, &killed, seed));
        // Other moments for each seed: before the first checkpoint, and between later ones.
        kill_on_the_way(&config, &run, &[], 10, Duration::from_millis(7 * seed));
        kill_on_the_way(&config, &run, &["--resume"], 900 * seed, Duration::from_millis(3 * seed));
        train(&killed, &["--resume"]);
        let killed = made(&run);
        assert_eq!(String::from_utf8_lossy(&whole[0]), String::from_utf8_lossy(&killed[0]), "seed {seed}");
        assert!(whole == killed, "seed {seed}: samples or weights differ");
        let steps = String::from_utf8(killed[0].clone()).unwrap();
        assert!(steps.lines().last().unwrap().contains("\"step\":20"), "{steps}");
    }
}

#[test]
fn a_judge_behind_a_server_rewards_and_its_replies_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    model(folder);
    let server = LocalServer::new();
    let judged = |name: &str| {
        let path = config(folder, name, 1);
        let text = fs::read_to_string(&path).unwrap();
        let text = text
            .replace(
                "reward = { f1 = 1.0 }",
                &format!("reward = {{ judge = 1.0 }}\njudge = \"{}#some/judge\"", server.base),
            )
            .replace("max_steps = 11", "max_steps = 2")
            .replace("max_steps = 9", "max_steps = 1");
        fs::write(&path, text).unwrap();
        tell_facts(folder, name);
        path
    };
    json(&["train", "grpo", "--config", text(&judged("first")), "--json"]);
    let asked = server.asked();
    assert!(asked.len() > 10 && asked.iter().all(|own| own["model"] == "some/judge"));
    let metrics = fs::read_to_string(folder.join("first/metrics.jsonl")).unwrap();
    let rewards: Vec<f64> = metrics
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter_map(|line| line["rewards/judge"].as_f64())
        .collect();
    assert!(!rewards.is_empty() && rewards.iter().any(|own| *own > 0.0 && *own < 1.0), "{rewards:?}");

    // With the replies at hand nothing is asked again.
    let config = judged("second");
    let (from, to) = (folder.join("first/judge"), folder.join("second/judge"));
    for entry in fs::read_dir(from).unwrap().flatten() {
        fs::create_dir_all(to.join(entry.file_name())).unwrap();
        for file in fs::read_dir(entry.path()).unwrap().flatten() {
            fs::copy(file.path(), to.join(entry.file_name()).join(file.file_name())).unwrap();
        }
    }
    json(&["train", "grpo", "--config", text(&config), "--json"]);
    assert_eq!(server.asked(), Vec::<Value>::new());
    assert_eq!(fs::read_to_string(folder.join("second/metrics.jsonl")).unwrap(), metrics);

    // A reward without its judge is refused before anything is made.
    let text_of = fs::read_to_string(&config).unwrap();
    let wrong = folder.join("wrong.toml");
    let lines = text_of.lines().filter(|line| !line.starts_with("judge = "));
    fs::write(&wrong, lines.collect::<Vec<_>>().join("\n").replace("second", "third")).unwrap();
    let error = failure(&["train", "grpo", "--config", text(&wrong)]);
    assert!(error.contains("judge is given where reward.judge has a weight"), "{error}");
    assert!(!folder.join("third").exists());
}

#[test]
fn a_server_plays_and_is_told_every_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = model(folder);
    let run = |name: &str, base: &str, constrained: bool| {
        let path = config(folder, name, 1);
        let text = fs::read_to_string(&path).unwrap();
        let served = format!(
            "constrained = {constrained}\nvllm_server_base_url = \"{base}\"\n\
             lora = {{ r = 4, lora_alpha = 8, target_modules = [\"q_proj\", \"down_proj\"] }}\nlearning_rate = 1e-2"
        );
        let text = text
            .replace("learning_rate = 1e-3", &served)
            .replace("logging_steps = 3", "logging_steps = 1")
            .replace("max_steps = 11", "max_steps = 3")
            .replace("max_steps = 9", "max_steps = 1");
        fs::write(&path, text).unwrap();
        tell_facts(folder, name);
        path
    };
    // How far the server's log-probabilities are from the trainer's.
    let difference = |name: &str| {
        let metrics = fs::read_to_string(folder.join(name).join("metrics.jsonl")).unwrap();
        let lines = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let all: Vec<f64> =
            lines.filter_map(|line| line["sampling/sampling_logp_difference/max"].as_f64()).collect();
        assert_eq!(all.len(), 4, "{metrics}");
        all.into_iter().fold(0.0, f64::max)
    };

    let server = AdapterServer::new(&model, &folder.join("merged"), Manner::Right);
    json(&["train", "grpo", "--config", text(&run("right", &server.base, false)), "--json"]);
    assert!(difference("right") < 1e-4, "{}", difference("right"));
    let (told, loaded) = server.told();
    let [last] = &loaded[..] else { panic!("{loaded:?}") };
    // Four steps, each with its adapter, and the one behind the last for the validation at the end.
    assert_eq!(told.len(), 9, "{told:?}");
    let kept: Vec<_> = fs::read_dir(folder.join("right/served")).unwrap().flatten().collect();
    assert!(kept.iter().any(|own| own.file_name().to_str() == Some(last)) && kept.len() <= 2, "{kept:?}");
    let weights = |path: &Path| fs::read(path.join("adapter_model.safetensors")).unwrap();
    assert!(weights(&folder.join("right/adapter")) == weights(&folder.join("right/served").join(last)));

    // The same run again finds its last adapter loaded already.
    json(&["train", "grpo", "--config", text(&run("again", &server.base, false)), "--json"]);
    let metrics = |name: &str| fs::read_to_string(folder.join(name).join("metrics.jsonl")).unwrap();
    assert_eq!(metrics("again"), metrics("right"));
    assert_eq!((server.told().0.len(), server.told().1), (17, loaded));

    // A server that goes on with the old weights is seen.
    let stale = AdapterServer::new(&model, &folder.join("unused"), Manner::Stale);
    json(&["train", "grpo", "--config", text(&run("stale", &stale.base, false)), "--json"]);
    assert!(difference("stale") > 1e-3, "{}", difference("stale"));

    let fails = |name: &str, base: &str, constrained: bool| {
        let output = memory_r1(&["train", "grpo", "--config", text(&run(name, base, constrained))]);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let old = AdapterServer::new(&model, &folder.join("old"), Manner::Old);
    let error = fails("with-an-old-one", &old.base, false);
    assert!(error.contains("MALFORMED_OUTPUT") && error.contains("without token_ids"), "{error}");
    let closed = AdapterServer::new(&model, &folder.join("closed"), Manner::Closed);
    let error = fails("with-a-closed-one", &closed.base, false);
    assert!(error.contains("status 404") && error.contains("VLLM_ALLOW_RUNTIME_LORA_UPDATING"), "{error}");
    let error = fails("with-a-grammar", &closed.base, true);
    assert!(error.contains("vllm_server_base_url needs [lora]"), "{error}");
}
