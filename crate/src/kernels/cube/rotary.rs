//! The rotary position embedding.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{empty, strides, workgroups};

/// Units of a workgroup.
const UNITS: usize = 64;

/// A pair of values a unit.
#[cube(launch_unchecked)]
fn rotary_kernel(
    x: &Array<f32>,
    cos: &Array<f32>,
    sin: &Array<f32>,
    out: &mut Array<f32>,
    pairs: usize,
    heads: usize,
    length: usize,
    half: usize,
    batch_stride: usize,
    head_stride: usize,
    row_stride: usize,
    column_stride: usize,
) {
    if ABSOLUTE_POS >= pairs {
        terminate!();
    }
    let place = ABSOLUTE_POS % half;
    let line = ABSOLUTE_POS / half;
    let row = line % length;
    let head = line / length % heads;
    let batch = line / length / heads;
    let from = batch * batch_stride + head * head_stride + row * row_stride + place * column_stride;
    let (first, second) = (x[from], x[from + half * column_stride]);
    let (cos, sin) = (cos[row * half + place], sin[row * half + place]);
    let to = line * 2 * half + place;
    out[to] = first * cos - second * sin;
    out[to + half] = second * cos + first * sin;
}

/// Turns `x`, of any strides, by dense angles.
pub(super) fn rotary<R: CubeRuntime>(
    x: CubeTensor<R>,
    cos: CubeTensor<R>,
    sin: CubeTensor<R>,
) -> CubeTensor<R> {
    let shape = x.meta.shape().to_vec();
    let (heads, length, half) = (shape[1], shape[2], shape[3] / 2);
    let pairs = shape.iter().product::<usize>() / 2;
    let (client, out) = (x.client.clone(), empty(&x, &shape));
    let strides = strides(&x);
    // Safety: every index is below the sizes of these tensors.
    unsafe {
        rotary_kernel::launch_unchecked::<R>(
            &client,
            workgroups(pairs.div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            x.into_array_arg(),
            cos.into_array_arg(),
            sin.into_array_arg(),
            out.clone().into_array_arg(),
            pairs,
            heads,
            length,
            half,
            strides[0],
            strides[1],
            strides[2],
            strides[3],
        );
    }
    out
}

/// Where a tensor's values lie.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Strides {
    batch: usize,
    head: usize,
    row: usize,
    column: usize,
}

#[cube]
fn place(strides: &Strides, batch: usize, head: usize, row: usize, column: usize) -> usize {
    batch * strides.batch + head * strides.head + row * strides.row + column * strides.column
}

/// Two values half a head apart a unit: first those of the queries, then of the keys, then of the values.
#[cube(launch_unchecked)]
fn cache_kernel(
    q: &mut Array<f32>,
    k: &Array<f32>,
    v: &Array<f32>,
    cos: &Array<f32>,
    sin: &Array<f32>,
    keys: &mut Array<f32>,
    values: &mut Array<f32>,
    units: usize,
    heads: usize,
    kv_heads: usize,
    length: usize,
    half: usize,
    start: usize,
    q_strides: Strides,
    k_strides: Strides,
    v_strides: Strides,
    keys_strides: Strides,
    values_strides: Strides,
    #[comptime] by_row: bool,
) {
    if ABSOLUTE_POS >= units {
        terminate!();
    }
    let column = ABSOLUTE_POS % half;
    let line = ABSOLUTE_POS / half;
    let row = line % length;
    let head = line / length % (heads + 2 * kv_heads);
    let batch = line / length / (heads + 2 * kv_heads);
    if head >= heads + kv_heads {
        let head = head - heads - kv_heads;
        let from = place(&v_strides, batch, head, row, column);
        let to = place(&values_strides, batch, head, start + row, column);
        values[to] = v[from];
        values[to + half * values_strides.column] = v[from + half * v_strides.column];
    } else {
        let angle = if comptime!(by_row) { batch } else { row } * half + column;
        let (cos, sin) = (cos[angle], sin[angle]);
        if head < heads {
            let at = place(&q_strides, batch, head, row, column);
            let (first, second) = (q[at], q[at + half * q_strides.column]);
            q[at] = first * cos - second * sin;
            q[at + half * q_strides.column] = second * cos + first * sin;
        } else {
            let head = head - heads;
            let from = place(&k_strides, batch, head, row, column);
            let to = place(&keys_strides, batch, head, start + row, column);
            let (first, second) = (k[from], k[from + half * k_strides.column]);
            keys[to] = first * cos - second * sin;
            keys[to + half * keys_strides.column] = second * cos + first * sin;
        }
    }
}

fn launch_strides<R: CubeRuntime>(tensor: &CubeTensor<R>) -> StridesLaunch<R> {
    let [batch, head, row, column] = strides(tensor);
    StridesLaunch::new(batch, head, row, column)
}

/// Whether a tensor's values may be changed where they are.
pub(super) fn is_own<R: CubeRuntime>(tensor: &CubeTensor<R>) -> bool {
    tensor.can_mut() && tensor.is_nonoverlapping()
}

/// Turns queries where they are, and keys on their way into the buffer; values follow them.
pub(super) fn rotate_into_cache<R: CubeRuntime>(
    [q, k, v]: [CubeTensor<R>; 3],
    [cos, sin]: [CubeTensor<R>; 2],
    by_row: bool,
    [keys, values]: [CubeTensor<R>; 2],
    start: usize,
) -> [CubeTensor<R>; 3] {
    let shape = q.meta.shape();
    let (heads, length, half) = (shape[1], shape[2], shape[3] / 2);
    let kv_heads = k.meta.shape()[1];
    let units = shape[0] * (heads + 2 * kv_heads) * length * half;
    let client = q.client.clone();
    let all = [&q, &k, &v, &keys, &values].map(launch_strides);
    let [q_strides, k_strides, v_strides, keys_strides, values_strides] = all;
    // Safety: every index is below the sizes of these tensors.
    unsafe {
        cache_kernel::launch_unchecked::<R>(
            &client,
            workgroups(units.div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            q.clone().into_array_arg(),
            k.into_array_arg(),
            v.into_array_arg(),
            cos.into_array_arg(),
            sin.into_array_arg(),
            keys.clone().into_array_arg(),
            values.clone().into_array_arg(),
            units,
            heads,
            kv_heads,
            length,
            half,
            start,
            q_strides,
            k_strides,
            v_strides,
            keys_strides,
            values_strides,
            by_row,
        );
    }
    [q, keys, values]
}
