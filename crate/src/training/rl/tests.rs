//! A tiny model with next to no training, in both environments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use serde_json::Value;

use super::config::{Agent, Phase, RlConfig};
use super::environment::{Reading, Task};
use super::learner::{Item, Learner, PerToken, Rollout};
use super::play::Round;
use super::policy::{Policy, Shown};
use super::run::{Method, run, run_on};
use crate::agents::NO_ANSWER;
use crate::checkpoint::{Files, Quantization};
use crate::datasets::{Dialogue, KnownFacts, TurnFacts, synthetic};
use crate::error::ErrorCode;
use crate::generation::{Cancel, Sampling};
use crate::training::network::Layout;
use crate::training::run_folder::{RunConfig as _, read_files};
use crate::training::{Compute, Cpu, Devices, LoraConfig, Precision, merge_adapter};

const SHOWN: Shown = Shown { manager_candidates: 3, candidates_per_speaker: 4, prompt_family: None };

/// A model folder and a bundle of it, made once.
static MODEL: LazyLock<(tempfile::TempDir, PathBuf, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let config = crate::training::sft::tests::config(&folder.path().join("sft"));
    let trained = crate::training::run(&config, false, &Cancel::default()).unwrap();
    let bundle = folder.path().join("bundle");
    crate::training::export(&config, "tiny", (Quantization::Q8, None), (&trained.path, &[]), &bundle)
        .unwrap();
    (folder, trained.path, bundle)
});

fn dialogues() -> Vec<Dialogue> {
    let made = synthetic::generate(3, 2, synthetic::Split::Train, synthetic::Options::default());
    made.iter().map(|own| Dialogue::from(&own.sample)).collect()
}

fn readings(policy: &Policy, parameters: &[f32], threads: usize) -> Vec<Reading> {
    read(policy, parameters, threads, &dialogues())
}

fn read(policy: &Policy, parameters: &[f32], threads: usize, dialogues: &[Dialogue]) -> Vec<Reading> {
    // A model that was hardly trained finds no facts: it is told them.
    let folder = tempfile::tempdir().unwrap();
    tell_facts(folder.path());
    let facts = KnownFacts::read(&folder.path().join("facts.json")).unwrap();
    let (stop, sampling) = (Cancel::default(), Sampling::default());
    let round = Round {
        compute: &Cpu,
        policy,
        parameters,
        frozen: parameters,
        sampling,
        count: 1,
        threads,
        constrained: true,
        served: None,
        judge: None,
        stop: &stop,
    };
    round.read(&extractor(), dialogues, Some(&facts), &|| ()).unwrap()
}

fn extractor() -> Files {
    read_files(&MODEL.2).unwrap()
}

/// Rollouts of a few tasks of both kinds.
fn rollouts(policy: &Policy, parameters: &[f32], threads: usize, temperature: f32) -> Vec<Rollout> {
    held_rollouts(policy, parameters, threads, temperature, true)
}

fn held_rollouts(
    policy: &Policy,
    parameters: &[f32],
    threads: usize,
    temperature: f32,
    constrained: bool,
) -> Vec<Rollout> {
    let readings = readings(policy, parameters, threads);
    let retriever = policy.retriever().unwrap();
    let mut tasks = readings[0].manager_tasks(None, 0).unwrap();
    // Those with most to decide.
    tasks.sort_by_key(|task| match task {
        Task::Manage { turns, .. } => {
            std::cmp::Reverse(turns.iter().map(|(_, facts)| facts.len()).sum::<usize>())
        }
        Task::Answer { .. } => std::cmp::Reverse(0),
    });
    tasks.truncate(3);
    tasks.extend(readings[1].answer_tasks(&retriever, 4, || true).into_iter().take(3));
    assert_eq!(tasks.len(), 6);
    let tasks: Vec<&Task> = tasks.iter().collect();
    let (stop, sampling) = (Cancel::default(), Sampling { temperature, seed: 5, ..Sampling::default() });
    let round = Round {
        compute: &Cpu,
        policy,
        parameters,
        frozen: parameters,
        sampling,
        count: 3,
        threads,
        constrained,
        served: None,
        judge: None,
        stop: &stop,
    };
    round.play(&tasks, true).unwrap().concat()
}

