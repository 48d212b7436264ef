//! The committed checkpoints of all families, for every backend: natively and in the browser.

use burn::tensor::{Int, Tensor, TensorData};
use memory_r1::checkpoint::{Files, read_decoder};
use memory_r1::error::Result;
use memory_r1::kernels::Kernels;
use memory_r1::nn::{KvCache, LanguageDecoder, read_back};
use serde::Deserialize;

/// What transformers said.
#[derive(Deserialize)]
pub(crate) struct Reference {
    prompt: Vec<u32>,
    first_logits: Vec<f32>,
    last_logits: Vec<f32>,
    pub(crate) greedy: Vec<u32>,
    long_prompt: Vec<u32>,
    long_last_logits: Vec<f32>,
    #[allow(dead_code, reason = "the browser's tests have no command line")]
    pub(crate) chats: Vec<Chat>,
}

/// A conversation through the chat template, and the greedy ids behind it.
#[derive(Deserialize)]
#[allow(dead_code, reason = "the browser's tests have no command line")]
pub(crate) struct Chat {
    pub(crate) system: Option<String>,
    pub(crate) prompt: String,
    pub(crate) prompt_ids: Vec<u32>,
    pub(crate) ids: Vec<u32>,
}

/// A model folder and what transformers said about it.
pub(crate) struct Checkpoint {
    pub(crate) name: &'static str,
    pub(crate) files: Files,
    pub(crate) reference: Reference,
}

macro_rules! checkpoint {
    ($name:literal: $($file:literal)*) => {
        Checkpoint {
            name: $name,
            files: Files::from([
                $(($file.to_owned(), include_bytes!(concat!("../fixtures/decoders/", $name, "/", $file)).to_vec().into()),)*
            ]),
            reference: serde_json::from_slice(include_bytes!(concat!(
                "../fixtures/decoders/",
                $name,
                "/reference.json"
            )))
            .unwrap(),
        }
    };
}

/// Of every family: tied and untied heads, f32 and bf16, one file and several, both spellings of
/// the rotary settings.
pub(crate) fn checkpoints() -> [Checkpoint; 6] {
    [
        checkpoint!("qwen2_tied": "config.json" "model.safetensors"),
        checkpoint!("qwen2_untied": "config.json" "model.safetensors"),
        checkpoint!("qwen3": "config.json" "model.safetensors.index.json"
            "model-00001-of-00003.safetensors" "model-00002-of-00003.safetensors"
            "model-00003-of-00003.safetensors"),
        checkpoint!("llama31": "config.json" "model.safetensors.index.json"
            "model-00001-of-00003.safetensors" "model-00002-of-00003.safetensors"
            "model-00003-of-00003.safetensors"),
        checkpoint!("llama32": "config.json" "model.safetensors"),
        checkpoint!("bert": "config.json" "model.safetensors"),
    ]
}

fn tokens<B: Kernels>(ids: &[u32], device: &B::Device) -> Tensor<B, 2, Int> {
    let values: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    Tensor::from_data(TensorData::new(values, [1, ids.len()]), device)
}

fn largest(logits: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(logits.len(), wanted.len());
    logits
        .iter()
        .zip(wanted)
        .map(|(a, b)| if a.is_nan() { f32::INFINITY } else { (a - b).abs() })
        .fold(0.0, f32::max)
}

/// The logits of the first and last tokens of a prompt. Of a model that reads in blocks, the first
/// are those of the last token of the first block, which is read alone.
async fn first_and_last<B: Kernels>(
    decoder: &LanguageDecoder<B>,
    prompt: &[u32],
    device: &B::Device,
) -> Result<[Vec<f32>; 2]> {
    if let LanguageDecoder::Causal(decoder) = decoder {
        let hidden = decoder.forward(tokens(prompt, device));
        let row =
            |place: usize| hidden.clone().narrow(1, place, 1).reshape([1, decoder.config().hidden_size]);
        let [first, last] = [row(0), row(prompt.len() - 1)].map(|row| read_back(decoder.logits(row)));
        return Ok([first.await?, last.await?]);
    }
    let behind = async |prompt: &[u32]| {
        let mut cache = KvCache::new(decoder.config(), 1, prompt.len(), device);
        let hidden = decoder.read(prompt, prompt.len(), &mut cache, async || Ok(())).await?;
        read_back(decoder.logits(hidden.unwrap())).await
    };
    let first = decoder.config().first_block(prompt);
    assert!(0 < first && first < prompt.len());
    Ok([behind(&prompt[..first]).await?, behind(prompt).await?])
}

/// The largest difference from transformers' logits: of the first and last tokens of a prompt, and
/// behind 200 tokens of which 128 are a prompt and the others are read in pieces into a cache.
pub(crate) async fn largest_difference<B: Kernels>(
    checkpoint: &Checkpoint,
    device: &B::Device,
) -> Result<f32> {
    let Checkpoint { files, reference, .. } = checkpoint;
    let decoder = read_decoder::<B>(files, device)?;
    let [first, last] = first_and_last(&decoder, &reference.prompt, device).await?;

    let mut cache = KvCache::new(decoder.config(), 1, 256, device);
    let mut behind = None;
    for size in [128, 64, 5, 1, 1, 1] {
        let piece = &reference.long_prompt[cache.len()..][..size];
        behind = decoder.read(piece, size, &mut cache, async || Ok(())).await?;
    }
    assert_eq!(cache.len(), reference.long_prompt.len());
    let long = read_back(decoder.logits(behind.unwrap())).await?;
    Ok(largest(&first, &reference.first_logits)
        .max(largest(&last, &reference.last_logits))
        .max(largest(&long, &reference.long_last_logits)))
}

/// As many greedy tokens as the reference has, with a cache.
pub(crate) async fn greedy<B: Kernels>(checkpoint: &Checkpoint, device: &B::Device) -> Result<Vec<u32>> {
    let decoder = read_decoder::<B>(&checkpoint.files, device)?;
    let mut cache = KvCache::new(decoder.config(), 1, 64, device);
    let mut unread = checkpoint.reference.prompt.clone();
    let mut ids = Vec::new();
    while ids.len() < checkpoint.reference.greedy.len() {
        let hidden = decoder.read(&unread, unread.len(), &mut cache, async || Ok(())).await?;
        let logits = read_back(decoder.logits(hidden.unwrap())).await?;
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        ids.push(best as u32);
        unread = vec![best as u32];
    }
    Ok(ids)
}
