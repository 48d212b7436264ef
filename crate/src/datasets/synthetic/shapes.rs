//! How varied the language of the conversations is, and how much of the test split's could have
//! been read in training.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::dialogue::{Said, trace_one};
use super::tables::Tables;
use super::{Options, Split, SyntheticDialogue};

/// How many times as many conversations the larger training set has.
const TIMES: usize = 10;
/// The lengths of the sequences of words that are looked up in training.
const LENGTHS: [usize; 3] = [3, 4, 5];
/// What is written with a full stop that ends no sentence.
const ABBREVIATIONS: [&str; 5] = ["dr", "mr", "mrs", "ms", "st"];

/// Items of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How many there are.
    pub all: usize,
    /// How many of them are kept for the test split.
    pub test: usize,
}

/// What some conversations say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Variety {
    /// How many conversations.
    pub dialogues: usize,
    /// How many turns.
    pub turns: usize,
    /// Turns that differ in some letter.
    pub distinct_turns: usize,
    /// How many sentences.
    pub sentences: usize,
    /// Sentences that differ in some word; capitals and punctuation do not count.
    pub distinct_sentences: usize,
    /// The same with each value replaced by its list's name, and typing mistakes by what was meant.
    pub shapes: usize,
}

/// How much of something is also in a training set, in 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Share {
    /// Each counted once.
    pub distinct: f64,
    /// Each counted as often as it is said.
    pub running: f64,
}

/// How much of the test split is also in training sets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overlap {
    /// What is counted: `sentence shapes` or `3-grams` of words.
    pub of: String,
    /// How many different ones the test split has.
    pub distinct: usize,
    /// A training set of as many conversations has of them.
    pub same_size: Share,
    /// One of ten times as many.
    pub ten_times: Share,
}

/// How varied the language is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shapes {
    /// Kinds of things that are true of a person.
    pub relations: usize,
    /// Ways to state, change, repeat or take back.
    pub wordings: Count,
    /// Ways to ask, for the other speaker and at the end.
    pub questions: Count,
    /// Sentences that state two facts.
    pub combos: Count,
    /// Greetings, reactions, openers, small talk, requests, what might be.
    pub small_talk: Count,
    /// The values of the lists; more are made up of syllables and words.
    pub values: Count,
    /// What is said with the wordings and values of training.
    pub train: Variety,
    /// What is said with those of the test split.
    pub test: Variety,
    /// How much of the test split is also in training.
    pub overlap: Vec<Overlap>,
}

/// Makes conversations of both splits and looks at their words.
pub fn shapes(seed: u64, dialogues: usize, options: Options) -> Shapes {
    let of = |split| (0..).map(move |i| read(&trace_one(seed, i, split, options)));
    let mut test = Tally::default();
    let mut found = Found::default();
    for said in of(Split::Test).take(dialogues) {
        test.add(&said);
        found.add(&said);
    }
    let mut train = Tally::default();
    for (i, said) in of(Split::Train).take(TIMES * dialogues).enumerate() {
        if i < dialogues {
            train.add(&said);
        }
        found.look_up(&said, i < dialogues);
    }
    let tables = Tables::get();
    let mut wordings = Count::default();
    let mut questions = Count::default();
    for (key, group) in tables.relations.iter().flat_map(|relation| &relation.wordings) {
        let asks = key.starts_with("ask") || *key == "prompt";
        let count = if asks { &mut questions } else { &mut wordings };
        count.add(group.len(), group.kept());
    }
    Shapes {
        relations: tables.relations.len(),
        wordings,
        questions,
        combos: total(tables.combos.iter().map(|combo| (combo.texts.len(), combo.texts.kept()))),
        small_talk: total(tables.talk.values().map(|group| (group.len(), group.kept()))),
        values: total(tables.pools.values().map(|pool| (pool.values.len(), pool.values.kept()))),
        train: train.variety(),
        test: test.variety(),
        overlap: found.overlap(),
    }
}

fn total(sizes: impl Iterator<Item = (usize, usize)>) -> Count {
    let mut count = Count::default();
    sizes.for_each(|(all, test)| count.add(all, test));
    count
}

impl Count {
    fn add(&mut self, all: usize, test: usize) {
        self.all += all;
        self.test += test;
    }
}

/// The turns of one conversation.
struct Spoken {
    turns: Vec<SpokenTurn>,
}

struct SpokenTurn {
    text: String,
    /// Its words in small letters.
    words: Vec<String>,
    /// The words of each sentence.
    sentences: Vec<String>,
    /// The shape of each sentence.
    shapes: Vec<String>,
}

fn read((dialogue, said): &(SyntheticDialogue, Vec<Vec<Said>>)) -> Spoken {
    let turns = dialogue.sample.conversation.sessions.iter().flat_map(|session| &session.turns);
    let turns = turns.zip(said).map(|(turn, said)| {
        let sentences = sentences(&turn.text);
        SpokenTurn {
            text: turn.text.clone(),
            shapes: sentences.iter().map(|words| shape(words, said)).collect(),
            sentences: sentences.iter().map(|words| words.join(" ")).collect(),
            words: sentences.into_iter().flatten().collect(),
        }
    });
    Spoken { turns: turns.collect() }
}