fn shape(rollouts: &[Rollout]) -> Vec<usize> {
    rollouts.iter().map(|own| own.sets.iter().map(Vec::len).sum()).collect()
}

fn on_cpu(layout: &Layout, threads: usize, most: usize, temperature: f32) -> Learner {
    Learner::new(Cpu.networks(threads, layout, Precision::default()).unwrap(), most, temperature)
}

/// What the generator said of every choice is what the trainer found.
fn assert_said(rollouts: &[Rollout], found: &[Vec<f32>]) {
    for (rollout, found) in rollouts.iter().zip(found) {
        let segments = rollout.trajectory.segments.iter().zip(&rollout.sets);
        let said =
            segments.flat_map(|(own, sets)| sets.iter().map(|(place, _)| own.generation.logprobs[*place]));
        for (said, found) in said.zip(found) {
            assert!((said - found).abs() < 1e-4, "{said} {found}");
        }
    }
}

#[test]
fn the_trainer_finds_the_log_probabilities_that_the_generator_said() {
    let (policy, parameters) = Policy::load(&MODEL.1, SHOWN).unwrap();
    let rollouts = rollouts(&policy, &parameters, 2, 1.0);
    let (items, shape) = (Item::all(&rollouts), shape(&rollouts));
    assert!(shape.iter().all(|count| *count > 0), "{shape:?}");
    // A manager's trajectory has a segment for every fact that a model decided on.
    assert!(rollouts.iter().any(|own| own.sets.len() > 1));
    let mut learner = on_cpu(&policy.layout, 2, 1024, 1.0);
    let (found, entropies) = learner.logprobs(&policy.layout, &parameters, &items, &shape, &[]).unwrap();
    assert_said(&rollouts, &found);
    assert!(entropies.iter().flatten().all(|own| (0.0..10.0).contains(own)));
    // Alone as in a batch, on one thread as on two.
    let mut alone = on_cpu(&policy.layout, 1, 1, 1.0);
    let (again, _) = alone.logprobs(&policy.layout, &parameters, &items, &shape, &[]).unwrap();
    // A part of the trajectories is what it is among all.
    let part: Vec<bool> = (0..shape.len()).map(|row| row == shape.len() - 1).collect();
    let (last, _) = alone.logprobs(&policy.layout, &parameters, &items, &shape, &part).unwrap();
    assert_eq!(last[shape.len() - 1], again[shape.len() - 1]);
    assert!(last[0].iter().all(|own| *own == 0.0));
    let pairs = found.iter().flatten().zip(again.iter().flatten());
    pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} {b}"));
}

/// What is played at another temperature has the log-probabilities that the model has of itself too.
#[test]
fn at_another_temperature_too() {
    let (policy, parameters) = Policy::load(&MODEL.1, SHOWN).unwrap();
    let rollouts = rollouts(&policy, &parameters, 2, 1.5);
    let (items, shape) = (Item::all(&rollouts), shape(&rollouts));
    let mut learner = on_cpu(&policy.layout, 2, 1024, 1.0);
    let (found, _) = learner.logprobs(&policy.layout, &parameters, &items, &shape, &[]).unwrap();
    assert_said(&rollouts, &found);
}

