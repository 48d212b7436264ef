//! What may stand in a bank: the rules for texts, speakers and a caller's own fields.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The longest text of a memory, in bytes of UTF-8.
pub const MAX_TEXT_BYTES: usize = 16 * 1024;
/// The longest name of a speaker, in bytes of UTF-8.
pub const MAX_SPEAKER_BYTES: usize = 512;
/// The largest metadata of a memory, in bytes of JSON.
pub const MAX_METADATA_BYTES: usize = 64 * 1024;

/// The text as a bank keeps it: line breaks and tabs become spaces, the ends are trimmed.
///
/// An error for what is empty, longer than [`MAX_TEXT_BYTES`] or has other control characters.
pub fn clean_text(text: &str) -> Result<String> {
    clean(text, "a memory's text", MAX_TEXT_BYTES)
}

pub(super) fn clean_speaker(speaker: &str) -> Result<String> {
    clean(speaker, "a speaker's name", MAX_SPEAKER_BYTES)
}

fn clean(text: &str, what: &str, most: usize) -> Result<String> {
    if text.len() > most {
        return Err(Error::invalid(format!("{what} is at most {most} bytes long, not {}", text.len())));
    }
    let spaced: String =
        text.chars().map(|c| if matches!(c, '\n' | '\r' | '\t') { ' ' } else { c }).collect();
    let trimmed = spaced.trim();
    if trimmed.is_empty() {
        return Err(Error::invalid(format!("{what} is empty")));
    }
    if let Some(control) = spaced.chars().find(|c| c.is_control()) {
        return Err(Error::invalid(format!("{what} has the control character U+{:04X}", control as u32)));
    }
    Ok(trimmed.to_owned())
}

pub(super) fn clean_metadata(metadata: Map<String, Value>) -> Result<Map<String, Value>> {
    let metadata = stable_json(metadata)?;
    let size = serde_json::to_string(&metadata).map_or(0, |json| json.len());
    if size > MAX_METADATA_BYTES {
        return Err(Error::invalid(format!(
            "a memory's metadata is at most {MAX_METADATA_BYTES} bytes of JSON, not {size}"
        )));
    }
    Ok(metadata)
}

/// The value that reading back its JSON gives.
///
/// serde_json reads some decimals one unit in the last place off, and a journal that is
/// written, read and written again must not drift.
pub(super) fn stable_json<T: Serialize + DeserializeOwned>(value: T) -> Result<T> {
    let failed = |error| Error::invalid("the value cannot be kept as JSON").with_source(error);
    let mut json = serde_json::to_string(&value).map_err(failed)?;
    for _ in 0..8 {
        let read: T = serde_json::from_str(&json).map_err(failed)?;
        let again = serde_json::to_string(&read).map_err(failed)?;
        if again == json {
            return Ok(read);
        }
        json = again;
    }
    Err(Error::invalid("a number in the value cannot be kept exactly; give it fewer digits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn line_breaks_become_spaces_and_other_control_characters_are_refused() {
        assert_eq!(clean_text(" Has a dog\n\tnamed Scout ").unwrap(), "Has a dog  named Scout");
        assert_eq!(clean_text("Lebt in Köln 🐕").unwrap(), "Lebt in Köln 🐕");
        for bad in ["", " \n ", "a\0b", "bell\u{7}", "\u{85}next", &"x".repeat(MAX_TEXT_BYTES + 1)] {
            assert_eq!(clean_text(bad).unwrap_err().code(), ErrorCode::InvalidArgument);
        }
    }

    #[test]
    fn numbers_settle_on_a_value_that_survives_writing_and_reading() {
        let mut random = crate::random::Random::new(11, &[]);
        for _ in 0..2000 {
            let kept = stable_json(random.uniform()).unwrap();
            let read: f64 = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
            assert_eq!(kept.to_bits(), read.to_bits());
        }
    }
}
