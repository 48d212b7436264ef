//! The run from a configuration to a trained model.
//!
//! ```text
//! config.toml, metrics.jsonl, samples.jsonl, checkpoint-N/, model/, adapter/   as every run (crate::training::RunFolder)
//! timings.jsonl       what two runs of the same seed do not share
//! events.out.tfevents…    the metrics for TensorBoard, a file for every start
//! facts.json          what the extractor took out of every turn, once
//! served/             the adapter that a server plays, where one does
//! judge/              a judge's replies by the whole request, where one is asked
//! phase-0/            the model at the beginning of each phase: its reference, and a manager's answer agent
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tracing::{info, warn};

use super::actor::Actor;
use super::advantage::is_flat;
use super::config::{Agent, RlConfig};
use super::critic::Critic;
use super::environment::{Reading, Task};
use super::learner::{Learner, Rollout};
use super::metrics::{Metrics, sickness};
use super::play::Round;
use super::policy::{Policy, Shown};
use super::reward::Terms;
use super::served::Served;
use super::{grpo, ppo};
use crate::checkpoint::{self, Files};
use crate::datasets::{Dialogue, KnownFacts, TurnFacts, locomo, synthetic};
use crate::error::{Error, Result};
use crate::generation::{Cancel, Sampling};
use crate::random::{Random, keyed};
use crate::training::adapted::Adapted;
use crate::training::compute::{Compute, Cpu};
use crate::training::events::Events;
use crate::training::lora::LoraConfig;
use crate::training::optimizer::Moments;
use crate::training::run_folder::{RunFolder, TrainerState, read_files, read_model, write_atomically};

/// How many trajectories a report writes down.
const SAMPLES: usize = 3;
const FACTS: &str = "facts.json";
const REPLIES: &str = "judge";

/// Which algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Group relative policy optimisation.
    Grpo,
    /// Proximal policy optimisation.
    Ppo,
}

impl Method {
    /// As `memory-r1 train` calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Grpo => "grpo",
            Self::Ppo => "ppo",
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct RlOutcome {
    /// Steps done, over all resumes.
    pub step: u64,
    /// Whether these are all.
    pub finished: bool,
    /// The trained model where they are, else the last checkpoint.
    pub path: PathBuf,
    /// The last validation.
    pub eval: Option<Terms>,
}

/// Trains until the last phase's end, `max_seconds` or the caller's stop, whichever is first. At a stop there is a
/// checkpoint to resume from; the resumed run gives the same weights, bit for bit.
pub fn run(method: Method, config: &RlConfig, resume: bool, stop: &Cancel) -> Result<RlOutcome> {
    run_on(&Cpu, method, config, resume, stop)
}

/// [`run`] with the CPU or other devices; the bits are the CPU's alone.
pub fn run_on(
    compute: &dyn Compute,
    method: Method,
    config: &RlConfig,
    resume: bool,
    stop: &Cancel,
) -> Result<RlOutcome> {
    let open = if resume { Some(RunFolder::open(config)?) } else { None };
    let shown = Shown {
        manager_candidates: config.data.manager_candidates,
        candidates_per_speaker: config.data.candidates_per_speaker,
        prompt_family: config.prompt_family,
    };
    let (policy, parameters) = Policy::load(&config.model_name_or_path, shown)?;
    let files = read_files(&config.extractor_name_or_path)?;
    let extractor = checkpoint::extractor(&files)?.unwrap_or(files);
    let dialogues = dialogues(config)?;
    let networks = compute.networks(config.threads, &policy.layout, config.precision())?;
    // Everything that can be missing is there: only now is a folder taken.
    let folder = open.map_or_else(|| RunFolder::create(config), Ok)?;
    let saved = if resume { folder.load_latest(&policy.layout, config.lora.is_some())? } else { None };
    let adapted = |own: &LoraConfig| Adapted::new(&policy.layout, own, config.seed, parameters.clone());
    let mut adapted = config.lora.as_ref().map(adapted).transpose()?;
    let state = if let Some((state, _)) = saved {
        if let Some(begun) = state.more["method"].as_str().filter(|own| *own != method.name()) {
            return Err(Error::invalid(format!("{} is a run of {begun}", folder.path().display())));
        }
        if let Some(adapted) = &mut adapted {
            adapted.restore(&mut folder.load_more()?)?;
        }
        state
    } else {
        let moments = Moments::new(if adapted.is_some() { 0 } else { policy.layout.len() });
        TrainerState { step: 0, tokens: 0, seconds: 0.0, parameters, moments, more: Value::Null }
    };
    folder.rewind_logs()?;
    let learner = Learner::new(networks, config.micro_batch_tokens, config.temperature as f32);
    let (kl_weight, metrics) = (f64::from(config.ppo.kl_coef as f32), Metrics::of_json(&state.more["means"]));
    let events = Events::create(folder.path())?;
    let replies = folder.path().join(REPLIES);
    let served = config.vllm_server_base_url.as_deref().map(|url| Served::new(url, folder.path()));
    let mut run = Run {
        compute,
        method,
        config,
        folder,
        policy,
        extractor,
        dialogues,
        replies,
        served: served.transpose()?,
        learner,
        state,
        adapted,
        kl_weight,
        metrics,
        events,
        eval: None,
    };
    run.go(stop)
}

struct Run<'a> {
    compute: &'a dyn Compute,
    method: Method,
    config: &'a RlConfig,
    folder: RunFolder,
    policy: Policy,
    extractor: Files,
    dialogues: Vec<Dialogue>,
    /// Where a judge's replies are kept.
    replies: PathBuf,
    /// The server that plays.
    served: Option<Served>,
    learner: Learner,
    state: TrainerState,
    /// The adapter, where it alone learns.
    adapted: Option<Adapted>,
    kl_weight: f64,
    metrics: Metrics,
    events: Events,
    eval: Option<Terms>,
}

