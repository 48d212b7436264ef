//! Relative dates in a fact become absolute ones, by rule and against the time of its turn.
//!
//! `Went hiking last Friday`, said on Monday 8 May 2023, becomes `Went hiking on 5 May 2023`.
//! The conventions:
//!
//! - A week begins on Monday. Weeks are written by their Monday (`in the week of 1 May 2023`),
//!   weekends by their Saturday (`on the weekend of 6 May 2023`).
//! - *last Friday* is the nearest Friday before the turn's day, *this Friday* the nearest from
//!   that day on (before it, where the fact is in the past tense), *next Friday* the Friday of
//!   the week after.
//! - *last June*, *last summer*, *last Easter* are the latest that have ended, *next …* the
//!   first still to begin, *this …* those of the turn's year. Seasons are the northern ones and
//!   belong to the year in which they begin.
//! - *two weeks ago* and *in two weeks* name a week, months a month, years a year; days and
//!   nights name a day. *A couple* is two. *About* becomes *around*.
//! - *on Friday*, *in June*, *on 5 May*, *over the weekend* take their direction from the tense
//!   of the verb before them; where there is none to see (`Works on Friday`) they stay.
//! - *last night* is the night of the day before; parts of a day are kept (`on the morning of
//!   9 May 2023`).
//!
//! What is vague stays as it is: *recently*, *the other day*, *a few weeks ago*, *over a year
//! ago*, *the last two years*, *every Friday*, *one day*. So do absolute dates, titles (`likes
//! the song "Yesterday"`) and whatever would leave the years 1 to 9999.

mod calendar;
mod phrase;
mod tense;
mod words;

use chrono::{Datelike, NaiveDate};

use crate::bank::Timestamp;
use phrase::{Found, Preposition};
use words::{Word, words};

/// A fact whose relative dates are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The rewritten fact.
    pub text: String,
    /// The phrases that were replaced, as they stood.
    pub phrases: Vec<String>,
}

/// The day as prompts and memories write it: `8 May 2023`.
pub fn format_day(day: NaiveDate) -> String {
    format!("{} {}", day.day(), format_month(day))
}

/// The month as memories write it: `May 2023`.
pub fn format_month(day: NaiveDate) -> String {
    format!("{} {}", calendar::MONTHS[day.month0() as usize], day.year())
}

/// Rewrites every relative date of `fact`, which was said at `said`.
pub fn resolve(fact: &str, said: Timestamp) -> Resolved {
    let words = words(fact);
    let mut text = String::with_capacity(fact.len() + 16);
    let mut phrases = Vec::new();
    let (mut copied, mut at, mut free) = (0, 0, 0);
    while at < words.len() {
        let found = if is_title(fact, &words, at) { None } else { phrase::find(&words, at, said) };
        let Some((found, place)) = found.and_then(|f| fit(&words, free, at, &f).map(|place| (f, place)))
        else {
            at += 1;
            continue;
        };
        let (start, end) = (words[place.from].start, words[at + found.words - 1].end);
        text.push_str(&fact[copied..start]);
        let owns = words[at + found.words - 1].possessive;
        let replacement = format!("{}{}", if owns { "" } else { place.preposition }, found.when);
        if start == 0 && fact.starts_with(char::is_uppercase) {
            text.push_str(&capitalised(&replacement));
        } else {
            text.push_str(&replacement);
        }
        if owns {
            text.push_str("'s");
        }
        phrases.push(fact[start..end].to_owned());
        copied = end;
        at += found.words;
        free = at;
    }
    text.push_str(&fact[copied..]);
    Resolved { text, phrases }
}

/// A phrase that starts with a capital inside a sentence, or after a quotation mark, is a name.
fn is_title(fact: &str, words: &[Word<'_>], at: usize) -> bool {
    let before = fact[..words[at].start].trim_end();
    if fact[..words[at].start].ends_with(['"', '“', '‘', '«', '\'']) {
        return true;
    }
    let capital = words[at].raw.starts_with(char::is_uppercase);
    capital
        && !calendar::is_name(words[at].lower())
        && !before.is_empty()
        && !before.ends_with(['.', '!', '?', ':'])
}

struct Place {
    /// The first word that is replaced.
    from: usize,
    /// What goes before the date, with its space.
    preposition: &'static str,
}

/// How the phrase at `at` fits to the words before it: which of them it swallows, and which
/// preposition it needs. `None` where they make it vague, a habit or a span. Words before
/// `free` belong to an earlier phrase.
fn fit(words: &[Word<'_>], free: usize, at: usize, found: &Found) -> Option<Place> {
    let own = found.preposition.before_date();
    let mut place = Place { from: at, preposition: own };
    while place.from > free && words[place.from].joined {
        match words[place.from - 1].lower() {
            "every" | "each" | "per" | "most" | "another" | "any" | "some" | "half" | "ago" => return None,
            "the" | "these" | "those" | "his" | "her" | "their" | "my" if found.spans_after_the => {
                return None;
            }
            "over" | "than" | "least" | "under" | "within" | "or" | "to" | "and" if found.counted => {
                return None;
            }
            count if found.counted && calendar::number(count).is_some() => return None,
            "on" | "in" | "at" | "over" => {
                place.from -= 1;
                break;
            }
            "earlier" | "later" | "sometime" => place.from -= 1,
            "about" | "around" | "roughly" | "approximately" | "almost" | "nearly" => {
                place.preposition = "around ";
                place.from -= 1;
            }
            "early" | "late" => {
                let within = place.from >= free + 2
                    && words[place.from - 1].joined
                    && words[place.from - 2].lower() == "in";
                if within && found.preposition == Preposition::Month {
                    place.preposition = "";
                }
                break;
            }
            "since" | "until" | "till" | "by" | "before" | "after" | "from" | "for" | "during" | "of"
            | "to" | "through" | "throughout" | "all" | "starting" | "between" => {
                place.preposition = "";
                break;
            }
            _ => break,
        }
    }
    if place.from < at && place.preposition == own && words[at - 1].lower() == "around" {
        place.preposition = "around ";
    }
    Some(place)
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests;
