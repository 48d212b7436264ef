//! How fast a model learns.

use std::time::Instant;

use futures_lite::future::block_on;
use serde::Serialize;

use super::language::{check, multiplied, tokens};
use super::{Times, matmul_rate};
use crate::error::{Error, Result};
use crate::generation::Cancel;
use crate::kernels::Kernels;
use crate::training::network::{Adapter, Batch, Layout, Learns, Network, Target};
use crate::training::{AdamW, Compute, Lora, LoraConfig, Moments, Optimizer, Precision, Step};

/// One step after the other.
#[derive(Clone, Debug, Serialize)]
pub struct TrainSpeed {
    /// How many sequences a step has.
    pub sequences: usize,
    /// How many tokens a sequence has.
    pub sequence_tokens: usize,
    /// How many workers share them: threads of the CPU, or devices.
    pub workers: usize,
    /// Whether products are taken in bfloat16.
    pub bf16: bool,
    /// Whether activations are computed again.
    pub gradient_checkpointing: bool,
    /// The rank of the adapter that learns; all weights do without.
    pub lora: Option<usize>,
    /// Tokens a second, at the median.
    pub tokens_per_second: f64,
    /// Of a whole step.
    pub step: Times,
    /// Of its forward and backward halves, the weights' way to a device and the gradient's way back among them.
    pub gradient: Times,
    /// Floating-point operations a second in the products with weights, forwards and backwards: 6 a weight and token, 4
    /// where an adapter learns, whatever is computed again (model FLOPs; Chowdhery et al., "PaLM", 2022).
    pub flops: f64,
    /// Floating-point operations a second of burn's product of two matrices of 1024 × 1024, in 32 bits.
    pub matmul_flops: f64,
    /// The share of that which is reached, in per cent.
    pub percent_of_matmul: f64,
}

/// What a step has, and how it is computed.
#[derive(Clone, Copy, Debug)]
pub struct TrainSize {
    /// How many sequences.
    pub sequences: usize,
    /// How many tokens each has.
    pub tokens: usize,
    /// How many threads, on the CPU.
    pub threads: usize,
    /// How passes are computed.
    pub precision: Precision,
    /// The rank of the adapter that learns; all weights do without.
    pub lora: Option<usize>,
}

/// Takes `runs` steps of supervised training behind one that warms up: every token of random sequences is a target, and
/// AdamW moves all weights, or an adapter of all projections.
pub fn train<B: Kernels>(
    compute: &dyn Compute,
    (layout, mut parameters): (&Layout, Vec<f32>),
    size: TrainSize,
    runs: usize,
    cancel: &Cancel,
    on_progress: &mut dyn FnMut(usize),
) -> Result<TrainSpeed> {
    let config = &layout.config;
    check(config, size.tokens, 0)?;
    if size.sequences == 0 {
        return Err(Error::invalid("a step has at least one sequence"));
    }
    let mut networks = compute.networks(size.threads, layout, size.precision)?;
    let batches = batches(layout, size, networks.len());
    let adamw = AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
    let optimizer = Optimizer { adamw, muon: None };
    let mut lora = size.lora.map(|rank| Lora::new(layout, &LoraConfig::of_rank(rank), 0)).transpose()?;
    let base = if lora.is_some() { parameters.clone() } else { Vec::new() };
    let mut moments = Moments::new(if lora.is_some() { 0 } else { layout.len() });
    let (mut steps, mut gradients) = (Vec::with_capacity(runs), Vec::with_capacity(runs));
    for number in 0..=runs as u64 {
        cancel.check()?;
        let start = Instant::now();
        let own = lora.as_ref().map(|own| own.adapter(0));
        let gradient = gradient(&mut networks, (layout, &parameters), own.as_ref(), &batches)?;
        let learned = start.elapsed();
        let (number, learning_rate, scale) = (number + 1, 1e-6, 1.0);
        match &mut lora {
            Some(lora) => {
                lora.step(&adamw, &gradient, number, (learning_rate, scale));
                parameters = lora.merge(&base);
            }
            None => optimizer.step(Step {
                layout,
                parameters: &mut parameters,
                gradient: &gradient,
                moments: &mut moments,
                number,
                learning_rate,
                scale,
                rows: None,
            }),
        }
        if number > 1 {
            steps.push(start.elapsed());
            gradients.push(learned);
        }
        on_progress(number as usize - 1);
    }
    let step = Times::new(steps);
    let tokens_per_second = (size.sequences * size.tokens) as f64 * 1e3 / step.p50_ms.max(f64::MIN_POSITIVE);
    let per_weight = if size.lora.is_some() { 4.0 } else { 6.0 };
    let flops = per_weight * multiplied(config) as f64 * tokens_per_second;
    let matmul_flops = block_on(matmul_rate::<B>(&B::Device::default()))?;
    Ok(TrainSpeed {
        sequences: size.sequences,
        sequence_tokens: size.tokens,
        workers: networks.len(),
        bf16: size.precision.bf16,
        gradient_checkpointing: size.precision.gradient_checkpointing,
        lora: size.lora,
        tokens_per_second,
        step,
        gradient: Times::new(gradients),
        flops,
        matmul_flops,
        percent_of_matmul: 100.0 * flops / matmul_flops,
    })
}

/// The sequences of each worker.
fn batches(layout: &Layout, size: TrainSize, workers: usize) -> Vec<Batch> {
    let mut batches = vec![Batch::default(); workers];
    let weight = 1.0 / (size.sequences * size.tokens) as f32;
    let ids = tokens(&layout.config, size.tokens + 1);
    for sequence in 0..size.sequences {
        let targets = ids[1..].iter().enumerate().map(|(row, &token)| Target { row, token, weight });
        batches[sequence % workers].push(&ids[..size.tokens], targets);
    }
    batches
}

fn gradient(
    networks: &mut [Box<dyn Network>],
    (layout, parameters): (&Layout, &[f32]),
    adapter: Option<&Adapter>,
    batches: &[Batch],
) -> Result<Vec<f32>> {
    let own = |network: &mut Box<dyn Network>, batch: &Batch| -> Result<Vec<f32>> {
        let mut gradient = vec![0.0; adapter.map_or(layout.len(), |own| own.factors.len())];
        let mut pass = network.pass(layout, parameters, Learns::new(adapter, &mut gradient))?;
        pass.forward(batch)?;
        pass.backward(batch, &batch.targets.iter().map(|target| target.weight).collect::<Vec<_>>(), &[])?;
        pass.finish()?;
        Ok(gradient)
    };
    let found: Vec<Result<Vec<f32>>> = std::thread::scope(|scope| {
        let running: Vec<_> = networks
            .iter_mut()
            .zip(batches)
            .map(|(network, batch)| scope.spawn(move || own(network, batch)))
            .collect();
        let failed = || Err(Error::internal("a training thread failed"));
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| failed())).collect()
    });
    let mut sum: Option<Vec<f32>> = None;
    for found in found {
        let found = found?;
        match &mut sum {
            Some(sum) => sum.iter_mut().zip(found).for_each(|(sum, own)| *sum += own),
            None => sum = Some(found),
        }
    }
    Ok(sum.unwrap_or_default())
}
