//! One step of training and one validation, on several workers.

use std::collections::BTreeMap;

use super::adapted::Adapted;
use super::config::{LossWeights, SftConfig};
use super::examples::{Branch, Example, Task};
use super::network::{Adapter, Batch, Dropout, Layout, Learns, Network, Target};
use super::optimizer::{Step, clip_scale};
use super::run_folder::TrainerState;
use crate::error::{Error, Result};
use crate::generation::Part;
use crate::random::keyed;

/// Sums over targets and examples, and what becomes of them.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    loss: f64,
    weight: f64,
    tasks: BTreeMap<&'static str, (f64, f64)>,
    exact: BTreeMap<String, (usize, usize)>,
    parts: BTreeMap<&'static str, (usize, usize)>,
}

impl Tally {
    fn merge(&mut self, other: Self) {
        self.loss += other.loss;
        self.weight += other.weight;
        for (name, (loss, weight)) in other.tasks {
            let own = self.tasks.entry(name).or_default();
            *own = (own.0 + loss, own.1 + weight);
        }
        for (name, (right, all)) in other.exact {
            let own = self.exact.entry(name).or_default();
            *own = (own.0 + right, own.1 + all);
        }
        for (name, (right, all)) in other.parts {
            let own = self.parts.entry(name).or_default();
            *own = (own.0 + right, own.1 + all);
        }
    }

    /// The weighted mean loss.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.weight.max(f64::MIN_POSITIVE)
    }

    /// The mean loss of each task's completions.
    pub fn task_losses(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        self.tasks.iter().map(|(name, (loss, weight))| (*name, loss / weight.max(f64::MIN_POSITIVE)))
    }

    /// The share of examples all of whose choices were the most probable ones, by kind.
    pub fn exact_match(&self) -> impl Iterator<Item = (&str, f64)> + '_ {
        self.exact.iter().map(|(name, (right, all))| (name.as_str(), *right as f64 / *all as f64))
    }

    /// The share of right tokens, by what they spell.
    pub fn part_accuracy(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        self.parts.iter().map(|(name, (right, all))| (*name, *right as f64 / *all as f64))
    }

    /// The share of exact examples over everything.
    pub fn overall_exact(&self) -> f64 {
        let total = self.exact.values().fold((0, 0), |sum, own| (sum.0 + own.0, sum.1 + own.1));
        total.0 as f64 / total.1.max(1) as f64
    }

    /// Adds what targets cost; the last ones are a branch's choices, where one is given.
    fn count(
        &mut self,
        task: Task,
        branch: Option<&Branch>,
        targets: &[Target],
        logprobs: &[f32],
        predicted: &[u32],
    ) {
        let prompt = targets.len() - branch.map_or(0, |branch| branch.chosen().count());
        let own = self.tasks.entry(task.name()).or_default();
        let mut exact = true;
        for (i, target) in targets.iter().enumerate() {
            let loss = -f64::from(logprobs[i]) * f64::from(target.weight);
            self.loss += loss;
            self.weight += f64::from(target.weight);
            if i >= prompt {
                *own = (own.0 + loss, own.1 + f64::from(target.weight));
                exact &= predicted[i] == target.token;
            }
        }
        let Some(branch) = branch else { return };
        let kind = self.exact.entry(format!("{}/{}", task.name(), branch.kind)).or_default();
        *kind = (kind.0 + usize::from(exact), kind.1 + 1);
        for (part, i) in branch.chosen().zip(prompt..) {
            let own = self.parts.entry(part_name(part)).or_default();
            *own = (own.0 + usize::from(predicted[i] == targets[i].token), own.1 + 1);
        }
    }
}

fn part_name(part: Part) -> &'static str {
    match part {
        Part::Forced => "forced",
        Part::Event => "event",
        Part::Id => "id",
        Part::Text => "text",
    }
}

/// What one step did.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Losses before the step.
    pub tally: Tally,
    /// The gradient's length before it was clipped.
    pub grad_norm: f64,
    /// Tokens that went through the network.
    pub tokens: usize,
}

/// What tells the seed of what is dropped from the run's others.
const DROPOUT: u64 = 0xd409;

struct Worker {
    network: Box<dyn Network>,
    batch: Batch,
    gradient: Vec<f32>,
}

/// A completion as the model would choose it with the right tokens before each choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// The example's place.
    pub example: usize,
    /// The branch's place in it.
    pub branch: usize,
    /// The completion, the model's choices in the places of the right ones.
    pub ids: Vec<u32>,
}

/// The network, its optimiser and the threads that run it.
pub struct Trainer {
    layout: Layout,
    config: SftConfig,
    state: TrainerState,
    workers: Vec<Worker>,
    /// The learning rate of each token's row, in learning rates; none where all rows move always.
    row_rates: Option<Vec<f32>>,
    /// The adapter, where it alone learns.
    adapted: Option<Adapted>,
}

