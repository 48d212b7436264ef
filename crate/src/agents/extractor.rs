//! The extractor: the facts of one turn.

use std::rc::Rc;

use super::prompts::{extract_messages, one_line};
use super::stutter::stutters;
use super::{dates, generate};
use crate::bank::Turn;
use crate::error::{Error, ErrorCode, Result};
use crate::generation::{
    Cancel, Generation, Grammar, LanguageModel, MAX_TEXT_TOKENS, Request, Sampling, fact_spans, parse_facts,
};

/// The most facts of one turn, or of one window of a long one.
pub const MAX_FACTS: usize = 16;
/// The longest content of a turn, in bytes of UTF-8.
pub const MAX_CONTENT_BYTES: usize = 1 << 20;
/// How many turns before a turn the extractor sees.
pub const CONTEXT_TURNS: usize = 2;
/// The longest list of facts.
const MOST_TOKENS: usize = MAX_FACTS * (MAX_TEXT_TOKENS + 4) + 16;
/// A piece this short is never split for want of room in the completion.
const SMALL_PIECE: usize = 512;

/// A statement that the extractor took out of a turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// The statement, with its dates resolved.
    pub text: String,
    /// The relative dates as they were said.
    pub phrases: Vec<String>,
    /// What was said: the turn, or the window of it that the model read.
    pub said: Turn,
    /// The geometric mean of the probabilities of the tokens that spell it.
    pub probability: f64,
}

impl Fact {
    /// One that is known to be what a turn says.
    pub(super) fn known(text: &str, said: &Turn) -> Self {
        let resolved = dates::resolve(&one_line(text), said.timestamp);
        Self { text: resolved.text, phrases: resolved.phrases, said: said.clone(), probability: 1.0 }
    }
}

/// Takes facts out of turns.
#[derive(Clone)]
pub struct Extractor {
    model: Rc<dyn LanguageModel>,
}

impl Extractor {
    /// An extractor that asks this model.
    pub fn new(model: Rc<dyn LanguageModel>) -> Self {
        Self { model }
    }

    /// The model.
    pub fn model(&self) -> &Rc<dyn LanguageModel> {
        &self.model
    }

