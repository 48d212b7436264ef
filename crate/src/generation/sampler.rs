//! The choice of the next token.
//!
//! Without top-k, top-p and min-p it is made on the device: mask, log-sum-exp, and the argmax of
//! `logits / T + Gumbel noise`, which draws from the softmax at temperature T; two numbers come
//! back. The others need an order, so the logits are read back and sorted on the CPU; greedy needs
//! none of them, as they all keep the best. Either way the noise of a token depends on the seed, the key, the position and the token's id alone, so
//! that both ways, and every backend, choose the same.

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use super::warpers::warp;
use super::{Bitset, Sampling};
use crate::error::{Error, ErrorCode, Result};
use crate::kernels::HIDDEN;
use crate::nn::read_back;
use crate::random::keyed;

/// A chosen token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Its id.
    pub id: u32,
    /// The natural logarithm of its probability. Without top-k, top-p and min-p among those
    /// allowed, at temperature 1 whatever the sampling: what the model thinks of it, not how it
    /// was drawn. With one of them, of the distribution that it was drawn from: at the temperature
    /// and among those that remained.
    pub logprob: f32,
}

/// What a row of logits is to be chosen from, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    /// The allowed tokens, all where it is `None`.
    pub(super) allowed: Option<&'a Bitset>,
    /// How to choose.
    pub(super) sampling: &'a Sampling,
    /// How many tokens there are before.
    pub(super) position: usize,
}

/// Chooses among the allowed tokens, all where it is `None`.
///
/// # Shapes
/// - logits: `[1, vocab_size]`
pub async fn choose<B: Backend>(
    logits: Tensor<B, 2>,
    allowed: Option<&Bitset>,
    sampling: &Sampling,
    position: usize,
) -> Result<Choice> {
    let chosen = choose_each(logits, &[Ask { allowed, sampling, position }]).await?;
    chosen.first().copied().ok_or_else(|| Error::internal("nothing was chosen"))
}

