//! Which memories matter: the lexical index and the rules of who is shown what.

mod bm25;
mod candidates;
mod terms;

pub use bm25::{Bm25, HALF_SCORE, Score, TermScore, scores};
pub use candidates::{Candidate, for_fact, for_question};
pub use terms::terms;
