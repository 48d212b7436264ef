//! Matrices of floats, of 16 bits or whole, on the CPU: products of few rows, and values.

use bytemuck::{Pod, cast_slice};

use super::back;
use super::threads::each_part;
use super::vectors::{self, SUMS, Vectors, Work};
use crate::kernels::Format;

/// How many rows of `x` are computed with each code that is unpacked.
const BLOCK: usize = 4;
/// How many codes are unpacked at once: two sums are on their way.
const STEP: usize = 2 * SUMS;

/// What a code is.
trait Code {
    type Bits: Pod + Default + Sync;
    fn unpacked<V: Vectors>(vectors: V, codes: &[Self::Bits; SUMS]) -> V::Floats;
}

/// [`Format::F16`]
struct Half;

impl Code for Half {
    type Bits = u16;

    #[inline(always)]
    fn unpacked<V: Vectors>(vectors: V, codes: &[u16; SUMS]) -> V::Floats {
        vectors.halves(codes)
    }
}

/// [`Format::BF16`]
struct UpperHalf;

impl Code for UpperHalf {
    type Bits = u16;

    #[inline(always)]
    fn unpacked<V: Vectors>(vectors: V, codes: &[u16; SUMS]) -> V::Floats {
        vectors.upper_halves(codes)
    }
}

/// [`Format::F32`]
struct Whole;

impl Code for Whole {
    type Bits = f32;

    #[inline(always)]
    fn unpacked<V: Vectors>(vectors: V, codes: &[f32; SUMS]) -> V::Floats {
        vectors.load_floats(codes)
    }
}

/// `x Wᵀ`, each row as it is alone, bit for bit.
///
/// # Shapes
/// - x: `[rows, inner]`
/// - words: those of a matrix `[width, inner]`, row after row
/// - output: `[rows, width]`
pub(super) fn project(x: &[f32], inner: usize, words: &[i32], format: Format) -> Vec<f32> {
    match format {
        Format::F16 => project_codes::<Half>(x, inner, cast_slice(words), 2 * format.row_words(inner)),
        Format::BF16 => project_codes::<UpperHalf>(x, inner, cast_slice(words), 2 * format.row_words(inner)),
        _ => project_codes::<Whole>(x, inner, cast_slice(words), inner),
    }
}

fn project_codes<C: Code>(x: &[f32], inner: usize, codes: &[C::Bits], stride: usize) -> Vec<f32> {
    let (rows, width) = (x.len() / inner.max(1), codes.len() / stride.max(1));
    let mut transposed = vec![0.0; width * rows];
    each_part(&mut transposed, (rows, 1), inner * rows, |first, out| {
        let codes = &codes[first * stride..];
        vectors::widest(Products::<C> { codes, stride, x, inner, out });
    });
    back(transposed, rows)
}

/// The values of a row of 16-bit floats.
pub(super) fn unpack(words: &[i32], values: &mut [f32], format: Format) {
    if format == Format::F16 {
        vectors::widest(Values::<Half> { codes: cast_slice(words), values });
    } else {
        vectors::widest(Values::<UpperHalf> { codes: cast_slice(words), values });
    }
}

struct Values<'a, C: Code> {
    codes: &'a [C::Bits],
    values: &'a mut [f32],
}

impl<C: Code> Work for Values<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vectors>(self, vectors: V) {
        let (all, rest) = self.values.as_chunks_mut::<SUMS>();
        let (codes, codes_left) = self.codes[..SUMS * all.len() + rest.len()].as_chunks::<SUMS>();
        for (values, codes) in all.iter_mut().zip(codes) {
            *values = vectors.floats(C::unpacked(vectors, codes));
        }
        if !rest.is_empty() {
            let values = vectors.floats(C::unpacked(vectors, &filled(codes_left)));
            rest.copy_from_slice(&values[..rest.len()]);
        }
    }
}

/// Products of all rows of `x` with rows of a matrix.
struct Products<'a, C: Code> {
    codes: &'a [C::Bits],
    stride: usize,
    x: &'a [f32],
    inner: usize,
    out: &'a mut [f32],
}

impl<C: Code> Work for Products<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vectors>(self, vectors: V) {
        let (x, inner) = (self.x, self.inner);
        let out = self.out.chunks_exact_mut(x.len() / inner);
        for (out, codes) in out.zip(self.codes.chunks_exact(self.stride)) {
            let codes = &codes[..inner];
            for (out, x) in out.chunks_mut(BLOCK).zip(x.chunks(BLOCK * inner)) {
                if let Ok(out) = <&mut [f32; BLOCK]>::try_from(&mut *out) {
                    *out = dots::<V, C, BLOCK>(vectors, codes, x);
                } else {
                    for (out, x) in out.iter_mut().zip(x.chunks_exact(inner)) {
                        [*out] = dots::<V, C, 1>(vectors, codes, x);
                    }
                }
            }
        }
    }
}

