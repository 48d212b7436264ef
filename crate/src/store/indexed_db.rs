//! A store in the browser's IndexedDB.
//!
//! One database, three object stores: `journals` (key: the scope's key; value: the journal's id,
//! scope and last sequence number), `events` (key: `[scope's key, seq]`) and `vectors` (key: `[scope's key,
//! encoder, dimension, sha256 of the text]`; value: the hash's bytes and the vector's). The other values are
//! JSON texts, so that what is read is exactly what was written.

use std::cell::RefCell;
use std::rc::Rc;

use async_trait::async_trait;
use futures::channel::oneshot;
use futures::future::{Either, select};
use indexed_db_futures::KeyRange;
use indexed_db_futures::database::Database;
use indexed_db_futures::error::{Error as IdbError, OpenDbError};
use indexed_db_futures::internals::SystemRepr;
use indexed_db_futures::object_store::ObjectStore;
use indexed_db_futures::prelude::*;
use indexed_db_futures::transaction::{
    Transaction, TransactionDurability, TransactionMode, TransactionOptions,
};
use js_sys::{Array, Function, Promise, Reflect, Uint8Array};
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::DomException;

use super::lock::web_lock;
use super::{
    LockQueue, ScopeLock, Space, Store, TextKey, TextVector, check_append, check_rewrite, closed, is_stored,
    read_journal,
};
use crate::bank::{Event, Journal, Scope};
use crate::error::{Error, ErrorCode, Result};

/// The version of the object stores.
const SCHEMA_VERSION: u32 = 2;
/// How long a database may take to open, in milliseconds, before it counts as blocked.
const OPEN_DEADLINE: i32 = 10_000;
const JOURNALS: &str = "journals";
const EVENTS: &str = "events";
const VECTORS: &str = "vectors";

/// Journals in IndexedDB; several tabs may have it open.
pub struct IndexedDbStore {
    name: String,
    state: Rc<RefCell<State>>,
    locks: LockQueue,
}

enum State {
    Open(Database),
    /// The caller closed it.
    Closed,
    /// The browser asked for it: another tab upgrades or deletes the database.
    TakenAway,
}

/// What `journals` holds.
#[derive(Serialize, Deserialize)]
struct Head {
    journal: String,
    scope: Scope,
    seq: u64,
}

impl IndexedDbStore {
    /// Opens or makes the database `name`.
    ///
    /// [`ErrorCode::StoreCorrupt`] where a newer version wrote it, [`ErrorCode::StoreBlocked`]
    /// where another tab holds an older version open or the browser denies access.
    pub async fn open(name: &str) -> Result<Self> {
        let database = open_database(name, SCHEMA_VERSION).await?;
        let sys = database.as_sys().clone();
        let state = Rc::new(RefCell::new(State::Open(database)));
        let held = state.clone();
        let on_version_change = Closure::<dyn FnMut()>::new(move || {
            let mut state = held.borrow_mut();
            if let State::Open(database) = &*state {
                database.clone().close();
                *state = State::TakenAway;
            }
        });
        sys.set_onversionchange(Some(on_version_change.as_ref().unchecked_ref()));
        // The browser drops the handler with the connection.
        on_version_change.forget();
        Ok(Self { name: name.to_owned(), state, locks: LockQueue::default() })
    }

    fn database(&self) -> Result<Database> {
        match &*self.state.borrow() {
            State::Open(database) => Ok(database.clone()),
            State::Closed => Err(closed()),
            State::TakenAway => Err(Error::new(
                ErrorCode::StoreBlocked,
                "another tab upgraded or deleted the database; reload this one",
            )),
        }
    }
}