/// A phase that is under way.
struct Current {
    place: usize,
    agent: Agent,
    steps: u64,
    /// The weights at its beginning.
    reference: Vec<f32>,
    critic: Option<Critic>,
    tasks: Vec<Task>,
    held_out: Vec<Task>,
}

impl Run<'_> {
    fn go(&mut self, stop: &Cancel) -> Result<RlOutcome> {
        let (last, started, before) = (self.config.max_steps(), Instant::now(), self.state.seconds);
        let bar = ProgressBar::new(last).with_position(self.state.step);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {eta} left") {
            bar.set_style(style);
        }
        let mut current: Option<Current> = None;
        let mut saved = None;
        while let Some((place, step)) = self.config.phase_of(self.state.step + 1) {
            let mut phase = match current.take().filter(|own| own.place == place) {
                Some(own) => own,
                None => self.begin(place, step, stop)?,
            };
            if step == 1 {
                self.validate(&phase, stop)?;
            }
            let samples = self.step(&mut phase, step, stop)?;
            self.state.step += 1;
            self.state.seconds = before + started.elapsed().as_secs_f64();
            bar.inc(1);
            let ends = step == phase.steps;
            if self.state.step.is_multiple_of(self.config.logging_steps) || ends {
                self.report(&bar, &samples)?;
            }
            if self.state.step.is_multiple_of(self.config.eval_steps) || ends {
                self.validate(&phase, stop)?;
            }
            let timed_out = self.config.max_seconds.is_some_and(|most| started.elapsed().as_secs() >= most);
            let stopping = stop.check().is_err() || timed_out;
            if self.state.step.is_multiple_of(self.config.save_steps) || ends || stopping {
                saved = Some(self.save(&phase)?);
            }
            current = Some(phase);
            if stopping && self.state.step < last {
                bar.abandon();
                info!(step = self.state.step, "stopped; --resume goes on from here");
                break;
            }
        }
        let (step, finished) = (self.state.step, self.state.step == last);
        let path = if finished {
            bar.finish();
            if let Some(adapted) = &self.adapted {
                self.folder.save_adapter(&adapted.lora, &self.config.model_name_or_path)?;
            }
            self.save_model("model")?
        } else {
            saved.ok_or_else(|| Error::internal("a run stopped before it began"))?
        };
        Ok(RlOutcome { step, finished, path, eval: self.eval })
    }

    fn save_model(&self, name: &str) -> Result<PathBuf> {
        self.folder.save_model(name, &self.policy.layout, &self.policy.files, &self.state.parameters)
    }

    fn save(&mut self, phase: &Current) -> Result<PathBuf> {
        self.state.more = json!({ "method": self.method.name(), "means": self.metrics.to_json() });
        let weight = [self.kl_weight as f32];
        let mut more: Vec<(&str, &[f32])> = Vec::new();
        if let Some(critic) = &phase.critic {
            more.extend(critic.parts());
            more.push(("kl_weight", &weight));
        }
        more.extend(self.adapted.iter().flat_map(Adapted::parts));
        let (layout, files) = (&self.policy.layout, &self.policy.files);
        self.folder.save(layout, files, &self.state, &more, self.config.save_total_limit)
    }

    /// Takes up a phase at its `step`-th step.
    fn begin(&mut self, place: usize, step: u64, stop: &Cancel) -> Result<Current> {
        let own = self.config.phases[place];
        let name = format!("phase-{place}");
        let (reference, critic) = if step == 1 {
            self.save_model(&name)?;
            match &mut self.adapted {
                Some(adapted) => adapted.forget(),
                None => self.state.moments = Moments::new(self.policy.layout.len()),
            }
            self.kl_weight = f64::from(self.config.ppo.kl_coef as f32);
            let critic = (self.method == Method::Ppo)
                .then(|| Critic::new(&self.policy.layout, &self.state.parameters));
            (self.state.parameters.clone(), critic)
        } else {
            let reference = read_model(&self.folder.path().join(&name), &self.policy.layout)?;
            let critic = if self.method == Method::Ppo {
                let mut parts = self.folder.load_more()?;
                if let Some(&[weight]) = parts.remove("kl_weight").as_deref() {
                    self.kl_weight = f64::from(weight);
                }
                Some(Critic::of_parts(parts)?)
            } else {
                None
            };
            (reference, critic)
        };
        let readings = self.read(&reference, stop)?;
        let (training, validation) = readings.split_at(self.config.data.dialogues.min(readings.len()));
        let tasks = self.tasks(own.agent, training)?;
        let mut held_out = self.tasks(own.agent, validation)?;
        Random::new(self.config.seed, &[0xe7a1, place as u64]).shuffle(&mut held_out);
        held_out.truncate(self.config.data.eval_tasks);
        if tasks.is_empty() {
            return Err(Error::invalid("the conversations give nothing to decide"));
        }
        info!(tasks = tasks.len(), held_out = held_out.len(), "phase {place}: {:?} learns", own.agent);
        Ok(Current { place, agent: own.agent, steps: own.max_steps, reference, critic, tasks, held_out })
    }

    fn round<'b>(
        &'b self,
        parameters: &'b [f32],
        frozen: &'b [f32],
        sampling: Sampling,
        count: usize,
        stop: &'b Cancel,
    ) -> Round<'b> {
        let (compute, threads) = (self.compute, self.config.threads);
        let judge = self.config.judge.as_deref().map(|address| (address, &*self.replies));
        let (constrained, served, policy) = (self.config.constrained, self.served.as_ref(), &self.policy);
        Round {
            compute,
            policy,
            parameters,
            frozen,
            sampling,
            count,
            threads,
            constrained,
            served,
            judge,
            stop,
        }
    }

    /// Reads all conversations with these weights. Facts are taken out of them once in a run.
    fn read(&self, parameters: &[f32], stop: &Cancel) -> Result<Vec<Reading>> {
        let started = Instant::now();
        let path = self.folder.path().join(FACTS);
        let known = if path.exists() { Some(&path) } else { self.config.data.facts.as_ref() };
        let known = known.map(|path| KnownFacts::read(path)).transpose()?;
        let bar = ProgressBar::new(self.dialogues.len() as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} conversations read, {eta} left")
        {
            bar.set_style(style);
        }
        let sampling = Sampling { seed: self.config.seed, ..Sampling::default() };
        let round = self.round(parameters, parameters, sampling, 1, stop);
        let readings = round.read(&self.extractor, &self.dialogues, known.as_ref(), &|| bar.inc(1))?;
        bar.finish_and_clear();
        if !path.exists() {
            let facts: BTreeMap<&str, &TurnFacts> = readings.iter().map(Reading::facts).collect();
            write_atomically(&path, json!(facts).to_string().as_bytes())?;
        }
        let seconds = started.elapsed().as_secs_f64();
        info!(conversations = readings.len(), seconds, "conversations are read");
        Ok(readings)
    }

    fn tasks(&self, agent: Agent, readings: &[Reading]) -> Result<Vec<Task>> {
        let retriever = self.policy.retriever()?;
        let data = &self.config.data;
        let mut random = Random::new(data.seed, &[0x0a5e]);
        let mut tasks = Vec::new();
        for reading in readings {
            match agent {
                Agent::Manager => {
                    tasks.extend(reading.manager_tasks(data.window_turns, data.earlier_questions)?);
                }
                Agent::Answer => {
                    let keep = || random.chance(data.unanswerable);
                    tasks.extend(reading.answer_tasks(&retriever, data.candidates_per_speaker, keep));
                }
            }
        }
        Ok(tasks)
    }

    /// Plays and learns once; a few trajectories for the log.
    fn step(&mut self, phase: &mut Current, step: u64, stop: &Cancel) -> Result<Vec<Value>> {
        let started = Instant::now();
        let config = self.config;
        let groups = self.play(phase, step, stop)?;
        let playing = started.elapsed().as_secs_f64();
        let samples: Vec<Value> =
            groups.iter().take(SAMPLES).filter_map(|own| own.first()).map(sample).collect();
        let tokens: usize = groups.iter().flatten().map(|own| own.trajectory.chosen()).sum();
        self.state.tokens += tokens as u64;
        let rate = config.lr_scheduler_type.at(step, phase.steps, config.warmup_ratio);
        let learning_rate = config.learning_rate * rate;
        self.metrics.add("learning_rate", learning_rate);
        let mut actor = Actor {
            layout: &self.policy.layout,
            parameters: &mut self.state.parameters,
            moments: &mut self.state.moments,
            adapted: self.adapted.as_mut(),
            reference: &phase.reference,
            learning_rate: learning_rate as f32,
            key: keyed(config.seed, &[0xd709, phase.place as u64]),
        };
        match &mut phase.critic {
            None => {
                let first = (step - 1) * config.grpo.num_iterations as u64 + 1;
                grpo::learn(config, &mut self.learner, &mut actor, groups, first, &mut self.metrics)?;
            }
            Some(critic) => {
                let now = (phase.place, step);
                self.kl_weight = ppo::learn(
                    config,
                    &mut self.learner,
                    &mut actor,
                    critic,
                    groups,
                    now,
                    self.kl_weight,
                    &mut self.metrics,
                )?;
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let line = json!({
            "step": self.state.step + 1,
            "seconds": seconds,
            "playing": playing,
            "tokens_per_second": tokens as f64 / seconds,
        });
        self.folder.log("timings.jsonl", &line)?;
        Ok(samples)
    }

    /// Tells the server that plays the adapter as it is now.
    fn publish(&mut self, stop: &Cancel) -> Result<()> {
        match (&mut self.served, &self.adapted) {
            (Some(served), Some(Adapted { lora, .. })) => {
                served.publish(lora, &self.config.model_name_or_path.display().to_string(), stop)
            }
            _ => Ok(()),
        }
    }

    /// The groups to learn from, all of them of `num_generations` rollouts.
    fn play(&mut self, phase: &Current, step: u64, stop: &Cancel) -> Result<Vec<Vec<Rollout>>> {
        let config = self.config;
        let wanted = config.generation_batch_size / config.num_generations;
        let rounds = if self.method == Method::Grpo { config.grpo.dynamic_sampling_rounds as u64 } else { 0 };
        let (mut kept, mut spare) = (Vec::new(), Vec::new());
        self.publish(stop)?;
        for round in 0..=rounds {
            let chosen = deal(config.seed, [phase.place as u64, round], step, wanted, phase.tasks.len());
            let tasks: Vec<&Task> = chosen.iter().map(|task| &phase.tasks[*task]).collect();
            let key = [self.state.step + 1, 0, round << 32];
            let sampling = Sampling {
                temperature: config.temperature as f32,
                seed: config.seed,
                key,
                ..Sampling::default()
            };
            let count = config.num_generations;
            let groups = self
                .round(&self.state.parameters, &phase.reference, sampling, count, stop)
                .play(&tasks, true)?;
            self.metrics.played(&groups, &config.reward);
            for group in groups {
                let rewards: Vec<f64> =
                    group.iter().map(|own| config.reward.of(own.trajectory.terms)).collect();
                if rounds > 0 && is_flat(&rewards) { spare.push(group) } else { kept.push(group) }
            }
            if kept.len() >= wanted {
                break;
            }
        }
        kept.extend(spare);
        kept.truncate(wanted);
        Ok(kept)
    }

    /// A line of metrics, and its curves.
    fn log(&mut self, line: Map<String, Value>) -> Result<()> {
        let line = Value::Object(line);
        self.events.line(&line)?;
        self.folder.log("metrics.jsonl", &line)
    }

    fn report(&mut self, bar: &ProgressBar, samples: &[Value]) -> Result<()> {
        let step = self.state.step;
        let means = self.metrics.take();
        let of = |name: &str| means.get(name).copied().unwrap_or_default();
        let message = format!("reward {:.3} entropy {:.3}", of("reward"), of("entropy"));
        bar.set_message(message.clone());
        let left = self.state.seconds / step as f64 * (self.config.max_steps() - step) as f64;
        info!("step {step}/{} {message}, {left:.0} s left", self.config.max_steps());
        for sick in sickness(&means) {
            warn!("step {step}: {sick}");
        }
        let mut line = Map::from_iter([("step".to_owned(), json!(step))]);
        line.insert("num_tokens".to_owned(), json!(self.state.tokens));
        line.extend(means.into_iter().map(|(name, mean)| (name, json!(mean))));
        self.log(line)?;
        for sample in samples {
            let mut line = sample.clone();
            line["step"] = json!(step);
            self.folder.log("samples.jsonl", &line)?;
        }
        Ok(())
    }

    /// Plays the held-out tasks greedily.
    fn validate(&mut self, phase: &Current, stop: &Cancel) -> Result<()> {
        if phase.held_out.is_empty() {
            return Ok(());
        }
        let step = self.state.step;
        self.publish(stop)?;
        let tasks: Vec<&Task> = phase.held_out.iter().collect();
        let sampling = Sampling { seed: self.config.seed, ..Sampling::default() };
        let groups =
            self.round(&self.state.parameters, &phase.reference, sampling, 1, stop).play(&tasks, false)?;
        let mut metrics = Metrics::default();
        metrics.played(&groups, &self.config.reward);
        let terms: Vec<Terms> = groups.iter().flatten().map(|own| own.trajectory.terms).collect();
        let found = Terms::mean(&terms);
        self.eval = Some(found);
        let mut line =
            Map::from_iter([("step".to_owned(), json!(step)), ("eval_agent".to_owned(), json!(phase.agent))]);
        let kept = |name: &str| !name.starts_with("frac_") && !name.ends_with("_std");
        let means = metrics.take().into_iter().filter(|(name, _)| kept(name));
        line.extend(means.map(|(name, mean)| (format!("eval_{name}"), json!(mean))));
        self.log(line)?;
        info!("step {step} validation: F1 {:.3}, exact match {:.3}", found.f1, found.exact_match);
        Ok(())
    }
}

/// A trajectory as a line of the log.
fn sample(rollout: &Rollout) -> Value {
    let own = &rollout.trajectory;
    let last = own.segments.last();
    json!({
        "prompt": last.and_then(|segment| segment.request.messages.last()).map(|message| &message.content),
        "completions": own.segments.iter().map(|segment| &segment.generation.text).collect::<Vec<_>>(),
        "operations": own.operations,
        "answer": own.answer,
        "exact_match": own.terms.exact_match,
        "f1": own.terms.f1,
    })
}

/// The tasks of a step: turns over shuffled epochs, a function of the step alone.
fn deal(seed: u64, [phase, round]: [u64; 2], step: u64, count: usize, all: usize) -> Vec<usize> {
    let mut shuffled: Option<(u64, Vec<usize>)> = None;
    let first = (step - 1) * count as u64;
    let place = |slot: u64| {
        let (epoch, place) = (slot / all as u64, slot % all as u64);
        if shuffled.as_ref().is_none_or(|(own, _)| *own != epoch) {
            let mut order: Vec<usize> = (0..all).collect();
            Random::new(seed, &[0x7a5c, phase, round, epoch]).shuffle(&mut order);
            shuffled = Some((epoch, order));
        }
        shuffled.as_ref().map_or(0, |(_, order)| order[place as usize])
    };
    (first..first + count as u64).map(place).collect()
}

/// The conversations of a run: those to learn from, then those to validate on.
fn dialogues(config: &RlConfig) -> Result<Vec<Dialogue>> {
    let data = &config.data;
    let count = data.dialogues + data.eval_dialogues;
    if let Some(path) = &data.locomo {
        let file = locomo::Dataset::load(path)?;
        return Ok(file.samples.iter().take(count).map(Dialogue::from).collect());
    }
    let options = synthetic::Options::default();
    let made = synthetic::generate(data.seed, count, synthetic::Split::Train, options);
    Ok(made.iter().map(|own| Dialogue::from(&own.sample)).collect())
}
