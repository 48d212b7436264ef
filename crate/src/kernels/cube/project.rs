//! Products of few rows with a matrix of weights.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::empty;
use super::norm::gate;

/// How the units of a workgroup share its part of a product, and what becomes of the sums.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Plan {
    /// Rows that a unit computes with each weight it loads.
    pub(super) rows: usize,
    /// Units beside each other, which load weights beside each other.
    pub(super) lanes: usize,
    /// Columns that a unit computes, `lanes` apart.
    pub(super) columns: usize,
    /// Parts of the inner dimension, each of its own units.
    pub(super) slices: usize,
    /// Rows of weights that a turn of the loop has.
    pub(super) turns: usize,
    /// A bias for each column is added.
    pub(super) biased: bool,
    /// Values for each row and column are added.
    pub(super) added: bool,
    /// There are two matrices, the gate's and the other.
    pub(super) gated: bool,
}

/// Where a unit's rows and columns are, and its part of the inner dimension.
#[derive(CubeType)]
pub(super) struct Part {
    pub(super) columns: Array<usize>,
    pub(super) rows: Array<usize>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The part of this unit; `length` is divided among the slices.
#[cube]
pub(super) fn part(rows: usize, columns: usize, inner: usize, length: usize, #[comptime] plan: Plan) -> Part {
    let first_column = CUBE_POS_X as usize * (plan.lanes * plan.columns) + UNIT_POS_X as usize;
    let first_row = CUBE_POS_Y as usize * plan.rows;
    let slice = (length + plan.slices - 1) / plan.slices;
    let behind = (UNIT_POS_Y as usize + 1) * slice;
    let start = select(behind - slice < length, behind - slice, length);
    let end = select(behind < length, behind, length);
    let mut places = Array::<usize>::new(plan.columns);
    let mut starts = Array::<usize>::new(plan.rows);
    // What is behind the last is the last once more, and is not written.
    #[unroll]
    for c in 0..plan.columns {
        let column = first_column + c * plan.lanes;
        places[c] = select(column < columns, column, columns - 1);
    }
    #[unroll]
    for r in 0..plan.rows {
        starts[r] = select(first_row + r < rows, first_row + r, rows - 1) * inner;
    }
    Part { columns: places, rows: starts, start, end }
}

/// `x W + bias`, `x W + added` or `silu(x W) · x W'`; `other` is the bias, what is added, or W'.
#[cube(launch_unchecked)]
fn project_kernel(
    x: &Array<f32>,
    weight: &Array<f32>,
    other: &Array<f32>,
    out: &mut Array<f32>,
    rows: usize,
    columns: usize,
    inner: usize,
    #[comptime] plan: Plan,
) {
    let items = comptime!(plan.rows * plan.columns);
    let count = comptime!(if plan.gated { 2 * items } else { items });
    let part = part(rows, columns, inner, inner, plan);
    let mut sums = Array::<f32>::new(count);
    #[unroll]
    for item in 0..count {
        sums[item] = 0.0;
    }
    let whole = part.start + (part.end - part.start) / plan.turns * plan.turns;
    for first in range_stepped(part.start, whole, plan.turns) {
        #[unroll]
        for turn in 0..plan.turns {
            step(x, weight, other, &mut sums, &part, first + turn, columns, plan);
        }
    }
    if comptime!(plan.turns > 1) {
        for k in whole..part.end {
            step(x, weight, other, &mut sums, &part, k, columns, plan);
        }
    }
    finish(&sums, other, out, rows, columns, plan);
}

/// Row `k` of the weights.
#[cube]
fn step(
    x: &Array<f32>,
    weight: &Array<f32>,
    other: &Array<f32>,
    sums: &mut Array<f32>,
    part: &Part,
    k: usize,
    columns: usize,
    #[comptime] plan: Plan,
) {
    let matrices = comptime!(if plan.gated { 2 } else { 1 });
    let mut weights = Array::<f32>::new(comptime!(matrices * plan.columns));
    #[unroll]
    for c in 0..plan.columns {
        let place = part.columns[c] + k * columns;
        weights[c] = weight[place];
        if comptime!(plan.gated) {
            weights[plan.columns + c] = other[place];
        }
    }
    #[unroll]
    for r in 0..plan.rows {
        let value = x[part.rows[r] + k];
        #[unroll]
        for matrix in 0..matrices {
            #[unroll]
            for c in 0..plan.columns {
                let item = (matrix * plan.rows + r) * plan.columns + c;
                sums[item] = sums[item] + value * weights[matrix * plan.columns + c];
            }
        }
    }
}

/// Adds up what the slices computed, and writes. `other`: the bias, or what is added.
#[cube]
pub(super) fn finish(
    sums: &Array<f32>,
    other: &Array<f32>,
    out: &mut Array<f32>,
    rows: usize,
    columns: usize,
    #[comptime] plan: Plan,
) {
    let items = comptime!(plan.rows * plan.columns);
    let count = comptime!(if plan.gated { 2 * items } else { items });
    if comptime!(plan.slices == 1) {
        #[unroll]
        for item in 0..items {
            let mut value = sums[item];
            if comptime!(plan.gated) {
                value = gate(value) * sums[items + item];
            }
            write(value, item, other, out, rows, columns, plan);
        }
    } else {
        let mut shared = SharedMemory::<f32>::new(comptime!(count * plan.slices * plan.lanes));
        let (lane, slice) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
        #[unroll]
        for item in 0..count {
            shared[(item * plan.slices + slice) * plan.lanes + lane] = sums[item];
        }
        sync_cube();
        let turns = comptime!(items.div_ceil(plan.slices));
        #[unroll]
        for turn in 0..turns {
            let item = turn * plan.slices + slice;
            if item < items {
                let mut value = total(&shared, item, plan);
                if comptime!(plan.gated) {
                    value = gate(value) * total(&shared, items + item, plan);
                }
                write(value, item, other, out, rows, columns, plan);
            }
        }
    }
}

/// What the slices computed of an item.
#[cube]
fn total(shared: &SharedMemory<f32>, item: usize, #[comptime] plan: Plan) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for slice in 0..plan.slices {
        sum += shared[(item * plan.slices + slice) * plan.lanes + UNIT_POS_X as usize];
    }
    sum
}

