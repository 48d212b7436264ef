//! Products with packed matrices on the CPU. Few rows are multiplied in integers where the codes are some, many by
//! burn's product with the values, some rows of the matrix at a time.

use burn::backend::Flex;
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{DType, Tensor};

use super::threads::each_part;
use super::vectors::{self, SUMS, Vectors, WIDTH, Work};
use super::{FEW_ROWS, back, contiguous, floats, from_flex, from_values, into_flex, values};
use crate::kernels::packed::unpack;
use crate::kernels::{Format, GROUP, Packed};

/// How many rows of `x` are computed with each group of codes that is unpacked.
const BLOCK: usize = 4;
/// How many rows of the matrix are unpacked at once where there are many rows of `x`.
const TILE: usize = 512;

/// A packed matrix, row after row.
pub(super) struct Rows {
    words: FlexTensor,
    scales: FlexTensor,
    shape: [usize; 2],
    format: Format,
}

impl Rows {
    pub(super) fn new(weight: &Packed<Flex>) -> Self {
        Self {
            words: weight.words.clone().into_primitive(),
            scales: into_flex(weight.scales.clone()),
            shape: weight.shape(),
            format: weight.format(),
        }
    }

    /// Words and scales of the rows from `first` on.
    fn from(&self, first: usize) -> impl Iterator<Item = (&[i32], &[f32])> {
        let [rows, columns] = self.shape;
        let (words, scales) = (self.format.row_words(columns), self.format.row_scales(columns));
        let (of_words, of_scales) = (self.words.storage::<i32>(), self.scales.storage::<f32>());
        (first..rows)
            .map(move |row| (&of_words[row * words..][..words], &of_scales[row * scales..][..scales]))
    }

    /// The values of the rows from `first` on, as many as `out` has room for.
    pub(super) fn unpack(&self, first: usize, out: &mut [f32]) {
        for (out, (words, scales)) in out.chunks_exact_mut(self.shape[1]).zip(self.from(first)) {
            match self.format {
                Format::F16 | Format::BF16 => floats::unpack(words, out, self.format),
                format => unpack(format, words, scales, out),
            }
        }
    }

    /// `x Wᵀ`.
    ///
    /// # Shapes
    /// - x: `[rows, in]`, own: `[out, in]`
    /// - output: `[rows, out]`
    pub(super) fn project(&self, x: Tensor<Flex, 2>) -> Vec<f32> {
        if x.dims()[0] > FEW_ROWS {
            return self.project_many(x);
        }
        match self.format {
            Format::Q4 => self.project_few::<4>(x),
            Format::Q8 => self.project_few::<8>(x),
            Format::F16 | Format::BF16 | Format::F32 => {
                let ([rows, inner], x) = (x.dims(), contiguous(x));
                let words = self.words.storage::<i32>();
                floats::project(&values(&x)[..rows * inner], inner, words, self.format)
            }
        }
    }

    /// Each row as it is alone, bit for bit.
    fn project_few<const BITS: usize>(&self, x: Tensor<Flex, 2>) -> Vec<f32> {
        let ([rows, inner], [width, _]) = (x.dims(), self.shape);
        let x = contiguous(x);
        let x: Vec<_> = values(&x)[..rows * inner].chunks_exact(inner).map(Coded::new::<BITS>).collect();
        let mut transposed = vec![0.0; width * rows];
        each_part(&mut transposed, (rows, 1), inner * rows, |first, out| {
            vectors::widest(Products::<BITS> { weight: self, first, x: &x, out });
        });
        back(transposed, rows)
    }

