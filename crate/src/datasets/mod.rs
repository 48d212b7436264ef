//! Conversations with questions: those that others published, those that this crate makes up, and
//! situations that were written by hand.

pub mod freeform;
pub mod locomo;
pub mod synthetic;
