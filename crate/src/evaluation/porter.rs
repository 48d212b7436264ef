//! Porter's stemmer ("An algorithm for suffix stripping", 1980) with NLTK's extensions, as LoCoMo's
//! scorer uses it. (Snowball's English stemmer, which retrieval uses, is another algorithm.)

/// Words that the rules would spoil.
const IRREGULAR: [(&str, &str); 16] = [
    ("skies", "sky"),
    ("sky", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

type Letters = Vec<char>;

/// A suffix, what stands in its place, and the measure that the rest must exceed.
type Rule = (&'static str, &'static str, Option<usize>);

/// The stem of a word, in lower case.
pub(super) fn stem(word: &str) -> String {
    let lower = word.to_lowercase();
    if let Some((_, stem)) = IRREGULAR.iter().find(|(word, _)| *word == lower) {
        return (*stem).to_owned();
    }
    let letters: Letters = lower.chars().collect();
    if letters.len() <= 2 {
        return lower;
    }
    let steps: [fn(Letters) -> Letters; 8] =
        [plurals, past, final_y, double_suffixes, single_suffixes, bare_suffixes, final_e, final_l];
    steps.iter().fold(letters, |word, step| step(word)).into_iter().collect()
}

fn is_consonant(word: &[char], place: usize) -> bool {
    match word[place] {
        'a' | 'e' | 'i' | 'o' | 'u' => false,
        'y' => place == 0 || !is_consonant(word, place - 1),
        _ => true,
    }
}

/// How many times vowels are followed by consonants.
fn measure(word: &[char]) -> usize {
    (1..word.len()).filter(|&i| is_consonant(word, i) && !is_consonant(word, i - 1)).count()
}

fn has_vowel(word: &[char]) -> bool {
    (0..word.len()).any(|i| !is_consonant(word, i))
}

fn ends_in_double_consonant(word: &[char]) -> bool {
    let n = word.len();
    n >= 2 && word[n - 1] == word[n - 2] && is_consonant(word, n - 1)
}

/// Consonant, vowel, consonant at the end, the last not w, x or y; or a vowel and a consonant alone.
fn ends_short(word: &[char]) -> bool {
    let n = word.len();
    let is_short = n >= 3
        && is_consonant(word, n - 3)
        && !is_consonant(word, n - 2)
        && is_consonant(word, n - 1)
        && !['w', 'x', 'y'].contains(&word[n - 1]);
    is_short || (n == 2 && !is_consonant(word, 0) && is_consonant(word, 1))
}

/// The word without the suffix, where it has it.
fn without<'a>(word: &'a [char], suffix: &str) -> Option<&'a [char]> {
    let count = suffix.chars().count();
    let rest = word.len().checked_sub(count)?;
    word[rest..].iter().copied().eq(suffix.chars()).then(|| &word[..rest])
}

fn joined(stem: &[char], suffix: &str) -> Letters {
    stem.iter().copied().chain(suffix.chars()).collect()
}

/// The first rule whose suffix the word has decides, also where it then does nothing.
fn first_rule(word: Letters, rules: &[Rule]) -> Letters {
    for (suffix, replacement, exceeds) in rules {
        if let Some(stem) = without(&word, suffix) {
            let applies = exceeds.is_none_or(|least| measure(stem) > least);
            return if applies { joined(stem, replacement) } else { word };
        }
    }
    word
}

fn plurals(word: Letters) -> Letters {
    if let Some(stem) = without(&word, "ies").filter(|_| word.len() == 4) {
        return joined(stem, "ie");
    }
    first_rule(word, &[("sses", "ss", None), ("ies", "i", None), ("ss", "ss", None), ("s", "", None)])
}

