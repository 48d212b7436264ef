//! The records of a JSON file one by one: the items of its list, or its lines. The file is never
//! in memory as a whole.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

use serde_json::Value;

use super::place::Place;
use crate::error::{Error, ErrorCode, Result};

/// Reads the records in order; an error names the file and the record, and is the last item.
pub(super) struct Records<R> {
    input: R,
    name: String,
    number: usize,
    is_list: bool,
    is_done: bool,
}

impl Records<BufReader<File>> {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| {
            Error::new(ErrorCode::NotReachable, format!("{name} could not be read")).with_source(error)
        })?;
        Self::new(BufReader::with_capacity(1 << 16, file), name)
    }
}

impl<R: BufRead> Records<R> {
    pub(super) fn new(input: R, name: String) -> Result<Self> {
        let mut own = Self { input, name, number: 0, is_list: false, is_done: false };
        own.is_list = own.peek()? == Some(b'[');
        if own.is_list {
            own.input.consume(1);
        }
        Ok(own)
    }

    fn error(&self, why: &str) -> Error {
        Error::invalid(format!("{}: record {}: {why}", self.name, self.number))
    }

    fn byte(&mut self) -> Result<Option<u8>> {
        loop {
            match self.input.fill_buf() {
                Ok(buffer) => return Ok(buffer.first().copied()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Error::new(
                        ErrorCode::NotReachable,
                        format!("{} could not be read to its end", self.name),
                    )
                    .with_source(error));
                }
            }
        }
    }

    /// The next byte that is no white space; it stays.
    fn peek(&mut self) -> Result<Option<u8>> {
        loop {
            match self.byte()? {
                Some(byte) if byte.is_ascii_whitespace() => self.input.consume(1),
                other => return Ok(other),
            }
        }
    }

    /// The bytes of the next record, an object; nothing at the end.
    fn record(&mut self) -> Result<Option<Vec<u8>>> {
        let mut next = self.peek()?;
        if self.is_list {
            if self.number > 0 && next == Some(b',') {
                self.input.consume(1);
                next = self.peek()?;
            } else if next == Some(b']') {
                self.input.consume(1);
                return match self.peek()? {
                    None => Ok(None),
                    Some(_) => Err(self.error("there is something behind the list")),
                };
            } else if self.number > 0 && next.is_some() {
                return Err(self.error("expected a comma or the end of the list"));
            }
        }
        match next {
            Some(b'{') => self.object().map(Some),
            None if !self.is_list => Ok(None),
            None => Err(self.error("the file ends within its list")),
            Some(_) => Err(self.error("expected an object")),
        }
    }

    fn object(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let (mut depth, mut in_string, mut is_escaped) = (0usize, false, false);
        loop {
            if self.byte()?.is_none() {
                return Err(self.error("the file ends within this record"));
            }
            let buffer = self.input.fill_buf().unwrap_or_default();
            let mut end = None;
            for (place, byte) in buffer.iter().enumerate() {
                match byte {
                    _ if is_escaped => is_escaped = false,
                    b'\\' if in_string => is_escaped = true,
                    b'"' => in_string = !in_string,
                    b'{' | b'[' if !in_string => depth += 1,
                    b'}' | b']' if !in_string => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    end = Some(place + 1);
                    break;
                }
            }
            let taken = end.unwrap_or(buffer.len());
            bytes.extend_from_slice(&buffer[..taken]);
            self.input.consume(taken);
            if end.is_some() {
                return Ok(bytes);
            }
        }
    }
}

impl<R: BufRead> Iterator for Records<R> {
    type Item = Result<(Value, Place)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let parsed = self.record().and_then(|bytes| {
            bytes
                .map(|bytes| {
                    serde_json::from_slice(&bytes)
                        .map_err(|error| self.error(&format!("not JSON: {error}")).with_source(error))
                })
                .transpose()
        });
        let place = Place(format!("{}: record {}", self.name, self.number));
        self.number += 1;
        self.is_done = !matches!(parsed, Ok(Some(_)));
        parsed.map(|value| value.map(|value| (value, place))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Value>> {
        // Three bytes at a time, so that records do not end where buffers do.
        let input = BufReader::with_capacity(3, text.as_bytes());
        Records::new(input, "x.json".into())?.map(|record| record.map(|(value, _)| value)).collect()
    }

    #[test]
    fn a_list_and_lines_give_the_same_records() {
        let (first, second) = (r#"{"a": "]}\"{é", "b": [1, {"c": []}]}"#, r#"{"a": 2}"#);
        let records: Vec<Value> = [first, second].map(|text| serde_json::from_str(text).unwrap()).into();
        for text in [
            format!("[{first},{second}]"),
            format!(" [ {first}\n,\t{second} ]\n"),
            format!("{first}\n{second}\n"),
            format!("{first}\n\n  {second}"),
        ] {
            assert_eq!(read(&text).unwrap(), records, "{text}");
        }
        for empty in ["", " \n", "[]", "[ ]"] {
            assert!(read(empty).unwrap().is_empty());
        }
    }

    #[test]
    fn an_error_names_the_record() {
        for (text, why) in [
            (r#"[{"a": 1}, {"a": "#, "x.json: record 1: the file ends within this record"),
            (r#"[{"a": 1}"#, "x.json: record 1: the file ends within its list"),
            (r#"[{"a": 1} {"a": 2}]"#, "x.json: record 1: expected a comma"),
            (r#"[{"a": 1}] x"#, "x.json: record 1: there is something behind the list"),
            ("[3]", "x.json: record 0: expected an object"),
            ("nothing", "x.json: record 0: expected an object"),
            (r#"{"a": 1}{"a" 2}"#, "x.json: record 1: not JSON"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.message().starts_with(why), "{text}: {error}");
        }
    }
}
