//! Sentence vectors by the texts that they are of: what a ranking compares beside the words.

use std::collections::HashMap;
use std::sync::Arc;

use super::Dense;
use crate::error::Result;

/// The vectors of some texts, all of one encoder.
#[derive(Clone, Debug, Default)]
pub(super) struct Sentences {
    width: Option<usize>,
    vectors: HashMap<String, Arc<[f32]>>,
}

impl Sentences {
    pub(super) fn has(&self, text: &str) -> bool {
        self.vectors.contains_key(text)
    }

    pub(super) fn get(&self, text: &str) -> Option<&Arc<[f32]>> {
        self.vectors.get(text)
    }

    /// `INVALID_ARGUMENT` for a vector of another length than those that are here, or without a direction.
    pub(super) fn insert(&mut self, text: &str, vector: Arc<[f32]>) -> Result<()> {
        let width = self.width.unwrap_or(vector.len());
        Dense::new(width).push(&vector)?;
        self.width = Some(width);
        self.vectors.insert(text.to_owned(), vector);
        Ok(())
    }

    /// The cosine of each text with a query, 0 for a text without a vector; nothing where the query has none.
    pub(super) fn cosines(&self, texts: &[&str], query: &str) -> Option<Vec<f64>> {
        let query = self.get(query)?;
        let mut index = Dense::new(query.len());
        let mut places = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            // What was let in fits.
            if self.get(text).is_some_and(|vector| index.push(vector).is_ok()) {
                places.push(place);
            }
        }
        let mut cosines = vec![0.0; texts.len()];
        for near in index.search(query, places.len()).ok()? {
            cosines[places[near.place]] = rounded(near.cosine);
        }
        Some(cosines)
    }
}

/// Rounds to five decimals: what a text is embedded beside moves its vector in the last bits, and two equal
/// texts must stay equal.
fn rounded(cosine: f32) -> f64 {
    (f64::from(cosine) * 1e5).round() / 1e5
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    fn sentences() -> Sentences {
        let mut own = Sentences::default();
        for (text, vector) in [("a", [3.0, 4.0]), ("b", [1.0, 0.0]), ("c", [0.0, -2.0])] {
            own.insert(text, Arc::from(vector)).unwrap();
        }
        own
    }

    #[test]
    fn cosines_stand_in_the_order_of_the_texts() {
        let own = sentences();
        assert_eq!(own.cosines(&["c", "b", "unknown", "a", "b"], "b").unwrap(), [0.0, 1.0, 0.0, 0.6, 1.0]);
        assert_eq!(own.cosines(&["a"], "c").unwrap(), [-0.8]);
        assert_eq!(own.cosines(&["a"], "unknown"), None);
        assert_eq!(own.cosines(&[], "a"), Some(vec![]));
    }

    #[test]
    fn dimensions_are_never_mixed() {
        let mut own = sentences();
        for wrong in [&[1.0, 2.0, 3.0][..], &[0.0, 0.0], &[f32::NAN, 1.0], &[]] {
            assert_eq!(own.insert("d", wrong.into()).unwrap_err().code(), ErrorCode::InvalidArgument);
        }
        assert!(!own.has("d"));
        assert!(Sentences::default().insert("a", Arc::from([])).is_err());
    }
}
