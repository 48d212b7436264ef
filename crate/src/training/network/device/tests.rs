//! The network by automatic differentiation against the one that is written out.

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;

use super::super::tests::{batch, choices, tiny, tiny_bert};
use super::super::{Adapter, Batch, Dropout, Layout, Learns, Network, Target, Tree, Workspace};
use super::*;
use crate::nn::{DecoderConfig, Family};
use crate::random::Random;
use crate::training::{Compute as _, Cpu, Devices, Lora, LoraConfig, Precision};

fn device(bf16: bool, gradient_checkpointing: bool) -> DeviceNetwork<Flex> {
    DeviceNetwork { device: FlexDevice, bf16, gradient_checkpointing }
}

/// Weights away from the start's small numbers, so that every path matters.
fn parameters(layout: &Layout, random: &mut Random) -> Vec<f32> {
    let mut parameters = layout.initialize(1);
    for p in &mut parameters {
        *p += (random.normal() * 0.3) as f32;
    }
    parameters
}

/// Trees of several shapes, a policy's choices, dropout: all that a batch can have.
fn batches() -> Vec<Batch> {
    let mut random = Random::new(21, &[]);
    let plain = batch(&mut random);
    let choosing = Batch { choices: Some(choices(&mut random, &plain)), ..plain.clone() };
    let dropping = Batch { dropout: Some(Dropout { rate: 0.3, key: 11 }), ..plain.clone() };
    let mut trees = Batch::default();
    for (stem, branches) in [(6, vec![4, 1, 7]), (0, vec![9]), (3, vec![2])] {
        let length = stem + branches.iter().sum::<usize>();
        let tokens: Vec<u32> = (0..length).map(|_| random.below(23) as u32).collect();
        let targets = (stem..length).map(|row| Target { row, token: (row * 7 % 23) as u32, weight: 1.0 });
        trees.push_tree(&tokens, Tree { stem, branches, prompts: None }, targets);
    }
    vec![plain, choosing, dropping, trees]
}

struct Found {
    losses: Losses,
    gradient: Vec<f32>,
}

/// Two passes over a batch whose gradients add up.
fn learned(network: &mut dyn Network, layout: &Layout, parameters: &[f32], batch: &Batch) -> Found {
    learned_by(network, layout, (parameters, None), batch)
}

/// The same of an adapter that is in the weights, where one is given.
fn learned_by(
    network: &mut dyn Network,
    layout: &Layout,
    (parameters, adapter): (&[f32], Option<&Adapter>),
    batch: &Batch,
) -> Found {
    let mut gradient = vec![0.0; adapter.map_or(layout.len(), |own| own.factors.len())];
    let learns = Learns::new(adapter, &mut gradient);
    let mut pass = network.pass(layout, parameters, learns).unwrap();
    let weights: Vec<f32> = (0..batch.targets.len()).map(|place| 0.5 - (place % 4) as f32).collect();
    let bonuses = if batch.choices.is_some() { vec![0.3; weights.len()] } else { Vec::new() };
    let mut losses = Losses::default();
    for _ in 0..2 {
        losses = pass.forward(batch).unwrap();
        pass.backward(batch, &weights, &bonuses).unwrap();
    }
    pass.finish().unwrap();
    Found { losses, gradient }
}

fn close(own: &[f32], other: &[f32], tolerance: f32) {
    assert_eq!(own.len(), other.len());
    let scale = other.iter().fold(1.0f32, |most, value| most.max(value.abs()));
    for (place, (own, other)) in own.iter().zip(other).enumerate() {
        assert!((own - other).abs() < tolerance * scale, "{place}: {own} {other} (of {scale})");
    }
}

#[test]
fn losses_and_gradients_are_those_of_the_written_out_network() {
    let layout = tiny();
    let parameters = parameters(&layout, &mut Random::new(5, &[]));
    for batch in batches() {
        let wanted = learned(&mut Workspace::default(), &layout, &parameters, &batch);
        for checkpointing in [false, true] {
            let found = learned(&mut device(false, checkpointing), &layout, &parameters, &batch);
            close(&found.losses.logprobs, &wanted.losses.logprobs, 1e-5);
            close(&found.losses.entropies, &wanted.losses.entropies, 1e-5);
            assert_eq!(found.losses.predicted, wanted.losses.predicted);
            close(&found.gradient, &wanted.gradient, 1e-5);
        }
    }
}

#[test]
fn values_and_their_gradients_are_too() {
    let layout = tiny();
    let mut random = Random::new(6, &[]);
    let parameters = parameters(&layout, &mut random);
    let head: Vec<f32> = (0..13).map(|_| random.normal() as f32).collect();
    let batch = batch(&mut random);
    let slopes: Vec<f32> = batch.targets.iter().map(|target| target.weight - 1.0).collect();
    let run = |network: &mut dyn Network| {
        let mut gradient = vec![0.0; layout.len() + head.len()];
        let learns = Learns::Weights(&mut gradient);
        let mut pass = network.pass(&layout, &parameters, learns).unwrap();
        let values = pass.forward_values(&head, &batch).unwrap();
        pass.backward_values(&head, &batch, &slopes).unwrap();
        assert!(pass.forward_values(&head[1..], &batch).is_err());
        pass.finish().unwrap();
        (values, gradient)
    };
    let (wanted, found) = (run(&mut Workspace::default()), run(&mut device(false, false)));
    close(&found.0, &wanted.0, 1e-5);
    close(&found.1, &wanted.1, 1e-5);
}