/// The words of each sentence: small letters, no punctuation, `don't` as `dont`, `Ann's` as two.
fn sentences(text: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut word = String::new();
    let mut chars = text.chars().peekable();
    let close = |word: &mut String, all: &mut Vec<Vec<String>>, ends: bool| {
        let word = std::mem::take(word).to_lowercase();
        let last = all.len() - 1;
        if let Some(owner) = word.strip_suffix("'s") {
            all[last].extend(
                [owner.replace('\'', ""), "s".to_owned()].into_iter().filter(|word| !word.is_empty()),
            );
        } else if word.contains(char::is_alphanumeric) {
            all[last].push(word.replace('\'', ""));
        }
        if ends && !all[last].is_empty() {
            all.push(Vec::new());
        }
    };
    while let Some(letter) = chars.next() {
        if letter.is_alphanumeric() || letter == '\'' {
            word.push(letter);
            continue;
        }
        let title = ABBREVIATIONS.contains(&word.to_lowercase().as_str());
        let ends = ['.', '!', '?', '…'].contains(&letter) && !title;
        close(&mut word, &mut all, ends && chars.peek().is_none_or(|next| next.is_whitespace()));
    }
    close(&mut word, &mut all, true);
    all.retain(|words| !words.is_empty());
    all
}

/// A sentence with what is said in it replaced by what it stands for, the longest first.
fn shape(words: &[String], said: &[Said]) -> String {
    let mut known: Vec<(Vec<String>, &str)> = said
        .iter()
        .map(|said| (sentences(&said.text).concat(), said.meant.as_str()))
        .filter(|(words, _)| !words.is_empty())
        .collect();
    known.sort_by_key(|(words, _)| std::cmp::Reverse(words.len()));
    let mut shape: Vec<String> = Vec::new();
    let mut rest = words;
    while let [word, after @ ..] = rest {
        if let Some((value, meant)) = known.iter().find(|(value, _)| rest.starts_with(value)) {
            // The article goes with the value.
            if let Some(article) = shape.last_mut().filter(|word| *word == "an") {
                "a".clone_into(article);
            }
            shape.push((*meant).to_owned());
            rest = &rest[value.len()..];
            continue;
        }
        let one = word.strip_suffix('s');
        let of =
            known.iter().find(|(value, _)| matches!(value.as_slice(), [only] if Some(only.as_str()) == one));
        shape.push(of.map_or_else(|| word.clone(), |(_, meant)| format!("{meant}s")));
        rest = after;
    }
    shape.join(" ")
}

/// What is counted of conversations.
#[derive(Default)]
struct Tally {
    dialogues: usize,
    turns: usize,
    sentences: usize,
    distinct_turns: HashSet<String>,
    distinct_sentences: HashSet<String>,
    shapes: HashSet<String>,
}

impl Tally {
    fn add(&mut self, said: &Spoken) {
        self.dialogues += 1;
        for turn in &said.turns {
            self.turns += 1;
            self.sentences += turn.sentences.len();
            self.distinct_turns.insert(turn.text.clone());
            self.distinct_sentences.extend(turn.sentences.iter().cloned());
            self.shapes.extend(turn.shapes.iter().cloned());
        }
    }

    fn variety(&self) -> Variety {
        Variety {
            dialogues: self.dialogues,
            turns: self.turns,
            distinct_turns: self.distinct_turns.len(),
            sentences: self.sentences,
            distinct_sentences: self.distinct_sentences.len(),
            shapes: self.shapes.len(),
        }
    }
}

/// How often the test split says something, and whether the training sets do.
#[derive(Default)]
struct Item {
    times: usize,
    same_size: bool,
    ten_times: bool,
}

/// The shapes of the test split's sentences (under 0) and its sequences of words, by their length.
#[derive(Default)]
struct Found(BTreeMap<usize, HashMap<String, Item>>);

impl Found {
    fn add(&mut self, said: &Spoken) {
        items(said, |length, item| {
            self.0.entry(length).or_default().entry(item).or_default().times += 1;
        });
    }

    fn look_up(&mut self, said: &Spoken, also_in_the_small: bool) {
        items(said, |length, item| {
            if let Some(item) = self.0.get_mut(&length).and_then(|known| known.get_mut(&item)) {
                item.same_size |= also_in_the_small;
                item.ten_times = true;
            }
        });
    }

