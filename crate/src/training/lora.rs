//! Low-rank adapters (Hu et al., "LoRA", 2021) in the file layout of PEFT.
//!
//! A matrix `W` of `[out, in]` becomes `W + lora_alpha / r · B A`, with `A` of `[r, in]` and `B` of `[out, r]`. The
//! network reads the sum, and passes give the gradients of `A` and `B` (`network/adapter.rs`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::adamw::AdamW;
use super::bpe::TokenizerFiles;
use super::network::{Adapter, Dropout, Into, Layout, NamedTensor, Pair, matmul};
use super::optimizer::Moments;
use super::run_folder::{read_tensors, read_text, write_model_folder, write_tensors};
use super::start::{read_layout, read_start};
use crate::error::{Error, ErrorCode, Result};
use crate::random::Random;

const CONFIG: &str = "adapter_config.json";
/// The file that has the factors.
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of a model's modules.
const PREFIX: &str = "base_model.model.";

/// PEFT's `LoraConfig`, as far as it is supported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// The rank.
    #[serde(default = "eight")]
    pub r: usize,
    /// The adapter counts `lora_alpha / r`.
    #[serde(default = "alpha")]
    pub lora_alpha: f64,
    /// The last part of the names of the modules that are adapted.
    #[serde(default = "targets")]
    pub target_modules: Vec<String>,
    /// The share of what the adapter reads that is dropped in training, in `0..1`.
    #[serde(default)]
    pub lora_dropout: f64,
}

impl LoraConfig {
    /// Of all projections, with twice the rank as `lora_alpha`.
    pub fn of_rank(r: usize) -> Self {
        Self { r, lora_alpha: 2.0 * r as f64, target_modules: targets(), lora_dropout: 0.0 }
    }
}

fn eight() -> usize {
    8
}
fn alpha() -> f64 {
    8.0
}
fn targets() -> Vec<String> {
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"].map(str::to_owned).to_vec()
}

/// The factors of an adapter and the optimiser's memory of them.
#[derive(Clone, Debug)]
pub struct Lora {
    config: LoraConfig,
    pairs: Arc<[Pair]>,
    /// How many parameters the network has.
    weights: usize,
    /// All factors, one behind the other.
    pub values: Vec<f32>,
    /// What is remembered of their gradients.
    pub moments: Moments,
}

impl Lora {
    /// A fresh adapter, which changes nothing: `A` is uniform as PEFT draws it, `B` is 0.
    pub fn new(layout: &Layout, config: &LoraConfig, seed: u64) -> Result<Self> {
        let mut lora = Self::empty(layout, config)?;
        for (place, pair) in lora.pairs.iter().enumerate() {
            let (_, cols) = pair.dims();
            let (bound, mut random) =
                (1.0 / (cols as f64).sqrt(), Random::new(seed, &[0x10fa, place as u64]));
            for value in &mut lora.values[pair.a..pair.b] {
                *value = ((random.uniform() * 2.0 - 1.0) * bound) as f32;
            }
        }
        Ok(lora)
    }

    fn empty(layout: &Layout, config: &LoraConfig) -> Result<Self> {
        let invalid = |text: String| Err(Error::invalid(format!("lora: {text}")));
        if config.r == 0 || !config.lora_alpha.is_finite() {
            return invalid("r is at least 1, and lora_alpha a number".to_owned());
        }
        if !(0.0..1.0).contains(&config.lora_dropout) {
            return invalid(format!("lora_dropout is in 0..1, not {}", config.lora_dropout));
        }
        let module = |tensor: &NamedTensor| {
            let path = tensor.name.strip_suffix(".weight")?;
            Some(path.rsplit('.').next()?.to_owned())
        };
        let adapted = |tensor: &&NamedTensor| {
            layout.is_block_matrix(tensor)
                && module(tensor).is_some_and(|own| config.target_modules.contains(&own))
        };
        let (mut pairs, mut len) = (Vec::new(), 0);
        for tensor in layout.tensors.iter().filter(adapted) {
            let a = len;
            let b = a + config.r * tensor.shape[1];
            len = b + config.r * tensor.shape[0];
            pairs.push(Pair { tensor: tensor.clone(), a, b });
        }
        for target in &config.target_modules {
            if !pairs.iter().any(|pair| module(&pair.tensor).as_ref() == Some(target)) {
                return invalid(format!("the model has no module {target} that can be adapted"));
            }
        }
        if pairs.is_empty() {
            return invalid("target_modules names nothing".to_owned());
        }
        Ok(Self {
            config: config.clone(),
            pairs: pairs.into(),
            weights: layout.len(),
            values: vec![0.0; len],
            moments: Moments::new(len),
        })
    }

    fn scale(&self) -> f32 {
        (self.config.lora_alpha / self.config.r as f64) as f32
    }

