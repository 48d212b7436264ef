//! Who is shown what: the memories beside a fact, and those beside a question.

use std::collections::HashSet;
use std::sync::Arc;

use super::fusion::fused;
use super::sentences::Sentences;
use super::word_vectors::cosine;
use super::{Score, WordVectors, scores};
use crate::bank::Memory;
use crate::error::Result;

/// What the nearness of two texts by their word vectors is worth, in units of BM25.
const NEARNESS: f64 = 4.0;
/// The cosine from which on two texts have something in common.
const LEAST_COSINE: f64 = 0.1;

/// Finds memories: by their words, by what these mean where it has word vectors, and by what the whole says
/// where it was given sentence vectors.
#[derive(Clone, Debug, Default)]
pub struct Retriever {
    vectors: Option<Arc<WordVectors>>,
    sentences: Sentences,
}

/// A memory that an agent is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its place in the list that was searched.
    pub place: usize,
    /// How well it fits.
    pub score: Score,
}

/// Whose memories are shown beside a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speakers {
    /// Everybody's, as Memory-R1 does.
    Each,
    /// Those of the one whom the question names, where it names one alone; else everybody's.
    Named,
}

/// The place of the only one of several speakers whom a question names: a word of the name stands in it as it is
/// written in the name.
pub fn named(question: &str, speakers: &[&str]) -> Option<usize> {
    fn words(text: &str) -> impl Iterator<Item = &str> {
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
    }
    let is_named = |speaker: &&str| words(speaker).any(|name| words(question).any(|word| word == name));
    let mut places = (0..speakers.len()).filter(|place| is_named(&speakers[*place]));
    match (speakers.len(), places.next(), places.next()) {
        (2.., Some(only), None) => Some(only),
        _ => None,
    }
}

impl Retriever {
    /// With these vectors.
    pub fn new(vectors: WordVectors) -> Self {
        Self { vectors: Some(Arc::new(vectors)), ..Self::default() }
    }

