//! The agents: the extractor takes facts out of turns, the Memory Manager decides one operation
//! for each, the Answer Agent answers from what is remembered, and [`MemoryAgent`] ties them.

mod answer_agent;
mod answer_stream;
pub mod dates;
mod extractor;
mod manager;
mod memory_agent;
mod prompts;
mod recall;
mod stutter;

pub use answer_agent::{AnswerAgent, Answered, NO_ANSWER, SpeakerCandidates};
pub use extractor::{CONTEXT_TURNS, Extractor, Fact, MAX_CONTENT_BYTES, MAX_FACTS};
pub use manager::{Candidate, Decision, Manager, is_same_statement};
pub use memory_agent::{
    AddOptions, AddResult, Answer, AnswerOptions, Clock, ExtractFrom, Imported, JournalIds, MemoryAgent,
    Models, OnEmbedded, OnProgress, OnText, Progress, Recalled, Remembered, SearchOptions,
};
pub use prompts::{Block, answer_messages, candidate_line, extract_messages, manage_messages, one_line};
pub use recall::Recall;

use crate::error::{Error, ErrorCode, Result};
use crate::generation::{Cancel, Generation, LanguageModel, Request};

/// Generates where at least `room` tokens, or a quarter of the context, are left for the
/// completion; otherwise [`ErrorCode::ContextOverflow`], so that the agent shows less.
async fn generate(
    model: &dyn LanguageModel,
    request: &Request,
    room: usize,
    cancel: &Cancel,
    on_text: &mut dyn FnMut(&str),
) -> Result<Generation> {
    let room = room.min(model.info().context_length / 4);
    if model.room(&request.messages)? < room {
        let message = "the prompt leaves too little room for an answer in the model's context";
        return Err(Error::new(ErrorCode::ContextOverflow, message));
    }
    model.generate(request, cancel, on_text).await
}
