//! NLTK's word tokenizer (`NLTKWordTokenizer` of NLTK 3.10.4, Apache-2.0), rule by rule.
//!
//! BLEU depends on where words end, so the rules are NLTK's own, in its order, on Oniguruma,
//! with Python's classes spelled out: most rules run on the `regex` module, whose `\w` has
//! combining marks, the contractions on `re`, whose `\w` has not. It is
//! `word_tokenize(text, preserve_line=True)`: sentences are not parted first, so only the last
//! full stop of a text is a token of its own. (NLTK 3.9 differs: it keeps dashes within a word
//! and parts `'tis` as `'t is`.)

use std::sync::LazyLock;

use onig::{Captures, Regex};

struct Rule {
    pattern: Regex,
    /// What takes its place: `\0` to `\3` are its groups.
    replacement: &'static str,
}

/// `\w` of the `regex` module.
const W: &str = r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}]";
/// `\w` and `\s` of `re`.
const RE_W: &str = r"[\p{L}\p{N}_]";
const RE_S: &str = r"[\s\x1c-\x1f]";

/// The rules up to the point where NLTK puts spaces around the text.
static BEFORE: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let clitics = format!(r"(?i)(?<!{W})(')(?!(?:re|ve|ll|m|t|s|d|n)(?!{W}))(?={W})");
    let last_stop = r#"([^.])(\.)([\])}>"'»”’ ]*+)\s*\z"#;
    let final_period = r#"([^.])(\.)([\])}>"']*)\s*\z"#;
    rules(&[
        // Starting quotes.
        ("([«“‘„]|`+)", r" \1 "),
        (r#"\A""#, "``"),
        ("(``)", r" \1 "),
        (r#"([ (\[{<])("|'{2})"#, r"\1 `` "),
        (&clitics, r"\1 "),
        // Punctuation.
        (last_stop, r"\1 \2 \3 "),
        (r"([:,])(\P{Nd})", r" \1 \2"),
        (r"([:,])(?=\n?\z)", r" \1 "),
        (r"\.{2,}", r" \0 "),
        (r"[;@#$%&]", r" \0 "),
        (r"[\x{2012}-\x{2015}]", r" \0 "),
        (final_period, r"\1 \2\3 "),
        (r"[?!]", r" \0 "),
        (r"([^'])' ", r"\1 ' "),
        (r"[*]", r" \0 "),
        (r"[\]\[(){}<>]", r" \0 "),
        ("--", " -- "),
    ])
});

/// The rules after it: ending quotes, then Robert MacIntyre's contractions.
static AFTER: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let word = |first: &str, second: &str| format!(r"(?i)(?<!{RE_W})({first})({second})(?!{RE_W})");
    let wanna = format!(r"(?i)(?<!{RE_W})(wan)(na)(?={RE_S})");
    let spaced = |second: &str| format!(r"(?i) ('t)({second})(?!{RE_W})");
    rules(&[
        ("([»”’])", r" \1 "),
        ("''", " '' "),
        ("\"", " '' "),
        (r"\s+", " "),
        ("([^' ])('[sS]|'[mM]|'[dD]|') ", r"\1 \2 "),
        ("([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 "),
        (&word("can", "not"), r" \1 \2 "),
        (&word("d", "'ye"), r" \1 \2 "),
        (&word("gim", "me"), r" \1 \2 "),
        (&word("gon", "na"), r" \1 \2 "),
        (&word("got", "ta"), r" \1 \2 "),
        (&word("lem", "me"), r" \1 \2 "),
        (&word("more", "'n"), r" \1 \2 "),
        (&wanna, r" \1 \2 "),
        (&spaced("is"), r" \1 \2 "),
        (&spaced("was"), r" \1 \2 "),
    ])
});

fn rules(rules: &[(&str, &'static str)]) -> Vec<Rule> {
    rules
        .iter()
        .map(|(pattern, replacement)| Rule {
            pattern: Regex::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")),
            replacement,
        })
        .collect()
}

/// The words of a text.
pub fn word_tokenize(text: &str) -> Vec<String> {
    let before = BEFORE.iter().fold(text.to_owned(), |text, rule| rule.apply(&text));
    let text = AFTER.iter().fold(format!(" {before} "), |text, rule| rule.apply(&text));
    split(&text).map(str::to_owned).collect()
}

/// Python's `str.split()`.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    let is_space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
    text.split(is_space).filter(|word| !word.is_empty())
}

impl Rule {
    fn apply(&self, text: &str) -> String {
        self.pattern.replace_all(text, |captures: &Captures<'_>| {
            let mut filled = String::new();
            let mut characters = self.replacement.chars();
            while let Some(character) = characters.next() {
                let group = (character == '\\').then(|| characters.next()).flatten();
                match group.and_then(|digit| digit.to_digit(10)) {
                    Some(group) => filled.push_str(captures.at(group as usize).unwrap_or_default()),
                    None => filled.push(character),
                }
            }
            filled
        })
    }
}

#[cfg(test)]
mod tests {
    use super::word_tokenize;

    #[test]
    fn the_examples_of_nltks_own_documentation() {
        let text = "Good muffins cost $3.88 (roughly 3,36 euros)\nin New York.  Please buy me\ntwo of \
                    them.\nThanks.";
        let words = [
            "Good", "muffins", "cost", "$", "3.88", "(", "roughly", "3,36", "euros", ")", "in", "New",
            "York.", "Please", "buy", "me", "two", "of", "them.", "Thanks", ".",
        ];
        assert_eq!(word_tokenize(text), words);
        assert_eq!(
            word_tokenize("They'll save and invest more."),
            ["They", "'ll", "save", "and", "invest", "more", "."]
        );
        assert_eq!(
            word_tokenize("hi, my name can't hello,"),
            ["hi", ",", "my", "name", "ca", "n't", "hello", ","]
        );
    }
}