    fn overlap(&self) -> Vec<Overlap> {
        let share = |known: &HashMap<String, Item>, has: fn(&Item) -> bool| {
            let times = |all: bool| {
                let counted = known.values().filter(move |item| all || has(item));
                counted.fold((0, 0), |(distinct, running), item| (distinct + 1, running + item.times))
            };
            let (all, found) = (times(true), times(false));
            let of = |part: usize, all: usize| if all == 0 { 0.0 } else { part as f64 / all as f64 };
            Share { distinct: of(found.0, all.0), running: of(found.1, all.1) }
        };
        let overlap = self.0.iter().map(|(length, known)| Overlap {
            of: if *length == 0 { "sentence shapes".to_owned() } else { format!("{length}-grams") },
            distinct: known.len(),
            same_size: share(known, |item| item.same_size),
            ten_times: share(known, |item| item.ten_times),
        });
        overlap.collect()
    }
}

/// Calls back with each shape and each sequence of words within a turn.
fn items(said: &Spoken, mut item: impl FnMut(usize, String)) {
    for turn in &said.turns {
        for shape in &turn.shapes {
            item(0, shape.clone());
        }
        for length in LENGTHS {
            for words in turn.words.windows(length) {
                item(length, words.join(" "));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, meant: &str) -> Said {
        Said { text: text.to_owned(), meant: meant.to_owned() }
    }

    fn shape_of(text: &str, said: &[Said]) -> Vec<String> {
        sentences(text).iter().map(|words| shape(words, said)).collect()
    }

    #[test]
    fn a_shape_has_lists_for_values_and_no_slips() {
        let all = [
            said("New York", "<city>"),
            said("York", "<town>"),
            said("dog", "<animal>"),
            said("O'Neil", "<person>"),
            said("engineer", "<job>"),
            said("reisde", "reside"),
        ];
        assert_eq!(
            shape_of("I'm an engineer... Don't laugh! my dogs and O'Neil's dog reisde in New York", &all),
            ["im a <job>", "dont laugh", "my <animal>s and <person> s <animal> reside in <city>"]
        );
        assert_eq!(shape_of("At 9:30 p.m., York?! :)", &all), ["at 9 30 p m <town>"]);
        assert_eq!(shape_of("", &all), [""; 0]);
    }

    #[test]
    fn what_training_says_too_is_found() {
        let spoken = |text: &str| {
            let sentences = sentences(text);
            let shapes = sentences.iter().map(|words| words.join(" ")).collect::<Vec<_>>();
            let turn = SpokenTurn {
                text: text.to_owned(),
                words: sentences.concat(),
                sentences: shapes.clone(),
                shapes,
            };
            Spoken { turns: vec![turn] }
        };
        let mut found = Found::default();
        found.add(&spoken("one two three four. one two three"));
        found.look_up(&spoken("zero one two three"), true);
        found.look_up(&spoken("two three four"), false);
        let overlap = found.overlap();
        let names: Vec<&str> = overlap.iter().map(|overlap| overlap.of.as_str()).collect();
        assert_eq!(names, ["sentence shapes", "3-grams", "4-grams", "5-grams"]);
        // 123 twice, 234, 341, 412
        assert_eq!(overlap[1].distinct, 4);
        assert_eq!(overlap[1].same_size, Share { distinct: 0.25, running: 0.4 });
        assert_eq!(overlap[1].ten_times, Share { distinct: 0.5, running: 0.6 });
        assert_eq!(overlap[0].ten_times, Share::default());
    }

    #[test]
    fn conversations_have_fewer_shapes_than_sentences() {
        let shapes = shapes(1, 3, Options::default());
        assert_eq!((shapes.train.dialogues, shapes.test.dialogues), (3, 3));
        for variety in [shapes.train, shapes.test] {
            assert!(variety.shapes < variety.distinct_sentences, "{variety:?}");
            assert!(variety.distinct_sentences <= variety.sentences, "{variety:?}");
            assert!(variety.distinct_turns <= variety.turns, "{variety:?}");
            assert!(variety.shapes > 100, "{variety:?}");
        }
        for overlap in &shapes.overlap {
            assert!(overlap.same_size.distinct <= overlap.ten_times.distinct, "{overlap:?}");
        }
        assert!(shapes.wordings.test * 4 < shapes.wordings.all && shapes.relations >= 60);
    }

    /// A value that were left in its sentence would make a shape of its own.
    #[test]
    fn no_invented_value_is_left_in_a_shape() {
        for split in [Split::Train, Split::Test] {
            for (turn, said) in traced(split) {
                let shapes = shape_of(&turn, &said).join(" ");
                for value in said.iter().filter(|said| said.meant.starts_with('<') && said.text.len() > 9) {
                    let words = sentences(&value.text).concat().join(" ");
                    assert!(!format!(" {shapes} ").contains(&format!(" {words} ")), "{words}: {turn}");
                }
            }
        }
    }

    fn traced(split: Split) -> Vec<(String, Vec<Said>)> {
        let (dialogue, said) = trace_one(7, 1, split, Options::default());
        let turns = dialogue.sample.conversation.sessions.into_iter().flat_map(|session| session.turns);
        turns.map(|turn| turn.text).zip(said).collect()
    }
}
