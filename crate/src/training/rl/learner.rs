//! Log-probabilities, values and gradients of trajectories, on several threads.
//!
//! Completions of the same prompt are read as one tree, so that the prompt is read once.

use std::sync::Arc;

use super::trajectory::Trajectory;
use crate::error::{Error, Result};
use crate::generation::Bitset;
use crate::training::network::{Adapter, Batch, Choices, Layout, Learns, Network, Pass, Target, Tree};

/// The tokens that a completion's were chosen from, by their places.
pub type Sets = Vec<(usize, Option<Arc<Bitset>>)>;

/// A trajectory and what each of its segments was chosen from.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// What was done.
    pub trajectory: Trajectory,
    /// One entry a segment.
    pub sets: Vec<Sets>,
}

/// Completions of one prompt, as the network reads them.
pub struct Item {
    tokens: Vec<u32>,
    tree: Tree,
    targets: Vec<Target>,
    allowed: Vec<Option<Arc<Bitset>>>,
    /// Which trajectory's token each target is, and which of its tokens.
    places: Vec<(usize, usize)>,
}

impl Item {
    /// Those of all rollouts; places count from the first of them.
    pub fn all(rollouts: &[Rollout]) -> Vec<Self> {
        let mut items: Vec<(&[u32], Self)> = Vec::new();
        for (own, rollout) in rollouts.iter().enumerate() {
            let mut first = 0;
            for (segment, sets) in rollout.trajectory.segments.iter().zip(&rollout.sets) {
                let generation = &segment.generation;
                let places = (first..first + sets.len()).map(|place| (own, place));
                first += sets.len();
                if sets.is_empty() {
                    continue;
                }
                let prompt = &generation.prompt_ids[..];
                let known = items.iter().rposition(|(known, _)| *known == prompt);
                let item = known.unwrap_or_else(|| {
                    items.push((prompt, Self::of_prompt(prompt)));
                    items.len() - 1
                });
                items[item].1.add(prompt, &generation.ids, sets, places);
            }
        }
        items.into_iter().map(|(_, item)| item).collect()
    }

    /// The prompt without its last token, which begins each branch.
    fn of_prompt(prompt: &[u32]) -> Self {
        let stem = prompt.len().saturating_sub(1);
        Self {
            tokens: prompt[..stem].to_vec(),
            tree: Tree { stem, branches: Vec::new(), prompts: None },
            targets: Vec::new(),
            allowed: Vec::new(),
            places: Vec::new(),
        }
    }

    fn add(
        &mut self,
        prompt: &[u32],
        ids: &[u32],
        sets: &Sets,
        places: impl Iterator<Item = (usize, usize)>,
    ) {
        let start = self.tokens.len();
        self.tokens.extend(prompt.last());
        // What stands behind the last choice decides nothing.
        let end = sets.last().map_or(0, |(place, _)| *place);
        self.tokens.extend_from_slice(&ids[..end]);
        self.tree.branches.push(self.tokens.len() - start);
        for (place, allowed) in sets {
            self.targets.push(Target { row: start + place, token: ids[*place], weight: 1.0 });
            self.allowed.push(allowed.clone());
        }
        self.places.extend(places);
    }

    /// Whether any of these trajectories has a token in it.
    fn is_of(&self, trajectories: &[bool]) -> bool {
        self.places.iter().any(|(own, _)| trajectories[*own])
    }
}

/// One number for every chosen token of every trajectory.
pub type PerToken = Vec<Vec<f32>>;

struct Worker {
    network: Box<dyn Network>,
    gradient: Vec<f32>,
}

/// No gradient of anything.
const NOTHING: (usize, Option<&Adapter>) = (0, None);

/// The workers that read and learn, side by side.
pub struct Learner {
    workers: Vec<Worker>,
    micro_batch_tokens: usize,
    temperature: f32,
}

impl Learner {
    /// One worker for each network, which works on at most so many tokens at once.
    pub fn new(networks: Vec<Box<dyn Network>>, micro_batch_tokens: usize, temperature: f32) -> Self {
        let workers = networks.into_iter().map(|network| Worker { network, gradient: Vec::new() }).collect();
        Self { workers, micro_batch_tokens, temperature }
    }

