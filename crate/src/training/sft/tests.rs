use burn::backend::Flex;
use burn::backend::flex::FlexDevice;

use super::*;
use crate::checkpoint::Quantization;
use crate::generation::{Grammar, PromptFamily};
use crate::training::examples::{Source, Task};
use crate::training::{
    Curriculum, Devices, EncoderConfig, FreeformConfig, LoraConfig, LossWeights, Schedule, TaskCounts,
    merge_adapter,
};

pub(in crate::training) fn config(folder: &std::path::Path) -> SftConfig {
    let mut config = SftConfig::parse(include_str!("../../../../configs/nano.toml")).unwrap();
    config.output_dir = folder.to_owned();
    (config.encoder, config.model_name_or_path) = (None, None);
    config.model.vocab_size = 700;
    config.model.hidden_size = 48;
    config.model.num_hidden_layers = 2;
    config.model.head_dim = 12;
    config.model.intermediate_size = 96;
    (config.data.dialogues, config.data.eval_dialogues) = (6, 1);
    config.data.batch = TaskCounts { extract: 2, manage: 3, answer: 2 };
    config.curriculum = Some(Curriculum { steps: 3, max_length: 90 });
    config.loss.prompt = 0.05;
    config.micro_batch_tokens = 300;
    (config.max_steps, config.save_steps, config.eval_steps, config.logging_steps) = (8, 4, 4, 2);
    config
}

fn weights(outcome: &Outcome) -> Vec<u8> {
    std::fs::read(outcome.path.join("model.safetensors")).unwrap()
}

fn steps(folder: &std::path::Path) -> Vec<u64> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap()).collect()
}

#[test]
fn a_killed_run_goes_on_to_the_same_bits_as_one_that_was_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, halves) = (folder.path().join("whole"), folder.path().join("halves"));
    // With an encoder, whose vectors only the beginning may read.
    crate::training::encoder::tests::write_encoder(folder.path());
    let config = |output: &std::path::Path| {
        let mut config = config(output);
        let folder = folder.path().to_owned();
        config.encoder = Some(EncoderConfig { folder, words: 3, scale: 0.3, slowness: 4.0 });
        config.data.freeform = Some(FreeformConfig { share: 0.5, answer_share: None, copies: 2 });
        config
    };
    let straight = run(&config(&whole), false, &Cancel::default()).unwrap();
    assert!(straight.finished && straight.step == 8);

    // Stopped after the first step by the caller, at once after the fourth by the clock.
    let stop = Cancel::default();
    stop.cancel();
    let outcome = run(&config(&halves), false, &stop).unwrap();
    assert_eq!((outcome.step, outcome.finished), (1, false));
    // A kill in the middle of writing leaves a partial folder and half a line.
    std::fs::create_dir(halves.join("checkpoint-2.partial")).unwrap();
    let mut metrics = std::fs::read(halves.join("metrics.jsonl")).unwrap_or_default();
    metrics.extend(b"{\"step\":2,\"loss\":1}\n{\"step\":");
    std::fs::write(halves.join("metrics.jsonl"), metrics).unwrap();
    std::fs::remove_file(folder.path().join("vocab.txt")).unwrap();
    let resumed = run(&config(&halves), true, &Cancel::default()).unwrap();

    assert!(resumed.finished);
    assert!(weights(&straight) == weights(&resumed), "the weights differ");
    let moments =
        |run: &std::path::Path| std::fs::read(run.join("checkpoint-8/optimizer.safetensors")).unwrap();
    assert!(moments(&whole) == moments(&halves), "what the optimiser remembers differs");
    assert_eq!(steps(&whole), [2, 4, 4, 6, 8, 8]);
    assert_eq!(steps(&whole), steps(&halves));
    let metrics = std::fs::read_to_string(whole.join("metrics.jsonl")).unwrap();
    assert!(metrics.contains("eval_exact_match/extract/free/"), "{metrics}");

    let bundle = folder.path().join("bundle");
    let formats = (Quantization::Q4, Some(Quantization::Q8));
    crate::training::export(&config(&whole), "nano", formats, (&straight.path, &[]), &bundle).unwrap();
    let mut files = crate::training::run_folder::read_files(&bundle).unwrap();
    let manifest = crate::checkpoint::verify(&files).unwrap().unwrap();
    assert!(
        files.contains_key("NOTICE")
            && files.contains_key("LICENSE-MIT")
            && manifest.training.commands.len() == 3
    );
    assert!(manifest.training.commands[2].ends_with("/bundle --quantize q4 --embedding q8"));
    let mut weights = files["model.safetensors"].whole().unwrap().into_owned();
    weights[1000] ^= 1;
    files.insert("model.safetensors".to_owned(), weights.into());
    assert!(crate::checkpoint::verify(&files).is_err());
}

