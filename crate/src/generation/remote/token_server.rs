//! A server that is asked in tokens and told new adapters: vLLM's `POST …/completions` with `return_token_ids`,
//! `…/load_lora_adapter` and `…/unload_lora_adapter`.

use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::Connection;
use crate::error::{Error, ErrorCode, Result};
use crate::generation::{Cancel, Sampling};

const COMPLETIONS: &str = "completions";
const LOAD: &str = "load_lora_adapter";
const UNLOAD: &str = "unload_lora_adapter";
/// What it takes to be told adapters.
const STARTED: &str = "is told adapters where it was started with --enable-lora, a --max-lora-rank that is large \
    enough, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and reads them by the same path";

/// Where it is.
#[derive(Clone)]
pub struct TokenServer(Connection);

/// What it wrote, the end token included.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The log-probability of each.
    pub logprobs: Vec<f32>,
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    index: usize,
    token_ids: Option<Vec<u32>>,
    logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Logprobs {
    token_logprobs: Vec<Option<f32>>,
}

impl TokenServer {
    /// Behind this connection.
    pub fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// So many completions of a prompt, each of at most `room` tokens, by the adapter of this name.
    pub async fn complete(
        &self,
        adapter: &str,
        prompt: &[u32],
        room: usize,
        (sampling, stop): (&Sampling, &[String]),
        count: usize,
        cancel: &Cancel,
    ) -> Result<Vec<Tokens>> {
        let mut body = json!({
            "model": adapter,
            "prompt": prompt,
            "max_tokens": room,
            "n": count,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "seed": sampling.server_seed(),
            "logprobs": 0,
            "return_token_ids": true,
        });
        if sampling.top_k > 0 {
            body["top_k"] = sampling.top_k.into();
        }
        if !stop.is_empty() {
            body["stop"] = stop.into();
        }
        let reply = self.0.post(COMPLETIONS, body, cancel).await?;
        let malformed = |what: &str| {
            Error::new(ErrorCode::MalformedOutput, format!("{} answered {what}", self.0.url(COMPLETIONS)))
        };
        let completion: Completion = serde_json::from_str(&reply)
            .map_err(|error| malformed("with what is no completion").with_source(error))?;
        let mut choices = completion.choices;
        choices.sort_by_key(|choice| choice.index);
        if choices.len() != count {
            return Err(malformed(&format!("with {} completions instead of {count}", choices.len())));
        }
        let tokens = choices.into_iter().map(|choice| {
            let ids = choice.token_ids.filter(|ids| !ids.is_empty());
            let ids = ids.ok_or_else(|| malformed("without token_ids; it must be vLLM 0.10.2 or later"))?;
            let logprobs = choice.logprobs.map(|own| own.token_logprobs).unwrap_or_default();
            let logprobs: Vec<f32> = logprobs.into_iter().map(Option::unwrap_or_default).collect();
            if logprobs.len() != ids.len() {
                return Err(malformed(&format!(
                    "with {} log-probabilities of {} tokens",
                    logprobs.len(),
                    ids.len()
                )));
            }
            Ok(Tokens { ids, logprobs })
        });
        tokens.collect()
    }

    /// Makes the adapter in a folder, which the server reads by the same path, a model of this name.
    pub async fn load(&self, adapter: &str, folder: &Path, cancel: &Cancel) -> Result<()> {
        let asked = json!({"lora_name": adapter, "lora_path": folder});
        match self.0.post(LOAD, asked, cancel).await {
            // A name stands for its bytes: whoever loaded it loaded the same.
            Err(error) if error.message().contains("already been") => Ok(()),
            Err(error) if error.code() == ErrorCode::InvalidArgument => {
                let message = format!("{}; vLLM {STARTED}", error.message());
                Err(Error::new(error.code(), message).with_source(error))
            }
            reply => reply.map(drop),
        }
    }

    /// Forgets an adapter.
    pub async fn unload(&self, adapter: &str, cancel: &Cancel) -> Result<()> {
        let asked = json!({"lora_name": adapter});
        self.0.post(UNLOAD, asked, cancel).await.map(drop)
    }
}
