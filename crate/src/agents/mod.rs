//! The agents: the extractor takes facts out of turns, the Memory Manager decides one operation
//! for each, the Answer Agent answers from what is remembered, and `MemoryAgent` ties them.

pub mod dates;
mod prompts;

pub use prompts::{Block, answer_messages, candidate_line, extract_messages, manage_messages, one_line};
