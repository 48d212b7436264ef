//! Text from a model: tokenizer, chat template, constraint, sampler, generator.

mod grammar;
mod language_model;

pub use grammar::{Grammar, MAX_ANSWER_TOKENS, MAX_TEXT_TOKENS};
pub use language_model::{
    Cancel, ChatMessage, FinishReason, Generation, LanguageModel, ModelInfo, Part, PromptFamily, Request,
    Sampling,
};
