//! Reading and playing on several threads. What comes out depends on the tasks and the seed alone.

use std::path::Path;
use std::rc::Rc;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use futures_lite::future::block_on;

use super::environment::{Players, Reading, Task};
use super::learner::Rollout;
use super::policy::Policy;
use super::served::{Served, ServedModel};
use crate::agents::Models;
use crate::checkpoint::Files;
use crate::datasets::{Dialogue, KnownFacts};
use crate::error::{Error, Result};
use crate::evaluation::Judge;
use crate::generation::{
    Batching, Cancel, Connection, LanguageModel, Malformed, RemoteModel, Retries, Sampling, parse_address,
};
use crate::training::compute::Compute;

/// Does work on every part in turn, on several threads; results in the order of the parts.
fn on_threads<P: Sync, R: Send>(
    threads: usize,
    parts: &[P],
    work: impl Fn(usize, &mut dyn Iterator<Item = (usize, &P)>) -> Result<Vec<R>> + Sync,
) -> Result<Vec<R>> {
    let work = &work;
    let shares: Vec<Result<Vec<R>>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|own| {
                scope.spawn(move || {
                    let mut mine = parts.iter().enumerate().filter(|(place, _)| place % threads == own);
                    work(own, &mut mine)
                })
            })
            .collect();
        let failed = || Err(Error::internal("a thread that plays failed"));
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| failed())).collect()
    });
    let mut shares = shares.into_iter().map(|own| Ok(own?.into_iter())).collect::<Result<Vec<_>>>()?;
    Ok((0..parts.len()).filter_map(|place| shares[place % threads].next()).collect())
}

/// The variable that holds the key of a judge's server, or of one that plays.
const KEY: &str = "OPENAI_API_KEY";
/// How much a judge reads and writes at most, in tokens; its prompts are short.
const JUDGE_CONTEXT: usize = 8192;

pub(super) fn key() -> Option<String> {
    std::env::var(KEY).ok().filter(|key| !key.is_empty())
}

fn judge((address, replies): (&str, &Path)) -> Result<Judge> {
    let named = parse_address(address).ok_or_else(|| Error::invalid(format!("{address} is no address")))?;
    let (base, name) = named?;
    let connection = Connection::new(base, key(), Retries::default(), Some(replies.to_owned()));
    let model = RemoteModel::new(connection, name, JUDGE_CONTEXT, Malformed::default());
    Ok(Judge::new(Rc::new(model), "locomo"))
}

/// What is the same for all tasks of a step.
pub(super) struct Round<'a> {
    /// Where.
    pub(super) compute: &'a dyn Compute,
    /// The network.
    pub(super) policy: &'a Policy,
    /// The weights that play.
    pub(super) parameters: &'a [f32],
    /// The weights of the answer agent that judges a manager.
    pub(super) frozen: &'a [f32],
    /// How tokens are chosen.
    pub(super) sampling: Sampling,
    /// Trajectories of each task.
    pub(super) count: usize,
    /// How many threads.
    pub(super) threads: usize,
    /// Whether completions are held to their grammar.
    pub(super) constrained: bool,
    /// The server that plays in the weights' place.
    pub(super) served: Option<&'a Served>,
    /// Where a judge marks the answers, and where its replies are kept.
    pub(super) judge: Option<(&'a str, &'a Path)>,
    /// Stops it.
    pub(super) stop: &'a Cancel,
}

impl Round<'_> {
    /// Plays every task; a group of rollouts each. What they were chosen from is found only where `learn`.
    pub(super) fn play(&self, tasks: &[&Task], learn: bool) -> Result<Vec<Vec<Rollout>>> {
        on_threads(self.compute.workers(self.threads), tasks, |own, mine| {
            let of = |parameters| self.compute.model(own, self.policy, parameters);
            let model = of(self.parameters)?;
            let playing: Rc<dyn LanguageModel> = match self.served {
                Some(served) => Rc::new(ServedModel::new(model.clone(), served)?),
                None => Rc::new(Batching::new(model.clone())),
            };
            let is_manager = tasks.iter().any(|task| matches!(task, Task::Manage { .. }));
            let frozen: Rc<dyn LanguageModel> = if is_manager {
                Rc::new(Batching::new(of(self.frozen)?))
            } else {
                // Not asked.
                playing.clone()
            };
            let judge = self.judge.map(judge).transpose()?;
            let players =
                Players::new(playing, frozen, self.policy.retriever()?, judge).constrained(self.constrained);
            let (model, players) = (&*model, &players);
            let plays = mine.map(|(place, task)| async move {
                let [step, _, sample] = self.sampling.key;
                let sampling = Sampling { key: [step, place as u64, sample], ..self.sampling };
                let played = players.play(task, sampling, self.count, self.stop).await?;
                let rollout = |trajectory: super::trajectory::Trajectory| {
                    let segments = trajectory.segments.iter().filter(|_| learn);
                    let sets = segments.map(|own| model.replay(&own.request, &own.generation.ids));
                    Ok(Rollout { sets: sets.collect::<Result<_>>()?, trajectory })
                };
                played.into_iter().map(rollout).collect::<Result<Vec<_>>>()
            });
            block_on(stream::iter(plays).buffered(self.compute.side_by_side()).try_collect())
        })
    }

    /// Reads conversations with the playing weights as manager; those whose facts are known are not given to the
    /// extractor again.
    pub(super) fn read(
        &self,
        extractor: &Files,
        dialogues: &[Dialogue],
        known: Option<&KnownFacts>,
        on_read: &(dyn Fn() + Sync),
    ) -> Result<Vec<Reading>> {
        on_threads(self.compute.workers(self.threads), dialogues, |own, mine| {
            let model = self.compute.model(own, self.policy, self.parameters)?;
            let model: Rc<dyn LanguageModel> = Rc::new(Batching::new(model));
            let extractor = self.compute.load(own, extractor)?;
            let models = Models {
                extractor: Rc::new(Batching::new(extractor)),
                ..Models::one(model).with_retriever(self.policy.retriever()?)
            };
            let models = &models;
            let readings = mine.map(|(_, dialogue)| async move {
                let facts = known.map(|known| known.of(dialogue)).transpose()?;
                let (seed, stop) = (self.sampling.seed, self.stop);
                let reading = Reading::new(dialogue.clone(), models, facts, seed, stop).await?;
                on_read();
                Ok(reading)
            });
            block_on(stream::iter(readings).buffered(self.compute.side_by_side()).try_collect())
        })
    }
}
