//! Static word vectors: what BM25 misses, because two texts say the same in other words.
//!
//! A text is the normalised sum of its words' vectors, two texts are as near as the cosine of
//! theirs. The vectors are learned with a model (`training/word_vectors.rs`) and ship in its bundle.

use std::collections::HashMap;

use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use super::terms::words;
use crate::error::{Error, ErrorCode, Result};

/// The tensor's name in the file.
const TENSOR: &str = "embedding";
/// The metadata's key for the words, one a line.
const WORDS: &str = "words";

/// A vector for each known word.
#[derive(Clone, Debug, PartialEq)]
pub struct WordVectors {
    places: HashMap<String, usize>,
    dimension: usize,
    values: Vec<f32>,
}

impl WordVectors {
    /// Rows of `values`, one a word.
    pub fn new(words: Vec<String>, values: Vec<f32>) -> Result<Self> {
        let dimension = values.len() / words.len().max(1);
        let places: HashMap<String, usize> = words.into_iter().zip(0..).collect();
        if dimension == 0 || places.len() * dimension != values.len() {
            return Err(broken());
        }
        Ok(Self { places, dimension, values })
    }

    /// Reads `word_vectors.safetensors`: half-precision rows, and the words in the metadata.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let wrong = |error| broken().with_source(error);
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(wrong)?;
        let words = header.metadata().as_ref().and_then(|own| own.get(WORDS)).ok_or_else(broken)?;
        let file = SafeTensors::deserialize(bytes).map_err(wrong)?;
        let view = file.tensor(TENSOR).map_err(wrong)?;
        if view.dtype() != Dtype::F16 {
            return Err(broken());
        }
        let values = view.data().as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32());
        Self::new(words.lines().map(str::to_owned).collect(), values.collect())
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut words = vec![""; self.places.len()];
        for (word, place) in &self.places {
            words[*place] = word;
        }
        let data: Vec<u8> =
            self.values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        let failed = |error| Error::internal("word vectors as safetensors").with_source(error);
        let view = TensorView::new(Dtype::F16, vec![words.len(), self.dimension], &data).map_err(failed)?;
        let metadata = HashMap::from([(WORDS.to_owned(), words.join("\n"))]);
        serialize([(TENSOR, view)], Some(metadata)).map_err(failed)
    }

    /// The places of a text's known words.
    pub(crate) fn places(&self, text: &str) -> Vec<usize> {
        words(text).iter().filter_map(|word| self.places.get(word).copied()).collect()
    }

    /// A text's vector, of length 1; nothing where no word is known.
    pub fn encode(&self, text: &str) -> Option<Vec<f64>> {
        let mut sum = vec![0.0f64; self.dimension];
        for place in self.places(text) {
            let row = &self.values[place * self.dimension..][..self.dimension];
            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
        (length > 0.0).then(|| sum.into_iter().map(|value| value / length).collect())
    }
}

/// The cosine of two vectors of length 1.
pub(super) fn cosine(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn broken() -> Error {
    Error::new(ErrorCode::ModelIntegrity, "word_vectors.safetensors cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors() -> WordVectors {
        let words = ["live", "move", "dog", "0"].map(str::to_owned).to_vec();
        WordVectors::new(words, vec![1.0, 0.0, 1.0, 0.5, 0.0, 1.0, -1.0, 0.0]).unwrap()
    }

    #[test]
    fn texts_are_as_near_as_their_words() {
        let own = vectors();
        let near = |a: &str, b: &str| cosine(&own.encode(a).unwrap(), &own.encode(b).unwrap());
        assert!((near("Lives in Lyon", "I moved") - 0.8f64.sqrt()).abs() < 1e-9);
        assert!(near("Lives in Lyon", "dogs").abs() < 1e-9);
        assert!((near("17", "2024") - 1.0).abs() < 1e-9);
        assert_eq!(own.encode("nothing known"), None);
        assert_eq!(own.encode(""), None);
    }

    #[test]
    fn a_file_is_read_back_and_a_broken_one_refused() {
        let own = vectors();
        let bytes = own.to_bytes().unwrap();
        assert_eq!(WordVectors::from_bytes(&bytes).unwrap(), own);
        for wrong in [&bytes[..bytes.len() - 1], b"", b"{}"] {
            assert_eq!(WordVectors::from_bytes(wrong).unwrap_err().code(), ErrorCode::ModelIntegrity);
        }
        assert!(WordVectors::new(vec!["a".into(), "a".into()], vec![0.0; 4]).is_err());
        assert!(WordVectors::new(vec![], vec![]).is_err());
    }
}
