//! Supervised fine-tuning: the run from a configuration to a trained model.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tracing::info;

use super::adapted::Adapted;
use super::bpe::TokenizerFiles;
use super::compute::{Compute, Cpu};
use super::config::{EncoderConfig, SftConfig};
use super::dialogue_cases::cases;
use super::encoder::Encoder;
use super::events::Events;
use super::examples::{Case, Example, tokenize};
use super::freeform;
use super::means::Means;
use super::network::Layout;
use super::optimizer::Moments;
use super::order::Order;
use super::run_folder::{RunFolder, TrainerState, read_model};
use super::start::read_start;
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
/// Where a run that may stop early keeps its best model.
const BEST: &str = "best";
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
    run_on(&Cpu, config, resume, stop)
}

/// [`run`] with the CPU or other devices; the bits are the CPU's alone.
pub fn run_on(compute: &dyn Compute, config: &SftConfig, resume: bool, stop: &Cancel) -> Result<Outcome> {
    let mut layout = Layout::new(config.model.clone())?;
    let open = if resume { Some(RunFolder::open(config)?) } else { None };
    let saved =
        open.as_ref().map(|folder| folder.load_latest(&layout, config.lora.is_some())).transpose()?.flatten();
    let adapted = config.lora.as_ref().zip(config.model_name_or_path.as_deref());
    let adapted = adapted.map(|(own, base)| -> Result<Adapted> {
        let mut adapted = Adapted::new(&layout, own, config.seed, read_start(base, &layout)?)?;
        if let Some(folder) = open.as_ref().filter(|_| saved.is_some()) {
            adapted.restore(&mut folder.load_more()?)?;
        }
        Ok(adapted)
    });
    let adapted = adapted.transpose()?;
    let start = config.model_name_or_path.as_deref().filter(|_| saved.is_none());
    let encoder = config.encoder.as_ref().filter(|_| saved.is_none() && start.is_none());
    let encoder = encoder.map(|own| Encoder::load(&own.folder).map(|found| (own, found))).transpose()?;
    let words: Vec<&str> = encoder.iter().flat_map(|(own, encoder)| encoder.words(own.words)).collect();
    let files = match (&saved, start.or(config.tokenizer_name_or_path.as_deref())) {
        (Some((_, files)), _) => Some(files.clone()),
        (None, Some(folder)) => Some(TokenizerFiles::load(folder)?),
        (None, None) => None,
    };
    let networks = compute.networks(config.threads, &layout, config.precision())?;
    // Everything that can be missing is there: only now is a folder taken.
    let folder = open.map_or_else(|| RunFolder::create(config), Ok)?;
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
        let moments = Moments::new(if adapted.is_some() { 0 } else { layout.len() });
        TrainerState { step: 0, tokens: 0, seconds: 0.0, parameters, moments, more: Value::Null }
    };
    folder.rewind_logs()?;
    info!(step = state.step, parameters = layout.len(), "training in {}", folder.path().display());
    let order = Order::new(config, &examples);
    let rates = config.encoder.as_ref().map(|own| row_rates(own, &tokenizer.tokenizer)).transpose()?;
    let trainer = Trainer::new(config, networks, layout, state, rates).adapted(adapted);
    let events = Events::create(folder.path())?;
    Run { config, folder, trainer, order, examples, held_out, tokenizer, events, eval: None }.go(stop)
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
    events: Events,
    eval: Option<(f64, f64)>,
}

/// What happened since the last line of metrics.
struct Window {
    /// Of this process.
    since: Instant,
    tokens: usize,
    means: Means,
}

impl Window {
    fn new(means: Means) -> Self {
        Self { since: Instant::now(), tokens: 0, means }
    }

    fn add(&mut self, report: &StepReport) {
        self.tokens += report.tokens;
        self.means.add("loss", report.tally.mean_loss());
        self.means.add("grad_norm", report.grad_norm);
        for (name, loss) in report.tally.task_losses() {
            self.means.add(&format!("loss/{name}"), loss);
        }
    }
}

/// The lowest loss of a validation, bit for bit, and how many there were since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Best {
    loss: Option<u64>,
    since: u64,
}

/// What a checkpoint keeps beside weights and moments.
fn kept(more: &Value) -> (Means, Best) {
    (Means::of_json(&more["means"]), serde_json::from_value(more["best"].clone()).unwrap_or_default())
}

