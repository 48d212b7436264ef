//! A low-rank adapter in the weights of a network, and what dropout of what it reads changes (PEFT's `lora_dropout`).
//!
//! A product gives `(W + s B A) x`, so the gradients of `A` and `B` follow from that of the sum. With dropout the adapter
//! alone reads `x'`, which is `x` with some values dropped; so `s B A (x' - x)` is added to the product, and the gradients
//! that follow from that to those that follow from the sum. Each adapted matrix has a choice of its own.

use std::sync::Arc;

use super::dropout::{Dropout, Part};
use super::layout::NamedTensor;
use super::math::{Into, View, matmul};
use crate::random::keyed;

/// The places of two factors: the matrix that they adapt, and where `A` and `B` begin among all factors.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The matrix, `[out, in]`.
    pub tensor: NamedTensor,
    /// Where `A` of `[rank, in]` begins.
    pub a: usize,
    /// Where `B` of `[out, rank]` does.
    pub b: usize,
}

impl Pair {
    /// Rows and columns of the matrix.
    pub(in crate::training) fn dims(&self) -> (usize, usize) {
        (self.tensor.shape[0], self.tensor.shape[1])
    }

    /// `A` and `B` of this rank among all factors.
    pub(in crate::training) fn factors<'a>(&self, all: &'a [f32], rank: usize) -> (View<'a>, View<'a>) {
        let (rows, cols) = self.dims();
        let a = View::new(&all[self.a..][..rank * cols], rank, cols);
        (a, View::new(&all[self.b..][..rows * rank], rows, rank))
    }
}

/// An adapter in the weights of a network.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Where the factors lie.
    pub pairs: Arc<[Pair]>,
    /// All factors, one pair behind the other.
    pub factors: Arc<[f32]>,
    /// The rank.
    pub rank: usize,
    /// What `B A` is multiplied by.
    pub scale: f32,
    /// How many parameters the network has.
    pub weights: usize,
    /// What is dropped of what it reads.
    pub dropout: Option<Dropout>,
}

impl Adapter {
    /// The same with choices that depend on these numbers too, where it drops.
    pub fn dropping(&self, numbers: &[u64]) -> Option<Self> {
        let dropout = self.dropout.map(|own| Dropout { key: keyed(own.key, numbers), ..own })?;
        Some(Self { dropout: Some(dropout), ..self.clone() })
    }

    /// Adds the gradient of the factors, which follows from that of the weights with the adapter in them; behind it
    /// lies what dropout adds.
    pub(crate) fn gradient(&self, merged: &[f32], gradient: &mut [f32]) {
        let (merged, dropped) = merged.split_at(self.weights);
        gradient.iter_mut().zip(dropped).for_each(|(sum, own)| *sum += own);
        for pair in &*self.pairs {
            let (rows, cols) = pair.dims();
            let (a, b) = self.factors(pair);
            let slope = View::new(&merged[pair.tensor.range()], rows, cols);
            matmul(&mut gradient[pair.a..pair.b], cols, Into::Add, self.scale, b.t(), slope);
            let of_b = &mut gradient[pair.b..][..rows * self.rank];
            matmul(of_b, self.rank, Into::Add, self.scale, slope, a.t());
        }
    }

    /// The pairs of the matrices in a weight, their numbers, and the row of the weight at which each begins.
    fn within(
        &self,
        (start, [rows, cols]): (usize, [usize; 2]),
    ) -> impl Iterator<Item = (usize, &Pair, usize)> {
        let inside = start..start + rows * cols;
        let own = self.pairs.iter().enumerate().filter(move |(_, pair)| inside.contains(&pair.tensor.start));
        own.map(move |(number, pair)| (number, pair, (pair.tensor.start - start) / cols))
    }

    /// The factors of a pair: `A` and `B`.
    fn factors(&self, pair: &Pair) -> (View<'_>, View<'_>) {
        pair.factors(&self.factors, self.rank)
    }

    /// What dropping takes from values, or adds to those that stay; of a gradient the same.
    fn change(&self, values: &[f32], number: usize) -> Vec<f32> {
        let mut changed = values.to_vec();
        if let Some(dropout) = self.dropout {
            dropout.apply(&mut changed, number, Part::Adapted);
        }
        changed.iter_mut().zip(values).for_each(|(changed, value)| *changed -= value);
        changed
    }