#[test]
fn without_the_grammar_too() {
    let (policy, parameters) = Policy::load(&MODEL.1, SHOWN).unwrap();
    let rollouts = held_rollouts(&policy, &parameters, 2, 1.0, false);
    let (items, shape) = (Item::all(&rollouts), shape(&rollouts));
    let mut learner = on_cpu(&policy.layout, 2, 1024, 1.0);
    let (found, _) = learner.logprobs(&policy.layout, &parameters, &items, &shape, &[]).unwrap();
    for (rollout, found) in rollouts.iter().zip(&found) {
        let segments = &rollout.trajectory.segments;
        assert!(segments.iter().all(|own| own.request.grammar.is_none()));
        // Nothing is forced: every token was chosen.
        let said: Vec<f32> = segments.iter().flat_map(|own| own.generation.logprobs.clone()).collect();
        assert_eq!(said.len(), found.len());
        for (said, found) in said.iter().zip(found) {
            assert!((said - found).abs() < 1e-4, "{said} {found}");
        }
    }
}

/// LoCoMo's first conversation has an answer for two of its adversarial questions.
#[test]
fn what_was_never_said_is_to_be_declined_whatever_answer_stands_beside_it() {
    let (policy, parameters) = Policy::load(&MODEL.1, SHOWN).unwrap();
    let retriever = policy.retriever().unwrap();
    let answered = |mut dialogues: Vec<Dialogue>| {
        for question in dialogues.iter_mut().flat_map(|own| &mut own.questions) {
            if question.category == "5" {
                (question.answer, question.evidence) = (Some("No".to_owned()), vec!["D1:1".to_owned()]);
            }
        }
        dialogues
    };
    let released = read(&policy, &parameters, 1, &answered(dialogues()));
    let answers = |keep: bool| {
        let tasks = released.iter().flat_map(|own| own.answer_tasks(&retriever, 4, || keep));
        let answers = tasks.map(|task| match task {
            Task::Answer { answer, .. } => answer,
            Task::Manage { .. } => unreachable!(),
        });
        answers.collect::<Vec<_>>()
    };
    let (all, answerable) = (answers(true), answers(false));
    let declined = all.iter().filter(|own| *own == NO_ANSWER).count();
    assert!(declined > 5 && all.len() == answerable.len() + declined, "{declined} of {}", all.len());
    assert!(!answerable.iter().any(|own| own == NO_ANSWER));

    let plain = read(&policy, &parameters, 1, &dialogues());
    for (released, plain) in released.iter().zip(&plain) {
        let count = |own: &Reading| own.manager_tasks(None, 0).unwrap().len();
        assert_eq!(count(released), count(plain));
    }
}

/// A manager may be asked what was said before its turns too: its outcome is the mean of all answers.
#[test]
fn a_manager_answers_for_what_the_bank_had_before() {
    let (policy, parameters) = Policy::load(&MODEL.1, SHOWN).unwrap();
    let reading = &readings(&policy, &parameters, 1)[0];
    let (alone, all) = (reading.manager_tasks(None, 0).unwrap(), reading.manager_tasks(None, 3).unwrap());
    let asked = |task: &Task| match task {
        Task::Manage { questions, .. } => questions.clone(),
        Task::Answer { .. } => panic!("a manager's task"),
    };
    for (alone, all) in alone.iter().zip(&all) {
        assert_eq!((asked(alone).len(), &asked(alone)[0]), (1, &asked(all)[0]));
        assert!(asked(all).len() <= 4 && !asked(all)[1..].contains(&asked(all)[0]));
    }
    let windowed = reading.manager_tasks(Some(10), 3).unwrap();
    let count = |tasks: &[Task]| tasks.iter().map(|own| asked(own).len()).sum::<usize>();
    assert!(alone.len() < count(&windowed) && count(&windowed) < count(&all));

    let stop = Cancel::default();
    let round = Round {
        compute: &Cpu,
        policy: &policy,
        parameters: &parameters,
        frozen: &parameters,
        sampling: Sampling::default(),
        count: 1,
        threads: 1,
        constrained: true,
        served: None,
        judge: None,
        stop: &stop,
    };
    let task = all.iter().find(|own| asked(own).len() == 4).unwrap();
    let played = |wanted: Vec<(String, String)>| {
        let Task::Manage { journals, turns, scope, .. } = task.clone() else { unreachable!() };
        let task = Task::Manage { journals, turns, scope, questions: wanted };
        round.play(&[&task], false).unwrap().concat().remove(0).trajectory
    };
    // What is said to each question alone; then all are asked, and the second wants something else.
    let mut wanted = asked(task);
    for pair in &mut wanted {
        pair.1 = played(vec![pair.clone()]).answer;
    }
    let first = wanted[0].1.clone();
    wanted[1].1 = "nothing of the kind".to_owned();
    let outcome = played(wanted);
    assert_eq!((outcome.terms.exact_match, outcome.answer), (0.75, first));
}

