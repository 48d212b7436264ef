//! Benchmarks on random weights: what the models say is nonsense, but a run has its form, repeats itself, and
//! survives being stopped.
//!
//! LoCoMo's own file is read where it is (`../shared/data` beside the repository, or the folder
//! that MEMORY_R1_DATA names); made-up conversations stand in for it always.

#![cfg(not(target_arch = "wasm32"))]

mod random_bundle;
mod shell;

use std::fs;
use std::path::{Path, PathBuf};

use random_bundle::{lines, made_up, model, text, timeless};
use serde_json::Value;
use shell::{failure, json, memory_r1};

#[test]
fn every_system_answers_from_what_it_is_allowed_to_see() {
    let folder = tempfile::tempdir().unwrap();
    let (conversations, _) = made_up(folder.path());
    let data: Value = serde_json::from_str(&fs::read_to_string(&conversations).unwrap()).unwrap();
    let conversation = &data[0]["conversation"];
    let sessions = (1..).map_while(|number| conversation[format!("session_{number}")].as_array());
    let turns: Vec<&str> = sessions.flatten().map(|turn| turn["text"].as_str().unwrap()).collect();
    let run = |system: &str| {
        let out = folder.path().join(system);
        let paths = ["--data", text(&conversations), "--out", text(&out), "--model", model()];
        let what = ["eval", "locomo", "--system", system, "--limit", "3", "--turns", "40", "--json"];
        (json(&[&what[..], &paths].concat()), lines(&out.join("questions.jsonl")))
    };
    let texts = |question: &Value| -> Vec<String> {
        let candidates = question["candidates"].as_array().unwrap();
        candidates.iter().map(|own| own["text"].as_str().unwrap().to_owned()).collect()
    };
    for system in ["memory-r1", "add-only", "rag", "full-context", "oracle", "no-memory"] {
        let (report, questions) = run(system);
        assert_eq!((&report["system"], questions.len()), (&Value::from(system), 3));
        let shown: Vec<String> = questions.iter().flat_map(texts).collect();
        let count = |op: &str| report["ops"][op].as_u64().unwrap();
        match system {
            "memory-r1" => assert!(count("UPDATE") + count("DELETE") > 0, "{report}"),
            "add-only" => assert!(count("ADD") > 0 && count("ADD") == report["facts"], "{report}"),
            "rag" => assert_eq!((&report["facts"], &report["bank"]), (&Value::from(40), &Value::from(40))),
            _ => assert_eq!((&report["facts"], &report["bank"]), (&Value::from(0), &Value::from(0))),
        }
        match system {
            "memory-r1" | "add-only" => assert!(!shown.is_empty()),
            "rag" | "full-context" | "oracle" => {
                assert!(
                    shown.iter().all(|own| turns.iter().any(|turn| turn.contains(&own[..]))),
                    "{shown:?}"
                );
            }
            _ => assert!(shown.is_empty()),
        }
        let left_out = report["left_out"].as_f64().unwrap();
        match system {
            // Forty turns are more than the model can read.
            "full-context" => assert!(left_out > 0.0 && left_out < 1.0, "{left_out}"),
            "oracle" | "no-memory" => assert_eq!(left_out.to_bits(), 0),
            _ => assert!(left_out < 1.0, "{left_out}"),
        }
        for question in &questions {
            let dropped = question["left_out"].as_u64().unwrap();
            if system == "full-context" {
                assert_eq!(dropped + texts(question).len() as u64, 40);
            }
        }
    }
    let folders = ["rag", "oracle"].map(|system| folder.path().join(system));
    let compared = json(&["eval", "compare", text(&folders[0]), text(&folders[1]), "--json"]);
    assert_eq!((&compared["n"], &compared["unpaired"]), (&Value::from(3), &Value::from(0)));
    let same = json(&["eval", "compare", text(&folders[0]), text(&folders[0]), "--json"]);
    assert_eq!((same["changed"].as_array().unwrap().len(), &same["mcnemar"]["p"]), (0, &Value::from(1.0)));
    let error = failure(&["eval", "compare", text(&folders[0]), text(folder.path())]);
    assert!(error.contains("questions.jsonl could not be read"), "{error}");
    let wrong = memory_r1(&["eval", "locomo", "--system", "mem0", "--data", "x", "--out", "y"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("systems are memory-r1, add-only, rag"));
}

/// `eval locomo` of made-up conversations, cut short.
fn locomo<'a>(data: &'a Path, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let paths = ["eval", "locomo", "--data", text(data), "--out", text(out)];
    let rest = ["--model", model(), "--turns", "6", "--limit", "4", "--conversation", "2", "--json"];
    [&paths[..], &rest, more].concat()
}

