//! Where a run computes: on the CPU, or on devices of burn's.

use std::rc::Rc;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use burn::prelude::DeviceOps as _;

use super::network::{DeviceNetwork, Layout, Network, Workspace};
use super::rl::{PlayedModel, Policy};
use crate::checkpoint::Files;
use crate::error::{Error, Result};
use crate::generation::{LanguageModel, LocalModel, no_turn};
use crate::kernels::Kernels;
use crate::nn::Family;

/// How many tasks, or conversations, a thread of the CPU works on at once.
const PER_THREAD: usize = 8;
/// The same of a device, whose products of few rows cost what those of many do.
const PER_DEVICE: usize = 64;

/// How passes are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Precision {
    /// Multiply in bfloat16.
    pub bf16: bool,
    /// Keep of every layer what it reads only.
    pub gradient_checkpointing: bool,
    /// Drop of what an adapter reads.
    pub lora_dropout: bool,
}

/// What a run computes with. Workers compute side by side: the CPU's threads, or a device each.
pub trait Compute: Sync {
    /// How many workers there are where the configuration has so many threads.
    fn workers(&self, threads: usize) -> usize;

    /// How many tasks a worker plays at once.
    fn side_by_side(&self) -> usize;

    /// A worker's network for models of this layout.
    fn network(&self, worker: usize, layout: &Layout, precision: Precision) -> Result<Box<dyn Network>>;

    /// A worker's model with these weights: the generator that serves users.
    fn model(&self, worker: usize, policy: &Policy, parameters: &[f32]) -> Result<Rc<dyn PlayedModel>>;

    /// A worker's model of a folder.
    fn load(&self, worker: usize, files: &Files) -> Result<Rc<dyn LanguageModel>>;

    /// The networks of all workers.
    fn networks(
        &self,
        threads: usize,
        layout: &Layout,
        precision: Precision,
    ) -> Result<Vec<Box<dyn Network>>> {
        (0..self.workers(threads)).map(|worker| self.network(worker, layout, precision)).collect()
    }
}

/// The CPU, by the network that is written out ([`Workspace`]).
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu;

impl Compute for Cpu {
    fn workers(&self, threads: usize) -> usize {
        threads
    }

    fn side_by_side(&self) -> usize {
        PER_THREAD
    }

    fn network(&self, _: usize, layout: &Layout, precision: Precision) -> Result<Box<dyn Network>> {
        if !layout.is_written_out() {
            return Err(Error::invalid(
                "the CPU trains the families qwen2 (tie_word_embeddings, no rope_scaling) and bert; others are for a GPU (--device cuda)",
            ));
        }
        if precision.bf16 {
            return Err(Error::invalid("bf16: the CPU trains in 32 bits; it is for a GPU (--device cuda)"));
        }
        Ok(Box::new(Workspace::new(precision.gradient_checkpointing)))
    }

    fn model(&self, _: usize, policy: &Policy, parameters: &[f32]) -> Result<Rc<dyn PlayedModel>> {
        Ok(Rc::new(policy.model::<Flex>(parameters, &FlexDevice)?))
    }

    fn load(&self, _: usize, files: &Files) -> Result<Rc<dyn LanguageModel>> {
        Ok(Rc::new(LocalModel::<Flex>::load(files, &FlexDevice, no_turn())?))
    }
}

/// Devices of one kind, each with the whole model: data-parallel workers whose gradients are summed in the order of the
/// devices.
#[derive(Clone, Debug)]
pub struct Devices<B: Kernels>(pub Vec<B::Device>);

impl<B: Kernels> Devices<B> {
    /// Every device of the backend.
    pub fn all() -> Self {
        let mut id = B::Device::default().to_id();
        let count = B::device_count(id.type_id).max(1) as u16;
        let device = |index| {
            id.index_id = index;
            B::Device::from_id(id)
        };
        Self((0..count).map(device).collect())
    }

    fn of(&self, worker: usize) -> Result<&B::Device> {
        self.0.get(worker).ok_or_else(|| Error::internal(format!("there is no device {worker}")))
    }
}

impl<B: Kernels> Compute for Devices<B> {
    fn workers(&self, _: usize) -> usize {
        self.0.len()
    }

    fn side_by_side(&self) -> usize {
        PER_DEVICE
    }

    fn network(&self, worker: usize, layout: &Layout, precision: Precision) -> Result<Box<dyn Network>> {
        if layout.config.family == Family::Bert {
            return Err(Error::invalid("a prefix language model is trained on the CPU only (--device cpu)"));
        }
        let Precision { bf16, gradient_checkpointing, lora_dropout } = precision;
        if lora_dropout {
            return Err(Error::invalid("lora_dropout is computed on the CPU only (--device cpu)"));
        }
        let device = self.of(worker)?.clone();
        Ok(Box::new(DeviceNetwork::<B> { device, bf16, gradient_checkpointing }))
    }

    fn model(&self, worker: usize, policy: &Policy, parameters: &[f32]) -> Result<Rc<dyn PlayedModel>> {
        Ok(Rc::new(policy.model::<B>(parameters, self.of(worker)?)?))
    }

    fn load(&self, worker: usize, files: &Files) -> Result<Rc<dyn LanguageModel>> {
        Ok(Rc::new(LocalModel::<B>::load(files, self.of(worker)?, no_turn())?))
    }
}
