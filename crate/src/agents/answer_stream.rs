//! The answer's text out of a completion that is still being written.

/// Takes the answer's text out of a completion that comes in pieces.
#[derive(Default)]
pub(super) struct AnswerStream {
    seen: String,
    /// Where the undecoded rest of the answer begins, once the answer has begun.
    rest: Option<usize>,
    done: bool,
    shown: bool,
}

impl AnswerStream {
    /// Takes the next piece, and passes on what is new of the answer.
    pub(super) fn push(&mut self, piece: &str, on_text: &mut dyn FnMut(&str)) {
        self.seen.push_str(piece);
        if self.rest.is_none() {
            self.rest = self.answer_start();
        }
        let Some(mut rest) = self.rest else { return };
        let mut decoded = String::new();
        while let Some((c, length)) = if self.done { None } else { next_char(&self.seen[rest..]) } {
            rest += length;
            match c {
                Some(c) => decoded.push(c),
                None => self.done = true,
            }
        }
        self.rest = Some(rest);
        // The space that a small model begins with is none of the answer.
        let new = if self.shown { &decoded } else { decoded.trim_start() };
        if !new.is_empty() {
            self.shown = true;
            on_text(new);
        }
    }

    /// Passes on the whole answer where nothing of it came in pieces.
    pub(super) fn finish(&self, answer: &str, on_text: &mut dyn FnMut(&str)) {
        if !self.shown {
            on_text(answer);
        }
    }

    /// Where the answer's text begins: ids hold no bracket, so the first one closes their list.
    fn answer_start(&self) -> Option<usize> {
        const OPENING: &str = "],\"answer\":\"";
        self.seen.find(OPENING).map(|place| place + OPENING.len())
    }
}

/// The next character of a JSON string's inside and how many bytes spell it: no character at
/// the closing quote, nothing while its escape is not all there.
fn next_char(rest: &str) -> Option<(Option<char>, usize)> {
    let first = rest.chars().next()?;
    if first == '"' {
        return Some((None, 1));
    }
    if first != '\\' {
        return Some((Some(first), first.len_utf8()));
    }
    let length = if rest.as_bytes().get(1)? == &b'u' { 6 } else { 2 };
    let decode = |escape: &str| serde_json::from_str::<String>(&format!("\"{escape}\"")).ok()?.chars().next();
    let escape = rest.get(..length)?;
    match decode(escape) {
        Some(c) => Some((Some(c), length)),
        // The first half of a surrogate pair.
        None => Some((decode(rest.get(..12)?), 12)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_is_streamed_however_it_is_cut() {
        let whole = r#"{"memories":["0","12"],"answer":" a\"],\"answer\":\"\u00e9\ud83d\udc15b 日"}"#;
        let answer = "a\"],\"answer\":\"é🐕b 日";
        let chars: Vec<char> = whole.chars().collect();
        for step in [1, 2, 5, 1000] {
            let mut stream = AnswerStream::default();
            let mut heard = String::new();
            for piece in chars.chunks(step) {
                stream.push(&piece.iter().collect::<String>(), &mut |text| heard.push_str(text));
            }
            stream.finish(answer, &mut |text| heard.push_str(text));
            assert_eq!(heard, answer);
        }
        let mut heard = String::new();
        AnswerStream::default().finish(answer, &mut |text| heard.push_str(text));
        assert_eq!(heard, answer);
    }
}
