//! Attention over trees: sequences of different shapes, side by side on a device.

use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor, TensorData};

use crate::kernels::{HIDDEN, Kernels};
use crate::nn::{DecoderConfig, Rotary};
use crate::training::network::{Batch, Tree};

/// Where the trees of a batch stand, and what each of their tokens sees.
pub(super) struct Trees<B: Kernels> {
    rotary: Rotary<B>,
    count: usize,
    /// The length of the longest.
    longest: usize,
    /// For every place of every tree filled up to the longest the row of its token, and for every row its place;
    /// none where no tree is shorter.
    filled: Option<[Tensor<B, 1, Int>; 2]>,
    /// 0 or [`HIDDEN`], `[1, trees, 1, query, key]`
    bias: Tensor<B, 5>,
    /// What queries, keys and values are multiplied in.
    bf16: bool,
}

impl<B: Kernels> Trees<B> {
    pub(super) fn new(config: &DecoderConfig, batch: &Batch, bf16: bool, device: &B::Device) -> Self {
        let trees = &batch.trees;
        let positions: Vec<usize> = trees.iter().flat_map(Tree::positions).collect();
        let longest = trees.iter().map(Tree::len).max().unwrap_or_default();
        let mut bias = vec![HIDDEN; trees.len() * longest * longest];
        // What fills a tree up stands behind all that is seen, and reads its first token, so that its softmax is one.
        let (mut rows, mut places, mut first) = (Vec::new(), Vec::new(), 0);
        for (tree, own) in trees.iter().zip(bias.chunks_mut((longest * longest).max(1))) {
            for (sees, (end, unseen)) in own.chunks_mut(longest).zip(tree.seen()) {
                sees[..end].fill(0.0);
                sees[unseen].fill(HIDDEN);
            }
            own.chunks_mut(longest).skip(tree.len()).for_each(|sees| sees[0] = 0.0);
            let start = rows.len();
            rows.extend(
                (0..longest).map(|place| if place < tree.len() { first + place } else { first } as i32),
            );
            places.extend((start..start + tree.len()).map(|place| place as i32));
            first += tree.len();
        }
        let ids = |values: Vec<i32>| {
            let count = values.len();
            Tensor::<B, 1, Int>::from_data(TensorData::new(values, [count]), device)
        };
        let shape = [1, trees.len(), 1, longest, longest];
        Self {
            rotary: Rotary::of_places(config, &positions, device),
            count: trees.len(),
            longest,
            filled: (rows.len() > places.len()).then(|| [ids(rows), ids(places)]),
            bias: Tensor::from_data(TensorData::new(bias, shape), device),
            bf16,
        }
    }

    /// What every token takes from those that it sees.
    ///
    /// # Shapes
    /// - q and output: `[1, heads, rows, head_dim]`, none rotated
    /// - k, v: `[1, kv_heads, rows, head_dim]`
    pub(super) fn attend(&self, [q, k, v]: [Tensor<B, 4>; 3]) -> Tensor<B, 4> {
        let (count, longest) = (self.count, self.longest);
        let [_, heads, _, width] = q.dims();
        let kv_heads = k.dims()[1];
        let group = heads / kv_heads;
        let (q, k) = (self.rotary.apply(q), self.rotary.apply(k));
        let q = q.mul_scalar(1.0 / (width as f64).sqrt());
        let fill = |x: Tensor<B, 4>| match &self.filled {
            Some([rows, _]) => x.select(2, rows.clone()),
            None => x,
        };
        let of_trees = |x: Tensor<B, 4>| fill(x).reshape([kv_heads, count, longest, width]);
        let (k, v) = (of_trees(k), of_trees(v));
        // The heads of a group stand behind each other as rows, so that the keys are not copied.
        let q = fill(q).reshape([kv_heads, group, count, longest, width]).swap_dims(1, 2);
        let q = q.reshape([kv_heads, count, group * longest, width]);
        let scores = self.product(q, k.swap_dims(2, 3));
        let scores = scores.reshape([kv_heads, count, group, longest, longest]) + self.bias.clone();
        let seen = softmax(scores, 4).reshape([kv_heads, count, group * longest, longest]);
        let mixed = self.product(seen, v).reshape([kv_heads, count, group, longest, width]);
        let mixed = mixed.swap_dims(1, 2).reshape([1, heads, count * longest, width]);
        match &self.filled {
            Some([_, places]) => mixed.select(2, places.clone()),
            None => mixed,
        }
    }

    fn product(&self, lhs: Tensor<B, 4>, rhs: Tensor<B, 4>) -> Tensor<B, 4> {
        let rhs = if self.bf16 { rhs.cast(burn::tensor::FloatDType::BF16) } else { rhs };
        B::product(lhs, rhs)
    }
}
