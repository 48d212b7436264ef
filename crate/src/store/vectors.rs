//! Sentence vectors beside a journal: derived, so that they may be dropped at any time and are made again.
//!
//! A vector is found by its encoder, its dimension and the hash of its text: what another encoder made is never
//! read as this one's, and a text that changes leaves its vector behind.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::bank::{Journal, Scope};

/// What vectors can be compared with each other: those of one encoder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Space {
    /// The encoder's fingerprint.
    pub embedder: String,
    /// The length of a vector.
    pub dimensions: usize,
}

/// The sha256 of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TextKey(pub [u8; 32]);

impl TextKey {
    /// That of this text.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Those of a journal's live memories.
    pub(super) fn of_live(journal: &Journal) -> HashSet<Self> {
        journal.bank().memories().map(|memory| Self::of(&memory.text)).collect()
    }
}

/// The vector of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextVector {
    /// Which text.
    pub text: TextKey,
    /// Its vector.
    pub vector: Arc<[f32]>,
}

impl TextVector {
    /// The vector's numbers, least byte first.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.vector.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// Nothing for bytes that are not so many numbers: they are as good as not there.
    pub(super) fn from_bytes(text: TextKey, bytes: &[u8], dimensions: usize) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks();
        let vector = numbers.iter().map(|own| f32::from_le_bytes(*own)).collect();
        (rest.is_empty() && numbers.len() == dimensions).then_some(Self { text, vector })
    }
}

/// Vectors that end with the process: of each scope those of one space.
#[derive(Default)]
pub struct VectorsInMemory(RefCell<BTreeMap<String, Kept>>);

struct Kept {
    space: Space,
    vectors: BTreeMap<TextKey, Arc<[f32]>>,
}

impl Kept {
    fn new(space: &Space) -> Self {
        Self { space: space.clone(), vectors: BTreeMap::new() }
    }
}

impl VectorsInMemory {
    /// A scope's vectors of this space.
    pub fn read(&self, scope: &Scope, space: &Space) -> Vec<TextVector> {
        let kept = self.0.borrow();
        let own = kept.get(&scope.key()).filter(|own| own.space == *space);
        let own = own.into_iter().flat_map(|own| &own.vectors);
        own.map(|(text, vector)| TextVector { text: *text, vector: vector.clone() }).collect()
    }

    /// Keeps vectors, in place of those of any other space.
    pub fn keep(&self, scope: &Scope, space: &Space, vectors: &[TextVector]) {
        let mut kept = self.0.borrow_mut();
        let own = kept.entry(scope.key()).or_insert_with(|| Kept::new(space));
        if own.space != *space {
            *own = Kept::new(space);
        }
        own.vectors.extend(vectors.iter().map(|own| (own.text, own.vector.clone())));
    }

    /// Drops those of texts that no live memory has.
    pub fn keep_live(&self, journal: &Journal) {
        if let Some(own) = self.0.borrow_mut().get_mut(&journal.scope().key()) {
            let live = TextKey::of_live(journal);
            own.vectors.retain(|text, _| live.contains(text));
        }
    }

    /// Drops a scope's.
    pub fn remove(&self, scope: &Scope) {
        self.0.borrow_mut().remove(&scope.key());
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_those_of_another_length_do_not() {
        let own = TextVector { text: TextKey::of("Has a dog"), vector: Arc::from([1.5, -0.25]) };
        let bytes = own.to_bytes();
        assert_eq!(bytes, [0, 0, 0xc0, 0x3f, 0, 0, 0x80, 0xbe]);
        assert_eq!(TextVector::from_bytes(own.text, &bytes, 2), Some(own.clone()));
        assert_eq!(TextVector::from_bytes(own.text, &bytes, 3), None);
        assert_eq!(TextVector::from_bytes(own.text, &bytes[..7], 2), None);
    }
}
