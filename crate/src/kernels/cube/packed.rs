//! Products with packed matrices, and their rows.
//!
//! Word `w` of row `r` lies at `w · rows + r`, and so do the scales: neighbouring units, which compute neighbouring
//! rows, read neighbouring words. Floats of 16 bits are unpacked by their bits: not every adapter has `shader-f16`.

use burn::tensor::{Bytes, DType};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{empty, workgroups};
use super::project::{Ending, Part, Plan, finish, part};
use crate::error::{Error, Result};
use crate::kernels::packed::{Format, GROUP, PackedMatrix, row_groups};

/// Units of a workgroup that unpacks rows.
const UNITS: usize = 64;

/// The code at a place of a word, as a number.
#[cube]
fn code(word: i32, place: usize, #[comptime] format: Format) -> f32 {
    let bits = comptime!(format.bits());
    let up = word << ((comptime!(32 - bits) - place * bits) as i32);
    if comptime!(format.is_scaled()) {
        f32::cast_from(up >> (comptime!(32 - bits) as i32))
    } else if comptime!(format == Format::F16) {
        half(u32::reinterpret(up))
    } else {
        // Of two codes the other one's bits are left.
        f32::reinterpret(up & comptime!(-1i32 << (32 - bits)))
    }
}

/// The float that the upper half of `bits` is, as `kernels::scalar` has it: without floats that a GPU takes for 0.
#[cube]
fn half(bits: u32) -> f32 {
    let size = (bits >> 16u32) & 0x7fffu32;
    let normal = f32::reinterpret((size << 13u32) + comptime!(112u32 << 23));
    let small = f32::cast_from(size) * comptime!(1.0f32 / 16_777_216.0);
    let value = select(size < 0x400u32, small, normal);
    select(bits >= comptime!(1u32 << 31), -value, value)
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
    #[comptime] format: Format,
    #[comptime] ragged: bool,
) {
    let codes = comptime!(32 / format.bits());
    let group_words = comptime!(GROUP * format.bits() / 32);
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
                    values[c] = code(own[c], place, format);
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
            let mut scale = 1.0f32;
            if comptime!(format.is_scaled()) {
                scale = scales[part.columns[c] + group * columns];
            }
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
    #[comptime] format: Format,
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
    accumulate(x, words, scales, &mut sums, &part, columns, inner, word_count, 0usize, plan, format, ragged);
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
            format,
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
    #[comptime] format: Format,
) {
    if ABSOLUTE_POS >= units {
        terminate!();
    }
    let codes = comptime!(32 / format.bits());
    let (line, index) = (ABSOLUTE_POS / word_count, ABSOLUTE_POS % word_count);
    let row = ids[line] as usize;
    let word = words[index * rows + row];
    let mut scale = 1.0f32;
    if comptime!(format.is_scaled()) {
        scale = scales[index * codes / GROUP * rows + row];
    }
    #[unroll]
    for place in 0..codes {
        let column = index * codes + place;
        if column < columns {
            out[line * columns + column] = code(word, place, format) * scale;
        }
    }
}

/// The words and scales of a packed matrix `[columns, inner]`, and what its codes are.
pub(super) struct Matrix<R: CubeRuntime> {
    pub(super) words: CubeTensor<R>,
    pub(super) scales: CubeTensor<R>,
    pub(super) shape: [usize; 2],
    pub(super) format: Format,
}

/// `x Wᵀ` and what becomes of it, all dense.
pub(super) fn project<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: Matrix<R>,
    ending: Ending<Matrix<R>, R>,
) -> CubeTensor<R> {
    let rows = x.meta.shape()[0];
    let ([columns, inner], format) = (weight.shape, weight.format);
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
            format.row_words(inner),
            row_groups(inner),
            plan,
            format,
            !(inner * format.bits()).is_multiple_of(32),
        );
    }
    out
}

/// Some of the rows.
pub(super) fn rows<R: CubeRuntime>(weight: Matrix<R>, ids: CubeTensor<R>) -> CubeTensor<R> {
    let count = ids.meta.shape()[0];
    let ([rows, columns], format) = (weight.shape, weight.format);
    let (client, out) = (ids.client.clone(), empty(&weight.scales, &[count, columns]));
    let words = format.row_words(columns);
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
            format,
        );
    }
    out
}

/// Rows of a matrix to their places.
///
/// # Shapes
/// - lines: `[count, width]`
/// - out: `[width, rows]`; the first line becomes its column `first`
#[cube(launch_unchecked)]
fn place_kernel<E: CubePrimitive>(
    lines: &Array<E>,
    out: &mut Array<E>,
    units: usize,
    count: usize,
    width: usize,
    rows: usize,
    first: usize,
) {
    if ABSOLUTE_POS >= units {
        terminate!();
    }
    let (line, index) = (ABSOLUTE_POS % count, ABSOLUTE_POS / count);
    out[index * rows + first + line] = lines[line * width + index];
}

/// The words and scales of a matrix on their device. The rows go there one piece after the other, and are turned
/// there, so that the host needs no room but for one piece.
pub(super) fn store<R: CubeRuntime>(
    matrix: PackedMatrix<'_>,
    device: &R::Device,
) -> Result<(CubeTensor<R>, CubeTensor<R>)> {
    let ([rows, columns], format) = (matrix.shape, matrix.format);
    let (client, device) = (R::client(device), device.clone());
    let dense = |count: usize, handle, dtype| {
        CubeTensor::new_contiguous(client.clone(), device.clone(), [count].into(), handle, dtype)
    };
    // Nothing is no buffer: scales are bound all the same.
    let empty = |count: usize, dtype| dense(count, client.empty(4 * count.max(1)), dtype);
    let widths = [format.row_words(columns), format.row_scales(columns)];
    let (words, scales) = (empty(rows * widths[0], DType::I32), empty(rows * widths[1], DType::F32));
    let mut first = 0;
    for lines in matrix.rows {
        let lines = lines?;
        let count = lines.words.len() / widths[0].max(1);
        let [word_count, scale_count] = widths.map(|width| count * width);
        if first + count > rows || [lines.words.len(), lines.scales.len()] != [word_count, scale_count] {
            return Err(Error::internal("rows of a packed matrix are not as its shape says"));
        }
        let own = dense(word_count, client.create(Bytes::from_elems(lines.words)), DType::I32);
        place::<R, i32>(own, &words, [count, widths[0]], (rows, first));
        if format.is_scaled() {
            let own = dense(scale_count, client.create(Bytes::from_elems(lines.scales)), DType::F32);
            place::<R, f32>(own, &scales, [count, widths[1]], (rows, first));
        }
        first += count;
        // What waits to be uploaded is kept on the host until it is.
        client.flush().map_err(|cause| Error::internal(format!("the GPU does not take weights: {cause}")))?;
    }
    Ok((words, scales))
}

/// [`place_kernel`] of lines that lie within the rows of `out`.
fn place<R: CubeRuntime, E: CubePrimitive>(
    lines: CubeTensor<R>,
    out: &CubeTensor<R>,
    [count, width]: [usize; 2],
    (rows, first): (usize, usize),
) {
    let (client, units) = (lines.client.clone(), count * width);
    // Safety: every index is below the sizes of these dense tensors.
    unsafe {
        place_kernel::launch_unchecked::<E, R>(
            &client,
            workgroups(units.div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            lines.into_array_arg(),
            out.clone().into_array_arg(),
            units,
            count,
            width,
            rows,
            first,
        );
    }
}