/// Chooses a token for each row.
///
/// # Shapes
/// - logits: `[rows, vocab_size]`
pub(super) async fn choose_each<B: Backend>(logits: Tensor<B, 2>, asks: &[Ask<'_>]) -> Result<Vec<Choice>> {
    let [_, width] = logits.dims();
    let choices = if asks.iter().any(|ask| ask.sampling.is_filtered()) {
        let logits = read_back(logits).await?;
        logits.chunks(width).zip(asks).map(|(row, ask)| choose_on_host(row, ask)).collect::<Result<_>>()?
    } else {
        choose_on_device(logits, asks).await?
    };
    let is_right = |(choice, ask): (&Choice, &Ask<'_>)| {
        let is_allowed = ask.allowed.is_none_or(|set| set.contains(choice.id));
        (choice.id as usize) < width && is_allowed && choice.logprob.is_finite()
    };
    if choices.iter().zip(asks).all(is_right) {
        Ok(choices)
    } else {
        // Not a number in the logits: only broken weights or a broken device make such.
        Err(Error::new(ErrorCode::DeviceLost, "the device computed logits that are not numbers"))
    }
}

async fn choose_on_device<B: Backend>(logits: Tensor<B, 2>, asks: &[Ask<'_>]) -> Result<Vec<Choice>> {
    let [rows, width] = logits.dims();
    let device = logits.device();
    let logits = if asks.iter().any(|ask| ask.allowed.is_some()) {
        logits.mask_fill(forbidden(asks, width, &device), HIDDEN)
    } else {
        logits
    };
    let largest = logits.clone().max_dim(1);
    let total = (logits.clone() - largest.clone()).exp().sum_dim(1).log() + largest;
    let scores = if asks.iter().any(|ask| ask.sampling.temperature > 0.0) {
        let mut values = vec![0.0; rows * width];
        let mut scales = Vec::with_capacity(rows);
        for (values, ask) in values.chunks_mut(width).zip(asks) {
            let (noise, temperature) = (Noise::new(ask.sampling, ask.position), ask.sampling.temperature);
            scales.push(if temperature > 0.0 { temperature } else { 1.0 });
            match ask.allowed {
                _ if temperature <= 0.0 => {}
                Some(allowed) => {
                    let known = allowed.iter().filter(|id| (*id as usize) < width);
                    known.for_each(|id| values[id as usize] = noise.of(id));
                }
                None => (0..width).for_each(|id| values[id] = noise.of(id as u32)),
            }
        }
        let values = Tensor::from_data(TensorData::new(values, [rows, width]), &device);
        logits.clone() / Tensor::from_data(TensorData::new(scales, [rows, 1]), &device) + values
    } else {
        logits.clone()
    };
    let id = scores.argmax(1);
    let logprob = logits.gather(1, id.clone()) - total;
    // Ids below 2^24 are exact in f32: both numbers come back in one piece.
    let back = read_back(Tensor::cat(vec![id.float(), logprob], 1)).await?;
    Ok(back.chunks(2).map(|own| Choice { id: own[0] as u32, logprob: own[1] }).collect())
}

/// True where a token is not in its row's set: the sets go up as their words and are spread there.
fn forbidden<B: Backend>(asks: &[Ask<'_>], width: usize, device: &B::Device) -> Tensor<B, 2, Bool> {
    let count = width.div_ceil(32);
    let mut words: Vec<i32> = Vec::with_capacity(asks.len() * count);
    for (row, ask) in asks.iter().enumerate() {
        match ask.allowed {
            Some(allowed) => {
                words.extend(allowed.words().iter().take(count).map(|word| word.cast_signed()));
                words.resize((row + 1) * count, 0);
            }
            None => words.resize((row + 1) * count, -1),
        }
    }
    let bits: Vec<i32> = (0..32).map(|bit| (1u32 << bit).cast_signed()).collect();
    let count = words.len();
    let words = Tensor::<B, 2, Int>::from_data(TensorData::new(words, [count, 1]), device).repeat_dim(1, 32);
    let bits = Tensor::<B, 2, Int>::from_data(TensorData::new(bits, [1, 32]), device).repeat_dim(0, count);
    let forbidden = words.bitwise_and(bits).equal_elem(0);
    forbidden.reshape([asks.len(), count / asks.len() * 32]).narrow(1, 0, width)
}

fn choose_on_host(logits: &[f32], ask: &Ask<'_>) -> Result<Choice> {
    let noise = Noise::new(ask.sampling, ask.position);
    let score = |own: &Choice| logits[own.id as usize] / ask.sampling.temperature + noise.of(own.id);
    let kept = warp(logits, ask.allowed, ask.sampling);
    let best = kept.into_iter().max_by(|a, b| score(a).total_cmp(&score(b)));
    best.ok_or_else(|| Error::internal("no token is allowed"))
}

/// Gumbel noise of one position.
struct Noise(u64);

impl Noise {
    fn new(sampling: &Sampling, position: usize) -> Self {
        let [step, example, sample] = sampling.key;
        Self(keyed(sampling.seed, &[step, example, sample, position as u64]))
    }

    fn of(&self, id: u32) -> f32 {
        let uniform = ((keyed(self.0, &[u64::from(id)]) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -(-uniform.ln()).ln() as f32
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use burn::backend::Flex;
    use burn::backend::flex::FlexDevice;
    use futures_lite::future::block_on;

    use super::*;

    fn chosen(logits: &[f32], allowed: Option<&Bitset>, sampling: &Sampling, position: usize) -> Choice {
        let tensor = Tensor::<Flex, 1>::from_data(logits, &FlexDevice).unsqueeze();
        block_on(choose(tensor, allowed, sampling, position)).unwrap()
    }

    fn set(len: usize, ids: &[u32]) -> Bitset {
        let mut set = Bitset::new(len);
        set.extend(ids);
        set
    }

    #[test]
    fn greedy_takes_the_best_allowed_and_renormalises() {
        let greedy = Sampling::default();
        let best = chosen(&[1.0, 3.0, 2.0], None, &greedy, 0);
        assert_eq!(best.id, 1);
        assert!((best.logprob - (1.0 / (1.0 + (-1f32).exp() + (-2f32).exp())).ln()).abs() < 1e-6);
        let best = chosen(&[1.0, 3.0, 2.0], Some(&set(3, &[0, 2])), &greedy, 0);
        assert_eq!(best.id, 2);
        assert!((best.logprob - (1.0 / (1.0 + (-1f32).exp())).ln()).abs() < 1e-6);
    }

    #[test]
    fn every_bit_of_a_set_counts() {
        let logits: Vec<f32> = (0..101).map(|i| i as f32).collect();
        for id in [0, 1, 30, 31, 32, 63, 64, 95, 96, 100] {
            assert_eq!(chosen(&logits, Some(&set(101, &[id])), &Sampling::default(), 0).id, id);
        }
        // A vocabulary narrower than the logits, as padded models have.
        assert_eq!(chosen(&logits, Some(&set(40, &[3, 39])), &Sampling::default(), 0).id, 39);
    }

    #[test]
    fn samples_follow_the_softmax_at_their_temperature() {
        let logits = [0.0, 1.0, 2.0, 9.0];
        let allowed = set(4, &[0, 1, 2]);
        for temperature in [0.5f32, 1.0, 2.0] {
            let sampling = Sampling { temperature, seed: 4, ..Sampling::default() };
            let mut counts = [0f64; 4];
            for position in 0..4000 {
                counts[chosen(&logits, Some(&allowed), &sampling, position).id as usize] += 1.0 / 4000.0;
            }
            let weights = [0.0, 1.0, 2.0].map(|logit: f32| f64::from((logit / temperature).exp()));
            for (count, weight) in counts.iter().zip(weights) {
                let wanted = weight / weights.iter().sum::<f64>();
                assert!((count - wanted).abs() < 0.03, "{temperature}: {count} instead of {wanted}");
            }
        }
    }

    #[test]
    fn the_device_and_the_host_choose_the_same() {
        let logits: Vec<f32> = (0..300).map(|i| ((i * 37 % 91) as f32) / 20.0).collect();
        let allowed = set(300, &(0..300).filter(|id| id % 3 != 0).collect::<Vec<_>>());
        for position in 0..50 {
            let on_device = Sampling { temperature: 0.8, seed: 9, key: [1, 2, 3], ..Sampling::default() };
            // Filters that drop nothing here.
            let on_host = Sampling { top_k: 300, min_p: 1e-9, ..on_device };
            let (a, b) = (
                chosen(&logits, Some(&allowed), &on_device, position),
                chosen(&logits, Some(&allowed), &on_host, position),
            );
            assert_eq!(a.id, b.id);
            let logs = allowed.iter().map(|id| f64::from(logits[id as usize] / 0.8).exp()).sum::<f64>().ln();
            assert!((f64::from(logits[b.id as usize] / 0.8) - logs - f64::from(b.logprob)).abs() < 1e-5);
        }
    }

    #[test]
    fn filters_keep_what_they_say() {
        // Probabilities 0.5, 0.3, 0.15, 0.05.
        let logits = [0.5f32, 0.3, 0.15, 0.05].map(f32::ln);
        let seen = |sampling: Sampling| {
            let mut seen = [false; 4];
            (0..400).for_each(|at| seen[chosen(&logits, None, &sampling, at).id as usize] = true);
            seen
        };
        let plain = Sampling { temperature: 1.0, seed: 2, ..Sampling::default() };
        assert_eq!(seen(plain), [true; 4]);
        assert_eq!(seen(Sampling { top_k: 2, ..plain }), [true, true, false, false]);
        assert_eq!(seen(Sampling { top_p: 0.7, ..plain }), [true, true, false, false]);
        assert_eq!(seen(Sampling { top_p: 0.9, ..plain }), [true, true, true, false]);
        assert_eq!(seen(Sampling { min_p: 0.25, ..plain }), [true, true, true, false]);
    }

    /// The frequencies are those of the reported probabilities, and nothing else is drawn.
    #[test]
    fn filtered_samples_follow_what_is_reported() {
        let logits: Vec<f32> = (0..12).map(|i| (i * 7 % 12) as f32 / 3.0).collect();
        let allowed = set(12, &(0..12).filter(|id| id % 4 != 1).collect::<Vec<_>>());
        let plain = Sampling { temperature: 1.3, seed: 8, ..Sampling::default() };
        for sampling in [
            Sampling { top_k: 4, ..plain },
            Sampling { top_p: 0.8, ..plain },
            Sampling { min_p: 0.2, ..plain },
            Sampling { top_k: 6, top_p: 0.9, min_p: 0.1, ..plain },
        ] {
            let (mut counts, mut wanted) = ([0f64; 12], [0f64; 12]);
            for position in 0..4000 {
                let choice = chosen(&logits, Some(&allowed), &sampling, position);
                assert!(allowed.contains(choice.id));
                counts[choice.id as usize] += 1.0 / 4000.0;
                wanted[choice.id as usize] = f64::from(choice.logprob).exp();
            }
            assert!((wanted.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{wanted:?}");
            for (count, wanted) in counts.iter().zip(wanted) {
                assert!((count - wanted).abs() < 0.03, "{sampling:?}: {count} instead of {wanted}");
            }
        }
    }

    #[test]
    fn greedy_needs_no_filter() {
        let logits = [1.0, 3.0, 2.0];
        let greedy = Sampling::default();
        let filtered = Sampling { top_k: 1, top_p: 0.1, min_p: 0.9, ..greedy };
        assert_eq!(chosen(&logits, None, &filtered, 0), chosen(&logits, None, &greedy, 0));
    }

    #[test]
    fn another_key_is_another_draw() {
        let logits = [0.0; 200];
        let draw = |key| {
            let sampling = Sampling { temperature: 1.0, key, ..Sampling::default() };
            (0..8).map(|at| chosen(&logits, None, &sampling, at).id).collect::<Vec<_>>()
        };
        assert_eq!(draw([0, 0, 1]), draw([0, 0, 1]));
        assert_ne!(draw([0, 0, 1]), draw([0, 1, 0]));
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        let tensor = Tensor::<Flex, 2>::from_data([[0.0, f32::NAN]], &FlexDevice);
        let error = block_on(choose(tensor, None, &Sampling::default(), 0)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::DeviceLost);
    }
}