/// Products of factors with 8 bits: near, and not the same.
#[test]
fn products_in_bfloat16_stay_near() {
    let layout = tiny();
    let parameters = parameters(&layout, &mut Random::new(5, &[]));
    for batch in batches() {
        let wanted = learned(&mut Workspace::default(), &layout, &parameters, &batch);
        let found = learned(&mut device(true, false), &layout, &parameters, &batch);
        close(&found.losses.logprobs, &wanted.losses.logprobs, 0.05);
        close(&found.gradient, &wanted.gradient, 0.05);
        assert_ne!(found.losses.logprobs, wanted.losses.logprobs);
    }
}

/// An adapter's factors have the gradient that follows from the weights', and nothing else of it stays on the device.
#[test]
fn an_adapter_learns_as_on_the_cpu() {
    let layout = tiny();
    let mut random = Random::new(8, &[]);
    let base = parameters(&layout, &mut random);
    let target_modules = ["q_proj", "v_proj", "o_proj", "down_proj"].map(str::to_owned).to_vec();
    let config = LoraConfig { r: 3, lora_alpha: 5.0, target_modules, lora_dropout: 0.0 };
    let mut lora = Lora::new(&layout, &config, 1).unwrap();
    lora.values.iter_mut().for_each(|own| *own += (random.normal() * 0.2) as f32);
    let (merged, adapter) = (lora.merge(&base), lora.adapter(0));
    for batch in batches() {
        let (wanted, weights) = (&mut Workspace::default(), (&merged[..], Some(&adapter)));
        let wanted = learned_by(wanted, &layout, weights, &batch);
        for checkpointing in [false, true] {
            let found = learned_by(&mut device(false, checkpointing), &layout, weights, &batch);
            close(&found.losses.logprobs, &wanted.losses.logprobs, 1e-5);
            close(&found.gradient, &wanted.gradient, 1e-5);
        }
        let narrow = learned_by(&mut device(true, false), &layout, weights, &batch);
        close(&narrow.gradient, &wanted.gradient, 0.05);
    }
    let mut gradient = vec![0.0; lora.values.len()];
    let network = device(false, true);
    let learns = Learns::new(Some(&adapter), &mut gradient);
    let mut pass = network.passes(&layout, &merged, learns).unwrap();
    let batch = batch(&mut random);
    let weights: Vec<f32> = batch.targets.iter().map(|target| target.weight).collect();
    pass.forward(&batch).unwrap();
    pass.backward(&batch, &weights, &[]).unwrap();
    assert_eq!(pass.sums.len(), lora.values.len());
    assert!(pass.backward_values(&[0.0; 13], &batch, &weights).is_err());
}

#[test]
fn what_a_device_does_not_compute_is_refused() {
    let devices = Devices::<Flex>(vec![FlexDevice]);
    let layout = tiny();
    let dropping = Precision { lora_dropout: true, ..Precision::default() };
    for (layout, precision) in [(&tiny_bert(), Precision::default()), (&layout, dropping)] {
        let error = devices.network(0, layout, precision).err().unwrap();
        assert!(error.message().contains("CPU only"), "{error}");
    }
    let parameters = layout.initialize(1);
    let mut network = device(false, false);
    let mut pass = network.pass(&layout, &parameters, Learns::Nothing).unwrap();
    let batch = batch(&mut Random::new(5, &[]));
    pass.forward(&batch).unwrap();
    let coefficients = vec![1.0; batch.targets.len()];
    assert!(pass.backward(&batch, &coefficients, &[]).is_err());
}

/// Families that the CPU has no pass for: along a random direction within each tensor, the slope of the loss is the
/// product of gradient and direction.
#[test]
fn every_family_of_decoders_has_its_gradient() {
    for (family, tie_word_embeddings) in
        [(Family::Qwen3, true), (Family::Llama, false), (Family::Qwen2, false)]
    {
        let config = DecoderConfig { family, tie_word_embeddings, ..tiny().config };
        let layout = Layout::new(config).unwrap();
        assert!(Cpu.network(0, &layout, Precision::default()).is_err());
        let mut random = Random::new(5, &[]);
        let parameters = parameters(&layout, &mut random);
        let batch = batch(&mut random);
        let weights: Vec<f32> = batch.targets.iter().map(|target| target.weight).collect();
        let mut network = device(false, true);
        let loss = |network: &mut DeviceNetwork<Flex>, parameters: &[f32]| {
            let mut pass = network.pass(&layout, parameters, Learns::Nothing).unwrap();
            let logprobs = pass.forward(&batch).unwrap().logprobs;
            logprobs.iter().zip(&weights).map(|(own, weight)| -f64::from(own * weight)).sum::<f64>()
        };
        let mut gradient = vec![0.0; layout.len()];
        let mut pass = network.pass(&layout, &parameters, Learns::Weights(&mut gradient)).unwrap();
        pass.forward(&batch).unwrap();
        pass.backward(&batch, &weights, &[]).unwrap();
        pass.finish().unwrap();
        for tensor in &layout.tensors {
            let direction: Vec<f32> = (0..tensor.len()).map(|_| random.normal() as f32).collect();
            let mut along = |step: f32| {
                let mut moved = parameters.clone();
                moved[tensor.range()].iter_mut().zip(&direction).for_each(|(p, d)| *p += step * d);
                loss(&mut network, &moved)
            };
            let slope = (along(2e-3) - along(-2e-3)) / 4e-3;
            let own = &gradient[tensor.range()];
            let product: f64 = own.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
            let scale = own.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            assert!(scale > 0.0, "{}", tensor.name);
            assert!((slope - product).abs() < 0.01 * scale + 1e-3, "{}: {slope} {product}", tensor.name);
        }
    }
}