impl Trainer {
    /// Goes on from a state, with a worker for each network. Where `row_rates` are given, the embedding's rows move
    /// where they are read or wanted, each at its own rate.
    pub fn new(
        config: &SftConfig,
        networks: Vec<Box<dyn Network>>,
        layout: Layout,
        state: TrainerState,
        row_rates: Option<Vec<f32>>,
    ) -> Self {
        let worker = |network| Worker { network, batch: Batch::default(), gradient: Vec::new() };
        let workers = networks.into_iter().map(worker).collect();
        Self { layout, config: config.clone(), state, workers, row_rates, adapted: None }
    }

    /// The same, of which only an adapter learns: AdamW moves its factors.
    #[must_use]
    pub(super) fn adapted(mut self, adapted: Option<Adapted>) -> Self {
        self.adapted = adapted;
        self
    }

    /// The adapter that learns, where one does.
    pub(super) fn adapter(&self) -> Option<&Adapted> {
        self.adapted.as_ref()
    }

    /// The state between steps.
    pub fn state(&self) -> &TrainerState {
        &self.state
    }

    /// The state, to note the time in it.
    pub fn state_mut(&mut self) -> &mut TrainerState {
        &mut self.state
    }

    /// Where the parameters lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// One step on one batch.
    pub fn step(&mut self, examples: &[&Example]) -> Result<StepReport> {
        let weights = self.config.loss;
        let total: f64 = examples.iter().flat_map(|e| e.targets(&weights)).map(|t| f64::from(t.weight)).sum();
        if total <= 0.0 {
            return Err(Error::internal("a batch without a target"));
        }
        let tally = self.pass(examples, &weights, Some(total), None)?;
        let norm = self.reduce();
        if !norm.is_finite() || !tally.mean_loss().is_finite() {
            return Err(Error::invalid(format!(
                "step {}: the loss is {} and the gradient's norm {norm}; lower learning_rate",
                self.state.step + 1,
                tally.mean_loss(),
            )));
        }
        self.state.step += 1;
        let tokens: usize = examples.iter().map(|example| example.len()).sum();
        self.state.tokens += tokens as u64;
        let scale = clip_scale(norm, self.config.max_grad_norm);
        let rate = self.config.learning_rate_at(self.state.step) as f32;
        let (state, gradient) = (&mut self.state, &self.workers[0].gradient);
        let optimizer = self.config.optimizer();
        if let Some(adapted) = &mut self.adapted {
            adapted.step(&mut state.parameters, gradient, &optimizer.adamw, state.step, (rate, scale));
            return Ok(StepReport { tally, grad_norm: norm, tokens });
        }
        let rows = self.row_rates.as_ref().map(|rates| touched(examples, rates));
        optimizer.step(Step {
            layout: &self.layout,
            parameters: &mut state.parameters,
            gradient,
            moments: &mut state.moments,
            number: state.step,
            learning_rate: rate,
            scale,
            rows: rows.as_deref(),
        });
        Ok(StepReport { tally, grad_norm: norm, tokens })
    }

    /// Losses and exact matches without learning; fills `predictions` where asked.
    pub fn evaluate(
        &mut self,
        examples: &[&Example],
        predictions: Option<&mut Vec<Prediction>>,
    ) -> Result<Tally> {
        let weights = LossWeights { prompt: 0.0, ..LossWeights::default() };
        self.pass(examples, &weights, None, predictions)
    }

    /// Divides the examples among the workers: the longest first, each to who has least.
    fn shares(&self, examples: &[&Example]) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..examples.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(examples[i].len()));
        let mut shares = vec![(0usize, Vec::new()); self.workers.len()];
        for i in order {
            if let Some(share) = shares.iter_mut().min_by_key(|share| share.0) {
                share.0 += examples[i].len();
                share.1.push(i);
            }
        }
        shares.into_iter().map(|(_, share)| share).collect()
    }

    /// Forward, and backward where `total` is given, over all examples.
    fn pass(
        &mut self,
        examples: &[&Example],
        weights: &LossWeights,
        total: Option<f64>,
        predictions: Option<&mut Vec<Prediction>>,
    ) -> Result<Tally> {
        let shares = self.shares(examples);
        let (layout, most) = (&self.layout, self.config.micro_batch_tokens);
        let key = keyed(self.config.seed, &[DROPOUT, self.state.step]);
        let rate = self.config.dropout as f32;
        let dropout = total.filter(|_| rate > 0.0).map(|_| Dropout { rate, key });
        let adapter = total.and(self.adapted.as_ref()).map(|own| own.lora.adapter(key));
        let (adapter, parameters) = (adapter.as_ref(), &self.state.parameters[..]);
        let results: Vec<Result<(Tally, Vec<Prediction>)>> = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .workers
                .iter_mut()
                .zip(&shares)
                .map(|(worker, share)| {
                    scope.spawn(move || {
                        let dropped = (dropout, adapter);
                        worker.run(layout, parameters, examples, share, weights, total, most, dropped)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or_else(|_| Err(Error::internal("a training thread failed")))
                })
                .collect()
        });
        let (mut tally, mut found) = (Tally::default(), Vec::new());
        for result in results {
            let (own, predicted) = result?;
            tally.merge(own);
            found.extend(predicted);
        }
        if let Some(predictions) = predictions {
            found.sort_by_key(|prediction| (prediction.example, prediction.branch));
            *predictions = found;
        }
        Ok(tally)
    }

    /// Sums the workers' gradients into the first one's, in order, and returns its length.
    fn reduce(&mut self) -> f64 {
        if let [first, rest @ ..] = &mut self.workers[..] {
            for other in rest {
                first.gradient.iter_mut().zip(&other.gradient).for_each(|(sum, own)| *sum += own);
            }
            // Partial sums in f32 of short chunks, then in f64.
            let chunk = |values: &[f32]| f64::from(values.iter().map(|value| value * value).sum::<f32>());
            return first.gradient.chunks(256).map(chunk).sum::<f64>().sqrt();
        }
        0.0
    }
}

