//! The sentence encoder: BERT (Devlin et al., 2019), pooled and normalised to one vector a text
//! (Reimers and Gurevych, "Sentence-BERT", 2019).

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use serde::Deserialize;
use serde_json::Value;

use super::Values;
use super::bert::{self, Affine, BertBody, BertLayer, Positions};
use super::decoder::ParameterSpec;
use crate::error::{Error, ErrorCode, Result};
use crate::kernels::{HIDDEN, Kernels};

const ARCHITECTURE: &str = "BertModel";

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean (all-MiniLM-L6-v2).
    #[default]
    Mean,
    /// That of the first token, `[CLS]` (BGE).
    First,
}

/// The sizes and constants of an encoder, under Hugging Face's names.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct EncoderConfig {
    /// How many tokens there are.
    pub vocab_size: usize,
    /// The width of the residual stream, and of the result.
    pub hidden_size: usize,
    /// The width between the projections of the feed-forward part.
    pub intermediate_size: usize,
    /// How many layers.
    pub num_hidden_layers: usize,
    /// How many heads; divides the width.
    pub num_attention_heads: usize,
    /// The longest text, in tokens.
    pub max_position_embeddings: usize,
    /// How many kinds of segments there are; only the first is used.
    pub type_vocab_size: usize,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// `1_Pooling/config.json`
    #[serde(skip)]
    pub pooling: Pooling,
}

impl EncoderConfig {
    /// Reads a `config.json`, and the file of Sentence Transformers that says how to pool.
    pub fn from_json(text: &str, pooling: Option<&[u8]>) -> Result<Self> {
        let broken = |message: String| Error::new(ErrorCode::ModelIntegrity, message);
        let unsupported = |message: String| Err(Error::new(ErrorCode::ModelUnsupported, message));
        let value: Value = serde_json::from_str(text)
            .map_err(|cause| broken("config.json is not JSON".to_owned()).with_source(cause))?;
        let architecture = value["architectures"][0].as_str().unwrap_or_default();
        if architecture != ARCHITECTURE {
            return unsupported(format!(
                "{architecture:?} is no sentence encoder that is supported; supported: {ARCHITECTURE}"
            ));
        }
        for (name, supported) in [("hidden_act", "gelu"), ("position_embedding_type", "absolute")] {
            let own = value[name].as_str().unwrap_or(supported);
            if own != supported {
                return unsupported(format!("{name} {own:?} is not supported; supported: {supported}"));
            }
        }
        let mut config: Self = serde_json::from_value(value)
            .map_err(|cause| broken(format!("config.json: {cause}")).with_source(cause))?;
        if config.num_attention_heads == 0 || !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let (heads, width) = (config.num_attention_heads, config.hidden_size);
            return Err(broken(format!("{heads} heads cannot share a width of {width} evenly")));
        }
        if let Some(bytes) = pooling {
            let modes: Value = serde_json::from_slice(bytes)
                .map_err(|cause| broken("1_Pooling/config.json is not JSON".to_owned()).with_source(cause))?;
            let is = |name: &str| modes[name] == Value::Bool(true);
            config.pooling = match (is("pooling_mode_mean_tokens"), is("pooling_mode_cls_token")) {
                (true, false) => Pooling::Mean,
                (false, true) => Pooling::First,
                _ => return unsupported("only mean and [CLS] pooling are supported".to_owned()),
            };
        }
        Ok(config)
    }

    /// Every parameter, in the order in which an encoder is built.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        bert::parameters(&bert::Sizes {
            prefix: "",
            tokens: self.vocab_size,
            places: self.max_position_embeddings,
            segments: self.type_vocab_size,
            hidden: self.hidden_size,
            inner: self.intermediate_size,
            layers: self.num_hidden_layers,
        })
    }
}

/// A sentence encoder.
#[derive(Module, Debug)]
pub struct Encoder<B: Backend> {
    body: BertBody<B>,
    #[module(skip)]
    config: EncoderConfig,
}

impl<B: Kernels> Encoder<B> {
    /// Builds an encoder out of values in Hugging Face's layout; `values` is asked once for each of
    /// [`EncoderConfig::parameters`], in order.
    pub fn from_parameters<'a>(
        config: &EncoderConfig,
        device: &B::Device,
        mut values: impl FnMut(&ParameterSpec) -> Result<Values<'a>>,
    ) -> Result<Self> {
        let mut specs = config.parameters().into_iter();
        let mut next = || {
            let spec = specs.next().unwrap_or_else(|| unreachable!("an encoder has these parameters"));
            values(&spec).map(|values| (spec, values))
        };
        let body = BertBody::read(config.num_hidden_layers, &mut next, device)?;
        Ok(Self { body, config: config.clone() })
    }

    /// The sizes.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// A vector of length 1 for each text, given as its tokens; none may be empty.
    ///
    /// # Shapes
    /// - output: `[texts, hidden_size]`
    pub fn encode(&self, texts: &[Vec<u32>], device: &B::Device) -> Tensor<B, 2> {
        let (batch, length) = (texts.len(), texts.iter().map(Vec::len).max().unwrap_or(0));
        let ids = texts.iter().flat_map(|text| (0..length).map(|at| text.get(at).map_or(0, |id| *id as i32)));
        let ids = TensorData::new(ids.collect::<Vec<i32>>(), [batch * length]);
        let known = texts.iter().flat_map(|text| (0..length).map(|at| at < text.len()));
        let known: Vec<bool> = known.collect();
        let column = |yes: f32, no: f32| -> Tensor<B, 1> {
            let values = known.iter().map(|known| if *known { yes } else { no }).collect::<Vec<f32>>();
            Tensor::from_data(TensorData::new(values, [batch * length]), device)
        };
        let hidden = self.config.hidden_size;
        let ids = Tensor::<B, 1, Int>::from_data(ids, device);
        let epsilon = self.config.layer_norm_eps;
        let mut x = self.body.embed(ids.reshape([batch, length]), Positions::From(0), epsilon);
        // What only fills up a row is seen by nobody.
        let bias = column(0.0, HIDDEN).reshape([batch, 1, 1, length]);
        for layer in &self.body.layers {
            let attended = self.attend(layer, &x, bias.clone(), batch);
            x = layer.finish(x, attended, epsilon);
        }
        let x = x.reshape([batch, length, hidden]);
        let pooled = match self.config.pooling {
            Pooling::First => x.narrow(1, 0, 1),
            // Not divided by the count: the length becomes 1 in any case.
            Pooling::Mean => (x * column(1.0, 0.0).reshape([batch, length, 1])).sum_dim(1),
        };
        let pooled = pooled.reshape([batch, hidden]);
        let square = pooled.clone().powf_scalar(2.0).sum_dim(1);
        pooled / square.sqrt().clamp_min(1e-12)
    }

    fn attend(
        &self,
        layer: &BertLayer<B>,
        x: &Tensor<B, 2>,
        bias: Tensor<B, 4>,
        batch: usize,
    ) -> Tensor<B, 4> {
        let heads = self.config.num_attention_heads;
        let width = self.config.hidden_size / heads;
        let split = |own: &Affine<B, 2>| own.heads(x.clone(), batch, heads);
        let q = split(&layer.query).mul_scalar(1.0 / (width as f64).sqrt());
        let scores = B::product(q, split(&layer.key).swap_dims(2, 3)) + bias;
        B::product(softmax(scores, 3), split(&layer.value))
    }
}
