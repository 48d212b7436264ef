//! What a run of `memory-r1 train grpo` or `train ppo` is asked for. Names and defaults are TRL's where TRL has
//! the option.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::advantage::{AdaptiveKl, ScaleRewards};
use super::objective::{ImportanceSamplingLevel, LossType, PolicyLoss};
use super::reward::RewardWeights;
use crate::error::{Error, Result};
use crate::generation::{PromptFamily, parse_address};
use crate::training::adamw::AdamW;
use crate::training::compute::Precision;
use crate::training::config::{self, Schedule};
use crate::training::lora::LoraConfig;
use crate::training::optimizer::Optimizer;
use crate::training::run_folder::RunConfig;

/// Who learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Agent {
    /// The Memory Manager; the answer agent is the model as it is at the beginning of the phase.
    Manager,
    /// The Answer Agent.
    Answer,
}

/// A stretch of a run in which one agent learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Who learns.
    pub agent: Agent,
    /// For how many steps.
    pub max_steps: u64,
}

/// Where the conversations come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RlData {
    /// A file in LoCoMo's layout, instead of synthetic dialogues of the training split.
    #[serde(default)]
    pub locomo: Option<PathBuf>,
    /// The facts of these conversations, as the facts.json of another run has them: the extractor is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<PathBuf>,
    /// The seed of the synthetic dialogues.
    #[serde(default)]
    pub seed: u64,
    /// How many conversations to learn from: the first of the file.
    pub dialogues: usize,
    /// How many more to validate on.
    pub eval_dialogues: usize,
    /// The most tasks of a validation.
    #[serde(default = "eval_tasks")]
    pub eval_tasks: usize,
    /// The most memories that the manager is shown.
    pub manager_candidates: usize,
    /// The most memories of one speaker that the answer agent is shown.
    pub candidates_per_speaker: usize,
    /// A manager's task begins from what so many turns before it said (the paper: 50); from all of them without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_turns: Option<usize>,
    /// How many questions about what was said before a manager's task are asked beside its own; its reward is the mean of
    /// all. None in the paper.
    #[serde(default)]
    pub earlier_questions: usize,
    /// The share of unanswerable questions (category 5) that stay among the answer agent's tasks.
    #[serde(default = "config::one")]
    pub unanswerable: f64,
}

/// GRPO's options (Shao et al. 2024; Memory-R1, eq. 3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpoConfig {
    /// The weight of the KL divergence from the model at the beginning of the phase; without it no reference is
    /// asked.
    pub beta: f64,
    /// How far below 1 a ratio counts.
    pub epsilon: f64,
    /// How far above 1; as far as below without.
    pub epsilon_high: Option<f64>,
    /// No ratio counts more than this.
    pub delta: Option<f64>,
    /// How often the completions of a step are learned from.
    pub num_iterations: usize,
    /// How token losses become one number.
    pub loss_type: LossType,
    /// What rewards are divided by.
    pub scale_rewards: ScaleRewards,
    /// What ratios are taken of.
    pub importance_sampling_level: ImportanceSamplingLevel,
    /// Learn nothing from completions that were cut.
    pub mask_truncated_completions: bool,
    /// The longest trajectory, which Dr. GRPO divides by.
    pub max_completion_length: usize,
    /// In how many parts the loss of a step is averaged.
    pub gradient_accumulation_steps: usize,
    /// The weight of the choices' mean entropy in the loss.
    pub entropy_coef: f64,
    /// Groups without variance are replaced by others, in at most so many further rounds (DAPO's dynamic
    /// sampling).
    pub dynamic_sampling_rounds: usize,
}

impl Default for GrpoConfig {
    fn default() -> Self {
        Self {
            beta: 0.0,
            epsilon: 0.2,
            epsilon_high: None,
            delta: None,
            num_iterations: 1,
            loss_type: LossType::default(),
            scale_rewards: ScaleRewards::default(),
            importance_sampling_level: ImportanceSamplingLevel::default(),
            mask_truncated_completions: false,
            max_completion_length: 256,
            gradient_accumulation_steps: 1,
            entropy_coef: 0.0,
            dynamic_sampling_rounds: 0,
        }
    }
}

