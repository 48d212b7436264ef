//! A head that says one number of each row, a critic's value, in the place of the vocabulary's.

use super::forward::{Batch, Workspace, room};
use super::layout::Layout;
use super::math::{dot, wide};
use crate::error::{Error, Result};

impl Workspace {
    /// The value of each target's row: the product of its normed state with `head`, `[hidden_size + 1]`, whose
    /// last number is the bias. The targets' tokens do not matter.
    pub fn forward_values(
        &mut self,
        layout: &Layout,
        parameters: &[f32],
        head: &[f32],
        batch: &Batch,
    ) -> Result<Vec<f32>> {
        let hidden = layout.config.hidden_size;
        let Some((bias, weights)) = head.split_last().filter(|(_, weights)| weights.len() == hidden) else {
            return Err(Error::internal("a value head is as wide as the network and has a bias"));
        };
        self.run_blocks(layout, parameters, batch)?;
        self.pick(layout, parameters, batch);
        let mut values = Vec::with_capacity(batch.targets.len());
        wide(
            #[inline(always)]
            || values.extend(self.normed.chunks_exact(hidden).map(|row| dot(row, weights) + bias)),
        );
        values.truncate(batch.targets.len());
        Ok(values)
    }

    /// Adds to `gradient` and `head_gradient` the gradient of `sum over targets of slope * value`; must follow
    /// the [`Self::forward_values`] of the same batch, once.
    pub fn backward_values(
        &mut self,
        layout: &Layout,
        (parameters, gradient): (&[f32], &mut [f32]),
        (head, head_gradient): (&[f32], &mut [f32]),
        batch: &Batch,
        slopes: &[f32],
    ) {
        let hidden = layout.config.hidden_size;
        let count = batch.targets.len();
        assert_eq!(slopes.len(), count, "a slope for each target");
        let (weights, bias) = head_gradient.split_at_mut(hidden);
        let dnormed = room(&mut self.dnormed, count * hidden);
        let rows = self.normed.chunks_exact(hidden).zip(dnormed.chunks_exact_mut(hidden));
        for ((normed, out), &slope) in rows.zip(slopes) {
            for i in 0..hidden {
                weights[i] += slope * normed[i];
                out[i] = slope * head[i];
            }
            bias[0] += slope;
        }
        self.pick_backward(layout, parameters, count, gradient);
        self.blocks_backward(layout, parameters, batch, gradient);
    }
}
