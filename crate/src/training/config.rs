//! The options of a training run: a TOML file whose names are TRL's where TRL has the option.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::adamw::AdamW;
use super::compute::Precision;
use super::examples::Task;
use super::lora::LoraConfig;
use super::muon::Muon;
use super::optimizer::{Optim, Optimizer};
use super::run_folder::RunConfig;
use crate::error::{Error, Result};
use crate::nn::{DecoderConfig, Family};

/// What the learning rate does after its warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Down to 0 as half a cosine.
    #[default]
    Cosine,
    /// Down to 0 in a straight line.
    Linear,
    /// It stays.
    ConstantWithWarmup,
}

impl Schedule {
    /// The share of the highest learning rate at the `step`-th of `steps`, from 1.
    pub fn at(self, step: u64, steps: u64, warmup_ratio: f64) -> f64 {
        let warmup = (steps as f64 * warmup_ratio).ceil();
        let step = step as f64;
        if step <= warmup {
            return step / warmup;
        }
        let done = ((step - warmup) / (steps as f64 - warmup + 1.0)).min(1.0);
        match self {
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            Self::Linear => 1.0 - done,
            Self::ConstantWithWarmup => 1.0,
        }
    }
}

/// How much the tokens of each kind count in the loss. Forced tokens never count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossWeights {
    /// Tokens of the prompt.
    pub prompt: f32,
    /// Every so-manieth token of the prompt counts: a target costs a row of logits.
    pub prompt_stride: usize,
    /// Tokens of facts, texts and answers.
    pub text: f32,
    /// The name of the operation.
    pub event: f32,
    /// An id.
    pub id: f32,
}

impl Default for LossWeights {
    fn default() -> Self {
        Self { prompt: 0.0, prompt_stride: 1, text: 1.0, event: 1.0, id: 1.0 }
    }
}

/// What to train on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The seed of the synthetic dialogues.
    pub seed: u64,
    /// How many dialogues to train on.
    pub dialogues: usize,
    /// How many more to validate on.
    pub eval_dialogues: usize,
    /// How many examples of each task a batch has.
    pub batch: TaskCounts,
    /// The most memories that the manager is shown.
    pub manager_candidates: usize,
    /// The most memories that the extractor is shown beside a turn.
    #[serde(default)]
    pub extractor_candidates: usize,
    /// Whether the extractor writes down again what a memory that it is shown says word for word.
    /// Without, it is trained to write news alone: a repetition changes nothing in the bank, and a
    /// model that may copy what it sees takes a change for one.
    #[serde(default = "repeats")]
    pub repeats: bool,
    /// The most memories of one speaker that the answer agent is shown.
    pub candidates_per_speaker: usize,
    /// How many questions are put to the same memories at once: these are read once, which is
    /// most of the work.
    #[serde(default = "questions_per_prompt")]
    pub questions_per_prompt: usize,
    /// The share of examples whose candidates stand in any order; in the others they stand as
    /// retrieval has them, the best last.
    #[serde(default)]
    pub shuffled_candidates: f64,
    /// Situations written by hand, beside the dialogues; none without.
    #[serde(default)]
    pub freeform: Option<FreeformConfig>,
}

/// How much of a batch comes from situations that were written by hand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreeformConfig {
    /// The share of each task's examples in a batch.
    pub share: f64,
    /// That of the answers, where it is another: few situations ask a question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_share: Option<f64>,
    /// How many variants of each situation there are; the first is as it was written.
    pub copies: usize,
}

/// A number for each task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskCounts {
    /// Facts out of turns.
    pub extract: usize,
    /// An operation for a fact.
    pub manage: usize,
    /// An answer from memories.
    pub answer: usize,
}

impl FreeformConfig {
    pub(super) fn share_of(self, task: Task) -> f64 {
        match task {
            Task::Answer => self.answer_share.unwrap_or(self.share),
            Task::Extract | Task::Manage => self.share,
        }
    }
}

impl TaskCounts {
    pub(super) fn of(self, task: Task) -> usize {
        match task {
            Task::Extract => self.extract,
            Task::Manage => self.manage,
            Task::Answer => self.answer,
        }
    }
}

/// At first only short examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curriculum {
    /// For this many steps…
    pub steps: u64,
    /// … no example is longer than this.
    pub max_length: usize,
}