impl Worker {
    #[allow(clippy::too_many_arguments)]
    fn run(
        &mut self,
        layout: &Layout,
        parameters: &[f32],
        examples: &[&Example],
        share: &[usize],
        weights: &LossWeights,
        total: Option<f64>,
        most: usize,
        (dropout, adapter): (Option<Dropout>, Option<&Adapter>),
    ) -> Result<(Tally, Vec<Prediction>)> {
        let (mut tally, mut predictions) = (Tally::default(), Vec::new());
        self.gradient.clear();
        if total.is_some() {
            self.gradient.resize(adapter.map_or(layout.len(), |own| own.factors.len()), 0.0);
        }
        if share.is_empty() {
            return Ok((tally, predictions));
        }
        let learns = match total {
            Some(_) => Learns::new(adapter, &mut self.gradient),
            None => Learns::Nothing,
        };
        let mut pass = self.network.pass(layout, parameters, learns)?;
        let mut rest = share;
        while !rest.is_empty() {
            self.batch.clear();
            let mut taken = 0;
            while let Some(&i) = rest.get(taken) {
                let example = examples[i];
                if taken > 0 && self.batch.tokens.len() + example.len() > most {
                    break;
                }
                self.batch.push_tree(&example.inputs(), example.tree(), example.targets(weights));
                taken += 1;
            }
            // Each example is in one batch only, so its place tells the batches of a step apart.
            self.batch.dropout = dropout.map(|own| Dropout { key: keyed(own.key, &[rest[0] as u64]), ..own });
            self.batch.adapter = adapter.and_then(|own| own.dropping(&[rest[0] as u64]));
            let losses = pass.forward(&self.batch)?;
            if let Some(total) = total {
                let scale = 1.0 / total;
                let coefficients: Vec<f32> = self
                    .batch
                    .targets
                    .iter()
                    .map(|target| (f64::from(target.weight) * scale) as f32)
                    .collect();
                pass.backward(&self.batch, &coefficients, &[])?;
            }
            let mut at = 0;
            for &i in &rest[..taken] {
                let example = examples[i];
                let mut count = |branch: Option<(usize, &Branch)>, targets: usize| {
                    let own = at..at + targets;
                    at = own.end;
                    let (targets, predicted) =
                        (&self.batch.targets[own.clone()], &losses.predicted[own.clone()]);
                    let logprobs = &losses.logprobs[own];
                    tally.count(example.task, branch.map(|(_, branch)| branch), targets, logprobs, predicted);
                    if let Some((place, branch)) = branch {
                        let chosen = &predicted[predicted.len() - branch.chosen().count()..];
                        predictions.push(Prediction {
                            example: i,
                            branch: place,
                            ids: branch.with_choices(chosen),
                        });
                    }
                };
                count(None, example.stem_targets(weights).count());
                for (branch, targets) in
                    example.branches.iter().enumerate().zip(example.branch_targets(weights))
                {
                    count(Some(branch), targets.len());
                }
            }
            rest = &rest[taken..];
        }
        pass.finish()?;
        Ok((tally, predictions))
    }
}

/// The tokens that stand in the examples, each once and with its rate: what is read, and with it what
/// is wanted.
fn touched(examples: &[&Example], rates: &[f32]) -> Vec<(u32, f32)> {
    let mut tokens: Vec<u32> = examples.iter().flat_map(|example| example.tokens()).collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens.into_iter().map(|token| (token, rates[token as usize])).collect()
}

impl Task {
    /// Its name in prompts and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Extract => "extract",
            Self::Manage => "manage",
            Self::Answer => "answer",
        }
    }
}
