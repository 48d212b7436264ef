//! Word vectors for retrieval, learned from the dialogues: what a fact or a question is about
//! should lie nearer to it than the rest of the speaker's bank.
//!
//! The loss is the softmax over one bank of BM25 plus [`SHARPNESS`] times the cosine, so that the
//! vectors learn what the words themselves do not say (supervised contrastive learning with the
//! bank's other memories as negatives). Adam; one thread, so that the same dialogues
//! give the same bytes.

use std::collections::BTreeMap;

use crate::datasets::synthetic::{
    GoldMemory, SyntheticDialogue, final_memories, question_examples, turn_examples,
};
use crate::error::Result;
use crate::random::Random;
use crate::retrieval::{WordVectors, scores, words};

/// The length of a vector.
const DIMENSION: usize = 64;
/// What a cosine is worth beside BM25 while learning.
const SHARPNESS: f32 = 10.0;
/// A word of fewer queries than this has no vector, unless many memories have it.
const LEAST_QUERIES: usize = 5;
/// A word of fewer memories than this has none, unless several queries have it.
const LEAST_MEMORIES: usize = 20;
const EPOCHS: u64 = 3;
const BATCH: usize = 64;
const LEARNING_RATE: f32 = 0.01;

/// A fact or a question, the bank that it is put to, and the places of what it is about.
struct Query {
    text: String,
    bank: Vec<String>,
    about: Vec<usize>,
}

/// A query as places of words, and what BM25 says of each memory.
struct Problem {
    query: Vec<usize>,
    bank: Vec<Vec<usize>>,
    lexical: Vec<f32>,
    about: Vec<usize>,
}

/// Learns them. Nothing where the dialogues have no query.
pub(super) fn learn(seed: u64, dialogues: &[SyntheticDialogue]) -> Result<Option<WordVectors>> {
    let queries: Vec<Query> = dialogues.iter().flat_map(queries).collect();
    let vocabulary = vocabulary(&queries);
    if vocabulary.is_empty() || queries.is_empty() {
        return Ok(None);
    }
    let mut random = Random::new(seed, &[0x0ec7]);
    let mut learner = Learner::new(vocabulary.len(), &mut random);
    let places: BTreeMap<&str, usize> = vocabulary.iter().map(String::as_str).zip(0..).collect();
    let known = |text: &str| -> Vec<usize> {
        words(text).iter().filter_map(|word| places.get(word.as_str()).copied()).collect()
    };
    let problems: Vec<Problem> = queries
        .iter()
        .map(|Query { text, bank, about }| Problem {
            query: known(text),
            lexical: scores(bank.iter().map(String::as_str), text).iter().map(|s| s.bm25 as f32).collect(),
            bank: bank.iter().map(|text| known(text)).collect(),
            about: about.clone(),
        })
        .collect();
    let total = EPOCHS * problems.len().div_ceil(BATCH) as u64;
    let mut order: Vec<usize> = (0..problems.len()).collect();
    for _ in 0..EPOCHS {
        random.shuffle(&mut order);
        for batch in order.chunks(BATCH) {
            for &i in batch {
                learner.add(&problems[i]);
            }
            learner.step(batch.len(), total);
        }
    }
    WordVectors::new(vocabulary, learner.values).map(Some)
}

/// What a dialogue asks of retrieval: the target of a fact in its speaker's bank before it, and
/// the memories that answer a question in each speaker's bank at the end.
fn queries(dialogue: &SyntheticDialogue) -> Vec<Query> {
    let texts = |bank: &[&GoldMemory]| bank.iter().map(|memory| memory.text.clone()).collect();
    let mut all = Vec::new();
    for decision in turn_examples(dialogue).flat_map(|example| example.decisions) {
        let bank: Vec<&GoldMemory> = decision.bank.iter().collect();
        let about = decision.target().and_then(|key| bank.iter().position(|memory| memory.key == key));
        if let Some(place) = about {
            all.push(Query { text: decision.gold.resolved.clone(), bank: texts(&bank), about: vec![place] });
        }
    }
    let memories = final_memories(dialogue);
    for question in question_examples(dialogue) {
        for speaker in question.speakers {
            let bank: Vec<&GoldMemory> = memories.iter().filter(|m| m.speaker == speaker).collect();
            let supports = |place: &usize| question.supporting.contains(&bank[*place].key);
            let about: Vec<usize> = (0..bank.len()).filter(supports).collect();
            if !about.is_empty() {
                all.push(Query { text: question.question.to_owned(), bank: texts(&bank), about });
            }
        }
    }
    all.retain(|query| query.bank.len() > 1);
    all
}