/// The products of one row of the matrix with some rows of `x`, each as it is alone.
#[inline(always)]
fn dots<V: Vectors, C: Code, const ROWS: usize>(vectors: V, codes: &[C::Bits], x: &[f32]) -> [f32; ROWS] {
    let inner = codes.len();
    let x: [&[f32]; ROWS] = std::array::from_fn(|row| &x[row * inner..][..inner]);
    let mut totals = [[vectors.zero(); 2]; ROWS];
    let (steps, rest) = codes.as_chunks::<STEP>();
    for (place, codes) in steps.iter().enumerate() {
        for (totals, x) in totals.iter_mut().zip(&x) {
            *totals = add::<V, C>(vectors, *totals, codes, at(x, place));
        }
    }
    if !rest.is_empty() {
        let codes = filled(rest);
        for (totals, x) in totals.iter_mut().zip(&x) {
            *totals = add::<V, C>(vectors, *totals, &codes, &filled(&x[inner - rest.len()..]));
        }
    }
    totals.map(|[first, second]| {
        let (first, second) = (vectors.floats(first), vectors.floats(second));
        first.iter().zip(&second).map(|(first, second)| first + second).sum()
    })
}

#[inline(always)]
fn add<V: Vectors, C: Code>(
    vectors: V,
    [first, second]: [V::Floats; 2],
    codes: &[C::Bits; STEP],
    x: &[f32; STEP],
) -> [V::Floats; 2] {
    let ([low, high], [x, behind]) = (halves(codes), halves(x));
    let [low, high] = [low, high].map(|codes| C::unpacked(vectors, codes));
    [vectors.add_products(first, low, x), vectors.add_products(second, high, behind)]
}

#[inline(always)]
fn halves<T>(step: &[T; STEP]) -> [&[T; SUMS]; 2] {
    let (halves, _) = step.as_chunks();
    [&halves[0], &halves[1]]
}

/// The step at a place of a row that has it.
#[inline(always)]
fn at(x: &[f32], place: usize) -> &[f32; STEP] {
    &x.as_chunks().0[place]
}

/// With zeros behind.
#[inline(always)]
fn filled<T: Copy + Default, const N: usize>(rest: &[T]) -> [T; N] {
    let mut all = [T::default(); N];
    all[..rest.len()].copy_from_slice(rest);
    all
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::super::vectors::Plain;
    use super::*;
    use crate::kernels::random_rows;
    use crate::random::Random;

    /// Bit for bit, on whatever machine this runs; and as f64 says.
    #[test]
    fn all_instructions_give_the_same_products() {
        fn products<C: Code>(words: &[i32], x: &[f32], inner: usize, plain: bool) -> Vec<f32> {
            let codes = cast_slice(words);
            let stride = inner.next_multiple_of(4 / size_of::<C::Bits>());
            let mut out = vec![0.0; codes.len() / stride * (x.len() / inner)];
            let products = Products::<C> { codes, stride, x, inner, out: &mut out };
            if plain {
                products.run(Plain);
            } else {
                vectors::widest(products);
            }
            out
        }
        let mut random = Random::new(7, &[]);
        for format in [Format::F16, Format::BF16, Format::F32] {
            for ([width, inner], rows) in [([9, 200], 5), ([7, 321], 3), ([3, 16], 8), ([2, 3], 1)] {
                let mut lines = random_rows(&mut random, [width, inner], format);
                // One too small to be normal.
                lines.words[0] = 0x0003_8001;
                let x: Vec<f32> = (0..rows * inner).map(|_| random.normal() as f32).collect();
                let products = match format {
                    Format::F16 => products::<Half>,
                    Format::BF16 => products::<UpperHalf>,
                    _ => products::<Whole>,
                };
                let widest = products(&lines.words, &x, inner, false);
                assert_eq!(widest, products(&lines.words, &x, inner, true));
                let full = lines.values(inner, format);
                for (place, found) in widest.iter().enumerate() {
                    let pairs = full[place / rows * inner..][..inner].iter().zip(&x[place % rows * inner..]);
                    let exact: f64 = pairs.map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                    assert!((f64::from(*found) - exact).abs() < 1e-3, "{found} {exact}");
                }
            }
        }
    }
}
