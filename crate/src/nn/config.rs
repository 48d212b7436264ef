//! `config.json`, field by field.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Family, Llama3Scaling};
use crate::error::{Error, ErrorCode, Result};

/// The sizes and constants of a decoder, under Hugging Face's names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecoderConfig {
    /// What kind of decoder.
    #[serde(default)]
    pub family: Family,
    /// How many tokens there are.
    pub vocab_size: usize,
    /// The width of the residual stream.
    pub hidden_size: usize,
    /// The width between the projections of the feed-forward part.
    pub intermediate_size: usize,
    /// How many layers.
    pub num_hidden_layers: usize,
    /// How many query heads.
    pub num_attention_heads: usize,
    /// How many key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// The width of a head.
    pub head_dim: usize,
    /// The longest sequence.
    pub max_position_embeddings: usize,
    /// ε of the norms.
    pub rms_norm_eps: f64,
    /// The base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the frequencies are stretched, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Llama3Scaling>,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// The standard deviation of fresh weights.
    pub initializer_range: f64,
    /// The token that begins a text, if any.
    pub bos_token_id: Option<u32>,
    /// The tokens that end one.
    pub eos_token_id: Vec<u32>,
    /// The token that fills up a batch, if any.
    pub pad_token_id: Option<u32>,
    /// The last such token of a prompt ends the first of the two blocks in which BERT reads it:
    /// within a block every token sees every other, and the second block sees the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_token_id: Option<u32>,
}

impl DecoderConfig {
    /// The first nano's sizes, what is set apart from them in tests: 2.9 million parameters.
    pub fn nano() -> Self {
        Self {
            family: Family::Qwen2,
            vocab_size: 2048,
            hidden_size: 256,
            intermediate_size: 512,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 64,
            max_position_embeddings: 1024,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            tie_word_embeddings: true,
            initializer_range: 0.02,
            bos_token_id: None,
            eos_token_id: vec![1],
            pad_token_id: Some(0),
            block_token_id: None,
        }
    }

    /// How many tokens of a prompt the first of its two blocks has, see [`Self::block_token_id`].
    pub fn first_block(&self, prompt: &[u32]) -> usize {
        let ends = |id: &u32| Some(*id) == self.block_token_id;
        prompt.iter().rposition(ends).map_or(0, |place| place + 1)
    }

