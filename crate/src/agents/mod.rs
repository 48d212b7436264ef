//! The agents: the extractor takes facts out of turns, the Memory Manager decides one operation
//! for each, the Answer Agent answers from what is remembered, and [`MemoryAgent`] ties them.

mod answer_agent;
mod answer_stream;
pub mod dates;
mod extractor;
mod manager;
mod memory_agent;
mod prompts;

pub use answer_agent::{AnswerAgent, Answered, NO_ANSWER, SpeakerCandidates};
pub use extractor::{CONTEXT_TURNS, Extractor, Fact, MAX_CONTENT_BYTES, MAX_FACTS};
pub use manager::{Candidate, Decision, Manager, is_same_statement};
pub use memory_agent::{
    AddOptions, AddResult, Answer, AnswerOptions, Clock, ExtractFrom, Imported, JournalIds, MemoryAgent,
    Models, OnProgress, OnText, Progress, Recalled, Remembered, SearchOptions,
};
pub use prompts::{Block, answer_messages, candidate_line, extract_messages, manage_messages, one_line};

use crate::generation::{Generation, Request};

/// Whether a completion used up its room, so that its constraint had to close it.
fn was_cut(generation: &Generation, request: &Request, context_length: usize) -> bool {
    let room = request.max_new_tokens.min(context_length.saturating_sub(generation.prompt_ids.len()));
    generation.ids.len() + 2 >= room
}
