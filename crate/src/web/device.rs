//! Where the model runs, and whether it computes rightly there.

use std::cell::Cell;
use std::rc::Rc;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use burn::backend::wgpu::{RuntimeOptions, Wgpu, WgpuDevice, graphics::AutoGraphicsApi, init_setup_async};
use js_sys::{Function, Promise};
use serde::{Deserialize, Serialize};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use crate::agents::Models;
use crate::checkpoint::{Files, WORD_VECTORS, extractor, small};
use crate::error::{Error, ErrorCode, Result};
use crate::generation::{Embedder, LanguageModel, LocalEmbedder, LocalModel, Turn};
use crate::kernels::Kernels;
use crate::retrieval::Retriever;

/// The largest difference of a logit from the bundle's that is taken for rounding.
const TOLERANCE: f32 = 1e-2;

/// What the caller asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Device {
    Auto,
    WebGpu,
    Cpu,
}

/// What the page found out about the GPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Adapter {
    vendor: String,
    architecture: String,
    description: String,
    software: bool,
}

/// What is to be loaded, and where.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) files: &'a Files,
    /// Those of a sentence encoder.
    pub(super) encoder: Option<&'a Files>,
    pub(super) device: Device,
    pub(super) adapter: Option<&'a Adapter>,
}

/// A bundle's models, and where they came to run.
pub(super) struct Loaded {
    pub(super) models: Models,
    pub(super) device: &'static str,
    pub(super) reason: String,
    pub(super) check: Check,
}

/// How the first logits compare with the bundle's constants.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Check {
    status: &'static str,
    max_difference: Option<f32>,
}

impl Check {
    fn new(difference: Option<f32>) -> Self {
        let status = match difference {
            None => "skipped",
            Some(difference) if difference <= TOLERANCE => "passed",
            Some(_) => "failed",
        };
        Self { status, max_difference: difference.filter(|difference| difference.is_finite()) }
    }

    fn has_failed(self) -> bool {
        self.status == "failed"
    }

    /// Of two models' checks: a failed one, else the larger difference.
    fn worse_of(self, other: Self) -> Self {
        let rank = |own: &Self| (own.has_failed(), own.max_difference.unwrap_or_default());
        if rank(&other) > rank(&self) { other } else { self }
    }
}

/// Gives the browser's other tasks a turn: `turn` resolves after a macrotask. Where it cannot,
/// the turn is skipped.
pub(super) fn turns(turn: Function) -> Turn {
    Rc::new(move || {
        let promise = turn.call0(&JsValue::NULL).ok().and_then(|value| value.dyn_into::<Promise>().ok());
        Box::pin(async {
            if let Some(promise) = promise {
                let _ = JsFuture::from(promise).await;
            }
        })
    })
}

/// Whether the GPU is to be used, and why or why not.
fn choose(device: Device, adapter: Option<&Adapter>, why: &str) -> Result<(bool, String)> {
    let name = |adapter: &Adapter| {
        let words = [&adapter.vendor, &adapter.architecture, &adapter.description];
        let words: Vec<&str> =
            words.into_iter().map(|word| word.trim()).filter(|word| !word.is_empty()).collect();
        if words.is_empty() { "an adapter without a name".to_owned() } else { words.join(" ") }
    };
    match (device, adapter) {
        (Device::Cpu, _) => Ok((false, "the CPU was asked for".to_owned())),
        (Device::WebGpu, None) => Err(Error::new(
            ErrorCode::NoWebGpu,
            format!("{why}; use device: \"auto\" or \"cpu\", or a browser with WebGPU"),
        )),
        (Device::WebGpu, Some(adapter)) => Ok((true, format!("WebGPU was asked for: {}", name(adapter)))),
        (Device::Auto, None) => Ok((false, format!("{why}; the CPU is used"))),
        (Device::Auto, Some(adapter)) if adapter.software => {
            Ok((false, format!("WebGPU has only a software adapter ({}); the CPU is faster", name(adapter))))
        }
        (Device::Auto, Some(adapter)) => Ok((true, format!("WebGPU runs on {}", name(adapter)))),
    }
}

/// Loads the bundle where it is to run, checks its logits there, and goes to the CPU where the
/// GPU computes them wrongly.
pub(super) async fn load(
    asked: Asked<'_>,
    why: &str,
    turn: Turn,
    tell: &dyn Fn(&str, &str),
) -> Result<Loaded> {
    let (on_gpu, mut reason) = choose(asked.device, asked.adapter, why)?;
    let mut failed = None;
    if on_gpu {
        tell("device", "Starting the GPU");
        start_gpu().await;
        let (models, check) = load_on::<Wgpu>(asked, &WgpuDevice::default(), turn.clone(), tell).await?;
        if !check.has_failed() {
            return Ok(Loaded { models, device: "webgpu", reason, check });
        }
        reason = format!("{reason}, but its logits are wrong; the CPU is used");
        failed = Some(check);
    }
    let (models, check) = load_on::<Flex>(asked, &FlexDevice, turn, tell).await?;
    Ok(Loaded { models, device: "cpu", reason, check: failed.unwrap_or(check) })
}

async fn load_on<B: Kernels>(
    asked: Asked<'_>,
    device: &B::Device,
    turn: Turn,
    tell: &dyn Fn(&str, &str),
) -> Result<(Models, Check)> {
    let files = asked.files;
    let embedder = match asked.encoder {
        Some(own) => {
            tell("model", "Reading the sentence encoder");
            turn().await;
            let own = LocalEmbedder::<B>::load(own, device, turn.clone()).map_err(|error| {
                Error::new(error.code(), format!("the sentence encoder: {}", error.message()))
            })?;
            Some(Rc::new(own) as Rc<dyn Embedder>)
        }
        None => None,
    };
    let retriever = Retriever::read(small(files, WORD_VECTORS))?;
    let (first, check) = load_one::<B>(files, device, &turn, tell).await?;
    let models = Models { embedder, ..Models::one(first).with_retriever(retriever) };
    let Some(own) = extractor(files)? else { return Ok((models, check)) };
    let (extractor, own) = load_one::<B>(&own, device, &turn, tell).await?;
    Ok((Models { extractor, ..models }, check.worse_of(own)))
}

async fn load_one<B: Kernels>(
    files: &Files,
    device: &B::Device,
    turn: &Turn,
    tell: &dyn Fn(&str, &str),
) -> Result<(Rc<dyn LanguageModel>, Check)> {
    tell("model", "Reading the model");
    turn().await;
    let model = LocalModel::<B>::load(files, device, turn.clone())?;
    tell("check", "Checking its numbers");
    turn().await;
    let check = Check::new(model.self_check().await?);
    Ok((Rc::new(model), check))
}

/// The runtime's device may be set up only once.
async fn start_gpu() {
    thread_local! {
        static STARTED: Cell<bool> = const { Cell::new(false) };
    }
    if !STARTED.replace(true) {
        init_setup_async::<AutoGraphicsApi>(&WgpuDevice::default(), RuntimeOptions::default()).await;
    }
}