/// The weights under it stay; it is resumed to the bit, its dropout too; merged into them it is the run's model.
#[test]
fn an_adapter_learns_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let start = SftConfig { max_steps: 1, ..config(&path("start")) };
    let base = run(&start, false, &Cancel::default()).unwrap();
    let config = |name: &str| {
        let target_modules = ["q_proj", "down_proj"].map(str::to_owned).to_vec();
        let lora = LoraConfig { r: 2, lora_alpha: 4.0, target_modules, lora_dropout: 0.2 };
        SftConfig { lora: Some(lora), model_name_or_path: Some(base.path.clone()), ..config(&path(name)) }
    };
    let whole = run(&config("whole"), false, &Cancel::default()).unwrap();
    let stop = Cancel::default();
    stop.cancel();
    assert_eq!(run(&config("halves"), false, &stop).unwrap().step, 1);
    assert!(!path("halves/adapter").exists());
    let resumed = run(&config("halves"), true, &Cancel::default()).unwrap();
    assert!(resumed.finished && weights(&whole) == weights(&resumed), "the weights differ");
    assert!(weights(&whole) != weights(&base), "nothing was learned");
    merge_adapter(&base.path, &path("whole/adapter"), &path("merged")).unwrap();
    assert!(std::fs::read(path("merged/model.safetensors")).unwrap() == weights(&whole));
    // One that stops early has the adapter of its best model, and not of its last.
    let mut early = config("early");
    (early.max_steps, early.eval_steps, early.learning_rate) = (40, 2, 0.5);
    (early.early_stopping_patience, early.lr_scheduler_type) = (Some(2), Schedule::ConstantWithWarmup);
    let early = run(&early, false, &Cancel::default()).unwrap();
    assert!(early.finished && early.step < 40, "{}", early.step);
    merge_adapter(&base.path, &path("early/adapter"), &path("best")).unwrap();
    assert!(std::fs::read(path("best/model.safetensors")).unwrap() == weights(&early));
    let last = std::fs::read(path(&format!("early/checkpoint-{}/model.safetensors", early.step))).unwrap();
    assert!(last != weights(&early));
    // What cannot be adapted is said before anything is made.
    let mut wrong = config("wrong");
    wrong.lora.as_mut().unwrap().target_modules.push("lm_head".to_owned());
    assert!(run(&wrong, false, &Cancel::default()).unwrap_err().message().contains("lm_head"));
    assert!(!path("wrong").exists());
}

/// Prompts in two blocks through the whole run; what it writes is what a generator reads.
#[test]
fn a_run_stops_early_as_its_best_model_and_so_does_one_that_was_stopped_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let config = |name: &str| {
        let mut config = config(&folder.path().join(name));
        (config.max_steps, config.eval_steps, config.save_steps, config.logging_steps) = (40, 2, 3, 5);
        // So fast that it soon gets worse.
        (config.learning_rate, config.early_stopping_patience) = (5.0, Some(2));
        config.lr_scheduler_type = Schedule::ConstantWithWarmup;
        config
    };
    let whole = run(&config("whole"), false, &Cancel::default()).unwrap();
    assert!(whole.finished && whole.step < 40, "{}", whole.step);
    let lines = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(folder.path().join(name).join("metrics.jsonl")).unwrap();
        let timeless = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().retain(|name, _| !name.contains("second"));
            line
        };
        text.lines().map(timeless).collect()
    };
    let losses: Vec<f64> = lines("whole").iter().filter_map(|line| line["eval_loss"].as_f64()).collect();
    let lowest = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(
        losses.iter().position(|loss| loss.total_cmp(&lowest).is_eq()),
        Some(losses.len() - 3),
        "{losses:?}"
    );
    assert_eq!(lines("whole").last().unwrap()["step"], whole.step);
    // It ends as the best model and not as the last.
    let best = std::fs::read(folder.path().join("whole/best/model.safetensors")).unwrap();
    assert!(weights(&whole) == best);
    let last = folder.path().join(format!("whole/checkpoint-{}/model.safetensors", whole.step));
    assert!(best != std::fs::read(last).unwrap());

    // Stopped after each of the first steps, and then left alone.
    for part in 0..3 {
        let config = SftConfig { max_seconds: Some(0), ..config("parts") };
        let outcome = run(&config, part > 0, &Cancel::default()).unwrap();
        assert_eq!((outcome.step, outcome.finished), (part + 1, false));
    }
    let outcome = run(&config("parts"), true, &Cancel::default()).unwrap();
    assert_eq!((outcome.step, outcome.finished), (whole.step, true));
    assert!(weights(&outcome) == best);
    assert_eq!(lines("parts"), lines("whole"));
}

