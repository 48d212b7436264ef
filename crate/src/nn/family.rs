//! The families of decoders, and in what they differ.

use serde::{Deserialize, Serialize};

/// A family of language models. RMS norm, rotary embedding, grouped-query attention and SwiGLU are
/// common to all decoders; BERT has layer norm, a table of positions and GELU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Qwen2 and Qwen2.5: queries, keys and values have biases.
    #[default]
    Qwen2,
    /// Qwen3: each head's query and key is normed before it is rotated.
    Qwen3,
    /// Llama 2, 3.1 and 3.2.
    Llama,
    /// BERT (Devlin et al., 2019) as a prefix language model (Dong et al., "Unified language model
    /// pre-training", 2019): the prompt is read in both directions, what is written behind it in one.
    Bert,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Qwen2, Self::Qwen3, Self::Llama, Self::Bert];

    /// As `config.json` names it under `architectures`.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Llama => "LlamaForCausalLM",
            Self::Bert => "BertLMHeadModel",
        }
    }

    /// As `config.json` names it under `model_type`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Llama => "llama",
            Self::Bert => "bert",
        }
    }

    /// The activation of the feed-forward part, as `config.json` names it.
    pub fn activation(self) -> &'static str {
        if self == Self::Bert { "gelu" } else { "silu" }
    }

    /// The name of the norms' ε in `config.json`.
    pub fn epsilon(self) -> &'static str {
        if self == Self::Bert { "layer_norm_eps" } else { "rms_norm_eps" }
    }

    /// Whether queries, keys and values have biases.
    pub fn has_biases(self) -> bool {
        self == Self::Qwen2
    }

    /// Whether the query and the key of each head are normed.
    pub fn has_head_norms(self) -> bool {
        self == Self::Qwen3
    }
}
