//! Conversations with questions: those that others published, those that this crate makes up, and
//! situations that were written by hand.

mod dialogue;
pub mod freeform;
pub mod locomo;
pub mod longmemeval;
pub mod msc;
mod place;
mod records;
pub mod synthetic;

pub use dialogue::{ABSTENTION, Asked, Dialogue, Said, heard};