#[test]
fn eval_locomo_repeats_itself_and_its_questions_score_as_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = made_up(folder.path());
    let run = |name: &str| {
        let (out, journal) = (folder.path().join(name), folder.path().join(format!("{name}.jsonl")));
        let report = json(&locomo(&data, &out, &["--journal", text(&journal)]));
        (report, lines(&out.join("questions.jsonl")), fs::read_to_string(journal).unwrap(), out)
    };
    let (report, questions, journal, out) = run("a");
    assert_eq!(questions.len(), 4);
    assert_eq!((&report["turns"], &report["conversations"]), (&Value::from(6), &Value::from(1)));
    let ops = report["ops"].as_object().unwrap();
    assert_eq!(ops.keys().collect::<Vec<_>>(), ["ADD", "DELETE", "NONE", "UPDATE"]);
    assert_eq!(report["facts"], ops.values().map(|count| count.as_u64().unwrap()).sum::<u64>());
    let saved = fs::read_to_string(out.join("report.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&saved).unwrap(), report);

    // The same facts without the extractor: the same operations and answers.
    let (facts, told) = (out.join("facts.json"), folder.path().join("told"));
    let again = json(&locomo(&data, &told, &["--facts", text(&facts)]));
    assert_eq!((&again["ops"], lines(&told.join("questions.jsonl"))), (&report["ops"], questions.clone()));
    // Three questions at once are what one after the other is: on the CPU bit for bit.
    let wide = folder.path().join("wide");
    let again = json(&locomo(&data, &wide, &["--concurrency", "3"]));
    assert_eq!((&again["ops"], lines(&wide.join("questions.jsonl"))), (&report["ops"], questions.clone()));
    fs::write(&facts, "{}").unwrap();
    let none = folder.path().join("none");
    let error = failure(&locomo(&data, &none, &["--facts", text(&facts)]));
    assert!(error.contains("facts.json has no facts of "), "{error}");

    let scored = json(&["score", "--pairs", text(&out.join("questions.jsonl")), "--json"]);
    for name in ["n", "f1", "bleu1", "exact_match", "by_category"] {
        assert_eq!(scored[name], report[name], "{name}");
    }
    let db = folder.path().join("copy.db");
    json(&["import", text(&folder.path().join("a.jsonl")), "--db", text(&db), "--json"]);
    let memories = json(&["memories", "--db", text(&db), "--json"]);
    assert_eq!(memories["results"].as_array().unwrap().len() as u64, report["bank"].as_u64().unwrap());

    let again = run("b");
    assert_eq!(timeless(again.0), timeless(report));
    assert_eq!(again.1, questions);
    assert_eq!(again.2, journal);
}

/// `synth` in another benchmark's layout.
fn made_up_as(layout: &str, folder: &Path, size: [&str; 3]) -> PathBuf {
    let path = folder.join(format!("{layout}.json"));
    let [dialogues, sessions, turns] = size;
    let numbers = ["--seed", "7", "--dialogues", dialogues, "--sessions", sessions, "--turns", turns];
    json(&[&["synth", "--layout", layout, "--out", text(&path), "--json"][..], &numbers].concat());
    path
}

#[test]
fn longmemeval_runs_in_every_layout() {
    let folder = tempfile::tempdir().unwrap();
    for layout in ["longmemeval", "longmemeval-oracle"] {
        let data = made_up_as(layout, folder.path(), ["1", "3", "6"]);
        let out = folder.path().join(format!("run-{layout}"));
        let paths = ["eval", "longmemeval", "--data", text(&data), "--out", text(&out), "--model", model()];
        let report = json(&[&paths[..], &["--limit", "3", "--json"]].concat());
        let categories = report["by_category"].as_object().unwrap();
        let asked: u64 = categories.values().map(|own| own["n"].as_u64().unwrap()).sum();
        assert_eq!((&report["conversations"], asked), (&3.into(), 3));
        let record: Value =
            serde_json::from_str::<Value>(&fs::read_to_string(&data).unwrap()).unwrap()[0].clone();
        let sessions = record["haystack_sessions"].as_array().unwrap();
        let first = lines(&out.join("questions.jsonl")).remove(0);
        let is_abstention = record["question_id"].as_str().unwrap().ends_with("_abs");
        let category = if is_abstention { &Value::from("abstention") } else { &record["question_type"] };
        assert_eq!((&first["category"], &first["question"]), (category, &record["question"]));
        // The user has a bank, the assistant has none.
        let own = &report["banks"][first["sample_id"].as_str().unwrap()];
        assert!(own.as_object().unwrap().keys().all(|speaker| speaker == "user"), "{own}");
        let turns: usize = sessions.iter().map(|session| session.as_array().unwrap().len()).sum();
        assert!(report["turns"].as_u64().unwrap() as usize >= turns);
        let count = sessions.len();
        assert!(if layout == "longmemeval" { count == 3 } else { count < 3 }, "{count}");
    }
    let counted =
        json(&["data", "longmemeval", "--file", text(&folder.path().join("longmemeval.json")), "--json"]);
    assert!(counted["file"]["questions"].as_u64().unwrap() > 10);
    assert_eq!(counted["file"]["verified"], false);
}

#[test]
fn every_system_runs_on_msc() {
    let folder = tempfile::tempdir().unwrap();
    let data = made_up_as("msc", folder.path(), ["6", "2", "4"]);
    let counted = json(&["data", "msc", "--file", text(&data), "--json"]);
    assert!(counted["file"]["conversations"].as_u64().unwrap() >= 20);
    for system in ["memory-r1", "add-only", "rag", "full-context", "oracle", "no-memory"] {
        let out = folder.path().join(system);
        let paths = ["eval", "msc", "--data", text(&data), "--out", text(&out), "--model", model()];
        let report =
            json(&[&paths[..], &["--limit", "20", "--turns", "2", "--system", system, "--json"]].concat());
        assert_eq!((&report["n"], &report["system"]), (&20.into(), &system.into()));
        let questions = lines(&out.join("questions.jsonl"));
        assert!(questions.iter().all(|question| question["category"] == "msc"));
    }
    let mut items: Value = serde_json::from_str(&fs::read_to_string(&data).unwrap()).unwrap();
    items[1]["self_instruct"].as_object_mut().unwrap().remove("A");
    let broken = folder.path().join("broken.json");
    fs::write(&broken, items.to_string()).unwrap();
    let out = folder.path().join("none");
    let paths = ["eval", "msc", "--data", text(&broken), "--out", text(&out), "--model", model()];
    let error = failure(&paths);
    assert!(error.contains("broken.json: record 1: self_instruct: A: expected this field"), "{error}");
}

/// The file is larger than the memory that the process may have.
#[test]
#[cfg(target_os = "linux")]
fn a_file_is_read_that_does_not_fit_into_memory() {
    use std::io::{BufWriter, Write as _};
    use std::process::Command;

    let folder = tempfile::tempdir().unwrap();
    let small = made_up_as("longmemeval", folder.path(), ["1", "12", "20"]);
    let records: Vec<Value> = serde_json::from_str(&fs::read_to_string(small).unwrap()).unwrap();
    let record = records[0].to_string();
    let path = folder.path().join("large.json");
    let copies = (250 << 20) / record.len() + 1;
    let mut file = BufWriter::new(fs::File::create(&path).unwrap());
    for copy in 0..copies {
        write!(file, "{}{record}", if copy == 0 { "[" } else { "," }).unwrap();
    }
    file.write_all(b"]").unwrap();
    file.into_inner().unwrap().sync_all().unwrap();
    let command = format!(
        "ulimit -v 200000; exec {} data longmemeval --file {} --json",
        env!("CARGO_BIN_EXE_memory-r1"),
        text(&path)
    );
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let counted: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(counted["file"]["conversations"], copies);
}

#[test]
#[cfg(target_os = "linux")]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn a_browser_shows_the_report_and_its_plots() {
    use std::process::Command;

    let folder = tempfile::tempdir().unwrap();
    let (data, _) = made_up(folder.path());
    let out = folder.path().join("run");
    let paths = ["eval", "locomo", "--data", text(&data), "--out", text(&out), "--model", model()];
    json(&[&paths[..], &["--turns", "40", "--limit", "12", "--json"]].concat());
    let html = fs::read_to_string(out.join("report.html")).unwrap();
    assert_eq!(html.matches("<svg").count(), 4);
    assert!(!html.contains("src=") && !html.contains("href=") && !html.contains("url("));

    let own = std::env::var("CHROMIUM").ok();
    let usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser"].map(str::to_owned);
    let Some(chromium) = own.into_iter().chain(usual).find(|path| Path::new(path).is_file()) else {
        eprintln!("SKIPPED: there is no Chromium; `./build.sh setup` installs it");
        return;
    };
    let picture = folder.path().join("report.png");
    let run = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,1600"])
        .arg("--host-resolver-rules=MAP * ~NOTFOUND")
        .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{}", out.join("report.html").display()))
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let mut reader =
        png::Decoder::new(std::io::BufReader::new(fs::File::open(&picture).unwrap())).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let channels = info.color_type.samples();
    let count = |color: [u8; 3]| {
        pixels.chunks(channels).filter(|own| (0..3).all(|i| own[i].abs_diff(color[i]) < 24)).count()
    };
    // Lines two pixels wide: of the memories and the first of operations and times, and the second ones.
    for (color, least) in [([31, 119, 180], 600), ([214, 39, 40], 200)] {
        assert!(count(color) > least, "{color:?}: {}", count(color));
    }
}

