//! The phrases: what stands at a word, and which day, week, month or year it means.

use chrono::{Datelike, NaiveDate, Timelike, Weekday};

use super::calendar::{
    Feast, day_of_month, monday, month, number, season, shift_days, shift_months, weekday, weekday_after,
    weekday_before,
};
use super::tense::{Tense, tense};
use super::words::Word;
use super::{format_day, format_month};
use crate::bank::Timestamp;

/// Which preposition a date takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preposition {
    /// on 8 May 2023
    Day,
    /// in May 2023, in 2023
    Month,
    /// in the week of 8 May 2023
    Week,
    /// at Christmas 2023
    Feast,
}

impl Preposition {
    /// With its space.
    pub(super) fn before_date(self) -> &'static str {
        match self {
            Self::Day => "on ",
            Self::Month | Self::Week => "in ",
            Self::Feast => "at ",
        }
    }
}

/// A phrase that was found.
pub(super) struct Found {
    /// How many words it has.
    pub(super) words: usize,
    /// What it takes before it.
    pub(super) preposition: Preposition,
    /// The date that it means.
    pub(super) when: String,
    /// Whether it is a span after an article: `the last year` is not `last year`.
    pub(super) spans_after_the: bool,
    /// Whether it counts, so that `over` and `more than` make it vague.
    pub(super) counted: bool,
}

/// A moment at the grain that the phrase has.
enum When {
    Day(NaiveDate, Option<&'static str>),
    Week(NaiveDate),
    Weekend(NaiveDate),
    Month(NaiveDate),
    Season(&'static str, i32),
    Year(i32),
    Feast(Feast, i32),
}

impl When {
    fn write(&self) -> Option<(Preposition, String)> {
        let year = match self {
            Self::Day(day, _) | Self::Week(day) | Self::Weekend(day) | Self::Month(day) => day.year(),
            Self::Season(_, year) | Self::Year(year) | Self::Feast(_, year) => *year,
        };
        if !(1..=9999).contains(&year) {
            return None;
        }
        Some(match self {
            Self::Day(day, None) => (Preposition::Day, format_day(*day)),
            Self::Day(day, Some(part)) => (Preposition::Day, format!("the {part} of {}", format_day(*day))),
            Self::Week(day) => (Preposition::Week, format!("the week of {}", format_day(monday(*day)?))),
            Self::Weekend(day) => {
                (Preposition::Day, format!("the weekend of {}", format_day(shift_days(monday(*day)?, 5)?)))
            }
            Self::Month(day) => (Preposition::Month, format_month(*day)),
            Self::Season(name, year) => (Preposition::Month, format!("the {name} of {year}")),
            Self::Year(year) => (Preposition::Month, year.to_string()),
            Self::Feast(feast, year) => {
                let on = !matches!(feast, Feast::Christmas | Feast::Easter | Feast::Thanksgiving);
                let preposition = if on { Preposition::Day } else { Preposition::Feast };
                (preposition, format!("{} {year}", feast.name()))
            }
        })
    }
}

struct Reader<'a> {
    words: &'a [Word<'a>],
    at: usize,
    said: Timestamp,
    day: NaiveDate,
}

