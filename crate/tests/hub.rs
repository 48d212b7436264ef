//! Models by their names on a hub, against a server on this machine.

#![cfg(not(target_arch = "wasm32"))]

mod local_hub;
mod shell;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use local_hub::{COMMIT, Faults, LocalHub, NAME};
use memory_r1::checkpoint::{Hub, HubName};
use memory_r1::error::{ErrorCode, Result};
use serde_json::Value;

const WEIGHTS: &str = "model.safetensors";

/// What looks like a model; a file that no model is read from, too.
fn files() -> BTreeMap<String, Vec<u8>> {
    let weights: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    BTreeMap::from([
        ("config.json".to_owned(), b"{}".to_vec()),
        ("tokenizer.json".to_owned(), vec![b'x'; 5_000]),
        ("1_Pooling/config.json".to_owned(), b"{ }".to_vec()),
        (WEIGHTS.to_owned(), weights),
        ("pytorch_model.bin".to_owned(), vec![0; 10]),
    ])
}

fn hub(server: &LocalHub, cache: &Path) -> Hub {
    Hub { endpoint: Some(server.endpoint.clone()), cache: cache.to_owned(), token: None, offline: false }
}

fn get(hub: &Hub, name: &str) -> Result<PathBuf> {
    hub.folder(&HubName::parse(name).unwrap(), &mut |_| {})
}

#[track_caller]
fn is_whole(folder: &Path) {
    for (name, content) in files() {
        match fs::read(folder.join(&name)) {
            Ok(found) => assert!(found == content, "{name}"),
            Err(_) => assert_eq!(name, "pytorch_model.bin"),
        }
    }
}

/// The code and the message of a model that does not come, and nothing that would be taken for one.
fn refused(hub: &Hub, name: &str) -> (ErrorCode, String) {
    let error = get(hub, name).unwrap_err();
    assert!(get(&Hub { offline: true, ..hub.clone() }, name).is_err(), "a part was taken for the whole");
    (error.code(), error.message().to_owned())
}

