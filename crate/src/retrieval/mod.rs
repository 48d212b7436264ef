//! Which memories matter: the lexical index, word vectors, sentence vectors, and the rules of who is shown what.

mod bm25;
mod candidates;
mod dense;
mod fusion;
mod score;
mod sentences;
mod terms;
mod word_vectors;

pub use bm25::{Bm25, scores};
pub use candidates::{Candidate, Retriever, Speakers, named};
pub use dense::{Dense, Neighbour};
pub use score::{HALF_SCORE, Score, TermScore};
pub use terms::{terms, words};
pub use word_vectors::WordVectors;