/// The phrase that begins at word `at`, if one does.
pub(super) fn find(words: &[Word<'_>], at: usize, said: Timestamp) -> Option<Found> {
    let reader = Reader { words, at, said, day: said.date() };
    reader
        .plain_day()
        .or_else(|| reader.before_last())
        .or_else(|| reader.relative())
        .or_else(|| reader.counted())
        .or_else(|| reader.of_relative())
        .or_else(|| reader.by_tense())
}

impl Reader<'_> {
    /// The words from `offset` on that belong to one phrase, in lower case.
    fn run(&self, offset: usize) -> Vec<&str> {
        let start = self.at + offset;
        let joined =
            |place: usize| place < self.words.len() && (place == self.at || self.words[place].joined);
        (start..(start + 6).min(self.words.len()))
            .take_while(|place| joined(*place))
            .map(|p| self.words[p].lower())
            .collect()
    }

    /// The word before the phrase, where it stands close.
    fn before(&self) -> &str {
        match self.at.checked_sub(1) {
            Some(place) if self.words[self.at].joined => self.words[place].lower(),
            _ => "",
        }
    }

    fn found(&self, words: usize, when: &When) -> Option<Found> {
        let inner = &self.words[self.at..self.at + words - 1];
        let owned = inner.iter().any(|word| word.possessive && !matches!(word.lower(), "year" | "valentine"));
        if owned && self.words[self.at + words - 1].lower() != "time" {
            return None;
        }
        let (preposition, text) = when.write()?;
        Some(Found { words, preposition, when: text, spans_after_the: false, counted: false })
    }

    /// A day with the part of it that may follow: `tomorrow evening`.
    fn day_found(&self, words: usize, day: NaiveDate) -> Option<Found> {
        let part = match self.run(words).first() {
            Some(&"morning") => Some("morning"),
            Some(&"afternoon") => Some("afternoon"),
            Some(&"evening") => Some("evening"),
            Some(&"night") => Some("night"),
            Some(&("mornings" | "afternoons" | "evenings" | "nights")) => return None,
            _ => None,
        };
        self.found(words + usize::from(part.is_some()), &When::Day(day, part))
    }

    fn plain_day(&self) -> Option<Found> {
        match self.run(0)[..] {
            ["today", ..] => self.day_found(1, self.day),
            ["tonight", ..] => self.found(1, &When::Day(self.day, Some("evening"))),
            ["yesterday", ..] => self.day_found(1, shift_days(self.day, -1)?),
            ["tomorrow", ..] => self.day_found(1, shift_days(self.day, 1)?),
            ["the", "day", "before", "yesterday", ..] => self.day_found(4, shift_days(self.day, -2)?),
            ["the", "day", "after", "tomorrow", ..] => self.day_found(4, shift_days(self.day, 2)?),
            ["the", "night", "before", "last", ..] => {
                self.found(4, &When::Day(shift_days(self.day, -2)?, Some("night")))
            }
            ["last", "night", ..] => self.found(2, &When::Day(shift_days(self.day, -1)?, Some("night"))),
            ["this", "morning", ..] => self.found(2, &When::Day(self.day, Some("morning"))),
            ["this", "afternoon", ..] => self.found(2, &When::Day(self.day, Some("afternoon"))),
            ["this", "evening", ..] => self.found(2, &When::Day(self.day, Some("evening"))),
            _ => None,
        }
    }

    /// `the week before last`, `the month after next`.
    fn before_last(&self) -> Option<Found> {
        let (unit, by) = match self.run(0)[..] {
            ["the", unit, "before", "last", ..] => (unit, -2),
            ["the", unit, "after", "next", ..] => (unit, 2),
            _ => return None,
        };
        self.found(4, &self.shifted(unit, by)?)
    }

    /// A week, weekend, month or year, `by` units from now.
    fn shifted(&self, unit: &str, by: i64) -> Option<When> {
        match unit {
            "week" => Some(When::Week(shift_days(self.day, by.checked_mul(7)?)?)),
            "weekend" => Some(When::Weekend(shift_days(self.day, by.checked_mul(7)?)?)),
            "month" => Some(When::Month(shift_months(self.day, by)?)),
            "year" => Some(When::Year(self.day.year().checked_add(i32::try_from(by).ok()?)?)),
            _ => None,
        }
    }

    /// `last`, `this` or `next` before a unit or a name.
    fn relative(&self) -> Option<Found> {
        let run = self.run(0);
        let (by, skip) = match run[..] {
            ["last" | "past", ..] => (-1, 1),
            ["this", "past" | "last", ..] => (-1, 2),
            ["this", "coming", ..] => (0, 2),
            ["this" | "coming", ..] => (0, 1),
            ["next", ..] => (1, 1),
            _ => return None,
        };
        let name = *run.get(skip)?;
        let words = skip + 1;
        if self.is_counted_off(words) {
            return None;
        }
        if let Some(weekday) = weekday(name) {
            if matches!(self.run(words).first(), Some(&word) if day_of_month(word).is_some() || month(word).is_some())
            {
                return None;
            }
            let day = match by {
                -1 => weekday_before(self.day, weekday)?,
                0 => self.this_weekday(weekday)?,
                _ => shift_days(monday(self.day)?, 7 + i64::from(weekday.num_days_from_monday()))?,
            };
            return Some(Found { spans_after_the: true, ..self.day_found(words, day)? });
        }
        if run[0] == "coming" {
            return None;
        }
        if let Some(when) = self.shifted(name, by) {
            let at_weekday = |offset: usize| self.run(words + offset).first().and_then(|word| weekday(word));
            if let (When::Week(week), Some(weekday)) = (&when, at_weekday(0)) {
                let day = shift_days(monday(*week)?, i64::from(weekday.num_days_from_monday()))?;
                return self.day_found(words + 1, day);
            }
            return Some(Found { spans_after_the: true, ..self.found(words, &when)? });
        }
        if let Some(month) = month(name) {
            if !self.words[self.at + skip].raw.starts_with(char::is_uppercase) {
                return None;
            }
            let year = self.named_year(by, |year| month_span(year, month, 1))?;
            return self.found(words, &When::Month(NaiveDate::from_ymd_opt(year, month, 1)?));
        }
        if let Some((name, first)) = season(name) {
            const COMPOUND: [&str; 10] = [
                "break",
                "semester",
                "term",
                "camp",
                "festival",
                "collection",
                "school",
                "games",
                "olympics",
                "fair",
            ];
            if self.run(words).first().is_some_and(|word| COMPOUND.contains(word)) {
                return None;
            }
            let year = self.season_year(by, first)?;
            return Some(Found { spans_after_the: true, ..self.found(words, &When::Season(name, year))? });
        }
        let (feast, length) = Feast::of(&run[skip..])?;
        let year = self.named_year(by, |year| feast.day(year).map(|day| (day, day)))?;
        self.found(skip + length, &When::Feast(feast, year))
    }

    /// `last week of June`, `last Friday in May`: the unit is counted off from something else.
    fn is_counted_off(&self, words: usize) -> bool {
        match self.run(words)[..] {
            ["of", ..] => true,
            ["in", name, ..] => month(name).is_some(),
            _ => false,
        }
    }

    fn this_weekday(&self, weekday: Weekday) -> Option<NaiveDate> {
        if self.day.weekday() == weekday {
            return Some(self.day);
        }
        match tense(self.words, self.at) {
            Tense::Past => weekday_before(self.day, weekday),
            Tense::Future | Tense::Unclear => weekday_after(self.day, weekday),
        }
    }

    /// The year of the latest such span that has ended (-1), of this year's (0), or of the
    /// first that is still to begin (1).
    fn named_year(&self, by: i64, span: impl Fn(i32) -> Option<(NaiveDate, NaiveDate)>) -> Option<i32> {
        let year = self.day.year();
        match by {
            -1 => (year - 1..=year).rev().find(|y| span(*y).is_some_and(|(_, end)| end < self.day)),
            0 => Some(year),
            _ => (year..=year + 1).find(|y| span(*y).is_some_and(|(start, _)| start > self.day)),
        }
    }

    fn season_year(&self, by: i64, first: u32) -> Option<i32> {
        let span = |year| month_span(year, first, 3);
        let year = self.day.year();
        if by == 0 {
            let running = span(year - 1).is_some_and(|(_, end)| self.day <= end);
            return Some(if running { year - 1 } else { year });
        }
        if by == -1 {
            return (year - 2..=year).rev().find(|y| span(*y).is_some_and(|(_, end)| end < self.day));
        }
        self.named_year(by, span)
    }

    /// `three weeks ago`, `in two months`, `a year from now`, `two Fridays ago`.
    fn counted(&self) -> Option<Found> {
        let ahead = self.run(0).first() == Some(&"in");
        let lead = usize::from(ahead);
        let run = self.run(lead);
        let (count, words) = match run[..] {
            ["a", "couple", "of", ..] => (2, 3),
            ["a", "couple", ..] => (2, 2),
            ["couple", "of", ..] if !ahead => (2, 2),
            ["a" | "an" | "one", ..] => (1, 1),
            [word, ..] => (i64::from(number(word)?), 1),
            [] => return None,
        };
        let unit = *run.get(words)?;
        let mut words = lead + words + 1;
        let often = matches!(self.before(), "once" | "twice" | "times");
        let one_day = run[..2] == ["one", "day"];
        if ahead && (often || one_day || tense(self.words, self.at) == Tense::Past) {
            return None;
        }
        let (by, exact) = if ahead {
            if self.run(words).first() == Some(&"time") {
                words += 1;
            } else if self.words[self.at + words - 1].possessive {
                return None;
            }
            (count, false)
        } else {
            match self.run(words)[..] {
                ["ago", "today", ..] => (-count, {
                    words += 2;
                    true
                }),
                ["ago" | "back", ..] => (-count, {
                    words += 1;
                    false
                }),
                ["from", "now" | "today", ..] => (count, {
                    words += 2;
                    false
                }),
                _ => return None,
            }
        };
        let when = self.moved(unit, by, exact)?;
        let mut found = match when {
            When::Day(day, None) => self.day_found(words, day),
            when => self.found(words, &when),
        }?;
        found.counted = true;
        Some(found)
    }

    /// The moment `by` units from now; `exact` for `a year ago today`.
    fn moved(&self, unit: &str, by: i64, exact: bool) -> Option<When> {
        let day = self.day;
        let plain = unit.strip_suffix('s').unwrap_or(unit);
        if exact {
            let moved = match plain {
                "day" => shift_days(day, by)?,
                "week" => shift_days(day, by.checked_mul(7)?)?,
                "month" => shift_months(day, by)?.with_day(day.day())?,
                "year" => day.with_year(day.year().checked_add(i32::try_from(by).ok()?)?)?,
                _ => return None,
            };
            return Some(When::Day(moved, None));
        }
        if let Some(weekday) = weekday(plain) {
            let near = if by < 0 { weekday_before(day, weekday)? } else { weekday_after(day, weekday)? };
            return Some(When::Day(shift_days(near, (by - by.signum()).checked_mul(7)?)?, None));
        }
        if let (Some((name, first)), true) = (season(plain), by < 0) {
            let latest = self.season_year(-1, first)?;
            return Some(When::Season(name, latest.checked_add(i32::try_from(by + 1).ok()?)?));
        }
        match plain {
            "minute" | "hour" => Some(When::Day(self.clock(by, if plain == "hour" { 60 } else { 1 })?, None)),
            "day" => Some(When::Day(shift_days(day, by)?, None)),
            "night" => Some(When::Day(shift_days(day, by)?, Some("night"))),
            "fortnight" => self.shifted("week", by.checked_mul(2)?),
            unit => self.shifted(unit, by),
        }
    }

    /// The day `by` times `minutes` away; a time of exactly midnight is a day without a clock.
    fn clock(&self, by: i64, minutes: i64) -> Option<NaiveDate> {
        let moved = Timestamp::from_millis(self.said.millis() + by * minutes * 60_000).ok()?;
        let midnight =
            chrono::DateTime::from_timestamp_millis(self.said.millis())?.time().num_seconds_from_midnight()
                == 0;
        Some(if midnight { self.day } else { moved.date() })
    }

    /// `June last year`, `Friday next week`, `summer of last year`.
    fn of_relative(&self) -> Option<Found> {
        let run = self.run(0);
        let name = *run.first()?;
        let skip = if run.get(1) == Some(&"of") { 2 } else { 1 };
        let by = match *run.get(skip)? {
            "last" => -1,
            "this" => 0,
            "next" => 1,
            _ => return None,
        };
        let unit = *run.get(skip + 1)?;
        let words = skip + 2;
        if unit == "week" {
            let monday = monday(shift_days(self.day, by * 7)?)?;
            let day = shift_days(monday, i64::from(weekday(name)?.num_days_from_monday()))?;
            return self.day_found(words, day);
        }
        if unit != "year" {
            return None;
        }
        let year = self.day.year() + by as i32;
        if let Some((name, _)) = season(name) {
            return self.found(words, &When::Season(name, year));
        }
        self.found(words, &When::Month(NaiveDate::from_ymd_opt(year, month(name)?, 1)?))
    }

    /// Names without a direction, after a preposition: `on Friday`, `in June`, `by 5 May`,
    /// `over the weekend`.
    fn by_tense(&self) -> Option<Found> {
        let before = self.before();
        let direction = match before {
            "since" => Tense::Past,
            "until" | "till" | "by" => Tense::Future,
            "on" | "in" | "at" | "over" | "from" | "before" | "after" | "for" => tense(self.words, self.at),
            _ => return None,
        };
        if direction == Tense::Unclear {
            return None;
        }
        let past = direction == Tense::Past;
        let run = self.run(0);
        if let ["the", "weekend", ..] = run[..] {
            if self.is_counted_off(2) {
                return None;
            }
            let on_it = matches!(self.day.weekday(), Weekday::Sat | Weekday::Sun);
            let by = if past && !on_it { -7 } else { 0 };
            return self.found(2, &When::Weekend(shift_days(self.day, by)?));
        }
        if let Some((day, month, words)) = day_and_month(&run) {
            let follows = self.words.get(self.at + words);
            if follows.is_some_and(|word| number(word.lower()).is_some_and(|n| n > 31)) {
                return None;
            }
            let on = |year| NaiveDate::from_ymd_opt(year, month, day);
            let year = self.day.year();
            let years = if past { [year, year - 1] } else { [year, year + 1] };
            let fits = |day: &NaiveDate| if past { *day <= self.day } else { *day >= self.day };
            return self.day_found(words, years.into_iter().filter_map(on).find(fits)?);
        }
        let follows = self.words.get(self.at + 1).map_or("", Word::lower);
        let dated = day_of_month(follows).is_some() || number(follows).is_some_and(|n| n > 31);
        if let (
            Some(weekday),
            "on" | "since" | "until" | "till" | "by" | "from" | "before" | "after" | "for",
        ) = (weekday(run.first()?), before)
        {
            if dated || month(follows).is_some() {
                return None;
            }
            let day =
                if past { weekday_before(self.day, weekday)? } else { weekday_after(self.day, weekday)? };
            return self.day_found(1, day);
        }
        let month = month(run.first()?)?;
        if dated
            || !self.words[self.at].raw.starts_with(char::is_uppercase)
            || matches!(before, "on" | "at" | "over")
        {
            return None;
        }
        let year = self.day.year();
        let later = month > self.day.month();
        let earlier = month < self.day.month();
        let year = if past { year - i32::from(later) } else { year + i32::from(earlier) };
        self.found(1, &When::Month(NaiveDate::from_ymd_opt(year, month, 1)?))
    }
}

fn month_span(year: i32, month: u32, months: i64) -> Option<(NaiveDate, NaiveDate)> {
    let start = NaiveDate::from_ymd_opt(year, month, 1)?;
    Some((start, shift_months(start, months)?.pred_opt()?))
}

/// `5 May`, `May 5th`, `the 5th of May`: the day, the month, and how many words.
fn day_and_month(run: &[&str]) -> Option<(u32, u32, usize)> {
    let read = |day: &str, name: &str, words| Some((day_of_month(day)?, month(name)?, words));
    match *run {
        ["the", day, "of", name, ..] => read(day, name, 4),
        [day, "of", name, ..] => read(day, name, 3),
        [first, second, ..] => read(first, second, 2).or_else(|| read(second, first, 2)),
        _ => None,
    }
}