    /// With the vectors of a bundle's `word_vectors.safetensors`; by words alone where there is none.
    pub fn read(file: Option<&[u8]>) -> Result<Self> {
        match file.filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => WordVectors::from_bytes(bytes).map(Self::new),
            None => Ok(Self::default()),
        }
    }

    /// Those of some texts that have no sentence vector yet, each once.
    pub fn lacking<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let mut seen = HashSet::new();
        texts.into_iter().filter(|text| !self.sentences.has(text) && seen.insert(*text)).collect()
    }

    /// Takes in a text's sentence vector, all of one encoder: one of another length than the first is
    /// `INVALID_ARGUMENT`.
    pub fn learn(&mut self, text: &str, vector: Arc<[f32]>) -> Result<()> {
        self.sentences.insert(text, vector)
    }

    /// The sentence vector that a text has.
    pub fn vector(&self, text: &str) -> Option<&Arc<[f32]>> {
        self.sentences.get(text)
    }

    /// How well each text fits a query, in the order in which they are given: BM25 among these
    /// texts, and [`NEARNESS`] times the cosine above [`LEAST_COSINE`], stretched to 0..1.
    ///
    /// Where the query has a sentence vector, this ranking and that by the cosine of these vectors
    /// are fused by reciprocal rank.
    pub fn scores(&self, texts: &[&str], query: &str) -> Vec<Score> {
        let scores = self.lexical_scores(texts, query);
        let Some(cosines) = self.sentences.cosines(texts, query) else { return scores };
        let fused = fused(&scores.iter().map(|own| own.score).collect::<Vec<_>>(), &cosines);
        let parts = scores.into_iter().zip(cosines).zip(fused);
        parts.map(|((score, cosine), fused)| score.with_cosine(cosine, fused)).collect()
    }

    fn lexical_scores(&self, texts: &[&str], query: &str) -> Vec<Score> {
        let scores = scores(texts.iter().copied(), query);
        let encode = |text: &str| self.vectors.as_ref().and_then(|vectors| vectors.encode(text));
        let Some(query) = encode(query) else { return scores };
        let near = |text: &str| encode(text).map_or(0.0, |own| cosine(&own, &query));
        let nearness = |cosine: f64| NEARNESS * ((cosine - LEAST_COSINE) / (1.0 - LEAST_COSINE)).max(0.0);
        scores.into_iter().zip(texts).map(|(score, text)| score.with_nearness(nearness(near(text)))).collect()
    }

    /// The memories to show beside a fact of `speaker`, at most `most`, best last.
    ///
    /// Filled by score; then, where nothing is in common, by that speaker's most recent, and by
    /// the others' most recent. A bank that fits is thus shown whole.
    pub fn for_fact(&self, memories: &[&Memory], fact: &str, speaker: &str, most: usize) -> Vec<Candidate> {
        self.best(memories, (0..memories.len()).collect(), fact, most, |memory| memory.speaker == speaker)
    }

    /// The memories to show beside a question: for each of these speakers, in the order of their first
    /// memory, at most `most_per_speaker`, best last; filled by score, then by the most recent.
    pub fn for_question(
        &self,
        memories: &[&Memory],
        question: &str,
        whose: Speakers,
        most_per_speaker: usize,
    ) -> Vec<(String, Vec<Candidate>)> {
        let mut speakers: Vec<(String, Vec<usize>)> = Vec::new();
        for (place, memory) in memories.iter().enumerate() {
            match speakers.iter_mut().find(|(name, _)| *name == memory.speaker) {
                Some((_, places)) => places.push(place),
                None => speakers.push((memory.speaker.clone(), vec![place])),
            }
        }
        let names: Vec<&str> = speakers.iter().map(|(name, _)| &**name).collect();
        if let (Speakers::Named, Some(only)) = (whose, named(question, &names)) {
            speakers = vec![speakers.swap_remove(only)];
        }
        speakers
            .into_iter()
            .map(|(name, places)| (name, self.best(memories, places, question, most_per_speaker, |_| true)))
            .collect()
    }

    /// The best `most` of some places, best last. Scores are those among these places: a term
    /// that all memories of a speaker share tells none of them apart.
    fn best(
        &self,
        memories: &[&Memory],
        places: Vec<usize>,
        query: &str,
        most: usize,
        preferred: impl Fn(&Memory) -> bool,
    ) -> Vec<Candidate> {
        let texts: Vec<&str> = places.iter().map(|place| memories[*place].text.as_str()).collect();
        let scores = self.scores(&texts, query);
        let mut candidates: Vec<Candidate> =
            places.into_iter().zip(scores).map(|(place, score)| Candidate { place, score }).collect();
        let key = |candidate: &Candidate| {
            let memory = memories[candidate.place];
            (preferred(memory), memory.observed, candidate.place)
        };
        candidates.sort_by(|a, b| a.score.order(&b.score).then_with(|| key(a).cmp(&key(b))));
        candidates.split_off(candidates.len().saturating_sub(most))
    }
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
        let found = Retriever::default().for_fact(&all, "Adopted a second dog", "Caroline", 4);
        assert_eq!(
            texts(&bank, &found),
            ["Works as a nurse", "Lives in Lyon", "Walks the dog of a neighbour", "Has a dog named Scout"]
        );
        assert!(found[3].score.score > 0.0 && found[1].score.score == 0.0);
        let whole = Retriever::default().for_fact(&all, "Adopted a second dog", "Caroline", 6);
        let order = texts(&bank, &whole);
        assert_eq!(order[..3], ["Likes tea", "Plays chess", "Works as a nurse"]);
        assert_eq!(Retriever::default().for_fact(&all, "x", "Caroline", 0), []);
        assert_eq!(Retriever::default().for_fact(&[], "x", "Caroline", 5), []);
    }

    #[test]
    fn equal_scores_are_ordered_by_time_and_then_by_creation() {
        let bank = [memory("Has a dog", "A", 1), memory("Has a dog", "A", 3), memory("Has a dog", "A", 1)];
        let all: Vec<&Memory> = bank.iter().collect();
        let places: Vec<_> =
            Retriever::default().for_fact(&all, "dog", "A", 3).iter().map(|found| found.place).collect();
        assert_eq!(places, [0, 2, 1]);
    }

    #[test]
    fn a_question_sees_each_speakers_best() {
        let bank = bank();
        let all: Vec<&Memory> = bank.iter().collect();
        let found = Retriever::default().for_question(&all, "Who has a dog?", Speakers::Named, 2);
        assert_eq!(found[0].0, "Caroline");
        assert_eq!(texts(&bank, &found[0].1), ["Lives in Lyon", "Has a dog named Scout"]);
        assert_eq!(found[1].0, "Mel");
        assert_eq!(texts(&bank, &found[1].1), ["Likes tea", "Walks the dog of a neighbour"]);
        let question = "Which dog does Mel walk?";
        assert_eq!(Retriever::default().for_question(&all, question, Speakers::Each, 2).len(), 2);
        let found = Retriever::default().for_question(&all, question, Speakers::Named, 2);
        let [(speaker, own)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            (&**speaker, &*texts(&bank, own)),
            ("Mel", &["Likes tea", "Walks the dog of a neighbour"][..])
        );
    }

    #[test]
    fn a_name_is_a_word_of_the_question() {
        let named = |question| named(question, &["Will Smith", "Ethan"]);
        assert_eq!(named("Where's Ethan's dog?"), Some(1));
        assert_eq!(named("Does Smith have a dog?"), Some(0));
        for nobody_alone in ["Will Ethan come?", "Who has a dog?", "What did ethan say?", "Ethanol?"] {
            assert_eq!(named(nobody_alone), None, "{nobody_alone}");
        }
        assert_eq!(super::named("Where does Ethan live?", &["Ethan"]), None);
    }

    #[test]
    fn word_vectors_find_what_shares_no_word() {
        let bank = bank();
        let all: Vec<&Memory> = bank.iter().collect();
        let words = ["live", "move", "dog", "nurs"].map(str::to_owned).to_vec();
        let vectors = WordVectors::new(words, vec![1.0, 0.0, 1.0, 0.1, 0.0, 1.0, -1.0, 0.0]).unwrap();
        let retriever = Retriever::new(vectors);
        let found = retriever.for_fact(&all, "Moved to Rome", "Caroline", 1);
        assert_eq!(texts(&bank, &found), ["Lives in Lyon"]);
        let Score { score, bm25, nearness, .. } = found[0].score;
        assert!(bm25 == 0.0 && nearness > 3.9 && score > 0.6 && score < 1.0);
        // What is far, and what has no known word, is as without vectors.
        let scores = retriever.scores(&["Works as a nurse", "Likes tea"], "Moved to Rome");
        assert_eq!(scores, [Score::default(), Score::default()]);
    }
    #[test]
    fn sentence_vectors_and_words_are_fused_by_rank() {
        let bank = bank();
        let all: Vec<&Memory> = bank.iter().collect();
        let query = "Adopted a second dog";
        let mut retriever = Retriever::default();
        // By words the dogs of Caroline and of the neighbour are first, alike. By cosine: Lyon, the
        // neighbour's, chess; the others are as far as can be.
        let vectors =
            [[-1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [1.0, 2.0], [1.0, 0.5], [-1.0, 0.0]].map(Arc::from);
        for (memory, vector) in bank.iter().zip(vectors) {
            retriever.learn(&memory.text, vector).unwrap();
        }
        assert_eq!(retriever.lacking([query, "Likes tea", query, "x"]), [query, "x"]);
        let lexical = retriever.for_fact(&all, query, "Caroline", 3);
        assert_eq!(lexical, Retriever::default().for_fact(&all, query, "Caroline", 3));
        retriever.learn(query, Arc::from([1.0, 0.0])).unwrap();
        let found = retriever.for_fact(&all, query, "Caroline", 4);
        // 1/63, then of two that are worth 1/61 the one with the better score, then 1/61 + 1/62.
        assert_eq!(
            texts(&bank, &found),
            ["Plays chess", "Has a dog named Scout", "Lives in Lyon", "Walks the dog of a neighbour"]
        );
        let Score { score, cosine, fused, bm25, .. } = found[3].score.clone();
        assert!(bm25 > 0.0 && (score - 0.894_43).abs() < 1e-9 && cosine == Some(0.894_43));
        assert!((fused.unwrap() - (1.0 / 61.0 + 1.0 / 62.0)).abs() < 1e-12);
        let json = serde_json::to_value(&found[2].score).unwrap();
        assert_eq!((json["cosine"].as_f64(), json["bm25"].as_f64()), (Some(0.995_04), Some(0.0)));
        assert!(retriever.learn("y", Arc::from([1.0])).is_err());
    }
}
