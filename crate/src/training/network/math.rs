//! Products and row-wise functions on slices.
//!
//! The row-wise functions are plain loops that the compiler turns into vector code; `wide`
//! runs them compiled for the widest vectors that the machine has. For that they must become
//! part of the closure that it is given: hence the forced inlining.

#![allow(clippy::inline_always, clippy::needless_range_loop, clippy::float_cmp)]

pub(super) use crate::kernels::scalar::wide;
use crate::kernels::scalar::{self, exp, normal_cdf};

/// How a matrix lies in its slice.
#[derive(Clone, Copy)]
pub(in crate::training) struct View<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a> View<'a> {
    /// Rows one behind the other.
    pub(in crate::training) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows `row_stride` elements apart.
    pub(super) fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose.
    pub(in crate::training) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    fn reach(&self) -> usize {
        last(self.rows, self.row_stride) + last(self.cols, self.col_stride)
    }
}

fn last(count: usize, stride: usize) -> usize {
    count.saturating_sub(1) * stride
}

/// What happens to the values that the result's place holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::training) enum Into {
    /// They are replaced.
    Replace,
    /// The product is added to them.
    Add,
}

/// `out = scale * a b` (or `out += …`), where rows of `out` are `out_stride` elements apart.
pub(in crate::training) fn matmul(
    out: &mut [f32],
    out_stride: usize,
    how: Into,
    scale: f32,
    a: View<'_>,
    b: View<'_>,
) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(k, b.rows, "matmul: inner dimensions");
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!(n <= out_stride && last(m, out_stride) + n <= out.len(), "matmul: the result's place");
    assert!(a.reach() < a.data.len() && b.reach() < b.data.len(), "matmul: the factors' places");
    let add = how == Into::Add;
    // SAFETY: the assertions above keep every access within the three slices, and `out` is
    // borrowed mutably, so it overlaps neither factor.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            if add { 1.0 } else { 0.0 },
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

const LANES: usize = 16;