#[test]
fn the_number_of_threads_changes_no_answer() {
    use std::process::Command;
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = made_up(folder.path());
    let answers = ["1", "2"].map(|threads| {
        let out = folder.path().join(threads);
        let run = Command::new(env!("CARGO_BIN_EXE_memory-r1"))
            .args(locomo(&data, &out, &[]))
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap();
        assert!(run.status.success());
        fs::read_to_string(out.join("questions.jsonl")).unwrap()
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].lines().count(), 4);
}

#[test]
fn without_distillation_no_memory_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = made_up(folder.path());
    let run = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let report = json(&locomo(&data, &out, more));
        (report, lines(&out.join("questions.jsonl")))
    };
    let named = |questions: &[Value]| -> usize {
        questions.iter().map(|question| question["memories"].as_array().unwrap().len()).sum()
    };
    let (whole, with) = run("with", &[]);
    let (report, without) = run("without", &["--no-distillation"]);
    assert_eq!((&whole["no_distillation"], &report["no_distillation"]), (&false.into(), &true.into()));
    assert!(named(&with) > 0);
    assert_eq!(named(&without), 0);
    assert_eq!(with[0]["candidates"], without[0]["candidates"]);
    let (report, _) = run("add-only", &["--no-manager"]);
    assert_eq!(report["system"], "add-only");
}

