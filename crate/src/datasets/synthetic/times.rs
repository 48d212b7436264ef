//! Times as people say them, and what they mean on a given day.

use chrono::{Datelike, Duration, Months, NaiveDate, Weekday};

use crate::random::Random;

/// A time in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct When {
    /// `last Friday`.
    pub(super) said: String,
    /// `on 5 May 2023`.
    pub(super) resolved: String,
}

impl When {
    /// The time alone, `5 May 2023`.
    pub(super) fn answer(&self) -> &str {
        let starts = ["on the morning of ", "on the night of ", "on ", "in "];
        starts.iter().find_map(|start| self.resolved.strip_prefix(start)).unwrap_or(&self.resolved)
    }
}

/// `5 May 2023`.
pub(super) fn day(date: NaiveDate) -> String {
    date.format("%-d %B %Y").to_string()
}

fn on(said: impl Into<String>, date: NaiveDate) -> When {
    When { said: said.into(), resolved: format!("on {}", day(date)) }
}

fn part(said: &str, part: &str, date: NaiveDate) -> When {
    When { said: said.into(), resolved: format!("on the {part} of {}", day(date)) }
}

fn month(said: impl Into<String>, date: NaiveDate) -> When {
    When { said: said.into(), resolved: format!("in {}", date.format("%B %Y")) }
}

/// A week, by its Monday.
fn week(said: impl Into<String>, date: NaiveDate) -> When {
    let monday = date - Duration::days(i64::from(date.weekday().num_days_from_monday()));
    When { said: said.into(), resolved: format!("in the week of {}", day(monday)) }
}

const WEEKDAYS: [Weekday; 7] =
    [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat, Weekday::Sun];
const NUMBERS: [&str; 5] = ["two", "three", "four", "five", "six"];

fn weekday_name(day: Weekday) -> &'static str {
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
        [day.num_days_from_monday() as usize]
}

/// A time before `today`.
pub(super) fn past(today: NaiveDate, random: &mut Random) -> When {
    match random.below(12) {
        0 | 1 => on("yesterday", today - Duration::days(1)),
        2..=4 => {
            let wanted = WEEKDAYS[random.below(7)];
            let mut date = today - Duration::days(1);
            while date.weekday() != wanted {
                date -= Duration::days(1);
            }
            on(format!("last {}", weekday_name(wanted)), date)
        }
        5 | 6 => {
            let n = random.below(4);
            on(format!("{} days ago", NUMBERS[n]), today - Duration::days(n as i64 + 2))
        }
        7 => match random.below(4) {
            0 => week("last week", today - Duration::days(7)),
            1 => week("a week ago", today - Duration::days(7)),
            2 => week("two weeks ago", today - Duration::days(14)),
            _ => {
                let days_since_monday = i64::from(today.weekday().num_days_from_monday());
                let saturday = today - Duration::days(days_since_monday + 2);
                When { said: "last weekend".into(), resolved: format!("on the weekend of {}", day(saturday)) }
            }
        },
        8 => month("last month", today - Months::new(1)),
        9 => When { said: "last year".into(), resolved: format!("in {}", today.year() - 1) },
        10 => match random.below(4) {
            0 | 1 => on("today", today),
            2 => part("this morning", "morning", today),
            _ => part("last night", "night", today - Duration::days(1)),
        },
        _ => {
            let date = today - Duration::days(random.below(300) as i64 + 3);
            on(format!("on {}", day(date)), date)
        }
    }
}

/// A time after `today`.
pub(super) fn future(today: NaiveDate, random: &mut Random) -> When {
    match random.below(8) {
        0 | 1 => on("tomorrow", today + Duration::days(1)),
        2 | 3 => month("next month", today + Months::new(1)),
        4 => {
            let n = random.below(3);
            week(format!("in {} weeks", NUMBERS[n]), today + Duration::days(7 * (n as i64 + 2)))
        }
        5 => {
            let n = random.below(4);
            on(format!("in {} days", NUMBERS[n]), today + Duration::days(n as i64 + 2))
        }
        6 => When { said: "next year".into(), resolved: format!("in {}", today.year() + 1) },
        _ => {
            let date = today + Duration::days(random.below(90) as i64 + 5);
            on(format!("on {}", day(date)), date)
        }
    }
}
