//! The CPU backend's own: one pass over the data where burn's operators make several, without
//! copies of strided views, and caches written in place.

#![allow(clippy::inline_always, clippy::needless_range_loop)]

mod floats;
mod packed;
mod threads;
mod vectors;

use std::ops::Range;

use burn::backend::Flex;
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, Int, Shape, Tensor, TensorPrimitive};

use self::threads::each_part;
use super::scalar::{self, wide};
use super::{Kernels, Packed};

fn into_flex<const D: usize>(tensor: Tensor<Flex, D>) -> FlexTensor {
    tensor.into_primitive().tensor()
}

fn from_flex<const D: usize>(tensor: FlexTensor) -> Tensor<Flex, D> {
    Tensor::from_primitive(TensorPrimitive::Float(tensor))
}

fn from_values<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<Flex, D> {
    let layout = Layout::contiguous(Shape::from(shape.to_vec()));
    from_flex(FlexTensor::new(Bytes::from_elems(values), layout, DType::F32))
}

/// Row-major values.
fn contiguous<const D: usize>(tensor: Tensor<Flex, D>) -> FlexTensor {
    into_flex(tensor).to_contiguous()
}

fn values(tensor: &FlexTensor) -> &[f32] {
    &tensor.storage::<f32>()[tensor.layout().start_offset()..]
}

/// A 4-dimensional tensor whose last dimension is dense, as rows.
struct Rows {
    tensor: FlexTensor,
    strides: [usize; 3],
    width: usize,
}

impl Rows {
    fn new(tensor: Tensor<Flex, 4>) -> Self {
        let width = tensor.dims()[3];
        let mut tensor = into_flex(tensor);
        if tensor.layout().strides().last() != Some(&1) || tensor.layout().strides().iter().any(|s| *s < 0) {
            tensor = tensor.to_contiguous();
        }
        let strides = tensor.layout().strides();
        let strides = [strides[0] as usize, strides[1] as usize, strides[2] as usize];
        Self { tensor, strides, width }
    }

    fn row(&self, i: usize, j: usize, k: usize) -> &[f32] {
        let start = i * self.strides[0] + j * self.strides[1] + k * self.strides[2];
        &values(&self.tensor)[start..start + self.width]
    }
}

const LANES: usize = 16;

/// The sum of products, in lanes that the compiler keeps in vector registers.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[inline(always)]
fn add_scaled(out: &mut [f32], scale: f32, values: &[f32]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out += scale * value;
    }
}

/// All values in one, in lanes as [`dot`]; `start` changes nothing.
fn reduce(row: &[f32], start: f32, both: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder().iter().copied().fold(start, &both);
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = both(lanes[lane], chunk[lane]);
        }
    }
    lanes.into_iter().fold(rest, both)
}

fn sum(row: &[f32]) -> f32 {
    reduce(row, 0.0, |a, b| a + b)
}

