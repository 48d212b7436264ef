//! Variants of a situation: other names and numbers, consistently, and the slips of typing. What a
//! fact says must be read from the turn, and not known by heart.
//!
//! Names of the test split never stay, and a situation that cannot do without is left out.

use std::collections::{BTreeMap, BTreeSet};

use super::Situation;
use crate::datasets::synthetic::names::{is_english, kept_names, training_name, words};
use crate::random::{Random, keyed};

/// How often a name becomes another.
const RENAMED: f64 = 0.8;
/// How often numbers become others.
const RENUMBERED: f64 = 0.5;
/// How often a turn begins with a small letter, ends without its mark, and has two letters swapped.
const SLIPS: [f64; 3] = [0.12, 0.15, 0.06];
/// How many letters two forms of a name have in common: `Italy`, `Italian`.
const STEM: usize = 4;
/// Capitalised words that are no names, or whose meaning the rules of dates need.
#[rustfmt::skip]
const NO_NAMES: &[&str] = &[
    "april", "august", "aunt", "autumn", "boxing", "christmas", "dad", "december", "diwali", "dr", "easter",
    "eid", "february", "fri", "friday", "fridays", "gran", "grandad", "grandma", "grandpa", "granny",
    "halloween", "hanukkah", "i", "january", "july", "june", "king", "lent", "lord", "march", "may", "miss",
    "mom", "mon", "monday", "mondays", "mother", "mr", "mrs", "ms", "mum", "mummy", "nan", "new", "november",
    "october", "ok", "okay", "passover", "professor", "queen", "ramadan", "saint", "sat", "saturday",
    "saturdays", "september", "sir", "spring", "st", "street", "summer", "sun", "sunday", "sundays",
    "thanksgiving", "thursday", "thursdays", "tuesday", "tuesdays", "uncle", "valentine", "wednesday",
    "wednesdays", "winter", "xmas",
];
/// Words before a place.
const BEFORE_PLACES: [&str; 6] = ["in", "to", "from", "near", "around", "at"];
/// Numbers in words: `sixty-eight` beside `67`.
#[rustfmt::skip]
const IN_WORDS: &[&str] = &[
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen", "twenty", "thirty", "forty", "fourty", "fifty", "sixty", "seventy", "eighty", "ninety",
    "hundred", "dozen",
];
/// What a number stands beside where it is a time or a day.
#[rustfmt::skip]
const TIMES: &[&str] = &[
    "am", "pm", "o", "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sept", "sep", "oct",
    "nov", "dec",
];

/// A word where it stands in its text.
struct Word<'a> {
    text: &'a str,
    start: usize,
    /// A sentence may begin with it.
    is_first: bool,
}

fn placed(text: &str) -> impl Iterator<Item = Word<'_>> {
    let start = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
    words(text).map(move |word| {
        let before = text[..start(word)].trim_end_matches(|c: char| !c.is_alphanumeric() && c != '.');
        let gap = &text[before.len()..start(word)];
        let is_first =
            before.is_empty() || before.ends_with('.') || gap.contains(['!', '?', '…', ':', '"', '“', '(']);
        Word { text: word, start: start(word), is_first }
    })
}

fn is_capitalised(word: &str) -> bool {
    word.starts_with(char::is_uppercase) && word.chars().skip(1).any(char::is_lowercase)
}

