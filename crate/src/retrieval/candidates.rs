//! Who is shown what: the memories beside a fact, and those beside a question.

use std::cmp::Ordering;

use super::{Score, scores};
use crate::bank::Memory;

/// A memory that an agent is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its place in the list that was searched.
    pub place: usize,
    /// How well it fits.
    pub score: Score,
}

/// The memories to show beside a fact of `speaker`, at most `most`, best last.
///
/// Filled by score; then, where nothing is in common, by that speaker's most recent, and by the
/// others' most recent. A bank that fits is thus shown whole.
pub fn for_fact(memories: &[&Memory], fact: &str, speaker: &str, most: usize) -> Vec<Candidate> {
    best(memories, (0..memories.len()).collect(), fact, most, |memory| memory.speaker == speaker)
}

/// The memories to show beside a question: for each speaker, in the order of their first memory,
/// at most `most_per_speaker`, best last; filled by score, then by the most recent.
pub fn for_question(
    memories: &[&Memory],
    question: &str,
    most_per_speaker: usize,
) -> Vec<(String, Vec<Candidate>)> {
    let mut speakers: Vec<(String, Vec<usize>)> = Vec::new();
    for (place, memory) in memories.iter().enumerate() {
        match speakers.iter_mut().find(|(name, _)| *name == memory.speaker) {
            Some((_, places)) => places.push(place),
            None => speakers.push((memory.speaker.clone(), vec![place])),
        }
    }
    speakers
        .into_iter()
        .map(|(name, places)| (name, best(memories, places, question, most_per_speaker, |_| true)))
        .collect()
}

/// The best `most` of some places, best last. Scores are those among these places: a term that
/// all memories of a speaker share tells none of them apart.
fn best(
    memories: &[&Memory],
    places: Vec<usize>,
    query: &str,
    most: usize,
    preferred: impl Fn(&Memory) -> bool,
) -> Vec<Candidate> {
    let scores = scores(places.iter().map(|place| memories[*place].text.as_str()), query);
    let mut candidates: Vec<Candidate> =
        places.into_iter().zip(scores).map(|(place, score)| Candidate { place, score }).collect();
    let key = |candidate: &Candidate| {
        let memory = memories[candidate.place];
        (preferred(memory), memory.observed, candidate.place)
    };
    candidates.sort_by(|a, b| match a.score.score.total_cmp(&b.score.score) {
        Ordering::Equal => key(a).cmp(&key(b)),
        order => order,
    });
    candidates.split_off(candidates.len().saturating_sub(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::{MemoryId, Timestamp};

    fn memory(text: &str, speaker: &str, day: i64) -> Memory {
        let time = Timestamp::from_millis(day * 86_400_000).unwrap();
        Memory {
            id: MemoryId(text.into()),
            text: text.into(),
            speaker: speaker.into(),
            created: time,
            updated: time,
            observed: time,
            metadata: serde_json::Map::new(),
        }
    }

    fn bank() -> Vec<Memory> {
        vec![
            memory("Has a dog named Scout", "Caroline", 1),
            memory("Lives in Lyon", "Caroline", 5),
            memory("Likes tea", "Mel", 9),
            memory("Plays chess", "Caroline", 3),
            memory("Walks the dog of a neighbour", "Mel", 2),
            memory("Works as a nurse", "Caroline", 4),
        ]
    }

    fn texts<'a>(memories: &'a [Memory], found: &[Candidate]) -> Vec<&'a str> {
        found.iter().map(|candidate| memories[candidate.place].text.as_str()).collect()
    }

    #[test]
    fn a_fact_sees_what_fits_best_last_and_then_its_speakers_most_recent() {
        let bank = bank();
        let all: Vec<&Memory> = bank.iter().collect();
        let found = for_fact(&all, "Adopted a second dog", "Caroline", 4);
        assert_eq!(
            texts(&bank, &found),
            ["Works as a nurse", "Lives in Lyon", "Walks the dog of a neighbour", "Has a dog named Scout"]
        );
        assert!(found[3].score.score > 0.0 && found[1].score.score == 0.0);
        let whole = for_fact(&all, "Adopted a second dog", "Caroline", 6);
        let order = texts(&bank, &whole);
        assert_eq!(order[..3], ["Likes tea", "Plays chess", "Works as a nurse"]);
        assert_eq!(for_fact(&all, "x", "Caroline", 0), []);
        assert_eq!(for_fact(&[], "x", "Caroline", 5), []);
    }

    #[test]
    fn equal_scores_are_ordered_by_time_and_then_by_creation() {
        let bank = [memory("Has a dog", "A", 1), memory("Has a dog", "A", 3), memory("Has a dog", "A", 1)];
        let all: Vec<&Memory> = bank.iter().collect();
        let places: Vec<_> = for_fact(&all, "dog", "A", 3).iter().map(|found| found.place).collect();
        assert_eq!(places, [0, 2, 1]);
    }

    #[test]
    fn a_question_sees_each_speakers_best() {
        let bank = bank();
        let all: Vec<&Memory> = bank.iter().collect();
        let found = for_question(&all, "Who has a dog?", 2);
        assert_eq!(found[0].0, "Caroline");
        assert_eq!(texts(&bank, &found[0].1), ["Lives in Lyon", "Has a dog named Scout"]);
        assert_eq!(found[1].0, "Mel");
        assert_eq!(texts(&bank, &found[1].1), ["Likes tea", "Walks the dog of a neighbour"]);
    }
}