async fn open_database(name: &str, version: u32) -> Result<Database> {
    let (blocked, was_blocked) = oneshot::channel::<()>();
    let request = Database::open(name)
        .with_version(version)
        .with_on_blocked(move |_| {
            let _ = blocked.send(());
            Ok(())
        })
        .with_on_upgrade_needed(|event, database| upgrade(event.old_version() as u32, &database))
        .build()
        .map_err(open_failed)?;
    let (opened, database) = oneshot::channel();
    // The request goes on even if nobody waits any more: what it opens then is closed again,
    // lest it block other tabs.
    spawn_local(async move {
        if let Err(Ok(unclaimed)) = opened.send(request.await) {
            unclaimed.close();
        }
    });
    // A handler that never ran is dropped with the request, and says nothing about blocking.
    let was_blocked = async move {
        if was_blocked.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    // Behind another tab's own deletion or upgrade a request waits without a word.
    let waited = select(Box::pin(was_blocked), Box::pin(after(OPEN_DEADLINE)));
    match select(database, waited).await {
        Either::Left((Ok(result), _)) => result.map_err(open_failed),
        Either::Left((Err(_), _)) => Err(Error::internal("the request for a database was dropped")),
        Either::Right(_) => Err(Error::new(
            ErrorCode::StoreBlocked,
            "another tab holds an older version of the database open; close it and try again",
        )),
    }
}

/// Waits so many milliseconds.
async fn after(milliseconds: i32) {
    let promise = Promise::new(&mut |resolve, _| {
        let timer = Reflect::get(&js_sys::global(), &"setTimeout".into());
        if let Ok(timer) = timer.and_then(JsCast::dyn_into::<Function>) {
            // Without a timer it waits for ever, as it would without this.
            let _ = timer.call2(&JsValue::UNDEFINED, &resolve, &milliseconds.into());
        }
    });
    let _ = JsFuture::from(promise).await;
}

/// Brings the object stores from any older version to [`SCHEMA_VERSION`], a step at a time.
fn upgrade(from: u32, database: &Database) -> indexed_db_futures::Result<()> {
    if from < 1 {
        database.create_object_store(JOURNALS).build()?;
        database.create_object_store(EVENTS).build()?;
    }
    if from < 2 {
        // A database of another program is left as it is.
        if !database.object_store_names().any(|name| name == JOURNALS) {
            let message = "there is no object store of journals";
            return Err(DomException::new_with_message_and_name(message, "NotFoundError")
                .map_or_else(IdbError::from, IdbError::from));
        }
        database.create_object_store(VECTORS).build()?;
    }
    Ok(())
}

/// A transaction over all stores. It must see no await but those of its own requests, or the
/// browser commits it half done.
fn change(database: &Database) -> Result<Transaction<'_>> {
    let options = TransactionOptions::new().with_durability(TransactionDurability::Strict);
    database
        .transaction([JOURNALS, EVENTS, VECTORS])
        .with_mode(TransactionMode::Readwrite)
        .with_options(options)
        .build()
        .map_err(failed)
}

/// Waits until the browser says that all of it is on the disk.
async fn commit(transaction: Transaction<'_>) -> Result<()> {
    let sys = transaction.as_sys().clone();
    transaction.commit().await.map_err(|error| match sys.error() {
        Some(cause) => failed(IdbError::from(cause)),
        None => failed(error),
    })
}

async fn head(journals: &ObjectStore<'_>, key: &str) -> Result<Option<Head>> {
    let row: Option<String> =
        journals.get(key.to_owned()).primitive().map_err(failed)?.await.map_err(failed)?;
    row.map(|row| read_head(&row)).transpose()
}

fn read_head(row: &str) -> Result<Head> {
    serde_json::from_str(row).map_err(|error| {
        Error::new(ErrorCode::StoreCorrupt, "a stored journal's head cannot be read").with_source(error)
    })
}

fn write(journals: &ObjectStore<'_>, rows: &ObjectStore<'_>, scope: &Scope, events: &[Event]) -> Result<()> {
    let Some(last) = events.last() else { return Ok(()) };
    let key = scope.key();
    for event in events {
        // `add`, not `put`: a key that is already there aborts the transaction.
        rows.add(event.to_json()).with_key(event_key(&key, event.seq as f64)).primitive().map_err(failed)?;
    }
    let head = Head { journal: last.journal.clone(), scope: scope.clone(), seq: last.seq };
    let head = serde_json::to_string(&head).map_err(|error| Error::internal(error.to_string()))?;
    journals.put(head).with_key(key).primitive().map_err(failed)?;
    Ok(())
}

fn wipe(journals: &ObjectStore<'_>, rows: &ObjectStore<'_>, key: &str) -> Result<()> {
    rows.delete::<JsValue, _>(all_events(key)).primitive().map_err(failed)?;
    journals.delete(key.to_owned()).primitive().map_err(failed)?;
    Ok(())
}

fn event_key(key: &str, seq: f64) -> JsValue {
    js_sys::Array::of2(&key.into(), &seq.into()).into()
}

fn all_events(key: &str) -> KeyRange<JsValue> {
    KeyRange::Bound(event_key(key, 0.0), false, event_key(key, f64::INFINITY), false)
}

/// `[scope's key, …]` of vectors.
fn vector_key<const N: usize>(scope: &str, rest: [JsValue; N]) -> JsValue {
    std::iter::once(scope.into()).chain(rest).collect::<Array>().into()
}

/// Behind every text in the order of keys, where an array is.
fn end() -> JsValue {
    Array::new().into()
}

