//! How a turn is put into words: phrases, clauses, what stands around them, and slips.

use super::Author;
use super::entry::{Slots, slot_value};
use crate::datasets::synthetic::times::When;
use crate::datasets::synthetic::values;
use crate::datasets::synthetic::wording::{capitalise, end, fill, lower_first};

/// How often a sentence alone stands in a frame (`Did I tell you that …?`).
const FRAMED: f64 = 0.25;
/// How often a sentence has a typing mistake.
const MISTYPED: f64 = 0.04;

/// A sentence without its end, and the template that it came from.
pub(super) struct Clause {
    pub(super) text: String,
    pub(super) template: &'static str,
}

/// A value or a slip that stands in a turn, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::datasets::synthetic) struct Said {
    pub(in crate::datasets::synthetic) text: String,
    /// `<city>`, the list that a value is from, or the word that was to be typed.
    pub(in crate::datasets::synthetic) meant: String,
}

impl Said {
    fn value(text: &str, pool: &str) -> Self {
        let pool = if ["woman", "man"].contains(&pool) { "person" } else { pool };
        Self { text: text.to_owned(), meant: format!("<{pool}>") }
    }
}

impl Author {
    /// A phrase of a kind of talk, its slots filled from the lists.
    pub(super) fn phrase(&mut self, me: usize, kind: &str) -> String {
        let template = self.tables.talk(kind, self.split, &mut self.random);
        let (split, other) = (self.split, self.speakers[1 - me].name.clone());
        let said = &mut self.said;
        let text = fill(template, &mut self.random, &mut |name, random| {
            let (value, pool) = match name {
                "O" if other == "assistant" || other == "user" => return String::new(),
                "O" => (other.clone(), "person"),
                pool => (values::draw(pool, split, random), pool),
            };
            said.push(Said::value(&value, pool));
            value
        });
        text.replace(", !", "!").replace(", ?", "?").replace(",!", "!").replace(",,", ",").trim().to_owned()
    }

    /// Something said to pass the time.
    pub(super) fn small_talk(&mut self, me: usize) -> String {
        self.phrase(me, "smalltalk")
    }

    /// A sentence out of a template, now and then with a slip.
    pub(super) fn clause(
        &mut self,
        template: &'static str,
        slots: &Slots,
        when: Option<&When>,
        old: &str,
    ) -> Clause {
        self.note(slots);
        self.note_values(old.split(", ").flat_map(|values| values.split(" and ")).chain([old]));
        self.said.extend(when.map(|when| Said::value(&when.said, "time")));
        let text = fill(template, &mut self.random, &mut |name, _| match name {
            "o" => old.to_owned(),
            _ => slot_value(slots, when, name, |when| &when.said).unwrap_or_else(|| format!("<{name}>")),
        });
        let text = if self.random.chance(MISTYPED) { self.mistype(&text, slots) } else { text };
        Clause { text, template }
    }

    /// One slip of the finger in a longer word that is no value: two letters in the wrong order,
    /// one left out, one typed twice.
    fn mistype(&mut self, text: &str, slots: &Slots) -> String {
        let values: Vec<&String> = slots.values().flatten().collect();
        let plain = |word: &&str| {
            word.len() > 4
                && word.bytes().all(|b| b.is_ascii_lowercase())
                && !values.iter().any(|value| value.contains(*word))
        };
        let words: Vec<&str> = text.split(' ').filter(plain).collect();
        let Some(&word) = self.random.pick(&words) else { return text.to_owned() };
        let mut letters = word.as_bytes().to_vec();
        let at = 1 + self.random.below(letters.len() - 2);
        match self.random.below(3) {
            0 => letters.swap(at, at + 1),
            1 => drop(letters.remove(at)),
            _ => letters.insert(at, letters[at]),
        }
        let slip = String::from_utf8_lossy(&letters).into_owned();
        let text = text.replacen(word, &slip, 1);
        self.said.push(Said { text: slip, meant: word.to_owned() });
        text
    }

    /// Remembers that these values are said in this turn.
    pub(super) fn note(&mut self, slots: &Slots) {
        self.note_values(slots.values().flatten().map(String::as_str));
    }

    fn note_values<'a>(&mut self, values: impl Iterator<Item = &'a str>) {
        let used = &self.used;
        self.said.extend(values.filter_map(|value| Some(Said::value(value, used.get(value)?))));
    }

    /// Sentences with fillers around them.
    pub(super) fn compose(&mut self, me: usize, clauses: Vec<Clause>, parts: &mut Vec<String>) {
        let mark = *self.random.pick(&[".", ".", "!", ".", "", "!!", "..."]).unwrap_or(&".");
        let mut sentence = String::new();
        let alone = clauses.len() == 1;
        for (i, clause) in clauses.into_iter().enumerate() {
            let template = clause.template;
            let low = lower_first(&clause.text, template);
            if i > 0 {
                let word = self.phrase(me, "between");
                if word == "and" {
                    sentence = format!("{}, and {low}", sentence.trim_end_matches('.'));
                } else if word.ends_with(',') || word.ends_with(':') || word == "And" {
                    sentence = format!("{} {word} {low}", end(&sentence, "."));
                } else {
                    sentence = format!("{} {}", end(&sentence, "."), capitalise(&clause.text));
                }
            } else if self.random.chance(0.35) {
                let opener = self.phrase(me, "opener");
                let full = opener.ends_with(['!', '.', ':', '?']);
                let rest = if full { capitalise(&clause.text) } else { low };
                sentence = format!("{opener} {rest}");
            } else if alone && self.random.chance(FRAMED) {
                let frame = self.tables.talk("frame", self.split, &mut self.random);
                let inner = if frame.starts_with("{c}") { capitalise(&clause.text) } else { low };
                sentence = frame.replace("{c}", &inner);
            } else {
                sentence = capitalise(&clause.text);
            }
        }
        parts.push(end(&sentence, mark));
        if self.random.chance(0.25) {
            if mark.is_empty() {
                let last = parts.pop().unwrap_or_default();
                parts.push(end(&last, "."));
            }
            let kind = if self.random.chance(0.6) { "closer" } else { "smalltalk" };
            parts.push(self.phrase(me, kind));
        }
    }

    /// Now and then people type without capitals at the start and for `I`.
    pub(super) fn style(&mut self, text: String) -> String {
        if self.random.chance(0.08) {
            let low = text
                .replace("I'm ", "i'm ")
                .replace("I've ", "i've ")
                .replace(" I ", " i ")
                .replace("I'd ", "i'd ");
            let low = if let Some(rest) = low.strip_prefix("I ") { format!("i {rest}") } else { low };
            let low = if low.starts_with("My ") { low.replacen("My ", "my ", 1) } else { low };
            return low.trim_end_matches('.').to_owned();
        }
        if self.random.chance(0.04) {
            return text.replace("I'm ", "Im ").replace("don't", "dont");
        }
        text
    }
}

/// One after the other, each but the last with an end.
pub(super) fn sentences(parts: &[String]) -> String {
    let last = parts.len().saturating_sub(1);
    let ended =
        parts.iter().enumerate().map(|(i, part)| if i < last { end(part, ".") } else { part.clone() });
    ended.collect::<Vec<_>>().join(" ")
}
