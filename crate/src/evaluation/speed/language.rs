//! How fast a language model reads, writes and is loaded.

use std::time::{Duration, Instant};

use burn::tensor::{Tensor, TensorData};
use serde::Serialize;

use super::{Times, copy_bandwidth, matmul_rate};
use crate::checkpoint::{Files, read_decoder, total, verify};
use crate::error::{Error, Result};
use crate::generation::Cancel;
use crate::kernels::Kernels;
use crate::nn::{DecoderConfig, KvCache, LanguageDecoder, read_back};
use crate::random::Random;

/// One token after the other.
#[derive(Clone, Debug, Serialize)]
pub struct DecodeSpeed {
    /// How many tokens stand before the first that is written.
    pub prompt_tokens: usize,
    /// How many are written.
    pub new_tokens: usize,
    /// How many texts are written side by side, behind prompts of different lengths.
    pub rows: usize,
    /// Tokens a second of all texts, at the median.
    pub tokens_per_second: f64,
    /// Of one token of each text.
    pub token: Times,
    /// How many bytes of weights a token reads.
    pub weight_bytes: u64,
    /// Bytes of weights a second.
    pub bytes_per_second: f64,
    /// Bytes a second that the machine copies, in all its threads: read and written.
    pub copy_bytes_per_second: f64,
    /// The share of that which is reached, in per cent.
    pub percent_of_copy: f64,
}

/// A prompt at once.
#[derive(Clone, Debug, Serialize)]
pub struct PrefillSpeed {
    /// How many tokens the prompt has.
    pub prompt_tokens: usize,
    /// Tokens a second, at the median.
    pub tokens_per_second: f64,
    /// Of the whole prompt.
    pub prompt: Times,
    /// Floating-point operations a second in the products with weights.
    pub flops: f64,
    /// Floating-point operations a second of burn's product of two matrices of 1024 × 1024.
    pub matmul_flops: f64,
    /// The share of that which is reached, in per cent.
    pub percent_of_matmul: f64,
}

/// From the bytes of the files to a model that can be asked.
#[derive(Clone, Debug, Serialize)]
pub struct LoadSpeed {
    /// The size of all files.
    pub bytes: u64,
    /// Of verifying the hashes and building the decoder.
    pub load: Times,
    /// Bytes of files a second, at the median.
    pub bytes_per_second: f64,
}

/// How many weights are multiplied with each token: all but the tables that are looked up.
pub(super) fn multiplied(config: &DecoderConfig) -> u64 {
    let lookups = ["position_embeddings", "token_type_embeddings"];
    let is_read = |name: &str| !lookups.iter().any(|table| name.contains(table));
    let all = config.parameters().into_iter().filter(|spec| is_read(&spec.name));
    let weights: usize = all.map(|spec| spec.shape.iter().product::<usize>()).sum();
    // An embedding that is not the head too is looked up.
    let looked_up = if config.tie_word_embeddings { 0 } else { config.vocab_size * config.hidden_size };
    (weights - looked_up) as u64
}

pub(super) fn tokens(config: &DecoderConfig, count: usize) -> Vec<u32> {
    let mut random = Random::new(7, &[]);
    (0..count).map(|_| random.below(config.vocab_size) as u32).collect()
}

