//! Where each tensor lies in the flat buffer of parameters.

use crate::error::Result;
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

/// Where a layer norm's factors and summands begin; they lie one behind the other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Norm {
    pub(super) gain: usize,
}

impl Norm {
    /// Its factors and summands.
    pub(super) fn of(self, parameters: &[f32], width: usize) -> (&[f32], &[f32]) {
        parameters[self.gain..][..2 * width].split_at(width)
    }

    /// The places of their gradients.
    pub(super) fn of_mut(self, gradient: &mut [f32], width: usize) -> (&mut [f32], &mut [f32]) {
        gradient[self.gain..][..2 * width].split_at_mut(width)
    }
}

/// The same of one block of BERT; a projection's bias lies behind its weight.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BertBlock {
    pub(super) qkv: usize,
    pub(super) qkv_bias: usize,
    pub(super) output: usize,
    pub(super) output_bias: usize,
    pub(super) norm1: Norm,
    pub(super) up: usize,
    pub(super) up_bias: usize,
    pub(super) down: usize,
    pub(super) down_bias: usize,
    pub(super) norm2: Norm,
}

/// What BERT has beside its token embedding.
#[derive(Clone, Debug)]
pub(super) struct BertParts {
    pub(super) positions: usize,
    pub(super) segment: usize,
    pub(super) norm: Norm,
    pub(super) blocks: Vec<BertBlock>,
    pub(super) transform: usize,
    pub(super) transform_bias: usize,
    pub(super) transform_norm: Norm,
    pub(super) head_bias: usize,
}

/// What a family has beside its token embedding.
#[derive(Clone, Debug)]
pub(super) enum Parts {
    Qwen2 {
        blocks: Vec<Block>,
        final_norm: usize,
    },
    Bert(BertParts),
    /// A causal decoder that devices alone train.
    Other {
        final_norm: usize,
    },
}

/// Where everything lies.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The dimensions.
    pub config: DecoderConfig,
    /// All tensors, in the buffer's order.
    pub tensors: Vec<NamedTensor>,
    pub(super) embedding: usize,
    pub(super) parts: Parts,
    len: usize,
}

/// Lays tensors one behind the other.
#[derive(Default)]
struct Buffer {
    tensors: Vec<NamedTensor>,
    len: usize,
}

impl Buffer {
    fn push(&mut self, name: impl std::convert::Into<String>, dims: &[usize]) -> usize {
        let start = self.len;
        self.len += dims.iter().product::<usize>();
        self.tensors.push(NamedTensor { name: name.into(), shape: dims.to_vec(), start });
        start
    }

    /// A layer norm.
    fn norm(&mut self, name: &str, width: usize) -> Norm {
        let gain = self.push(format!("{name}.weight"), &[width]);
        self.push(format!("{name}.bias"), &[width]);
        Norm { gain }
    }

    /// A projection and its bias.
    fn dense(&mut self, name: &str, [rows, cols]: [usize; 2]) -> (usize, usize) {
        let weight = self.push(format!("{name}.weight"), &[rows, cols]);
        (weight, self.push(format!("{name}.bias"), &[rows]))
    }
}

impl Layout {
    /// The layout of a decoder.
    pub fn new(config: DecoderConfig) -> Result<Self> {
        config.validate()?;
        let mut buffer = Buffer::default();
        let (embedding, parts) = match config.family {
            Family::Bert => bert(&config, &mut buffer),
            Family::Qwen2 if config.tie_word_embeddings && config.rope_scaling.is_none() => {
                qwen2(&config, &mut buffer)
            }
            _ => other(&config, &mut buffer),
        };
        Ok(Self { config, tensors: buffer.tensors, embedding, parts, len: buffer.len })
    }

    /// Whether the CPU's network has its pass.
    pub fn is_written_out(&self) -> bool {
        !matches!(self.parts, Parts::Other { .. })
    }

    /// Where the embedding lies, a row a token.
    pub fn embedding(&self) -> std::ops::Range<usize> {
        self.embedding..self.embedding + self.config.vocab_size * self.config.hidden_size
    }

