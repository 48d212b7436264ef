//! From a text to the terms that an index compares.

use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;

/// English words that stand in too many texts to tell them apart, as they are before stemming.
/// What an apostrophe leaves behind (`don't`, `she's`) is among them.
#[rustfmt::skip]
const STOP_WORDS: &[&str] = &[
    "a", "about", "after", "again", "all", "also", "am", "an", "and", "any", "are", "as", "at",
    "be", "because", "been", "before", "being", "between", "both", "but", "by",
    "can", "could", "d", "did", "didn", "do", "does", "doesn", "doing", "don", "during",
    "each", "for", "from", "further", "had", "has", "have", "having", "he", "her", "here", "hers",
    "herself", "him", "himself", "his", "how", "i", "if", "in", "into", "is", "isn", "it", "its",
    "itself", "just", "ll", "m", "me", "more", "most", "my", "myself", "no", "nor", "not", "now",
    "of", "off", "on", "once", "only", "or", "other", "our", "ours", "ourselves", "out", "over",
    "own", "re", "s", "same", "she", "should", "so", "some", "such", "t", "than", "that", "the",
    "their", "theirs", "them", "themselves", "then", "there", "these", "they", "this", "those",
    "through", "to", "too", "under", "until", "up", "ve", "very", "was", "wasn", "we", "were",
    "what", "when", "where", "which", "while", "who", "whom", "whose", "why", "will", "with",
    "would", "you", "your", "yours", "yourself", "yourselves",
];

/// The terms of a text in their order: lower case, without accents, split where letters and
/// digits end, without stop words, stemmed by Snowball's English stemmer. A character of a
/// script that writes no spaces is a term of its own.
pub fn terms(text: &str) -> Vec<String> {
    split(text, false)
}

/// All words of a text, as [`terms`] but with the stop words; every number is `0`.
pub fn words(text: &str) -> Vec<String> {
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    let zero = |word: String| if is_number(&word) { "0".to_owned() } else { word };
    split(text, true).into_iter().map(zero).collect()
}

fn split(text: &str, with_stop_words: bool) -> Vec<String> {
    let stemmer = Stemmer::create(Algorithm::English);
    let folded: String =
        text.nfkd().filter(|c| !('\u{300}'..='\u{36f}').contains(c)).flat_map(char::to_lowercase).collect();
    let mut terms = Vec::new();
    let mut word = String::new();
    let end = |word: &mut String, terms: &mut Vec<String>| {
        let is_kept = with_stop_words || STOP_WORDS.binary_search(&word.as_str()).is_err();
        if !word.is_empty() && is_kept {
            terms.push(stemmer.stem(word).into_owned());
        }
        word.clear();
    };
    for c in folded.chars() {
        if writes_no_spaces(c) {
            end(&mut word, &mut terms);
            terms.push(c.to_string());
        } else if c.is_alphanumeric() {
            word.push(c);
        } else {
            end(&mut word, &mut terms);
        }
    }
    end(&mut word, &mut terms);
    terms
}

fn writes_no_spaces(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stop_words_are_in_the_order_that_the_search_needs() {
        assert!(STOP_WORDS.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_question_and_a_fact_about_the_same_thing_share_their_terms() {
        assert_eq!(terms("Adopted a dog named Scout"), ["adopt", "dog", "name", "scout"]);
        assert_eq!(terms("What's the name of the dogs you've adopted?"), ["name", "dog", "adopt"]);
        assert_eq!(terms("Zoë's café"), ["zoe", "cafe"]);
        assert_eq!(terms("don't DO it; it isn’t"), Vec::<String>::new());
        assert_eq!(terms("on 3 May 2023"), ["3", "may", "2023"]);
        assert_eq!(terms("我爱狗 dogs"), ["我", "爱", "狗", "dog"]);
        assert_eq!(terms("\u{fdfa}🐕 --"), terms("\u{fdfa}"));
    }
}
