//! `data`: where the benchmarks come from; a file is counted, verified, and fetched from a server that fails.

#![cfg(not(target_arch = "wasm32"))]

mod local_hub;
mod shell;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use local_hub::{Faults, LocalHub};
use serde_json::Value;
use shell::{failure, json, memory_r1};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_file_of_a_benchmark_is_counted_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let conversations = folder.path().join("conversations.json");
    json(&["synth", "--seed", "5", "--dialogues", "2", "--out", text(&conversations), "--json"]);
    let counted = json(&["data", "locomo", "--file", text(&conversations), "--json"]);
    assert_eq!((&counted["licence"], &counted["file"]["verified"]), (&"CC-BY-NC-4.0".into(), &false.into()));
    assert_eq!(counted["file"]["conversations"], 2);
    let printed = String::from_utf8(memory_r1(&["data", "locomo"]).stdout).unwrap();
    assert!(printed.contains("snap-research/LoCoMo") && !printed.contains("this is"), "{printed}");
    let broken = folder.path().join("broken.json");
    fs::write(&broken, "[{}]").unwrap();
    assert!(failure(&["data", "locomo", "--file", text(&broken)]).contains("INVALID_ARGUMENT"));
    let facts = folder.path().join("facts.json");
    let none = failure(&["data", "locomo", "--file", text(&conversations), "--observations", text(&facts)]);
    assert!(none.contains("observation") && !facts.exists(), "{none}");
    assert!(failure(&["data", "locomo", "--observations", text(&facts)]).contains("--file"));
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn the_released_locomo_file_is_read_where_it_is() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("MEMORY_R1_DATA").map_or(beside, PathBuf::from);
    let file = folder.join("locomo/locomo10.json");
    if !file.is_file() {
        eprintln!("SKIPPED: {} is not there; the made-up conversations stand in for it", file.display());
        return;
    }
    let counted = json(&["data", "locomo", "--file", text(&file), "--json"]);
    let file_counts = &counted["file"];
    assert_eq!(file_counts["verified"], true);
    let numbers = ["conversations", "turns", "questions"].map(|name| file_counts[name].as_u64().unwrap());
    assert_eq!(numbers, [10, 5_882, 1_986]);
    let categories = |counts: &Value| -> Vec<u64> {
        counts["by_category"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).collect()
    };
    assert_eq!(categories(file_counts), [282, 321, 96, 841, 446]);
    for (split, scored, of_each) in
        [("train", 152, [32, 37, 13, 70]), ("val", 81, [11, 26, 0, 44]), ("test", 1307, [239, 258, 83, 727])]
    {
        let counts = &file_counts["splits"][split];
        assert_eq!(counts["scored"], scored);
        assert_eq!(categories(counts)[..4], of_each);
    }

    // The authors' observations, as the facts of the turns of their speakers.
    let folder = tempfile::tempdir().unwrap();
    let facts = folder.path().join("facts.json");
    let command = ["data", "locomo", "--file", text(&file), "--observations", text(&facts), "--json"];
    assert_eq!(json(&command)["observations"], 2_478);
    let facts: Value = serde_json::from_slice(&fs::read(&facts).unwrap()).unwrap();
    assert_eq!(facts.as_object().unwrap().len(), 10);
    let first = facts["conv-26"]["D1:3"][0].as_str().unwrap();
    assert!(first.starts_with("Caroline attended an LGBTQ support group"), "{first}");

    // It comes from a server that is busy and cuts it off twice, and goes on where it was.
    let hub = LocalHub::new(BTreeMap::from([("locomo.safetensors".to_owned(), fs::read(&file).unwrap())]));
    hub.fail(Faults { busy: 1, cut: 2, ..Faults::default() });
    let url = format!("{}/large/locomo.safetensors", hub.endpoint);
    let folder = tempfile::tempdir().unwrap();
    let fetched = folder.path().join("fetched.json");
    let command = ["data", "locomo", "--file", text(&fetched), "--download", "--url", &url, "--json"];
    assert_eq!(json(&command)["file"]["released"], "data/locomo10.json");
    assert_eq!(fs::read(&fetched).unwrap(), fs::read(&file).unwrap());
    let starts: Vec<Option<u64>> = hub.asked().into_iter().map(|(_, start)| start).collect();
    assert_eq!(starts[..2], [None, None]);
    assert!(starts.len() == 4 && starts[2] > Some(0) && starts[3] > starts[2], "{starts:?}");
    // What is there is not asked for again.
    json(&command);
    assert!(hub.asked().is_empty());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_download_that_fails_keeps_nothing_wrong() {
    let hub = LocalHub::new(BTreeMap::from([("other.json".to_owned(), b"[]".to_vec())]));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("oracle.json");
    let fetch = |address: &str| {
        let url = format!("{}{address}", hub.endpoint);
        failure(&["data", "longmemeval", "--file", text(&file), "--download", "--url", &url])
    };
    let error = fetch("/large/other.json");
    assert!(error.contains("instead of 821a2034") && error.contains("nothing of it was kept"), "{error}");
    let error = fetch("/large/nowhere.json");
    assert!(error.contains("NOT_REACHABLE") && error.contains("status 404"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let listed = json(&["data", "longmemeval", "--json"]);
    let hashes: Vec<&Value> = listed["files"].as_array().unwrap().iter().map(|own| &own["sha256"]).collect();
    assert!(hashes.len() == 3 && hashes.iter().all(|hash| hash.as_str().unwrap().len() == 64));
}
