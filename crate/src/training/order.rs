//! Which examples make up which batch: a function of seed and step alone, so that a resumed
//! run goes on where it was.

use super::config::{Curriculum, SftConfig, TaskCounts};
use super::examples::{Example, Source, Task};
use crate::random::Random;

/// What tells the shuffles of the examples written by hand from those of the others.
const FREEFORM: u64 = 1 << 8;

/// The examples of one task and source, in turns over shuffled epochs.
#[derive(Clone, Debug)]
struct Deck {
    /// What its shuffles are keyed by: task and source.
    key: u64,
    /// How many of them a batch has.
    count: usize,
    members: Vec<usize>,
    /// The shuffled members of an epoch, kept until the next one.
    shuffled: Option<(u64, Vec<usize>)>,
}

impl Deck {
    fn deal(&mut self, seed: u64, step: u64, out: &mut Vec<usize>) {
        if self.members.is_empty() {
            return;
        }
        let length = self.members.len() as u64;
        for slot in 0..self.count as u64 {
            let position = step * self.count as u64 + slot;
            let epoch = position / length;
            if self.shuffled.as_ref().is_none_or(|(own, _)| *own != epoch) {
                let mut members = self.members.clone();
                Random::new(seed, &[0xdec4, self.key, length, epoch]).shuffle(&mut members);
                self.shuffled = Some((epoch, members));
            }
            if let Some((_, members)) = &self.shuffled {
                out.push(members[(position % length) as usize]);
            }
        }
    }
}

/// The order of a run.
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    /// The first step (from 1) of the second list of decks.
    all_from: u64,
    short: Vec<Deck>,
    all: Vec<Deck>,
}

impl Order {
    /// The order of these examples.
    pub fn new(config: &SftConfig, examples: &[Example]) -> Self {
        let longest = config.curriculum.map_or(usize::MAX, |Curriculum { max_length, .. }| max_length);
        let share = |task| config.data.freeform.map_or(0.0, |freeform| freeform.share_of(task));
        let decks = |most: usize| {
            let counts: TaskCounts = config.data.batch;
            [(Task::Extract, counts.extract), (Task::Manage, counts.manage), (Task::Answer, counts.answer)]
                .into_iter()
                .flat_map(|(task, count)| {
                    let members = |source: Source| -> Vec<usize> {
                        let fits = |example: &Example| {
                            example.task == task && example.source == source && example.len() <= most
                        };
                        (0..examples.len()).filter(|&i| fits(&examples[i])).collect()
                    };
                    let (made_up, written) = (members(Source::Synthetic), members(Source::Freeform));
                    // The slots of a source that has nothing go to the other.
                    let own = match (made_up.is_empty(), written.is_empty()) {
                        (_, true) => 0,
                        (true, false) => count,
                        (false, false) => (count as f64 * share(task)).round() as usize,
                    };
                    [(task as u64, count - own, made_up), (task as u64 | FREEFORM, own, written)]
                })
                .map(|(key, count, members)| Deck { key, count, members, shuffled: None })
                .collect::<Vec<_>>()
        };
        let all_from = config.curriculum.map_or(1, |curriculum| curriculum.steps + 1);
        Self { seed: config.seed, all_from, short: decks(longest), all: decks(usize::MAX) }
    }

    /// The places of the examples of the `step`-th batch, from 1.
    pub fn batch(&mut self, step: u64) -> Vec<usize> {
        let (decks, position) = if step < self.all_from {
            (&mut self.short, step - 1)
        } else {
            (&mut self.all, step - self.all_from)
        };
        let mut batch = Vec::new();
        for deck in decks {
            deck.deal(self.seed, position, &mut batch);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::FreeformConfig;

    fn deck() -> Deck {
        Deck { key: 1, count: 3, members: vec![10, 11, 12, 13, 14], shuffled: None }
    }

    #[test]
    fn a_share_of_each_task_is_of_the_cases_written_by_hand() {
        let text = include_str!("../../../configs/nano.toml");
        let mut config = SftConfig::parse(text).unwrap();
        (config.curriculum, config.data.freeform) = (None, None);
        config.data.batch = TaskCounts { extract: 24, manage: 12, answer: 4 };
        let example =
            |i: usize, source| Example::empty([Task::Extract, Task::Manage, Task::Answer][i % 3], source);
        let made_up = (0..90).map(|i| example(i, Source::Synthetic));
        let examples: Vec<Example> = made_up.chain((0..40).map(|i| example(i, Source::Freeform))).collect();
        let written = |config: &SftConfig, step| -> Vec<(Task, Source)> {
            let batch = Order::new(config, &examples).batch(step);
            batch.iter().map(|&i| (examples[i].task, examples[i].source)).collect()
        };
        let count = |batch: &[(Task, Source)], own| batch.iter().filter(|kind| **kind == own).count();
        let before = written(&config, 5);
        assert_eq!(count(&before, (Task::Extract, Source::Synthetic)), 24);
        config.data.freeform = Some(FreeformConfig { share: 0.3, answer_share: Some(0.5), copies: 1 });
        for step in 1..9 {
            let batch = written(&config, step);
            assert_eq!(count(&batch, (Task::Extract, Source::Freeform)), 7);
            assert_eq!(count(&batch, (Task::Extract, Source::Synthetic)), 17);
            assert_eq!(count(&batch, (Task::Manage, Source::Freeform)), 4);
            assert_eq!(count(&batch, (Task::Manage, Source::Synthetic)), 8);
            assert_eq!(count(&batch, (Task::Answer, Source::Freeform)), 2);
        }
        // A run that goes on deals what one that was left alone would have dealt.
        let mut whole = Order::new(&config, &examples);
        let batches: Vec<Vec<usize>> = (1..9).map(|step| whole.batch(step)).collect();
        assert_eq!(Order::new(&config, &examples).batch(8), batches[7]);
        // Without synthetic examples, or without others, a batch is as large.
        for share in [0.0, 1.0] {
            config.data.freeform = Some(FreeformConfig { share, answer_share: None, copies: 1 });
            assert_eq!(written(&config, 3).len(), 40);
        }
    }

    #[test]
    fn every_epoch_has_every_example_once_and_any_step_can_be_dealt_alone() {
        let mut all = Vec::new();
        let mut whole = deck();
        for step in 0..10 {
            let mut own = Vec::new();
            deck().deal(7, step, &mut own);
            let before = all.len();
            whole.deal(7, step, &mut all);
            assert_eq!(own, all[before..]);
        }
        for epoch in all.chunks(5) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, [10, 11, 12, 13, 14]);
        }
        assert!(all.chunks(5).any(|epoch| epoch != &all[..5]));
    }
}
