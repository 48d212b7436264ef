//! A network of which only an adapter learns.

use std::collections::HashMap;

use super::adamw::AdamW;
use super::lora::{Lora, LoraConfig};
use super::network::Layout;
use super::optimizer::Moments;
use crate::error::{Error, Result};

/// What a checkpoint calls the factors and what is remembered of their gradients.
const PARTS: [&str; 3] = ["lora", "lora_mean", "lora_square"];

/// An adapter, and the weights under it, which stay as they are.
pub(super) struct Adapted {
    /// The adapter.
    pub(super) lora: Lora,
    base: Vec<f32>,
}

impl Adapted {
    /// A fresh adapter of these weights, which changes nothing yet.
    pub(super) fn new(layout: &Layout, config: &LoraConfig, seed: u64, base: Vec<f32>) -> Result<Self> {
        Ok(Self { lora: Lora::new(layout, config, seed)?, base })
    }

    /// What a checkpoint keeps of it.
    pub(super) fn parts(&self) -> [(&'static str, &[f32]); 3] {
        let [values, mean, square] = PARTS;
        let Moments { mean: own_mean, square: own_square } = &self.lora.moments;
        [(values, &self.lora.values), (mean, own_mean), (square, own_square)]
    }

    /// Takes that out of a checkpoint.
    pub(super) fn restore(&mut self, parts: &mut HashMap<String, Vec<f32>>) -> Result<()> {
        let len = self.lora.values.len();
        let mut take = |name: &str| {
            let found = parts.remove(name).filter(|own| own.len() == len);
            found.ok_or_else(|| Error::internal(format!("the checkpoint has no {name}")))
        };
        let [values, mean, square] = PARTS;
        let (values, mean, square) = (take(values)?, take(mean)?, take(square)?);
        (self.lora.values, self.lora.moments) = (values, Moments { mean, square });
        Ok(())
    }

    /// Forgets what gradients there were.
    pub(super) fn forget(&mut self) {
        self.lora.moments = Moments::new(self.lora.values.len());
    }

    /// Moves the factors for the `number`-th time, along their gradient, and writes the new merged weights.
    pub(super) fn step(
        &mut self,
        merged: &mut Vec<f32>,
        gradient: &[f32],
        adamw: &AdamW,
        number: u64,
        rate_and_scale: (f32, f32),
    ) {
        self.lora.step(adamw, gradient, number, rate_and_scale);
        *merged = self.lora.merge(&self.base);
    }
}
