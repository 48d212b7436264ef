//! Sentence embeddings: texts to vectors of length 1, whose dot product is their cosine.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokenizers::{Tokenizer, TruncationParams};

use super::{Cancel, Turn};
use crate::checkpoint::{self, CONFIG, Files, POOLING, SENTENCES, sha256};
use crate::error::{Error, ErrorCode, Result};
use crate::kernels::Kernels;
use crate::nn::{Encoder, read_back};

/// The most tokens that are read at once, those that fill up rows counted: a second on a slow processor.
const BATCH_TOKENS: usize = 1024;

/// What a caller should know about an embedder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbedderInfo {
    /// What its vectors depend on, its weights, tokenizer and settings, as 64 hexadecimal digits: vectors of
    /// another fingerprint are not compared with its own.
    pub fingerprint: String,
    /// The length of a vector.
    pub dimensions: usize,
    /// The longest text, in tokens; a longer one is cut.
    pub max_length: usize,
}

/// What retrieval knows of an encoder.
#[async_trait(?Send)]
pub trait Embedder {
    /// Facts about it.
    fn info(&self) -> &EmbedderInfo;

    /// A vector of length 1 for each text, in order.
    async fn embed(&self, texts: &[&str], cancel: &Cancel) -> Result<Vec<Vec<f32>>>;
}

/// An encoder that runs here.
pub struct LocalEmbedder<B: Kernels> {
    encoder: Encoder<B>,
    tokenizer: Tokenizer,
    info: EmbedderInfo,
    device: B::Device,
    turn: Turn,
}

impl<B: Kernels> LocalEmbedder<B> {
    /// Reads an encoder's folder in the layout of Sentence Transformers. `turn` is called before each batch.
    pub fn load(files: &Files, device: &B::Device, turn: Turn) -> Result<Self> {
        let broken = |message: &str| Error::new(ErrorCode::ModelIntegrity, message);
        let encoder = checkpoint::read_encoder::<B>(files, device)?;
        let bytes =
            checkpoint::small(files, "tokenizer.json").ok_or_else(|| broken("tokenizer.json is missing"))?;
        let mut tokenizer = Tokenizer::from_bytes(bytes)
            .map_err(|cause| broken("tokenizer.json cannot be read").with_source(cause))?;
        let config = encoder.config();
        let max_length = match checkpoint::small(files, SENTENCES) {
            Some(bytes) => {
                let own: Value = serde_json::from_slice(bytes)
                    .map_err(|cause| broken("sentence_bert_config.json is not JSON").with_source(cause))?;
                let longest = config.max_position_embeddings;
                own["max_seq_length"].as_u64().map_or(longest, |own| (own as usize).min(longest))
            }
            None => config.max_position_embeddings,
        };
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(Some(TruncationParams { max_length, ..TruncationParams::default() }))
            .map_err(|cause| broken("max_seq_length is too short").with_source(cause))?;
        let info =
            EmbedderInfo { fingerprint: fingerprint(files)?, dimensions: config.hidden_size, max_length };
        Ok(Self { encoder, tokenizer, info, device: device.clone(), turn })
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .tokenizer
            .encode(text, true)
            .map_err(|cause| Error::internal("the tokenizer failed").with_source(cause))?;
        let ids = encoding.get_ids();
        if ids.is_empty() {
            return Err(Error::new(ErrorCode::ModelIntegrity, "tokenizer.json adds no tokens to a text"));
        }
        match ids.iter().find(|id| **id as usize >= self.encoder.config().vocab_size) {
            Some(id) => {
                let text = format!("tokenizer.json has the token {id}, for which the encoder has no vector");
                Err(Error::new(ErrorCode::ModelIntegrity, text))
            }
            None => Ok(ids.to_vec()),
        }
    }
}

fn fingerprint(files: &Files) -> Result<String> {
    let settings = [CONFIG, "tokenizer.json", POOLING, SENTENCES];
    let hash = |name| checkpoint::small(files, name).map_or_else(|| "-".to_owned(), sha256);
    let parts = settings.into_iter().map(hash);
    Ok(sha256(parts.fold(checkpoint::fingerprint(files)?, |all, own| format!("{all} {own}")).as_bytes()))
}

#[async_trait(?Send)]
impl<B: Kernels> Embedder for LocalEmbedder<B> {
    fn info(&self) -> &EmbedderInfo {
        &self.info
    }

    async fn embed(&self, texts: &[&str], cancel: &Cancel) -> Result<Vec<Vec<f32>>> {
        let mut ids = texts.iter().map(|text| self.ids(text)).collect::<Result<Vec<_>>>()?;
        // Those of like length together, so that little is filled up.
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|place| ids[*place].len());
        let mut vectors = vec![Vec::new(); texts.len()];
        let mut rest = &order[..];
        while let Some(&first) = rest.first() {
            (self.turn)().await;
            cancel.check()?;
            let mut count = 1;
            while count < rest.len() && (count + 1) * ids[rest[count]].len() <= BATCH_TOKENS {
                count += 1;
            }
            debug_assert!(ids[first].len() <= ids[rest[count - 1]].len());
            let (now, later) = rest.split_at(count);
            let batch: Vec<Vec<u32>> = now.iter().map(|place| std::mem::take(&mut ids[*place])).collect();
            let values = read_back(self.encoder.encode(&batch, &self.device)).await?;
            for (place, vector) in now.iter().zip(values.chunks_exact(self.info.dimensions)) {
                vectors[*place] = vector.to_vec();
            }
            rest = later;
        }
        Ok(vectors)
    }
}