    /// The facts of `turn`, in the order in which it says them; `context` are the turns before
    /// it, of which the last two are shown, and `memories` the texts, best last, that its speaker's
    /// bank holds and that may have to do with it: as many as
    /// [`ModelInfo::extractor_candidates`](crate::generation::ModelInfo::extractor_candidates) are shown.
    ///
    /// A turn that does not fit into the model's context is read in windows, which end where
    /// sentences do.
    pub async fn extract(
        &self,
        memories: &[String],
        context: &[Turn],
        turn: &Turn,
        sampling: Sampling,
        cancel: &Cancel,
    ) -> Result<Vec<Fact>> {
        let turn = clean_turn(turn)?;
        let length = self.model.info().context_length;
        let most = self.model.info().extractor_candidates;
        let memories = &memories[memories.len().saturating_sub(most)..];
        let context: Vec<Turn> = context[context.len().saturating_sub(CONTEXT_TURNS)..]
            .iter()
            .map(|t| shortened(t, length / 2))
            .collect();
        let mut pieces: Vec<&str> = split_to(&turn.content, length * 3);
        pieces.reverse();
        let mut facts = Vec::new();
        while let Some(piece) = pieces.pop() {
            let window = Turn { content: piece.to_owned(), ..turn.clone() };
            let Read { texts, cut } = match self.read(memories, &context, &window, sampling, cancel).await {
                Ok(read) => read,
                Err(error) if error.code() == ErrorCode::ContextOverflow && piece.len() > SMALL_PIECE / 8 => {
                    let (first, second) = split_near_middle(piece).ok_or(error)?;
                    pieces.extend([second, first]);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let (true, Some((first, second))) =
                (cut && piece.len() > SMALL_PIECE, split_near_middle(piece))
            {
                pieces.extend([second, first]);
                continue;
            }
            facts.extend(texts.into_iter().map(|(text, probability)| {
                let resolved = dates::resolve(&text, turn.timestamp);
                let said = window.clone();
                Fact { text: resolved.text, phrases: resolved.phrases, said, probability }
            }));
        }
        Ok(facts)
    }

    /// The facts of one window. What does not fit beside it is left out: memories, the worst first,
    /// then context, oldest first.
    /// What the model writes without conviction is not believed: a small one that meets something
    /// new makes something up, and its tokens have low probabilities. Nor is what it wrote in a loop.
    async fn read(
        &self,
        memories: &[String],
        context: &[Turn],
        window: &Turn,
        sampling: Sampling,
        cancel: &Cancel,
    ) -> Result<Read> {
        let info = self.model.info();
        let mut from = 0;
        loop {
            let request = Request {
                messages: extract_messages(
                    info.prompt_family,
                    &memories[from.min(memories.len())..],
                    &context[from.saturating_sub(memories.len())..],
                    window,
                ),
                grammar: Some(Grammar::Facts { max_facts: MAX_FACTS }),
                max_new_tokens: MOST_TOKENS,
                sampling,
                stop: Vec::new(),
            };
            match generate(&*self.model, &request, MOST_TOKENS, cancel, &mut |_| ()).await {
                Ok(generation) => {
                    let facts = parse_facts(&generation.text, MAX_FACTS)?;
                    let spans = fact_spans(&generation.text);
                    let probabilities = spans.iter().map(|span| generation.mean_probability(span).min(1.0));
                    let texts = facts.iter().map(|fact| one_line(fact)).zip(probabilities);
                    let is_believed = |(text, probability): &(String, f64)| {
                        !text.is_empty() && *probability >= info.fact_threshold && !stutters(text)
                    };
                    let cut = was_cut(&generation, info.context_length);
                    return Ok(Read { texts: texts.filter(is_believed).collect(), cut });
                }
                Err(error)
                    if error.code() == ErrorCode::ContextOverflow
                        && from < memories.len() + context.len() =>
                {
                    from += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// What the model made of one window.
struct Read {
    /// Each with its probability.
    texts: Vec<(String, f64)>,
    /// Whether it ran out of room.
    cut: bool,
}

/// Whether the facts used up their room, so that the constraint had to close the list.
fn was_cut(generation: &Generation, context_length: usize) -> bool {
    let room = MOST_TOKENS.min(context_length.saturating_sub(generation.prompt_ids.len()));
    generation.ids.len() + 2 >= room
}

/// The turn as the agents take it: a speaker, and content of 1 byte to 1 MiB on one line
/// without control characters; otherwise `INVALID_ARGUMENT`.
pub(super) fn clean_turn(turn: &Turn) -> Result<Turn> {
    let content = clean_content(&turn.content, "a turn's content")?;
    let speaker = one_line(&turn.speaker);
    if speaker.is_empty() || speaker.len() > crate::bank::MAX_SPEAKER_BYTES {
        return Err(Error::invalid(format!(
            "a speaker's name is 1 to {} bytes of text",
            crate::bank::MAX_SPEAKER_BYTES
        )));
    }
    Ok(Turn { speaker, content, ..turn.clone() })
}

/// Text from outside, trimmed, with spaces for control characters other than line breaks.
pub(super) fn clean_content(text: &str, what: &str) -> Result<String> {
    if text.len() > MAX_CONTENT_BYTES {
        return Err(Error::invalid(format!(
            "{what} is at most {MAX_CONTENT_BYTES} bytes long, not {}; add it in parts",
            text.len()
        )));
    }
    let spaced: String = text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    let trimmed = spaced.trim();
    if trimmed.is_empty() {
        return Err(Error::invalid(format!("{what} is empty")));
    }
    Ok(trimmed.to_owned())
}

/// The end of a long turn: what was said last stands nearest to what follows.
fn shortened(turn: &Turn, most: usize) -> Turn {
    let mut start = turn.content.len().saturating_sub(most.max(1));
    while !turn.content.is_char_boundary(start) {
        start += 1;
    }
    Turn { content: turn.content[start..].to_owned(), ..turn.clone() }
}

/// The text in pieces of at most about `most` bytes.
fn split_to(text: &str, most: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut open = vec![text];
    while let Some(piece) = open.pop() {
        match if piece.len() > most { split_near_middle(piece) } else { None } {
            Some((first, second)) => open.extend([second, first]),
            None => pieces.push(piece),
        }
    }
    pieces
}

/// Two parts that together are the text: parted at the end of a sentence in its middle half,
/// else between two words there, else between two characters. `None` for a single character.
fn split_near_middle(text: &str) -> Option<(&str, &str)> {
    let middle = text.len() / 2;
    let near = |ends: &dyn Fn(char, char) -> bool| {
        let places = text.char_indices().zip(text.chars().skip(1)).filter(|((_, a), b)| ends(*a, *b));
        let places = places.map(|((place, a), _)| place + a.len_utf8());
        let inner = places.filter(|place| place.abs_diff(middle) <= text.len() / 4);
        inner.min_by_key(|place| place.abs_diff(middle))
    };
    let sentence = |a: char, b: char| {
        a == '\n' || matches!(a, '。' | '！' | '？') || (matches!(a, '.' | '!' | '?') && b.is_whitespace())
    };
    let place = near(&sentence).or_else(|| near(&|a: char, _| a.is_whitespace())).or_else(|| {
        text.char_indices()
            .map(|(place, _)| place)
            .filter(|place| *place > 0)
            .min_by_key(|place| place.abs_diff(middle))
    })?;
    Some(text.split_at(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_loses_nothing_and_prefers_the_end_of_a_sentence() {
        let text = "I have a dog. He is called Scout. We live in Lyon.";
        assert_eq!(split_near_middle(text), Some(("I have a dog. He is called Scout.", " We live in Lyon.")));
        assert_eq!(split_near_middle("one two three"), Some(("one ", "two three")));
        assert_eq!(split_near_middle("日本語文"), Some(("日本", "語文")));
        assert_eq!(split_near_middle("x"), None);
        for most in [1, 7, 20] {
            let long = format!("{text} {text}日本");
            let pieces = split_to(&long, most);
            assert_eq!(pieces.concat(), long);
            assert!(pieces.iter().all(|piece| piece.len() <= most.max(3)));
        }
    }

    #[test]
    fn content_is_bounded_and_cleaned() {
        assert_eq!(clean_content(" a\0b\u{7}c\nd ", "x").unwrap(), "a b c\nd");
        for bad in ["", " \n\t", "\0\0", &"x".repeat(MAX_CONTENT_BYTES + 1)] {
            assert_eq!(clean_content(bad, "x").unwrap_err().code(), ErrorCode::InvalidArgument);
        }
    }
}
