//! Which model plays which part: local ones, or a server's.

use std::env;
use std::path::PathBuf;
use std::rc::Rc;

use clap::Args;

use super::asking::Asking;
use super::embedder::EmbedderArguments;
use super::model::ModelArguments;
use crate::agents::Models;
use crate::error::Result;
use crate::generation::{
    Batching, Connection, Described, LanguageModel, Malformed, RemoteModel, Retries, Unconstrained,
    parse_address,
};

/// The variable that holds a server's key.
const KEY: &str = "OPENAI_API_KEY";

/// The models of a benchmark.
#[derive(Debug, Args)]
pub(in crate::cli) struct RoleArguments {
    #[command(flatten)]
    pub(in crate::cli) model: ModelArguments,
    /// Another model that takes the facts out of turns: a folder, a repository's name, or the model of an
    /// OpenAI-compatible server as http://localhost:8000/v1#NAME (its key is read from OPENAI_API_KEY).
    /// --model takes such an address too.
    #[arg(long, value_name = "MODEL")]
    extractor: Option<String>,
    /// Another model that decides.
    #[arg(long, value_name = "MODEL")]
    manager: Option<String>,
    /// Let local models write without their grammar, as a server's do; what is not of the form that was asked
    /// for changes nothing, and is counted.
    #[arg(long)]
    unconstrained: bool,
    #[command(flatten)]
    asking: Asking,
    #[command(flatten)]
    embedder: EmbedderArguments,
    /// How many conversations (and questions of each) or cases are worked on at once. A local model then writes side by
    /// side, where sums are rounded in another order than one after the other.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(in crate::cli) concurrency: u16,
    /// How many tokens a server's model reads and writes together.
    #[arg(long, value_name = "N", default_value_t = 32_768)]
    context_length: usize,
    /// How often a request is sent before the run stops: again after 429, 5xx, a cut reply or a lost connection.
    #[arg(long, value_name = "N", default_value_t = Retries::default().attempts, value_parser = clap::value_parser!(u32).range(1..=20))]
    attempts: u32,
    /// Keep a server's replies in this folder, by the whole request: a stopped run does not ask twice.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

impl RoleArguments {
    /// Loads them, with another model that answers where one is given; what they write that is malformed will be counted.
    pub(in crate::cli) fn load(&self, answerer: Option<&str>) -> Result<(Models, Malformed)> {
        let malformed = Malformed::default();
        let mut models = match self.model.given().and_then(|given| self.server(given, &malformed)) {
            Some(server) => Models::one(server?),
            None => self.side_by_side(self.model.load()?),
        };
        if let Some(own) = &self.extractor {
            models.extractor = self.role(own, &malformed, |models| models.extractor)?;
        }
        if let Some(own) = &self.manager {
            models.manager = self.role(own, &malformed, |models| models.manager)?;
        }
        if let Some(own) = answerer {
            models.answer_agent = self.role(own, &malformed, |models| models.answer_agent)?;
        }
        for own in [&mut models.extractor, &mut models.manager, &mut models.answer_agent] {
            if let Some(info) = self.asking.instead_of(own.info())? {
                *own = Rc::new(Described::new(own.clone(), info));
            }
            if self.unconstrained {
                *own = Rc::new(Unconstrained::new(own.clone(), malformed.clone()));
            }
        }
        models.embedder = self.embedder.load(self.model.device)?;
        Ok((models, malformed))
    }

    /// A model that marks answers.
    pub(in crate::cli) fn judge(&self, given: &str) -> Result<Rc<dyn LanguageModel>> {
        self.role(given, &Malformed::default(), |models| models.answer_agent)
    }

    /// Local models that answer several questions at once, where several are asked at once.
    fn side_by_side(&self, models: Models) -> Models {
        if self.concurrency == 1 {
            return models;
        }
        let batching =
            |model: Rc<dyn LanguageModel>| -> Rc<dyn LanguageModel> { Rc::new(Batching::new(model)) };
        let manager = batching(models.manager.clone());
        let answer_agent = if Rc::ptr_eq(&models.manager, &models.answer_agent) {
            manager.clone()
        } else {
            batching(models.answer_agent)
        };
        Models { extractor: batching(models.extractor), manager, answer_agent, ..models }
    }

    fn role(
        &self,
        given: &str,
        malformed: &Malformed,
        part: impl Fn(Models) -> Rc<dyn LanguageModel>,
    ) -> Result<Rc<dyn LanguageModel>> {
        match self.server(given, malformed) {
            Some(server) => server,
            None => self.model.of(given).load().map(|models| part(self.side_by_side(models))),
        }
    }

    /// The model of a server, where the name is an address.
    fn server(&self, given: &str, malformed: &Malformed) -> Option<Result<Rc<dyn LanguageModel>>> {
        let (base, name) = match parse_address(given)? {
            Ok(address) => address,
            Err(error) => return Some(Err(error)),
        };
        let retries = Retries { attempts: self.attempts, ..Retries::default() };
        let key = env::var(KEY).ok().filter(|key| !key.is_empty());
        let connection = Connection::new(base, key, retries, self.cache.clone());
        Some(Ok(Rc::new(RemoteModel::new(connection, name, self.context_length, malformed.clone()))))
    }
}
