//! The words of a text, with their places.

/// A run of letters, digits and apostrophes.
pub(super) struct Word<'a> {
    /// Its first byte.
    pub(super) start: usize,
    /// The byte after its last, a possessive `'s` included.
    pub(super) end: usize,
    /// As it stands, without the possessive.
    pub(super) raw: &'a str,
    /// Whether it ended in `'s` or `s'`.
    pub(super) possessive: bool,
    /// Whether only spaces or one hyphen part it from the word before.
    pub(super) joined: bool,
    lower: String,
}

impl Word<'_> {
    /// In lower case, without the possessive.
    pub(super) fn lower(&self) -> &str {
        &self.lower
    }
}

/// The words of `text` in order.
pub(super) fn words(text: &str) -> Vec<Word<'_>> {
    let mut words: Vec<Word<'_>> = Vec::new();
    let mut rest = 0;
    let is_part = |c: char| c.is_alphanumeric() || c == '\'' || c == '’';
    while let Some(offset) = text[rest..].find(char::is_alphanumeric) {
        let start = rest + offset;
        let end = text[start..].find(|c| !is_part(c)).map_or(text.len(), |length| start + length);
        let whole = text[start..end].trim_end_matches(['\'', '’']);
        let trailing = start + whole.len() < end;
        let (raw, owns) = match whole.strip_suffix("'s").or_else(|| whole.strip_suffix("’s")) {
            Some(raw) => (raw, true),
            None => (whole, trailing && whole.ends_with('s')),
        };
        let word_end = start
            + whole.len()
            + if owns && trailing {
                text[start + whole.len()..].chars().next().map_or(0, char::len_utf8)
            } else {
                0
            };
        let gap = words.last().map(|word| &text[word.end..start]);
        let joined = gap.is_some_and(|gap| gap == "-" || (!gap.is_empty() && gap.chars().all(|c| c == ' ')));
        words.push(Word { start, end: word_end, raw, possessive: owns, joined, lower: raw.to_lowercase() });
        rest = end;
    }
    words
}
