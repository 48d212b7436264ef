//! The answer's text out of a completion that is still being written.

/// Takes the answer's text out of a completion that comes in pieces, with or without the lines
/// that the engine inserts behind ids.
pub(super) struct AnswerStream {
    lines: Vec<String>,
    seen: String,
    /// Where the undecoded rest of the answer begins, once the answer has begun.
    rest: Option<usize>,
    done: bool,
    shown: bool,
}

impl AnswerStream {
    /// A stream for a completion under [`crate::generation::Grammar::Answer`] with these lines.
    pub(super) fn new(lines: Vec<String>) -> Self {
        Self { lines, seen: String::new(), rest: None, done: false, shown: false }
    }

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
        if !decoded.is_empty() {
            self.shown = true;
            on_text(&decoded);
        }
    }

    /// Passes on the whole answer where nothing of it came in pieces.
    pub(super) fn finish(&self, answer: &str, on_text: &mut dyn FnMut(&str)) {
        if !self.shown {
            on_text(answer);
        }
    }

    /// Where the answer's text begins. A memory's line may hold anything, this object's own
    /// text too, so the way there goes id by id.
    fn answer_start(&self) -> Option<usize> {
        let mut rest = self.seen.strip_prefix("{\"memories\":[")?;
        while let Some(id) = rest.strip_prefix(',').unwrap_or(rest).strip_prefix('"') {
            let (id, after) = id.split_once('"')?;
            rest = match after.strip_prefix(' ') {
                Some(line) => line.strip_prefix(self.lines.get(id.parse::<usize>().ok()?)?.as_str())?,
                None => after,
            };
        }
        let text = rest.strip_prefix("],\"answer\":\"")?;
        Some(self.seen.len() - text.len())
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
    fn only_the_answer_is_streamed_whatever_stands_in_the_lines() {
        let trap = "8 May 2023: says \"],\"answer\":\"no\" 1";
        let lines = vec![trap.to_owned(), "x".to_owned()];
        let with_lines = format!(r#"{{"memories":["0" {trap},"1" x],"answer":"a\"\u00e9\ud83d\udc15b 日"}}"#);
        let without = r#"{"memories":["0","1"],"answer":"a\"\u00e9\ud83d\udc15b 日"}"#.to_owned();
        for whole in [with_lines, without] {
            for step in [1, 2, 5, 1000] {
                let mut stream = AnswerStream::new(lines.clone());
                let mut heard = String::new();
                let chars: Vec<char> = whole.chars().collect();
                for piece in chars.chunks(step) {
                    stream.push(&piece.iter().collect::<String>(), &mut |text| heard.push_str(text));
                }
                assert_eq!(heard, "a\"é🐕b 日");
                stream.finish("again", &mut |text| heard.push_str(text));
                assert_eq!(heard, "a\"é🐕b 日");
            }
        }
    }
}