fn past(word: Letters) -> Letters {
    if let Some(stem) = without(&word, "ied") {
        return joined(stem, if word.len() == 4 { "ie" } else { "i" });
    }
    if let Some(stem) = without(&word, "eed") {
        return if measure(stem) > 0 { joined(stem, "ee") } else { word };
    }
    let stripped =
        ["ed", "ing"].iter().find_map(|suffix| without(&word, suffix).filter(|stem| has_vowel(stem)));
    let Some(stem) = stripped.map(<[char]>::to_vec) else { return word };
    for (suffix, replacement) in [("at", "ate"), ("bl", "ble"), ("iz", "ize")] {
        if let Some(rest) = without(&stem, suffix) {
            return joined(rest, replacement);
        }
    }
    if ends_in_double_consonant(&stem) {
        let last = stem[stem.len() - 1];
        return if ['l', 's', 'z'].contains(&last) { stem } else { stem[..stem.len() - 1].to_vec() };
    }
    if measure(&stem) == 1 && ends_short(&stem) { joined(&stem, "e") } else { stem }
}

fn final_y(word: Letters) -> Letters {
    match without(&word, "y") {
        Some(stem) if stem.len() > 1 && is_consonant(stem, stem.len() - 1) => joined(stem, "i"),
        _ => word,
    }
}

fn double_suffixes(word: Letters) -> Letters {
    if let Some(stem) = without(&word, "alli").filter(|stem| measure(stem) > 0) {
        return double_suffixes(joined(stem, "al"));
    }
    // The l of "logi" counts as the stem's.
    if let Some(stem) = without(&word, "logi") {
        return if measure(&word[..word.len() - 3]) > 0 { joined(stem, "log") } else { word };
    }
    let rules = [
        ("ational", "ate"),
        ("tional", "tion"),
        ("enci", "ence"),
        ("anci", "ance"),
        ("izer", "ize"),
        ("bli", "ble"),
        ("alli", "al"),
        ("entli", "ent"),
        ("eli", "e"),
        ("ousli", "ous"),
        ("ization", "ize"),
        ("ation", "ate"),
        ("ator", "ate"),
        ("alism", "al"),
        ("iveness", "ive"),
        ("fulness", "ful"),
        ("ousness", "ous"),
        ("aliti", "al"),
        ("iviti", "ive"),
        ("biliti", "ble"),
        ("fulli", "ful"),
    ];
    first_rule(word, &rules.map(|(suffix, replacement)| (suffix, replacement, Some(0))))
}

fn single_suffixes(word: Letters) -> Letters {
    let rules = [
        ("icate", "ic"),
        ("ative", ""),
        ("alize", "al"),
        ("iciti", "ic"),
        ("ical", "ic"),
        ("ful", ""),
        ("ness", ""),
    ];
    first_rule(word, &rules.map(|(suffix, replacement)| (suffix, replacement, Some(0))))
}

fn bare_suffixes(word: Letters) -> Letters {
    let rules = [
        "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism",
        "ate", "iti", "ous", "ive", "ize",
    ];
    for suffix in rules {
        if let Some(stem) = without(&word, suffix) {
            let fits = suffix != "ion" || stem.last().is_some_and(|last| ['s', 't'].contains(last));
            return if fits && measure(stem) > 1 { stem.to_vec() } else { word };
        }
    }
    word
}

fn final_e(word: Letters) -> Letters {
    match without(&word, "e") {
        Some(stem) if measure(stem) > 1 || (measure(stem) == 1 && !ends_short(stem)) => stem.to_vec(),
        _ => word,
    }
}

fn final_l(word: Letters) -> Letters {
    match without(&word, "ll") {
        Some(stem) if measure(&word[..word.len() - 1]) > 1 => joined(stem, "l"),
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tests/reference/metrics.py` prints the constants.
    #[test]
    fn stems_are_nltks() {
        let constants: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/metrics.json")).unwrap();
        let stems = constants["stems"].as_object().unwrap();
        assert!(stems.len() > 800);
        for (word, wanted) in stems {
            assert_eq!(stem(word), *wanted, "{word}");
        }
    }
}