    /// What passes need to know of it; what it drops, where it does, depends on `key`.
    pub fn adapter(&self, key: u64) -> Adapter {
        let rate = self.config.lora_dropout as f32;
        Adapter {
            pairs: self.pairs.clone(),
            factors: self.values[..].into(),
            rank: self.config.r,
            scale: self.scale(),
            weights: self.weights,
            dropout: (rate > 0.0).then_some(Dropout { rate, key }),
        }
    }

    /// The weights with the adapter in them.
    pub fn merge(&self, base: &[f32]) -> Vec<f32> {
        let mut merged = base.to_vec();
        for pair in &*self.pairs {
            let ((a, b), (_, cols)) = (pair.factors(&self.values, self.config.r), pair.dims());
            matmul(&mut merged[pair.tensor.range()], cols, Into::Add, self.scale(), b, a);
        }
        merged
    }

    /// Moves the factors for the `number`-th time.
    pub fn step(&mut self, adamw: &AdamW, gradient: &[f32], number: u64, rate_and_scale: (f32, f32)) {
        adamw.flat(&mut self.values, gradient, &mut self.moments, number, rate_and_scale);
    }

    /// Writes a folder that PEFT loads.
    pub fn save(&self, folder: &Path, base: &str) -> Result<()> {
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": self.config.r,
            "lora_alpha": self.config.lora_alpha,
            "target_modules": self.config.target_modules,
            "lora_dropout": self.config.lora_dropout,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "modules_to_save": null,
            "use_rslora": false,
            "use_dora": false,
        });
        let r = self.config.r;
        let tensors = self.pairs.iter().flat_map(|pair| {
            let (rows, cols) = pair.dims();
            let module = pair.tensor.name.trim_end_matches(".weight");
            let name = |factor: &str| format!("{PREFIX}{module}.lora_{factor}.weight");
            [
                (name("A"), vec![r, cols], &self.values[pair.a..pair.b]),
                (name("B"), vec![rows, r], &self.values[pair.b..pair.b + rows * r]),
            ]
        });
        write_tensors(folder, WEIGHTS, tensors, &[(CONFIG, format!("{config:#}\n"))])
    }

    /// Reads a folder that PEFT wrote. What is not supported is an error that names it.
    pub fn load(folder: &Path, layout: &Layout) -> Result<Self> {
        let unsupported = |text: String| {
            Err(Error::new(ErrorCode::ModelUnsupported, format!("{}: {text}", folder.display())))
        };
        let text = read_text(&folder.join(CONFIG))?;
        let found: BTreeMap<String, Value> = serde_json::from_str(&text)
            .map_err(|error| Error::invalid(format!("{CONFIG} is not JSON")).with_source(error))?;
        let of = |name: &str| found.get(name).cloned().unwrap_or_default();
        if of("peft_type") != "LORA" {
            return unsupported(format!("the adapter is of the type {}; supported: LORA", of("peft_type")));
        }
        for name in ["use_rslora", "use_dora", "fan_in_fan_out", "lora_bias"] {
            if of(name) == true {
                return unsupported(format!("{name} is not supported"));
            }
        }
        for name in
            ["modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform", "layer_replication"]
        {
            let value = of(name);
            if !(value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty)) {
                return unsupported(format!("{name} is not supported"));
            }
        }
        if !matches!(of("bias").as_str(), None | Some("none")) {
            return unsupported(format!("bias is {}; supported: none", of("bias")));
        }
        let numbers = (of("r").as_u64(), of("lora_alpha").as_f64());
        let targets: Option<Vec<String>> = serde_json::from_value(of("target_modules")).ok();
        let ((Some(r), Some(lora_alpha)), Some(mut target_modules)) = (numbers, targets) else {
            return unsupported("r, lora_alpha or the list target_modules is missing".to_owned());
        };
        target_modules.sort();
        let lora_dropout = of("lora_dropout").as_f64().unwrap_or(0.0);
        let config = LoraConfig { r: r as usize, lora_alpha, target_modules, lora_dropout };
        let mut lora = Self::empty(layout, &config)?;
        let mut tensors = read_tensors(&folder.join(WEIGHTS))?;
        for pair in &*lora.pairs.clone() {
            let ((rows, _), module) = (pair.dims(), pair.tensor.name.trim_end_matches(".weight"));
            for (factor, range) in [("A", pair.a..pair.b), ("B", pair.b..pair.b + rows * config.r)] {
                let name = format!("{PREFIX}{module}.lora_{factor}.weight");
                match tensors.remove(&name) {
                    Some(values) if values.len() == range.len() => {
                        lora.values[range].copy_from_slice(&values);
                    }
                    Some(_) => return unsupported(format!("{name} has another shape")),
                    None => return unsupported(format!("{name} is missing")),
                }
            }
        }
        match tensors.keys().next() {
            Some(left) => unsupported(format!("{left} belongs to no matrix of the model")),
            None => Ok(lora),
        }
    }
}