impl GrpoConfig {
    pub(super) fn loss(&self) -> PolicyLoss {
        PolicyLoss {
            loss_type: self.loss_type,
            epsilon: self.epsilon,
            epsilon_high: self.epsilon_high.unwrap_or(self.epsilon),
            delta: self.delta,
            beta: self.beta,
            importance_sampling_level: self.importance_sampling_level,
            max_completion_length: self.max_completion_length,
        }
    }
}

/// PPO's options (Schulman et al. 2017; Memory-R1, eq. 2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PpoConfig {
    /// How often the trajectories of a step are learned from.
    pub num_ppo_epochs: usize,
    /// In how many parts, each with a step of its own.
    pub num_mini_batches: usize,
    /// The weight of the KL penalty in the reward of each token.
    pub kl_coef: f64,
    /// What steers that weight; it is fixed without.
    pub adaptive_kl: Option<AdaptiveKl>,
    /// How far from 1 a ratio counts.
    pub cliprange: f64,
    /// How far a value may move.
    pub cliprange_value: f64,
    /// The discount of what comes later.
    pub gamma: f64,
    /// The discount of what the critic expects of it.
    pub lam: f64,
    /// The critic's learning rate.
    pub critic_learning_rate: f64,
    /// Steps at the beginning of a phase in which the critic alone learns.
    pub critic_warmup_steps: u64,
    /// The weight of the choices' mean entropy in the loss.
    pub entropy_coef: f64,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            num_ppo_epochs: 4,
            num_mini_batches: 1,
            kl_coef: 0.05,
            adaptive_kl: None,
            cliprange: 0.2,
            cliprange_value: 0.2,
            gamma: 1.0,
            lam: 0.95,
            critic_learning_rate: 1e-4,
            critic_warmup_steps: 0,
            entropy_coef: 0.0,
        }
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RlConfig {
    /// The run's folder.
    pub output_dir: PathBuf,
    /// The seed of the order of tasks and of all draws.
    pub seed: u64,
    /// The model folder or bundle that the run begins as.
    pub model_name_or_path: PathBuf,
    /// The words of the prompts, `compact` or `instruct`; without it those that the model's manifest names, else nano's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_family: Option<PromptFamily>,
    /// A bundle whose extractor takes the facts out of turns, once.
    pub extractor_name_or_path: PathBuf,
    /// Stop (and keep a checkpoint) after this many seconds.
    #[serde(default)]
    pub max_seconds: Option<u64>,
    /// The highest learning rate of each phase.
    #[serde(default = "learning_rate")]
    pub learning_rate: f64,
    /// What it does after the warm-up.
    #[serde(default)]
    pub lr_scheduler_type: Schedule,
    /// The share of a phase's steps in which it rises.
    #[serde(default)]
    pub warmup_ratio: f64,
    /// Decoupled weight decay of matrices.
    #[serde(default)]
    pub weight_decay: f64,
    /// AdamW's first constant.
    #[serde(default = "config::beta1")]
    pub adam_beta1: f64,
    /// AdamW's second.
    #[serde(default = "config::beta2")]
    pub adam_beta2: f64,
    /// AdamW's third.
    #[serde(default = "config::epsilon")]
    pub adam_epsilon: f64,
    /// The longest gradient.
    #[serde(default = "config::max_grad_norm")]
    pub max_grad_norm: f64,
    /// Trajectories of one task.
    #[serde(default = "num_generations")]
    pub num_generations: usize,
    /// Trajectories of one step: a multiple of `num_generations`.
    #[serde(default = "generation_batch_size")]
    pub generation_batch_size: usize,
    /// What logits are divided by, in play and in learning.
    #[serde(default = "config::one")]
    pub temperature: f64,
    /// Hold completions to their grammar, in play and in learning; without, whatever is not of the form that was
    /// asked for changes nothing.
    #[serde(default = "constrained")]
    pub constrained: bool,
    /// Threads; the sums, and so the weights, depend on their number.
    #[serde(default = "config::threads")]
    pub threads: usize,
    /// The most tokens that a thread works on at once.
    #[serde(default = "config::micro_batch_tokens")]
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
    /// A validation every so many steps, and one at the beginning of each phase.
    #[serde(default = "save_steps")]
    pub eval_steps: u64,
    /// A checkpoint every so many steps.
    #[serde(default = "save_steps")]
    pub save_steps: u64,
    /// How many checkpoints stay.
    #[serde(default = "config::save_total_limit")]
    pub save_total_limit: usize,
    /// Who learns, in order.
    pub phases: Vec<Phase>,
    /// What they learn from.
    pub data: RlData,
    /// What is rewarded.
    pub reward: RewardWeights,
    /// The judge that `reward.judge` rewards: the model of an OpenAI-compatible server, as
    /// `http://localhost:8000/v1#NAME`, whose key is read from `OPENAI_API_KEY`. Its replies stay in the run's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<String>,
    /// The vLLM server that plays, as `http://localhost:8000/v1`: it serves the model that the run begins as, and is
    /// told every new adapter. Only an adapter can be told, and only without a grammar. Its key is read from
    /// `OPENAI_API_KEY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vllm_server_base_url: Option<String>,
    /// Train an adapter, and leave the weights as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// GRPO's options.
    #[serde(default)]
    pub grpo: GrpoConfig,
    /// PPO's options; the other method has no use for them.
    #[serde(default)]
    pub ppo: PpoConfig,
}

