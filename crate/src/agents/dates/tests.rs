//! The table of phrases. 8 May 2023 was a Monday.

use super::*;

fn at(said: &str, fact: &str) -> String {
    resolve(fact, Timestamp::parse(said).unwrap()).text
}

/// Said on Monday 8 May 2023, at 1:56 pm.
const ON_A_MONDAY: &[(&str, &str)] = &[
    // Days.
    ("Went to the dentist today", "Went to the dentist on 8 May 2023"),
    ("Met Anna yesterday", "Met Anna on 7 May 2023"),
    ("Flies to Oslo tomorrow", "Flies to Oslo on 9 May 2023"),
    ("Yesterday met Anna", "On 7 May 2023 met Anna"),
    ("Painted the fence the day before yesterday", "Painted the fence on 6 May 2023"),
    ("Will paint the fence the day after tomorrow", "Will paint the fence on 10 May 2023"),
    ("Adopted a cat two days ago", "Adopted a cat on 6 May 2023"),
    ("Adopted a cat 10 days ago", "Adopted a cat on 28 April 2023"),
    ("Adopted a cat a day ago", "Adopted a cat on 7 May 2023"),
    ("Adopted a cat a couple of days ago", "Adopted a cat on 6 May 2023"),
    ("Adopted a cat three days back", "Adopted a cat on 5 May 2023"),
    ("Adopted a cat twenty days ago", "Adopted a cat on 18 April 2023"),
    ("Has an exam in three days", "Has an exam on 11 May 2023"),
    ("Has an exam in 10 days' time", "Has an exam on 18 May 2023"),
    ("Has an exam five days from now", "Has an exam on 13 May 2023"),
    ("Called mother an hour ago", "Called mother on 8 May 2023"),
    ("Called mother 14 hours ago", "Called mother on 7 May 2023"),
    ("Married a year ago today", "Married on 8 May 2022"),
    ("Loved yesterday's concert", "Loved 7 May 2023's concert"),
    ("Has been ill since yesterday", "Has been ill since 7 May 2023"),
    ("Went running earlier today", "Went running on 8 May 2023"),
    // Parts of days.
    ("Is cooking tonight", "Is cooking on the evening of 8 May 2023"),
    ("Went running this morning", "Went running on the morning of 8 May 2023"),
    ("Has a call this afternoon", "Has a call on the afternoon of 8 May 2023"),
    ("Slept badly last night", "Slept badly on the night of 7 May 2023"),
    ("Slept badly the night before last", "Slept badly on the night of 6 May 2023"),
    ("Slept badly two nights ago", "Slept badly on the night of 6 May 2023"),
    ("Has an appointment tomorrow morning", "Has an appointment on the morning of 9 May 2023"),
    ("Saw a play yesterday evening", "Saw a play on the evening of 7 May 2023"),
    // Weekdays.
    ("Went hiking last Friday", "Went hiking on 5 May 2023"),
    ("Went hiking on last Friday", "Went hiking on 5 May 2023"),
    ("Went hiking last Monday", "Went hiking on 1 May 2023"),
    ("Went hiking this past Saturday", "Went hiking on 6 May 2023"),
    ("Went dancing last Friday night", "Went dancing on the night of 5 May 2023"),
    ("Is meeting Tom this Friday", "Is meeting Tom on 12 May 2023"),
    ("Is meeting Tom this coming Friday", "Is meeting Tom on 12 May 2023"),
    ("Is meeting Tom next Friday", "Is meeting Tom on 19 May 2023"),
    ("Went hiking on Friday", "Went hiking on 5 May 2023"),
    ("Has a job interview on Friday", "Has a job interview on 12 May 2023"),
    (
        "Is excited about the concert on Friday evening",
        "Is excited about the concert on the evening of 12 May 2023",
    ),
    ("Must finish the report by Friday", "Must finish the report by 12 May 2023"),
    ("Has been ill since Thursday", "Has been ill since 4 May 2023"),
    ("Went hiking two Saturdays ago", "Went hiking on 29 April 2023"),
    ("Saw the film on Tuesday last week", "Saw the film on 2 May 2023"),
    ("Starts the course next week Wednesday", "Starts the course on 17 May 2023"),
    // Weeks and weekends.
    ("Visited Paris last week", "Visited Paris in the week of 1 May 2023"),
    ("Started a diet earlier this week", "Started a diet in the week of 8 May 2023"),
    ("Is moving next week", "Is moving in the week of 15 May 2023"),
    ("Is moving early next week", "Is moving early in the week of 15 May 2023"),
    ("Visited Paris two weeks ago", "Visited Paris in the week of 24 April 2023"),
    ("Visited Paris a couple of weeks ago", "Visited Paris in the week of 24 April 2023"),
    ("Visited Paris a fortnight ago", "Visited Paris in the week of 24 April 2023"),
    ("Visited Paris the week before last", "Visited Paris in the week of 24 April 2023"),
    ("Is moving in two weeks", "Is moving in the week of 22 May 2023"),
    ("Is moving the week after next", "Is moving in the week of 22 May 2023"),
    ("Camped last weekend", "Camped on the weekend of 6 May 2023"),
    ("Is camping this weekend", "Is camping on the weekend of 13 May 2023"),
    ("Is camping next weekend", "Is camping on the weekend of 20 May 2023"),
    ("Camped over the weekend", "Camped on the weekend of 6 May 2023"),
    ("Is camping at the weekend", "Is camping on the weekend of 13 May 2023"),
    ("Camped two weekends ago", "Camped on the weekend of 29 April 2023"),
    ("Saved money for next week", "Saved money for the week of 15 May 2023"),
    // Months.
    ("Changed jobs last month", "Changed jobs in April 2023"),
    ("Changed jobs a month ago", "Changed jobs in April 2023"),
    ("Changed jobs about six months ago", "Changed jobs around November 2022"),
    ("Changed jobs the month before last", "Changed jobs in March 2023"),
    ("Has changed jobs this month", "Has changed jobs in May 2023"),
    ("Opens a shop next month", "Opens a shop in June 2023"),
    ("Opens a shop in early next month", "Opens a shop in early June 2023"),
    ("Opens a shop at the end of next month", "Opens a shop at the end of June 2023"),
    ("Opens a shop in three months", "Opens a shop in August 2023"),
    ("Is getting married next June", "Is getting married in June 2023"),
    ("Got married last June", "Got married in June 2022"),
    ("Got married in June", "Got married in June 2022"),
    ("Is getting married in June", "Is getting married in June 2023"),
    ("Got married in June last year", "Got married in June 2022"),
    ("Got married in June of last year", "Got married in June 2022"),
    ("Graduated on 5 March", "Graduated on 5 March 2023"),
    ("Graduated on May 12th", "Graduated on 12 May 2022"),
    ("Has surgery on the 12th of May", "Has surgery on 12 May 2023"),
    // Years, seasons, feasts.
    ("Moved to Rome last year", "Moved to Rome in 2022"),
    ("Moved to Rome late last year", "Moved to Rome late in 2022"),
    ("Moved to Rome three years ago", "Moved to Rome in 2020"),
    ("Moved to Rome the year before last", "Moved to Rome in 2021"),
    ("Wants to run a marathon this year", "Wants to run a marathon in 2023"),
    ("Wants to run a marathon next year", "Wants to run a marathon in 2024"),
    ("Wants to retire in ten years", "Wants to retire in 2033"),
    ("Learned to sail last summer", "Learned to sail in the summer of 2022"),
    ("Learned to ski last winter", "Learned to ski in the winter of 2022"),
    ("Will sail this summer", "Will sail in the summer of 2023"),
    ("Will ski next winter", "Will ski in the winter of 2023"),
    ("Learned to sail two summers ago", "Learned to sail in the summer of 2021"),
    ("Learned to sail during last summer", "Learned to sail during the summer of 2022"),
    ("Visited parents last Christmas", "Visited parents at Christmas 2022"),
    ("Will visit parents next Easter", "Will visit parents at Easter 2024"),
    ("Visited parents last Easter", "Visited parents at Easter 2023"),
    ("Kissed Tom last New Year's Eve", "Kissed Tom on New Year's Eve 2022"),
    ("Went as a ghost last Halloween", "Went as a ghost on Halloween 2022"),
    // Several in one fact.
    (
        "Met Tom last week and sees Tom again tomorrow",
        "Met Tom in the week of 1 May 2023 and sees Tom again on 9 May 2023",
    ),
];

