//! Which words a completion may use: those of its prompt, and the model's own.
//!
//! A small model that copies a name letter by letter goes astray: `Russian` becomes `Hussian`. What
//! it writes is about its prompt, so its words stand there, in this form or a near one; the few that
//! do not (`Works`, `named`, `longer`) are the model's lexicon, learned with its weights. A bundle
//! without a lexicon writes freely.

use std::collections::{BTreeMap, HashSet};

/// The longest word that is told apart, in bytes: a longer one is not written.
pub(crate) const LONGEST_WORD: usize = 40;
/// A word must be missing in this many prompts before it is the model's own.
const LEAST_COUNT: usize = 5;

/// The words that a model may write though its prompt has them not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lexicon {
    words: Vec<String>,
}

impl Lexicon {
    /// Reads `lexicon.txt`: words between white space.
    pub fn parse(text: &str) -> Self {
        Self { words: text.split_whitespace().map(str::to_owned).collect() }
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        self.words.iter().flat_map(|word| [word, "\n"]).collect()
    }

    /// What the strings of completions say that their prompts do not, where it is said often:
    /// pairs of a prompt's text and a completion's string.
    ///
    /// ```
    /// use memory_r1::generation::Lexicon;
    /// let pairs = [("I moved to Lyon", "Lives in Lyon")];
    /// let lexicon = Lexicon::learn(pairs.into_iter().cycle().take(9));
    /// assert_eq!(lexicon.to_text(), "Lives\nin\n");
    /// ```
    pub fn learn<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let (mut last, mut known) = ("", HashSet::new());
        for (prompt, text) in pairs {
            if prompt != last {
                known.clear();
                last = prompt;
                for word in words(prompt) {
                    forms(word, |form| {
                        known.insert(form);
                    });
                }
            }
            for word in words(text).filter(|word| !known.contains(*word)) {
                *counts.entry(word).or_default() += 1;
            }
        }
        let often = counts.into_iter().filter(|(_, count)| *count >= LEAST_COUNT);
        Self { words: often.map(|(word, _)| word.to_owned()).collect() }
    }

    /// The lexicon with the words of a prompt's texts in all their forms.
    pub(crate) fn beside<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Words {
        let mut all = Words::default();
        for word in &self.words {
            all.insert(word);
        }
        let mut seen = HashSet::new();
        for word in texts.into_iter().flat_map(words) {
            if seen.insert(word) {
                forms(word, |form| all.insert(&form));
            }
        }
        all.find_ways_out();
        all
    }
}

/// Bytes that words are made of; all others stand between them.
fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

/// The words of a text; what a dash or a typographic apostrophe joins, whole and in parts.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let runs = text.split(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric());
    runs.flat_map(|run| {
        let parts = run.split(|c: char| !c.is_alphanumeric()).filter(move |part| part.len() < run.len());
        std::iter::once(run).chain(parts)
    })
    .filter(|word| !word.is_empty() && word.len() <= LONGEST_WORD)
}

/// A word as it may be written of what somebody said: `juggle` as `juggle`, `Juggle`, `juggles`,
/// `juggling`, `juggled`; `hobbies` as `hobby`.
fn forms(word: &str, mut add: impl FnMut(String)) {
    let mut with_case = |form: String| {
        let mut chars = form.chars();
        let capital: String =
            chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default();
        add(form.to_lowercase());
        add(capital);
        add(form);
    };
    with_case(word.to_owned());
    if word.len() < 2 || !word.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return;
    }
    // A name has no endings but that of several.
    let endings: &[&str] = if word.starts_with(|c: char| c.is_lowercase()) {
        &["s", "es", "ing", "ed", "d"]
    } else {
        &["s", "es"]
    };
    for ending in endings {
        with_case(format!("{word}{ending}"));
    }
    if let Some(stem) = word.strip_suffix('e').filter(|_| endings.len() > 2) {
        with_case(format!("{stem}ing"));
    }
    if let Some(stem) = word.strip_suffix('y') {
        with_case(format!("{stem}ies"));
    }
    if let Some(stem) = word.strip_suffix("ies") {
        with_case(format!("{stem}y"));
    }
    for ending in ["s", "es", "ing", "ed"] {
        if let Some(stem) = word.strip_suffix(ending).filter(|stem| stem.len() > 1) {
            with_case(stem.to_owned());
        }
    }
}

