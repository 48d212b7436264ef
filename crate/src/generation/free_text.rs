//! Text without a grammar, out of tokens that arrive one by one.

use super::{DecodeStream, Tokenizer};
use crate::error::{Error, Result};

/// Whole characters, up to the first stop string. What may be the beginning of one is held back.
#[derive(Clone)]
pub(super) struct FreeText<'a> {
    stop: &'a [String],
    stream: DecodeStream,
    held: String,
    stopped: bool,
}

impl<'a> FreeText<'a> {
    /// `INVALID_ARGUMENT` for an empty stop string, which every text has at its beginning.
    pub(super) fn new(stop: &'a [String]) -> Result<Self> {
        if stop.iter().any(String::is_empty) {
            return Err(Error::invalid("a stop string is empty"));
        }
        Ok(Self { stop, stream: DecodeStream::default(), held: String::new(), stopped: false })
    }

    /// The text that this token makes certain.
    pub(super) fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        let new = self.stream.push(tokenizer, id);
        self.extend(&new)
    }

    /// Whether the text has come to a stop string; nothing may be pushed behind it.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// What is left at the end, U+FFFD for half a character, and whether a stop string was met.
    pub(super) fn finish(&mut self) -> (String, bool) {
        let half = std::mem::take(&mut self.stream).finish();
        let mut text = self.extend(&half);
        text.push_str(&std::mem::take(&mut self.held));
        (text, self.stopped)
    }

    fn extend(&mut self, new: &str) -> String {
        self.held.push_str(new);
        // The one that is complete first, so that the text does not depend on how tokens cut it.
        let found = self.stop.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        if let Some((_, start)) = found.min() {
            self.stopped = true;
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let may_begin = |at: &usize| self.stop.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let certain = self.held.char_indices().map(|(at, _)| at).find(may_begin);
        let rest = self.held.split_off(certain.unwrap_or(self.held.len()));
        std::mem::replace(&mut self.held, rest)
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use crate::generation::tokenizer::testing::byte_level;

    /// What each token makes certain, what is left at the end, and whether it was stopped.
    fn pieces(stop: &[&str], tokens: &[&[u8]]) -> (Vec<String>, String, bool) {
        let tokenizer = byte_level(tokens);
        let id = |bytes: &[u8]| {
            let known = |id: &u32| tokenizer.token_bytes(*id) == bytes && !tokenizer.is_added(*id);
            (0..tokenizer.vocabulary_size() as u32).find(known).unwrap()
        };
        let stop: Vec<String> = stop.iter().map(|text| (*text).to_owned()).collect();
        let mut text = FreeText::new(&stop).unwrap();
        let mut pieces = Vec::new();
        for token in tokens {
            pieces.push(text.push(&tokenizer, id(token)));
            if text.is_stopped() {
                break;
            }
        }
        let (rest, stopped) = text.finish();
        (pieces, rest, stopped)
    }

    #[test]
    fn text_ends_before_a_stop_string_over_token_boundaries() {
        let (given, rest, stopped) = pieces(&["\n\nUser:"], &[b"Hi", b"!\n", b"\nUs", b"er: x", b"more"]);
        assert_eq!((given.concat(), rest.as_str(), stopped), ("Hi!".to_owned(), "", true));
        assert_eq!(given, ["Hi", "!", "", ""]);
        // It can begin and end within one token.
        let (given, rest, stopped) = pieces(&["b"], &[b"abc", b"d"]);
        assert_eq!((given, rest.as_str(), stopped), (vec!["a".to_owned()], "", true));
    }

    #[test]
    fn a_beginning_that_goes_on_otherwise_is_given_after_all() {
        let (given, rest, stopped) = pieces(&["aab"], &[b"a", b"a", b"a", b"c", b"aa"]);
        assert_eq!(given, ["", "", "a", "aac", ""]);
        assert_eq!((rest.as_str(), stopped), ("aa", false));
        let (given, _, stopped) = pieces(&["aab"], &[b"a", b"a", b"a", b"b"]);
        assert_eq!((given, stopped), (["", "", "a", ""].map(str::to_owned).to_vec(), true));
    }

    #[test]
    fn the_string_that_is_complete_first_counts_however_tokens_cut_the_text() {
        let cuts: [&[&[u8]]; 3] = [&[b"xabcd"], &[b"x", b"a", b"b", b"c", b"d"], &[b"xab", b"cd"]];
        for tokens in cuts {
            let (given, rest, stopped) = pieces(&["abcd", "bc"], tokens);
            assert_eq!((given.concat(), rest.as_str(), stopped), ("xa".to_owned(), "", true));
        }
        let (given, ..) = pieces(&["bc", "abc"], &[b"ab", b"c"]);
        assert_eq!(given.concat(), "", "the longer of two that are complete at once");
    }

    #[test]
    fn characters_split_over_tokens_come_out_whole() {
        // 家 is e5 ae b6, 🐕 is f0 9f 90 95.
        let (given, rest, _) = pieces(&[], &[b"a\xe5", b"\xae", b"\xb6\xf0\x9f", b"\x90", b"\x95!"]);
        assert_eq!(given, ["a", "", "家", "", "🐕!"]);
        assert_eq!(rest, "");
        let (given, rest, stopped) = pieces(&["🐕"], &[b"\xe5\xae", b"\xb6\xf0", b"\x9f\x90\x95", b"x"]);
        assert_eq!((given.concat(), rest.as_str(), stopped), ("家".to_owned(), "", true));
    }

    #[test]
    fn half_a_character_at_the_end_is_one_replacement_character() {
        let (given, rest, stopped) = pieces(&["b"], &[b"a", b"\xf0\x9f\x90"]);
        assert_eq!((given.concat(), rest.as_str(), stopped), ("a".to_owned(), "\u{FFFD}", false));
        // In the middle too, and what follows is not lost.
        let (given, rest, _) = pieces(&["x!"], &[b"\xe5\xae", b"ok", b"x"]);
        assert_eq!((given.concat(), rest.as_str()), ("\u{FFFD}ok".to_owned(), "x"));
    }

    #[test]
    fn an_empty_stop_string_is_refused() {
        let stop = ["a".to_owned(), String::new()];
        let error = FreeText::new(&stop).map(|_| ()).unwrap_err();
        assert_eq!((error.code(), error.message()), (ErrorCode::InvalidArgument, "a stop string is empty"));
    }
}
