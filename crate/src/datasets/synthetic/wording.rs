//! From a template to what somebody says: choices `[a|b|]`, slots `{v}`, capitals, fillers.

use crate::random::Random;

/// Fills a template. `slot` gives the value of a slot by its name; an unknown slot is a defect
/// of the tables and stays visible.
pub(super) fn fill(
    template: &str,
    random: &mut Random,
    slot: &mut dyn FnMut(&str, &mut Random) -> String,
) -> String {
    let mut out = String::with_capacity(template.len() + 16);
    let mut rest = template;
    while let Some(start) = rest.find(['[', '{']) {
        out.push_str(&rest[..start]);
        let close = if rest[start..].starts_with('[') { ']' } else { '}' };
        let Some(end) = rest[start..].find(close).map(|end| start + end) else { break };
        let inner = &rest[start + 1..end];
        if close == ']' {
            let choices: Vec<&str> = inner.split('|').collect();
            let choice = random.pick(&choices).copied().unwrap_or_default();
            out.push_str(&fill(choice, random, slot));
        } else if let Some(name) = inner.strip_prefix("a:") {
            let value = slot(name, random);
            out.push_str(if starts_with_vowel(&value) { "an " } else { "a " });
            out.push_str(&value);
        } else {
            out.push_str(&slot(inner, random));
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    tidy(&out)
}

/// Empty choices leave double spaces and spaces before commas.
fn tidy(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace(" ,", ",").replace(" .", ".").replace(" !", "!").replace(" ?", "?")
}

fn starts_with_vowel(text: &str) -> bool {
    let lower = text.to_lowercase();
    let sounds_like_you = ["uni", "use", "eu", "one"].iter().any(|start| lower.starts_with(start));
    lower.starts_with(['a', 'e', 'i', 'o', 'u', '8']) && !sounds_like_you
}

/// `Rex`, `Rex and Scout`, `Rex, Scout and Milo`.
pub(super) fn join(values: &[String]) -> String {
    match values {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// The first letter large.
pub(super) fn capitalise(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The first letter of a clause small after an opener, unless the word is `I` or a value.
pub(super) fn lower_first(text: &str, template: &str) -> String {
    let first = text.split([' ', '\'']).next().unwrap_or_default();
    if first == "I" || template.starts_with('{') {
        return text.to_owned();
    }
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// A clause with an end, if it has none.
pub(super) fn end(text: &str, mark: &str) -> String {
    if text.ends_with(['.', '!', '?', ')', ':', '…']) { text.to_owned() } else { format!("{text}{mark}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_slots_and_articles_are_filled() {
        let mut random = Random::new(1, &[]);
        let mut slot = |name: &str, _: &mut Random| match name {
            "v" => "engineer".to_owned(),
            other => format!("<{other}>"),
        };
        assert_eq!(fill("I'm {a:v} [now|now] at {n}", &mut random, &mut slot), "I'm an engineer now at <n>");
        assert_eq!(fill("So [|], yes", &mut random, &mut slot), "So, yes");
        assert_eq!(lower_first("My dog", "My dog"), "my dog");
        assert_eq!(lower_first("I'm here", "I'm here"), "I'm here");
        assert_eq!(lower_first("Rex is here", "{n} is here"), "Rex is here");
        assert_eq!(join(&["a".into(), "b".into(), "c".into()]), "a, b and c");
    }
}