/// Item `r · plan.columns + c`, with what is added.
#[cube]
fn write(
    sum: f32,
    item: usize,
    other: &Array<f32>,
    out: &mut Array<f32>,
    rows: usize,
    columns: usize,
    #[comptime] plan: Plan,
) {
    let row = CUBE_POS_Y as usize * plan.rows + item / plan.columns;
    let first = CUBE_POS_X as usize * (plan.lanes * plan.columns) + UNIT_POS_X as usize;
    let column = first + item % plan.columns * plan.lanes;
    if row < rows && column < columns {
        let mut value = sum;
        if comptime!(plan.biased) {
            value += other[column];
        }
        if comptime!(plan.added) {
            value += other[row * columns + column];
        }
        out[row * columns + column] = value;
    }
}

/// `x Wᵀ`. The lanes share the inner dimension, along which the weights lie beside each other.
#[cube(launch_unchecked)]
fn transposed_kernel(
    x: &Array<f32>,
    weight: &Array<f32>,
    out: &mut Array<f32>,
    rows: usize,
    columns: usize,
    inner: usize,
    #[comptime] plan: Plan,
) {
    let items = comptime!(plan.rows * plan.columns);
    let (lane, own) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let first_column = (CUBE_POS_X as usize * plan.slices + own) * plan.columns;
    let first_row = CUBE_POS_Y as usize * plan.rows;
    let mut sums = Array::<f32>::new(items);
    let mut places = Array::<usize>::new(plan.columns);
    let mut starts = Array::<usize>::new(plan.rows);
    #[unroll]
    for i in 0..items {
        sums[i] = 0.0;
    }
    // What is behind the last is the last once more, and is not written.
    #[unroll]
    for c in 0..plan.columns {
        places[c] = select(first_column + c < columns, first_column + c, columns - 1) * inner;
    }
    #[unroll]
    for r in 0..plan.rows {
        starts[r] = select(first_row + r < rows, first_row + r, rows - 1) * inner;
    }
    for k in range_stepped(lane, inner, plan.lanes) {
        #[unroll]
        for r in 0..plan.rows {
            let value = x[starts[r] + k];
            #[unroll]
            for c in 0..plan.columns {
                sums[r * plan.columns + c] = sums[r * plan.columns + c] + value * weight[places[c] + k];
            }
        }
    }
    let mut shared = SharedMemory::<f32>::new(comptime!(items * plan.lanes * plan.slices));
    #[unroll]
    for item in 0..items {
        shared[(own * plan.lanes + lane) * items + item] = sums[item];
    }
    sync_cube();
    for item in range_stepped(lane, items, plan.lanes) {
        let mut sum = 0.0f32;
        #[unroll]
        for part in 0..plan.lanes {
            sum += shared[(own * plan.lanes + part) * items + item];
        }
        let (row, column) = (first_row + item / plan.columns, first_column + item % plan.columns);
        if row < rows && column < columns {
            out[row * columns + column] = sum;
        }
    }
}