    /// The log-probability of every chosen token among those that were allowed, and the entropy of the choice. Of
    /// trajectories that share no prompt with these in `part` nothing is read, and zeros stand; an empty `part` is all.
    pub fn logprobs(
        &mut self,
        layout: &Layout,
        parameters: &[f32],
        items: &[Item],
        shape: &[usize],
        part: &[bool],
    ) -> Result<(PerToken, PerToken)> {
        let read = self.each((layout, parameters), items, part, NOTHING, |pass, batch, _| {
            let losses = pass.forward(batch)?;
            Ok((losses.logprobs, losses.entropies))
        })?;
        let (mut logprobs, mut entropies) = (zeros(shape), zeros(shape));
        for (own, (found, spread)) in read {
            let places = own.iter().flat_map(|item| &items[*item].places);
            for ((place, logprob), entropy) in places.zip(found).zip(spread) {
                logprobs[place.0][place.1] = logprob;
                entropies[place.0][place.1] = entropy;
            }
        }
        Ok((logprobs, entropies))
    }

    /// The gradient of a loss that has these slopes by the log-probabilities, less the entropies of each
    /// trajectory's choices times its bonus; and its length. A trajectory without slopes has no part in it. Where an
    /// adapter learns, it is the gradient of its factors.
    pub fn gradient(
        &mut self,
        layout: &Layout,
        parameters: &[f32],
        items: &[Item],
        slopes: &PerToken,
        (bonuses, adapter): (&[f32], Option<&Adapter>),
    ) -> Result<(&[f32], f64)> {
        let part: Vec<bool> = slopes.iter().map(|own| !own.is_empty()).collect();
        let count = adapter.map_or(layout.len(), |own| own.factors.len());
        self.each((layout, parameters), items, &part, (count, adapter), |pass, batch, own| {
            // Every batch has a choice of its own.
            let first = own.first().map_or([0, 0], |(row, token)| [*row as u64, *token as u64]);
            batch.adapter = adapter.and_then(|own| own.dropping(&first));
            pass.forward(batch)?;
            // The network's coefficients are those of negative log-probabilities.
            let coefficients: Vec<f32> =
                own.iter().map(|(row, token)| -slopes[*row].get(*token).copied().unwrap_or(0.0)).collect();
            let bonus =
                |(row, token): &(usize, usize)| if *token < slopes[*row].len() { bonuses[*row] } else { 0.0 };
            let bonuses: Vec<f32> =
                if bonuses.is_empty() { Vec::new() } else { own.iter().map(bonus).collect() };
            pass.backward(batch, &coefficients, &bonuses)
        })?;
        Ok(self.reduce())
    }

    /// A critic's value before every chosen token; `part` is that of [`Self::logprobs`].
    pub fn values(
        &mut self,
        layout: &Layout,
        (parameters, head): (&[f32], &[f32]),
        items: &[Item],
        shape: &[usize],
        part: &[bool],
    ) -> Result<PerToken> {
        let read = self.each((layout, parameters), items, part, NOTHING, |pass, batch, _| {
            pass.forward_values(head, batch)
        })?;
        let mut values = zeros(shape);
        for (own, found) in read {
            let places = own.iter().flat_map(|item| &items[*item].places);
            places.zip(found).for_each(|(place, value)| values[place.0][place.1] = value);
        }
        Ok(values)
    }

    /// The gradient of a loss that has these slopes by the values, the head's behind the network's; and its
    /// length.
    pub fn value_gradient(
        &mut self,
        layout: &Layout,
        (parameters, head): (&[f32], &[f32]),
        items: &[Item],
        slopes: &PerToken,
    ) -> Result<(&[f32], f64)> {
        let part: Vec<bool> = slopes.iter().map(|own| !own.is_empty()).collect();
        let count = layout.len() + head.len();
        self.each((layout, parameters), items, &part, (count, None), |pass, batch, own| {
            pass.forward_values(head, batch)?;
            let own: Vec<f32> =
                own.iter().map(|(row, token)| slopes[*row].get(*token).copied().unwrap_or(0.0)).collect();
            pass.backward_values(head, batch, &own)
        })?;
        Ok(self.reduce())
    }