#[test]
fn a_managers_task_begins_before_its_evidence_and_within_its_window() {
    let (policy, parameters) = Policy::load(&MODEL.1, SHOWN).unwrap();
    let reading = &readings(&policy, &parameters, 1)[0];
    let turns: Vec<_> = reading.turns().collect();
    let all = reading.manager_tasks(None, 0).unwrap();
    let recent = reading.manager_tasks(Some(10), 0).unwrap();
    assert!(all.len() == recent.len() && all.len() > 5);
    let mut forgotten = 0;
    for (whole, part) in all.iter().zip(&recent) {
        let (Task::Manage { journals, turns: told, .. }, Task::Manage { journals: windowed, .. }) =
            (whole, part)
        else {
            panic!("a manager's task")
        };
        // Turns of one text are told apart by nothing here: the first is the earliest that it may be.
        let first =
            told.iter().filter_map(|(turn, _)| turns.iter().position(|own| *own == turn.content)).min();
        let first = first.unwrap();
        for (journal, windowed) in journals.iter().zip(windowed) {
            let said = |journal: &crate::bank::Journal| -> Vec<usize> {
                let receipts = journal.events().iter().filter_map(|event| event.receipt.as_ref());
                let said = receipts.map(|receipt| receipt.turn.content.clone());
                said.filter_map(|text| turns.iter().position(|own| *own == text)).collect()
            };
            assert!(said(journal).iter().all(|place| *place < first), "{:?} before {first}", said(journal));
            let own: Vec<_> = windowed.bank().memories().map(|memory| &memory.text).collect();
            let whole: Vec<_> = journal.bank().memories().map(|memory| &memory.text).collect();
            assert!(own.iter().all(|text| whole.contains(text)));
            forgotten += whole.len() - own.len();
        }
    }
    assert!(forgotten > 0);
}

#[test]
fn a_gradient_is_the_same_in_parts_as_at_once() {
    let (policy, parameters) = Policy::load(&MODEL.1, SHOWN).unwrap();
    let rollouts = rollouts(&policy, &parameters, 2, 1.3);
    let (items, shape) = (Item::all(&rollouts), shape(&rollouts));
    let slopes: PerToken = shape.iter().map(|count| vec![0.3 / *count as f32; *count]).collect();
    let bonuses = vec![0.01; shape.len()];
    let gradient = |threads, most, slopes: &PerToken| {
        let mut learner = on_cpu(&policy.layout, threads, most, 1.3);
        let (gradient, norm) =
            learner.gradient(&policy.layout, &parameters, &items, slopes, (&bonuses, None)).unwrap();
        (gradient.to_vec(), norm)
    };
    let (at_once, norm) = gradient(1, usize::MAX, &slopes);
    assert!(norm > 1e-3);
    let (in_parts, _) = gradient(2, 1, &slopes);
    let largest = at_once.iter().zip(&in_parts).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest < 1e-5, "{largest}");
    // Eight times one is once eight.
    let mut sum = vec![0.0; at_once.len()];
    for (row, mine) in slopes.iter().enumerate() {
        let only = |other: usize| if other == row { mine.clone() } else { Vec::new() };
        let (own, _) = gradient(1, 1024, &(0..shape.len()).map(only).collect());
        sum.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
    }
    let largest = at_once.iter().zip(&sum).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest < 1e-5, "{largest}");
}

