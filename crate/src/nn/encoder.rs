//! The sentence encoder: BERT (Devlin et al., 2019), pooled and normalised to one vector a text
//! (Reimers and Gurevych, "Sentence-BERT", 2019).

use burn::module::{Module, Param};
use burn::tensor::activation::{gelu, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use serde::Deserialize;
use serde_json::Value;

use super::decoder::{ParameterKind, ParameterSpec, matrix, vector};
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
        use ParameterKind::{Bias, Embedding, Norm, Projection};
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let mut all = Vec::new();
        let mut add = |name: String, shape: &[usize], kind| all.push(ParameterSpec::new(name, shape, kind));
        for (name, rows) in [
            ("word", self.vocab_size),
            ("position", self.max_position_embeddings),
            ("token_type", self.type_vocab_size),
        ] {
            add(format!("embeddings.{name}_embeddings.weight"), &[rows, hidden], Embedding);
        }
        add("embeddings.LayerNorm.weight".to_owned(), &[hidden], Norm);
        add("embeddings.LayerNorm.bias".to_owned(), &[hidden], Bias);
        for layer in 0..self.num_hidden_layers {
            for (name, output, input) in [
                ("attention.self.query", hidden, hidden),
                ("attention.self.key", hidden, hidden),
                ("attention.self.value", hidden, hidden),
                ("attention.output.dense", hidden, hidden),
                ("attention.output.LayerNorm", hidden, 0),
                ("intermediate.dense", inner, hidden),
                ("output.dense", hidden, inner),
                ("output.LayerNorm", hidden, 0),
            ] {
                let name = format!("encoder.layer.{layer}.{name}");
                if input == 0 {
                    add(format!("{name}.weight"), &[output], Norm);
                } else {
                    add(format!("{name}.weight"), &[output, input], Projection);
                }
                add(format!("{name}.bias"), &[output], Bias);
            }
        }
        all
    }
}

/// A weight and what is added behind it.
#[derive(Module, Debug)]
pub struct Affine<B: Backend, const D: usize> {
    weight: Param<Tensor<B, D>>,
    bias: Param<Tensor<B, 1>>,
}

/// One layer.
#[derive(Module, Debug)]
pub struct EncoderLayer<B: Backend> {
    query: Affine<B, 2>,
    key: Affine<B, 2>,
    value: Affine<B, 2>,
    attention_output: Affine<B, 2>,
    attention_norm: Affine<B, 1>,
    intermediate: Affine<B, 2>,
    output: Affine<B, 2>,
    output_norm: Affine<B, 1>,
}

/// A sentence encoder.
#[derive(Module, Debug)]
pub struct Encoder<B: Backend> {
    word_embeddings: Param<Tensor<B, 2>>,
    position_embeddings: Param<Tensor<B, 2>>,
    token_type_embeddings: Param<Tensor<B, 2>>,
    embedding_norm: Affine<B, 1>,
    layers: Vec<EncoderLayer<B>>,
    #[module(skip)]
    config: EncoderConfig,
}

impl<B: Kernels> Encoder<B> {
    /// Builds an encoder out of values in Hugging Face's layout; `values` is asked once for each of
    /// [`EncoderConfig::parameters`], in order.
    pub fn from_parameters(
        config: &EncoderConfig,
        device: &B::Device,
        mut values: impl FnMut(&ParameterSpec) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let mut specs = config.parameters().into_iter();
        let mut next = || {
            let spec = specs.next().unwrap_or_else(|| unreachable!("an encoder has these parameters"));
            values(&spec).map(|values| (spec, values))
        };
        let word_embeddings = matrix(next()?, device);
        let position_embeddings = matrix(next()?, device);
        let token_type_embeddings = matrix(next()?, device);
        let embedding_norm = Affine { weight: vector(next()?, device), bias: vector(next()?, device) };
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for _ in 0..config.num_hidden_layers {
            let mut dense =
                || Ok::<_, Error>(Affine { weight: matrix(next()?, device), bias: vector(next()?, device) });
            let (query, key, value, attention_output) = (dense()?, dense()?, dense()?, dense()?);
            let attention_norm = Affine { weight: vector(next()?, device), bias: vector(next()?, device) };
            let mut dense =
                || Ok::<_, Error>(Affine { weight: matrix(next()?, device), bias: vector(next()?, device) });
            let (intermediate, output) = (dense()?, dense()?);
            let output_norm = Affine { weight: vector(next()?, device), bias: vector(next()?, device) };
            layers.push(EncoderLayer {
                query,
                key,
                value,
                attention_output,
                attention_norm,
                intermediate,
                output,
                output_norm,
            });
        }
        Ok(Self {
            word_embeddings,
            position_embeddings,
            token_type_embeddings,
            embedding_norm,
            layers,
            config: config.clone(),
        })
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
        let places = self.position_embeddings.val().narrow(0, 0, length).unsqueeze::<3>();
        let words = self.word_embeddings.val().select(0, Tensor::<B, 1, Int>::from_data(ids, device));
        let segment = self.token_type_embeddings.val().narrow(0, 0, 1);
        let x = (words + segment).reshape([batch, length, hidden]) + places;
        let mut x = self.norm(x.reshape([batch * length, hidden]), &self.embedding_norm);
        // What only fills up a row is seen by nobody.
        let bias = column(0.0, HIDDEN).reshape([batch, 1, 1, length]);
        for layer in &self.layers {
            let attended = self.attend(layer, &x, bias.clone(), batch);
            x = self.norm(x + attended, &layer.attention_norm);
            let inner = gelu(project(x.clone(), &layer.intermediate));
            x = self.norm(x + project(inner, &layer.output), &layer.output_norm);
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
        layer: &EncoderLayer<B>,
        x: &Tensor<B, 2>,
        bias: Tensor<B, 4>,
        batch: usize,
    ) -> Tensor<B, 2> {
        let [rows, hidden] = x.dims();
        let heads = self.config.num_attention_heads;
        let (length, width) = (rows / batch, hidden / heads);
        let split = |x: Tensor<B, 2>| x.reshape([batch, length, heads, width]).swap_dims(1, 2);
        let q = split(project(x.clone(), &layer.query)).mul_scalar(1.0 / (width as f64).sqrt());
        let k = split(project(x.clone(), &layer.key));
        let v = split(project(x.clone(), &layer.value));
        let scores = B::product(q, k.swap_dims(2, 3)) + bias;
        let attended = B::product(softmax(scores, 3), v);
        project(attended.swap_dims(1, 2).reshape([rows, hidden]), &layer.attention_output)
    }

    fn norm(&self, x: Tensor<B, 2>, norm: &Affine<B, 1>) -> Tensor<B, 2> {
        let centred = x.clone() - x.mean_dim(1);
        let variance = centred.clone().powf_scalar(2.0).mean_dim(1);
        let scaled = centred / variance.add_scalar(self.config.layer_norm_eps).sqrt();
        scaled * norm.weight.val().unsqueeze() + norm.bias.val().unsqueeze()
    }
}

fn project<B: Kernels>(x: Tensor<B, 2>, dense: &Affine<B, 2>) -> Tensor<B, 2> {
    B::project(x, dense.weight.val(), Some(dense.bias.val()))
}
