//! Kernels of our own for every backend of CubeCL: WebGPU in the browser, WebGPU, Vulkan and CUDA natively.

#![allow(
    clippy::assign_op_pattern,
    clippy::manual_div_ceil,
    clippy::too_many_arguments,
    clippy::trivially_copy_pass_by_ref
)]

mod attention;
mod launch;
mod norm;
mod packed;
mod product;
mod project;
mod rotary;

use burn::tensor::{Int, Tensor};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime};

use self::launch::{Backend, columns, dense, primitive, tensor};
use self::packed::Matrix;
use self::project::Ending;
use super::{Kernels, Packed, PackedMatrix};
use crate::error::Result;

/// The packed matrix as the kernels take it.
fn matrix<R: CubeRuntime, T: BoolElement>(weight: &Packed<Backend<R, T>>) -> Matrix<R> {
    Matrix {
        words: weight.words.clone().into_primitive(),
        scales: dense(weight.scales.clone()),
        shape: weight.shape(),
        format: weight.format(),
    }
}

fn biased<M, R: CubeRuntime, T: BoolElement>(bias: Option<Tensor<Backend<R, T>, 1>>) -> Ending<M, R> {
    bias.map_or(Ending::Nothing, |bias| Ending::Bias(dense(bias)))
}

impl<R: CubeRuntime, T: BoolElement> Kernels for Backend<R, T> {
    fn product<const D: usize>(lhs: Tensor<Self, D>, rhs: Tensor<Self, D>) -> Tensor<Self, D> {
        const { assert!(D >= 2 && D <= 4) };
        tensor(product::product(primitive(lhs), primitive(rhs)))
    }

    fn project(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        bias: Option<Tensor<Self, 1>>,
    ) -> Tensor<Self, 2> {
        tensor(project::project(dense(x), dense(weight), biased(bias)))
    }

    fn project_onto(added: Tensor<Self, 2>, x: Tensor<Self, 2>, weight: Tensor<Self, 2>) -> Tensor<Self, 2> {
        tensor(project::project(dense(x), dense(weight), Ending::Added(dense(added))))
    }

    fn project_gated(x: Tensor<Self, 2>, gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        tensor(project::project(dense(x), dense(gate), Ending::Gate(dense(up))))
    }

    fn project_transposed(x: Tensor<Self, 2>, weight: Tensor<Self, 2>) -> Tensor<Self, 2> {
        tensor(project::project_transposed(dense(x), dense(weight)))
    }

    fn store(matrix: PackedMatrix<'_>, device: &Self::Device) -> Result<Packed<Self>> {
        let (shape, format) = (matrix.shape, matrix.format);
        let (words, scales) = packed::store(matrix, device)?;
        Ok(Packed::of(shape, format, Tensor::from_primitive(words), tensor(scales)))
    }

    fn project_packed(
        x: Tensor<Self, 2>,
        weight: &Packed<Self>,
        bias: Option<Tensor<Self, 1>>,
    ) -> Tensor<Self, 2> {
        tensor(packed::project(dense(x), matrix(weight), biased(bias)))
    }

    fn project_packed_onto(
        added: Tensor<Self, 2>,
        x: Tensor<Self, 2>,
        weight: &Packed<Self>,
    ) -> Tensor<Self, 2> {
        tensor(packed::project(dense(x), matrix(weight), Ending::Added(dense(added))))
    }

    fn project_packed_gated(x: Tensor<Self, 2>, gate: &Packed<Self>, up: &Packed<Self>) -> Tensor<Self, 2> {
        if gate.format() == up.format() {
            return tensor(packed::project(dense(x), matrix(gate), Ending::Gate(matrix(up))));
        }
        Self::swiglu(Self::project_packed(x.clone(), gate, None), Self::project_packed(x, up, None))
    }

    fn packed_rows(weight: &Packed<Self>, ids: Tensor<Self, 1, Int>) -> Tensor<Self, 2> {
        tensor(packed::rows(matrix(weight), ids.into_primitive()))
    }

    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        tensor(norm::norm(dense(x), dense(weight), None, epsilon as f32))
    }

    fn layer_norm(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        bias: Tensor<Self, 1>,
        epsilon: f64,
    ) -> Tensor<Self, 2> {
        tensor(norm::norm(dense(x), dense(weight), Some(dense(bias)), epsilon as f32))
    }

    fn swiglu(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        tensor(norm::swiglu(dense(gate), dense(up)))
    }

    fn rotary(x: Tensor<Self, 4>, cos: Tensor<Self, 2>, sin: Tensor<Self, 2>) -> Tensor<Self, 4> {
        tensor(rotary::rotary(primitive(x), dense(cos), dense(sin)))
    }

    fn rotate_into_cache(
        [q, k, v]: [Tensor<Self, 4>; 3],
        [cos, sin]: [Tensor<Self, 2>; 2],
        by_row: bool,
        [keys, values]: [Tensor<Self, 4>; 2],
        start: usize,
    ) -> [Tensor<Self, 4>; 3] {
        let own = |tensor: CubeTensor<R>| if rotary::is_own(&tensor) { tensor } else { tensor.copy() };
        let [q, keys, values] = [q, keys, values].map(|tensor| own(primitive(tensor)));
        let projected = [q, primitive(k), primitive(v)];
        rotary::rotate_into_cache(projected, [dense(cos), dense(sin)], by_row, [keys, values], start)
            .map(tensor)
    }

    fn causal_bias(_: usize, _: usize, _: usize, _: &Self::Device) -> Option<Tensor<Self, 2>> {
        None
    }

    fn causal_attention(
        q: Tensor<Self, 4>,
        k: Tensor<Self, 4>,
        v: Tensor<Self, 4>,
        start: usize,
        _bias: Option<Tensor<Self, 2>>,
    ) -> Tensor<Self, 4> {
        tensor(attention::attention(columns(q), columns(k), columns(v), start, None))
    }

    fn row_attention(
        q: Tensor<Self, 4>,
        k: Tensor<Self, 4>,
        v: Tensor<Self, 4>,
        first: &[usize],
    ) -> Tensor<Self, 4> {
        let last = k.dims()[2] - 1;
        let first: Vec<i32> = first.iter().map(|first| *first as i32).collect();
        let first = Tensor::<Self, 1, Int>::from_data(first.as_slice(), &q.device()).into_primitive();
        tensor(attention::attention(columns(q), columns(k), columns(v), last, Some(first)))
    }
}

/// Burn's operators on the same devices, to compare with: the integers' type tells them from ours.
impl<R: CubeRuntime, T: BoolElement> Kernels for CubeBackend<R, f32, u32, T> {}
