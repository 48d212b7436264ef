//! The matrix product of any strides.
//!
//! Burn's carries every strategy that it can choose from: two thirds of what a page would
//! download for a GPU, and on a software adapter the slower product.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{empty, strides};

/// How many rows a unit computes with each value of the right matrix that it loads.
const GROUP: usize = 8;
/// Units of a workgroup.
const UNITS: u32 = 64;

/// One column of [`GROUP`] (or fewer) rows of `lhs · rhs` a unit. A matrix has a stride for its
/// rows and one for its columns, and one for the outer and the inner batch.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, clippy::assign_op_pattern, clippy::manual_div_ceil)]
fn product_kernel(
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

/// The product of the last two of `dimensions`; the others are alike.
pub(super) fn product<R: CubeRuntime>(lhs: CubeTensor<R>, rhs: CubeTensor<R>) -> CubeTensor<R> {
    let left = lhs.meta.shape().to_vec();
    let (rank, columns) = (left.len(), rhs.meta.shape()[left.len() - 1]);
    let (rows, inner) = (left[rank - 2], left[rank - 1]);
    debug_assert!(left[..rank - 2] == rhs.meta.shape()[..rank - 2] && inner == rhs.meta.shape()[rank - 2]);
    let batch: usize = left[..rank - 2].iter().product();
    let inner_batch = if rank > 2 { left[rank - 3] } else { 1 };
    let mut shape = left;
    shape[rank - 1] = columns;
    let (client, out) = (lhs.client.clone(), empty(&lhs, &shape));
    let group = if rows == 1 { 1 } else { GROUP };
    let units = batch * rows.div_ceil(group) * columns;
    let cube_dim = CubeDim::new_1d(UNITS);
    let (l, r) = (strides(&lhs), strides(&rhs));
    // Safety: every index is below the sizes that were checked above.
    unsafe {
        product_kernel::launch_unchecked::<R>(
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
    out
}
