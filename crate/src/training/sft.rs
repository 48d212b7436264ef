//! Supervised fine-tuning: the run from a configuration to a trained model.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tracing::info;

use super::bpe::TokenizerFiles;
use super::config::{EncoderConfig, SftConfig};
use super::encoder::Encoder;
use super::examples::{Case, Example, cases, tokenize};
use super::freeform;
use super::network::Layout;
use super::optimizer::Moments;
use super::order::Order;
use super::run_folder::{RunFolder, TrainerState, read_start};
use super::trainer::{Prediction, StepReport, Tally, Trainer};
use super::{warm_start, word_vectors};
use crate::datasets::synthetic;
use crate::error::{Error, Result};
use crate::generation::{Cancel, ChatTemplate, Lexicon, Tokenizer};
use crate::nn::{DecoderConfig, Family};

/// How many cases the vocabulary is trained on.
const VOCABULARY_CASES: usize = 30_000;
/// How often the vocabulary's trainer reads each of an encoder's words.
const ENCODER_WORDS: usize = 200;
/// How many dialogues the word vectors are learned from.
const VECTOR_DIALOGUES: usize = 500;
/// How many cases the lexicon is learned from.
const LEXICON_CASES: usize = 100_000;
/// How many completions a validation writes down.
const SAMPLES: usize = 12;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Steps done, over all resumes.
    pub step: u64,
    /// Whether these are all.
    pub finished: bool,
    /// The trained model where they are, else the last checkpoint.
    pub path: PathBuf,
    /// The last validation's loss and share of exact examples.
    pub eval: Option<(f64, f64)>,
}

/// Trains until `max_steps`, `max_seconds` or the caller's stop, whichever is first. At a stop
/// there is a checkpoint to resume from; the resumed run gives the same weights, bit for bit.
pub fn run(config: &SftConfig, resume: bool, stop: &Cancel) -> Result<Outcome> {
    let mut layout = Layout::new(config.model.clone())?;
    let folder = if resume { RunFolder::open(config)? } else { RunFolder::create(config)? };
    let saved = if resume { folder.load_latest(&layout)? } else { None };
    let start = config.model_name_or_path.as_deref().filter(|_| saved.is_none());
    let encoder = config.encoder.as_ref().filter(|_| saved.is_none() && start.is_none());
    let encoder = encoder.map(|own| Encoder::load(&own.folder).map(|found| (own, found))).transpose()?;
    let words: Vec<&str> = encoder.iter().flat_map(|(own, encoder)| encoder.words(own.words)).collect();
    let files = match (&saved, start.or(config.tokenizer_name_or_path.as_deref())) {
        (Some((_, files)), _) => Some(files.clone()),
        (None, Some(folder)) => Some(TokenizerFiles::load(folder)?),
        (None, None) => None,
    };
    let (examples, held_out, tokenizer) = prepare(config, files, &words)?;
    layout.config.block_token_id = tokenizer.block_token_id;
    let state = if let Some((state, _)) = saved {
        state
    } else {
        let mut parameters = match start {
            Some(folder) => read_start(folder, &layout)?,
            None => layout.initialize(config.seed),
        };
        if let Some((own, encoder)) = encoder {
            let (tokenizer, seed) = (&tokenizer.tokenizer, config.seed);
            if layout.config.family == Family::Bert {
                warm_start::initialize(&encoder, own, &layout, tokenizer, seed, &mut parameters)?;
            } else {
                encoder.initialize(own, &layout, tokenizer, seed, &mut parameters)?;
            }
        }
        let moments = Moments::new(layout.len());
        TrainerState { step: 0, tokens: 0, seconds: 0.0, parameters, moments }
    };
    folder.rewind_logs(state.step)?;
    info!(step = state.step, parameters = layout.len(), "training in {}", folder.path().display());
    let order = Order::new(config, &examples);
    let rates = config.encoder.as_ref().map(|own| row_rates(own, &tokenizer.tokenizer)).transpose()?;
    let trainer = Trainer::new(config, layout, state, rates);
    Run { config, folder, trainer, order, examples, held_out, tokenizer, eval: None }.go(stop)
}

/// The learning rate of each token's row: whole words, whose vectors are the encoder's, are slower.
fn row_rates(encoder: &EncoderConfig, tokenizer: &Tokenizer) -> Result<Vec<f32>> {
    let is_word = |token: &str| {
        token.strip_prefix(' ').is_some_and(|word| word.len() > 2 && word.chars().all(char::is_alphabetic))
    };
    let rate = |id: u32| {
        let token = tokenizer.decode(&[id])?;
        Ok(if is_word(&token) { 1.0 / encoder.slowness as f32 } else { 1.0 })
    };
    (0..tokenizer.vocabulary_size() as u32).map(rate).collect()
}

