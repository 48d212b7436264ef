//! Which memories matter: the lexical index, word vectors, and the rules of who is shown what.

mod bm25;
mod candidates;
mod dense;
mod terms;
mod word_vectors;

pub use bm25::{Bm25, HALF_SCORE, Score, TermScore, scores};
pub use candidates::{Candidate, Retriever};
pub use dense::{Dense, Neighbour};
pub use terms::{terms, words};
pub use word_vectors::WordVectors;