impl Run<'_> {
    fn go(mut self, stop: &Cancel) -> Result<Outcome> {
        let last = self.config.max_steps;
        let bar = ProgressBar::new(last).with_position(self.trainer.state().step);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {eta} left") {
            bar.set_style(style);
        }
        let (started, before) = (Instant::now(), self.trainer.state().seconds);
        let (unreported, mut best) = kept(&self.trainer.state().more);
        let (mut window, mut saved) = (Window::new(unreported), None);
        let is_tired =
            |best: &Best| self.config.early_stopping_patience.is_some_and(|most| best.since >= most);
        while self.trainer.state().step < last && !is_tired(&best) {
            let step = self.trainer.state().step + 1;
            let batch = self.order.batch(step);
            let examples: Vec<&Example> = batch.iter().map(|&i| &self.examples[i]).collect();
            window.add(&self.trainer.step(&examples)?);
            self.trainer.state_mut().seconds = before + started.elapsed().as_secs_f64();
            bar.inc(1);
            if step.is_multiple_of(self.config.logging_steps) {
                let window = std::mem::replace(&mut window, Window::new(Means::default()));
                self.report(&bar, window)?;
            }
            if step.is_multiple_of(self.config.eval_steps) || step == last {
                self.validate(&bar)?;
                self.note(&mut best)?;
            }
            let ends = step == last || is_tired(&best);
            if ends && !window.means.is_empty() {
                let window = std::mem::replace(&mut window, Window::new(Means::default()));
                self.report(&bar, window)?;
            }
            let timed_out = self.config.max_seconds.is_some_and(|most| started.elapsed().as_secs() >= most);
            let stopping = stop.check().is_err() || timed_out;
            if step.is_multiple_of(self.config.save_steps) || ends || stopping {
                self.trainer.state_mut().more = json!({ "means": window.means.to_json(), "best": best });
                saved = Some(self.save()?);
            }
            if stopping && !ends {
                bar.abandon();
                info!(step, "stopped; --resume goes on from here");
                break;
            }
        }
        let step = self.trainer.state().step;
        let finished = step == last || is_tired(&best);
        let path = if finished {
            bar.finish();
            if is_tired(&best) {
                info!(step, "stopped early: the validation's loss fell no more");
            }
            let layout = self.trainer.layout();
            if self.config.early_stopping_patience.is_some() && self.folder.path().join(BEST).exists() {
                let best = read_model(&self.folder.path().join(BEST), layout)?;
                self.folder.save_model("model", layout, &self.tokenizer.files, &best)?
            } else {
                self.save_adapter()?;
                self.save_model("model")?
            }
        } else {
            match saved {
                Some(path) => path,
                None => self.save()?,
            }
        };
        Ok(Outcome { step, finished, path, eval: self.eval })
    }

    /// Keeps the model where the last validation was the best, if the run may stop early.
    fn note(&self, best: &mut Best) -> Result<()> {
        let Some((loss, _)) = self.eval.filter(|_| self.config.early_stopping_patience.is_some()) else {
            return Ok(());
        };
        if best.loss.is_none_or(|bits| loss < f64::from_bits(bits)) {
            *best = Best { loss: Some(loss.to_bits()), since: 0 };
            self.save_adapter()?;
            self.save_model(BEST)?;
        } else {
            best.since += 1;
        }
        Ok(())
    }

    fn save_model(&self, name: &str) -> Result<PathBuf> {
        let parameters = &self.trainer.state().parameters;
        self.folder.save_model(name, self.trainer.layout(), &self.tokenizer.files, parameters)
    }

    /// Writes the adapter, where one is trained, as a folder that PEFT loads.
    fn save_adapter(&self) -> Result<()> {
        match (self.trainer.adapter(), &self.config.model_name_or_path) {
            (Some(adapted), Some(base)) => self.folder.save_adapter(&adapted.lora, base),
            _ => Ok(()),
        }
    }

    fn save(&self) -> Result<PathBuf> {
        let (keep, trainer) = (self.config.save_total_limit, &self.trainer);
        let more: Vec<_> = trainer.adapter().into_iter().flat_map(Adapted::parts).collect();
        self.folder.save(trainer.layout(), &self.tokenizer.files, trainer.state(), &more, keep)
    }

    fn report(&mut self, bar: &ProgressBar, mut window: Window) -> Result<()> {
        let state = self.trainer.state();
        let speed = window.tokens as f64 / window.since.elapsed().as_secs_f64().max(1e-9);
        let left = state.seconds / state.step as f64 * (self.config.max_steps - state.step) as f64;
        let mut line = json!({
            "step": state.step,
            "learning_rate": self.config.learning_rate_at(state.step),
            "num_tokens": state.tokens,
            "tokens_per_second": speed,
            "seconds": state.seconds,
        });
        let means = window.means.take();
        let (loss, norm) = (means["loss"], means["grad_norm"]);
        for (name, mean) in means {
            line[name] = json!(mean);
        }
        self.events.line(&line)?;
        self.folder.log("metrics.jsonl", &line)?;
        bar.set_message(format!("loss {loss:.3}, {speed:.0} tokens/s,"));
        bar.suspend(|| {
            info!(
                "step {}/{} loss {loss:.4} norm {norm:.2} {speed:.0} tokens/s, {:.0} s done, {left:.0} s left",
                state.step,
                self.config.max_steps,
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
        let line = eval_line(step, &tally);
        self.events.line(&line)?;
        self.folder.log("metrics.jsonl", &line)?;
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
pub(super) mod tests;
