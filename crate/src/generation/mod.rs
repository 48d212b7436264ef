//! Text from a model: tokenizer, chat template, constraint, sampler, generator.

mod batching;
mod chat_template;
mod constraint;
mod described;
mod embedder;
mod free_form;
mod free_text;
mod generator;
mod grammar;
mod language_model;
mod lexicon;
#[cfg(not(target_arch = "wasm32"))]
mod remote;
mod sampler;
mod tokenizer;
mod warpers;

pub use batching::Batching;
pub use chat_template::ChatTemplate;
pub use constraint::{
    Answer, Bitset, Constraint, Decision, Step, TargetToken, TokenTrie, encode_target, fact_spans,
    facts_json, parse_answer, parse_decision, parse_facts,
};
pub use described::Described;
pub use embedder::{Embedder, EmbedderInfo, LocalEmbedder};
pub use free_form::{Malformed, Unconstrained, first_object, held_to_form};
pub use generator::{LocalModel, Turn, no_turn, self_check};
pub use grammar::{Grammar, MAX_ANSWER_TOKENS, MAX_TEXT_TOKENS};
pub use language_model::{
    Cancel, ChatMessage, FinishReason, Generation, LanguageModel, ModelInfo, Part, PromptFamily, Request,
    Sampling,
};
pub use lexicon::Lexicon;
#[cfg(not(target_arch = "wasm32"))]
pub use remote::{Connection, RemoteModel, Retries, TokenServer, Tokens, parse_address};
pub use sampler::{Choice, choose};
pub use tokenizer::{DecodeStream, Segment, Tokenizer};