fn constrained() -> bool {
    true
}
fn eval_tasks() -> usize {
    128
}
fn learning_rate() -> f64 {
    1e-6
}
fn num_generations() -> usize {
    8
}
fn generation_batch_size() -> usize {
    64
}
fn logging_steps() -> u64 {
    1
}
fn save_steps() -> u64 {
    50
}

impl RlConfig {
    fn validate(&self) -> Result<()> {
        let above_zero = |value: f64| value.is_finite() && value > 0.0;
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let (grpo, ppo) = (&self.grpo, &self.ppo);
        self.reward.check()?;
        if let Some(Err(error)) = self.judge.as_deref().map(|given| {
            parse_address(given)
                .unwrap_or_else(|| Err(Error::invalid(format!("judge: {given} is no address"))))
        }) {
            return Err(error);
        }
        let served = self.vllm_server_base_url.as_deref();
        let fault = [
            (
                served.is_some_and(|url| parse_address(url).is_none()),
                "vllm_server_base_url begins with http:// or https://",
            ),
            (
                served.is_some() && (self.lora.is_none() || self.constrained),
                "vllm_server_base_url needs [lora], for adapters are what a server can be told, and constrained = false",
            ),
            (self.phases.is_empty(), "phases has at least one"),
            (self.phases.iter().any(|own| own.max_steps == 0), "phases.max_steps is at least 1"),
            (!above_zero(self.learning_rate), "learning_rate is above 0"),
            (!(0.0..1.0).contains(&self.warmup_ratio), "warmup_ratio is in 0..1"),
            (self.weight_decay.is_nan() || self.weight_decay < 0.0, "weight_decay is not negative"),
            (!(0.0..1.0).contains(&self.adam_beta1), "adam_beta1 is in 0..1"),
            (!(0.0..1.0).contains(&self.adam_beta2), "adam_beta2 is in 0..1"),
            (!above_zero(self.adam_epsilon), "adam_epsilon is above 0"),
            (!above_zero(self.max_grad_norm), "max_grad_norm is above 0"),
            (!above_zero(self.temperature), "temperature is above 0"),
            (self.num_generations == 0, "num_generations is at least 1"),
            (
                self.generation_batch_size == 0
                    || !self.generation_batch_size.is_multiple_of(self.num_generations.max(1)),
                "generation_batch_size is a multiple of num_generations",
            ),
            (
                (self.reward.judge != 0.0) != self.judge.is_some(),
                "judge is given where reward.judge has a weight, and only there",
            ),
            (self.threads == 0, "threads is at least 1"),
            (self.micro_batch_tokens == 0, "micro_batch_tokens is at least 1"),
            (self.logging_steps == 0, "logging_steps is at least 1"),
            (self.eval_steps == 0, "eval_steps is at least 1"),
            (self.save_steps == 0, "save_steps is at least 1"),
            (self.save_total_limit == 0, "save_total_limit is at least 1"),
            (self.data.dialogues == 0, "data.dialogues is at least 1"),
            (!share(self.data.unanswerable), "data.unanswerable is in 0..1"),
            (grpo.beta.is_nan() || grpo.beta < 0.0, "grpo.beta is not negative"),
            (!(0.0..1.0).contains(&grpo.epsilon), "grpo.epsilon is in 0..1"),
            (grpo.num_iterations == 0, "grpo.num_iterations is at least 1"),
            (grpo.max_completion_length == 0, "grpo.max_completion_length is at least 1"),
            (grpo.gradient_accumulation_steps == 0, "grpo.gradient_accumulation_steps is at least 1"),
            (ppo.num_ppo_epochs == 0, "ppo.num_ppo_epochs is at least 1"),
            (ppo.num_mini_batches == 0, "ppo.num_mini_batches is at least 1"),
            (!(0.0..1.0).contains(&ppo.cliprange), "ppo.cliprange is in 0..1"),
            (!above_zero(ppo.cliprange_value), "ppo.cliprange_value is above 0"),
            (!share(ppo.gamma) || !share(ppo.lam), "ppo.gamma and ppo.lam are in 0..1"),
            (!above_zero(ppo.critic_learning_rate), "ppo.critic_learning_rate is above 0"),
            (
                ppo.adaptive_kl.is_some_and(|own| !above_zero(own.target) || !above_zero(own.horizon)),
                "ppo.adaptive_kl.target and horizon are above 0",
            ),
        ];
        match fault.iter().find(|(wrong, _)| *wrong) {
            Some((_, rule)) => Err(Error::invalid(format!("the training configuration: {rule}"))),
            None => Ok(()),
        }
    }