/// A set of words as a trie over their bytes. Its nodes are numbers; 0 stands between words.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    children: Vec<(u8, u32)>,
    is_word: bool,
    /// The next byte of a shortest word from here, and how many bytes it needs.
    way_out: (usize, u8),
}

impl Default for Words {
    fn default() -> Self {
        Self { nodes: vec![Node { is_word: true, ..Node::default() }] }
    }
}

impl Words {
    fn insert(&mut self, word: &str) {
        if word.is_empty() || word.len() > LONGEST_WORD {
            return;
        }
        let mut at = 0;
        for byte in word.bytes() {
            at = self.child(at, byte).unwrap_or_else(|| {
                let next = self.nodes.len() as u32;
                self.nodes.push(Node::default());
                self.nodes[at as usize].children.push((byte, next));
                next
            });
        }
        self.nodes[at as usize].is_word = true;
    }

    /// Children come after their parents, so that from the end every way is known.
    fn find_ways_out(&mut self) {
        for at in (0..self.nodes.len()).rev() {
            let node = &self.nodes[at];
            if !node.is_word {
                let ways = node.children.iter().map(|&(byte, child)| {
                    let child = &self.nodes[child as usize];
                    (if child.is_word { 1 } else { child.way_out.0 + 1 }, byte)
                });
                let best = ways.min().unwrap_or_default();
                self.nodes[at].way_out = best;
            }
        }
    }

    fn child(&self, at: u32, byte: u8) -> Option<u32> {
        let children = &self.nodes[at as usize].children;
        children.iter().find(|(own, _)| *own == byte).map(|(_, child)| *child)
    }

    /// Where a byte leads, if a word may go on or end with it.
    pub(crate) fn step(&self, at: u32, byte: u8) -> Option<u32> {
        if is_part(byte) { self.child(at, byte) } else { (!self.is_open(at)).then_some(0) }
    }

    /// In a word that is not complete.
    pub(crate) fn is_open(&self, at: u32) -> bool {
        !self.nodes[at as usize].is_word
    }

    /// The byte that brings a word nearer to its end.
    pub(crate) fn way_out(&self, at: u32) -> u8 {
        self.nodes[at as usize].way_out.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(words: &Words, text: &str) -> bool {
        let mut at = Some(0);
        for byte in text.bytes() {
            at = at.and_then(|at| words.step(at, byte));
        }
        at.is_some_and(|at| !words.is_open(at))
    }

    #[test]
    fn what_the_prompt_says_and_the_lexicon_has_can_be_written_and_nothing_else() {
        let lexicon = Lexicon::parse("Works\nas\nEnjoys\nnamed\n");
        let words = lexicon.beside(["> Ann: i juggle with Zoë's old studies, 2 torches 🐕"]);
        for text in ["Enjoys juggling", "Juggles", "named Zoë, as 2", "study", "Torches", "I", "🐕", "..."]
        {
            assert!(accepts(&words, text), "{text}");
        }
        for text in ["Enjoy", "works", "juggl", "Zo", "zoe", "torc", "22", "named Anne"] {
            assert!(!accepts(&words, text), "{text}");
        }
    }

    #[test]
    fn every_word_that_was_begun_can_be_ended() {
        let words = Lexicon::parse("named").beside(["Constantinople zürich 東京"]);
        for node in 0..words.nodes.len() as u32 {
            let (mut at, mut steps) = (node, 0);
            while words.is_open(at) {
                at = words.step(at, words.way_out(at)).expect("the way out is a way");
                steps += 1;
            }
            assert_eq!(steps, if words.is_open(node) { words.nodes[node as usize].way_out.0 } else { 0 });
        }
    }

    #[test]
    fn a_lexicon_is_what_is_often_said_beyond_the_prompt() {
        let pairs =
            [("My sister moved to Rome", "Sister lives in Rome"), ("Rex is my dog", "Has a dog named Rex")];
        let often = pairs.into_iter().cycle().take(2 * LEAST_COUNT);
        let lexicon = Lexicon::learn(often.chain([("hi", "Once")]));
        assert_eq!(lexicon.to_text(), "Has\na\nin\nlives\nnamed\n");
        assert_eq!(Lexicon::parse(&lexicon.to_text()), lexicon);
        assert_eq!(Lexicon::learn([]), Lexicon::default());
    }
}
