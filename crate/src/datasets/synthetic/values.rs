//! Values for slots: from the lists, or made up of syllables so that copying is learned and not
//! the lists by heart.

use super::Split;
use super::tables::{Invention, Pool, Tables, hash};
use crate::random::Random;

/// How often a value of an open list is made up.
const INVENTED: f64 = 0.3;
/// How often a training value has one of its words replaced by one that nobody has heard: what
/// a sentence says about its value must come from the sentence, and the value be copied.
const GARBLED: f64 = 0.5;
/// How often that is an English word from the dictionary, and not a spliced one.
const ENGLISH: f64 = 0.5;

const ONSETS: &str = "b|br|c|ch|d|dr|f|fl|g|gr|h|j|k|kr|l|m|n|p|pr|r|s|sh|sk|st|t|th|tr|v|w|y|z";
const VOWELS: &str = "a|e|i|o|u|a|e|i|o|ai|ea|ou|ia";
const CODAS: &str = "||||n|l|r|s|k|m|nd|rn|x|th|lo|ra|na|ka|bo|dy";
const TOWN_ENDS: &str = "ville|ton|burg|ham|ford|field|port|stad|mouth|dale|by|haven|wick|berg|a|o";
const COMPANY_ENDS: &str = "Labs|Foods|& Sons|Bank|Studio|Logistics|Media|Systems|Health|Motors|Energy|Books|Airlines|Design|Software|Hospital|School|Bakery";
const ADJECTIVES: &str = "Silent|Golden|Broken|Hidden|Electric|Paper|Velvet|Last|Crooked|Distant|Burning|Frozen|Little|Blue|Wild|Hollow|Midnight|Silver|Restless|Lonely|Purple|Northern|Glass|Wandering|Second|Bright";
const NOUNS: &str = "Foxes|Harbor|Rivers|Garden|Machines|Winter|Lanterns|Tigers|Mountain|Letters|Horses|Kingdom|Shadows|Orchard|Comets|Sailors|Bridge|Planets|Mirrors|Pilots|Island|Wolves|Season|Clocks|Daughters|Station";

/// A value of a pool for a split.
pub(super) fn draw(pool: &str, split: Split, random: &mut Random) -> String {
    let Some(list) = Tables::get().pools.get(pool) else { return format!("<{pool}>") };
    if let Some(kind) = list.invention.filter(|_| random.chance(INVENTED)) {
        return invent(kind, split, random);
    }
    let value = random.pick(list.values.of(split)).map_or_else(String::new, |value| (*value).to_owned());
    if split == Split::Train && !list.closed && random.chance(GARBLED) {
        return garble(&value, random);
    }
    value
}

/// The value with another word in it: any English one, or one spliced of two training words
/// (`Lisbon` and `Madrid` give `Lisdrid`).
fn garble(value: &str, random: &mut Random) -> String {
    let words: Vec<&str> = value.split(' ').collect();
    let long: Vec<usize> = (0..words.len())
        .filter(|place| words[*place].len() > 2 && words[*place].chars().all(|c| c.is_ascii_alphabetic()))
        .collect();
    let Some(place) = random.pick(&long).copied() else { return value.to_owned() };
    if random.chance(ENGLISH) {
        let word = random.pick(&Tables::get().words).map_or(value, |word| word);
        let capital = words[place].starts_with(|c: char| c.is_uppercase());
        let word = if capital { super::wording::capitalise(word) } else { word.to_lowercase() };
        return replaced(value, &words, place, word);
    }
    let pools: Vec<&Pool> = Tables::get().pools.values().filter(|pool| !pool.closed).collect();
    let mut part = || -> Option<&'static str> {
        let pool = random.pick(&pools)?;
        let value = random.pick(pool.values.of(Split::Train))?;
        value.split(' ').filter(|word| word.chars().all(|c| c.is_ascii_alphabetic())).max_by_key(|w| w.len())
    };
    let (Some(head), Some(tail)) = (part(), part()) else { return value.to_owned() };
    let cut = |word: &str, random: &mut Random| 1 + random.below(word.len().saturating_sub(1).max(1));
    let (until, from) = (cut(head, random), cut(tail, random));
    let spliced =
        format!("{}{}", &head[..until.min(head.len())], &tail[from.min(tail.len())..]).to_lowercase();
    let capital = words[place].starts_with(|c: char| c.is_uppercase());
    let spliced = if capital { super::wording::capitalise(&spliced) } else { spliced };
    if spliced.len() < 3 { value.to_owned() } else { replaced(value, &words, place, spliced) }
}

/// The value with another word in a place, unless that is what the test split says.
fn replaced(value: &str, words: &[&str], place: usize, word: String) -> String {
    let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    words[place] = word;
    let replaced = words.join(" ");
    if is_listed(&replaced) || hash(&replaced).is_multiple_of(5) { value.to_owned() } else { replaced }
}

/// A made-up value; one in five belongs to the test split, by its hash.
fn invent(kind: Invention, split: Split, random: &mut Random) -> String {
    loop {
        let value = match kind {
            Invention::Person | Invention::Pet => {
                let syllables = 1 + random.below(2);
                let name = syllable_name(syllables, random);
                if name.len() < 3 {
                    continue;
                }
                name
            }
            Invention::Town => {
                let syllables = 1 + random.below(2);
                let stem = syllable_name(syllables, random);
                format!("{stem}{}", piece(TOWN_ENDS, random))
            }
            Invention::Company => {
                let syllables = 1 + random.below(2);
                format!("{} {}", syllable_name(syllables, random), piece(COMPANY_ENDS, random))
            }
            Invention::Band => {
                let the = if random.chance(0.6) { "The " } else { "" };
                format!("{the}{} {}", piece(ADJECTIVES, random), piece(NOUNS, random))
            }
            Invention::Title => match random.below(3) {
                0 => format!("The {} {}", piece(ADJECTIVES, random), piece(NOUNS, random)),
                1 => format!("{} of {}", piece(NOUNS, random), syllable_name(2, random)),
                _ => format!("{} {}", piece(ADJECTIVES, random), piece(NOUNS, random)),
            },
        };
        let held_out = hash(&value).is_multiple_of(5);
        if held_out == (split == Split::Test) && !is_listed(&value) {
            return value;
        }
    }
}

/// A name of some list must keep that list's split.
fn is_listed(value: &str) -> bool {
    let listed =
        |pool: &Pool| [Split::Train, Split::Test].iter().any(|split| pool.values.of(*split).contains(&value));
    Tables::get().pools.values().any(listed)
}

fn piece(list: &'static str, random: &mut Random) -> &'static str {
    let items: Vec<&'static str> = list.split('|').collect();
    random.pick(&items).copied().unwrap_or_default()
}

fn syllable_name(syllables: usize, random: &mut Random) -> String {
    let mut name = String::new();
    for _ in 0..syllables {
        name.push_str(piece(ONSETS, random));
        name.push_str(piece(VOWELS, random));
    }
    name.push_str(piece(CODAS, random));
    super::wording::capitalise(&name)
}
