//! A decoder of any family, as a generator reads and asks it.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

use super::{Decoder, DecoderConfig, Family, KvCache, ParameterSpec, PrefixDecoder, Values, read_back};
use crate::error::Result;
use crate::kernels::Kernels;

/// The most tokens that are read between two pauses, but for a block that must be read at once.
pub const CHUNK: usize = 128;

/// A language model.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one or two of it, and it is hardly ever moved")]
pub enum LanguageDecoder<B: Backend> {
    /// One whose tokens see what stands before them.
    Causal(Decoder<B>),
    /// One that reads a prompt in blocks whose tokens see each other.
    Prefix(PrefixDecoder<B>),
}

impl<B: Backend> From<Decoder<B>> for LanguageDecoder<B> {
    fn from(decoder: Decoder<B>) -> Self {
        Self::Causal(decoder)
    }
}

impl<B: Backend> From<PrefixDecoder<B>> for LanguageDecoder<B> {
    fn from(decoder: PrefixDecoder<B>) -> Self {
        Self::Prefix(decoder)
    }
}

impl<B: Kernels> LanguageDecoder<B> {
    /// Builds a decoder out of values in Hugging Face's layout; `values` is asked once for each
    /// of [`DecoderConfig::parameters`], in order.
    pub fn from_parameters<'a>(
        config: &DecoderConfig,
        device: &B::Device,
        values: impl FnMut(&ParameterSpec) -> Result<Values<'a>>,
    ) -> Result<Self> {
        if config.family == Family::Bert {
            PrefixDecoder::from_parameters(config, device, values).map(Self::Prefix)
        } else {
            Decoder::from_parameters(config, device, values).map(Self::Causal)
        }
    }

    /// A decoder with fresh weights, see [`DecoderConfig::init`].
    pub fn init(config: &DecoderConfig, seed: u64, device: &B::Device) -> Self {
        match Self::from_parameters(config, device, config.fresh(seed)) {
            Ok(decoder) => decoder,
            Err(error) => unreachable!("fresh weights cannot be missing: {error}"),
        }
    }

    /// The parameters with their values in Hugging Face's layout, in order.
    pub async fn to_parameters(&self) -> Result<Vec<(ParameterSpec, Vec<f32>)>> {
        match self {
            Self::Causal(decoder) => decoder.to_parameters().await,
            Self::Prefix(decoder) => decoder.to_parameters().await,
        }
    }

    /// The sizes.
    pub fn config(&self) -> &DecoderConfig {
        match self {
            Self::Causal(decoder) => decoder.config(),
            Self::Prefix(decoder) => decoder.config(),
        }
    }

    /// Where the weights are.
    pub fn device(&self) -> B::Device {
        match self {
            Self::Causal(decoder) => decoder.device(),
            Self::Prefix(decoder) => decoder.device(),
        }
    }
}

impl<B: Kernels> LanguageDecoder<B> {
    /// Reads tokens behind those in the cache, and gives back what the model makes of the last one,
    /// `[1, hidden_size]`; nothing where there are none. An empty cache begins a text, whose first
    /// `prompt` tokens are its prompt and must be read together. `pause` is awaited before each
    /// [`CHUNK`], and between the layers of a block that is longer; its error ends the reading.
    pub async fn read(
        &self,
        tokens: &[u32],
        prompt: usize,
        cache: &mut KvCache<B>,
        mut pause: impl AsyncFnMut() -> Result<()>,
    ) -> Result<Option<Tensor<B, 2>>> {
        let device = self.device();
        let (mut rest, mut hidden) = (tokens, None);
        if let Self::Prefix(decoder) = self
            && cache.is_empty()
        {
            for length in decoder.blocks(&tokens[..prompt]) {
                let (block, behind) = rest.split_at(length);
                pause().await?;
                let block = token_tensor(block, &device);
                let between = async || if length > CHUNK { pause().await } else { Ok(()) };
                hidden = Some(decoder.extend_block(block, cache, between).await?);
                rest = behind;
            }
        }
        for chunk in rest.chunks(CHUNK) {
            pause().await?;
            hidden = Some(self.extend(token_tensor(chunk, &device), cache));
        }
        Ok(hidden)
    }

    /// Reads more tokens behind those in the cache, none of which sees what stands behind it.
    ///
    /// # Shapes
    /// - tokens: `[batch, sequence]`
    /// - output: `[batch, hidden_size]`, of the last token
    pub fn extend(&self, tokens: Tensor<B, 2, Int>, cache: &mut KvCache<B>) -> Tensor<B, 2> {
        match self {
            Self::Causal(decoder) => decoder.extend(tokens, cache),
            Self::Prefix(decoder) => decoder.extend(tokens, cache),
        }
    }

    /// The scores of every token as the next one, before softmax.
    ///
    /// # Shapes
    /// - hidden: `[rows, hidden_size]`: take only the rows whose logits are needed
    /// - output: `[rows, vocab_size]`
    pub fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Causal(decoder) => decoder.logits(hidden),
            Self::Prefix(decoder) => decoder.logits(hidden),
        }
    }

    /// The logits behind tokens of which the first half is read at once, as a block where the model
    /// reads in blocks, and the other token by token: both ways that a generator uses.
    pub async fn logits_behind(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let device = self.device();
        let mut cache = KvCache::new(self.config(), 1, tokens.len(), &device);
        let (whole, single) = tokens.split_at(tokens.len().div_ceil(2));
        let whole = token_tensor(whole, &device);
        let mut hidden = match self {
            Self::Causal(decoder) => decoder.extend(whole, &mut cache),
            Self::Prefix(decoder) => decoder.extend_block(whole, &mut cache, async || Ok(())).await?,
        };
        for id in single {
            hidden = self.extend(token_tensor(&[*id], &device), &mut cache);
        }
        read_back(self.logits(hidden)).await
    }
}

/// A sequence as a batch of one.
pub(crate) fn token_tensor<B: Backend>(ids: &[u32], device: &B::Device) -> Tensor<B, 2, Int> {
    let values: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    Tensor::from_data(TensorData::new(values, [1, ids.len()]), device)
}