    /// Does work on batches of the items that these trajectories have a token in, all where none are given, in an
    /// order that depends on nothing but them; with a gradient of so many numbers, an adapter's where one is given. A
    /// worker that has no share does nothing.
    fn each<T: Send>(
        &mut self,
        (layout, parameters): (&Layout, &[f32]),
        items: &[Item],
        part: &[bool],
        (gradient, adapter): (usize, Option<&Adapter>),
        work: impl Fn(&mut dyn Pass, &mut Batch, &[(usize, usize)]) -> Result<T> + Sync,
    ) -> Result<Vec<(Vec<usize>, T)>> {
        let mut order: Vec<usize> =
            (0..items.len()).filter(|item| part.is_empty() || items[*item].is_of(part)).collect();
        order.sort_by_key(|item| std::cmp::Reverse(items[*item].tokens.len()));
        let mut shares = vec![(0, Vec::new()); self.workers.len()];
        for item in order {
            if let Some(share) = shares.iter_mut().min_by_key(|share| share.0) {
                share.0 += items[item].tokens.len();
                share.1.push(item);
            }
        }
        let (most, temperature, work) = (self.micro_batch_tokens, self.temperature, &work);
        let results: Vec<Result<Vec<_>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .workers
                .iter_mut()
                .zip(&shares)
                .map(|(worker, (_, share))| {
                    scope.spawn(move || {
                        worker.gradient.clear();
                        worker.gradient.resize(gradient, 0.0);
                        let mut done = Vec::new();
                        if share.is_empty() {
                            return Ok(done);
                        }
                        let learns = match gradient {
                            0 => Learns::Nothing,
                            _ => Learns::new(adapter, &mut worker.gradient),
                        };
                        let mut pass = worker.network.pass(layout, parameters, learns)?;
                        for own in chunks(items, share, most) {
                            let (mut batch, places) = batch(items, own, temperature);
                            let found = work(&mut *pass, &mut batch, &places)?;
                            done.push((own.to_vec(), found));
                        }
                        pass.finish()?;
                        Ok(done)
                    })
                })
                .collect();
            let failed = || Err(Error::internal("a training thread failed"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| failed())).collect()
        });
        let mut all = Vec::new();
        for result in results {
            all.extend(result?);
        }
        Ok(all)
    }

    /// Sums the workers' gradients into the first one's, in order; its length is summed in f64.
    fn reduce(&mut self) -> (&[f32], f64) {
        let Some((first, rest)) = self.workers.split_first_mut() else { return (&[], 0.0) };
        for other in rest {
            first.gradient.iter_mut().zip(&other.gradient).for_each(|(sum, own)| *sum += own);
        }
        let chunk = |values: &[f32]| f64::from(values.iter().map(|value| value * value).sum::<f32>());
        let norm = first.gradient.chunks(256).map(chunk).sum::<f64>().sqrt();
        (&first.gradient, norm)
    }
}

/// A share in pieces of at most so many tokens, each at least one item.
fn chunks<'a>(items: &[Item], share: &'a [usize], most: usize) -> Vec<&'a [usize]> {
    let (mut pieces, mut rest) = (Vec::new(), share);
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = |item: &&usize| {
            tokens += items[**item].tokens.len();
            tokens <= most
        };
        let taken = rest.iter().take_while(fits).count().max(1);
        let (piece, after) = rest.split_at(taken);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

fn batch(items: &[Item], own: &[usize], temperature: f32) -> (Batch, Vec<(usize, usize)>) {
    let (mut batch, mut allowed, mut places) = (Batch::default(), Vec::new(), Vec::new());
    for item in own.iter().map(|item| &items[*item]) {
        batch.push_tree(&item.tokens, item.tree.clone(), item.targets.iter().copied());
        allowed.extend(item.allowed.iter().cloned());
        places.extend_from_slice(&item.places);
    }
    batch.choices = Some(Choices { allowed, temperature });
    (batch, places)
}

fn zeros(shape: &[usize]) -> PerToken {
    shape.iter().map(|length| vec![0.0; *length]).collect()
}