fn space_key(scope: &str, space: &Space, text: JsValue) -> JsValue {
    vector_key(scope, [space.embedder.as_str().into(), (space.dimensions as f64).into(), text])
}

fn in_space(scope: &str, space: &Space) -> KeyRange<JsValue> {
    KeyRange::Bound(space_key(scope, space, "".into()), false, space_key(scope, space, end()), false)
}

/// The vectors of a scope but those of a space: below it in the order of keys, and beyond it.
fn other_spaces(scope: &str, space: &Space) -> [KeyRange<JsValue>; 2] {
    [
        KeyRange::Bound(vector_key(scope, []), false, space_key(scope, space, "".into()), true),
        KeyRange::Bound(space_key(scope, space, end()), true, vector_key(scope, [end()]), false),
    ]
}

fn all_vectors(scope: &str) -> KeyRange<JsValue> {
    KeyRange::Bound(vector_key(scope, []), false, vector_key(scope, [end()]), false)
}

fn hex(text: TextKey) -> JsValue {
    text.0.iter().fold(String::new(), |digits, byte| format!("{digits}{byte:02x}")).into()
}

/// Drops the vectors of texts that no live memory has, whichever encoder made them.
async fn keep_live(vectors: &ObjectStore<'_>, journal: &Journal) -> Result<()> {
    let live: Vec<JsValue> = TextKey::of_live(journal).into_iter().map(hex).collect();
    let keys = vectors
        .get_all_keys::<JsValue>()
        .with_query::<JsValue, _>(all_vectors(&journal.scope().key()))
        .primitive()
        .map_err(failed)?
        .await
        .map_err(failed)?
        .collect::<indexed_db_futures::Result<Vec<JsValue>>>()
        .map_err(failed)?;
    let is_live = |key: &JsValue| live.contains(&Array::from(key).get(3));
    for key in keys.into_iter().filter(|key| !is_live(key)) {
        vectors.delete::<JsValue, _>(key).primitive().map_err(failed)?;
    }
    Ok(())
}

#[async_trait(?Send)]
impl Store for IndexedDbStore {
    async fn scopes(&self) -> Result<Vec<Scope>> {
        let database = self.database()?;
        let transaction = database.transaction(JOURNALS).build().map_err(failed)?;
        let journals = transaction.object_store(JOURNALS).map_err(failed)?;
        let rows = journals.get_all::<String>().primitive().map_err(failed)?.await.map_err(failed)?;
        rows.map(|row| Ok(read_head(&row.map_err(failed)?)?.scope)).collect()
    }

    async fn load(&self, scope: &Scope) -> Result<Option<Journal>> {
        let database = self.database()?;
        let transaction = database.transaction([JOURNALS, EVENTS]).build().map_err(failed)?;
        let journals = transaction.object_store(JOURNALS).map_err(failed)?;
        let events = transaction.object_store(EVENTS).map_err(failed)?;
        let key = scope.key();
        let Some(head) = head(&journals, &key).await? else { return Ok(None) };
        let rows = events
            .get_all::<String>()
            .with_query::<JsValue, _>(all_events(&key))
            .primitive()
            .map_err(failed)?
            .await
            .map_err(failed)?
            .collect::<indexed_db_futures::Result<Vec<String>>>()
            .map_err(failed)?;
        read_journal(scope, &head.journal, head.seq, rows).map(Some)
    }

    async fn append(&self, scope: &Scope, expected: u64, events: &[Event]) -> Result<()> {
        scope.validate()?;
        let database = self.database()?;
        let transaction = change(&database)?;
        let journals = transaction.object_store(JOURNALS).map_err(failed)?;
        let rows = transaction.object_store(EVENTS).map_err(failed)?;
        let head = head(&journals, &scope.key()).await?;
        check_append(head.as_ref().map(|head| (head.journal.as_str(), head.seq)), expected, events)?;
        write(&journals, &rows, scope, events)?;
        drop((journals, rows));
        commit(transaction).await
    }

    async fn rewrite(&self, expected: u64, journal: &Journal) -> Result<()> {
        let database = self.database()?;
        let transaction = change(&database)?;
        let journals = transaction.object_store(JOURNALS).map_err(failed)?;
        let rows = transaction.object_store(EVENTS).map_err(failed)?;
        let key = journal.scope().key();
        let head = head(&journals, &key).await?;
        check_rewrite(head.as_ref().map(|head| (head.journal.as_str(), head.seq)), expected, journal)?;
        let vectors = transaction.object_store(VECTORS).map_err(failed)?;
        keep_live(&vectors, journal).await?;
        wipe(&journals, &rows, &key)?;
        write(&journals, &rows, journal.scope(), journal.events())?;
        drop((journals, rows, vectors));
        commit(transaction).await
    }