/// The sentence encoder whose word vectors nano's embedding begins with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Its folder, in Hugging Face's layout: `model.safetensors` and `vocab.txt`.
    pub folder: PathBuf,
    /// How many of its commonest words the vocabulary shall have, said in training or not.
    pub words: usize,
    /// The deviation of the first values.
    pub scale: f64,
    /// How many times slower than the rest the rows of whole words move: what is learned of the words
    /// that training says then holds for those beside them that it never says.
    #[serde(default = "one")]
    pub slowness: f64,
}

pub(super) fn one() -> f64 {
    1.0
}

/// A run of `memory-r1 train sft`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftConfig {
    /// The run's folder.
    pub output_dir: PathBuf,
    /// The seed of the first weights and of the order of examples.
    pub seed: u64,
    /// How many steps.
    pub max_steps: u64,
    /// Stop (and keep a checkpoint) after this many seconds.
    #[serde(default)]
    pub max_seconds: Option<u64>,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// What it does after the warm-up.
    #[serde(default)]
    pub lr_scheduler_type: Schedule,
    /// The share of the steps in which it rises.
    #[serde(default)]
    pub warmup_ratio: f64,
    /// Decoupled weight decay of matrices.
    #[serde(default)]
    pub weight_decay: f64,
    /// What moves the matrices.
    #[serde(default)]
    pub optim: Optim,
    /// The highest learning rate of the matrices that Muon moves; [`Self::learning_rate`] without.
    #[serde(default)]
    pub muon_learning_rate: Option<f64>,
    /// Muon's decay of the mean of gradients.
    #[serde(default = "momentum")]
    pub muon_momentum: f64,
    /// AdamW's first constant.
    #[serde(default = "beta1")]
    pub adam_beta1: f64,
    /// AdamW's second.
    #[serde(default = "beta2")]
    pub adam_beta2: f64,
    /// AdamW's third.
    #[serde(default = "epsilon")]
    pub adam_epsilon: f64,
    /// The share of activations that training drops (of the embedding, and before the last product of attention and
    /// of the feed-forward layer).
    #[serde(default)]
    pub dropout: f64,
    /// The longest gradient.
    #[serde(default = "max_grad_norm")]
    pub max_grad_norm: f64,
    /// Threads; the sums, and so the weights, depend on their number.
    #[serde(default = "threads")]
    pub threads: usize,
    /// The most tokens that a thread works on at once; more are done in turns.
    #[serde(default = "micro_batch_tokens")]
    pub micro_batch_tokens: usize,
    /// Keep what each layer reads only, and compute the rest again for its gradient: the same numbers, with the
    /// activations of one layer in memory instead of all, for a third more time.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// Multiply in bfloat16, with the weights, what is remembered of them, norms, softmax and losses in 32 bits; for a
    /// GPU.
    #[serde(default)]
    pub bf16: bool,
    /// A line of metrics every so many steps.
    #[serde(default = "logging_steps")]
    pub logging_steps: u64,
    /// A validation every so many steps.
    #[serde(default = "save_steps")]
    pub eval_steps: u64,
    /// Stop after so many validations in a row whose loss is not lower than the lowest, and end as the model of
    /// that one; without it a run goes on to its last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping_patience: Option<u64>,
    /// A checkpoint every so many steps.
    #[serde(default = "save_steps")]
    pub save_steps: u64,
    /// How many checkpoints stay.
    #[serde(default = "save_total_limit")]
    pub save_total_limit: usize,
    /// The bundle's threshold of what the extractor is believed, see
    /// [`crate::generation::ModelInfo::fact_threshold`].
    #[serde(default)]
    pub fact_threshold: f64,
    /// A model folder or bundle that the run begins as, and whose vocabulary it keeps; from nothing
    /// without.
    #[serde(default)]
    pub model_name_or_path: Option<PathBuf>,
    /// The commands that made that folder, for the bundle's manifest.
    #[serde(default)]
    pub model_commands: Vec<String>,
    /// A model folder or bundle whose vocabulary the run uses; one of its own without.
    #[serde(default)]
    pub tokenizer_name_or_path: Option<PathBuf>,
    /// The network.
    pub model: DecoderConfig,
    /// Train an adapter of the model that the run begins as, and leave the weights as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// Where its embedding begins; at random without.
    #[serde(default)]
    pub encoder: Option<EncoderConfig>,
    /// The examples.
    pub data: DataConfig,
    /// The weights in the loss.
    #[serde(default)]
    pub loss: LossWeights,
    /// Short examples first.
    #[serde(default)]
    pub curriculum: Option<Curriculum>,
}

