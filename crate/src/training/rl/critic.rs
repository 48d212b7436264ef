//! PPO's critic: a network like the policy's, with a head of one number.

use std::collections::HashMap;

use super::learner::{Item, Learner, PerToken};
use crate::error::{Error, Result};
use crate::training::adamw::AdamW;
use crate::training::network::Layout;
use crate::training::optimizer::{Moments, Optimizer, Step, clip_scale};

/// Its weights, and the optimiser's memory of them.
pub(super) struct Critic {
    parameters: Vec<f32>,
    moments: Moments,
    head: Vec<f32>,
    head_moments: Moments,
}

impl Critic {
    /// One that begins as the policy, and expects nothing.
    pub(super) fn new(layout: &Layout, policy: &[f32]) -> Self {
        let width = layout.config.hidden_size + 1;
        Self {
            parameters: policy.to_vec(),
            moments: Moments::new(layout.len()),
            head: vec![0.0; width],
            head_moments: Moments::new(width),
        }
    }

    /// Its numbers, to be kept.
    pub(super) fn parts(&self) -> [(&'static str, &[f32]); 6] {
        [
            ("parameters", &self.parameters),
            ("mean", &self.moments.mean),
            ("square", &self.moments.square),
            ("head", &self.head),
            ("head_mean", &self.head_moments.mean),
            ("head_square", &self.head_moments.square),
        ]
    }

    /// The critic of such numbers.
    pub(super) fn of_parts(mut parts: HashMap<String, Vec<f32>>) -> Result<Self> {
        let mut take = |name: &str| {
            parts
                .remove(name)
                .ok_or_else(|| Error::internal(format!("the checkpoint's critic has no {name}")))
        };
        Ok(Self {
            parameters: take("parameters")?,
            moments: Moments { mean: take("mean")?, square: take("square")? },
            head: take("head")?,
            head_moments: Moments { mean: take("head_mean")?, square: take("head_square")? },
        })
    }

    /// What it expects before every chosen token.
    pub(super) fn values(
        &self,
        learner: &mut Learner,
        layout: &Layout,
        items: &[Item],
        shape: &[usize],
        part: &[bool],
    ) -> Result<PerToken> {
        learner.values(layout, (&self.parameters, &self.head), items, shape, part)
    }

    /// Learns from the slopes of its loss, for the `number`-th time.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn learn(
        &mut self,
        learner: &mut Learner,
        layout: &Layout,
        items: &[Item],
        slopes: &PerToken,
        (optimizer, number, learning_rate): (&Optimizer, u64, f32),
        max_grad_norm: f64,
    ) -> Result<()> {
        let (gradient, norm) =
            learner.value_gradient(layout, (&self.parameters, &self.head), items, slopes)?;
        let scale = clip_scale(norm, max_grad_norm);
        let (network, head) = gradient.split_at(layout.len());
        let plain = AdamW { weight_decay: 0.0, ..optimizer.adamw };
        plain.flat(&mut self.head, head, &mut self.head_moments, number, (learning_rate, scale));
        optimizer.step(Step {
            layout,
            parameters: &mut self.parameters,
            gradient: network,
            moments: &mut self.moments,
            number,
            learning_rate,
            scale,
            rows: None,
        });
        Ok(())
    }
}