/// Vague, habitual, absolute, or no date at all.
const LEFT_ALONE: &[&str] = &[
    "Has lived in Lyon since 2019",
    "Moved to Rome in 2019",
    "Met Anna the other day",
    "Went hiking recently",
    "Adopted a cat a few weeks ago",
    "Adopted a cat several months ago",
    "Adopted a cat over a year ago",
    "Adopted a cat more than two years ago",
    "Adopted a cat two and a half years ago",
    "Adopted a cat half a year ago",
    "Adopted a cat two or three weeks ago",
    "Adopted a cat 2-3 weeks ago",
    "Adopted a cat twenty-two years ago",
    "Plays tennis every Friday",
    "Plays tennis on Fridays",
    "Plays tennis on Friday evenings",
    "Works on Friday",
    "Has been busy the last two years",
    "Has been busy for the last month",
    "Wants to see Rome one day",
    "Read the book in two weeks",
    "Wrote a novel in one day",
    "Goes to the gym twice in a week",
    "Likes the song \"Last Christmas\"",
    "Likes the song Yesterday",
    "Went hiking on Friday 5 May 2023",
    "Went hiking on Friday, May 5",
    "Was born on 12 March 1990",
    "Was born in March 1990",
    "Birthday is the last Friday of May",
    "Celebrates on 5 May",
    "Lost his last job",
    "Got a new job nowadays",
    "Took the last train",
    "Went to the last summer camp",
    "Has a dog named Scout",
    "Will be a doctor soon",
    "",
    "Ünïcödé — 日本語 and 🐕 stay",
];

