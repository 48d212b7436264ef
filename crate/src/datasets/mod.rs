//! Conversations with questions: those that others published, and those that this crate makes up.

pub mod locomo;
pub mod synthetic;
