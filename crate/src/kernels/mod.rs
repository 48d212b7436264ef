//! The operations that a transformer spends its time in, as a trait over burn's backends.
//!
//! Every method has a default made of burn's operators, so that any backend works; a backend
//! overrides what it can do better. `Autodiff<B>` tracks the operators of the defaults.

#[cfg(any(target_arch = "wasm32", feature = "cubecl"))]
mod cube;
mod flex;
mod packed;
pub(crate) mod scalar;

use burn::tensor::activation::{gelu, silu, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

use crate::error::Result;

#[cfg(all(test, not(target_arch = "wasm32")))]
pub(crate) use packed::tests::{FORMATS, random_rows};
pub use packed::{Format, GROUP, Packed, PackedMatrix, PackedRows, row_groups};

/// Added to a score that must not count. Finite: WGSL does not promise infinities.
pub const HIDDEN: f32 = -1e30;

/// A backend with the operations of a decoder.
pub trait Kernels: Backend {
    /// The matrix product of the last two dimensions; the others are alike. Where the second factor is narrower than
    /// the first, the product is taken in its type, and given back in the first one's: mixed precision (Micikevicius et
    /// al., 2018).
    fn product<const D: usize>(lhs: Tensor<Self, D>, rhs: Tensor<Self, D>) -> Tensor<Self, D> {
        let (wide, narrow) = (lhs.dtype(), rhs.dtype());
        if wide == narrow { lhs.matmul(rhs) } else { lhs.cast(narrow).matmul(rhs).cast(wide) }
    }

    /// `x W + b`.
    ///
    /// # Shapes
    /// - x: `[rows, in]`, weight: `[in, out]`, bias: `[out]`
    /// - output: `[rows, out]`
    fn project(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        bias: Option<Tensor<Self, 1>>,
    ) -> Tensor<Self, 2> {
        let product = Self::product(x, weight);
        match bias {
            Some(bias) => product + bias.unsqueeze(),
            None => product,
        }
    }

    /// `added + x W`.
    ///
    /// # Shapes
    /// - x: `[rows, in]`, weight: `[in, out]`
    /// - added and output: `[rows, out]`
    fn project_onto(added: Tensor<Self, 2>, x: Tensor<Self, 2>, weight: Tensor<Self, 2>) -> Tensor<Self, 2> {
        added + Self::project(x, weight, None)
    }

    /// SwiGLU: `silu(x G) · x U`.
    ///
    /// # Shapes
    /// - x: `[rows, in]`, gate and up: `[in, out]`
    /// - output: `[rows, out]`
    fn project_gated(x: Tensor<Self, 2>, gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        Self::swiglu(Self::project(x.clone(), gate, None), Self::project(x, up, None))
    }

    /// `x Wᵀ`.
    ///
    /// # Shapes
    /// - x: `[rows, in]`, weight: `[out, in]`
    /// - output: `[rows, out]`
    fn project_transposed(x: Tensor<Self, 2>, weight: Tensor<Self, 2>) -> Tensor<Self, 2> {
        Self::product(x, weight.transpose())
    }

    /// Takes a packed matrix to the device, in the order in which [`Kernels::project_packed`] and
    /// [`Kernels::packed_rows`] read it. Fails where the matrix cannot be read.
    fn store(matrix: PackedMatrix<'_>, device: &Self::Device) -> Result<Packed<Self>> {
        let (shape, format) = (matrix.shape, matrix.format);
        Ok(Packed::new(shape, format, matrix.collect()?, device))
    }

    /// `x Wᵀ + b` of a packed matrix.
    ///
    /// # Shapes
    /// - x: `[rows, in]`, weight: `[out, in]`, bias: `[out]`
    /// - output: `[rows, out]`
    fn project_packed(
        x: Tensor<Self, 2>,
        weight: &Packed<Self>,
        bias: Option<Tensor<Self, 1>>,
    ) -> Tensor<Self, 2> {
        let product = Self::product(x, weight.row_values().transpose());
        match bias {
            Some(bias) => product + bias.unsqueeze(),
            None => product,
        }
    }

    /// [`Kernels::project_onto`] of a packed matrix, `[out, in]`.
    fn project_packed_onto(
        added: Tensor<Self, 2>,
        x: Tensor<Self, 2>,
        weight: &Packed<Self>,
    ) -> Tensor<Self, 2> {
        added + Self::project_packed(x, weight, None)
    }

    /// [`Kernels::project_gated`] of packed matrices, `[out, in]`.
    fn project_packed_gated(x: Tensor<Self, 2>, gate: &Packed<Self>, up: &Packed<Self>) -> Tensor<Self, 2> {
        Self::swiglu(Self::project_packed(x.clone(), gate, None), Self::project_packed(x, up, None))
    }

    /// Rows of a packed matrix.
    ///
    /// # Shapes
    /// - weight: `[rows, columns]`, ids: `[count]`
    /// - output: `[count, columns]`
    fn packed_rows(weight: &Packed<Self>, ids: Tensor<Self, 1, Int>) -> Tensor<Self, 2> {
        weight.select_rows(ids).row_values()
    }

    /// Puts values into a buffer from place `start` of its third dimension on, in place where
    /// the backend can and no other handle on the buffer is alive.
    ///
    /// # Shapes
    /// - buffer and output: `[batch, heads, capacity, head_dim]`
    /// - values: `[batch, heads, sequence, head_dim]`
    fn write_cache(buffer: Tensor<Self, 4>, start: usize, values: Tensor<Self, 4>) -> Tensor<Self, 4> {
        let [batch, heads, length, width] = values.dims();
        buffer.slice_assign([0..batch, 0..heads, start..start + length, 0..width], values)
    }

    /// `x / sqrt(mean(x²) + ε) · weight`, the mean over a row.
    ///
    /// # Shapes
    /// - x and output: `[rows, hidden]`, weight: `[hidden]`
    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        let scale = x.clone().powf_scalar(2.0).mean_dim(1).add_scalar(epsilon).sqrt().recip();
        x * scale * weight.unsqueeze()
    }

    /// `(x - mean(x)) / sqrt(variance(x) + ε) · weight + bias`, mean and variance over a row.
    ///
    /// # Shapes
    /// - x and output: `[rows, hidden]`, weight and bias: `[hidden]`
    fn layer_norm(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        bias: Tensor<Self, 1>,
        epsilon: f64,
    ) -> Tensor<Self, 2> {
        let centred = x.clone() - x.mean_dim(1);
        Self::rms_norm(centred, weight, epsilon) + bias.unsqueeze()
    }

    /// `x Φ(x)`, where Φ is the distribution function of the normal distribution.
    fn gelu(x: Tensor<Self, 2>) -> Tensor<Self, 2> {
        gelu(x)
    }

    /// The gate of SwiGLU: `silu(gate) · up`.
    fn swiglu(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        silu(gate) * up
    }

    /// Rotary position embedding as Hugging Face lays it out: the first half of a head is
    /// rotated against the second.
    ///
    /// # Shapes
    /// - x and output: `[batch, heads, sequence, head_dim]`
    /// - cos, sin: `[sequence, head_dim / 2]`
    fn rotary(x: Tensor<Self, 4>, cos: Tensor<Self, 2>, sin: Tensor<Self, 2>) -> Tensor<Self, 4> {
        let half = x.dims()[3] / 2;
        let (first, second) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let (cos, sin) = (cos.unsqueeze::<4>(), sin.unsqueeze::<4>());
        Tensor::cat(
            vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin],
            3,
        )
    }

    /// Turns queries and keys and puts keys and values into their buffers from place `start` on: [`Kernels::rotary`]
    /// and [`Kernels::write_cache`].
    ///
    /// # Shapes
    /// - q and its output: `[batch, heads, sequence, head_dim]`
    /// - k, v: `[batch, kv_heads, sequence, head_dim]`
    /// - cos, sin: `[sequence, head_dim / 2]`; with `by_row`, `[batch, head_dim / 2]`
    /// - buffers: `[batch, kv_heads, capacity, head_dim]`
    fn rotate_into_cache(
        [q, k, v]: [Tensor<Self, 4>; 3],
        [cos, sin]: [Tensor<Self, 2>; 2],
        by_row: bool,
        [keys, values]: [Tensor<Self, 4>; 2],
        start: usize,
    ) -> [Tensor<Self, 4>; 3] {
        let turn = |x: Tensor<Self, 4>| {
            let turn = |x| Self::rotary(x, cos.clone(), sin.clone());
            if by_row { turn(x.swap_dims(0, 2)).swap_dims(0, 2) } else { turn(x) }
        };
        [turn(q), Self::write_cache(keys, start, turn(k)), Self::write_cache(values, start, v)]
    }

    /// What [`Kernels::causal_attention`] adds to its scores so that query `i` sees the keys up to
    /// `start + i`: 0 or [`HIDDEN`], `[queries, keys]`. `None` where the backend's attention
    /// masks by itself or there is nothing to hide. Built once for all layers.
    fn causal_bias(
        start: usize,
        queries: usize,
        keys: usize,
        device: &Self::Device,
    ) -> Option<Tensor<Self, 2>> {
        if start + 1 >= keys {
            return None;
        }
        let hidden = |query: usize, key: usize| if key > start + query { HIDDEN } else { 0.0 };
        let values: Vec<f32> =
            (0..queries).flat_map(|query| (0..keys).map(move |key| hidden(query, key))).collect();
        Some(Tensor::from_data(TensorData::new(values, [queries, keys]), device))
    }

    /// Causal attention with grouped heads: `softmax(q kᵀ / sqrt(head_dim) + bias) v`, where
    /// query `i` stands at place `start + i` of the keys and sees none behind it. With a `start` of
    /// `keys - 1` every query sees every key.
    ///
    /// # Shapes
    /// - q and output: `[batch, heads, queries, head_dim]`
    /// - k, v: `[batch, kv_heads, keys, head_dim]`; heads is a multiple of kv_heads
    /// - bias: what [`Kernels::causal_bias`] gave for these sizes
    fn causal_attention(
        q: Tensor<Self, 4>,
        k: Tensor<Self, 4>,
        v: Tensor<Self, 4>,
        start: usize,
        bias: Option<Tensor<Self, 2>>,
    ) -> Tensor<Self, 4> {
        let _ = start;
        let [batch, heads, queries, head_dim] = q.dims();
        let [_, kv_heads, keys, _] = k.dims();
        let group = heads / kv_heads;
        let q = q.mul_scalar(1.0 / (head_dim as f64).sqrt());
        // The heads of a group stand behind each other as rows, so that the keys are not copied.
        let q = q.reshape([batch, kv_heads, group * queries, head_dim]);
        let mut scores = Self::product(q, k.swap_dims(2, 3));
        if let Some(bias) = bias {
            let grouped = scores.reshape([batch * kv_heads, group, queries, keys]) + bias.unsqueeze::<4>();
            scores = grouped.reshape([batch, kv_heads, group * queries, keys]);
        }
        Self::product(softmax(scores, 3), v).reshape([batch, heads, queries, head_dim])
    }

    /// The same for one query a row, which sees the row's keys from its `first` on: rows whose texts end at the
    /// same place and begin at different ones.
    ///
    /// # Shapes
    /// - q and output: `[batch, heads, 1, head_dim]`
    /// - k, v: `[batch, kv_heads, keys, head_dim]`
    /// - first: `batch` places
    fn row_attention(
        q: Tensor<Self, 4>,
        k: Tensor<Self, 4>,
        v: Tensor<Self, 4>,
        first: &[usize],
    ) -> Tensor<Self, 4> {
        let [batch, heads, queries, head_dim] = q.dims();
        let [_, kv_heads, keys, _] = k.dims();
        let q = q.mul_scalar(1.0 / (head_dim as f64).sqrt());
        let q = q.reshape([batch, kv_heads, heads / kv_heads * queries, head_dim]);
        let hidden = |first: &usize, key: usize| if key < *first { HIDDEN } else { 0.0 };
        let bias: Vec<f32> =
            first.iter().flat_map(|first| (0..keys).map(move |key| hidden(first, key))).collect();
        let bias = Tensor::from_data(TensorData::new(bias, [batch, 1, 1, keys]), &q.device());
        let scores = Self::product(q, k.swap_dims(2, 3)) + bias;
        Self::product(softmax(scores, 3), v).reshape([batch, heads, queries, head_dim])
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl<B: Kernels, C: burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy> Kernels
    for burn::backend::Autodiff<B, C>
{
}