#[test]
fn a_run_that_was_cut_off_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = made_up(folder.path());
    let out = folder.path().join("run");
    let report = json(&locomo(&data, &out, &[]));
    let questions = lines(&out.join("questions.jsonl"));
    let error = failure(&locomo(&data, &out, &[]));
    assert!(error.contains("--resume"), "{error}");

    // As a kill leaves it: the last line half written, no report.
    let path = out.join("questions.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let second = whole.match_indices('\n').nth(1).unwrap().0;
    fs::write(&path, &whole[..second + 20]).unwrap();
    fs::remove_file(out.join("report.json")).unwrap();
    assert_eq!(timeless(json(&locomo(&data, &out, &["--resume"]))), timeless(report));
    assert_eq!(lines(&path), questions);

    let error = failure(&locomo(&data, &out, &["--resume", "--seed", "9"]));
    assert!(error.contains("another settings"), "{error}");
}

#[test]
#[cfg(unix)]
fn ctrl_c_keeps_what_is_done() {
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = made_up(folder.path());
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    let report = json(&locomo(&data, &whole, &[]));
    let mut child = Command::new(env!("CARGO_BIN_EXE_memory-r1"))
        .args(locomo(&data, &stopped, &[]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The handler is there before the first bank is saved, which is before the first answer.
    while !stopped.join("questions.jsonl").is_file() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("ABORTED") && error.contains("--resume"), "{error}");
    }
    let resumed = json(&locomo(&data, &stopped, &["--resume"]));
    assert_eq!(timeless(resumed), timeless(report));
}

/// The released files' folder, where it is.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn released() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("MEMORY_R1_DATA").map_or(beside, PathBuf::from).join("locomo");
    let is_there = folder.join("locomo10.json").is_file();
    if !is_there {
        eprintln!("SKIPPED: {} is not there; made-up conversations stand in for it", folder.display());
    }
    is_there.then_some(folder)
}

#[test]
fn the_released_locomo_file_and_its_audit_are_read_where_they_are() {
    let Some(folder) = released() else { return };
    let file = folder.join("locomo10.json");
    let out = tempfile::tempdir().unwrap();
    let run = out.path().join("run");
    let paths = ["eval", "locomo", "--data", text(&file), "--out", text(&run), "--model", model()];
    let rest = ["--split", "val", "--turns", "3", "--limit", "3", "--json"];
    let report = json(&[&paths[..], &rest].concat());
    assert_eq!(report["n"], 3);
    assert!(report["banks"]["conv-30"].is_object(), "{report}");
    assert_eq!((&report["stale"], report.get("corrected")), (&Value::Null, None));

    // 99 of the audit's 156 entries say that the answer is wrong, the first of them in the first 50 questions.
    let run = out.path().join("audited");
    let paths = ["eval", "locomo", "--data", text(&file), "--out", text(&run), "--model", model()];
    let audit = folder.join("label_errors.json");
    let rest = ["--split", "train", "--system", "no-memory", "--label-errors", text(&audit), "--json"];
    let report = json(&[&paths[..], &rest].concat());
    let entries: Value = serde_json::from_slice(&fs::read(&audit).unwrap()).unwrap();
    let wrong = entries.as_array().unwrap().iter().filter(|own| {
        own["error_type"] != "WRONG_CITATION" && own["question_id"].as_str().unwrap().starts_with("locomo_0_")
    });
    assert_eq!(report["corrected"]["corrections"], wrong.count());
    assert_eq!(report["corrected"]["n"], report["n"]);
}