    /// Where the gain of the norm before the head lies.
    pub fn final_norm(&self) -> std::ops::Range<usize> {
        let start = match &self.parts {
            Parts::Qwen2 { final_norm, .. } | Parts::Other { final_norm } => *final_norm,
            Parts::Bert(parts) => parts.transform_norm.gain,
        };
        start..start + self.config.hidden_size
    }

    /// Whether a tensor is a matrix of a block: neither a table nor the head's.
    pub fn is_block_matrix(&self, tensor: &NamedTensor) -> bool {
        tensor.decays() && tensor.name.contains(".layer")
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
            if tensor.name.ends_with("norm.weight") || tensor.name.ends_with("LayerNorm.weight") {
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

fn qwen2(config: &DecoderConfig, buffer: &mut Buffer) -> (usize, Parts) {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let query = config.num_attention_heads * config.head_dim;
    let key = config.num_key_value_heads * config.head_dim;
    let embedding = buffer.push("model.embed_tokens.weight", &[config.vocab_size, hidden]);
    let mut blocks = Vec::new();
    for i in 0..config.num_hidden_layers {
        let mut tensor = |name: &str, dims: &[usize]| buffer.push(format!("model.layers.{i}.{name}"), dims);
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
    (embedding, Parts::Qwen2 { blocks, final_norm: buffer.push("model.norm.weight", &[hidden]) })
}

fn other(config: &DecoderConfig, buffer: &mut Buffer) -> (usize, Parts) {
    let (mut embedding, mut final_norm) = (0, 0);
    for spec in config.parameters() {
        let start = buffer.push(&*spec.name, &spec.shape);
        match &*spec.name {
            "model.embed_tokens.weight" => embedding = start,
            "model.norm.weight" => final_norm = start,
            _ => {}
        }
    }
    (embedding, Parts::Other { final_norm })
}

fn bert(config: &DecoderConfig, buffer: &mut Buffer) -> (usize, Parts) {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let table = |name: &str| format!("bert.embeddings.{name}_embeddings.weight");
    let embedding = buffer.push(table("word"), &[config.vocab_size, hidden]);
    let positions = buffer.push(table("position"), &[config.max_position_embeddings, hidden]);
    let segment = buffer.push(table("token_type"), &[1, hidden]);
    let norm = buffer.norm("bert.embeddings.LayerNorm", hidden);
    let mut blocks = Vec::new();
    for i in 0..config.num_hidden_layers {
        let name = |part: &str| format!("bert.encoder.layer.{i}.{part}");
        let attention = |part: &str, of: &str| name(&format!("attention.self.{part}.{of}"));
        let qkv = buffer.push(attention("query", "weight"), &[hidden, hidden]);
        buffer.push(attention("key", "weight"), &[hidden, hidden]);
        buffer.push(attention("value", "weight"), &[hidden, hidden]);
        let qkv_bias = buffer.push(attention("query", "bias"), &[hidden]);
        buffer.push(attention("key", "bias"), &[hidden]);
        buffer.push(attention("value", "bias"), &[hidden]);
        let (output, output_bias) = buffer.dense(&name("attention.output.dense"), [hidden, hidden]);
        let norm1 = buffer.norm(&name("attention.output.LayerNorm"), hidden);
        let (up, up_bias) = buffer.dense(&name("intermediate.dense"), [inner, hidden]);
        let (down, down_bias) = buffer.dense(&name("output.dense"), [hidden, inner]);
        let norm2 = buffer.norm(&name("output.LayerNorm"), hidden);
        blocks.push(BertBlock {
            qkv,
            qkv_bias,
            output,
            output_bias,
            norm1,
            up,
            up_bias,
            down,
            down_bias,
            norm2,
        });
    }
    let (transform, transform_bias) = buffer.dense("cls.predictions.transform.dense", [hidden, hidden]);
    let transform_norm = buffer.norm("cls.predictions.transform.LayerNorm", hidden);
    let head_bias = buffer.push("cls.predictions.bias", &[config.vocab_size]);
    let parts =
        BertParts { positions, segment, norm, blocks, transform, transform_bias, transform_norm, head_bias };
    (embedding, Parts::Bert(parts))
}