fn rewrite(text: &str, new: impl Fn(&Word<'_>) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut copied = 0;
    for word in placed(text) {
        if let Some(new) = new(&word) {
            out.push_str(&text[copied..word.start]);
            out.push_str(&new);
            copied = word.start + word.text.len();
        }
    }
    out.push_str(&text[copied..]);
    out
}

/// How a text is rewritten.
#[derive(Default)]
struct Changes {
    /// By the old name in small letters: the new one, and whether it is always a name, however it
    /// is written and wherever it stands.
    names: BTreeMap<String, (String, bool)>,
    /// What is added to numbers of so many digits.
    numbers: BTreeMap<usize, i64>,
}

impl Changes {
    fn apply(&self, text: &str) -> String {
        rewrite(text, |word| self.number(text, word).or_else(|| self.name(word)))
    }

    /// A speaker is a name.
    fn apply_to_speaker(&self, speaker: &str) -> String {
        rewrite(speaker, |word| self.names.get(&word.text.to_lowercase()).map(|(new, _)| new.clone()))
    }

    fn name(&self, word: &Word<'_>) -> Option<String> {
        let (new, always) = self.names.get(&word.text.to_lowercase())?;
        if !always && (word.is_first || !is_capitalised(word.text)) {
            return None;
        }
        Some(if word.text.starts_with(char::is_lowercase) {
            new.to_lowercase()
        } else if is_capitalised(word.text) {
            new.clone()
        } else {
            new.to_uppercase()
        })
    }

    fn number(&self, text: &str, word: &Word<'_>) -> Option<String> {
        let delta = self.numbers.get(&word.text.len())?;
        let number = countable(text, word)?;
        Some((number + delta).to_string())
    }
}

/// A number of several digits that is neither a year, a time, a day nor a part of another number.
fn countable(text: &str, word: &Word<'_>) -> Option<i64> {
    let number: i64 = word.text.parse().ok().filter(|number| *number >= 10 && !word.text.starts_with('0'))?;
    let (before, after) = (&text[..word.start], &text[word.start + word.text.len()..]);
    let joined = |c: char| c.is_ascii_digit();
    let is_part = before.strip_suffix([':', '.', ',', '/', '-']).is_some_and(|rest| rest.ends_with(joined))
        || after.strip_prefix([':', '.', ',', '/', '-']).is_some_and(|rest| rest.starts_with(joined));
    let is_time = |word: &str| TIMES.contains(&&word.to_lowercase()[..]);
    let beside = [words(before).last(), words(after).next()].into_iter().flatten().any(is_time);
    (!is_part && !beside && !(1900..2100).contains(&number)).then_some(number)
}

/// Writes the variants of situations.
pub struct Writer {
    seed: u64,
    /// How often a word, in small letters, is written as a name and how often as another word.
    usage: BTreeMap<String, (usize, usize)>,
}

impl Writer {
    /// Learns from all situations what is a name.
    pub fn new(seed: u64, all: &[Situation]) -> Self {
        let mut usage: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for word in all.iter().flat_map(Situation::texts).flat_map(placed) {
            let own = usage.entry(word.text.to_lowercase()).or_default();
            if word.text.starts_with(char::is_lowercase) {
                own.1 += 1;
            } else if is_capitalised(word.text) && !word.is_first {
                own.0 += 1;
            }
        }
        let speakers = all.iter().flat_map(|own| own.context.iter().chain([&own.turn]));
        for name in speakers.flat_map(|said| words(&said.speaker)).filter(|name| is_capitalised(name)) {
            usage.entry(name.to_lowercase()).or_default().0 += 1;
        }
        Self { seed, usage }
    }

    /// A variant of a situation; the first, 0, is as it was written but for names of the test
    /// split. Nothing where such a name stays.
    pub fn variant(&self, situation: &Situation, copy: usize) -> Option<Situation> {
        let turn: Vec<u64> = situation.turn.text.bytes().map(u64::from).collect();
        let mut random = Random::new(self.seed, &[0xf4ee, keyed(0, &turn), copy as u64]);
        let mut changes = Changes::default();
        self.replace_kept(situation, &mut changes, &mut random);
        if copy > 0 {
            self.rename(situation, &mut changes, &mut random);
            renumber(situation, &mut changes, &mut random);
        }
        let mut variant =
            situation.map(|text| changes.apply(text), |speaker| changes.apply_to_speaker(speaker));
        if copy > 0 {
            slip(&mut variant, &mut random);
        }
        let is_free = variant.texts().all(|text| kept_names(text).is_empty());
        is_free.then_some(variant)
    }

    /// Words of the test split's names give way, a single one of each name.
    fn replace_kept(&self, situation: &Situation, changes: &mut Changes, random: &mut Random) {
        for name in situation.texts().flat_map(kept_names) {
            let mut names = name.iter().filter(|word| is_capitalised(word) && self.is_name(word));
            let Some(word) = names.next_back().or(name.last()) else { continue };
            self.replace(word, situation, changes, random);
        }
    }

    fn rename(&self, situation: &Situation, changes: &mut Changes, random: &mut Random) {
        let said = |word: &str| {
            let found = |text: &str| words(text).any(|own| own.eq_ignore_ascii_case(word));
            (situation.read().any(found), situation.written().any(found))
        };
        let speakers = situation.context.iter().chain([&situation.turn]).map(|said| &said.speaker[..]);
        let speakers: BTreeSet<&str> = speakers.flat_map(words).collect();
        let mut seen = BTreeSet::new();
        for word in situation.texts().flat_map(placed) {
            let is_new = seen.insert(word.text);
            if !is_new || !is_capitalised(word.text) || !self.is_name(word.text) || is_english(word.text) {
                continue;
            }
            // What is concluded must be said in the same form.
            let (is_read, is_written) = said(word.text);
            let is_spoken_only = speakers.contains(word.text) && !is_written;
            if is_read && !is_spoken_only && !has_forms(situation, word.text) && random.chance(RENAMED) {
                self.replace(word.text, situation, changes, random);
            }
        }
    }

    fn replace(&self, word: &str, situation: &Situation, changes: &mut Changes, random: &mut Random) {
        let key = word.to_lowercase();
        if changes.names.contains_key(&key) {
            return;
        }
        let is_place = situation.texts().any(|text| {
            let words: Vec<&str> = words(text).collect();
            words.windows(2).any(|two| two[1] == word && BEFORE_PLACES.contains(&two[0]))
        });
        let is_free = |new: &String| {
            let said = situation.texts().flat_map(words).any(|own| own.eq_ignore_ascii_case(new));
            !said && !changes.names.values().any(|(other, _)| other == new)
        };
        let new = (0..8).find_map(|_| training_name(word, is_place, random).filter(is_free));
        if let Some(new) = new {
            let always = self.is_name(word);
            changes.names.insert(key, (new, always));
        }
    }

    /// Whether a word is mostly written as a name.
    fn is_name(&self, word: &str) -> bool {
        let key = word.to_lowercase();
        let (names, others) = self.usage.get(&key).copied().unwrap_or_default();
        names > others && key.chars().count() > 1 && !NO_NAMES.contains(&&key[..])
    }
}

/// Whether a situation says another form of a word: a nickname, a people for its land, a slip.
fn has_forms(situation: &Situation, word: &str) -> bool {
    let word = word.to_lowercase();
    let stem: String = word.chars().take(STEM).collect();
    let is_other = |own: &str| {
        let own = own.to_lowercase();
        own != word && own.starts_with(&stem)
    };
    situation.texts().flat_map(words).any(is_other)
}

/// Adds the same to all numbers of as many digits: who was a year younger stays so.
fn renumber(situation: &Situation, changes: &mut Changes, random: &mut Random) {
    fn numbers<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeSet<i64> {
        texts.flat_map(|text| placed(text).filter_map(move |word| countable(text, &word))).collect()
    }
    let read = numbers(situation.read());
    // What is said in words and written in digits would come apart.
    let in_words = |word: &str| IN_WORDS.contains(&&word.to_lowercase()[..]);
    let is_mixed = situation.texts().flat_map(words).any(in_words);
    if is_mixed || !numbers(situation.written()).is_subset(&read) || !random.chance(RENUMBERED) {
        return;
    }
    for digits in 2..=5u32 {
        let (least, most) = (10i64.pow(digits - 1), 10i64.pow(digits) - 1);
        let own: Vec<i64> = read.iter().copied().filter(|number| (least..=most).contains(number)).collect();
        let Some(first) = own.first() else { continue };
        let delta = random.below(*first as usize / 2 + 1) as i64 - first / 4;
        let fits = |number: &i64| (least..=most).contains(&(number + delta)) && !is_year(number + delta);
        if own.iter().all(fits) {
            changes.numbers.insert(digits as usize, delta);
        }
    }
}

fn is_year(number: i64) -> bool {
    (1900..2100).contains(&number)
}

/// How people type: none of the words that a fact takes over suffers.
fn slip(situation: &mut Situation, random: &mut Random) {
    let [small, unmarked, swapped] = SLIPS.map(|share| random.chance(share));
    let concluded: BTreeSet<String> = situation.written().flat_map(words).map(str::to_lowercase).collect();
    let mut text = situation.turn.text.clone();
    if swapped {
        let plain = |word: &Word<'_>| {
            let letters = word.text.len();
            letters > 4 && word.text.bytes().all(|b| b.is_ascii_lowercase()) && !concluded.contains(word.text)
        };
        let places: Vec<(usize, usize)> =
            placed(&text).filter(plain).map(|word| (word.start, word.text.len())).collect();
        if let Some((start, letters)) = random.pick(&places).copied() {
            let at = start + 1 + random.below(letters - 2);
            let two: String = text[at..at + 2].chars().rev().collect();
            text.replace_range(at..at + 2, &two);
        }
    }
    if unmarked {
        let end = text.trim_end_matches(['.', '!']).len();
        text.truncate(if end == 0 { text.len() } else { end });
    }
    let first = text.split(' ').next().unwrap_or_default();
    let is_plain = words(first).all(|word| !concluded.contains(&word.to_lowercase()));
    if small
        && is_plain
        && let Some(letter) = text.chars().next()
    {
        let lower: String = letter.to_lowercase().collect();
        text.replace_range(..letter.len_utf8(), &lower);
    }
    situation.turn.text = text;
}