fn momentum() -> f64 {
    0.95
}
pub(super) fn beta1() -> f64 {
    0.9
}
pub(super) fn beta2() -> f64 {
    0.999
}
pub(super) fn epsilon() -> f64 {
    1e-8
}
pub(super) fn max_grad_norm() -> f64 {
    1.0
}
pub(super) fn threads() -> usize {
    2
}
pub(super) fn micro_batch_tokens() -> usize {
    1024
}
fn logging_steps() -> u64 {
    10
}
fn repeats() -> bool {
    true
}
fn questions_per_prompt() -> usize {
    1
}
fn save_steps() -> u64 {
    500
}
pub(super) fn save_total_limit() -> usize {
    3
}

impl SftConfig {
    /// Reads a configuration; an unknown or senseless option is an error that names it.
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text)
            .map_err(|error| Error::invalid(format!("the training configuration: {error}")))?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        let above_zero = |value: f64| value.is_finite() && value > 0.0;
        self.model.validate().map_err(|error| Error::invalid(format!("model: {}", error.message())))?;
        let fault = [
            (self.max_steps == 0, "max_steps is at least 1"),
            (!above_zero(self.learning_rate), "learning_rate is above 0"),
            (!(0.0..1.0).contains(&self.warmup_ratio), "warmup_ratio is in 0..1"),
            (self.weight_decay.is_nan() || self.weight_decay < 0.0, "weight_decay is not negative"),
            (self.muon_learning_rate.is_some_and(|rate| !above_zero(rate)), "muon_learning_rate is above 0"),
            (!(0.0..1.0).contains(&self.muon_momentum), "muon_momentum is in 0..1"),
            (!(0.0..1.0).contains(&self.adam_beta1), "adam_beta1 is in 0..1"),
            (!(0.0..1.0).contains(&self.adam_beta2), "adam_beta2 is in 0..1"),
            (!above_zero(self.adam_epsilon), "adam_epsilon is above 0"),
            (!(0.0..1.0).contains(&self.dropout), "dropout is in 0..1"),
            (!above_zero(self.max_grad_norm), "max_grad_norm is above 0"),
            (self.threads == 0, "threads is at least 1"),
            (self.micro_batch_tokens == 0, "micro_batch_tokens is at least 1"),
            (self.logging_steps == 0, "logging_steps is at least 1"),
            (self.eval_steps == 0, "eval_steps is at least 1"),
            (self.early_stopping_patience == Some(0), "early_stopping_patience is at least 1"),
            (self.save_steps == 0, "save_steps is at least 1"),
            (self.save_total_limit == 0, "save_total_limit is at least 1"),
            (!(0.0..1.0).contains(&self.fact_threshold), "fact_threshold is in 0..1"),
            (self.data.batch_size() == 0, "data.batch has at least 1 example"),
            (self.data.dialogues == 0, "data.dialogues is at least 1"),
            (
                self.model.family == Family::Bert && self.loss.prompt > 0.0,
                "loss.prompt is 0 for bert, which sees its whole prompt",
            ),
            (self.loss.prompt_stride == 0, "loss.prompt_stride is at least 1"),
            (!(0.0..=1.0).contains(&self.data.shuffled_candidates), "data.shuffled_candidates is in 0..1"),
            (
                self.data.freeform.is_some_and(|own| {
                    [own.share, own.answer_share.unwrap_or(0.0)]
                        .iter()
                        .any(|share| !(0.0..=1.0).contains(share))
                }),
                "data.freeform.share and answer_share are in 0..1",
            ),
            (self.data.freeform.is_some_and(|own| own.copies == 0), "data.freeform.copies is at least 1"),
            (
                self.encoder.as_ref().is_some_and(|encoder| !above_zero(encoder.scale)),
                "encoder.scale is above 0",
            ),
            (
                self.encoder
                    .as_ref()
                    .is_some_and(|encoder| !encoder.slowness.is_finite() || encoder.slowness < 1.0),
                "encoder.slowness is at least 1",
            ),
            (self.data.questions_per_prompt == 0, "data.questions_per_prompt is at least 1"),
            (
                self.lora.is_some() && self.model_name_or_path.is_none(),
                "lora needs model_name_or_path, whose weights stay",
            ),
        ];
        match fault.iter().find(|(wrong, _)| *wrong) {
            Some((_, rule)) => Err(Error::invalid(format!("the training configuration: {rule}"))),
            None => Ok(()),
        }
    }

    /// The learning rate of the `step`-th step, from 1.
    pub fn learning_rate_at(&self, step: u64) -> f64 {
        self.learning_rate * self.lr_scheduler_type.at(step, self.max_steps, self.warmup_ratio)
    }

    pub(super) fn precision(&self) -> Precision {
        Precision {
            bf16: self.bf16,
            gradient_checkpointing: self.gradient_checkpointing,
            lora_dropout: self.lora.as_ref().is_some_and(|own| own.lora_dropout > 0.0),
        }
    }

    pub(super) fn optimizer(&self) -> Optimizer {
        let weight_decay = self.weight_decay as f32;
        Optimizer {
            adamw: AdamW {
                beta1: self.adam_beta1 as f32,
                beta2: self.adam_beta2 as f32,
                epsilon: self.adam_epsilon as f32,
                weight_decay,
            },
            muon: match self.optim {
                Optim::AdamW => None,
                Optim::Muon => {
                    let own = self.muon_learning_rate.unwrap_or(self.learning_rate);
                    Some(Muon {
                        rate: (own / self.learning_rate) as f32,
                        momentum: self.muon_momentum as f32,
                        weight_decay,
                        threads: self.threads,
                    })
                }
            },
        }
    }
}

