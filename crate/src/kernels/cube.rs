//! WebGPU in the browser: a matrix product of our own.
//!
//! Burn's carries every strategy that it can choose from: two thirds of what a page would
//! download for a GPU, and on a software adapter the slower product.

use burn::backend::wgpu::{CubeTensor, Wgpu, WgpuRuntime};
use burn::tensor::{Tensor, TensorPrimitive};
use cubecl::prelude::*;

use super::Kernels;

/// How many rows a unit computes with each value of the right matrix that it loads.
const GROUP: usize = 8;
/// Units of a workgroup.
const UNITS: u32 = 64;

/// One column of [`GROUP`] (or fewer) rows of `lhs · rhs` a unit. A matrix has a stride for its
/// rows and one for its columns, and one for the outer and the inner batch.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, clippy::assign_op_pattern, clippy::manual_div_ceil)]
fn product(
    lhs: &Array<f32>,
    rhs: &Array<f32>,
    out: &mut Array<f32>,
    inner_batch: usize,
    units: usize,
    rows: usize,
    columns: usize,
    inner: usize,
    lhs_outer: usize,
    lhs_inner: usize,
    lhs_row: usize,
    lhs_column: usize,
    rhs_outer: usize,
    rhs_inner: usize,
    rhs_row: usize,
    rhs_column: usize,
    #[comptime] group: usize,
) {
    if ABSOLUTE_POS >= units {
        terminate!();
    }
    let groups = (rows + group - 1) / group;
    let column = ABSOLUTE_POS % columns;
    let first = ABSOLUTE_POS / columns % groups * group;
    let batch = ABSOLUTE_POS / columns / groups;
    let left = batch / inner_batch * lhs_outer + batch % inner_batch * lhs_inner + first * lhs_row;
    let right = batch / inner_batch * rhs_outer + batch % inner_batch * rhs_inner + column * rhs_column;
    let mut sums = Array::<f32>::new(group);
    let mut starts = Array::<usize>::new(group);
    #[unroll]
    for row in 0..group {
        sums[row] = 0.0;
        // A row behind the last one is the last one again, and is not written.
        starts[row] = left + select(first + row < rows, row, rows - 1 - first) * lhs_row;
    }
    for k in 0..inner {
        let value = rhs[right + k * rhs_row];
        #[unroll]
        for row in 0..group {
            sums[row] = sums[row] + lhs[starts[row] + k * lhs_column] * value;
        }
    }
    #[unroll]
    for row in 0..group {
        if first + row < rows {
            out[(batch * rows + first + row) * columns + column] = sums[row];
        }
    }
}

/// Strides of the batches, rows and columns.
fn strides(tensor: &CubeTensor<WgpuRuntime>) -> [usize; 4] {
    let strides = tensor.meta.strides();
    let mut all = [0; 4];
    for (place, stride) in strides.iter().rev().enumerate() {
        all[3 - place] = *stride;
    }
    all
}

impl Kernels for Wgpu {
    fn product<const D: usize>(lhs: Tensor<Self, D>, rhs: Tensor<Self, D>) -> Tensor<Self, D> {
        const { assert!(D >= 2 && D <= 4) };
        let (left, right) = (lhs.dims(), rhs.dims());
        debug_assert!(left[..D - 2] == right[..D - 2] && left[D - 1] == right[D - 2]);
        let (rows, inner, columns) = (left[D - 2], left[D - 1], right[D - 1]);
        let (lhs, rhs) = (lhs.into_primitive().tensor(), rhs.into_primitive().tensor());
        let batch: usize = left[..D - 2].iter().product();
        let inner_batch = if D > 2 { left[D - 3] } else { 1 };
        let mut shape = left;
        shape[D - 1] = columns;
        let client = lhs.client.clone();
        let out = CubeTensor::new_contiguous(
            client.clone(),
            lhs.device.clone(),
            shape.to_vec().into(),
            client.empty(batch * rows * columns * size_of::<f32>()),
            lhs.dtype,
        );
        let group = if rows == 1 { 1 } else { GROUP };
        let units = batch * rows.div_ceil(group) * columns;
        let cube_dim = CubeDim::new_1d(UNITS);
        let (l, r) = (strides(&lhs), strides(&rhs));
        // Safety: every index is below the sizes that were checked above.
        unsafe {
            product::launch_unchecked::<WgpuRuntime>(
                &client,
                cubecl::calculate_cube_count_elemwise(&client, units, cube_dim),
                cube_dim,
                lhs.into_array_arg(),
                rhs.into_array_arg(),
                out.clone().into_array_arg(),
                inner_batch,
                units,
                rows,
                columns,
                inner,
                l[0],
                l[1],
                l[2],
                l[3],
                r[0],
                r[1],
                r[2],
                r[3],
                group,
            );
        }
        Tensor::from_primitive(TensorPrimitive::Float(out))
    }
}
