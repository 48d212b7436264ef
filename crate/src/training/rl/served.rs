//! Play by a server: it writes the policy's tokens, and is told every new adapter.
//!
//! The prompt is rendered here and sent as tokens, and what comes back is written again by the local model: a
//! completion means the same wherever it was written. The trainer's own log-probabilities are learned from; those of
//! the server say how far it is from them (`sampling/sampling_logp_difference`).

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use async_trait::async_trait;
use futures_lite::future::block_on;
use sha2::{Digest as _, Sha256};

use super::play::key;
use super::policy::PlayedModel;
use crate::error::{Error, Result};
use crate::generation::{
    Cancel, ChatMessage, Connection, Generation, LanguageModel, ModelInfo, Request, Retries, TokenServer,
};
use crate::training::lora::{Lora, WEIGHTS};

const FOLDER: &str = "served";

/// A server, and the adapter that it plays.
pub(super) struct Served {
    server: TokenServer,
    folder: PathBuf,
    /// By its bytes, so that no other run's is taken for it.
    adapter: Option<String>,
}

impl Served {
    /// The server of this address for the run in this folder.
    pub(super) fn new(base: &str, run: &Path) -> Result<Self> {
        let run = fs::canonicalize(run)
            .map_err(|error| Error::internal("the run's folder has no path").with_source(error))?;
        let server = TokenServer::new(Connection::new(base, key(), Retries::default(), None));
        Ok(Self { server, folder: run.join(FOLDER), adapter: None })
    }

    /// Makes the server play this adapter, where it does not yet.
    pub(super) fn publish(&mut self, lora: &Lora, base: &str, stop: &Cancel) -> Result<()> {
        let failed = |what: &str| Error::internal(format!("the adapter for the server cannot be {what}"));
        let aside = self.folder.join("next");
        lora.save(&aside, base)?;
        let bytes = fs::read(aside.join(WEIGHTS)).map_err(|error| failed("read").with_source(error))?;
        let name = format!("memory-r1-{}", &format!("{:x}", Sha256::digest(&bytes))[..16]);
        if self.adapter.as_ref() == Some(&name) {
            return Ok(());
        }
        let folder = self.folder.join(&name);
        if !folder.exists() {
            fs::rename(&aside, &folder).map_err(|error| failed("put in place").with_source(error))?;
        }
        block_on(self.server.load(&name, &folder, stop))?;
        if let Some(before) = self.adapter.replace(name) {
            block_on(self.server.unload(&before, stop))?;
            fs::remove_dir_all(self.folder.join(before))
                .map_err(|error| failed("removed").with_source(error))?;
        }
        Ok(())
    }
}

/// The policy, whose tokens a server writes.
pub(super) struct ServedModel {
    local: Rc<dyn PlayedModel>,
    server: TokenServer,
    adapter: String,
}

impl ServedModel {
    /// The local model with the same adapter, and the server.
    pub(super) fn new(local: Rc<dyn PlayedModel>, served: &Served) -> Result<Self> {
        let adapter = served.adapter.clone();
        let adapter = adapter.ok_or_else(|| Error::internal("the server was told no adapter"))?;
        Ok(Self { local, server: served.server.clone(), adapter })
    }
}

#[async_trait(?Send)]
impl LanguageModel for ServedModel {
    fn info(&self) -> &ModelInfo {
        self.local.info()
    }

    fn room(&self, messages: &[ChatMessage]) -> Result<usize> {
        self.local.room(messages)
    }

    async fn generate(
        &self,
        request: &Request,
        cancel: &Cancel,
        on_text: &mut dyn for<'a> FnMut(&'a str),
    ) -> Result<Generation> {
        let written = self.samples(request, 1, cancel).await?.into_iter().next();
        let generation = written.ok_or_else(|| Error::internal("the server wrote nothing"))?;
        on_text(&generation.text);
        Ok(generation)
    }

    async fn samples(&self, request: &Request, count: usize, cancel: &Cancel) -> Result<Vec<Generation>> {
        let (prompt, room) = self.local.prepare(request)?;
        let how = (&request.sampling, &request.stop[..]);
        let written = self.server.complete(&self.adapter, &prompt, room, how, count, cancel).await?;
        written.iter().map(|own| self.local.written(request, &own.ids, &own.logprobs)).collect()
    }
}
