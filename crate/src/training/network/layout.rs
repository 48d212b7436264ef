//! Where each tensor lies in the flat buffer of parameters.

use crate::error::{Error, Result};
use crate::nn::{DecoderConfig, Family};
use crate::random::Random;

/// One tensor under its Hugging Face name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTensor {
    /// `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Where it begins in the flat buffer.
    pub start: usize,
}

impl NamedTensor {
    /// The number of its elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its elements in the flat buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.len()
    }

    /// Matrices decay, gains and biases do not.
    pub fn decays(&self) -> bool {
        self.shape.len() == 2
    }
}

/// The first element of each tensor of one block. Tensors that multiply the same input lie one
/// behind the other, so that one product does them all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Block {
    pub(super) input_norm: usize,
    pub(super) qkv: usize,
    pub(super) qkv_bias: usize,
    pub(super) output: usize,
    pub(super) post_norm: usize,
    pub(super) gate_up: usize,
    pub(super) down: usize,
}

/// Where everything lies.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The dimensions.
    pub config: DecoderConfig,
    /// All tensors, in the buffer's order.
    pub tensors: Vec<NamedTensor>,
    pub(super) embedding: usize,
    pub(super) blocks: Vec<Block>,
    pub(super) final_norm: usize,
    len: usize,
}

impl Layout {
    /// The layout of a decoder whose head is its embedding.
    pub fn new(config: DecoderConfig) -> Result<Self> {
        config.validate()?;
        if !config.tie_word_embeddings {
            return Err(Error::invalid("model: tie_word_embeddings must be true: no other head is trained"));
        }
        if config.family != Family::Qwen2 || config.rope_scaling.is_some() {
            return Err(Error::invalid("model: only the family qwen2 is trained here, without rope_scaling"));
        }
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let query = config.num_attention_heads * config.head_dim;
        let key = config.num_key_value_heads * config.head_dim;
        let (mut tensors, mut len) = (Vec::new(), 0);
        let mut push = |name: String, dims: &[usize]| {
            let start = len;
            len += dims.iter().product::<usize>();
            tensors.push(NamedTensor { name, shape: dims.to_vec(), start });
            start
        };
        let embedding = push("model.embed_tokens.weight".into(), &[config.vocab_size, hidden]);
        let mut blocks = Vec::new();
        for i in 0..config.num_hidden_layers {
            let mut tensor = |name: &str, dims: &[usize]| push(format!("model.layers.{i}.{name}"), dims);
            let input_norm = tensor("input_layernorm.weight", &[hidden]);
            let qkv = tensor("self_attn.q_proj.weight", &[query, hidden]);
            tensor("self_attn.k_proj.weight", &[key, hidden]);
            tensor("self_attn.v_proj.weight", &[key, hidden]);
            let qkv_bias = tensor("self_attn.q_proj.bias", &[query]);
            tensor("self_attn.k_proj.bias", &[key]);
            tensor("self_attn.v_proj.bias", &[key]);
            let output = tensor("self_attn.o_proj.weight", &[hidden, query]);
            let post_norm = tensor("post_attention_layernorm.weight", &[hidden]);
            let gate_up = tensor("mlp.gate_proj.weight", &[inner, hidden]);
            tensor("mlp.up_proj.weight", &[inner, hidden]);
            let down = tensor("mlp.down_proj.weight", &[hidden, inner]);
            blocks.push(Block { input_norm, qkv, qkv_bias, output, post_norm, gate_up, down });
        }
        let final_norm = push("model.norm.weight".into(), &[hidden]);
        Ok(Self { config, tensors, embedding, blocks, final_norm, len })
    }

    /// Where the embedding lies, a row a token.
    pub fn embedding(&self) -> std::ops::Range<usize> {
        self.embedding..self.embedding + self.config.vocab_size * self.config.hidden_size
    }

    /// Where the gain of the norm before the head lies.
    pub fn final_norm(&self) -> std::ops::Range<usize> {
        self.final_norm..self.final_norm + self.config.hidden_size
    }

    /// The width of all query heads.
    pub(super) fn query_width(&self) -> usize {
        self.config.num_attention_heads * self.config.head_dim
    }

    /// The width of all key heads, which is that of all value heads.
    pub(super) fn key_width(&self) -> usize {
        self.config.num_key_value_heads * self.config.head_dim
    }

    /// The width of queries, keys and values together.
    pub(super) fn qkv_width(&self) -> usize {
        self.query_width() + 2 * self.key_width()
    }

    /// The number of parameters.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Random parameters: matrices normal with deviation
    /// `initializer_range`, those that write into the
    /// residual stream smaller with its depth (Radford et al., 2019), gains 1, biases 0.
    pub fn initialize(&self, seed: u64) -> Vec<f32> {
        let mut parameters = vec![0.0; self.len];
        let depth = (2.0 * self.config.num_hidden_layers as f64).sqrt();
        for (i, tensor) in self.tensors.iter().enumerate() {
            let values = &mut parameters[tensor.range()];
            if tensor.name.ends_with("norm.weight") {
                values.fill(1.0);
            } else if tensor.decays() {
                let residual =
                    tensor.name.ends_with("o_proj.weight") || tensor.name.ends_with("down_proj.weight");
                let range = self.config.initializer_range;
                let deviation = if residual { range / depth } else { range };
                let mut random = Random::new(seed, &[0x1417, i as u64]);
                for value in values.iter_mut() {
                    *value = (random.normal() * deviation) as f32;
                }
            }
        }
        parameters
    }
}
