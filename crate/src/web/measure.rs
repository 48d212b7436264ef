//! What the package's own measurements ask beside the verbs; open where `create` was told so.

use js_sys::{Function, Reflect};
use serde::Deserialize;
use serde_json::json;
use wasm_bindgen::{JsCast, JsValue};

use super::call::Context;
use super::convert::{from_js, to_js};
use crate::error::{Error, Result};
use crate::generation::{Cancel, ChatMessage, Request, Sampling};
use crate::random::Random;
use crate::retrieval::Dense;

/// How many bytes are copied to know how fast that is.
const COPIED: usize = 64 << 20;
/// How many bytes a page of WebAssembly's memory has.
const PAGE: usize = 1 << 16;

#[derive(Deserialize)]
#[serde(tag = "what", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Asked {
    /// The vectors of texts.
    Embed { texts: Vec<String> },
    /// The greedy continuation of a user's message.
    Write { prompt: String, new_tokens: usize },
    /// Exact search among random vectors.
    Search { memories: usize, width: usize, top_k: usize, runs: usize },
}

/// What was measured, the bytes of this module's memory among it: it never shrinks.
pub(super) async fn measure(context: &Context, asked: JsValue, cancel: &Cancel) -> Result<JsValue> {
    let mut result = match from_js(asked)? {
        Asked::Embed { texts } => {
            let embedder = context.agent.embedder().ok_or_else(|| Error::invalid("there is no embedder"))?;
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            json!({ "vectors": embedder.embed(&texts, cancel).await? })
        }
        Asked::Write { prompt, new_tokens } => {
            let request = Request {
                messages: vec![ChatMessage { role: "user".to_owned(), content: prompt }],
                grammar: None,
                max_new_tokens: new_tokens,
                sampling: Sampling::default(),
                stop: Vec::new(),
            };
            let start = now();
            let model = context.agent.answer_agent().model();
            let written = model.generate(&request, cancel, &mut |_| ()).await?;
            let (prompt, new) = (written.prompt_ids.len(), written.ids.len());
            let ms = now() - start;
            json!({ "promptTokens": prompt, "newTokens": new, "ids": written.ids, "ms": ms })
        }
        Asked::Search { memories, width, top_k, runs } => search([memories, width, top_k], runs)?,
    };
    result["memoryBytes"] = (core::arch::wasm32::memory_size(0) * PAGE).into();
    to_js(&result)
}

fn search([memories, width, top_k]: [usize; 3], runs: usize) -> Result<serde_json::Value> {
    let mut random = Random::new(0, &[0xbe7c]);
    let mut draw = || -> Vec<f32> { (0..width).map(|_| random.uniform() as f32 - 0.5).collect() };
    let mut index = Dense::new(width);
    for _ in 0..memories {
        index.push(&draw())?;
    }
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let query = draw();
        let start = now();
        std::hint::black_box(index.search(&query, top_k)?);
        times.push(now() - start);
    }
    drop(index);
    let (from, mut to) = (vec![1_u8; COPIED], vec![0; COPIED]);
    let copied = (0..5).map(|_| {
        let start = now();
        std::hint::black_box(&mut to[..]).copy_from_slice(std::hint::black_box(&from));
        now() - start
    });
    let fastest = copied.fold(f64::INFINITY, f64::min);
    Ok(json!({ "ms": times, "copyBytesPerSecond": 2.0 * COPIED as f64 * 1e3 / fastest }))
}

/// Milliseconds of the browser's finest clock.
fn now() -> f64 {
    let performance = Reflect::get(&js_sys::global(), &"performance".into()).unwrap_or_default();
    let now = Reflect::get(&performance, &"now".into()).ok().and_then(|own| own.dyn_into::<Function>().ok());
    let time = now.and_then(|now| now.call0(&performance).ok()).and_then(|time| time.as_f64());
    time.unwrap_or_else(js_sys::Date::now)
}