#[test]
fn a_prefix_model_trains_and_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut own = config(&folder.path().join("run"));
    own.model.family = Family::Bert;
    own.model.num_key_value_heads = own.model.num_attention_heads;
    (own.loss.prompt, own.data.freeform) = (0.0, None);
    (own.max_steps, own.learning_rate) = (2, 1e-3);
    let outcome = run(&own, false, &Cancel::default()).unwrap();
    let files = crate::training::run_folder::read_files(&outcome.path).unwrap();
    let decoder =
        crate::checkpoint::read_decoder::<burn::backend::Flex>(&files, &burn_flex::FlexDevice).unwrap();
    let line_break = decoder.config().block_token_id.unwrap();

    let (examples, _, tokenizer) = prepare(&own, None, &[]).unwrap();
    assert_eq!(tokenizer.tokenizer.encode("\n").unwrap(), [line_break]);
    let answer = examples.iter().find(|example| example.branches.len() > 1).unwrap();
    let tree = answer.tree();
    assert_eq!(answer.inputs()[tree.stem - 1], line_break);
    for (branch, prompt) in answer.branches.iter().zip(tree.prompts.unwrap()) {
        let whole = answer.prompt(branch);
        assert_eq!(decoder.config().first_block(&whole), tree.stem);
        assert_eq!(whole.len(), tree.stem + prompt);
    }
    own.loss.prompt = 0.1;
    let text = toml::to_string(&own).unwrap();
    assert!(SftConfig::parse(&text).unwrap_err().message().contains("loss.prompt"));
}

/// Other dialogues and hardly a step: the vocabulary is the model's own, and so are the weights.
#[test]
fn a_run_can_begin_as_a_model_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut own = config(&folder.path().join("first"));
    (own.max_steps, own.save_steps, own.eval_steps) = (1, 1, 10);
    let first = run(&own, false, &Cancel::default()).unwrap();
    own.output_dir = folder.path().join("second");
    own.model_name_or_path = Some(first.path.clone());
    (own.data.seed, own.learning_rate, own.weight_decay) = (77, 1e-9, 0.0);
    let second = run(&own, false, &Cancel::default()).unwrap();
    let file = |path: &std::path::Path, name: &str| std::fs::read(path.join(name)).unwrap();
    assert_eq!(file(&first.path, "tokenizer.json"), file(&second.path, "tokenizer.json"));
    let layout = Layout::new(own.model.clone()).unwrap();
    let weights = |path: &std::path::Path| crate::training::read_model(path, &layout).unwrap();
    for (before, after) in weights(&first.path).iter().zip(weights(&second.path)) {
        assert!((before - after).abs() < 1e-6, "{before} {after}");
    }
    // Twice the layers compute the same: the first step's loss, and every layer's values after it.
    let mut deeper = own.clone();
    deeper.output_dir = folder.path().join("deeper");
    deeper.model.num_hidden_layers *= 2;
    let deeper = run(&deeper, false, &Cancel::default()).unwrap();
    let loss = |path: &std::path::Path| {
        let text = std::fs::read_to_string(path.parent().unwrap().join("metrics.jsonl")).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        last["loss"].as_f64().or(last["eval_loss"].as_f64()).unwrap()
    };
    assert!((loss(&deeper.path) - loss(&second.path)).abs() < 1e-6);
    own.output_dir = folder.path().join("odd");
    own.model.num_hidden_layers = 3;
    let error = run(&own, false, &Cancel::default()).unwrap_err();
    assert!(error.message().contains("num_hidden_layers is 3, no multiple of the 2"), "{error}");
    own.model.num_hidden_layers = 2;
    own.output_dir = folder.path().join("third");
    own.model.intermediate_size += 4;
    let error = run(&own, false, &Cancel::default()).unwrap_err();
    assert!(error.message().contains("mlp.gate_proj.weight"), "{error}");
}