/// What becomes of a product.
pub(super) enum Ending<M, R: CubeRuntime> {
    Nothing,
    /// A bias for each column is added.
    Bias(CubeTensor<R>),
    /// Values for each row and column are added.
    Added(CubeTensor<R>),
    /// It is the gate of a product with another matrix.
    Gate(M),
}

impl Plan {
    /// For a product with a matrix whose columns' weights lie behind each other.
    pub(super) fn new<M, R: CubeRuntime>(x: &CubeTensor<R>, columns: usize, ending: &Ending<M, R>) -> Self {
        let [columns, slices] = if is_wide(x, columns) { [1, 8] } else { [4, 1] };
        let rows = rows(x);
        Self {
            rows,
            lanes: 32,
            columns,
            slices,
            turns: if rows == 1 { 4 } else { 1 },
            biased: matches!(ending, Ending::Bias(_)),
            added: matches!(ending, Ending::Added(_)),
            gated: matches!(ending, Ending::Gate(_)),
        }
    }

    /// For a product with a matrix whose columns' weights lie beside each other; the slices are of its columns.
    fn transposed<R: CubeRuntime>(x: &CubeTensor<R>, columns: usize) -> Self {
        let rows = rows(x);
        let [lanes, columns, slices] =
            if is_wide(x, columns) { [32, 4, 4] } else { [4, (32 / rows).min(16), 8] };
        Self { rows, lanes, columns, slices, turns: 1, biased: false, added: false, gated: false }
    }

    pub(super) fn cubes(&self, rows: usize, columns: usize) -> CubeCount {
        let columns = columns.div_ceil(self.lanes * self.columns);
        CubeCount::Static(columns as u32, rows.div_ceil(self.rows) as u32, 1)
    }

    pub(super) fn units(&self) -> CubeDim {
        CubeDim::new_2d(self.lanes as u32, self.slices as u32)
    }
}

/// How many rows a unit computes.
fn rows<R: CubeRuntime>(x: &CubeTensor<R>) -> usize {
    x.meta.shape()[0].next_power_of_two().min(8)
}

/// Whether many units should share a column: where planes are wide, waiting for each other costs less than idle
/// units, and few columns would leave most of them idle. A software adapter's planes are of four units, and a barrier
/// costs it more than it gains (measured: 256 × 256 in 0.25 ms without, in 2.9 ms by eight slices).
fn is_wide<R: CubeRuntime>(x: &CubeTensor<R>, columns: usize) -> bool {
    columns < 64 || x.client.properties().hardware.plane_size_min >= 16
}

/// `x W` and what becomes of it, all dense.
pub(super) fn project<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: CubeTensor<R>,
    ending: Ending<CubeTensor<R>, R>,
) -> CubeTensor<R> {
    let [rows, inner] = [x.meta.shape()[0], x.meta.shape()[1]];
    let columns = weight.meta.shape()[1];
    let (client, out) = (x.client.clone(), empty(&x, &[rows, columns]));
    let plan = Plan::new(&x, columns, &ending);
    let other = match ending {
        // Bound all the same, and not read.
        Ending::Nothing => weight.clone(),
        Ending::Bias(other) | Ending::Added(other) | Ending::Gate(other) => other,
    };
    // Safety: every index is below the sizes of these dense tensors.
    unsafe {
        project_kernel::launch_unchecked::<R>(
            &client,
            plan.cubes(rows, columns),
            plan.units(),
            x.into_array_arg(),
            weight.into_array_arg(),
            other.into_array_arg(),
            out.clone().into_array_arg(),
            rows,
            columns,
            inner,
            plan,
        );
    }
    out
}

/// `x Wᵀ`, both dense.
pub(super) fn project_transposed<R: CubeRuntime>(x: CubeTensor<R>, weight: CubeTensor<R>) -> CubeTensor<R> {
    let [rows, inner] = [x.meta.shape()[0], x.meta.shape()[1]];
    let columns = weight.meta.shape()[0];
    let (client, out) = (x.client.clone(), empty(&x, &[rows, columns]));
    let plan = Plan::transposed(&x, columns);
    let cubes = columns.div_ceil(plan.slices * plan.columns);
    // Safety: every index is below the sizes of these dense tensors.
    unsafe {
        transposed_kernel::launch_unchecked::<R>(
            &client,
            CubeCount::Static(cubes as u32, rows.div_ceil(plan.rows) as u32, 1),
            plan.units(),
            x.into_array_arg(),
            weight.into_array_arg(),
            out.clone().into_array_arg(),
            rows,
            columns,
            inner,
            plan,
        );
    }
    out
}