#[test]
fn a_model_is_downloaded_once_with_progress() {
    let (server, cache) = (LocalHub::new(files()), tempfile::tempdir().unwrap());
    let hub = hub(&server, cache.path());
    let mut reports: Vec<(String, u64, u64)> = Vec::new();
    let name = HubName::parse(NAME).unwrap();
    let folder =
        hub.folder(&name, &mut |now| reports.push((now.file.to_owned(), now.bytes, now.total))).unwrap();
    is_whole(&folder);
    let total = 2 + 5_000 + 3 + 800_000;
    assert!(reports.iter().all(|report| report.2 == total && report.1 <= total));
    assert!(reports.is_sorted_by_key(|report| report.1));
    assert_eq!(reports.last().map(|last| (&last.0[..], last.1)), Some((WEIGHTS, total)));
    // The layout of Hugging Face's tools.
    let repository = cache.path().join("models--someone--tiny");
    assert_eq!(folder, repository.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    // A branch is asked for, and its files are not.
    server.asked();
    is_whole(&get(&hub, NAME).unwrap());
    assert_eq!(server.asked().len(), 1);
    // A commit is not.
    is_whole(&get(&hub, &format!("{NAME}@{COMMIT}")).unwrap());
    assert_eq!(server.asked().len(), 0);
}

#[test]
fn a_cut_connection_goes_on_where_it_stopped() {
    let (server, cache) = (LocalHub::new(files()), tempfile::tempdir().unwrap());
    let hub = hub(&server, cache.path());
    server.fail(Faults { cut: 4, busy: 1, ..Faults::default() });
    is_whole(&get(&hub, NAME).unwrap());
    let large = server.asked().into_iter().filter(|asked| asked.0.starts_with("/large/"));
    let starts: Vec<u64> = large.filter_map(|asked| asked.1).collect();
    assert_eq!(starts, [0, 400_000, 600_000, 700_000, 750_000]);
}

#[test]
fn a_process_goes_on_where_another_stopped() {
    let (server, cache) = (LocalHub::new(files()), tempfile::tempdir().unwrap());
    let hub = hub(&server, cache.path());
    // More than one call puts up with.
    server.fail(Faults { cut: 5, ..Faults::default() });
    let (code, message) = refused(&hub, NAME);
    assert_eq!(code, ErrorCode::NotReachable);
    assert!(message.contains("the connection broke"), "{message}");
    server.fail(Faults::default());
    server.asked();
    is_whole(&get(&hub, NAME).unwrap());
    let weights = server.asked().into_iter().rfind(|asked| asked.0.ends_with(WEIGHTS)).unwrap();
    assert!(weights.1.is_some_and(|from| from > 0), "{weights:?}");
}

#[test]
fn a_part_that_is_as_long_as_its_file_is_no_dead_end() {
    let (server, cache) = (LocalHub::new(files()), tempfile::tempdir().unwrap());
    let blobs = cache.path().join("models--someone--tiny/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let weights = &files()[WEIGHTS];
    let part = format!("{}.part", memory_r1::checkpoint::sha256(weights));
    fs::write(blobs.join(part), vec![7; weights.len()]).unwrap();
    is_whole(&get(&hub(&server, cache.path()), NAME).unwrap());
}

#[test]
fn what_nobody_has_checked_is_checked_the_next_time() {
    let (server, cache) = (LocalHub::new(files()), tempfile::tempdir().unwrap());
    let hub = hub(&server, cache.path());
    let folder = get(&hub, NAME).unwrap();
    // As a process leaves it that dies before the check of what came wrong.
    fs::write(folder.join(format!("{WEIGHTS}.unchecked")), "").unwrap();
    fs::write(fs::canonicalize(folder.join(WEIGHTS)).unwrap(), "other").unwrap();
    let (code, message) = refused(&hub, NAME);
    assert_eq!(code, ErrorCode::ModelIntegrity);
    assert!(message.contains("5 bytes instead of 800000"), "{message}");
    is_whole(&get(&hub, NAME).unwrap());
    is_whole(&get(&Hub { offline: true, ..hub }, NAME).unwrap());
}

#[test]
fn names_that_would_leave_the_cache_are_passed_over() {
    let mut all = files();
    all.insert("LICENSE/../../../../escaped".to_owned(), b"x".to_vec());
    all.insert("model/../../../../../escaped.safetensors".to_owned(), b"x".to_vec());
    let (server, cache) = (LocalHub::new(all), tempfile::tempdir().unwrap());
    is_whole(&get(&hub(&server, cache.path()), NAME).unwrap());
    assert!(server.asked().iter().all(|asked| !asked.0.contains("escaped")));
}

#[test]
fn what_is_not_what_the_hub_has_is_refused_and_not_kept() {
    let (server, cache) = (LocalHub::new(files()), tempfile::tempdir().unwrap());
    let hub = hub(&server, cache.path());
    for (faults, what) in [
        (Faults { wrong: 1, ..Faults::default() }, "the hash"),
        (Faults { short: 1, ..Faults::default() }, "bytes instead of"),
    ] {
        server.fail(faults);
        let (code, message) = refused(&hub, NAME);
        assert_eq!(code, ErrorCode::ModelIntegrity, "{message}");
        assert!(message.contains("1_Pooling/config.json") && message.contains(what), "{message}");
    }
    is_whole(&get(&hub, NAME).unwrap());
}

#[test]
fn what_the_hub_has_not_is_named() {
    let (server, cache) = (LocalHub::new(files()), tempfile::tempdir().unwrap());
    let hub = hub(&server, cache.path());
    let (code, message) = refused(&hub, "someone/other@v2");
    assert_eq!(code, ErrorCode::NotReachable);
    assert!(message.contains("someone/other@v2") && message.contains("no such repository"), "{message}");
    server.fail(Faults { locked: true, ..Faults::default() });
    let (code, message) = refused(&hub, NAME);
    assert_eq!(code, ErrorCode::NotReachable);
    assert!(message.contains("HF_TOKEN"), "{message}");
    for (lacks, says) in [("config.json", "no config.json"), (WEIGHTS, "no model.safetensors")] {
        let mut files = files();
        files.remove(lacks);
        let server = LocalHub::new(files);
        let (code, message) = refused(&Hub { endpoint: Some(server.endpoint.clone()), ..hub.clone() }, NAME);
        assert_eq!(code, ErrorCode::ModelIntegrity);
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn a_model_that_is_here_serves_without_the_hub() {
    let (server, cache) = (LocalHub::new(files()), tempfile::tempdir().unwrap());
    let with_server = hub(&server, cache.path());
    get(&with_server, NAME).unwrap();
    server.asked();
    is_whole(&get(&Hub { offline: true, ..with_server.clone() }, NAME).unwrap());
    assert_eq!(server.asked().len(), 0);
    let gone = Hub { endpoint: Some("http://127.0.0.1:1".to_owned()), ..with_server };
    is_whole(&get(&gone, NAME).unwrap());
    let (code, message) = refused(&gone, "someone/other");
    assert_eq!(code, ErrorCode::NotReachable);
    assert!(message.contains("could not be reached"), "{message}");
}

#[test]
fn a_command_takes_the_name_of_a_repository() {
    let local = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decoders/qwen2_tied");
    let mut files = BTreeMap::new();
    for entry in
        fs::read_dir(&local).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
    {
        files.insert(entry.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&entry).unwrap());
    }
    let (server, home) = (LocalHub::new(files), tempfile::tempdir().unwrap());
    let generate = |model: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_memory-r1"))
            .args(["generate", "--json", "--prompt", "Hello", "--max-new-tokens", "8", "--model", model])
            .env("HF_ENDPOINT", &server.endpoint)
            .env("HF_HOME", home.path())
            .env_remove("HF_HUB_CACHE")
            .env_remove("HF_HUB_OFFLINE")
            .output()
            .unwrap();
        let ids = serde_json::from_slice::<Value>(&output.stdout).ok().map(|value| value["ids"].clone());
        (ids, String::from_utf8(output.stderr).unwrap())
    };
    let (by_name, error) = generate(NAME);
    assert_eq!(by_name.as_ref().and_then(Value::as_array).map(Vec::len), Some(8), "{error}");
    assert_eq!(by_name, generate(local.to_str().unwrap()).0);
    assert!(home.path().join("hub/models--someone--tiny").is_dir());
    let error = generate("someone/other").1;
    assert!(error.contains("there is no folder someone/other; on the hub, "), "{error}");
    let error = generate("/nowhere/at/all").1;
    assert!(error.contains("NOT_REACHABLE: there is no folder /nowhere/at/all"), "{error}");
}
