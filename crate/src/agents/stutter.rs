//! Whether a small model fell into a loop while it wrote: each repetition makes the next one more
//! probable, so that probabilities do not tell.

/// The longest sequence of words that is looked for.
const LONGEST: usize = 12;
/// Up to so many words may be said twice on end, as in `Duran Duran` or `New York, New York`.
const SHORT: usize = 2;

/// Whether the same words follow each other three times, or twice where they are more than two.
pub(super) fn stutters(text: &str) -> bool {
    let lower = text.to_lowercase();
    let words: Vec<&str> =
        lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    (1..=LONGEST).any(|length| {
        let times = if length <= SHORT { 3 } else { 2 };
        words.windows(length * times).any(|run| run.chunks(length).all(|part| *part == run[..length]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_told_from_a_name() {
        for text in [
            "Is due on a twin twin twin twin",
            "Starts the day with step-by-by-by-by",
            "Lives in own place in own place in Soweto",
            "Works as a night staff on the night of 2 January staff on the night of 2 January",
        ] {
            assert!(stutters(text), "{text}");
        }
        for text in [
            "",
            "Likes Duran Duran",
            "Loves New York, New York",
            "Has two sons, Bo and Bo Junior",
            "Plays chess",
        ] {
            assert!(!stutters(text), "{text}");
        }
    }
}