#[test]
fn phrases_become_dates() {
    assert!(ON_A_MONDAY.len() >= 60);
    let wrong: Vec<String> = ON_A_MONDAY
        .iter()
        .map(|(fact, expected)| (fact, expected, at("2023-05-08T13:56:00Z", fact)))
        .filter(|(_, expected, got)| got != *expected)
        .map(|(fact, expected, got)| format!("{fact:?}\n  expected {expected:?}\n  got      {got:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_vague_or_absolute_stays_as_it_is() {
    for fact in LEFT_ALONE {
        let resolved = resolve(fact, Timestamp::parse("2023-05-08T13:56:00Z").unwrap());
        assert_eq!((resolved.text.as_str(), resolved.phrases.len()), (*fact, 0));
    }
}

#[test]
fn a_resolved_fact_holds_no_relative_date() {
    for (_, text) in ON_A_MONDAY {
        assert_eq!(at("2023-05-08T13:56:00Z", text), *text, "a second pass must change nothing");
    }
}

#[test]
fn other_days_of_the_week_and_the_edges_of_the_year() {
    for (said, fact, expected) in [
        // Sunday 14 May 2023 ends the week of 8 May.
        ("2023-05-14", "Went out last Sunday", "Went out on 7 May 2023"),
        ("2023-05-14", "Is going out next Sunday", "Is going out on 21 May 2023"),
        ("2023-05-14", "Is going out next Monday", "Is going out on 15 May 2023"),
        ("2023-05-14", "Camped this weekend", "Camped on the weekend of 13 May 2023"),
        ("2023-05-14", "Camped last weekend", "Camped on the weekend of 6 May 2023"),
        ("2023-05-14", "Camped over the weekend", "Camped on the weekend of 13 May 2023"),
        ("2023-05-10", "Went to the gym this Monday", "Went to the gym on 8 May 2023"),
        ("2023-01-01", "Met Anna yesterday", "Met Anna on 31 December 2022"),
        ("2023-01-15", "Changed jobs last month", "Changed jobs in December 2022"),
        ("2023-01-15", "Will ski this winter", "Will ski in the winter of 2022"),
        ("2023-10-15", "Learned to sail last summer", "Learned to sail in the summer of 2023"),
        ("2023-07-15", "Learned to sail last summer", "Learned to sail in the summer of 2022"),
        ("2024-02-29", "Changed jobs a year ago", "Changed jobs in 2023"),
        ("2024-02-29", "Changed jobs a year ago today", "Changed jobs a year ago today"),
        ("2024-03-31", "Changed jobs last month", "Changed jobs in February 2024"),
        ("2023-05-08", "Called mother two hours ago", "Called mother on 8 May 2023"),
        ("0001-01-01", "Met Anna yesterday", "Met Anna yesterday"),
        ("9999-12-31", "Leaves tomorrow", "Leaves tomorrow"),
        ("2023-05-08", "Was built 9999 years ago", "Was built 9999 years ago"),
    ] {
        assert_eq!(at(said, fact), expected, "{said}");
    }
}

#[test]
fn the_phrases_are_kept_as_they_stood() {
    let resolved = resolve(
        "Went hiking on last Friday, slept badly last night",
        Timestamp::parse("2023-05-08").unwrap(),
    );
    assert_eq!(resolved.text, "Went hiking on 5 May 2023, slept badly on the night of 7 May 2023");
    assert_eq!(resolved.phrases, ["on last Friday", "last night"]);
}
