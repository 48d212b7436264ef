//! Conversations with questions: those that others published, those that this crate makes up, and
//! situations that were written by hand.

mod dialogue;
pub mod freeform;
mod known_facts;
mod label_errors;
pub mod locomo;
pub mod longmemeval;
pub mod msc;
mod observations;
mod place;
mod records;
mod superseded;
pub mod synthetic;

pub use dialogue::{ABSTENTION, ADVERSARIAL, Asked, Dialogue, Said, heard};
pub use known_facts::{KnownFacts, TurnFacts};
pub use label_errors::{Corrections, read_corrections};
pub use observations::observations;
pub use superseded::Superseded;
