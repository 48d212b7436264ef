//! Whether the manager finds its target in every place alike.
//!
//! The extractor has no part in it: the manager is given the fact that the case states, and its
//! target in each place among the memories in turn.

use serde::{Deserialize, Serialize};

use super::ops::{accepts_text, bank_of};
use crate::agents::{Candidate, Manager, Models};
use crate::bank::{Memory, Operation};
use crate::datasets::synthetic::OpsCase;
use crate::error::Result;
use crate::generation::{Cancel, Sampling};

/// How many cases came out right with the target in each place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceTotals {
    /// How many cases have a target and say their fact.
    pub n: usize,
    /// Those that came out right, by the target's place from the first shown.
    pub passed: Vec<usize>,
}

impl PlaceTotals {
    /// Counts one case.
    pub fn add(&mut self, passed: &[bool]) {
        self.n += 1;
        self.passed.resize(self.passed.len().max(passed.len()), 0);
        self.passed.iter_mut().zip(passed).for_each(|(sum, own)| *sum += usize::from(*own));
    }
}

/// Whether the decision is right for each place of the target; nothing for a case that has none,
/// does not say its fact, or has too few memories to fill the places.
pub async fn run_places(
    models: &Models,
    case: &OpsCase,
    seed: u64,
    cancel: &Cancel,
) -> Result<Option<Vec<bool>>> {
    let Some(accept) = case.accept.iter().find(|accept| accept.target.is_some()) else { return Ok(None) };
    let Some(fact) = &case.fact else { return Ok(None) };
    let (journal, names) = bank_of(case, seed)?;
    let is_target = |memory: &&Memory| names.get(&memory.id) == accept.target.as_ref();
    let (target, others): (Vec<&Memory>, Vec<&Memory>) = journal.bank().memories().partition(is_target);
    let places = models.manager.info().manager_candidates;
    let (Some(&target), true) = (target.first(), others.len() + 1 >= places) else { return Ok(None) };
    let recall = models.recall();
    let texts = others.iter().map(|memory| &*memory.text).chain([&**fact]);
    let found = recall.with(texts, cancel).await?.for_fact(&others, fact, &case.turn.speaker, places - 1);
    let others: Vec<Candidate> = found.iter().map(|found| Candidate::from(others[found.place])).collect();
    let manager = Manager::new(models.manager.clone(), recall);
    let mut passed = Vec::with_capacity(places);
    for place in 0..places {
        let mut candidates = others.clone();
        candidates.insert(place, target.into());
        let decision = manager.decide(&candidates, fact, Sampling::default(), cancel).await?;
        passed.push(match &decision.operation {
            Operation::Update { id, text } => {
                accept.op == "UPDATE" && *id == place && accepts_text(accept, text)
            }
            Operation::Delete { id } => accept.op == "DELETE" && *id == place,
            Operation::Add { .. } | Operation::Noop => false,
        });
    }
    Ok(Some(passed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_apart() {
        let mut totals = PlaceTotals::default();
        totals.add(&[true, false]);
        totals.add(&[true, true]);
        assert_eq!(totals, PlaceTotals { n: 2, passed: vec![2, 1] });
    }
}
