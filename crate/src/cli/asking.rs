//! How a model is asked, where it does not say so itself or should be asked otherwise.

use clap::{Args, ValueEnum};

use crate::error::{Error, Result};
use crate::generation::{ModelInfo, PromptFamily};

/// What a bundle's manifest says of the prompts of its model.
#[derive(Clone, Debug, Default, Args)]
pub(in crate::cli) struct Asking {
    /// How prompts are worded for it.
    #[arg(long, value_enum)]
    pub(in crate::cli) prompts: Option<Prompts>,
    /// How many memories of one speaker the answer agent is shown.
    #[arg(long, value_name = "N")]
    pub(in crate::cli) candidates_per_speaker: Option<usize>,
    /// How many related memories the manager is shown.
    #[arg(long, value_name = "N")]
    pub(in crate::cli) manager_candidates: Option<usize>,
    /// How many related memories the extractor is shown beside a turn.
    #[arg(long, value_name = "N")]
    pub(in crate::cli) extractor_candidates: Option<usize>,
    /// A fact whose tokens have a lower mean probability is not believed; 0 believes all.
    #[arg(long, value_name = "P")]
    pub(in crate::cli) fact_threshold: Option<f64>,
}

/// The wordings.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum Prompts {
    /// For instruction-tuned models.
    Instruct,
    /// For models trained on the task itself, such as nano.
    Compact,
}

impl From<Prompts> for PromptFamily {
    fn from(prompts: Prompts) -> Self {
        match prompts {
            Prompts::Instruct => Self::Instruct,
            Prompts::Compact => Self::Compact,
        }
    }
}

impl Asking {
    /// What a model says of itself with what was given in its place; `None` where nothing was.
    pub(in crate::cli) fn instead_of(&self, info: &ModelInfo) -> Result<Option<ModelInfo>> {
        if self.fact_threshold.is_some_and(|threshold| !(0.0..1.0).contains(&threshold)) {
            return Err(Error::invalid("--fact-threshold is in 0..1"));
        }
        let own = ModelInfo {
            prompt_family: self.prompts.map_or(info.prompt_family, PromptFamily::from),
            candidates_per_speaker: self.candidates_per_speaker.unwrap_or(info.candidates_per_speaker),
            manager_candidates: self.manager_candidates.unwrap_or(info.manager_candidates),
            extractor_candidates: self.extractor_candidates.unwrap_or(info.extractor_candidates),
            fact_threshold: self.fact_threshold.unwrap_or(info.fact_threshold),
            ..info.clone()
        };
        Ok((own != *info).then_some(own))
    }
}
