//! Reinforcement learning of both agents from outcomes: GRPO and PPO, as in Memory-R1 (section 3).
//!
//! The unit is a [`Trajectory`]: all prompts and completions that were decided on for one reward. The
//! [`environment`]s are played by the code that serves users, with a [`Recorder`] in the model's place, so that
//! what is trained is what is used: the same prompts, retrieval, grammar and generator. The log-probability of a
//! token is that among the tokens which the grammar allowed, in play and in learning ([`Learner`]); forced tokens
//! have none. The [`objective`]s are TRL's.

mod actor;
mod advantage;
mod config;
mod critic;
pub mod environment;
mod grpo;
mod learner;
mod metrics;
pub mod objective;
mod play;
mod policy;
mod ppo;
mod recorder;
mod reward;
mod run;
mod served;
#[cfg(test)]
mod tests;
mod trajectory;

pub use advantage::{AdaptiveKl, ScaleRewards, deviation, gae, group_advantages, is_flat, mean, whiten};
pub use config::{Agent, GrpoConfig, Phase, PpoConfig, RlConfig, RlData};
pub use learner::{Item, Learner, PerToken, Rollout, Sets};
pub use policy::{PlayedModel, Policy, Shown};
pub use recorder::Recorder;
pub use reward::{RewardWeights, Terms};
pub use run::{Method, RlOutcome, run, run_on};
pub use trajectory::{Segment, Trajectory};
