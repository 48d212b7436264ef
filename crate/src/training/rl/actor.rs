//! The policy while it learns, and how it moves.

use super::config::RlConfig;
use super::learner::{Item, Learner, PerToken};
use crate::error::{Error, Result};
use crate::random::keyed;
use crate::training::adapted::Adapted;
use crate::training::network::Layout;
use crate::training::optimizer::{Moments, Step, clip_scale};

/// The policy while it learns.
pub(super) struct Actor<'a> {
    /// Where the weights lie.
    pub(super) layout: &'a Layout,
    /// The weights.
    pub(super) parameters: &'a mut Vec<f32>,
    /// The optimiser's memory.
    pub(super) moments: &'a mut Moments,
    /// The adapter, where it alone learns.
    pub(super) adapted: Option<&'a mut Adapted>,
    /// The weights of the reference.
    pub(super) reference: &'a [f32],
    /// The learning rate of this step.
    pub(super) learning_rate: f32,
    /// What an adapter's dropout depends on in this step.
    pub(super) key: u64,
}

impl Actor<'_> {
    /// [`Learner::gradient`] for the `number`-th move.
    pub(super) fn gradient<'l>(
        &self,
        learner: &'l mut Learner,
        items: &[Item],
        slopes: &PerToken,
        bonuses: &[f32],
        number: u64,
    ) -> Result<(&'l [f32], f64)> {
        let key = keyed(self.key, &[number]);
        let adapter = self.adapted.as_ref().map(|own| own.lora.adapter(key));
        learner.gradient(self.layout, self.parameters, items, slopes, (bonuses, adapter.as_ref()))
    }
}

/// Moves the policy along a gradient for the `number`-th time; the gradient's length before it was clipped.
pub(super) fn move_actor(
    config: &RlConfig,
    actor: &mut Actor<'_>,
    (gradient, norm): (&[f32], f64),
    number: u64,
) -> Result<f64> {
    if !norm.is_finite() {
        return Err(Error::invalid(format!("the gradient's norm is {norm}; lower learning_rate")));
    }
    let scale = clip_scale(norm, config.max_grad_norm);
    let optimizer = config.optimizer();
    if let Some(adapted) = &mut actor.adapted {
        let how = (actor.learning_rate, scale);
        adapted.step(actor.parameters, gradient, &optimizer.adamw, number, how);
        return Ok(norm);
    }
    optimizer.step(Step {
        layout: actor.layout,
        parameters: actor.parameters,
        gradient,
        moments: actor.moments,
        number,
        learning_rate: actor.learning_rate,
        scale,
        rows: None,
    });
    Ok(norm)
}
