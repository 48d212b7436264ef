//! candle-peer FOLDER f32|f16|q8_0|q4_0 PROMPT_TOKENS NEW_TOKENS RUNS
//!
//! Reads a prompt and writes greedily behind it, as `memory-r1 bench` does with the same folder (`memory-r1 bench
//! random` makes one): a line of JSON with tokens a second, the median of the runs or tokens.

use std::error::Error;
use std::io::Cursor;
use std::path::Path;
use std::time::Instant;

use candle_core::quantized::gguf_file::{Content, Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::quantized_qwen2::ModelWeights;
use candle_transformers::models::qwen2::{Config, ModelForCausalLM};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

enum Model {
    Floats(Box<ModelForCausalLM>),
    Quantized(Box<ModelWeights>),
}

impl Model {
    fn forward(&mut self, ids: &[u32], start: usize) -> candle_core::Result<u32> {
        let ids = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        let logits = match self {
            Self::Floats(model) => model.forward(&ids, start)?,
            Self::Quantized(model) => model.forward(&ids, start)?,
        };
        logits.flatten_all()?.argmax(0)?.to_scalar()
    }

    fn clear(&mut self) {
        match self {
            Self::Floats(model) => model.clear_kv_cache(),
            Self::Quantized(model) => model.clear_kv_cache(),
        }
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, format, sizes @ ..] = &arguments[..] else {
        return Err("candle-peer FOLDER f32|f16|q8_0|q4_0 PROMPT_TOKENS NEW_TOKENS RUNS".into());
    };
    let sizes: Vec<usize> = sizes.iter().map(|own| own.parse()).collect::<std::result::Result<_, _>>()?;
    let [prompt, new, runs] = sizes[..] else { return Err("three numbers: a prompt, new tokens, runs".into()) };
    let folder = Path::new(folder);
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    // What candle's configuration wants and this folder need not say.
    for (key, value) in [
        ("sliding_window", 4096.into()),
        ("max_window_layers", 1000.into()),
        ("use_sliding_window", false.into()),
        ("hidden_act", "silu".into()),
    ] {
        if config.get(key).is_none_or(serde_json::Value::is_null) {
            config[key] = value;
        }
    }
    let config: Config = serde_json::from_value(config)?;
    let file = folder.join("model.safetensors");
    let mut model = match format.as_str() {
        "f32" | "f16" => {
            let dtype = if format == "f32" { DType::F32 } else { DType::F16 };
            // Safety: nobody writes the file meanwhile.
            let weights = unsafe { VarBuilder::from_mmaped_safetensors(&[file], dtype, &Device::Cpu)? };
            Model::Floats(Box::new(ModelForCausalLM::new(&config, weights)?))
        }
        "q8_0" => Model::Quantized(Box::new(quantized(&config, &file, GgmlDType::Q8_0)?)),
        "q4_0" => Model::Quantized(Box::new(quantized(&config, &file, GgmlDType::Q4_0)?)),
        other => return Err(format!("the format {other} is not known").into()),
    };
    let ids: Vec<u32> = (0..prompt).map(|place| (place * 7919 % config.vocab_size) as u32).collect();
    let (mut prefills, mut tokens) = (Vec::new(), Vec::new());
    for run in 0..=runs {
        model.clear();
        let start = Instant::now();
        let mut next = model.forward(&ids, 0)?;
        if run > 0 {
            prefills.push(start.elapsed().as_secs_f64());
        }
        for place in 0..if run == runs { new } else { 0 } {
            let start = Instant::now();
            next = model.forward(&[next], prompt + place)?;
            tokens.push(start.elapsed().as_secs_f64());
        }
    }
    let median = |all: &mut Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    };
    let (prefill, token) = (median(&mut prefills), median(&mut tokens));
    println!(
        "{}",
        serde_json::json!({
            "peer": "candle 0.11.1",
            "format": format,
            "prompt_tokens": prompt,
            "prefill_tokens_per_second": prefill.map(|seconds| prompt as f64 / seconds),
            "decode_tokens_per_second": token.map(|seconds| 1.0 / seconds),
        })
    );
    Ok(())
}

/// The model in ggml's blocks: its matrices quantised, its vectors in 32 bits.
fn quantized(config: &Config, file: &Path, dtype: GgmlDType) -> Result<ModelWeights> {
    let tensors = candle_core::safetensors::load(file, &Device::Cpu)?;
    let mut named = Vec::new();
    for (name, tensor) in tensors {
        let own = if tensor.rank() == 2 { dtype } else { GgmlDType::F32 };
        let tensor = tensor.to_dtype(DType::F32)?;
        named.push((gguf_name(&name), QTensor::quantize(&tensor, own)?));
    }
    let number = |own: usize| Value::U32(own as u32);
    let metadata = [
        ("qwen2.attention.head_count", number(config.num_attention_heads)),
        ("qwen2.attention.head_count_kv", number(config.num_key_value_heads)),
        ("qwen2.embedding_length", number(config.hidden_size)),
        ("qwen2.context_length", number(config.max_position_embeddings)),
        ("qwen2.block_count", number(config.num_hidden_layers)),
        ("qwen2.attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps as f32)),
        ("qwen2.rope.freq_base", Value::F32(config.rope_theta as f32)),
    ];
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(name, value)| (*name, value)).collect();
    let tensors: Vec<(&str, &QTensor)> = named.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut bytes = Cursor::new(Vec::new());
    write(&mut bytes, &metadata, &tensors)?;
    bytes.set_position(0);
    let content = Content::read(&mut bytes)?;
    Ok(ModelWeights::from_gguf(content, &mut bytes, &Device::Cpu)?)
}

/// A tensor's name in a GGUF file.
fn gguf_name(name: &str) -> String {
    let name = name.strip_prefix("model.").unwrap_or(name);
    let renamed = [
        ("layers.", "blk."),
        ("embed_tokens", "token_embd"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let name = renamed.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to));
    if name == "norm.weight" { "output_norm.weight".to_owned() } else { name }
}