    /// Names under which a checkpoint may have a tied parameter a second time, and its own.
    pub(crate) fn tied_copies(&self) -> &'static [(&'static str, &'static str)] {
        match self.family {
            Family::Bert => &[
                ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
                ("cls.predictions.decoder.bias", "cls.predictions.bias"),
            ],
            _ if self.tie_word_embeddings => &[("lm_head.weight", "model.embed_tokens.weight")],
            _ => &[],
        }
    }

    /// Reads a `config.json`.
    pub fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            Error::new(ErrorCode::ModelIntegrity, "config.json is not JSON").with_source(error)
        })?;
        let unsupported = |message: String| Err(Error::new(ErrorCode::ModelUnsupported, message));
        let architecture = value["architectures"][0].as_str().unwrap_or_default();
        let Some(family) = Family::ALL.into_iter().find(|family| family.architecture() == architecture)
        else {
            let supported = Family::ALL.map(Family::architecture).join(", ");
            return unsupported(format!(
                "the architecture {architecture:?} is not supported; supported: {supported}"
            ));
        };
        let supported = family.activation();
        let activation = value["hidden_act"].as_str().unwrap_or(supported);
        if activation != supported {
            return unsupported(format!(
                "the activation {activation:?} is not supported; supported: {supported}"
            ));
        }
        let positions = value["position_embedding_type"].as_str().unwrap_or("absolute");
        if positions != "absolute" {
            return unsupported(format!("positions of the kind {positions:?} are not supported"));
        }
        if family == Family::Bert && value["type_vocab_size"].as_u64().is_some_and(|kinds| kinds != 1) {
            return unsupported(
                "a language model with several kinds of segments is not supported".to_owned(),
            );
        }
        // transformers 5 writes `rope_parameters`, older versions `rope_theta` and `rope_scaling`.
        let rope =
            [&value["rope_parameters"], &value["rope_scaling"]].into_iter().find(|rope| rope.is_object());
        let rope_scaling = rope.map(read_scaling).transpose()?.flatten();
        if value["use_sliding_window"] == Value::Bool(true) {
            return unsupported("sliding-window attention is not supported".to_owned());
        }
        for name in ["attention_bias", "mlp_bias"] {
            if value[name] == Value::Bool(true) {
                return unsupported(format!("{name} is not supported"));
            }
        }
        let count = |name: &str| {
            value[name].as_u64().filter(|count| *count > 0).map(|count| count as usize).ok_or_else(|| {
                Error::new(ErrorCode::ModelIntegrity, format!("config.json has no positive {name}"))
            })
        };
        let token = |value: &Value| value.as_u64().map(|id| id as u32);
        let hidden_size = count("hidden_size")?;
        let num_attention_heads = count("num_attention_heads")?;
        let optional = |name: &str, default: usize| {
            if value[name].is_null() { Ok(default) } else { count(name) }
        };
        let config = Self {
            family,
            vocab_size: count("vocab_size")?,
            hidden_size,
            intermediate_size: count("intermediate_size")?,
            num_hidden_layers: count("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: optional("num_key_value_heads", num_attention_heads)?,
            head_dim: optional("head_dim", hidden_size / num_attention_heads)?,
            max_position_embeddings: count("max_position_embeddings")?,
            rms_norm_eps: value[family.epsilon()].as_f64().unwrap_or(1e-6),
            rope_theta: value["rope_theta"]
                .as_f64()
                .or_else(|| rope.and_then(|rope| rope["rope_theta"].as_f64()))
                .unwrap_or(10_000.0),
            rope_scaling,
            tie_word_embeddings: value["tie_word_embeddings"].as_bool().unwrap_or(family == Family::Bert),
            initializer_range: value["initializer_range"].as_f64().unwrap_or(0.02),
            bos_token_id: token(&value["bos_token_id"]),
            eos_token_id: match &value["eos_token_id"] {
                Value::Array(ids) => ids.iter().filter_map(token).collect(),
                id => token(id).into_iter().collect(),
            },
            pad_token_id: token(&value["pad_token_id"]),
            block_token_id: token(&value["block_token_id"]),
        };
        config.validate()?;
        Ok(config)
    }

    /// Whether the sizes fit each other.
    pub fn validate(&self) -> Result<()> {
        if self.num_key_value_heads == 0 || !self.num_attention_heads.is_multiple_of(self.num_key_value_heads)
        {
            return Err(Error::new(
                ErrorCode::ModelIntegrity,
                format!(
                    "{} query heads cannot share {} key-value heads evenly",
                    self.num_attention_heads, self.num_key_value_heads
                ),
            ));
        }
        if self.family == Family::Bert
            && (self.num_key_value_heads != self.num_attention_heads
                || self.head_dim * self.num_attention_heads != self.hidden_size
                || !self.tie_word_embeddings)
        {
            return Err(Error::new(
                ErrorCode::ModelIntegrity,
                "BERT has as many key-value heads as query heads, which share its width, and a tied head",
            ));
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(2) {
            return Err(Error::new(
                ErrorCode::ModelIntegrity,
                format!("a head of width {} cannot be rotated", self.head_dim),
            ));
        }
        Ok(())
    }

    /// The `config.json` that transformers loads.
    pub fn to_json(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.remove("family");
            fields.insert("architectures".into(), vec![self.family.architecture()].into());
            fields.insert("model_type".into(), self.family.model_type().into());
            if let Some(scaling) = fields.get_mut("rope_scaling").and_then(Value::as_object_mut) {
                scaling.insert("rope_type".into(), "llama3".into());
            }
            fields.insert("hidden_act".into(), self.family.activation().into());
            if self.family == Family::Bert {
                for (name, own) in [("attention_probs_dropout_prob", 0.0), ("hidden_dropout_prob", 0.0)] {
                    fields.insert(name.into(), own.into());
                }
                for other in ["rms_norm_eps", "rope_theta", "num_key_value_heads", "head_dim"] {
                    fields.remove(other);
                }
                fields.insert("layer_norm_eps".into(), self.rms_norm_eps.into());
                fields.insert("type_vocab_size".into(), 1.into());
            } else {
                fields.insert("attention_dropout".into(), 0.0.into());
                fields.insert("use_sliding_window".into(), false.into());
            }
            fields.insert("torch_dtype".into(), "float32".into());
            if let [id] = self.eos_token_id[..] {
                fields.insert("eos_token_id".into(), id.into());
            }
        }
        format!("{value:#}\n")
    }
}

