//! Products with packed matrices, and their rows.
//!
//! Word `w` of row `r` lies at `w · rows + r`, and so do the scales: neighbouring units, which compute neighbouring
//! rows, read neighbouring words.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{empty, workgroups};
use super::project::{Ending, Part, Plan, finish, part};
use crate::kernels::packed::{GROUP, row_groups, row_words};

/// Units of a workgroup that unpacks rows.
const UNITS: usize = 64;

/// The code at a place of a word, as a number.
#[cube]
fn code(word: i32, place: usize, #[comptime] bits: usize) -> f32 {
    let up = word << ((comptime!(32 - bits) - place * bits) as i32);
    f32::cast_from(up >> (comptime!(32 - bits) as i32))
}

/// Adds to the sums from `first_item` on.
#[cube]
fn accumulate(
    x: &Array<f32>,
    words: &Array<i32>,
    scales: &Array<f32>,
    sums: &mut Array<f32>,
    part: &Part,
    columns: usize,
    inner: usize,
    word_count: usize,
    #[comptime] first_item: usize,
    #[comptime] plan: Plan,
    #[comptime] bits: usize,
    #[comptime] ragged: bool,
) {
    let codes = comptime!(32 / bits);
    let group_words = comptime!(GROUP * bits / 32);
    let items = comptime!(plan.rows * plan.columns);
    for group in part.start..part.end {
        let first = group * group_words;
        let behind = select(first + group_words < word_count, first + group_words, word_count);
        let mut parts = Array::<f32>::new(items);
        #[unroll]
        for item in 0..items {
            parts[item] = 0.0;
        }
        for index in first..behind {
            let mut own = Array::<i32>::new(plan.columns);
            #[unroll]
            for c in 0..plan.columns {
                own[c] = words[part.columns[c] + index * columns];
            }
            #[unroll(plan.rows == 1)]
            for place in 0..codes {
                let mut k = index * codes + place;
                if comptime!(ragged) {
                    // The codes behind the last column are 0.
                    k = select(k < inner, k, inner - 1);
                }
                let mut values = Array::<f32>::new(plan.columns);
                #[unroll]
                for c in 0..plan.columns {
                    values[c] = code(own[c], place, bits);
                }
                #[unroll]
                for r in 0..plan.rows {
                    let value = x[part.rows[r] + k];
                    #[unroll]
                    for c in 0..plan.columns {
                        let item = r * plan.columns + c;
                        parts[item] = parts[item] + value * values[c];
                    }
                }
            }
        }
        #[unroll]
        for c in 0..plan.columns {
            let scale = scales[part.columns[c] + group * columns];
            #[unroll]
            for r in 0..plan.rows {
                let item = r * plan.columns + c;
                sums[first_item + item] = sums[first_item + item] + parts[item] * scale;
            }
        }
    }
}

/// `x Wᵀ + bias`, `x Wᵀ + added` or `silu(x Wᵀ) · x W'ᵀ`; `other` is the bias, what is added, or the scales of W'.
/// `ragged`: the last word of a row is not full.
#[cube(launch_unchecked)]
fn project_kernel(
    x: &Array<f32>,
    words: &Array<i32>,
    scales: &Array<f32>,
    other_words: &Array<i32>,
    other: &Array<f32>,
    out: &mut Array<f32>,
    rows: usize,
    columns: usize,
    inner: usize,
    word_count: usize,
    groups: usize,
    #[comptime] plan: Plan,
    #[comptime] bits: usize,
    #[comptime] ragged: bool,
) {
    let items = comptime!(plan.rows * plan.columns);
    let count = comptime!(if plan.gated { 2 * items } else { items });
    let part = part(rows, columns, inner, groups, plan);
    let mut sums = Array::<f32>::new(count);
    #[unroll]
    for item in 0..count {
        sums[item] = 0.0;
    }
    accumulate(x, words, scales, &mut sums, &part, columns, inner, word_count, 0usize, plan, bits, ragged);
    if comptime!(plan.gated) {
        accumulate(
            x,
            other_words,
            other,
            &mut sums,
            &part,
            columns,
            inner,
            word_count,
            items,
            plan,
            bits,
            ragged,
        );
    }
    finish(&sums, other, out, rows, columns, plan);
}

/// A word a unit.
#[cube(launch_unchecked)]
fn rows_kernel(
    words: &Array<i32>,
    scales: &Array<f32>,
    ids: &Array<i32>,
    out: &mut Array<f32>,
    units: usize,
    rows: usize,
    columns: usize,
    word_count: usize,
    #[comptime] bits: usize,
) {
    if ABSOLUTE_POS >= units {
        terminate!();
    }
    let codes = comptime!(32 / bits);
    let (line, index) = (ABSOLUTE_POS / word_count, ABSOLUTE_POS % word_count);
    let row = ids[line] as usize;
    let word = words[index * rows + row];
    let scale = scales[index * codes / GROUP * rows + row];
    #[unroll]
    for place in 0..codes {
        let column = index * codes + place;
        if column < columns {
            out[line * columns + column] = code(word, place, bits) * scale;
        }
    }
}

/// The words and scales of a packed matrix `[columns, inner]`, and the bits of a code.
pub(super) struct Matrix<R: CubeRuntime> {
    pub(super) words: CubeTensor<R>,
    pub(super) scales: CubeTensor<R>,
    pub(super) shape: [usize; 2],
    pub(super) bits: usize,
}

/// `x Wᵀ` and what becomes of it, all dense.
pub(super) fn project<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: Matrix<R>,
    ending: Ending<Matrix<R>, R>,
) -> CubeTensor<R> {
    let rows = x.meta.shape()[0];
    let ([columns, inner], bits) = (weight.shape, weight.bits);
    let (client, out) = (x.client.clone(), empty(&x, &[rows, columns]));
    let plan = Plan::new(&x, columns, &ending);
    let (other_words, other) = match ending {
        // Bound all the same, and not read.
        Ending::Nothing => (weight.words.clone(), weight.scales.clone()),
        Ending::Bias(other) | Ending::Added(other) => (weight.words.clone(), other),
        Ending::Gate(other) => (other.words, other.scales),
    };
    // Safety: every index is below the sizes of these dense tensors.
    unsafe {
        project_kernel::launch_unchecked::<R>(
            &client,
            plan.cubes(rows, columns),
            plan.units(),
            x.into_array_arg(),
            weight.words.into_array_arg(),
            weight.scales.into_array_arg(),
            other_words.into_array_arg(),
            other.into_array_arg(),
            out.clone().into_array_arg(),
            rows,
            columns,
            inner,
            row_words(inner, bits),
            row_groups(inner),
            plan,
            bits,
            !(inner * bits).is_multiple_of(32),
        );
    }
    out
}

/// Some of the rows.
pub(super) fn rows<R: CubeRuntime>(weight: Matrix<R>, ids: CubeTensor<R>) -> CubeTensor<R> {
    let count = ids.meta.shape()[0];
    let ([rows, columns], bits) = (weight.shape, weight.bits);
    let (client, out) = (ids.client.clone(), empty(&weight.scales, &[count, columns]));
    let words = row_words(columns, bits);
    // Safety: every index is below the sizes of these dense tensors, if the ids are below the count of rows.
    unsafe {
        rows_kernel::launch_unchecked::<R>(
            &client,
            workgroups((count * words).div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            weight.words.into_array_arg(),
            weight.scales.into_array_arg(),
            ids.into_array_arg(),
            out.clone().into_array_arg(),
            count * words,
            rows,
            columns,
            words,
            bits,
        );
    }
    out
}