/// The words of several queries or many memories, in order.
fn vocabulary(queries: &[Query]) -> Vec<String> {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let distinct = |text: &str| {
        let mut own = words(text);
        own.sort_unstable();
        own.dedup();
        own
    };
    for query in queries {
        for word in distinct(&query.text) {
            counts.entry(word).or_default().0 += 1;
        }
        for word in query.bank.iter().flat_map(|text| distinct(text)) {
            counts.entry(word).or_default().1 += 1;
        }
    }
    counts.retain(|_, (queries, memories)| *queries >= LEAST_QUERIES || *memories >= LEAST_MEMORIES);
    counts.into_keys().collect()
}

struct Learner {
    values: Vec<f32>,
    gradient: Vec<f32>,
    mean: Vec<f32>,
    square: Vec<f32>,
    steps: u64,
}

/// A text's sum of vectors, of length 1, and the length before.
struct Encoded {
    unit: Vec<f32>,
    length: f32,
}

impl Learner {
    fn new(words: usize, random: &mut Random) -> Self {
        let values: Vec<f32> = (0..words * DIMENSION).map(|_| 0.1 * random.normal() as f32).collect();
        let zeros = vec![0.0; values.len()];
        Self { gradient: zeros.clone(), mean: zeros.clone(), square: zeros, values, steps: 0 }
    }

