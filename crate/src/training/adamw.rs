//! AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019).

use rayon::prelude::*;

use super::network::NamedTensor;
use super::optimizer::Step;

/// How many parameters a thread takes at once.
const PIECE: usize = 1 << 18;

/// Its constants, under TRL's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// The decay of the mean of gradients.
    pub beta1: f32,
    /// The decay of the mean of their squares.
    pub beta2: f32,
    /// What is added to the root of the mean square.
    pub epsilon: f32,
    /// How much of each matrix is taken away, times the learning rate.
    pub weight_decay: f32,
}

/// A stretch of the flat buffers: parameters, gradient and both moments.
type Stretch<'a> = (&'a mut [f32], &'a [f32], &'a mut [f32], &'a mut [f32]);

/// How a stretch moves.
#[derive(Clone, Copy)]
struct Rates {
    /// What the gradient is multiplied by first.
    scale: f32,
    /// What parameters are multiplied by.
    decay: f32,
    /// The learning rate over what is missing of the mean in the first steps.
    rate: f32,
    /// What is missing of the mean square.
    square: f32,
}

impl AdamW {
    /// Moves these tensors.
    pub fn step(&self, step: &mut Step<'_>, tensors: &[&NamedTensor]) {
        let correction = |beta: f32| (1.0 - f64::from(beta).powi(step.number as i32)) as f32;
        let (mean_correction, square_correction) = (correction(self.beta1), correction(self.beta2));
        let (layout, rows) = (step.layout, step.rows);
        let all = 1.0 - step.learning_rate * self.weight_decay;
        let mut update = |range: std::ops::Range<usize>, decay: f32, rate: f32| {
            let stretch: Stretch<'_> = (
                &mut step.parameters[range.clone()],
                &step.gradient[range.clone()],
                &mut step.moments.mean[range.clone()],
                &mut step.moments.square[range],
            );
            let rate = rate * step.learning_rate / mean_correction;
            self.stretch(stretch, Rates { scale: step.scale, decay, rate, square: square_correction });
        };
        for tensor in tensors {
            match rows {
                Some(rows) if tensor.range() == layout.embedding() => {
                    let width = layout.config.hidden_size;
                    for &(row, rate) in rows {
                        let start = tensor.start + row as usize * width;
                        update(start..start + width, 1.0, rate);
                    }
                }
                _ => update(tensor.range(), if tensor.decays() { all } else { 1.0 }, 1.0),
            }
        }
    }

    /// Moves parameters that belong to no layout, and do not decay, for the `number`-th time.
    pub fn flat(
        &self,
        parameters: &mut [f32],
        gradient: &[f32],
        moments: &mut super::optimizer::Moments,
        number: u64,
        (learning_rate, scale): (f32, f32),
    ) {
        let correction = |beta: f32| (1.0 - f64::from(beta).powi(number as i32)) as f32;
        let (rate, square) = (learning_rate / correction(self.beta1), correction(self.beta2));
        let stretch = (parameters, gradient, &mut moments.mean[..], &mut moments.square[..]);
        self.stretch(stretch, Rates { scale, decay: 1.0, rate, square });
    }

    /// Every parameter by itself: large stretches are divided among threads, and no number changes.
    fn stretch(&self, (parameters, gradient, mean, square): Stretch<'_>, rates: Rates) {
        if parameters.len() <= PIECE {
            return self.piece((parameters, gradient, mean, square), rates);
        }
        let pieces = parameters.par_chunks_mut(PIECE).zip(gradient.par_chunks(PIECE));
        let pieces = pieces.zip(mean.par_chunks_mut(PIECE)).zip(square.par_chunks_mut(PIECE));
        pieces.for_each(|(((parameters, gradient), mean), square)| {
            self.piece((parameters, gradient, mean, square), rates);
        });
    }

    fn piece(&self, (parameters, gradient, mean, square): Stretch<'_>, rates: Rates) {
        let (beta1, beta2, epsilon) = (self.beta1, self.beta2, self.epsilon);
        let Rates { scale, decay, rate, square: correction } = rates;
        let correction = 1.0 / correction;
        let (gradient, mean, square) =
            (&gradient[..parameters.len()], &mut mean[..parameters.len()], &mut square[..parameters.len()]);
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for i in 0..parameters.len() {
                    let own = gradient[i] * scale;
                    mean[i] = beta1 * mean[i] + (1.0 - beta1) * own;
                    square[i] = beta2 * square[i] + (1.0 - beta2) * own * own;
                    let root = (square[i] * correction).sqrt() + epsilon;
                    parameters[i] = parameters[i] * decay - rate * mean[i] / root;
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::DecoderConfig;
    use crate::training::network::Layout;
    use crate::training::optimizer::{Moments, clip_scale};

    fn step(
        adamw: AdamW,
        layout: &Layout,
        parameters: &mut [f32],
        gradient: &[f32],
        moments: &mut Moments,
        (number, scale): (u64, f32),
        rows: Option<&[(u32, f32)]>,
    ) {
        let tensors: Vec<&NamedTensor> = layout.tensors.iter().collect();
        let learning_rate = 0.1;
        let mut step = Step { layout, parameters, gradient, moments, number, learning_rate, scale, rows };
        adamw.step(&mut step, &tensors);
    }

    #[derive(serde::Deserialize)]
    struct Moved {
        norms: Vec<f64>,
        parameters: Vec<f32>,
        mean: Vec<f32>,
        square: Vec<f32>,
    }

    #[derive(serde::Deserialize)]
    struct Reference {
        count: usize,
        decayed: Moved,
        plain: Moved,
    }

    /// `tests/reference/adamw.py` writes what `PyTorch` makes of the same numbers.
    #[test]
    fn steps_with_clipping_are_those_of_pytorch() {
        let wanted: Reference = serde_json::from_str(include_str!("adamw.json")).unwrap();
        let config = DecoderConfig {
            vocab_size: 1,
            hidden_size: 2,
            num_hidden_layers: 1,
            num_attention_heads: 1,
            num_key_value_heads: 1,
            head_dim: 2,
            intermediate_size: 1,
            ..DecoderConfig::nano()
        };
        let layout = Layout::new(config).unwrap();
        assert_eq!(layout.len(), wanted.count);
        let values = |step: usize, divisor: f32| -> Vec<f32> {
            (0..wanted.count).map(|i| (((i * 7 + step * 13) % 11) as f32 - 5.0) / divisor).collect()
        };
        let adamw = AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };
        let (mut parameters, mut moments) = (values(0, 8.0), Moments::new(layout.len()));
        let mut scales = Vec::new();
        for (place, size) in [4.0, 1.0, 0.0625, 0.03125].into_iter().enumerate() {
            let mut gradient = values(place + 1, 4.0 / size);
            gradient[..wanted.count / 3].iter_mut().for_each(|own| *own *= 8.0);
            let norm = gradient.iter().map(|own| f64::from(*own).powi(2)).sum::<f64>().sqrt();
            assert!((norm / wanted.plain.norms[place] - 1.0).abs() < 1e-6, "{norm}");
            let how = (place as u64 + 1, clip_scale(norm, 2.0));
            scales.push(how.1);
            step(adamw, &layout, &mut parameters, &gradient, &mut moments, how, None);
        }
        assert!(scales[0] < 0.5 && scales[1] < 1.0 && scales[2..] == [1.0, 1.0], "{scales:?}");
        let mut kinds = [0, 0];
        for tensor in &layout.tensors {
            let wanted = if tensor.decays() { &wanted.decayed } else { &wanted.plain };
            kinds[usize::from(tensor.decays())] += 1;
            for i in tensor.range() {
                for (own, wanted) in [
                    (parameters[i], wanted.parameters[i]),
                    (moments.mean[i], wanted.mean[i]),
                    (moments.square[i], wanted.square[i]),
                ] {
                    assert!((own - wanted).abs() < 1e-6, "{} {i}: {own} {wanted}", tensor.name);
                }
            }
        }
        assert!(kinds[0] > 0 && kinds[1] > 0);
    }

    #[test]
    fn rows_that_are_not_named_stay_as_they_are() {
        let config = DecoderConfig { vocab_size: 5, ..DecoderConfig::nano() };
        let layout = Layout::new(config).unwrap();
        let width = layout.config.hidden_size;
        let adamw = AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };
        let gradient = vec![1.0; layout.len()];
        let moved = |rows: Option<&[(u32, f32)]>| {
            let mut parameters = vec![1.0; layout.len()];
            let mut moments = Moments::new(layout.len());
            step(adamw, &layout, &mut parameters, &gradient, &mut moments, (1, 1.0), rows);
            (parameters, moments)
        };
        let ((all, _), (named, moments)) = (moved(None), moved(Some(&[(1, 1.0), (3, 0.5)])));
        let end = layout.embedding().end;
        assert_eq!(all[end..], named[end..]);
        for row in 0..5 {
            let own = row * width..(row + 1) * width;
            let moved = row == 1 || row == 3;
            // A step is the learning rate at first; without decay.
            let wanted = [1.0, 0.9, 1.0, 0.95, 1.0][row];
            assert!(named[own.clone()].iter().all(|value| (value - wanted).abs() < 1e-6));
            assert!(moments.mean[own].iter().all(|mean| (*mean > 0.0) == moved));
        }
    }

    /// Divided among threads as in one piece, to the bit.
    #[test]
    fn large_stretches_are_moved_piece_by_piece() {
        let count = 2 * PIECE + 3;
        let values = |key: u64| -> Vec<f32> {
            let mut random = crate::random::Random::new(key, &[]);
            (0..count).map(|_| random.uniform() as f32 - 0.5).collect()
        };
        let adamw = AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.0 };
        let (gradient, start) = (values(1), values(2));
        let (mut whole, mut apart) = (start.clone(), start.clone());
        let (mut moments, mut mean, mut square) = (Moments::new(count), vec![0.0; count], vec![0.0; count]);
        adamw.flat(&mut whole, &gradient, &mut moments, 1, (0.1, 0.5));
        let correction = |beta: f32| (1.0 - f64::from(beta)) as f32;
        let (rate, of_square) = (0.1 / correction(adamw.beta1), correction(adamw.beta2));
        let stretch = (&mut apart[..], &gradient[..], &mut mean[..], &mut square[..]);
        adamw.piece(stretch, Rates { scale: 0.5, decay: 1.0, rate, square: of_square });
        assert!(whole == apart && moments.mean == mean && moments.square == square);
        assert!(whole.iter().zip(&start).all(|(after, before)| (after - before).abs() > 0.01));
    }
}
