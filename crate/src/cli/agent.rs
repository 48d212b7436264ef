//! The agent of a command: a model on a database.

use std::rc::Rc;

use super::database::{new_journal_id, now};
use super::embedder::on_embedded;
use crate::agents::{MemoryAgent, Models};
use crate::bank::Scope;
use crate::error::Result;
use crate::store::SqliteStore;

/// An agent with this machine's clock. A new journal of `scope` gets a random id, or one out of
/// the seed where one is given.
pub(super) fn agent(
    models: Models,
    store: SqliteStore,
    scope: &Scope,
    seed: Option<u64>,
) -> Result<MemoryAgent> {
    let id = new_journal_id(seed, scope)?;
    let agent = MemoryAgent::new(models, Rc::new(store), Rc::new(now), Rc::new(move |_| id.clone()));
    Ok(agent.with_on_embedded(on_embedded()))
}
