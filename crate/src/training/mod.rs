//! Training: supervised fine-tuning of nano from synthetic dialogues, and reinforcement learning ([`rl`]).
//!
//! [`run`] takes a configuration to a trained model: dialogues are made up, turned into the
//! three tasks' examples ([`Case`]), a vocabulary is trained on them ([`TokenizerFiles`]), and
//! [`Trainer`] does the steps on the [`network`], where [`Compute`] says. A run is a folder that survives a
//! kill at any moment and goes on bit for bit ([`RunFolder`]).

mod adamw;
mod adapted;
mod average;
mod bpe;
mod compute;
mod config;
mod dialogue_cases;
mod encoder;
mod events;
mod examples;
mod export;
mod freeform;
mod lora;
mod means;
mod muon;
pub mod network;
mod optimizer;
mod order;
pub mod rl;
mod run_folder;
mod sft;
mod start;
mod trainer;
mod warm_start;
mod word_vectors;

pub use adamw::AdamW;
pub use average::average;
pub use bpe::{CHAT_TEMPLATE, SPECIAL_TOKENS, TokenizerFiles};
pub use compute::{Compute, Cpu, Devices, Precision};
pub use config::{
    Curriculum, DataConfig, EncoderConfig, FreeformConfig, LossWeights, Schedule, SftConfig, TaskCounts,
};
pub use dialogue_cases::cases;
pub use examples::{Case, Example, Source, Task, tokenize};
pub use export::export;
pub use lora::{Lora, LoraConfig, merge_adapter};
pub use muon::Muon;
pub use optimizer::{Moments, Optim, Optimizer, Step};
pub use order::Order;
pub use run_folder::{RunConfig, RunFolder, TrainerState, read_model};
pub use sft::{Outcome, run, run_on};
pub use trainer::{Prediction, StepReport, Tally, Trainer};
