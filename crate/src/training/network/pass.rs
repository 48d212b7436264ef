//! What a trainer asks of a network, wherever it is computed: on the CPU ([`Workspace`]) or on a burn device
//! ([`super::DeviceNetwork`]).

use super::forward::{Batch, Losses, Workspace};
use super::layout::Layout;
use crate::error::{Error, Result};

/// One place to compute, and its memory.
pub trait Network: Send {
    /// Begins passes with these weights. Passes that learn add to `gradient`, which has the network's parameters
    /// first; a value head's, or those of an adapter that drops of what it reads, lie behind them.
    fn pass<'a>(
        &'a mut self,
        layout: &'a Layout,
        parameters: &'a [f32],
        gradient: Option<&'a mut [f32]>,
    ) -> Result<Box<dyn Pass + 'a>>;
}

/// Passes with the same weights: each is a forward half, and at most one backward half behind it.
pub trait Pass {
    /// The log-probability of every target.
    fn forward(&mut self, batch: &Batch) -> Result<Losses>;

    /// Adds the gradient of `sum over targets of (coefficient * -logprob - bonus * entropy)`, without bonuses of the
    /// first alone, for the batch that the last forward half had.
    fn backward(&mut self, batch: &Batch, coefficients: &[f32], bonuses: &[f32]) -> Result<()>;

    /// The value of every target's row: the product of its normed state with `head`, `[hidden_size + 1]`, whose last
    /// number is the bias.
    fn forward_values(&mut self, head: &[f32], batch: &Batch) -> Result<Vec<f32>>;

    /// Adds the gradient of `sum over targets of slope * value`.
    fn backward_values(&mut self, head: &[f32], batch: &Batch, slopes: &[f32]) -> Result<()>;

    /// Ends the passes: the gradient is complete.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// A backward half where nothing is learned.
pub(super) fn learns_nothing() -> Error {
    Error::internal("a gradient was asked of passes that learn nothing")
}

impl Network for Workspace {
    fn pass<'a>(
        &'a mut self,
        layout: &'a Layout,
        parameters: &'a [f32],
        gradient: Option<&'a mut [f32]>,
    ) -> Result<Box<dyn Pass + 'a>> {
        Ok(Box::new(CpuPass { workspace: self, layout, parameters, gradient }))
    }
}

struct CpuPass<'a> {
    workspace: &'a mut Workspace,
    layout: &'a Layout,
    parameters: &'a [f32],
    gradient: Option<&'a mut [f32]>,
}

impl Pass for CpuPass<'_> {
    fn forward(&mut self, batch: &Batch) -> Result<Losses> {
        self.workspace.forward(self.layout, self.parameters, batch)
    }

    fn backward(&mut self, batch: &Batch, coefficients: &[f32], bonuses: &[f32]) -> Result<()> {
        let gradient = self.gradient.as_deref_mut().ok_or_else(learns_nothing)?;
        let (layout, parameters) = (self.layout, self.parameters);
        self.workspace.backward_policy(layout, parameters, batch, coefficients, bonuses, gradient);
        Ok(())
    }

    fn forward_values(&mut self, head: &[f32], batch: &Batch) -> Result<Vec<f32>> {
        self.workspace.forward_values(self.layout, self.parameters, head, batch)
    }

    fn backward_values(&mut self, head: &[f32], batch: &Batch, slopes: &[f32]) -> Result<()> {
        let gradient = self.gradient.as_deref_mut().ok_or_else(learns_nothing)?;
        let (network, of_head) = gradient.split_at_mut(self.layout.len());
        let (network, head) = ((self.parameters, network), (head, of_head));
        self.workspace.backward_values(self.layout, network, head, batch, slopes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