    /// By burn's product, some rows of the matrix at a time.
    fn project_many(&self, x: Tensor<Flex, 2>) -> Vec<f32> {
        let ([rows, inner], [width, _]) = (x.dims(), self.shape);
        if self.format == Format::F32 {
            let layout = Layout::contiguous(self.shape.to_vec().into());
            let all: Tensor<Flex, 2> =
                from_flex(FlexTensor::from_arc(self.words.data_arc(), layout, DType::F32));
            return values(&contiguous(x.matmul(all.transpose()))).to_vec();
        }
        let mut out = vec![0.0; rows * width];
        for first in (0..width).step_by(TILE) {
            let count = TILE.min(width - first);
            let mut tile = vec![0.0; count * inner];
            each_part(&mut tile, (inner, 1), 4 * inner, |row, tile| self.unpack(first + row, tile));
            let tile: Tensor<Flex, 2> = from_values(tile, [count, inner]);
            let product = contiguous(x.clone().matmul(tile.transpose()));
            for (out, product) in out.chunks_exact_mut(width).zip(values(&product).chunks_exact(count)) {
                out[first..first + count].copy_from_slice(product);
            }
        }
        out
    }
}

/// A row of `x` in integers of 16 bits, each [`GROUP`] of values with a scale: to a 65,536th of the group's largest
/// what it was, and a product with a code of 8 bits is still exact.
struct Coded {
    /// In each group, in the order in which the codes of the matrix are unpacked.
    codes: Vec<[[i16; WIDTH]; QUARTERS]>,
    scales: Vec<f32>,
}

/// How many vectors of integers a group fills.
const QUARTERS: usize = GROUP / WIDTH;
const LARGEST: f32 = i16::MAX as f32;

impl Coded {
    fn new<const BITS: usize>(x: &[f32]) -> Self {
        let groups = x.len().div_ceil(GROUP);
        let mut own =
            Self { codes: vec![[[0; WIDTH]; QUARTERS]; groups], scales: Vec::with_capacity(groups) };
        for (group, codes) in x.chunks(GROUP).zip(&mut own.codes) {
            let largest = group.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            let up = if largest > 0.0 { LARGEST / largest } else { 0.0 };
            for (place, x) in group.iter().enumerate() {
                // Codes of 8 bits lie in order; of 4 bits, the first of each 16 bits are unpacked at once.
                let (quarter, own) = match BITS {
                    8 => (place / WIDTH, place % WIDTH),
                    _ => (place % QUARTERS, place / QUARTERS),
                };
                codes[quarter][own] = (x * up).round() as i16;
            }
            let lost = group.iter().any(|x| x.is_nan());
            own.scales.push(if lost { f32::NAN } else { largest / LARGEST });
        }
        own
    }
}

/// Products of rows of the matrix, from the `first` on, with all rows of `x`.
struct Products<'a, const BITS: usize> {
    weight: &'a Rows,
    first: usize,
    x: &'a [Coded],
    out: &'a mut [f32],
}

impl<const BITS: usize> Work for Products<'_, BITS> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vectors>(self, vectors: V) {
        let out = self.out.chunks_exact_mut(self.x.len());
        for (out, (words, scales)) in out.zip(self.weight.from(self.first)) {
            for (out, x) in out.chunks_mut(BLOCK).zip(self.x.chunks(BLOCK)) {
                if let (Ok(out), Ok(x)) = (<&mut [f32; BLOCK]>::try_from(&mut *out), x.try_into()) {
                    *out = dots::<V, BITS, BLOCK>(vectors, words, scales, x);
                } else {
                    for (out, x) in out.iter_mut().zip(x) {
                        [*out] = dots::<V, BITS, 1>(vectors, words, scales, std::array::from_ref(x));
                    }
                }
            }
        }
    }
}

/// The products of one row of a matrix with some rows of `x`, each as it is alone.
#[inline(always)]
fn dots<V: Vectors, const BITS: usize, const ROWS: usize>(
    vectors: V,
    words: &[i32],
    scales: &[f32],
    x: &[Coded; ROWS],
) -> [f32; ROWS] {
    let groups = scales.len();
    let x = x.each_ref().map(|x| (&x.codes[..groups], &x.scales[..groups]));
    let mut totals = [vectors.zero(); ROWS];
    for group in 0..groups {
        let codes = unpacked::<V, BITS>(vectors, &words[group * (GROUP * BITS / 32)..]);
        for (total, (of_x, x_scales)) in totals.iter_mut().zip(&x) {
            let mut sums = vectors.products(codes[0], vectors.load(&of_x[group][0]));
            for quarter in 1..QUARTERS {
                let products = vectors.products(codes[quarter], vectors.load(&of_x[group][quarter]));
                sums = vectors.add(sums, products);
            }
            *total = vectors.add_scaled(*total, scales[group] * x_scales[group], sums);
        }
    }
    let mut out = [0.0; ROWS];
    for (out, total) in out.iter_mut().zip(totals) {
        *out = in_halves(vectors.floats(total));
    }
    out
}

