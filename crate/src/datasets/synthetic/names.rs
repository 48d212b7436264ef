//! Names for texts that others wrote: which of them are kept for the test split, and training
//! names to put in their places.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use super::Split;
use super::tables::Tables;
use super::values::draw;
use crate::random::Random;

/// The lists that a name of no list may be of.
const USUAL: [&str; 4] = ["woman", "man", "city", "pet"];
/// How many draws a list is given to come up with a single new word.
const DRAWS: usize = 40;

/// The words of a text: letters and digits.
pub(in crate::datasets) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// What the lists say about names, by their words.
struct Names {
    /// The names of the test split, each as its words, by the first of them.
    kept: BTreeMap<&'static str, Vec<Vec<&'static str>>>,
    /// The list that a name of one word is of.
    lists: BTreeMap<&'static str, &'static str>,
    /// The dictionary, in small letters.
    dictionary: BTreeSet<String>,
}

impl Names {
    fn get() -> &'static Self {
        static NAMES: OnceLock<Names> = OnceLock::new();
        NAMES.get_or_init(|| {
            let tables = Tables::get();
            let is_name = |value: &&str| value.starts_with(char::is_uppercase);
            let open = || tables.pools.iter().filter(|(_, pool)| !pool.closed);
            // A name of two lists may be training's in the other one.
            let free: BTreeSet<&str> =
                open().flat_map(|(_, pool)| pool.values.of(Split::Train)).copied().collect();
            let mut kept: BTreeMap<&str, Vec<Vec<&str>>> = BTreeMap::new();
            let mut lists = BTreeMap::new();
            for (list, pool) in open() {
                let test = if pool.values.kept() == 0 { &[][..] } else { pool.values.of(Split::Test) };
                for value in test.iter().filter(|value| is_name(value) && !free.contains(*value)) {
                    let parts: Vec<&str> = words(value).collect();
                    kept.entry(parts[0]).or_default().push(parts);
                }
                for value in test.iter().chain(pool.values.of(Split::Train)).filter(|value| is_name(value)) {
                    lists.entry(*value).or_insert(*list);
                }
            }
            let dictionary = tables.words.iter().map(|word| word.to_lowercase()).collect();
            Self { kept, lists, dictionary }
        })
    }
}

/// The names of the test split that a text says, each as its words.
pub(crate) fn kept_names(text: &str) -> Vec<&'static [&'static str]> {
    let words: &[&str] = &words(text).collect::<Vec<_>>();
    let starting = |at: usize| {
        let known = Names::get().kept.get(words[at]).into_iter().flatten();
        known.filter(move |name| words[at..].starts_with(name)).map(|name| &name[..])
    };
    (0..words.len()).flat_map(starting).collect()
}

/// Whether the dictionary of English words has it.
pub(in crate::datasets) fn is_english(word: &str) -> bool {
    Names::get().dictionary.contains(&word.to_lowercase())
}

/// Another word to stand for a name: of the same list where it is of one, of places where it is
/// one, and with the same article. A third are made up of syllables, and of the others a half
/// spliced of two names.
pub(in crate::datasets) fn training_name(word: &str, is_place: bool, random: &mut Random) -> Option<String> {
    let usual = if is_place { "city" } else { USUAL[random.below(USUAL.len())] };
    let own = Names::get().lists.get(word).copied().unwrap_or(usual);
    let takes_an = |word: &str| word.to_lowercase().starts_with(['a', 'e', 'i', 'o', 'u']);
    let fits = |name: &String| {
        name.starts_with(char::is_uppercase)
            && name.chars().all(char::is_alphabetic)
            && takes_an(name) == takes_an(word)
            && kept_names(name).is_empty()
    };
    (0..DRAWS).map(|_| draw(own, Split::Train, random)).find(&fits).or_else(|| {
        // A list of long names has none of a single word.
        (0..DRAWS).map(|_| draw("woman", Split::Train, random)).find(&fits)
    })
}
