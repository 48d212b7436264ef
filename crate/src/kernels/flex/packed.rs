//! Products with packed matrices on the CPU: codes become floats in registers, a group at a time.

use std::slice::ChunksExact;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::threads::each_part;
use super::{FEW_ROWS, LANES, back, contiguous, from_values, into_flex, values, wide};
use crate::kernels::packed::unpack;
use crate::kernels::{GROUP, Packed, row_groups, row_words};

/// How many rows of `x` are computed with each group of codes that is made floats.
const BLOCK: usize = 4;
/// How many rows of the matrix are unpacked at once where there are many rows of `x`.
const TILE: usize = 512;

/// A packed matrix, row after row.
pub(super) struct Rows {
    words: FlexTensor,
    scales: FlexTensor,
    shape: [usize; 2],
    bits: usize,
}

impl Rows {
    pub(super) fn new(weight: &Packed<Flex>) -> Self {
        Self {
            words: weight.words.clone().into_primitive(),
            scales: into_flex(weight.scales.clone()),
            shape: weight.shape(),
            bits: weight.bits(),
        }
    }

    /// Words and scales of the rows from `first` on.
    fn from(&self, first: usize) -> std::iter::Zip<ChunksExact<'_, i32>, ChunksExact<'_, f32>> {
        let [_, columns] = self.shape;
        let (words, groups) = (row_words(columns, self.bits), row_groups(columns));
        let (of_words, of_scales) = (self.words.storage::<i32>(), self.scales.storage::<f32>());
        of_words[first * words..].chunks_exact(words).zip(of_scales[first * groups..].chunks_exact(groups))
    }

    /// The values of the rows from `first` on, as many as `out` has room for.
    pub(super) fn unpack(&self, first: usize, out: &mut [f32]) {
        let unpack = if self.bits == 4 { unpack::<4> } else { unpack::<8> };
        for (out, (words, scales)) in out.chunks_exact_mut(self.shape[1]).zip(self.from(first)) {
            unpack(words, scales, out);
        }
    }

    /// `x Wᵀ`.
    ///
    /// # Shapes
    /// - x: `[rows, in]`, own: `[out, in]`
    /// - output: `[rows, out]`
    pub(super) fn project(&self, x: Tensor<Flex, 2>) -> Vec<f32> {
        match (x.dims()[0], self.bits) {
            (rows, _) if rows > FEW_ROWS => self.project_many(x),
            (_, 4) => self.project_few::<4>(x),
            _ => self.project_few::<8>(x),
        }
    }

    /// Each row as it is alone, bit for bit.
    fn project_few<const BITS: usize>(&self, x: Tensor<Flex, 2>) -> Vec<f32> {
        let ([rows, inner], [width, _]) = (x.dims(), self.shape);
        let x = contiguous(x);
        let x = ordered::<BITS>(&values(&x)[..rows * inner], inner);
        let padded = row_groups(inner) * GROUP;
        let mut transposed = vec![0.0; width * rows];
        each_part(&mut transposed, rows, inner * rows, |first, out| {
            wide(
                #[inline(always)]
                || {
                    for (out, (words, scales)) in out.chunks_exact_mut(rows).zip(self.from(first)) {
                        for (out, x) in out.chunks_mut(BLOCK).zip(x.chunks(BLOCK * padded)) {
                            if let Ok(out) = <&mut [f32; BLOCK]>::try_from(&mut *out) {
                                *out = dots::<BITS, BLOCK>(words, scales, x);
                            } else {
                                for (out, x) in out.iter_mut().zip(x.chunks_exact(padded)) {
                                    [*out] = dots::<BITS, 1>(words, scales, x);
                                }
                            }
                        }
                    }
                },
            );
        });
        back(transposed, rows)
    }

