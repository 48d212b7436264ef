//! Training on this machine's GPU against the CPU, in builds that have one's backend:
//! `cargo test --release --features cuda --test devices cuda`, or `vulkan` in both places.

#![cfg(any(feature = "cuda", feature = "vulkan", feature = "webgpu"))]

use std::sync::Arc;

use memory_r1::generation::Bitset;
use memory_r1::kernels::Kernels;
use memory_r1::nn::DecoderConfig;
use memory_r1::random::Random;
use memory_r1::training::network::{Batch, Choices, Dropout, Layout, Learns, Network, Target, Tree};
use memory_r1::training::{Compute, Cpu, Devices, Precision};

const VOCABULARY: usize = 301;

fn layout() -> Layout {
    Layout::new(DecoderConfig {
        vocab_size: VOCABULARY,
        hidden_size: 64,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        intermediate_size: 96,
        ..DecoderConfig::nano()
    })
    .unwrap()
}

/// Trees of several shapes, with what a policy's choices were allowed and with dropout.
fn batch(random: &mut Random) -> Batch {
    let mut batch = Batch::default();
    for (stem, branches) in [(40, vec![9, 3, 17]), (0, vec![70]), (12, vec![5, 5])] {
        let length = stem + branches.iter().sum::<usize>();
        let mut token = || random.below(VOCABULARY) as u32;
        let tokens: Vec<u32> = (0..length).map(|_| token()).collect();
        let targets: Vec<Target> =
            (stem..length).map(|row| Target { row, token: token(), weight: 1.0 }).collect();
        batch.push_tree(&tokens, Tree { stem, branches, prompts: None }, targets);
    }
    let allowed = batch.targets.iter().enumerate().map(|(place, target)| {
        (place % 3 > 0).then(|| {
            let mut set = Bitset::new(VOCABULARY);
            (0..VOCABULARY as u32).filter(|id| id % 5 > 1).for_each(|id| set.insert(id));
            set.insert(target.token);
            Arc::new(set)
        })
    });
    batch.choices = Some(Choices { allowed: allowed.collect(), temperature: 1.3 });
    batch.dropout = Some(Dropout { rate: 0.1, key: 3 });
    batch
}

/// Log-probabilities and entropies, values, and both gradients, one behind the other.
fn learned(network: &mut dyn Network, layout: &Layout, parameters: &[f32], batch: &Batch) -> [Vec<f32>; 3] {
    let width = layout.config.hidden_size + 1;
    let mut gradient = vec![0.0; layout.len() + width];
    let mut pass = network.pass(layout, parameters, Learns::Weights(&mut gradient)).unwrap();
    let losses = pass.forward(batch).unwrap();
    let count = batch.targets.len() as f32;
    let weights: Vec<f32> =
        (0..batch.targets.len()).map(|place| (1.0 - (place % 3) as f32) / count).collect();
    pass.backward(batch, &weights, &vec![0.1 / count; weights.len()]).unwrap();
    let head: Vec<f32> = (0..width).map(|place| (place as f32).sin()).collect();
    let values = pass.forward_values(&head, batch).unwrap();
    pass.backward_values(&head, batch, &weights).unwrap();
    pass.finish().unwrap();
    [[losses.logprobs, losses.entropies].concat(), values, gradient]
}

/// The largest difference, as a share of the largest number.
fn difference(own: &[f32], other: &[f32]) -> f32 {
    assert_eq!(own.len(), other.len());
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
    let scale = largest(&mut other.iter().map(|value| value.abs()));
    largest(&mut own.iter().zip(other).map(|(own, other)| (own - other).abs())) / scale
}

fn compare<B: Kernels>(precision: Precision, tolerance: f32) {
    let (layout, mut random) = (layout(), Random::new(5, &[]));
    let mut parameters = layout.initialize(1);
    for own in &mut parameters {
        *own += (random.normal() * 0.05) as f32;
    }
    let batch = batch(&mut random);
    let of = |compute: &dyn Compute, precision| {
        let mut network = compute.network(0, &layout, precision).unwrap();
        learned(&mut *network, &layout, &parameters, &batch)
    };
    let wanted = of(&Cpu, Precision::default());
    let found = of(&Devices::<B>::all(), precision);
    for (what, (found, wanted)) in ["scores", "values", "gradient"].iter().zip(found.iter().zip(&wanted)) {
        let difference = difference(found, wanted);
        assert!(difference < tolerance, "{what}: {difference}");
    }
}

#[cfg(feature = "cuda")]
#[test]
fn cuda_gives_the_losses_and_gradients_of_the_cpu() {
    for gradient_checkpointing in [false, true] {
        compare::<burn::backend::Cuda>(Precision { gradient_checkpointing, ..Precision::default() }, 1e-3);
    }
    // But for the rounding of its factors.
    compare::<burn::backend::Cuda>(Precision { bf16: true, ..Precision::default() }, 0.05);
}

/// In 32 bits: WebGPU's language has no bfloat16.
#[cfg(any(feature = "vulkan", feature = "webgpu"))]
#[test]
fn vulkan_gives_the_losses_and_gradients_of_the_cpu() {
    for gradient_checkpointing in [false, true] {
        compare::<burn::backend::wgpu::Wgpu>(
            Precision { gradient_checkpointing, ..Precision::default() },
            1e-3,
        );
    }
}