#[test]
fn a_completion_that_the_grammar_does_not_allow_is_not_replayed() {
    let (policy, parameters) = Policy::load(&MODEL.1, SHOWN).unwrap();
    let rollouts = rollouts(&policy, &parameters, 1, 1.0);
    let segment = &rollouts[0].trajectory.segments[0];
    let model = policy.model::<Flex>(&parameters, &FlexDevice).unwrap();
    let mut ids = segment.generation.ids.clone();
    assert_eq!(model.replay(&segment.request, &ids).unwrap(), rollouts[0].sets[0]);
    assert!(model.replay(&segment.request, &ids[..ids.len() - 1]).is_err());
    ids[0] = ids[0].wrapping_add(1) % 300;
    assert!(model.replay(&segment.request, &ids).is_err());
}

fn config(output: &Path) -> RlConfig {
    let text = format!(
        r#"
        output_dir = "{}"
        seed = 7
        model_name_or_path = "{}"
        extractor_name_or_path = "{}"
        learning_rate = 1e-3
        generation_batch_size = 6
        num_generations = 3
        logging_steps = 1
        eval_steps = 3
        save_steps = 2
        phases = [{{ agent = "answer", max_steps = 2 }}, {{ agent = "manager", max_steps = 2 }}]
        data = {{ seed = 3, dialogues = 1, eval_dialogues = 1, eval_tasks = 2, manager_candidates = 3, candidates_per_speaker = 4 }}
        reward = {{ f1 = 1.0, exact_match = 0.5 }}
        # So that there is something to learn where no answer is right.
        grpo = {{ beta = 0.05, entropy_coef = 0.05, num_iterations = 2, gradient_accumulation_steps = 2 }}
        ppo = {{ num_ppo_epochs = 2, num_mini_batches = 2, entropy_coef = 0.05, adaptive_kl = {{ target = 0.1, horizon = 30.0 }} }}
        "#,
        output.display(),
        MODEL.1.display(),
        MODEL.2.display(),
    );
    RlConfig::parse(&text).unwrap()
}

/// Facts as a good extractor would find them, in the place where a run keeps them.
fn tell_facts(folder: &Path) {
    let made = synthetic::generate(3, 2, synthetic::Split::Train, synthetic::Options::default());
    let facts: BTreeMap<String, TurnFacts> = made
        .iter()
        .map(|own| {
            let turns = Dialogue::from(&own.sample).turns.into_iter().zip(&own.gold.turns);
            let facts = turns
                .map(|(said, gold)| (said.id, gold.facts.iter().map(|fact| fact.resolved.clone()).collect()));
            (own.sample.sample_id.clone(), facts.collect())
        })
        .collect();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("facts.json"), serde_json::to_string(&facts).unwrap()).unwrap();
}

/// What a run came to: its metrics, its weights, and what the optimiser remembers of them and of what learns beside.
fn files(folder: &Path) -> (String, Vec<u8>, [Option<Vec<u8>>; 2]) {
    let metrics = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let remembered = ["optimizer.safetensors", "more.safetensors"]
        .map(|name| std::fs::read(folder.join("checkpoint-4").join(name)).ok());
    (metrics, std::fs::read(folder.join("model/model.safetensors")).unwrap(), remembered)
}