/// A tokenizer and the files that it was read from.
struct NanoTokenizer {
    files: TokenizerFiles,
    tokenizer: Arc<Tokenizer>,
    /// Where the network reads a prompt in blocks, the token that ends the first.
    block_token_id: Option<u32>,
}

/// Examples to learn from, examples to validate on, and the tokenizer of both.
fn prepare(
    config: &SftConfig,
    files: Option<TokenizerFiles>,
    words: &[&str],
) -> Result<(Vec<Example>, Vec<Example>, NanoTokenizer)> {
    let started = Instant::now();
    let data = &config.data;
    // What is validated on is of the same split, but not trained on.
    let dialogues = synthetic::generate(
        data.seed,
        data.dialogues + data.eval_dialogues,
        synthetic::Split::Train,
        synthetic::Options::default(),
    );
    let (training, validation) = dialogues.split_at(data.dialogues);
    let vectors = word_vectors::learn(data.seed, &training[..training.len().min(VECTOR_DIALOGUES)])?;
    let mut training = cases(data, data.questions_per_prompt, training);
    let mut validation = cases(data, 1, validation);
    let freeform = freeform::cases(data)?;
    let context = config.model.max_position_embeddings;
    let train_vocabulary = || {
        let words: Vec<String> = words.iter().map(|word| format!(" {word}")).collect();
        let words = words.iter().flat_map(|word| std::iter::repeat_n(word.as_str(), ENCODER_WORDS));
        let cases = training.iter().flatten().take(VOCABULARY_CASES).chain(freeform.written.iter().flatten());
        let texts: Vec<&str> = cases.flat_map(Case::texts).chain(words).collect();
        TokenizerFiles::train(&texts, config.model.vocab_size, context)
    };
    let mut files = files.map_or_else(train_vocabulary, Ok)?;
    files.word_vectors = vectors.map_or(Ok(Vec::new()), |vectors| vectors.to_bytes())?;
    let known = training.iter().flatten().take(LEXICON_CASES).chain(freeform.written.iter().flatten());
    files.lexicon = learn_lexicon(known).to_text();
    training.extend(freeform.written);
    training.extend(freeform.varied);
    validation.extend(freeform.held_out);
    for groups in [&mut training, &mut validation] {
        groups.retain(|group| group.iter().all(|case| data.batch.of(case.task) > 0));
    }
    let tokenizer =
        Arc::new(Tokenizer::from_bytes(files.tokenizer.as_bytes(), Some(files.config.as_bytes()), None)?);
    let template = ChatTemplate::new(Some(files.config.as_bytes()), None)?;
    let block_token_id = block_token(&config.model, &tokenizer)?;
    let model = DecoderConfig { block_token_id, ..config.model.clone() };
    let (examples, left_out) = tokenize(&training, &tokenizer, &template, &model)?;
    let (held_out, _) = tokenize(&validation, &tokenizer, &template, &model)?;
    if examples.is_empty() {
        return Err(Error::invalid("the dialogues give no example"));
    }
    for (name, own) in [("training", &examples), ("validation", &held_out)] {
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for example in own {
            for branch in &example.branches {
                *kinds.entry(format!("{}/{}", example.task.name(), branch.kind)).or_default() += 1;
            }
        }
        let tokens: usize = own.iter().map(Example::len).sum();
        info!(examples = own.len(), tokens, "{name}: {kinds:?}");
    }
    info!(left_out, seconds = started.elapsed().as_secs_f64(), "examples are ready");
    Ok((examples, held_out, NanoTokenizer { files, tokenizer, block_token_id }))
}

/// The token that ends the first block of a prompt, where the network reads blocks: a prompt's last
/// line is the second.
fn block_token(model: &DecoderConfig, tokenizer: &Tokenizer) -> Result<Option<u32>> {
    if model.family != Family::Bert {
        return Ok(None);
    }
    match tokenizer.encode("\n")?[..] {
        [id] => Ok(Some(id)),
        _ => Err(Error::internal("a line break is not one token")),
    }
}

/// The words that completions say and their prompts do not.
fn learn_lexicon<'a>(cases: impl Iterator<Item = &'a Case>) -> Lexicon {
    let pairs: Vec<(&str, Vec<String>)> = cases
        .map(|case| {
            let prompt = case.messages.last().map_or("", |message| &message.content);
            let completion: Value = serde_json::from_str(&case.completion).unwrap_or_default();
            let strings = ["text", "answer"].into_iter().map(|name| &completion[name]);
            let facts = completion["facts"].as_array().into_iter().flatten();
            (prompt, strings.chain(facts).filter_map(|text| text.as_str().map(str::to_owned)).collect())
        })
        .collect();
    Lexicon::learn(pairs.iter().flat_map(|(prompt, texts)| texts.iter().map(move |text| (*prompt, &**text))))
}

