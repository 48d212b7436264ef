//! A caller's store: an object of JavaScript behind the [`Store`] trait.

use async_trait::async_trait;
use js_sys::{Array, Function, Promise};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use super::convert::{from_js, parse_json, store_error, to_js, to_json};
use crate::bank::{Event, Journal, Scope};
use crate::error::{Error, ErrorCode, Result};
use crate::store::{LockQueue, ScopeLock, Space, Store, TextVector, VectorsInMemory};

/// Calls `(method, scope, expected, events) => Promise`. Vectors are kept here, not there: they end with the engine.
pub(super) struct JsStore {
    call: Function,
    vectors: VectorsInMemory,
    locks: LockQueue,
}

impl JsStore {
    pub(super) fn new(call: Function) -> Self {
        Self { call, vectors: VectorsInMemory::default(), locks: LockQueue::default() }
    }

    async fn call(
        &self,
        method: &str,
        scope: Option<&Scope>,
        more: Option<(u64, &[Event])>,
    ) -> Result<JsValue> {
        let arguments = Array::of2(&method.into(), &scope.map_or(Ok(JsValue::NULL), to_js)?);
        if let Some((expected, events)) = more {
            let list = Array::new();
            for event in events {
                list.push(&parse_json(&event.to_json())?);
            }
            arguments.push(&(expected as f64).into());
            arguments.push(&list);
        }
        let answer = self.call.apply(&JsValue::NULL, &arguments).map_err(|error| store_error(&error))?;
        let promise: Promise =
            answer.dyn_into().map_err(|_| Error::internal("a store answered without a promise"))?;
        JsFuture::from(promise).await.map_err(|error| store_error(&error))
    }
}

fn not_a_journal() -> Error {
    Error::new(ErrorCode::StoreCorrupt, "the store's read must give an array of the events that it was given")
}

#[async_trait(?Send)]
impl Store for JsStore {
    async fn scopes(&self) -> Result<Vec<Scope>> {
        let mut scopes: Vec<Scope> = from_js(self.call("scopes", None, None).await?)?;
        scopes.sort_by_key(Scope::key);
        Ok(scopes)
    }

    async fn load(&self, scope: &Scope) -> Result<Option<Journal>> {
        let events = self.call("read", Some(scope), None).await?;
        let events = events.dyn_into::<Array>().map_err(|_| not_a_journal())?;
        let events =
            events.iter().map(|event| Event::from_json(&to_json(&event)?)).collect::<Result<Vec<_>>>()?;
        if events.is_empty() {
            return Ok(None);
        }
        Journal::from_events(scope.clone(), events).map(Some)
    }

    async fn append(&self, scope: &Scope, expected: u64, events: &[Event]) -> Result<()> {
        scope.validate()?;
        self.call("append", Some(scope), Some((expected, events))).await.map(drop)
    }

    async fn rewrite(&self, expected: u64, journal: &Journal) -> Result<()> {
        self.call("rewrite", Some(journal.scope()), Some((expected, journal.events()))).await?;
        self.vectors.keep_live(journal);
        Ok(())
    }

    async fn remove(&self, scope: &Scope) -> Result<bool> {
        self.vectors.remove(scope);
        Ok(self.call("remove", Some(scope), None).await?.is_truthy())
    }

    async fn vectors(&self, scope: &Scope, space: &Space) -> Result<Vec<TextVector>> {
        Ok(self.vectors.read(scope, space))
    }

    async fn keep_vectors(&self, journal: &Journal, space: &Space, vectors: &[TextVector]) -> Result<()> {
        self.vectors.keep(journal.scope(), space, vectors);
        Ok(())
    }

    async fn lock(&self, scope: &Scope) -> Result<ScopeLock> {
        self.locks.lock(&scope.key()).await
    }

    async fn close(&self) -> Result<()> {
        self.call("close", None, None).await.map(drop)
    }
}
