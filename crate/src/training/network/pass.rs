//! What a trainer asks of a network, wherever it is computed: on the CPU ([`Workspace`]) or on a burn device
//! ([`super::DeviceNetwork`]).

use super::adapter::Adapter;
use super::forward::{Batch, Losses, Workspace};
use super::layout::Layout;
use crate::error::{Error, Result};

/// What learns in passes, and where they add its gradient.
pub enum Learns<'a> {
    /// Nothing: there is no backward half.
    Nothing,
    /// The weights; a value head's gradient lies behind theirs.
    Weights(&'a mut [f32]),
    /// An adapter that the weights have in them: the gradient is that of its factors.
    Adapter(&'a Adapter, &'a mut [f32]),
}

impl<'a> Learns<'a> {
    /// An adapter where there is one, else the weights.
    pub fn new(adapter: Option<&'a Adapter>, gradient: &'a mut [f32]) -> Self {
        match adapter {
            Some(adapter) => Self::Adapter(adapter, gradient),
            None => Self::Weights(gradient),
        }
    }
}

/// One place to compute, and its memory.
pub trait Network: Send {
    /// Begins passes with these weights.
    fn pass<'a>(
        &'a mut self,
        layout: &'a Layout,
        parameters: &'a [f32],
        learns: Learns<'a>,
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

/// A value head's backward half where the weights do not learn.
pub(super) fn learns_no_head() -> Error {
    Error::internal("a value head learns with the weights below it")
}

impl Network for Workspace {
    fn pass<'a>(
        &'a mut self,
        layout: &'a Layout,
        parameters: &'a [f32],
        learns: Learns<'a>,
    ) -> Result<Box<dyn Pass + 'a>> {
        let merged = match &learns {
            Learns::Adapter(_, gradient) => vec![0.0; layout.len() + gradient.len()],
            _ => Vec::new(),
        };
        Ok(Box::new(CpuPass { workspace: self, layout, parameters, learns, merged }))
    }
}

struct CpuPass<'a> {
    workspace: &'a mut Workspace,
    layout: &'a Layout,
    parameters: &'a [f32],
    learns: Learns<'a>,
    /// Where an adapter learns, the gradient of the weights that have it in them; behind it, what dropout adds to that
    /// of the factors.
    merged: Vec<f32>,
}

impl Pass for CpuPass<'_> {
    fn forward(&mut self, batch: &Batch) -> Result<Losses> {
        self.workspace.forward(self.layout, self.parameters, batch)
    }

    fn backward(&mut self, batch: &Batch, coefficients: &[f32], bonuses: &[f32]) -> Result<()> {
        let gradient = match &mut self.learns {
            Learns::Nothing => return Err(learns_nothing()),
            Learns::Weights(gradient) => gradient,
            Learns::Adapter(..) => &mut self.merged[..],
        };
        let (layout, parameters) = (self.layout, self.parameters);
        self.workspace.backward_policy(layout, parameters, batch, coefficients, bonuses, gradient);
        Ok(())
    }

    fn forward_values(&mut self, head: &[f32], batch: &Batch) -> Result<Vec<f32>> {
        self.workspace.forward_values(self.layout, self.parameters, head, batch)
    }

    fn backward_values(&mut self, head: &[f32], batch: &Batch, slopes: &[f32]) -> Result<()> {
        let Learns::Weights(gradient) = &mut self.learns else { return Err(learns_no_head()) };
        let (network, of_head) = gradient.split_at_mut(self.layout.len());
        let (network, head) = ((self.parameters, network), (head, of_head));
        self.workspace.backward_values(self.layout, network, head, batch, slopes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        if let Learns::Adapter(adapter, gradient) = self.learns {
            adapter.gradient(&self.merged, gradient);
        }
        Ok(())
    }
}