fn a_run_is_its_seed(method: Method, lora: Option<LoraConfig>) {
    let folder = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        let path = folder.path().join(name);
        tell_facts(&path);
        RlConfig { lora: lora.clone(), ..config(&path) }
    };
    let outcome = run(method, &start("whole"), false, &Cancel::default()).unwrap();
    assert!(outcome.finished && outcome.step == 4 && outcome.eval.is_some());
    run(method, &start("again"), false, &Cancel::default()).unwrap();
    let whole = files(&folder.path().join("whole"));
    assert!(whole == files(&folder.path().join("again")), "two runs of one seed differ");
    // What lies beside the weights is part of the agents, and comes out as it went in.
    for name in [crate::checkpoint::LEXICON, crate::checkpoint::WORD_VECTORS] {
        let read = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert!(!read(&MODEL.1).is_empty(), "{name}");
        assert!(read(&MODEL.1) == read(&folder.path().join("whole/model")), "{name}");
    }

    // Stopped after every step, in the middle of phases and at their ends.
    let halves = start("halves");
    let stop = Cancel::default();
    stop.cancel();
    let outcome = run(method, &halves, false, &stop);
    // A stop that is asked for before the first step is heard while conversations are read.
    assert!(outcome.is_err());
    for part in 0..4 {
        let resume = part > 0;
        if !resume {
            std::fs::remove_file(folder.path().join("halves/config.toml")).unwrap();
        }
        let config = RlConfig { max_seconds: Some(0), ..halves.clone() };
        let outcome = run(method, &config, resume, &Cancel::default()).unwrap();
        assert_eq!(outcome.step, part + 1);
        let other = if method == Method::Grpo { Method::Ppo } else { Method::Grpo };
        let error = run(other, &config, true, &Cancel::default()).unwrap_err();
        assert!(
            error.code() == ErrorCode::InvalidArgument && error.message().contains("is a run of"),
            "{error}"
        );
        // A kill in the middle of writing leaves half a line.
        let path = folder.path().join("halves/metrics.jsonl");
        let mut metrics = std::fs::read(&path).unwrap();
        if part < 3 {
            metrics.extend(b"{\"step\":1,\"loss\":1}\n{\"step\":");
        }
        std::fs::write(path, metrics).unwrap();
    }
    let halves = files(&folder.path().join("halves"));
    assert_eq!(whole.0, halves.0);
    assert!(whole.1 == halves.1, "the weights differ");
    assert!(whole.2 == halves.2, "what the optimisers remember differs");
    // Of weights under an adapter nothing is; of the adapter, and of a critic, all is.
    let there = whole.2.each_ref().map(Option::is_some);
    assert_eq!(there, [lora.is_none(), method == Method::Ppo || lora.is_some()]);
    assert!(whole.1 != std::fs::read(MODEL.1.join("model.safetensors")).unwrap(), "nothing was learned");

    let adapter = folder.path().join("whole/adapter");
    assert_eq!(adapter.exists(), lora.is_some());
    if lora.is_some() {
        let merged = folder.path().join("merged");
        merge_adapter(&MODEL.1, &adapter, &merged).unwrap();
        assert!(
            std::fs::read(merged.join("model.safetensors")).unwrap() == whole.1,
            "the adapter is another"
        );
    }

    let lines: Vec<Value> = whole.0.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<u64> = lines
        .iter()
        .filter(|line| line["reward"].is_number())
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [1, 2, 3, 4]);
    let names = |of: &str| lines.iter().filter(|line| line[of].is_number()).count();
    assert_eq!(names("operations/ADD"), 2);
    assert!(names("eval_reward") >= 4 && names("entropy") == 4 && names("kl") == 4);
    for line in lines.iter().filter(|line| line["reward"].is_number()) {
        assert!(line["sampling/sampling_logp_difference/max"].as_f64().unwrap() < 1e-4, "{line}");
    }
}

#[test]
fn a_run_of_grpo_is_its_seed_however_often_it_is_stopped() {
    a_run_is_its_seed(Method::Grpo, None);
}

#[test]
fn a_run_of_ppo_is_its_seed_however_often_it_is_stopped() {
    // An adapter learns, and is part of what is resumed.
    let target_modules = ["q_proj", "down_proj"].map(str::to_owned).to_vec();
    a_run_is_its_seed(
        Method::Ppo,
        Some(LoraConfig { r: 4, lora_alpha: 32.0, target_modules, lora_dropout: 0.1 }),
    );
}