/// Scores of one query become weights that sum to 1.
fn softmax(scores: &mut [f32]) {
    let largest = reduce(scores, f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    for score in scores.iter_mut() {
        *score = scalar::exp(*score - largest);
    }
    let scale = 1.0 / sum(scores);
    for score in scores {
        *score *= scale;
    }
}

/// Above this many rows the products are large enough for burn's matrix multiplication. Up to it each row is
/// computed as it is alone, bit for bit: what is written side by side is what each text is by itself.
const FEW_ROWS: usize = 16;
/// How many rows are computed with each value of the weight that is loaded.
const BLOCK: usize = 8;
/// How many of the weight's rows are added at once.
const STEP: usize = 4;

/// How many columns of a row-major weight a thread should have: shorter pieces of rows were read more slowly.
const LONG: usize = 400;

/// `out += x weight`, row after row of the weight, which is `[inner, width]`; of its columns those from `first` on,
/// as many as a row of `out` has.
fn add_product(out: &mut [f32], x: &[f32], (weight, width): (&[f32], usize), inner: usize, first: usize) {
    let columns = out.len() * inner / x.len().max(1);
    wide(
        #[inline(always)]
        || {
            for (out, x) in out.chunks_mut(BLOCK * columns).zip(x.chunks(BLOCK * inner)) {
                for (place, rows) in weight.chunks(STEP * width).enumerate() {
                    let row = |row: usize| &rows[row * width + first..][..columns];
                    for (out, x) in out.chunks_exact_mut(columns).zip(x.chunks_exact(inner)) {
                        let x = &x[place * STEP..];
                        let [a, b, c, d] = match rows.len() / width {
                            STEP => [0, 1, 2, 3].map(row),
                            few => {
                                for (place, x) in x[..few].iter().enumerate() {
                                    add_scaled(out, *x, row(place));
                                }
                                continue;
                            }
                        };
                        for i in 0..columns {
                            out[i] = out[i] + x[0] * a[i] + x[1] * b[i] + x[2] * c[i] + x[3] * d[i];
                        }
                    }
                }
            }
        },
    );
}

/// `x weight + bias`, its columns in several threads where that is worth it.
fn few_rows(x: &[f32], weight: (&[f32], usize), bias: Option<&[f32]>, inner: usize) -> Vec<f32> {
    let (rows, width) = (x.len() / inner.max(1), weight.1);
    let mut parts = vec![0.0; rows * width];
    let part = each_part(&mut parts, (rows, LONG), inner * rows, |first, out| {
        let columns = out.len() / rows;
        for out in out.chunks_exact_mut(columns) {
            if let Some(bias) = bias {
                out.copy_from_slice(&bias[first..][..columns]);
            }
        }
        add_product(out, x, weight, inner, first);
    });
    if rows == 1 || part == width {
        return parts;
    }
    let mut out = Vec::with_capacity(rows * width);
    for row in 0..rows {
        for part in parts.chunks(part * rows) {
            let columns = part.len() / rows;
            out.extend_from_slice(&part[row * columns..][..columns]);
        }
    }
    out
}

/// `x weightᵀ`, where the weight is `[width, inner]`.
fn product_transposed(x: &[f32], weight: &[f32], inner: usize) -> Vec<f32> {
    let (rows, width) = (x.len() / inner.max(1), weight.len() / inner.max(1));
    let mut transposed = vec![0.0; width * rows];
    each_part(&mut transposed, (rows, 1), inner * rows, |first, out| {
        wide(
            #[inline(always)]
            || {
                for (out, own) in out.chunks_exact_mut(rows).zip(weight[first * inner..].chunks_exact(inner))
                {
                    for (out, x) in out.iter_mut().zip(x.chunks_exact(inner)) {
                        *out = dot(x, own);
                    }
                }
            },
        );
    });
    back(transposed, rows)
}

/// Rows out of columns.
fn back(transposed: Vec<f32>, rows: usize) -> Vec<f32> {
    if rows == 1 {
        return transposed;
    }
    (0..rows).flat_map(|row| transposed[row..].iter().step_by(rows).copied()).collect()
}

/// Above this many queries the products are large enough for burn's matrix multiplication.
const FEW_QUERIES: usize = 8;

impl Kernels for Flex {
    fn project(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        bias: Option<Tensor<Self, 1>>,
    ) -> Tensor<Self, 2> {
        let [rows, inner] = x.dims();
        let [_, width] = weight.dims();
        let bias = bias.map(contiguous);
        if rows <= FEW_ROWS {
            let (x, weight) = (contiguous(x), contiguous(weight));
            let weight = (&values(&weight)[..inner * width], width);
            let bias = bias.as_ref().map(|bias| &values(bias)[..width]);
            return from_values(few_rows(&values(&x)[..rows * inner], weight, bias, inner), [rows, width]);
        }
        let product = x.matmul(weight);
        match &bias {
            None => product,
            Some(bias) => {
                let mut product = into_flex(product);
                for row in product.storage_mut::<f32>().chunks_exact_mut(width) {
                    add_scaled(row, 1.0, values(bias));
                }
                from_flex(product)
            }
        }
    }

    fn project_transposed(x: Tensor<Self, 2>, weight: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let ([rows, inner], [width, _]) = (x.dims(), weight.dims());
        if rows > FEW_ROWS {
            return x.matmul(weight.transpose());
        }
        let (x, weight) = (contiguous(x), contiguous(weight));
        let out = product_transposed(&values(&x)[..rows * inner], &values(&weight)[..width * inner], inner);
        from_values(out, [rows, width])
    }

    fn project_packed(
        x: Tensor<Self, 2>,
        weight: &Packed<Self>,
        bias: Option<Tensor<Self, 1>>,
    ) -> Tensor<Self, 2> {
        let ([rows, _], [width, _]) = (x.dims(), weight.shape());
        let mut out = packed::Rows::new(weight).project(x);
        let bias = bias.map(contiguous);
        if let Some(bias) = &bias {
            for row in out.chunks_exact_mut(width) {
                add_scaled(row, 1.0, values(bias));
            }
        }
        from_values(out, [rows, width])
    }

    fn packed_rows(weight: &Packed<Self>, ids: Tensor<Self, 1, Int>) -> Tensor<Self, 2> {
        let ids = ids.into_data().convert::<i64>();
        let [_, columns] = weight.shape();
        let rows = packed::Rows::new(weight);
        let ids = ids.as_slice::<i64>().unwrap_or_default();
        let mut out = vec![0.0; ids.len() * columns];
        for (id, out) in ids.iter().zip(out.chunks_exact_mut(columns)) {
            rows.unpack(*id as usize, out);
        }
        from_values(out, [ids.len(), columns])
    }

    fn write_cache(buffer: Tensor<Self, 4>, start: usize, values: Tensor<Self, 4>) -> Tensor<Self, 4> {
        let [_, buffer_heads, capacity, _] = buffer.dims();
        let [batch, heads, length, width] = values.dims();
        let rows = Rows::new(values);
        let mut buffer = into_flex(buffer);
        debug_assert!(buffer.is_contiguous() && buffer.layout().start_offset() == 0);
        let out = buffer.storage_mut::<f32>();
        for i in 0..batch {
            for j in 0..heads {
                for k in 0..length {
                    let at = ((i * buffer_heads + j) * capacity + start + k) * width;
                    out[at..at + width].copy_from_slice(rows.row(i, j, k));
                }
            }
        }
        from_flex(buffer)
    }

    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        let [_, width] = x.dims();
        let (mut x, weight) = (contiguous(x), contiguous(weight));
        for row in x.storage_mut::<f32>().chunks_exact_mut(width) {
            let scale = 1.0 / (dot(row, row) / width as f32 + epsilon as f32).sqrt();
            for (x, weight) in row.iter_mut().zip(values(&weight)) {
                *x *= scale * weight;
            }
        }
        from_flex(x)
    }

    fn layer_norm(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        bias: Tensor<Self, 1>,
        epsilon: f64,
    ) -> Tensor<Self, 2> {
        let [_, width] = x.dims();
        let (mut x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
        let (weight, bias) = (&values(&weight)[..width], &values(&bias)[..width]);
        for row in x.storage_mut::<f32>().chunks_exact_mut(width) {
            let mean = sum(row) / width as f32;
            for x in row.iter_mut() {
                *x -= mean;
            }
            let scale = 1.0 / (dot(row, row) / width as f32 + epsilon as f32).sqrt();
            for ((x, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
                *x = *x * scale * weight + bias;
            }
        }
        from_flex(x)
    }

    fn gelu(x: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let mut x = contiguous(x);
        for x in x.storage_mut::<f32>() {
            *x = scalar::gelu(*x);
        }
        from_flex(x)
    }

    fn swiglu(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let (mut gate, up) = (contiguous(gate), contiguous(up));
        for (gate, up) in gate.storage_mut::<f32>().iter_mut().zip(values(&up)) {
            *gate = *gate / (1.0 + scalar::exp(-*gate)) * up;
        }
        from_flex(gate)
    }

    fn rotary(x: Tensor<Self, 4>, cos: Tensor<Self, 2>, sin: Tensor<Self, 2>) -> Tensor<Self, 4> {
        let [batch, heads, length, width] = x.dims();
        let half = width / 2;
        let (rows, cos, sin) = (Rows::new(x), contiguous(cos), contiguous(sin));
        let mut out = Vec::with_capacity(batch * heads * length * width);
        for i in 0..batch {
            for j in 0..heads {
                for k in 0..length {
                    let (first, second) = rows.row(i, j, k).split_at(half);
                    let cos = &values(&cos)[k * half..(k + 1) * half];
                    let sin = &values(&sin)[k * half..(k + 1) * half];
                    out.extend((0..half).map(|p| first[p] * cos[p] - second[p] * sin[p]));
                    out.extend((0..half).map(|p| second[p] * cos[p] + first[p] * sin[p]));
                }
            }
        }
        from_values(out, [batch, heads, length, width])
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
        let [batch, heads, queries, width] = q.dims();
        let [_, kv_heads, keys, _] = k.dims();
        let group = heads / kv_heads;
        let scale = 1.0 / (width as f32).sqrt();
        if queries > FEW_QUERIES {
            let q = q.mul_scalar(scale).reshape([batch, kv_heads, group * queries, width]);
            let mut scores = into_flex(q.matmul(k.swap_dims(2, 3)));
            for (place, row) in scores.storage_mut::<f32>().chunks_exact_mut(keys).enumerate() {
                let (seen, hidden) = row.split_at_mut((start + place % queries + 1).min(keys));
                softmax(seen);
                hidden.fill(0.0);
            }
            let weights: Tensor<Self, 4> = from_flex(scores);
            return weights.matmul(v).reshape([batch, heads, queries, width]);
        }
        attend(q, k, v, |_, query| 0..(start + query + 1).min(keys))
    }

    fn row_attention(
        q: Tensor<Self, 4>,
        k: Tensor<Self, 4>,
        v: Tensor<Self, 4>,
        first: &[usize],
    ) -> Tensor<Self, 4> {
        let keys = k.dims()[2];
        attend(q, k, v, |row, _| first[row]..keys)
    }
}

/// Attention, query after query; `seen` are the keys that a row's query sees.
fn attend(
    q: Tensor<Flex, 4>,
    k: Tensor<Flex, 4>,
    v: Tensor<Flex, 4>,
    seen: impl Fn(usize, usize) -> Range<usize>,
) -> Tensor<Flex, 4> {
    let [batch, heads, queries, width] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let (group, scale) = (heads / kv_heads, 1.0 / (width as f32).sqrt());
    let (q, k, v) = (Rows::new(q), Rows::new(k), Rows::new(v));
    let mut out = vec![0.0; batch * heads * queries * width];
    let mut scores = Vec::with_capacity(keys);
    for (place, out) in out.chunks_exact_mut(width).enumerate() {
        let (i, j, query) = (place / queries / heads, place / queries % heads, place % queries);
        let (row, own, seen) = (q.row(i, j, query), j / group, seen(i, query));
        scores.clear();
        scores.extend(seen.clone().map(|key| dot(row, k.row(i, own, key)) * scale));
        softmax(&mut scores);
        for (key, weight) in seen.zip(&scores) {
            add_scaled(out, *weight, v.row(i, own, key));
        }
    }
    from_values(out, [batch, heads, queries, width])
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use burn::tensor::Tolerance;

    use burn::backend::flex::FlexDevice;

    use super::*;
    use crate::kernels::{FORMATS, PackedMatrix, random_rows};
    use crate::random::Random;

    fn random<const D: usize>(random: &mut Random, shape: [usize; D]) -> Tensor<Flex, D> {
        let count = shape.iter().product();
        from_values((0..count).map(|_| random.normal() as f32).collect(), shape)
    }

    /// Bit for bit, whatever the sizes; and as burn's product says.
    #[test]
    fn few_rows_are_what_each_is_alone() {
        let mut own = Random::new(3, &[]);
        for (rows, inner, width) in [(1, 5, 3), (7, 33, 17), (8, 64, 40), (FEW_ROWS, 30, 65)] {
            let x = random(&mut own, [rows, inner]);
            let (weight, bias) = (random(&mut own, [inner, width]), random(&mut own, [width]));
            let projected = Flex::project(x.clone(), weight.clone(), Some(bias.clone()));
            let transposed = Flex::project_transposed(x.clone(), weight.clone().transpose());
            for row in 0..rows {
                let alone = x.clone().narrow(0, row, 1);
                let wanted = Flex::project(alone.clone(), weight.clone(), Some(bias.clone()));
                assert_eq!(projected.clone().narrow(0, row, 1).into_data(), wanted.into_data());
                let wanted = Flex::project_transposed(alone, weight.clone().transpose());
                assert_eq!(transposed.clone().narrow(0, row, 1).into_data(), wanted.into_data());
            }
            let product = x.matmul(weight);
            let close = Tolerance::absolute(1e-4);
            transposed.into_data().assert_approx_eq::<f32>(&product.clone().into_data(), close);
            let product = product + bias.unsqueeze();
            projected.into_data().assert_approx_eq::<f32>(&product.into_data(), close);
        }
    }

    /// Large enough for several threads, and not a multiple of their number.
    #[test]
    fn parts_are_put_together_in_order() {
        let mut own = Random::new(4, &[]);
        let (inner, width) = (1025, 1027);
        let x = random(&mut own, [5, inner]);
        let (weight, bias) = (random(&mut own, [inner, width]), random(&mut own, [width]));
        let wanted = (x.clone().matmul(weight.clone()) + bias.clone().unsqueeze()).into_data();
        let close = Tolerance::absolute(1e-3);
        Flex::project(x.clone(), weight.clone(), Some(bias))
            .into_data()
            .assert_approx_eq::<f32>(&wanted, close);
        let wanted = x.clone().matmul(weight.clone()).into_data();
        let weight = contiguous(weight.transpose());
        Flex::project_transposed(x, from_flex(weight)).into_data().assert_approx_eq::<f32>(&wanted, close);
    }

    /// Few rows bit for bit as each alone, all as burn's product with the unpacked matrix.
    #[test]
    fn packed_products_are_those_of_the_values() {
        let mut own = Random::new(5, &[]);
        for format in FORMATS {
            for (rows, inner, width) in
                [(1, 64, 3), (7, 130, 17), (FEW_ROWS, 9, 40), (5, 1025, 1027), (19, 70, 600)]
            {
                let lines = random_rows(&mut own, [width, inner], format);
                let full: Tensor<Flex, 2> = from_values(lines.values(inner, format), [width, inner]);
                let packed = PackedMatrix::new([width, inner], format, lines);
                let packed = Flex::store(packed, &FlexDevice).unwrap();
                let (x, bias) = (random(&mut own, [rows, inner]), random(&mut own, [width]));
                let projected = Flex::project_packed(x.clone(), &packed, Some(bias.clone()));
                if rows <= FEW_ROWS {
                    let last = x.clone().narrow(0, rows - 1, 1);
                    let alone = Flex::project_packed(last, &packed, Some(bias.clone())).into_data();
                    assert_eq!(projected.clone().narrow(0, rows - 1, 1).into_data(), alone);
                }
                let wanted = x.matmul(full.clone().transpose()) + bias.unsqueeze();
                // Rows of `x` are rounded to 16 bits: the sums are of some 20.
                let close = Tolerance::absolute(5e-3);
                projected.into_data().assert_approx_eq::<f32>(&wanted.into_data(), close);
                let ids = Tensor::from_data([width as i32 - 1, 0, 2], &FlexDevice);
                let wanted = full.select(0, ids.clone()).into_data();
                assert_eq!(Flex::packed_rows(&packed, ids).into_data(), wanted);
            }
        }
    }
}