    /// All steps.
    pub fn max_steps(&self) -> u64 {
        self.phases.iter().map(|own| own.max_steps).sum()
    }

    /// The phase of a step, counted from 1: which, and the step's number in it.
    pub fn phase_of(&self, step: u64) -> Option<(usize, u64)> {
        let mut first = 0;
        self.phases.iter().enumerate().find_map(|(place, own)| {
            let before = first;
            first += own.max_steps;
            (step > before && step <= first).then(|| (place, step - before))
        })
    }

    pub(super) fn precision(&self) -> Precision {
        Precision {
            bf16: self.bf16,
            gradient_checkpointing: self.gradient_checkpointing,
            lora_dropout: self.lora.as_ref().is_some_and(|own| own.lora_dropout > 0.0),
        }
    }

    pub(super) fn optimizer(&self) -> Optimizer {
        Optimizer {
            adamw: AdamW {
                beta1: self.adam_beta1 as f32,
                beta2: self.adam_beta2 as f32,
                epsilon: self.adam_epsilon as f32,
                weight_decay: self.weight_decay as f32,
            },
            muon: None,
        }
    }
}

impl RunConfig for RlConfig {
    fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text)
            .map_err(|error| Error::invalid(format!("the training configuration: {error}")))?;
        config.validate()?;
        Ok(config)
    }

    fn output_dir(&self) -> &Path {
        &self.output_dir
    }

    fn identity(&self) -> Self {
        Self {
            output_dir: PathBuf::new(),
            max_seconds: None,
            gradient_checkpointing: false,
            vllm_server_base_url: None,
            logging_steps: 1,
            eval_steps: 1,
            save_steps: 1,
            save_total_limit: 1,
            ..self.clone()
        }
    }
}
