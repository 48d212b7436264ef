//! The database and the scope that a command works on.

use std::path::PathBuf;

use clap::Args;

use crate::bank::{Journal, Scope, Timestamp};
use crate::error::{Error, ErrorCode, Result};
use crate::store::SqliteStore;

/// Whose memory.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct ScopeArguments {
    /// The person whose memory it is.
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) user: Option<String>,
    /// The agent whose memory it is.
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) agent: Option<String>,
    /// The conversation that it is of.
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) run: Option<String>,
}

impl ScopeArguments {
    /// The scope, which needs an id at least.
    pub(in crate::cli) fn scope(&self) -> Result<Scope> {
        let scope = self.given();
        if scope == Scope::default() {
            return Err(Error::invalid("whose memory? give --user, --agent or --run"));
        }
        scope.validate()?;
        Ok(scope)
    }

    /// The scope, or nothing where no id was given: then all are meant.
    pub(in crate::cli) fn filter(&self) -> Result<Option<Scope>> {
        if self.given() == Scope::default() { Ok(None) } else { self.scope().map(Some) }
    }

    fn given(&self) -> Scope {
        Scope { user_id: self.user.clone(), agent_id: self.agent.clone(), run_id: self.run.clone() }
    }
}

/// Which database.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct DatabaseArguments {
    /// The SQLite file that holds the journals.
    #[arg(long, value_name = "FILE")]
    db: PathBuf,
}

impl DatabaseArguments {
    /// Opens the file, and makes it where there is none.
    pub(in crate::cli) fn open_or_create(&self) -> Result<SqliteStore> {
        if let Some(folder) = self.db.parent().filter(|folder| !folder.as_os_str().is_empty())
            && !folder.is_dir()
        {
            return Err(not_there(&format!("the folder {} is not there", folder.display())));
        }
        SqliteStore::open(&self.db)
    }

    /// Opens a file that is there: reading makes none.
    pub(in crate::cli) fn open(&self) -> Result<SqliteStore> {
        if !self.db.is_file() {
            let name = self.db.display();
            return Err(not_there(&format!("{name} is not there; `memory-r1 add` makes a database")));
        }
        SqliteStore::open(&self.db)
    }
}

fn not_there(message: &str) -> Error {
    Error::new(ErrorCode::NotReachable, message)
}

/// The time on this machine's clock.
pub(in crate::cli) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let millis = since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    Timestamp::from_millis(millis).unwrap_or_default()
}

/// `user=ann run=3`, for people.
pub(in crate::cli) fn scope_name(scope: &Scope) -> String {
    let ids = [("user", &scope.user_id), ("agent", &scope.agent_id), ("run", &scope.run_id)];
    let given = ids.iter().filter_map(|(name, id)| id.as_ref().map(|id| format!("{name}={id}")));
    given.collect::<Vec<_>>().join(" ")
}

/// The error for a scope without a journal.
pub(in crate::cli) fn nothing_in(scope: &Scope) -> Error {
    Error::new(ErrorCode::NotFound, format!("nothing was ever remembered for {}", scope_name(scope)))
}

/// A journal's id out of the machine's randomness, or out of a seed.
pub(in crate::cli) fn new_journal_id(seed: Option<u64>, scope: &Scope) -> Result<String> {
    if let Some(seed) = seed {
        return Ok(crate::bank::seeded_journal_id(seed, scope));
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::internal(format!("the system gives no random numbers: {error}")))?;
    Ok(crate::bank::journal_id(bytes))
}

/// How many of something: `1 memory`, `2 memories`.
pub(in crate::cli) fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// The journals of every scope that agrees with the filter's ids.
pub(in crate::cli) async fn journals(
    store: &dyn crate::store::Store,
    filter: Option<&Scope>,
) -> Result<Vec<Journal>> {
    let mut journals = Vec::new();
    for scope in store.scopes().await? {
        if filter.is_none_or(|filter| scope.agrees_with(filter)) {
            journals.extend(store.load(&scope).await?);
        }
    }
    Ok(journals)
}