    fn encode(&self, places: &[usize]) -> Option<Encoded> {
        let mut sum = vec![0.0f32; DIMENSION];
        for &place in places {
            let row = &self.values[place * DIMENSION..][..DIMENSION];
            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        let length = dot(&sum, &sum).sqrt();
        for value in &mut sum {
            *value /= length;
        }
        (length > 0.0).then_some(Encoded { unit: sum, length })
    }

    /// Adds the gradient of one query's loss, `-ln` of the share of `about` in the softmax.
    fn add(&mut self, Problem { query, bank, lexical, about }: &Problem) {
        let Some(own) = self.encode(query) else { return };
        let encoded: Vec<Option<Encoded>> = bank.iter().map(|places| self.encode(places)).collect();
        let cosine = |place: usize| encoded[place].as_ref().map_or(0.0, |other| dot(&own.unit, &other.unit));
        let cosines: Vec<f32> = (0..bank.len()).map(cosine).collect();
        let logits: Vec<f32> =
            cosines.iter().zip(lexical).map(|(near, own)| SHARPNESS * near + own).collect();
        let best = logits.iter().copied().fold(f32::MIN, f32::max);
        let powers: Vec<f32> = logits.iter().map(|logit| (logit - best).exp()).collect();
        let (all, right) = (powers.iter().sum::<f32>(), about.iter().map(|i| powers[*i]).sum::<f32>());
        let mut of_query = vec![0.0f32; DIMENSION];
        for (i, other) in encoded.iter().enumerate() {
            let Some(other) = other else { continue };
            let wanted = if about.contains(&i) { powers[i] / right.max(f32::MIN_POSITIVE) } else { 0.0 };
            let slope = SHARPNESS * (powers[i] / all - wanted);
            // The gradient of a cosine goes through both normalisations.
            let mut of_other = vec![0.0f32; DIMENSION];
            for d in 0..DIMENSION {
                of_query[d] += slope * (other.unit[d] - cosines[i] * own.unit[d]) / own.length;
                of_other[d] = slope * (own.unit[d] - cosines[i] * other.unit[d]) / other.length;
            }
            self.spread(&bank[i], &of_other);
        }
        self.spread(query, &of_query);
    }

    fn spread(&mut self, places: &[usize], gradient: &[f32]) {
        for &place in places {
            let row = &mut self.gradient[place * DIMENSION..][..DIMENSION];
            row.iter_mut().zip(gradient).for_each(|(row, own)| *row += own);
        }
    }

    /// One step on the mean gradient; the rate falls to 0 over `total` steps.
    fn step(&mut self, count: usize, total: u64) {
        self.steps += 1;
        let rate = LEARNING_RATE * (1.0 - (self.steps - 1) as f32 / total as f32);
        let (beta1, beta2) = (0.9f32, 0.98f32);
        let corrections = [beta1, beta2].map(|beta| 1.0 - beta.powi(self.steps as i32));
        let moments = self.mean.iter_mut().zip(&mut self.square);
        for ((value, gradient), (mean, square)) in self.values.iter_mut().zip(&mut self.gradient).zip(moments)
        {
            let own = *gradient / count as f32;
            *mean = beta1 * *mean + (1.0 - beta1) * own;
            *square = beta2 * *square + (1.0 - beta2) * own * own;
            *value -= rate * (*mean / corrections[0]) / ((*square / corrections[1]).sqrt() + 1e-8);
            *gradient = 0.0;
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::synthetic::{Options, Split, generate};
    use crate::retrieval::Retriever;

    #[test]
    fn vectors_find_what_bm25_misses_in_dialogues_that_they_were_not_learned_from() {
        let dialogues = generate(3, 45, Split::Train, Options::default());
        let (learned, held_out) = dialogues.split_at(40);
        let vectors = learn(1, learned).unwrap().unwrap();
        assert_eq!(vectors, learn(1, learned).unwrap().unwrap());
        let found = |retriever: &Retriever| {
            let (mut right, mut all) = (0, 0);
            for query in held_out.iter().flat_map(queries) {
                let texts: Vec<&str> = query.bank.iter().map(String::as_str).collect();
                let scores = retriever.scores(&texts, &query.text);
                let better = |place: usize| {
                    scores.iter().filter(|score| score.score >= scores[place].score).count() - 1
                };
                right += usize::from(
                    query.about.iter().all(|place| better(*place) < 3 && scores[*place].score > 0.0),
                );
                all += 1;
            }
            f64::from(right as u32) / f64::from(all as u32)
        };
        let (lexical, hybrid) = (found(&Retriever::default()), found(&Retriever::new(vectors)));
        assert!(hybrid > lexical + 0.02 && hybrid > 0.9, "{lexical} {hybrid}");
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let mut random = Random::new(2, &[]);
        let mut learner = Learner::new(6, &mut random);
        let problem = Problem {
            query: vec![0, 1, 1],
            bank: vec![vec![1, 2], vec![3], vec![], vec![4, 5]],
            lexical: vec![0.5, 0.0, 1.0, 0.2],
            about: vec![0, 3],
        };
        let Problem { query, bank, lexical, about } = &problem;
        let loss = |learner: &Learner| {
            let own = learner.encode(query).unwrap();
            let logits = bank.iter().zip(lexical).map(|(places, lexical)| {
                let near = learner.encode(places).map_or(0.0, |other| dot(&own.unit, &other.unit));
                f64::from(SHARPNESS * near + lexical).exp()
            });
            let powers: Vec<f64> = logits.collect();
            -(about.iter().map(|i| powers[*i]).sum::<f64>() / powers.iter().sum::<f64>()).ln()
        };
        learner.add(&problem);
        let direction: Vec<f32> = (0..learner.values.len()).map(|_| random.normal() as f32).collect();
        let along = |step: f32| {
            let values = learner.values.iter().zip(&direction).map(|(v, d)| v + step * d).collect();
            loss(&Learner { values, gradient: vec![], mean: vec![], square: vec![], steps: 0 })
        };
        let slope = (along(1e-4) - along(-1e-4)) / 2e-4;
        let product = f64::from(dot(&learner.gradient, &direction));
        assert!((slope - product).abs() < 0.02 * product.abs().max(1.0), "{slope} {product}");
    }
}