/// Writes a model with an adapter in its weights as a plain Hugging Face folder.
pub fn merge_adapter(model: &Path, adapter: &Path, out: &Path) -> Result<()> {
    let layout = read_layout(model)?;
    let merged = Lora::load(adapter, &layout)?.merge(&read_start(model, &layout)?);
    write_model_folder(out, &layout, &TokenizerFiles::load(model)?, &merged)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::training::network::{Batch, Learns, Network as _, Target, Workspace};

    fn fixture() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
    }

    fn base() -> (Layout, Vec<f32>) {
        let folder = fixture().join("decoders/qwen2_tied");
        let layout = read_layout(&folder).unwrap();
        let parameters = read_start(&folder, &layout).unwrap();
        (layout, parameters)
    }

    fn logprobs(layout: &Layout, parameters: &[f32], ids: &[u32]) -> Vec<f32> {
        let mut batch = Batch::default();
        let vocabulary = layout.config.vocab_size as u32;
        batch.push(ids, (0..vocabulary).map(|token| Target { row: ids.len() - 1, token, weight: 1.0 }));
        Workspace::default().forward(layout, parameters, &batch).unwrap().logprobs
    }

    /// An adapter that PEFT made (`tests/reference/lora.py`) gives PEFT's log-probabilities.
    #[test]
    fn an_adapter_of_peft_is_read_and_merged() {
        let (layout, base) = base();
        let folder = fixture().join("lora");
        let lora = Lora::load(&folder, &layout).unwrap();
        let wanted: Value =
            serde_json::from_str(&read_text(&folder.join("reference.json")).unwrap()).unwrap();
        let ids: Vec<u32> = serde_json::from_value(wanted["ids"].clone()).unwrap();
        let wanted: Vec<f32> = serde_json::from_value(wanted["logprobs"].clone()).unwrap();
        let (own, plain) = (logprobs(&layout, &lora.merge(&base), &ids), logprobs(&layout, &base, &ids));
        assert_eq!(own.len(), wanted.len());
        let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far(&own, &wanted) < 1e-4, "{}", far(&own, &wanted));
        assert!(far(&plain, &wanted) > 1e-2);

        // Written and read again it is the same.
        let copy = tempfile::tempdir().unwrap();
        lora.save(&copy.path().join("adapter"), "base").unwrap();
        let again = Lora::load(&copy.path().join("adapter"), &layout).unwrap();
        assert_eq!(again.values, lora.values);
        assert_eq!(again.config, lora.config);
        // In PEFT's own names and shapes.
        let tensors = |folder: &Path| {
            let bytes = std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
            let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let tensors = tensors
                .tensors()
                .into_iter()
                .map(|(name, own)| (name, (own.dtype(), own.shape().to_vec(), own.data().to_vec())));
            tensors.collect::<std::collections::BTreeMap<_, _>>()
        };
        assert_eq!(tensors(&copy.path().join("adapter")), tensors(&folder));
        let said = |folder: &Path| -> Value {
            serde_json::from_str(&read_text(&folder.join("adapter_config.json")).unwrap()).unwrap()
        };
        let (own, wanted) = (said(&copy.path().join("adapter")), said(&folder));
        for field in ["peft_type", "task_type", "bias"] {
            assert_eq!(own[field], wanted[field], "{field}");
        }
        for field in ["r", "lora_alpha", "lora_dropout"] {
            assert!(own[field].is_number(), "{field}");
            assert_eq!(own[field].as_f64(), wanted[field].as_f64(), "{field}");
        }
    }

    fn of(target_modules: Vec<String>) -> LoraConfig {
        LoraConfig { r: 2, lora_alpha: 1.0, target_modules, lora_dropout: 0.0 }
    }

    /// A pass with dropout has the slopes that its gradient says; another key drops other values.
    #[test]
    fn the_gradient_with_dropout_is_the_slope() {
        let (layout, base) = base();
        let config = LoraConfig { r: 3, lora_alpha: 6.0, lora_dropout: 0.4, ..of(targets()) };
        let mut lora = Lora::new(&layout, &config, 1).unwrap();
        let mut random = Random::new(3, &[]);
        for value in &mut lora.values {
            *value += (random.normal() * 0.1) as f32;
        }
        let pass = |lora: &Lora, key: u64| {
            let (mut batch, mut workspace) = (Batch::default(), Workspace::default());
            for length in [9, 1, 5] {
                let ids: Vec<u32> = (0..length).map(|place| 7 + place * 11).collect();
                let targets = (0..ids.len()).map(|row| Target { row, token: 3 + row as u32, weight: 1.0 });
                batch.push(&ids, targets);
            }
            let adapter = lora.adapter(key);
            batch.adapter = adapter.dropping(&[]);
            let (parameters, mut gradient) = (lora.merge(&base), vec![0.0; lora.values.len()]);
            let learns = Learns::new(Some(&adapter), &mut gradient);
            let mut pass = workspace.pass(&layout, &parameters, learns).unwrap();
            let losses = pass.forward(&batch).unwrap();
            pass.backward(&batch, &vec![1.0; batch.targets.len()], &[]).unwrap();
            pass.finish().unwrap();
            (losses.logprobs.iter().map(|own| -f64::from(*own)).sum::<f64>(), gradient)
        };
        let (loss, gradient) = pass(&lora, 5);
        assert!((loss - pass(&lora, 6).0).abs() > 1e-3);
        for pair in &*lora.pairs.clone() {
            let (rows, _) = pair.dims();
            for range in [pair.a..pair.b, pair.b..pair.b + rows * config.r] {
                let direction: Vec<f32> = range.clone().map(|_| random.normal() as f32).collect();
                let along = |step: f32| {
                    let mut moved = lora.clone();
                    let own = moved.values[range.clone()].iter_mut().zip(&direction);
                    own.for_each(|(value, own)| *value += step * own);
                    pass(&moved, 5).0
                };
                let slope = (along(2e-3) - along(-2e-3)) / 4e-3;
                let own = gradient[range.clone()].iter();
                let size = own.clone().map(|own| f64::from(*own).powi(2)).sum::<f64>().sqrt();
                let product: f64 = own.zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
                let name = &pair.tensor.name;
                assert!((slope - product).abs() < 0.01 * size + 2e-3, "{name} {range:?}: {slope} {product}");
            }
        }
    }

    #[test]
    fn the_gradient_of_the_factors_is_the_slope() {
        let (layout, base) = base();
        let mut lora = Lora::new(&layout, &LoraConfig { r: 3, lora_alpha: 6.0, ..of(targets()) }, 1).unwrap();
        assert_eq!(lora.merge(&base), base);
        let mut random = Random::new(2, &[]);
        for value in &mut lora.values {
            *value += (random.normal() * 0.1) as f32;
        }
        let slopes: Vec<f32> = (0..layout.len()).map(|_| random.normal() as f32).collect();
        let mut gradient = vec![0.0; lora.values.len()];
        lora.adapter(0).gradient(&slopes, &mut gradient);
        let direction: Vec<f32> = (0..gradient.len()).map(|_| random.normal() as f32).collect();
        let along = |step: f32| {
            let mut moved = lora.clone();
            moved.values.iter_mut().zip(&direction).for_each(|(value, own)| *value += step * own);
            let merged = moved.merge(&base);
            let change = merged.iter().zip(&base).map(|(a, b)| f64::from(a - b));
            change.zip(&slopes).map(|(change, slope)| change * f64::from(*slope)).sum::<f64>()
        };
        let slope = (along(1e-2) - along(-1e-2)) / 2e-2;
        let product: f64 = gradient.iter().zip(&direction).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        assert!((slope - product).abs() < 1e-3 * (1.0 + product.abs()), "{slope} {product}");
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let (layout, _) = base();
        let fresh = |targets: &[&str], r| {
            let target_modules = targets.iter().map(|own| (*own).to_owned()).collect();
            Lora::new(&layout, &LoraConfig { r, ..of(target_modules) }, 0).map(|_| ())
        };
        assert!(fresh(&["q_proj"], 2).is_ok());
        assert!(fresh(&["q_proj"], 0).unwrap_err().message().contains("r is at least 1"));
        assert!(fresh(&["q_proj", "lm_head"], 2).unwrap_err().message().contains("lm_head"));
        assert!(fresh(&[], 2).is_err());
        let all_dropped = LoraConfig { lora_dropout: 1.0, ..of(targets()) };
        assert!(Lora::new(&layout, &all_dropped, 0).unwrap_err().message().contains("lora_dropout"));
        for (name, value) in [("use_dora", json!(true)), ("bias", json!("all")), ("peft_type", json!("IA3"))]
        {
            let folder = tempfile::tempdir().unwrap();
            let mut config: Value =
                serde_json::from_str(&read_text(&fixture().join("lora").join(CONFIG)).unwrap()).unwrap();
            config[name] = value;
            std::fs::write(folder.path().join(CONFIG), config.to_string()).unwrap();
            std::fs::copy(fixture().join("lora").join(WEIGHTS), folder.path().join(WEIGHTS)).unwrap();
            let error = Lora::load(folder.path(), &layout).unwrap_err();
            assert_eq!(error.code(), ErrorCode::ModelUnsupported);
        }
    }
}