struct Run<'a> {
    config: &'a SftConfig,
    folder: RunFolder,
    trainer: Trainer,
    order: Order,
    examples: Vec<Example>,
    held_out: Vec<Example>,
    tokenizer: NanoTokenizer,
    eval: Option<(f64, f64)>,
}

/// What happened since the last line of metrics.
struct Window {
    since: Instant,
    steps: usize,
    tokens: usize,
    loss: f64,
    norm: f64,
    tasks: BTreeMap<&'static str, (f64, usize)>,
}

impl Window {
    fn new() -> Self {
        Self { since: Instant::now(), steps: 0, tokens: 0, loss: 0.0, norm: 0.0, tasks: BTreeMap::new() }
    }

    fn add(&mut self, report: &StepReport) {
        self.steps += 1;
        self.tokens += report.tokens;
        self.loss += report.tally.mean_loss();
        self.norm += report.grad_norm;
        for (name, loss) in report.tally.task_losses() {
            let own = self.tasks.entry(name).or_default();
            *own = (own.0 + loss, own.1 + 1);
        }
    }
}

impl Run<'_> {
    fn go(mut self, stop: &Cancel) -> Result<Outcome> {
        let last = self.config.max_steps;
        let bar = ProgressBar::new(last).with_position(self.trainer.state().step);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {eta} left") {
            bar.set_style(style);
        }
        let (started, before) = (Instant::now(), self.trainer.state().seconds);
        let (mut window, mut saved) = (Window::new(), None);
        while self.trainer.state().step < last {
            let step = self.trainer.state().step + 1;
            let batch = self.order.batch(step);
            let examples: Vec<&Example> = batch.iter().map(|&i| &self.examples[i]).collect();
            window.add(&self.trainer.step(&examples)?);
            self.trainer.state_mut().seconds = before + started.elapsed().as_secs_f64();
            bar.inc(1);
            if step.is_multiple_of(self.config.logging_steps) || step == last {
                let window = std::mem::replace(&mut window, Window::new());
                self.report(&bar, &window)?;
            }
            if step.is_multiple_of(self.config.eval_steps) || step == last {
                self.validate(&bar)?;
            }
            let timed_out = self.config.max_seconds.is_some_and(|most| started.elapsed().as_secs() >= most);
            let stopping = stop.check().is_err() || timed_out;
            if step.is_multiple_of(self.config.save_steps) || step == last || stopping {
                saved = Some(self.save()?);
            }
            if stopping && step < last {
                bar.abandon();
                info!(step, "stopped; --resume goes on from here");
                break;
            }
        }
        let step = self.trainer.state().step;
        let finished = step == last;
        let path = if finished {
            bar.finish();
            self.folder.save_model(
                self.trainer.layout(),
                &self.tokenizer.files,
                &self.trainer.state().parameters,
            )?
        } else {
            match saved {
                Some(path) => path,
                None => self.save()?,
            }
        };
        Ok(Outcome { step, finished, path, eval: self.eval })
    }

    fn save(&self) -> Result<PathBuf> {
        let keep = self.config.save_total_limit;
        self.folder.save(self.trainer.layout(), &self.tokenizer.files, self.trainer.state(), keep)
    }

    fn report(&self, bar: &ProgressBar, window: &Window) -> Result<()> {
        let state = self.trainer.state();
        let mean = |sum: f64| sum / window.steps.max(1) as f64;
        let speed = window.tokens as f64 / window.since.elapsed().as_secs_f64().max(1e-9);
        let left = state.seconds / state.step as f64 * (self.config.max_steps - state.step) as f64;
        let mut line = json!({
            "step": state.step,
            "loss": mean(window.loss),
            "grad_norm": mean(window.norm),
            "learning_rate": self.config.learning_rate_at(state.step),
            "num_tokens": state.tokens,
            "tokens_per_second": speed,
            "seconds": state.seconds,
        });
        for (name, (loss, count)) in &window.tasks {
            line[format!("loss/{name}")] = json!(loss / *count as f64);
        }
        self.folder.log("metrics.jsonl", &line)?;
        bar.set_message(format!("loss {:.3}, {speed:.0} tokens/s,", mean(window.loss)));
        bar.suspend(|| {
            info!(
                "step {}/{} loss {:.4} norm {:.2} {speed:.0} tokens/s, {:.0} s done, {left:.0} s left",
                state.step,
                self.config.max_steps,
                mean(window.loss),
                mean(window.norm),
                state.seconds,
            );
        });
        Ok(())
    }

    fn validate(&mut self, bar: &ProgressBar) -> Result<()> {
        if self.held_out.is_empty() {
            return Ok(());
        }
        let examples: Vec<&Example> = self.held_out.iter().collect();
        let mut predictions = Vec::new();
        let tally = self.trainer.evaluate(&examples, Some(&mut predictions))?;
        let step = self.trainer.state().step;
        self.folder.log("metrics.jsonl", &eval_line(step, &tally))?;
        for line in self.samples(&predictions)? {
            self.folder.log("samples.jsonl", &line)?;
        }
        self.eval = Some((tally.mean_loss(), tally.overall_exact()));
        let kinds: Vec<String> =
            tally.exact_match().map(|(name, share)| format!("{name} {share:.2}")).collect();
        let parts: Vec<String> =
            tally.part_accuracy().map(|(name, share)| format!("{name} {share:.3}")).collect();
        bar.suspend(|| {
            info!(
                "step {step} validation: loss {:.4}, exact {:.3}; {}; tokens {}",
                tally.mean_loss(),
                tally.overall_exact(),
                kinds.join(", "),
                parts.join(", "),
            );
        });
        Ok(())
    }

    /// Every so-manieth completion, other ones at every validation.
    fn samples(&self, predictions: &[Prediction]) -> Result<Vec<Value>> {
        let step = self.trainer.state().step;
        let stride = (predictions.len() / SAMPLES).max(1);
        let first = (step as usize / 7) % stride;
        let decode = |ids: &[u32]| self.tokenizer.tokenizer.decode(ids);
        predictions
            .iter()
            .skip(first)
            .step_by(stride)
            .map(|prediction| {
                let example = &self.held_out[prediction.example];
                let branch = &example.branches[prediction.branch];
                Ok(json!({
                    "step": step,
                    "task": example.task.name(),
                    "prompt": decode(&example.prompt(branch))?,
                    "expected": decode(branch.completion())?,
                    "predicted": decode(&prediction.ids)?,
                }))
            })
            .collect()
    }
}