#[test]
fn labels_are_corrected_beside_the_released_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = made_up(folder.path());
    let run = folder.path().join("run");
    let audit = folder.path().join("audit.json");
    let conversations: Value = serde_json::from_slice(&fs::read(&data).unwrap()).unwrap();
    let asked = conversations[1]["qa"].as_array().unwrap();
    let place = asked.iter().position(|own| own["category"] == 4).unwrap();
    // What the model says of it is what the audit takes for right.
    let paths = ["eval", "locomo", "--data", text(&data), "--out", text(&run), "--model", model()];
    json(&[&paths[..], &["--turns", "2", "--json"]].concat());
    let own = lines(&run.join("questions.jsonl"));
    let is_asked = |own: &&Value| own["sample_id"] == conversations[1]["sample_id"] && own["index"] == place;
    let question = own.iter().find(is_asked).unwrap();
    assert_eq!(question["exact_match"], 0.0, "{question}");
    let entry = |error_type: &str, golden: &Value| {
        serde_json::json!([{
            "question_id": format!("locomo_1_qa{place}"), "question": asked[place]["question"],
            "golden_answer": golden, "error_type": error_type, "correct_answer": question["prediction"],
        }])
    };
    let evaluate = |name: &str, audited: &Value| {
        fs::write(&audit, audited.to_string()).unwrap();
        let out = folder.path().join(name);
        let paths = ["eval", "locomo", "--data", text(&data), "--out", text(&out), "--model", model()];
        memory_r1(&[&paths[..], &["--turns", "2", "--label-errors", text(&audit), "--json"]].concat())
    };
    let report = |name: &str, audited: &Value| -> Value {
        serde_json::from_slice(&evaluate(name, audited).stdout).unwrap()
    };
    let golden = &asked[place]["answer"];
    let before = report("audited", &entry("HALLUCINATION", golden));
    let after = &before["corrected"];
    assert_eq!((&after["corrections"], &after["n"]), (&1.into(), &before["n"]));
    let of = |report: &Value| report["by_category"]["4"]["exact_match"].as_f64().unwrap();
    let one = 1.0 / after["by_category"]["4"]["n"].as_f64().unwrap();
    assert!((of(after) - of(&before) - one).abs() < 1e-9, "{} {}", of(after), of(&before));
    // The released labels stay in the run's files, and its page shows both.
    let audited = folder.path().join("audited");
    assert_eq!(lines(&audited.join("questions.jsonl")), own);
    assert!(fs::read_to_string(audited.join("report.html")).unwrap().contains("corrected labels"));

    // What only names other evidence corrects nothing; another question or answer is an error.
    let cited = report("cited", &entry("WRONG_CITATION", golden));
    assert_eq!(cited["corrected"]["corrections"], 0);
    for (name, audited, expected) in [
        ("other", entry("HALLUCINATION", &"another".into()), "record 0: question_id: expected the place"),
        ("form", serde_json::json!([{"question_id": 3}]), "is no list of label errors"),
    ] {
        let error = String::from_utf8(evaluate(name, &audited).stderr).unwrap();
        assert!(error.contains("audit.json") && error.contains(expected), "{error}");
    }
}

#[test]
fn what_no_longer_holds_is_counted_where_the_data_tell() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = made_up(folder.path());
    let stale = |name: &str, system: &str| {
        let out = folder.path().join(name);
        let paths = ["eval", "locomo", "--data", text(&data), "--out", text(&out), "--model", model()];
        let report = json(&[&paths[..], &["--limit", "30", "--system", system, "--json"]].concat());
        report["stale"].clone()
    };
    // Turns that are kept word for word say everything that no longer holds, or nearly.
    let kept = stale("rag", "rag");
    let (all, told) = (kept["superseded"].as_u64().unwrap(), kept["stale"].as_u64().unwrap());
    assert!(all > 3 && told <= all && told * 2 > all, "{kept}");
    assert_eq!(stale("none", "no-memory"), Value::Null);
}