    async fn remove(&self, scope: &Scope) -> Result<bool> {
        let database = self.database()?;
        let transaction = change(&database)?;
        let journals = transaction.object_store(JOURNALS).map_err(failed)?;
        let rows = transaction.object_store(EVENTS).map_err(failed)?;
        let key = scope.key();
        let there = head(&journals, &key).await?.is_some();
        let vectors = transaction.object_store(VECTORS).map_err(failed)?;
        vectors.delete::<JsValue, _>(all_vectors(&key)).primitive().map_err(failed)?;
        wipe(&journals, &rows, &key)?;
        drop((journals, rows, vectors));
        commit(transaction).await?;
        Ok(there)
    }

    async fn vectors(&self, scope: &Scope, space: &Space) -> Result<Vec<TextVector>> {
        let database = self.database()?;
        let transaction = database.transaction(VECTORS).build().map_err(failed)?;
        let vectors = transaction.object_store(VECTORS).map_err(failed)?;
        let rows = vectors
            .get_all::<JsValue>()
            .with_query::<JsValue, _>(in_space(&scope.key(), space))
            .primitive()
            .map_err(failed)?
            .await
            .map_err(failed)?;
        let mut found = Vec::new();
        for row in rows {
            let row = Uint8Array::new(&row.map_err(failed)?).to_vec();
            if let Some((text, vector)) = row.split_first_chunk() {
                found.extend(TextVector::from_bytes(TextKey(*text), vector, space.dimensions));
            }
        }
        Ok(found)
    }

    async fn keep_vectors(&self, journal: &Journal, space: &Space, vectors: &[TextVector]) -> Result<()> {
        let database = self.database()?;
        let transaction = change(&database)?;
        let journals = transaction.object_store(JOURNALS).map_err(failed)?;
        let rows = transaction.object_store(VECTORS).map_err(failed)?;
        let key = journal.scope().key();
        let head = head(&journals, &key).await?;
        if is_stored(head.as_ref().map(|head| (head.journal.as_str(), head.seq)), journal) {
            for others in other_spaces(&key, space) {
                rows.delete::<JsValue, _>(others).primitive().map_err(failed)?;
            }
            for own in vectors {
                let row = [&own.text.0[..], &own.to_bytes()].concat();
                let row = JsValue::from(Uint8Array::from(&row[..]));
                let at = space_key(&key, space, hex(own.text));
                rows.put(row).with_key(at).primitive().map_err(failed)?;
            }
        }
        drop((journals, rows));
        commit(transaction).await
    }

    async fn lock(&self, scope: &Scope) -> Result<ScopeLock> {
        let key = scope.key();
        match web_lock(&format!("{} {key}", self.name)).await? {
            Some(lock) => Ok(lock),
            None => self.locks.lock(&key).await,
        }
    }

    async fn close(&self) -> Result<()> {
        let state = std::mem::replace(&mut *self.state.borrow_mut(), State::Closed);
        if let State::Open(database) = state {
            database.close();
        }
        Ok(())
    }
}

fn open_failed(error: OpenDbError) -> Error {
    match error {
        OpenDbError::Base(error) => failed(error),
        other => Error::new(
            ErrorCode::StoreBlocked,
            "this page has no IndexedDB; pass store: \"memory\" to go on without keeping anything",
        )
        .with_source(other.to_string()),
    }
}

fn failed(error: IdbError) -> Error {
    let name = match &error {
        IdbError::DomException(exception) => exception.as_sys().name(),
        _ => String::new(),
    };
    let (code, message) = match name.as_str() {
        "QuotaExceededError" => {
            (ErrorCode::QuotaExceeded, "the browser has no room left for this page; nothing was changed")
        }
        "VersionError" => (
            ErrorCode::StoreCorrupt,
            "the database was written by a newer version of memory-r1; reload the page, or update the package",
        ),
        "SecurityError" | "NotAllowedError" => (
            ErrorCode::StoreBlocked,
            "the browser denies this page its storage (a private window, or blocked cookies)",
        ),
        "InvalidStateError" => (ErrorCode::StoreBlocked, "the browser closed the database; reload the page"),
        "NotFoundError" => (
            ErrorCode::StoreCorrupt,
            "the database of this name is not one of memory-r1; choose another name",
        ),
        _ => (ErrorCode::StoreFailed, "the browser's database refused; nothing was changed"),
    };
    Error::new(code, message).with_source(if name.is_empty() {
        error.to_string()
    } else {
        format!("{name}: {error}")
    })
}
