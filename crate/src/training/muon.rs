//! Muon (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024): the
//! step of a matrix is its momentum with all singular values made equal.
//!
//! The step's size is matched to AdamW's (Liu et al., "Muon is scalable for LLM training", 2025,
//! equation 4), so that one learning rate and one decay serve both.

use super::network::{Into, NamedTensor, View, matmul};
use super::optimizer::Step;

/// Its constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// How many times the step's learning rate its own is.
    pub rate: f32,
    /// The decay of the mean of gradients.
    pub momentum: f32,
    /// How much of each matrix is taken away, times the learning rate.
    pub weight_decay: f32,
    /// The most threads.
    pub threads: usize,
}

/// How often the iteration is done.
const ITERATIONS: usize = 5;
/// The coefficients of its odd polynomial of degree 5.
const POLYNOMIAL: [f32; 3] = [3.4445, -4.7750, 2.0315];

impl Muon {
    /// Moves these matrices.
    pub fn step(&self, step: &mut Step<'_>, tensors: &[&NamedTensor]) {
        for tensor in tensors {
            let mean = &mut step.moments.mean[tensor.range()];
            for (mean, gradient) in mean.iter_mut().zip(&step.gradient[tensor.range()]) {
                *mean += (gradient * step.scale - *mean) * (1.0 - self.momentum);
            }
        }
        let (gradient, scale, means) = (step.gradient, step.scale, &step.moments.mean);
        let direction = |tensor: &NamedTensor| {
            // Nesterov's momentum: the mean as it will be if the gradient stays.
            let pairs = gradient[tensor.range()].iter().zip(&means[tensor.range()]);
            let ahead = pairs.map(|(own, mean)| own * scale + (mean - own * scale) * self.momentum).collect();
            orthogonalize(ahead, tensor.shape[0], tensor.shape[1])
        };
        let share = tensors.len().div_ceil(self.threads).max(1);
        let directions: Vec<Vec<f32>> = std::thread::scope(|scope| {
            let direction = &direction;
            let threads: Vec<_> = tensors
                .chunks(share)
                .map(|own| {
                    scope.spawn(move || own.iter().map(|tensor| direction(tensor)).collect::<Vec<_>>())
                })
                .collect();
            let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
            joined.flat_map(|made| made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        let rate = step.learning_rate * self.rate;
        let decay = 1.0 - rate * self.weight_decay;
        for (tensor, direction) in tensors.iter().zip(&directions) {
            let longest = tensor.shape[0].max(tensor.shape[1]);
            let length = rate * 0.2 * (longest as f32).sqrt();
            for (own, toward) in step.parameters[tensor.range()].iter_mut().zip(direction) {
                *own = *own * decay - length * toward;
            }
        }
    }
}

/// The nearest matrix with orthonormal rows or columns, roughly (singular values between 0.7 and
/// 1.2), by Newton and Schulz's iteration `X ← aX + (bA + cA²)X`, where `A = XXᵀ`.
fn orthogonalize(mut x: Vec<f32>, rows: usize, cols: usize) -> Vec<f32> {
    let norm = x.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt().max(1e-7) as f32;
    for value in &mut x {
        *value /= norm;
    }
    let [a, b, c] = POLYNOMIAL;
    let small = rows.min(cols);
    let (mut gram, mut factor) = (vec![0.0; small * small], vec![0.0; small * small]);
    let mut product = vec![0.0; x.len()];
    for _ in 0..ITERATIONS {
        let own = View::new(&x, rows, cols);
        // Of the two Gram matrices, the smaller one.
        let (left, right) = if rows <= cols { (own, own.t()) } else { (own.t(), own) };
        matmul(&mut gram, small, Into::Replace, 1.0, left, right);
        let square = View::new(&gram, small, small);
        matmul(&mut factor, small, Into::Replace, c, square, square);
        factor.iter_mut().zip(&gram).for_each(|(factor, gram)| *factor += b * gram);
        let square = View::new(&factor, small, small);
        let (left, right) = if rows <= cols { (square, own) } else { (own, square) };
        matmul(&mut product, cols, Into::Replace, 1.0, left, right);
        x.iter_mut().zip(&product).for_each(|(x, product)| *x = a * *x + product);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::DecoderConfig;
    use crate::training::network::Layout;
    use crate::training::optimizer::Moments;

    /// `tests/reference/muon.py` prints the numbers. Its iteration is done in bfloat16.
    #[test]
    fn three_steps_are_those_of_pytorch() {
        let layout = Layout::new(DecoderConfig::nano()).unwrap();
        let muon = Muon { rate: 1.0, momentum: 0.9, weight_decay: 0.1, threads: 2 };
        for (shape, wanted) in [
            ([2, 3], [-0.0542, 0.9889, -0.2001, -0.9023, 0.3984, 0.7994]),
            ([3, 2], [-0.0545, 0.9231, -0.2108, -0.9095, 0.4628, 0.8354]),
        ] {
            let entry = |number: u64| -> Vec<f32> {
                (0..6).map(|place| (f64::from(place) * 1.7 + number as f64 * 0.9).sin() as f32).collect()
            };
            let tensor = NamedTensor { name: String::new(), shape: shape.to_vec(), start: 0 };
            let (mut parameters, mut moments) = (entry(0), Moments::new(6));
            for number in 1..=3 {
                let mut step = Step {
                    layout: &layout,
                    parameters: &mut parameters,
                    gradient: &entry(number).iter().map(|value| value * 2.0).collect::<Vec<_>>(),
                    moments: &mut moments,
                    number,
                    learning_rate: 0.1,
                    scale: 0.5,
                    rows: None,
                };
                muon.step(&mut step, &[&tensor]);
            }
            for (own, wanted) in parameters.iter().zip(wanted) {
                assert!((own - wanted).abs() < 2e-3, "{shape:?}: {parameters:?}");
            }
        }
    }
}