fn eval_line(step: u64, tally: &Tally) -> Value {
    let mut line = Map::new();
    line.insert("step".into(), json!(step));
    line.insert("eval_loss".into(), json!(tally.mean_loss()));
    line.insert("eval_exact_match".into(), json!(tally.overall_exact()));
    line.extend(tally.task_losses().map(|(name, loss)| (format!("eval_loss/{name}"), json!(loss))));
    line.extend(tally.exact_match().map(|(name, share)| (format!("eval_exact_match/{name}"), json!(share))));
    line.extend(tally.part_accuracy().map(|(name, share)| (format!("eval_accuracy/{name}"), json!(share))));
    Value::Object(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Quantization;
    use crate::generation::{Grammar, PromptFamily};
    use crate::training::examples::{Source, Task};
    use crate::training::{Curriculum, EncoderConfig, FreeformConfig, LossWeights, TaskCounts};

    fn config(folder: &std::path::Path) -> SftConfig {
        let mut config = SftConfig::parse(include_str!("../../../configs/nano.toml")).unwrap();
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
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap())
            .collect()
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
        assert_eq!(steps(&whole), [2, 4, 4, 6, 8, 8]);
        assert_eq!(steps(&whole), steps(&halves));
        let metrics = std::fs::read_to_string(whole.join("metrics.jsonl")).unwrap();
        assert!(metrics.contains("eval_exact_match/extract/free/"), "{metrics}");

        let bundle = folder.path().join("bundle");
        let formats = (Quantization::Q4, Some(Quantization::Q8));
        crate::training::export(&config(&whole), "nano", formats, &straight.path, &bundle).unwrap();
        let mut files = crate::training::run_folder::read_files(&bundle).unwrap();
        let manifest = crate::checkpoint::verify(&files).unwrap().unwrap();
        assert!(
            files.contains_key("NOTICE")
                && files.contains_key("LICENSE-MIT")
                && manifest.training.commands.len() == 3
        );
        assert!(manifest.training.commands[2].ends_with("/bundle --quantize q4 --embedding q8"));
        files.get_mut("model.safetensors").unwrap()[1000] ^= 1;
        assert!(crate::checkpoint::verify(&files).is_err());
    }

    /// Prompts in two blocks through the whole run; what it writes is what a generator reads.
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
        let state = TrainerState { step: 0, tokens: 0, seconds: 0.0, parameters, moments };
        let mut trainer = Trainer::new(&config, layout, state, None);
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
            messages: crate::agents::answer_messages(
                PromptFamily::Compact,
                &[block],
                "What is the dog called?",
            ),
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
}
