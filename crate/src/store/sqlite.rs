//! A store in one SQLite file.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{
    LockQueue, ScopeLock, Space, Store, TextKey, TextVector, check_append, check_rewrite, closed, is_stored,
    read_journal,
};
use crate::bank::{Event, Journal, Scope};
use crate::error::{Error, ErrorCode, Result};

/// The version of the tables, kept in the file's `user_version`.
const SCHEMA_VERSION: i64 = 2;
/// Marks the file as ours: "mrr1".
const APPLICATION_ID: i64 = 0x6d72_7231;
/// How long to wait for another process that is writing.
const BUSY: Duration = Duration::from_secs(10);
/// How long an erasure waits for those who still read the old pages.
const PATIENCE: Duration = Duration::from_secs(2);

/// Version 1. `chores` holds work that a crash must not lose: after an erasure, the cleaning of the file.
const SCHEMA: &str = "
    CREATE TABLE journals (
        key TEXT PRIMARY KEY, scope TEXT NOT NULL, journal TEXT NOT NULL, seq INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE events (
        key TEXT NOT NULL, seq INTEGER NOT NULL, event TEXT NOT NULL, PRIMARY KEY (key, seq)
    ) WITHOUT ROWID;
    CREATE TABLE chores (name TEXT PRIMARY KEY) WITHOUT ROWID;
";
/// Version 2: sentence vectors by the sha256 of their text.
const VECTORS: &str = "
    CREATE TABLE vectors (
        key TEXT NOT NULL, embedder TEXT NOT NULL, dimensions INTEGER NOT NULL, text BLOB NOT NULL,
        vector BLOB NOT NULL, PRIMARY KEY (key, embedder, dimensions, text)
    ) WITHOUT ROWID;
";

/// Journals in a file; several processes may have it open.
pub struct SqliteStore {
    /// `None` once it is closed.
    connection: RefCell<Option<Connection>>,
    locks: LockQueue,
}

impl SqliteStore {
    /// Opens or makes the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let mut connection = Connection::open(path).map_err(failed)?;
        prepare(&mut connection).map_err(failed)??;
        let store = Self { connection: RefCell::new(Some(connection)), locks: LockQueue::default() };
        store.with(|connection| {
            let left: i64 =
                connection.query_row("SELECT count(*) FROM chores", [], |row| row.get(0)).map_err(failed)?;
            if left > 0 { clean(connection) } else { Ok(()) }
        })?;
        Ok(store)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        work(self.connection.borrow_mut().as_mut().ok_or_else(closed)?)
    }

    /// One transaction; what `work` refuses is rolled back.
    fn change<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.with(|connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
            let done = work(&transaction)?;
            transaction.commit().map_err(failed)?;
            Ok(done)
        })
    }
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<Result<()>> {
    connection.busy_timeout(BUSY)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (version, application) = (pragma("user_version")?, pragma("application_id")?);
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && (tables > 0 || version != 0) {
        return Ok(Err(corrupt("the file is a database of another program")));
    }
    if version > SCHEMA_VERSION {
        return Ok(Err(corrupt(format!(
            "the database has the format {version} and this build reads up to {SCHEMA_VERSION}: it was written \
             by a newer version; update this one"
        ))));
    }
    if version < 1 {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    if version < SCHEMA_VERSION {
        transaction.execute_batch(VECTORS)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()?;
    // A checkpointed write-ahead log, synchronised at each commit; freed bytes are overwritten,
    // and what a VACUUM copies never touches another file.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "secure_delete", "ON")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(Ok(()))
}

/// Rebuilds the file and empties its write-ahead log, so that no freed page and no old frame
/// keeps erased text.
fn clean(connection: &Connection) -> Result<()> {
    let truncate = || -> Result<bool> {
        connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
            .map(|busy| busy == 0)
            .map_err(failed)
    };
    connection.busy_timeout(PATIENCE).map_err(failed)?;
    let emptied = connection.execute_batch("VACUUM").map_err(failed).and_then(|()| truncate());
    connection.busy_timeout(BUSY).map_err(failed)?;
    match emptied {
        Ok(true) => {
            connection.execute("DELETE FROM chores", []).map_err(failed)?;
            Ok(())
        }
        Ok(false) => Err(still_read(None)),
        Err(error) if error.code() == ErrorCode::StoreBlocked => Err(still_read(Some(error))),
        Err(error) => Err(error),
    }
}

fn still_read(source: Option<Error>) -> Error {
    let error = Error::new(
        ErrorCode::StoreBlocked,
        "the memories are erased, but another process still reads the old pages of the file: close it, and \
         open the database again to clean them",
    );
    match source {
        Some(source) => error.with_source(source),
        None => error,
    }
}

fn head(transaction: &Connection, key: &str) -> Result<Option<(String, u64)>> {
    transaction
        .query_row("SELECT journal, seq FROM journals WHERE key = ?1", [key], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
        })
        .optional()
        .map_err(failed)
}

fn write(transaction: &Transaction<'_>, scope: &Scope, events: &[Event]) -> Result<()> {
    let Some(last) = events.last() else { return Ok(()) };
    let key = scope.key();
    let mut insert = transaction
        .prepare_cached("INSERT INTO events (key, seq, event) VALUES (?1, ?2, ?3)")
        .map_err(failed)?;
    for event in events {
        insert.execute(params![key, event.seq as i64, event.to_json()]).map_err(failed)?;
    }
    let scope = serde_json::to_string(scope).map_err(|error| Error::internal(error.to_string()))?;
    transaction
        .execute(
            "INSERT INTO journals (key, scope, journal, seq) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (key) DO UPDATE SET seq = excluded.seq",
            params![key, scope, last.journal, last.seq as i64],
        )
        .map_err(failed)?;
    Ok(())
}

fn wipe(transaction: &Transaction<'_>, key: &str) -> Result<()> {
    for statement in [
        "DELETE FROM events WHERE key = ?1",
        "DELETE FROM journals WHERE key = ?1",
        "INSERT OR IGNORE INTO chores (name) SELECT 'clean' WHERE ?1 IS NOT NULL",
    ] {
        transaction.execute(statement, [key]).map_err(failed)?;
    }
    Ok(())
}

/// Drops the vectors of texts that no live memory has, whichever encoder made them.
fn keep_live(transaction: &Transaction<'_>, journal: &Journal) -> Result<()> {
    let key = journal.scope().key();
    let live = TextKey::of_live(journal);
    let mut select =
        transaction.prepare_cached("SELECT DISTINCT text FROM vectors WHERE key = ?1").map_err(failed)?;
    let texts = select
        .query_map([&key], |row| row.get::<_, [u8; 32]>(0))
        .map_err(failed)?
        .collect::<rusqlite::Result<Vec<_>>>()
        .map_err(failed)?;
    for text in texts.iter().filter(|text| !live.contains(&TextKey(**text))) {
        transaction
            .execute("DELETE FROM vectors WHERE key = ?1 AND text = ?2", params![key, text])
            .map_err(failed)?;
    }
    Ok(())
}

#[async_trait(?Send)]
impl Store for SqliteStore {
    async fn scopes(&self) -> Result<Vec<Scope>> {
        self.with(|connection| {
            let mut select =
                connection.prepare_cached("SELECT scope FROM journals ORDER BY key").map_err(failed)?;
            let rows = select.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
            rows.map(|row| {
                serde_json::from_str(&row.map_err(failed)?)
                    .map_err(|error| corrupt("a stored scope cannot be read").with_source(error))
            })
            .collect()
        })
    }

    async fn load(&self, scope: &Scope) -> Result<Option<Journal>> {
        self.with(|connection| {
            // One transaction, so that the head and the events are of the same moment.
            let transaction = connection.transaction().map_err(failed)?;
            let Some((id, seq)) = head(&transaction, &scope.key())? else { return Ok(None) };
            let mut select = transaction
                .prepare_cached("SELECT event FROM events WHERE key = ?1 ORDER BY seq")
                .map_err(failed)?;
            let rows = select
                .query_map([scope.key()], |row| row.get(0))
                .map_err(failed)?
                .collect::<rusqlite::Result<Vec<String>>>()
                .map_err(failed)?;
            read_journal(scope, &id, seq, rows).map(Some)
        })
    }

    async fn append(&self, scope: &Scope, expected: u64, events: &[Event]) -> Result<()> {
        scope.validate()?;
        self.change(|transaction| {
            let head = head(transaction, &scope.key())?;
            check_append(head.as_ref().map(|(id, seq)| (id.as_str(), *seq)), expected, events)?;
            write(transaction, scope, events)
        })
    }

    async fn rewrite(&self, expected: u64, journal: &Journal) -> Result<()> {
        self.change(|transaction| {
            let key = journal.scope().key();
            let head = head(transaction, &key)?;
            check_rewrite(head.as_ref().map(|(id, seq)| (id.as_str(), *seq)), expected, journal)?;
            wipe(transaction, &key)?;
            keep_live(transaction, journal)?;
            write(transaction, journal.scope(), journal.events())
        })?;
        self.with(|connection| clean(connection))
    }

    async fn remove(&self, scope: &Scope) -> Result<bool> {
        let there = self.change(|transaction| {
            let there = head(transaction, &scope.key())?.is_some();
            if there {
                wipe(transaction, &scope.key())?;
                transaction.execute("DELETE FROM vectors WHERE key = ?1", [scope.key()]).map_err(failed)?;
            }
            Ok(there)
        })?;
        if there {
            self.with(|connection| clean(connection))?;
        }
        Ok(there)
    }

    async fn vectors(&self, scope: &Scope, space: &Space) -> Result<Vec<TextVector>> {
        self.with(|connection| {
            let mut select = connection
                .prepare_cached(
                    "SELECT text, vector FROM vectors WHERE key = ?1 AND embedder = ?2 AND dimensions = ?3",
                )
                .map_err(failed)?;
            let rows = select
                .query_map(params![scope.key(), space.embedder, space.dimensions as i64], |row| {
                    let bytes: Vec<u8> = row.get(1)?;
                    Ok(TextVector::from_bytes(TextKey(row.get(0)?), &bytes, space.dimensions))
                })
                .map_err(failed)?;
            rows.filter_map(|row| row.map_err(failed).transpose()).collect()
        })
    }

    async fn keep_vectors(&self, journal: &Journal, space: &Space, vectors: &[TextVector]) -> Result<()> {
        let Space { embedder, dimensions } = space;
        let (key, dimensions) = (journal.scope().key(), *dimensions as i64);
        self.change(|transaction| {
            let head = head(transaction, &key)?;
            if !is_stored(head.as_ref().map(|(id, seq)| (id.as_str(), *seq)), journal) {
                return Ok(());
            }
            let others = "DELETE FROM vectors WHERE key = ?1 AND (embedder <> ?2 OR dimensions <> ?3)";
            transaction.execute(others, params![key, embedder, dimensions]).map_err(failed)?;
            let mut insert = transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO vectors (key, embedder, dimensions, text, vector)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )
                .map_err(failed)?;
            for own in vectors {
                insert
                    .execute(params![key, embedder, dimensions, own.text.0, own.to_bytes()])
                    .map_err(failed)?;
            }
            Ok(())
        })
    }

    async fn lock(&self, scope: &Scope) -> Result<ScopeLock> {
        self.locks.lock(&scope.key()).await
    }

    async fn close(&self) -> Result<()> {
        let connection = self.connection.borrow_mut().take();
        connection.map_or(Ok(()), |connection| connection.close().map_err(|(_, error)| failed(error)))
    }
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::StoreCorrupt, message)
}

fn failed(error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode as Sqlite;
    let (code, message) = match error.sqlite_error_code() {
        Some(Sqlite::DatabaseBusy | Sqlite::DatabaseLocked) => {
            (ErrorCode::StoreBlocked, "another process holds the database; try again when it is done")
        }
        Some(Sqlite::PermissionDenied | Sqlite::ReadOnly) => {
            (ErrorCode::StoreBlocked, "the database may not be written")
        }
        Some(Sqlite::CannotOpen) => (ErrorCode::NotReachable, "the database cannot be opened or made there"),
        Some(Sqlite::DiskFull) => (ErrorCode::QuotaExceeded, "the disk is full; nothing was changed"),
        Some(Sqlite::NotADatabase) => (ErrorCode::StoreCorrupt, "the file is not a database"),
        Some(Sqlite::DatabaseCorrupt) => (ErrorCode::StoreCorrupt, "the database is damaged"),
        _ => (ErrorCode::StoreFailed, "the database refused"),
    };
    Error::new(code, message).with_source(error)
}