#[test]
fn a_run_is_neither_overwritten_nor_resumed_with_other_options() {
    let folder = tempfile::tempdir().unwrap();
    let mut own = config(folder.path());
    (own.max_steps, own.save_steps) = (1, 1);
    run(&own, false, &Cancel::default()).unwrap();
    assert!(run(&own, false, &Cancel::default()).unwrap_err().message().contains("--resume"));
    own.learning_rate *= 2.0;
    assert!(run(&own, true, &Cancel::default()).unwrap_err().message().contains("other options"));
    own.output_dir = folder.path().join("none");
    assert!(run(&own, true, &Cancel::default()).is_err());
}

#[test]
fn a_small_network_learns_twenty_examples_by_heart() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.curriculum = None;
    config.data.questions_per_prompt = 1;
    config.loss.prompt = 0.0;
    (config.max_steps, config.learning_rate, config.weight_decay) = (400, 4e-3, 0.0);
    let (examples, _, _) = prepare(&config, None, &[]).unwrap();
    let mut chosen: Vec<&Example> = Vec::new();
    for task in [Task::Extract, Task::Manage, Task::Answer] {
        let own = examples.iter().filter(|example| example.task == task && example.len() < 160);
        chosen.extend(own.take(if task == Task::Manage { 8 } else { 6 }));
    }
    assert_eq!(chosen.len(), 20);
    let layout = Layout::new(config.model.clone()).unwrap();
    let parameters = layout.initialize(1);
    let moments = Moments::new(layout.len());
    let state = TrainerState { step: 0, tokens: 0, seconds: 0.0, parameters, moments, more: Value::Null };
    let networks = Cpu.networks(config.threads, &layout, config.precision()).unwrap();
    let mut trainer = Trainer::new(&config, networks, layout, state, None);
    let before = trainer.evaluate(&chosen, None).unwrap();
    for _ in 0..400 {
        trainer.step(&chosen).unwrap();
    }
    let after = trainer.evaluate(&chosen, None).unwrap();
    assert!(before.mean_loss() > 5.0 && after.mean_loss() < 0.05, "{before:?} {after:?}");
    assert!((after.overall_exact() - 1.0).abs() < 1e-9, "{after:?}");
}

#[test]
fn forced_tokens_and_inserted_lines_are_no_targets() {
    let folder = tempfile::tempdir().unwrap();
    let (_, _, tokenizer) = prepare(&config(folder.path()), None, &[]).unwrap();
    let template = ChatTemplate::new(Some(tokenizer.files.config.as_bytes()), None).unwrap();
    let line = "8 May 2023: Has a dog named Scout".to_owned();
    let block = crate::agents::Block { speaker: "Caroline".to_owned(), lines: vec![line.clone()] };
    let case = Case {
        task: Task::Answer,
        source: Source::Synthetic,
        kind: String::new(),
        messages: crate::agents::answer_messages(PromptFamily::Compact, &[block], "What is the dog called?"),
        grammar: Grammar::Answer { lines: vec![line] },
        completion: r#"{"memories":["0"],"answer":"Scout"}"#.to_owned(),
    };
    let example = Example::new(&[case], &tokenizer.tokenizer, &template, &DecoderConfig::nano()).unwrap();
    let decode = |ids: &[u32]| tokenizer.tokenizer.decode(ids).unwrap();
    assert_eq!(
        decode(example.branches[0].completion()),
        r#"{"memories":["0" 8 May 2023: Has a dog named Scout],"answer":"Scout"}"#
    );
    let without_prompt = LossWeights { prompt: 0.0, ..LossWeights::default() };
    let targets: Vec<u32> = example.targets(&without_prompt).map(|target| target.token).collect();
    let text = decode(&targets);
    assert!(text.contains("Scout") && !text.contains("May") && !text.contains("memories"), "{text}");
    for target in example.targets(&LossWeights { prompt: 1.0, ..LossWeights::default() }) {
        let branch = &example.branches[0];
        let tokens = [&example.prompt(branch), branch.completion()].concat();
        assert_eq!(tokens[target.row + 1], target.token);
    }
}

/// The same examples in the same order, with the same dropout: the same losses, but for rounding.
#[test]
fn a_run_on_devices_learns_what_one_on_the_cpu_does() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, compute: &dyn Compute| {
        let mut config = config(&folder.path().join(name));
        (config.dropout, config.max_grad_norm) = (0.1, 0.5);
        run_on(compute, &config, false, &Cancel::default()).unwrap().eval.unwrap()
    };
    let ((wanted, _), (found, _)) = (run("cpu", &Cpu), run("devices", &Devices::<Flex>(vec![FlexDevice; 2])));
    assert!(wanted > 1.0 && (wanted - found).abs() < 1e-3 * wanted, "{wanted} {found}");
}