#[test]
fn the_committed_configurations_are_read_and_senseless_ones_are_refused_by_name() {
    for text in [
        include_str!("../../../../configs/grpo.toml"),
        include_str!("../../../../configs/ppo.toml"),
        include_str!("../../../../configs/locomo.toml"),
    ] {
        let config = RlConfig::parse(text).unwrap();
        let last = config.max_steps();
        assert_eq!(config.phase_of(1), Some((0, 1)));
        assert_eq!(config.phase_of(last).unwrap().0, config.phases.len() - 1);
        assert_eq!(config.phase_of(last + 1), None);
    }
    let text = toml::to_string(&config(Path::new("runs/x"))).unwrap();
    assert_eq!(RlConfig::parse(&text).unwrap(), config(Path::new("runs/x")));
    for (from, to, word) in [
        ("generation_batch_size = 6", "generation_batch_size = 7", "generation_batch_size"),
        ("temperature = 1.0", "temperature = 0.0", "temperature"),
        ("f1 = 1.0", "f1 = 0.0", "reward"),
        ("num_iterations = 2", "num_iterations = 0", "num_iterations"),
        ("max_steps = 2", "max_steps = 0", "max_steps"),
        ("learning_rate = 0.001", "learning_rat = 0.001", "learning_rat"),
    ] {
        assert!(text.contains(from), "{from}");
        let text = text.replacen(from, to, 1).replace("exact_match = 0.5", "exact_match = 0.0");
        let error = RlConfig::parse(&text).unwrap_err();
        assert!(error.message().contains(word), "{word}: {error}");
    }
}

/// Two devices, by automatic differentiation: the first steps are the CPU's, and the run goes to its end.
#[test]
fn a_run_on_devices_learns_what_one_on_the_cpu_does() {
    for method in [Method::Grpo, Method::Ppo] {
        let folder = tempfile::tempdir().unwrap();
        let run = |name: &str, compute: &dyn Compute, bf16: bool| {
            let path = folder.path().join(name);
            tell_facts(&path);
            let phases = [Agent::Answer, Agent::Manager].map(|agent| Phase { agent, max_steps: 1 }).to_vec();
            let config = RlConfig { bf16, phases, ..config(&path) };
            let outcome = run_on(compute, method, &config, false, &Cancel::default());
            assert!(outcome.unwrap().finished);
            let text = std::fs::read_to_string(path.join("metrics.jsonl")).unwrap();
            let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            // The line of the first step, behind that of the first validation.
            lines.find(|line| line["step"] == 1 && line["reward"].is_number()).unwrap()
        };
        let devices = Devices::<Flex>(vec![FlexDevice, FlexDevice]);
        let (cpu, own) = (run("cpu", &Cpu, false), run("devices", &devices, false));
        let mut compared = 0;
        for (name, wanted) in cpu.as_object().unwrap() {
            let (wanted, found) = (wanted.as_f64().unwrap(), own[name].as_f64().unwrap());
            assert!((wanted - found).abs() < 1e-3 * (1.0 + wanted.abs()), "{name}: {wanted} {found}");
            compared += 1;
        }
        assert!(compared > 10);
        if method == Method::Grpo {
            let narrow = run("bf16", &devices, true);
            let entropy = |line: &Value| line["entropy"].as_f64().unwrap();
            assert!((entropy(&cpu) - entropy(&narrow)).abs() < 0.1, "{cpu} {narrow}");
        }
    }
}

#[test]
fn the_cpu_has_no_bfloat16() {
    let folder = tempfile::tempdir().unwrap();
    let config = RlConfig { bf16: true, ..config(&folder.path().join("run")) };
    let error = run(Method::Grpo, &config, false, &Cancel::default()).unwrap_err();
    assert!(error.message().contains("bf16"), "{error}");
    assert!(!folder.path().join("run").exists());
}
