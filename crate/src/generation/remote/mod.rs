//! A model behind an OpenAI-compatible server (`POST …/chat/completions`): vLLM, transformers, a
//! provider. The server renders the prompt and holds the completion to no grammar.

mod cache;
mod client;
mod stream;
mod token_server;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use self::client::{Connection, Retries};
pub use self::token_server::{TokenServer, Tokens};
use super::free_form::{Malformed, held_to_form};
use super::language_model::{
    Cancel, FinishReason, Generation, LanguageModel, ModelInfo, PromptFamily, Request,
};
use crate::error::{Error, ErrorCode, Result};

const CHAT: &str = "chat/completions";
/// Memory-R1's numbers of memories that the manager and the answer agent are shown.
const MANAGER_CANDIDATES: usize = 5;
const CANDIDATES_PER_SPEAKER: usize = 30;

/// The server and the model of an address like `http://localhost:8000/v1#NAME`; `None` of what is no address.
pub fn parse_address(given: &str) -> Option<Result<(&str, &str)>> {
    if !["http://", "https://"].iter().any(|scheme| given.starts_with(scheme)) {
        return None;
    }
    let named = given.split_once('#').filter(|(_, name)| !name.is_empty());
    Some(named.ok_or_else(|| Error::invalid(format!("{given} names no model; write {given}#NAME"))))
}

/// A model of a server.
pub struct RemoteModel {
    connection: Connection,
    info: ModelInfo,
    malformed: Malformed,
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

impl RemoteModel {
    /// The model of this name; prompt and completion have `context_length` tokens together.
    pub fn new(connection: Connection, model: &str, context_length: usize, malformed: Malformed) -> Self {
        let identity = format!("{}#{model}", connection.url(CHAT));
        let info = ModelInfo {
            name: model.to_owned(),
            fingerprint: format!("{:x}", Sha256::digest(identity)),
            prompt_family: PromptFamily::Instruct,
            context_length,
            candidates_per_speaker: CANDIDATES_PER_SPEAKER,
            manager_candidates: MANAGER_CANDIDATES,
            extractor_candidates: 0,
            fact_threshold: 0.0,
        };
        Self { connection, info, malformed }
    }

    fn body(&self, request: &Request) -> Value {
        let sampling = request.sampling;
        let mut body = json!({
            "model": self.info.name,
            "messages": request.messages,
            "temperature": sampling.temperature,
            "max_tokens": request.max_new_tokens,
            "stream": true,
        });
        if sampling.temperature > 0.0 {
            body["top_p"] = sampling.top_p.into();
            body["seed"] = sampling.server_seed().into();
        }
        if !request.stop.is_empty() {
            body["stop"] = request.stop.clone().into();
        }
        body
    }
}

#[async_trait(?Send)]
impl LanguageModel for RemoteModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn generate(
        &self,
        request: &Request,
        cancel: &Cancel,
        on_text: &mut dyn for<'a> FnMut(&'a str),
    ) -> Result<Generation> {
        let reply = self.connection.post(CHAT, self.body(request), cancel).await?;
        let malformed = || {
            let message = format!("{} answered with what is no chat completion", self.connection.url(CHAT));
            Error::new(ErrorCode::MalformedOutput, message)
        };
        let completion: Completion =
            serde_json::from_str(&reply).map_err(|error| malformed().with_source(error))?;
        let choice = completion.choices.into_iter().next().ok_or_else(malformed)?;
        let content = choice.message.content.unwrap_or_default();
        let text = match &request.grammar {
            Some(grammar) => held_to_form(&content, grammar, &self.malformed),
            None => content,
        };
        on_text(&text);
        let finish_reason = match choice.finish_reason.as_deref() {
            Some("length") => FinishReason::Length,
            _ => FinishReason::Stop,
        };
        Ok(Generation {
            prompt_ids: Vec::new(),
            ids: Vec::new(),
            logprobs: Vec::new(),
            parts: Vec::new(),
            ends: Vec::new(),
            text,
            finish_reason,
        })
    }
}
