//! The face that JavaScript sees: it converts, nothing else.
//!
//! [`Engine`] is a model, a store and an agent. The package's TypeScript (`pkg/src`) wraps it:
//! in the page's thread or, as a rule, in a worker.

mod call;
mod convert;
mod device;
mod js_store;
mod measure;
mod view;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Once;

use js_sys::{Array, Function, Promise};
use serde::Deserialize;
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;

use self::call::Context;
use self::convert::{error_to_js, field, files, from_js};
use self::device::{Asked, Device, load, turns};
use self::js_store::JsStore;
use crate::agents::{Clock, ExtractFrom, JournalIds, MemoryAgent};
use crate::bank::{Scope, Timestamp, journal_id, seeded_journal_id};
use crate::error::{Error, Result};
use crate::generation::Cancel;
use crate::store::{InMemoryStore, IndexedDbStore, Store};

thread_local! {
    static ON_PANIC: RefCell<Option<Function>> = const { RefCell::new(None) };
}

/// Tells `listener` when this module panics: nothing that is pending will settle then.
#[wasm_bindgen]
pub fn on_panic(listener: Function) {
    static ONCE: Once = Once::new();
    ON_PANIC.set(Some(listener));
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            console_error_panic_hook::hook(info);
            ON_PANIC.with(|listener| {
                if let Ok(listener) = listener.try_borrow()
                    && let Some(listener) = &*listener
                {
                    let _ = listener.call1(&JsValue::NULL, &info.to_string().into());
                }
            });
        }));
    });
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoreKind {
    IndexedDb,
    Memory,
    Custom,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Options {
    device: Device,
    /// What is known of the GPU, as the page's `info` shows it.
    adapter: Option<device::Adapter>,
    /// Why there is none.
    adapter_why: String,
    store: StoreKind,
    name: String,
    seed: Option<u64>,
    extract_from: ExtractFrom,
    test: bool,
}

/// A model, a store and an agent on both.
#[wasm_bindgen]
pub struct Engine {
    context: Rc<Context>,
    running: Rc<RefCell<HashMap<u32, Cancel>>>,
}

#[wasm_bindgen]
impl Engine {
    /// Loads a bundle and opens a store.
    ///
    /// `options.files` is a `Map` of bytes by name, `options.embedder` one of a sentence encoder's files or null.
    /// `turn` gives other tasks a turn and resolves afterwards; `progress` is told `(stage, text)`, and later
    /// `("embed", text, done, total)`; `store` is a caller's store, for
    /// `options.store: "custom"`.
    pub async fn create(
        options: JsValue,
        turn: Function,
        progress: Function,
        store: Option<Function>,
    ) -> Result<Engine, JsValue> {
        create(options, turn, progress, store).await.map_err(|error| error_to_js(&error))
    }

    /// Runs one verb; `id` is the caller's, for [`Engine::abort`].
    pub fn call(&self, id: u32, method: String, arguments: JsValue, on_event: Option<Function>) -> Promise {
        let cancel = Cancel::default();
        let (context, running) = (self.context.clone(), self.running.clone());
        running.borrow_mut().insert(id, cancel.clone());
        future_to_promise(async move {
            let result = context.run(&method, arguments, cancel, on_event).await;
            running.borrow_mut().remove(&id);
            result.map_err(|error| error_to_js(&error))
        })
    }

    /// Asks a running verb to stop.
    pub fn abort(&self, id: u32) {
        if let Some(cancel) = self.running.borrow().get(&id) {
            cancel.cancel();
        }
    }

    /// Closes the store.
    pub fn close(&self) -> Promise {
        let context = self.context.clone();
        future_to_promise(async move {
            let closed = context.agent.store().close().await;
            closed.map(|()| JsValue::UNDEFINED).map_err(|error| error_to_js(&error))
        })
    }
}

async fn create(
    options: JsValue,
    turn: Function,
    progress: Function,
    store: Option<Function>,
) -> Result<Engine> {
    let bundle = files(&field(&options, "files").unwrap_or_default())?;
    let encoder = field(&options, "embedder").map(|own| files(&own)).transpose()?;
    let Options { device, adapter, adapter_why, store: kind, name, seed, extract_from, test } =
        from_js(options)?;
    let tell = |stage: &str, text: &str| {
        // A listener that throws does not stop the loading.
        let _ = progress.call2(&JsValue::NULL, &stage.into(), &text.into());
    };
    let store: Rc<dyn Store> = match (kind, store) {
        (StoreKind::IndexedDb, _) => Rc::new(IndexedDbStore::open(&name).await?),
        (StoreKind::Memory, _) => Rc::new(InMemoryStore::new()),
        (StoreKind::Custom, Some(store)) => Rc::new(JsStore::new(store)),
        (StoreKind::Custom, None) => return Err(Error::invalid("there is no custom store")),
    };
    let asked = Asked { files: &bundle, encoder: encoder.as_ref(), device, adapter: adapter.as_ref() };
    let loaded = load(asked, &adapter_why, turns(turn), &tell).await?;
    drop((bundle, encoder));
    let model = loaded.models.answer_agent.info().clone();
    let info: Value = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "device": loaded.device,
        "reason": loaded.reason,
        "adapter": adapter,
        "model": {
            "name": model.name,
            "fingerprint": model.fingerprint,
            "promptFamily": model.prompt_family,
            "contextLength": model.context_length,
            "candidatesPerSpeaker": model.candidates_per_speaker,
            "managerCandidates": model.manager_candidates,
        },
        "embedder": loaded.models.embedder.as_ref().map(|own| {
            let info = own.info();
            json!({ "fingerprint": info.fingerprint, "dimensions": info.dimensions })
        }),
        "selfCheck": loaded.check,
        "name": name,
        "seed": seed.unwrap_or_default(),
    });
    let agent = MemoryAgent::new(loaded.models, store, clock(), journal_ids(seed));
    let agent = agent.with_on_embedded(Rc::new(move |done, total| {
        let text = "Embedding the memories";
        let arguments =
            Array::of4(&"embed".into(), &text.into(), &(done as f64).into(), &(total as f64).into());
        let _ = progress.apply(&JsValue::NULL, &arguments);
    }));
    let context = Context { agent, extract_from, seed: seed.unwrap_or_default(), test, info };
    Ok(Engine { context: Rc::new(context), running: Rc::default() })
}

fn clock() -> Clock {
    Rc::new(|| Timestamp::from_millis(js_sys::Date::now() as i64).unwrap_or_default())
}

/// Ids that repeat with a seed, and random ones without.
fn journal_ids(seed: Option<u64>) -> JournalIds {
    match seed {
        Some(seed) => Rc::new(move |scope: &Scope| seeded_journal_id(seed, scope)),
        None => Rc::new(|scope: &Scope| {
            let mut bytes = [0; 16];
            match getrandom::fill(&mut bytes) {
                Ok(()) => journal_id(bytes),
                // Every browser has random numbers; without them time tells journals apart.
                Err(_) => seeded_journal_id(js_sys::Date::now() as u64, scope),
            }
        }),
    }
}
