//! Which examples make up which batch: a function of seed and step alone, so that a resumed
//! run goes on where it was.

use super::config::{Curriculum, SftConfig, TaskCounts};
use super::examples::{Example, Task};
use crate::random::Random;

/// The examples of one task, in turns over shuffled epochs.
#[derive(Clone, Debug)]
struct Deck {
    task: u64,
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
                Random::new(seed, &[0xdec4, self.task, length, epoch]).shuffle(&mut members);
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
        let decks = |most: usize| {
            let counts: TaskCounts = config.data.batch;
            [(Task::Extract, counts.extract), (Task::Manage, counts.manage), (Task::Answer, counts.answer)]
                .into_iter()
                .map(|(task, count)| {
                    let fits =
                        |(_, example): &(usize, &Example)| example.task == task && example.len() <= most;
                    let members = examples.iter().enumerate().filter(fits).map(|(i, _)| i).collect();
                    Deck { task: task as u64, count, members, shuffled: None }
                })
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

    fn deck() -> Deck {
        Deck { task: 1, count: 3, members: vec![10, 11, 12, 13, 14], shuffled: None }
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
