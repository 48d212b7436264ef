//! One step of optimisation over the flat buffers, whatever the rule.

use serde::{Deserialize, Serialize};

use super::adamw::AdamW;
use super::muon::Muon;
use super::network::{Layout, NamedTensor};

/// Which rule moves the matrices of the blocks; embedding, gains and biases are AdamW's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optim {
    /// [`AdamW`].
    #[default]
    AdamW,
    /// [`Muon`].
    Muon,
}

/// The running means of every parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// The mean of the gradients.
    pub mean: Vec<f32>,
    /// The mean of their squares; Muon leaves it 0.
    pub square: Vec<f32>,
}

impl Moments {
    /// Before the first step.
    pub fn new(len: usize) -> Self {
        Self { mean: vec![0.0; len], square: vec![0.0; len] }
    }
}

/// What a step changes, and by what.
pub struct Step<'a> {
    /// Where everything lies.
    pub layout: &'a Layout,
    /// What moves.
    pub parameters: &'a mut [f32],
    /// Its slope.
    pub gradient: &'a [f32],
    /// What is remembered of the slopes before.
    pub moments: &'a mut Moments,
    /// Which step, from 1.
    pub number: u64,
    /// The learning rate.
    pub learning_rate: f32,
    /// What the gradient is multiplied by first.
    pub scale: f32,
    /// Where given, only these rows of the embedding move, each at so many times the learning rate,
    /// and none of it decays: each token's vector changes where it is read or wanted, and else stays
    /// as it began (the lazy Adam of `PyTorch`'s `SparseAdam`).
    pub rows: Option<&'a [(u32, f32)]>,
}

/// What a gradient is multiplied by so that its norm, over all tensors, is at most so much (`torch.nn.utils.clip_grad_norm_`).
pub(super) fn clip_scale(norm: f64, max_grad_norm: f64) -> f32 {
    (max_grad_norm / norm.max(max_grad_norm)) as f32
}

/// The rules of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizer {
    /// For all that Muon does not move.
    pub adamw: AdamW,
    /// For the matrices of the blocks.
    pub muon: Option<Muon>,
}

impl Optimizer {
    /// Moves everything once.
    pub fn step(&self, mut step: Step<'_>) {
        let layout = step.layout;
        let (matrices, rest): (Vec<_>, Vec<_>) = layout
            .tensors
            .iter()
            .partition(|tensor: &&NamedTensor| self.muon.is_some() && layout.is_block_matrix(tensor));
        if let Some(muon) = self.muon {
            muon.step(&mut step, &matrices);
        }
        self.adamw.step(&mut step, &rest);
    }
}