pub(super) fn check(config: &DecoderConfig, prompt: usize, new: usize) -> Result<()> {
    let longest = config.max_position_embeddings;
    if prompt == 0 {
        return Err(Error::invalid("the prompt has at least one token"));
    }
    if prompt + new > longest {
        return Err(Error::invalid(format!(
            "{prompt} and {new} tokens are more than the model's context of {longest}"
        )));
    }
    Ok(())
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Writes `new` tokens greedily behind a prompt, as a generator does: the logits come back for each. Of several
/// `rows` the prompts are of different lengths, none longer. `on_progress` hears how many are done.
pub async fn decode<B: Kernels>(
    decoder: &LanguageDecoder<B>,
    [prompt, new, rows]: [usize; 3],
    cancel: &Cancel,
    on_progress: &mut dyn FnMut(usize),
) -> Result<DecodeSpeed> {
    let config = decoder.config();
    check(config, prompt, new)?;
    let (mut caches, mut last) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    for row in 0..rows.max(1) {
        let ids = tokens(config, prompt - row * 7 % prompt.div_ceil(2));
        let mut cache = KvCache::new(config, 1, ids.len(), &decoder.device());
        let hidden = decoder.read(&ids, ids.len(), &mut cache, async || cancel.check()).await?;
        last.push(hidden.ok_or_else(|| Error::internal("a prompt without tokens"))?);
        caches.push((cache, 1));
    }
    let (mut cache, mut hidden) = (KvCache::join(caches, new), Tensor::cat(last, 0));
    let mut times = Vec::with_capacity(new);
    let mut start = Instant::now();
    for done in 0..=new {
        let logits = read_back(decoder.logits(hidden.clone())).await?;
        let best = logits
            .chunks_exact(config.vocab_size)
            .map(|row| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or_default() as i32);
        let next: Vec<i32> = best.collect();
        if done > 0 {
            times.push(start.elapsed());
        }
        on_progress(done);
        if done < new {
            cancel.check()?;
            start = Instant::now();
            let next = TensorData::new(next, [rows.max(1), 1]);
            hidden = decoder.extend(Tensor::from_data(next, &decoder.device()), &mut cache);
        }
    }
    let token = Times::new(times);
    let weight_bytes = match decoder {
        LanguageDecoder::Causal(decoder) => decoder.multiplied_bytes(),
        LanguageDecoder::Prefix(_) => 4 * multiplied(config),
    };
    let steps_per_second = 1e3 / token.p50_ms.max(f64::MIN_POSITIVE);
    let bytes_per_second = weight_bytes as f64 * steps_per_second;
    let copy_bytes_per_second = copy_bandwidth(threads());
    Ok(DecodeSpeed {
        prompt_tokens: prompt,
        new_tokens: new,
        rows,
        tokens_per_second: rows as f64 * steps_per_second,
        token,
        weight_bytes,
        bytes_per_second,
        copy_bytes_per_second,
        percent_of_copy: 100.0 * bytes_per_second / copy_bytes_per_second,
    })
}

/// Reads a prompt `runs` times, each time into an empty cache, up to its last token's logits.
pub async fn prefill<B: Kernels>(
    decoder: &LanguageDecoder<B>,
    prompt: usize,
    runs: usize,
    cancel: &Cancel,
    on_progress: &mut dyn FnMut(usize),
) -> Result<PrefillSpeed> {
    let config = decoder.config();
    check(config, prompt, 0)?;
    let ids = tokens(config, prompt);
    let mut times = Vec::with_capacity(runs);
    // The first run warms up.
    for done in 0..=runs {
        let start = Instant::now();
        let mut cache = KvCache::new(config, 1, prompt, &decoder.device());
        let hidden = decoder.read(&ids, prompt, &mut cache, async || cancel.check()).await?;
        let hidden = hidden.ok_or_else(|| Error::internal("a prompt without tokens"))?;
        read_back(decoder.logits(hidden)).await?;
        if done > 0 {
            times.push(start.elapsed());
        }
        on_progress(done);
    }
    let prompt_times = Times::new(times);
    let seconds = prompt_times.p50_ms.max(f64::MIN_POSITIVE) / 1e3;
    // The head is asked for the last token only.
    let head = (config.vocab_size * config.hidden_size) as u64;
    let flops = 2.0 * ((multiplied(config) - head) as f64 * prompt as f64 + head as f64) / seconds;
    let matmul_flops = matmul_rate::<B>(&decoder.device()).await?;
    Ok(PrefillSpeed {
        prompt_tokens: prompt,
        tokens_per_second: prompt as f64 / seconds,
        prompt: prompt_times,
        flops,
        matmul_flops,
        percent_of_matmul: 100.0 * flops / matmul_flops,
    })
}

/// Verifies the files and builds the decoder `runs` times.
pub async fn load<B: Kernels>(
    files: &Files,
    device: &B::Device,
    runs: usize,
    cancel: &Cancel,
    on_progress: &mut dyn FnMut(usize),
) -> Result<LoadSpeed> {
    let mut times: Vec<Duration> = Vec::with_capacity(runs);
    for done in 1..=runs {
        cancel.check()?;
        let start = Instant::now();
        verify(files)?;
        let decoder = read_decoder::<B>(files, device)?;
        // Where weights go to another memory, one token's logits say that they are there.
        read_back(
            decoder.extend(
                Tensor::from_data([[0i32]], device),
                &mut KvCache::new(decoder.config(), 1, 1, device),
            ),
        )
        .await?;
        times.push(start.elapsed());
        on_progress(done);
    }
    let bytes = total(files);
    let load = Times::new(times);
    Ok(LoadSpeed { bytes, load, bytes_per_second: bytes as f64 * 1e3 / load.p50_ms.max(f64::MIN_POSITIVE) })
}
