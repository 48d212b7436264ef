//! Attention of one query a workgroup, in one pass over its keys.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{empty, strides};
use crate::kernels::HIDDEN;

/// Units of a workgroup, and keys that they score at a time.
const UNITS: usize = 64;
/// Units that share a key, so that they read values beside each other.
const LANES: usize = 4;

/// [`LANES`] units score a key together; then each sums up columns of the values, `units` apart. What was summed up
/// is scaled down when a larger score turns up (Milakov and Gimelshein, "Online normalizer calculation for softmax",
/// 2018). Query `i` of row `b` sees the keys from `first[b]` to `last + i`.
#[cube(launch_unchecked)]
fn attention_kernel(
    q: &Array<f32>,
    k: &Array<f32>,
    v: &Array<f32>,
    first: &Array<i32>,
    out: &mut Array<f32>,
    heads: usize,
    queries: usize,
    group: usize,
    keys: usize,
    last: usize,
    scale: f32,
    q_batch: usize,
    q_head: usize,
    q_row: usize,
    k_batch: usize,
    k_head: usize,
    k_row: usize,
    v_batch: usize,
    v_head: usize,
    v_row: usize,
    #[comptime] width: usize,
    #[comptime] units: usize,
    #[comptime] padded: bool,
) {
    let unit = UNIT_POS as usize;
    let (query, head, batch) = (CUBE_POS_X as usize, CUBE_POS_Y as usize, CUBE_POS_Z as usize);
    let each = comptime!(width.div_ceil(units));
    let mut own = SharedMemory::<f32>::new(width);
    let mut parts = SharedMemory::<f32>::new(comptime!(units * LANES));
    let mut scores = SharedMemory::<f32>::new(units);
    let mut weights = SharedMemory::<f32>::new(units);
    let mut sums = Array::<f32>::new(each);
    #[unroll]
    for turn in 0..each {
        let column = turn * units + unit;
        sums[turn] = 0.0;
        if column < width {
            own[column] = q[batch * q_batch + head * q_head + query * q_row + column] * scale;
        }
    }
    let k_start = batch * k_batch + head / group * k_head;
    let v_start = batch * v_batch + head / group * v_head;
    let end = select(last + query + 1 < keys, last + query + 1, keys);
    let mut from = 0usize;
    if comptime!(padded) {
        from = first[batch] as usize;
    }
    let mut largest = f32::new(HIDDEN);
    let mut total = 0.0f32;
    for tile in range_stepped(0, end, units) {
        sync_cube();
        #[unroll]
        for turn in 0..LANES {
            let place = turn * comptime!(units / LANES) + unit / LANES;
            let mut part = 0.0f32;
            if tile + place < end {
                let row = k_start + (tile + place) * k_row;
                for column in range_stepped(unit % LANES, width, LANES) {
                    part += own[column] * k[row + column];
                }
            }
            parts[place * LANES + unit % LANES] = part;
        }
        sync_cube();
        let key = tile + unit;
        let seen = key < end && key >= from;
        let mut score = 0.0f32;
        #[unroll]
        for lane in 0..LANES {
            score += parts[unit * LANES + lane];
        }
        score = select(seen, score, f32::new(HIDDEN));
        scores[unit] = score;
        sync_cube();
        let mut highest = largest;
        #[unroll]
        for place in 0..units {
            highest = max(highest, scores[place]);
        }
        weights[unit] = select(seen, (score - highest).exp(), 0.0);
        let shrunk = (largest - highest).exp();
        largest = highest;
        sync_cube();
        total *= shrunk;
        #[unroll]
        for place in 0..units {
            total += weights[place];
        }
        let count = select(tile + units < end, units, end - tile);
        #[unroll]
        for turn in 0..each {
            let column = turn * units + unit;
            let mut sum = sums[turn] * shrunk;
            if column < width {
                for place in 0..count {
                    sum += weights[place] * v[v_start + (tile + place) * v_row + column];
                }
            }
            sums[turn] = sum;
        }
    }
    let row = (batch * queries + query) * heads + head;
    #[unroll]
    for turn in 0..each {
        let column = turn * units + unit;
        if column < width {
            out[row * width + column] = sums[turn] / total;
        }
    }
}

/// Attention whose query `i` sees the keys up to `last + i`; those of a row from its place in `first` on, if there
/// is one. The output lies as `[batch, queries, heads, head_dim]`.
pub(super) fn attention<R: CubeRuntime>(
    q: CubeTensor<R>,
    k: CubeTensor<R>,
    v: CubeTensor<R>,
    last: usize,
    first: Option<CubeTensor<R>>,
) -> CubeTensor<R> {
    let shape = q.meta.shape();
    let [batch, heads, queries, width] = [shape[0], shape[1], shape[2], shape[3]];
    let [kv_heads, keys] = [k.meta.shape()[1], k.meta.shape()[2]];
    let (client, mut out) = (q.client.clone(), empty(&q, &[batch, queries, heads, width]));
    let (q_strides, k_strides, v_strides) = (strides(&q), strides(&k), strides(&v));
    let padded = first.is_some();
    // An absent one is bound all the same, and is not read.
    let first = first.unwrap_or_else(|| k.clone());
    // Safety: every index is below the sizes of these tensors, whose columns lie beside each other.
    unsafe {
        attention_kernel::launch_unchecked::<R>(
            &client,
            CubeCount::Static(queries as u32, heads as u32, batch as u32),
            CubeDim::new_1d(UNITS as u32),
            q.into_array_arg(),
            k.into_array_arg(),
            v.into_array_arg(),
            first.into_array_arg(),
            out.clone().into_array_arg(),
            heads,
            queries,
            heads / kv_heads,
            keys,
            last,
            1.0 / (width as f32).sqrt(),
            q_strides[0],
            q_strides[1],
            q_strides[2],
            k_strides[0],
            k_strides[1],
            k_strides[2],
            v_strides[0],
            v_strides[1],
            v_strides[2],
            width,
            UNITS,
            padded,
        );
    }
    out.meta.swap(1, 2);
    out
}