/// The codes of a group: of 8 bits in order, of 4 bits the first of each 16 bits, then the second, and so on.
#[inline(always)]
fn unpacked<V: Vectors, const BITS: usize>(vectors: V, words: &[i32]) -> [V::Codes; QUARTERS] {
    if BITS == 8 {
        let words: [i32; GROUP / 4] = first(words);
        let (quarters, _) = words.as_chunks();
        [
            vectors.bytes(&quarters[0]),
            vectors.bytes(&quarters[1]),
            vectors.bytes(&quarters[2]),
            vectors.bytes(&quarters[3]),
        ]
    } else {
        let words = first(words);
        [
            vectors.nibbles::<0>(&words),
            vectors.nibbles::<1>(&words),
            vectors.nibbles::<2>(&words),
            vectors.nibbles::<3>(&words),
        ]
    }
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
fn in_halves(mut lanes: [f32; SUMS]) -> f32 {
    let mut width = SUMS / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use burn::backend::flex::FlexDevice;

    use super::super::vectors::Plain;
    use super::*;
    use crate::kernels::{Kernels as _, PackedMatrix, random_rows};
    use crate::random::Random;

    fn products<const BITS: usize>(weight: &Rows, x: &[Vec<f32>], plain: bool) -> Vec<f32> {
        let x: Vec<_> = x.iter().map(|x| Coded::new::<BITS>(x)).collect();
        let mut out = vec![0.0; weight.shape[0] * x.len()];
        let products = Products::<BITS> { weight, first: 0, x: &x, out: &mut out };
        if plain {
            products.run(Plain);
        } else {
            vectors::widest(products);
        }
        out
    }

    /// Bit for bit, on whatever machine this runs; and as f64 says, to what rounding `x` costs.
    #[test]
    fn all_instructions_give_the_same_products() {
        let mut random = Random::new(7, &[]);
        for (bits, [width, inner], rows) in
            [(4, [9, 200], 5), (8, [7, 321], 3), (8, [3, 64], 1), (4, [2, 8], 4)]
        {
            let format = if bits == 4 { Format::Q4 } else { Format::Q8 };
            let lines = random_rows(&mut random, [width, inner], format);
            let x: Vec<Vec<f32>> =
                (0..rows).map(|_| (0..inner).map(|_| random.normal() as f32).collect()).collect();
            let full = lines.values(inner, format);
            let matrix = PackedMatrix::new([width, inner], format, lines);
            let weight = Rows::new(&Flex::store(matrix, &FlexDevice).unwrap());
            let products = if bits == 4 { products::<4> } else { products::<8> };
            let widest = products(&weight, &x, false);
            assert_eq!(widest, products(&weight, &x, true));
            for (place, found) in widest.iter().enumerate() {
                let (row, x) = (&full[place / rows * inner..][..inner], &x[place % rows]);
                let exact: f64 = row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                let most: f32 = row.iter().map(|w| w.abs()).sum::<f32>() * 5.0 / 65_534.0;
                assert!((f64::from(*found) - exact).abs() <= f64::from(most) + 1e-5, "{found} {exact}");
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let lines = random_rows(&mut Random::new(8, &[]), [3, 100], Format::Q8);
        let matrix = PackedMatrix::new([3, 100], Format::Q8, lines);
        let weight = Rows::new(&Flex::store(matrix, &FlexDevice).unwrap());
        for lost in [f32::NAN, f32::INFINITY] {
            let mut x = vec![1.0; 100];
            x[70] = lost;
            assert!(products::<8>(&weight, &[x], false).iter().all(|own| own.is_nan()));
        }
    }
}