    /// By burn's product, some rows of the matrix at a time.
    fn project_many(&self, x: Tensor<Flex, 2>) -> Vec<f32> {
        let ([rows, inner], [width, _]) = (x.dims(), self.shape);
        let mut out = vec![0.0; rows * width];
        for first in (0..width).step_by(TILE) {
            let count = TILE.min(width - first);
            let mut tile = vec![0.0; count * inner];
            each_part(&mut tile, inner, 4 * inner, |row, tile| self.unpack(first + row, tile));
            let tile: Tensor<Flex, 2> = from_values(tile, [count, inner]);
            let product = contiguous(x.clone().matmul(tile.transpose()));
            for (out, product) in out.chunks_exact_mut(width).zip(values(&product).chunks_exact(count)) {
                out[first..first + count].copy_from_slice(product);
            }
        }
        out
    }
}

/// The rows of `x` filled up with 0 to whole groups, and each group in the order in which the codes are unpacked.
fn ordered<const BITS: usize>(x: &[f32], inner: usize) -> Vec<f32> {
    let (rows, padded) = (x.len() / inner.max(1), row_groups(inner) * GROUP);
    let mut out = vec![0.0; rows * padded];
    for (out, x) in out.chunks_exact_mut(padded).zip(x.chunks_exact(inner)) {
        for (place, x) in x.iter().enumerate() {
            let (group, own) = (place / GROUP, place % GROUP);
            // The first code of each word, then the second of each: all words are shifted alike.
            let a_word = 32 / BITS;
            let own = own % a_word * (GROUP / a_word) + own / a_word;
            out[group * GROUP + own] = *x;
        }
    }
    out
}

/// The codes of a group of 8 bits as floats, in the order of [`ordered`].
#[inline(always)]
fn bytes(words: &[i32; GROUP / 4]) -> [f32; GROUP] {
    let mut codes = [0.0; GROUP];
    for place in 0..4 {
        for (own, word) in words.iter().enumerate() {
            codes[place * GROUP / 4 + own] = ((word << (24 - 8 * place)) >> 24) as f32;
        }
    }
    codes
}

/// The codes of a group of 4 bits as floats, in the order of [`ordered`].
#[inline(always)]
fn nibbles(words: &[i32; GROUP / 8]) -> [f32; GROUP] {
    let mut codes = [0.0; GROUP];
    for place in 0..8 {
        for (own, word) in words.iter().enumerate() {
            codes[place * GROUP / 8 + own] = ((word << (28 - 4 * place)) >> 28) as f32;
        }
    }
    codes
}

/// The products of one row of a matrix with some rows of `x`, each as it is alone.
#[inline(always)]
fn dots<const BITS: usize, const ROWS: usize>(words: &[i32], scales: &[f32], x: &[f32]) -> [f32; ROWS] {
    let padded = x.len() / ROWS;
    let mut sums = [[0.0; LANES]; ROWS];
    for (place, scale) in scales.iter().enumerate() {
        let words = &words[place * (GROUP * BITS / 32)..];
        let codes = if BITS == 8 { bytes(&first(words)) } else { nibbles(&first(words)) };
        for row in 0..ROWS {
            let x = &x[row * padded + place * GROUP..][..GROUP];
            let mut part = [0.0; LANES];
            for start in 0..GROUP / LANES {
                for lane in 0..LANES {
                    part[lane] += codes[start * LANES + lane] * x[start * LANES + lane];
                }
            }
            for lane in 0..LANES {
                sums[row][lane] += scale * part[lane];
            }
        }
    }
    sums.map(in_halves)
}

/// The first words; 0 where there are fewer.
#[inline(always)]
fn first<const WORDS: usize>(words: &[i32]) -> [i32; WORDS] {
    if let Some(all) = words.first_chunk() {
        return *all;
    }
    let mut all = [0; WORDS];
    for (own, word) in all.iter_mut().zip(words) {
        *own = *word;
    }
    all
}

/// The sum of all lanes: the upper half is added to the lower, again and again.
#[inline(always)]
fn in_halves(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}