/// What `rope_parameters` or `rope_scaling` say of the frequencies.
fn read_scaling(rope: &Value) -> Result<Option<Llama3Scaling>> {
    match rope["rope_type"].as_str().or(rope["type"].as_str()) {
        None | Some("default") => Ok(None),
        Some("llama3") => serde_json::from_value(rope.clone()).map(Some).map_err(|cause| {
            Error::new(ErrorCode::ModelIntegrity, "config.json: the rotary scaling is not complete")
                .with_source(cause)
        }),
        Some(kind) => Err(Error::new(
            ErrorCode::ModelUnsupported,
            format!("rotary scaling {kind:?} is not supported; supported: default, llama3"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_survives_the_way_through_json() {
        let config = DecoderConfig { eos_token_id: vec![1, 4], ..DecoderConfig::nano() };
        assert_eq!(DecoderConfig::from_json(&config.to_json()).unwrap(), config);
        for family in [Family::Qwen2, Family::Qwen3, Family::Llama] {
            let config = DecoderConfig { family, ..DecoderConfig::nano() };
            assert_eq!(DecoderConfig::from_json(&config.to_json()).unwrap(), config);
        }
        let config = DecoderConfig {
            family: Family::Bert,
            num_key_value_heads: 4,
            rms_norm_eps: 1e-12,
            block_token_id: Some(3),
            ..DecoderConfig::nano()
        };
        assert_eq!(DecoderConfig::from_json(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn both_spellings_of_rotary_scaling_are_read() {
        let scaling = r#"{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
            "original_max_position_embeddings":8192,"rope_theta":500000.0}"#;
        let plain = DecoderConfig { family: Family::Llama, ..DecoderConfig::nano() }.to_json();
        let old = plain.replacen('{', &format!("{{\"rope_scaling\": {scaling},"), 1);
        let old = old.replace("\"rope_theta\": 10000.0", "\"rope_theta\": 500000.0");
        let new = plain.replacen('{', &format!("{{\"rope_parameters\": {scaling},"), 1);
        let new = new.replace("  \"rope_theta\": 10000.0,\n", "");
        let (old, new) = (DecoderConfig::from_json(&old).unwrap(), DecoderConfig::from_json(&new).unwrap());
        assert_eq!(old, new);
        assert!((old.rope_theta - 500_000.0).abs() < 1e-9);
        assert!((old.rope_scaling.unwrap().factor - 8.0).abs() < 1e-9);
        assert_eq!(DecoderConfig::from_json(&old.to_json()).unwrap(), old);
        let half = plain.replacen('{', "{\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8.0},", 1);
        let error = DecoderConfig::from_json(&half).unwrap_err();
        assert_eq!(error.code(), ErrorCode::ModelIntegrity);
        assert_eq!(error.message(), "config.json: the rotary scaling is not complete");
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let refused = |from: &str, to: &str| {
            let error =
                DecoderConfig::from_json(&DecoderConfig::nano().to_json().replace(from, to)).unwrap_err();
            assert_eq!(error.code(), ErrorCode::ModelUnsupported);
            error.message().to_owned()
        };
        let message = refused("Qwen2ForCausalLM", "GPT2LMHeadModel");
        assert_eq!(
            message,
            "the architecture \"GPT2LMHeadModel\" is not supported; supported: Qwen2ForCausalLM, \
             Qwen3ForCausalLM, LlamaForCausalLM, BertLMHeadModel"
        );
        assert!(refused("\"silu\"", "\"gelu\"").contains("gelu"));
        assert!(refused("{", r#"{"attention_bias": true,"#).contains("attention_bias"));
        assert!(refused("{", r#"{"rope_scaling": {"type": "yarn"},"#).contains("yarn"));
        assert!(refused("\"use_sliding_window\": false", "\"use_sliding_window\": true").contains("sliding"));
    }
}
