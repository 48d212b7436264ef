//! Strings of given words only.

use serde_json::Value;

use super::*;
use crate::generation::Lexicon;

/// A model that likes anything, held to the words of a prompt and a lexicon: every string is made
/// of them, whole, within any budget.
#[test]
fn a_thousand_strings_of_any_model_are_made_of_the_words_that_are_given() {
    let lexicon = Lexicon::parse("Lives Works as in named I don t know a");
    let prompt = "> Ann: I moved to Zürich-Oerlikon, 東京 is behind me; Constantinople is 3";
    let known: std::collections::HashSet<&str> =
        "Lives Works as in named I don t know a Ann moved to Zürich Oerlikon 東京 is behind me Constantinople 3"
            .split(' ')
            .collect();
    // As it stands, with a small or large first letter, with an ending more or less: no other piece.
    let endings = ["", "s", "es", "ing", "ed", "d"];
    let is_known = |word: &str| {
        let word = word.to_lowercase();
        known.iter().map(|own| own.to_lowercase()).any(|own| {
            let stem = own.trim_end_matches('e');
            endings.iter().any(|end| {
                word == format!("{own}{end}")
                    || word == format!("{stem}{end}")
                    || own == format!("{word}{end}")
            })
        })
    };
    let tokenizer = trained();
    for number in 0..1_000 {
        let mut random = Random::new(12, &[number]);
        let grammar = match number % 3 {
            0 => Grammar::Facts { max_facts: 2 },
            1 => Grammar::Decision { shown: 2 },
            _ => Grammar::Answer { lines: vec!["8 May 2023: Lives in 東京".to_owned()] },
        };
        let words = || Some(lexicon.beside([prompt]));
        let most = budget(&tokenizer, &grammar, &mut random);
        let taste = TASTES[random.below(TASTES.len())];
        let mut constraint = Constraint::with_words(&tokenizer, &grammar, words(), most).unwrap();
        let run = run(&mut constraint, taste, &mut random);
        assert!(run.ids.len() <= most);
        let parsed: Value = serde_json::from_str(&run.text).unwrap();
        let strings = [&parsed["facts"], &parsed["text"], &parsed["answer"]].into_iter().flat_map(|value| {
            let list = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            list.into_iter().filter_map(|value| value.as_str().map(str::to_owned))
        });
        for text in strings {
            assert!(is_good_string(&text), "{}", run.text);
            let mut parts = text.split(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric());
            assert!(parts.all(|word| word.is_empty() || is_known(word)), "{taste:?}: {text}");
        }
    }
}
