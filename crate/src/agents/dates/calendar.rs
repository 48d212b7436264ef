//! Names of the calendar, and the days that they stand for.

use chrono::{Datelike, Days, Months, NaiveDate, Weekday};

/// The twelve months.
pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [(&str, Weekday); 7] = [
    ("monday", Weekday::Mon),
    ("tuesday", Weekday::Tue),
    ("wednesday", Weekday::Wed),
    ("thursday", Weekday::Thu),
    ("friday", Weekday::Fri),
    ("saturday", Weekday::Sat),
    ("sunday", Weekday::Sun),
];

/// The weekday of a lower-case name.
pub(super) fn weekday(word: &str) -> Option<Weekday> {
    WEEKDAYS.iter().find(|(name, _)| *name == word).map(|(_, day)| *day)
}

/// The number of a month, 1 to 12, of a lower-case name.
pub(super) fn month(word: &str) -> Option<u32> {
    MONTHS.iter().position(|name| name.eq_ignore_ascii_case(word)).map(|place| place as u32 + 1)
}

/// Whether a lower-case word is the name of a weekday or a month, which English capitalises.
pub(super) fn is_name(word: &str) -> bool {
    weekday(word).is_some() || month(word).is_some()
}

/// A season of the northern half: its name and its first month.
pub(super) fn season(word: &str) -> Option<(&'static str, u32)> {
    match word {
        "spring" => Some(("spring", 3)),
        "summer" => Some(("summer", 6)),
        "autumn" => Some(("autumn", 9)),
        "fall" => Some(("fall", 9)),
        "winter" => Some(("winter", 12)),
        _ => None,
    }
}

/// A number of one to twelve or a whole ten in words, or up to four digits.
pub(super) fn number(word: &str) -> Option<u32> {
    const NAMES: [&str; 12] =
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    if let Some(place) = TENS.iter().position(|name| *name == word) {
        return Some(place as u32 * 10 + 20);
    }
    if word.len() <= 4 && word.bytes().all(|b| b.is_ascii_digit()) {
        return word.parse().ok();
    }
    NAMES.iter().position(|name| *name == word).map(|place| place as u32 + 1)
}

/// `5`, `5th`, `21st` as a day of a month.
pub(super) fn day_of_month(word: &str) -> Option<u32> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &word[digits.len()..];
    let day: u32 = digits.parse().ok()?;
    ((1..=31).contains(&day) && matches!(suffix, "" | "st" | "nd" | "rd" | "th")).then_some(day)
}

/// The feasts whose day is known from the year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feast {
    Christmas,
    ChristmasEve,
    NewYearsEve,
    NewYearsDay,
    Halloween,
    Thanksgiving,
    Easter,
    ValentinesDay,
}

impl Feast {
    /// The feast that the lower-case words begin with, and how many of them name it.
    pub(super) fn of(words: &[&str]) -> Option<(Self, usize)> {
        match words {
            ["christmas", "eve", ..] => Some((Self::ChristmasEve, 2)),
            ["christmas", "day", ..] => Some((Self::Christmas, 2)),
            ["christmas", ..] => Some((Self::Christmas, 1)),
            ["new", "year" | "years", "eve", ..] => Some((Self::NewYearsEve, 3)),
            ["new", "year" | "years", "day", ..] => Some((Self::NewYearsDay, 3)),
            ["halloween", ..] => Some((Self::Halloween, 1)),
            ["thanksgiving", ..] => Some((Self::Thanksgiving, 1)),
            ["easter", ..] => Some((Self::Easter, 1)),
            ["valentine" | "valentines", "day", ..] => Some((Self::ValentinesDay, 2)),
            _ => None,
        }
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Christmas => "Christmas",
            Self::ChristmasEve => "Christmas Eve",
            Self::NewYearsEve => "New Year's Eve",
            Self::NewYearsDay => "New Year's Day",
            Self::Halloween => "Halloween",
            Self::Thanksgiving => "Thanksgiving",
            Self::Easter => "Easter",
            Self::ValentinesDay => "Valentine's Day",
        }
    }

    /// Its day in a year.
    pub(super) fn day(self, year: i32) -> Option<NaiveDate> {
        match self {
            Self::Christmas => NaiveDate::from_ymd_opt(year, 12, 25),
            Self::ChristmasEve => NaiveDate::from_ymd_opt(year, 12, 24),
            Self::NewYearsEve => NaiveDate::from_ymd_opt(year, 12, 31),
            Self::NewYearsDay => NaiveDate::from_ymd_opt(year, 1, 1),
            Self::Halloween => NaiveDate::from_ymd_opt(year, 10, 31),
            Self::Thanksgiving => NaiveDate::from_weekday_of_month_opt(year, 11, Weekday::Thu, 4),
            Self::Easter => easter(year),
            Self::ValentinesDay => NaiveDate::from_ymd_opt(year, 2, 14),
        }
    }
}

/// Easter Sunday of the Gregorian calendar (the anonymous algorithm, after Meeus).
fn easter(year: i32) -> Option<NaiveDate> {
    let (a, b, c) = (year % 19, year / 100, year % 100);
    let (d, e) = (b / 4, b % 4);
    let g = (8 * b + 13) / 25;
    let h = (19 * a + b - d - g + 15) % 30;
    let (i, k) = (c / 4, c % 4);
    let l = (32 + 2 * e + 2 * i - h - k) % 7;
    let m = (a + 11 * h + 19 * l) / 433;
    let month = (h + l - 7 * m + 90) / 25;
    let day = (h + l - 7 * m + 33 * month + 19) % 32;
    NaiveDate::from_ymd_opt(year, month as u32, day as u32)
}

/// Monday of the day's week.
pub(super) fn monday(day: NaiveDate) -> Option<NaiveDate> {
    day.checked_sub_days(Days::new(u64::from(day.weekday().num_days_from_monday())))
}

/// `days` later, or earlier where negative.
pub(super) fn shift_days(day: NaiveDate, days: i64) -> Option<NaiveDate> {
    let distance = Days::new(days.unsigned_abs());
    let shifted = if days < 0 { day.checked_sub_days(distance) } else { day.checked_add_days(distance) };
    shifted.filter(|day| (1..=9999).contains(&day.year()))
}

/// The first day of the month `months` later, or earlier where negative.
pub(super) fn shift_months(day: NaiveDate, months: i64) -> Option<NaiveDate> {
    let first = day.with_day(1)?;
    let distance = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    let shifted =
        if months < 0 { first.checked_sub_months(distance) } else { first.checked_add_months(distance) };
    shifted.filter(|day| (1..=9999).contains(&day.year()))
}

/// The nearest such weekday strictly before the day.
pub(super) fn weekday_before(day: NaiveDate, weekday: Weekday) -> Option<NaiveDate> {
    let back = (6 + day.weekday().num_days_from_monday() - weekday.num_days_from_monday()) % 7 + 1;
    shift_days(day, -i64::from(back))
}

/// The nearest such weekday strictly after the day.
pub(super) fn weekday_after(day: NaiveDate, weekday: Weekday) -> Option<NaiveDate> {
    shift_days(weekday_before(day, weekday)?, if day.weekday() == weekday { 14 } else { 7 })
}
