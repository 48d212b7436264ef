//! Whether the verb near a phrase looks back or forward.

use super::words::Word;

/// The direction of a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tense {
    /// It has happened.
    Past,
    /// It is to come.
    Future,
    /// A habit, or no verb that tells.
    Unclear,
}

const FUTURE: &[&str] = &[
    "will",
    "shall",
    "plans",
    "planning",
    "planned",
    "going",
    "hopes",
    "hoping",
    "intends",
    "wants",
    "upcoming",
    "scheduled",
    "scheduling",
    "booked",
    "arranged",
    "agreed",
    "promised",
    "expects",
    "expecting",
    "expected",
    "is",
    "has",
    "have",
    "are",
    "needs",
    "must",
    "should",
    "might",
    "may",
    "starts",
    "begins",
    "leaves",
    "flies",
    "travels",
    "moves",
    "meets",
    "arrives",
    "visits",
    "returns",
    "opens",
    "turns",
    "gets",
    "ends",
    "due",
    "invited",
    "signed",
    "registered",
    "appointment",
    "looking",
];

const PAST: &[&str] = &[
    "was",
    "were",
    "went",
    "had",
    "did",
    "met",
    "got",
    "saw",
    "bought",
    "took",
    "ate",
    "ran",
    "won",
    "lost",
    "began",
    "came",
    "made",
    "gave",
    "found",
    "left",
    "felt",
    "fell",
    "flew",
    "drove",
    "rode",
    "swam",
    "sang",
    "wrote",
    "read",
    "heard",
    "held",
    "kept",
    "knew",
    "grew",
    "paid",
    "sold",
    "sent",
    "spent",
    "slept",
    "spoke",
    "stood",
    "taught",
    "thought",
    "told",
    "threw",
    "woke",
    "wore",
    "became",
    "been",
    "broke",
    "brought",
    "built",
    "caught",
    "chose",
    "cut",
    "drank",
    "drew",
    "fed",
    "forgot",
    "fought",
    "gone",
    "hid",
    "hit",
    "hurt",
    "led",
    "lent",
    "let",
    "lit",
    "meant",
    "put",
    "quit",
    "rang",
    "rose",
    "sat",
    "set",
    "shook",
    "shot",
    "split",
    "stole",
    "stuck",
    "swept",
    "tore",
    "understood",
    "upset",
    "written",
    "done",
    "seen",
    "taken",
    "given",
    "eaten",
    "driven",
    "broken",
    "chosen",
];

/// Words in -ed that tell nothing of the time.
const NO_VERB: &[&str] = &[
    "excited",
    "interested",
    "worried",
    "tired",
    "bored",
    "indeed",
    "need",
    "speed",
    "hundred",
    "seed",
    "feed",
    "weed",
    "shed",
    "breed",
    "sacred",
    "aged",
    "beloved",
    "related",
    "named",
    "called",
    "used",
];

/// The tense at the phrase that begins at word `at`: of the last telling word before it, or,
/// where it opens the text, of the first after it.
pub(super) fn tense(words: &[Word<'_>], at: usize) -> Tense {
    let before = (0..at).rev().find_map(|place| cue(words, place));
    before.or_else(|| (at..words.len()).find_map(|place| cue(words, place))).unwrap_or(Tense::Unclear)
}

fn cue(words: &[Word<'_>], place: usize) -> Option<Tense> {
    let (word, lower) = (&words[place], words[place].lower());
    if place > 0 && word.raw.starts_with(char::is_uppercase) {
        return None;
    }
    if FUTURE.contains(&lower) {
        return Some(Tense::Future);
    }
    let auxiliary = place.checked_sub(1).map_or("", |before| words[before].lower());
    if matches!(auxiliary, "is" | "are" | "be" | "being" | "get" | "gets" | "getting") {
        return None;
    }
    let regular = lower.len() > 3 && lower.ends_with("ed") && !NO_VERB.contains(&lower);
    (regular || PAST.contains(&lower)).then_some(Tense::Past)
}