impl RunConfig for SftConfig {
    fn parse(text: &str) -> Result<Self> {
        SftConfig::parse(text)
    }

    fn output_dir(&self) -> &Path {
        &self.output_dir
    }

    fn identity(&self) -> Self {
        Self {
            output_dir: PathBuf::new(),
            fact_threshold: 0.0,
            max_seconds: None,
            gradient_checkpointing: false,
            logging_steps: 1,
            eval_steps: 1,
            save_steps: 1,
            save_total_limit: 1,
            ..self.clone()
        }
    }
}

impl DataConfig {
    pub(super) fn batch_size(&self) -> usize {
        self.batch.extract + self.batch.manage + self.batch.answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_configurations_are_read_and_senseless_ones_are_refused() {
        let text = include_str!("../../../configs/extractor.toml");
        for text in [
            text,
            include_str!("../../../configs/manager.toml"),
            include_str!("../../../configs/nano.toml"),
            include_str!("../../../configs/prefix.toml"),
        ] {
            let config = SftConfig::parse(text).unwrap();
            assert_eq!(SftConfig::parse(&toml::to_string(&config).unwrap()).unwrap(), config);
        }
        for (from, to, word) in [
            ("max_steps", "max_stepz", "max_stepz"),
            ("seed = ", "seed = -", "seed"),
            ("head_dim = 64", "head_dim = 63", "model"),
            ("learning_rate = ", "learning_rate = -", "learning_rate"),
            ("share = 0.", "share = 1.", "freeform.share"),
            ("freeform = { ", "freeform = { answer_share = -1.0, ", "answer_share"),
            ("copies = ", "copies = 0 } # ", "freeform.copies"),
            ("model_name_or_path = ", "lora = { r = 4 }\n# ", "lora needs model_name_or_path"),
        ] {
            let error = SftConfig::parse(&text.replacen(from, to, 1)).unwrap_err();
            assert!(error.message().contains(word), "{error}");
        }
    }

    #[test]
    fn the_learning_rate_rises_to_its_top_and_falls_to_nothing() {
        let mut config = SftConfig::parse(include_str!("../../../configs/nano.toml")).unwrap();
        (config.max_steps, config.warmup_ratio, config.learning_rate) = (100, 0.1, 1.0);
        assert!((config.learning_rate_at(1) - 0.1).abs() < 1e-9);
        assert!((config.learning_rate_at(10) - 1.0).abs() < 1e-9);
        assert!((config.learning_rate_at(55) - 0.5).abs() < 0.02);
        assert!(config.learning_rate_at(100) > 0.0 && config.learning_rate_at(100) < 0.001);
    }
}