/// The sum of products, in sixteen partial sums.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in left.zip(right) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// The sum, in sixteen partial sums.
#[inline(always)]
fn sum(row: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += chunk[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[inline(always)]
fn maximum(row: &[f32]) -> f32 {
    let mut best = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for chunk in chunks {
        for lane in 0..LANES {
            best[lane] = if chunk[lane] > best[lane] { chunk[lane] } else { best[lane] };
        }
    }
    best.iter().copied().fold(rest, f32::max)
}

/// The place of the greatest value, the first of equal ones.
#[inline(always)]
pub(super) fn argmax(row: &[f32]) -> usize {
    let best = maximum(row);
    row.iter().position(|value| *value == best).unwrap_or_default()
}

/// Turns a row into its softmax and returns the logarithm of its sum of exponentials.
#[inline(always)]
pub(super) fn softmax(row: &mut [f32]) -> f32 {
    let best = maximum(row);
    for value in row.iter_mut() {
        *value = exp(*value - best);
    }
    let total = sum(row);
    let scale = 1.0 / total;
    for value in row.iter_mut() {
        *value *= scale;
    }
    best + total.ln()
}

/// `out = x / rms(x) * gain` for each row; `inverse` gets `1 / rms(x)`.
pub(super) fn rms_norm(out: &mut [f32], inverse: &mut [f32], x: &[f32], gain: &[f32], eps: f32) {
    let width = gain.len();
    wide(
        #[inline(always)]
        || {
            for ((out, x), inverse) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(inverse) {
                *inverse = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
                for i in 0..width {
                    out[i] = x[i] * *inverse * gain[i];
                }
            }
        },
    );
}

/// The inverse direction of [`rms_norm`]: adds to `dx` and `dgain`.
pub(super) fn rms_norm_backward(
    dx: &mut [f32],
    dgain: &mut [f32],
    dy: &[f32],
    x: &[f32],
    gain: &[f32],
    inverse: &[f32],
) {
    let width = gain.len();
    wide(
        #[inline(always)]
        || {
            let rows = dx.chunks_exact_mut(width).zip(dy.chunks_exact(width)).zip(x.chunks_exact(width));
            for (((dx, dy), x), inverse) in rows.zip(inverse) {
                let (dgain, gain) = (&mut dgain[..width], &gain[..width]);
                let mut sums = [0.0f32; LANES];
                let whole = width / LANES * LANES;
                for start in (0..whole).step_by(LANES) {
                    for lane in 0..LANES {
                        let i = start + lane;
                        sums[lane] += dy[i] * gain[i] * x[i];
                    }
                }
                let rest: f32 = (whole..width).map(|i| dy[i] * gain[i] * x[i]).sum();
                let sum = sums.iter().sum::<f32>() + rest;
                let pull = sum * inverse * inverse * inverse / width as f32;
                for i in 0..width {
                    dx[i] += dy[i] * gain[i] * inverse - x[i] * pull;
                    dgain[i] += dy[i] * x[i] * inverse;
                }
            }
        },
    );
}

/// `out = silu(gate) * up`, where a row of `gate_up` holds the gates, then the ups.
pub(super) fn swiglu(out: &mut [f32], gate_up: &[f32], inner: usize) {
    wide(
        #[inline(always)]
        || {
            for (out, row) in out.chunks_exact_mut(inner).zip(gate_up.chunks_exact(2 * inner)) {
                let (gate, up) = row.split_at(inner);
                for i in 0..inner {
                    out[i] = gate[i] / (1.0 + exp(-gate[i])) * up[i];
                }
            }
        },
    );
}

/// Replaces gates and ups by their gradients.
pub(super) fn swiglu_backward(gate_up: &mut [f32], dout: &[f32], inner: usize) {
    wide(
        #[inline(always)]
        || {
            for (row, dout) in gate_up.chunks_exact_mut(2 * inner).zip(dout.chunks_exact(inner)) {
                let (gate, up) = row.split_at_mut(inner);
                for i in 0..inner {
                    let sigmoid = 1.0 / (1.0 + exp(-gate[i]));
                    let silu = gate[i] * sigmoid;
                    let slope = sigmoid + silu * (1.0 - sigmoid);
                    gate[i] = dout[i] * up[i] * slope;
                    up[i] = dout[i] * silu;
                }
            }
        },
    );
}

/// `out = (x - mean(x)) / deviation(x) * gain + bias` for each row; `hat` gets it before gain and
/// bias, `inverse` gets `1 / deviation(x)`.
pub(super) fn layer_norm(
    out: &mut [f32],
    hat: &mut [f32],
    inverse: &mut [f32],
    x: &[f32],
    (gain, bias): (&[f32], &[f32]),
    eps: f32,
) {
    let width = gain.len();
    wide(
        #[inline(always)]
        || {
            let rows = out.chunks_exact_mut(width).zip(hat.chunks_exact_mut(width));
            for (((out, hat), x), inverse) in rows.zip(x.chunks_exact(width)).zip(inverse) {
                let mean = sum(x) / width as f32;
                for i in 0..width {
                    hat[i] = x[i] - mean;
                }
                *inverse = 1.0 / (dot(hat, hat) / width as f32 + eps).sqrt();
                for i in 0..width {
                    hat[i] *= *inverse;
                    out[i] = hat[i] * gain[i] + bias[i];
                }
            }
        },
    );
}

/// The inverse direction of [`layer_norm`]: replaces `dx`, adds to `dgain` and `dbias`.
pub(super) fn layer_norm_backward(
    dx: &mut [f32],
    dgain: &mut [f32],
    dbias: &mut [f32],
    dy: &[f32],
    hat: &[f32],
    gain: &[f32],
    inverse: &[f32],
) {
    let width = gain.len();
    let (dgain, dbias) = (&mut dgain[..width], &mut dbias[..width]);
    wide(
        #[inline(always)]
        || {
            let rows = dx.chunks_exact_mut(width).zip(dy.chunks_exact(width)).zip(hat.chunks_exact(width));
            for (((dx, dy), hat), inverse) in rows.zip(inverse) {
                for i in 0..width {
                    dgain[i] += dy[i] * hat[i];
                    dbias[i] += dy[i];
                    dx[i] = dy[i] * gain[i];
                }
                let mean = sum(dx) / width as f32;
                let along = dot(dx, hat) / width as f32;
                for i in 0..width {
                    dx[i] = (dx[i] - mean - hat[i] * along) * *inverse;
                }
            }
        },
    );
}

/// `out = x Φ(x)` (Hendrycks and Gimpel, 2016).
pub(super) fn gelu(out: &mut [f32], x: &[f32]) {
    let x = &x[..out.len()];
    wide(
        #[inline(always)]
        || {
            for i in 0..out.len() {
                out[i] = scalar::gelu(x[i]);
            }
        },
    );
}

/// Multiplies `dout` by the slope of [`gelu`] at `x`.
pub(super) fn gelu_backward(dout: &mut [f32], x: &[f32]) {
    let x = &x[..dout.len()];
    wide(
        #[inline(always)]
        || {
            for i in 0..dout.len() {
                let density = 0.398_942_3 * exp(-0.5 * x[i] * x[i]);
                dout[i] *= normal_cdf(x[i]) + x[i] * density;
            }
        },
    );
}

/// Turns pairs `(i, i + half)` of each head of `row` by the angles of its position; `sign` -1
/// turns them back.
pub(super) fn rotate(row: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32], sign: f32) {
    let half = head_dim / 2;
    for head in row.chunks_exact_mut(head_dim) {
        let (low, high) = head.split_at_mut(half);
        for i in 0..half {
            let (a, b, s) = (low[i], high[i], sin[i] * sign);
            low[i] = a * cos[i] - b * s;
            high[i] = b * cos[i] + a * s;
        }
    }
}

/// Adds the rows of `rows` to `out`.
pub(super) fn add_rows(out: &mut [f32], rows: &[f32]) {
    for row in rows.chunks_exact(out.len()) {
        out.iter_mut().zip(row).for_each(|(out, value)| *out += value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_with_transposes_and_strides_are_those_of_the_definition() {
        let a = [1.0, 2.0, 9.0, 3.0, 4.0, 9.0];
        let b = [5.0, 6.0, 7.0, 8.0];
        let (a, b) = (View::strided(&a, 2, 2, 3), View::new(&b, 2, 2));
        let mut out = [0.0; 5];
        matmul(&mut out, 3, Into::Replace, 1.0, a, b);
        assert_eq!(out, [19.0, 22.0, 0.0, 43.0, 50.0]);
        matmul(&mut out, 3, Into::Add, 2.0, a.t(), b.t());
        assert_eq!(out, [19.0 + 46.0, 22.0 + 62.0, 0.0, 43.0 + 68.0, 50.0 + 92.0]);
    }

    #[test]
    fn a_softmax_sums_to_one_and_tells_its_normalizer() {
        let mut row: Vec<f32> = (0..37).map(|i| (i % 7) as f32 - 3.0).collect();
        let exact = row.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        let log_sum = softmax(&mut row);
        assert!((f64::from(log_sum) - exact).abs() < 1e-5);
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }
}