    /// Adds to the product with a weight what dropping changes.
    pub(super) fn forward(&self, weight: (usize, [usize; 2]), input: &[f32], out: &mut [f32]) {
        let (_, [width, cols]) = weight;
        let n = input.len() / cols;
        for (number, pair, first) in self.within(weight) {
            let (a, b) = self.factors(pair);
            let change = self.change(input, number);
            let mut low = vec![0.0; n * self.rank];
            matmul(&mut low, self.rank, Into::Replace, 1.0, View::new(&change, n, cols), a.t());
            let low = View::new(&low, n, self.rank);
            matmul(&mut out[first..], width, Into::Add, self.scale, low, b.t());
        }
    }

    /// Adds what follows from that to the gradient of the factors, which lies behind the network's, and to the input's.
    pub(super) fn backward(
        &self,
        gradient: &mut [f32],
        weight: (usize, [usize; 2]),
        dout: &[f32],
        input: &[f32],
        dinput: &mut [f32],
    ) {
        let (_, [width, cols]) = weight;
        let (n, r) = (input.len() / cols, self.rank);
        for (number, pair, first) in self.within(weight) {
            let (a, b) = self.factors(pair);
            let rows = pair.tensor.shape[0];
            let dout = View::strided(&dout[first..], n, rows, width);
            let change = self.change(input, number);
            let change = View::new(&change, n, cols);
            let (mut low, mut dlow) = (vec![0.0; n * r], vec![0.0; n * r]);
            matmul(&mut low, r, Into::Replace, 1.0, change, a.t());
            matmul(&mut dlow, r, Into::Replace, self.scale, dout, b);
            let of_b = &mut gradient[self.weights + pair.b..][..rows * r];
            matmul(of_b, r, Into::Add, self.scale, dout.t(), View::new(&low, n, r));
            let dlow = View::new(&dlow, n, r);
            let of_a = &mut gradient[self.weights + pair.a..][..r * cols];
            matmul(of_a, cols, Into::Add, 1.0, dlow.t(), change);
            let mut dread = vec![0.0; n * cols];
            matmul(&mut dread, cols, Into::Replace, 1.0, dlow, a);
            let dread = self.change(&dread, number);
            dinput.iter_mut().zip(dread).for_each(|(sum, own)| *sum += own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::training::network::tests::{tiny, tiny_bert};
    use crate::training::network::{Batch, Layout, Target, Workspace};

    /// Of one row the choice can be put into the weights: `B A` whose columns are 0 where it drops, and larger elsewhere.
    #[test]
    fn of_one_row_dropout_is_another_weight() {
        for layout in [tiny(), tiny_bert()] {
            one_row(&layout);
        }
    }

    fn one_row(layout: &Layout) {
        let mut random = Random::new(4, &[]);
        let base: Vec<f32> =
            layout.initialize(1).iter().map(|own| own + random.normal() as f32 * 0.3).collect();
        let (rank, scale, dropout) = (3, 0.7, Dropout { rate: 0.4, key: 9 });
        let (mut pairs, mut len) = (Vec::new(), 0);
        for tensor in layout.tensors.iter().filter(|tensor| layout.is_block_matrix(tensor)) {
            let (a, b) = (len, len + rank * tensor.shape[1]);
            len = b + rank * tensor.shape[0];
            pairs.push(Pair { tensor: tensor.clone(), a, b });
        }
        let factors: Vec<f32> = (0..len).map(|_| random.normal() as f32 * 0.3).collect();
        // The weights with the adapter in them, whose every input counts as much as this says.
        let merged = |dropped: bool| {
            let mut merged = base.clone();
            for (number, pair) in pairs.iter().enumerate() {
                let [rows, cols] = pair.tensor.shape[..] else { unreachable!() };
                let mut counts = vec![1.0; cols];
                if dropped {
                    dropout.apply(&mut counts, number, Part::Adapted);
                }
                for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
                    let product = (0..rank)
                        .map(|k| factors[pair.b + row * rank + k] * factors[pair.a + k * cols + col]);
                    merged[pair.tensor.start + row * cols + col] +=
                        scale * product.sum::<f32>() * counts[col];
                }
            }
            merged
        };
        let adapter = Adapter {
            pairs: pairs.clone().into(),
            factors: factors.clone().into(),
            rank,
            scale,
            weights: layout.len(),
            dropout: Some(dropout),
        };
        let logprobs = |parameters: &[f32], adapter: Option<Adapter>| {
            let mut batch = Batch { adapter, ..Batch::default() };
            batch.push(&[5], (0..23).map(|token| Target { row: 0, token, weight: 1.0 }));
            Workspace::default().forward(layout, parameters, &batch).unwrap().logprobs
        };
        let own = logprobs(&merged(false), Some(adapter));
        let far = |other: Vec<f32>| own.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far(logprobs(&merged(true), None)) < 1e-4);
        assert!(far(logprobs(&merged(false), None)) > 1e-2);
    }
}
