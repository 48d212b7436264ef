//! The machine's vector instructions. All implementations give the same numbers.
//!
//! Of integers: sums of products of 16 bits, sixteen at a time, by the instruction that every machine has for it
//! (pmaddwd, i32x4.dot_i16x8_s), which makes 8 sums of 2 products each. Of floats: 8 at a time, out of 16 bits too.

#![allow(clippy::inline_always, clippy::wildcard_imports)]

#[cfg(not(target_arch = "wasm32"))]
use crate::kernels::scalar;

/// How many integers stand in a vector.
pub(super) const WIDTH: usize = 16;
/// How many sums, one of each two products; and how many floats.
pub(super) const SUMS: usize = WIDTH / 2;

/// What a machine does with vectors of [`WIDTH`] integers and of [`SUMS`] floats.
pub(super) trait Vectors: Copy {
    /// [`WIDTH`] integers of 16 bits.
    type Codes: Copy;
    /// [`SUMS`] integers of 32 bits.
    type Sums: Copy;
    /// [`SUMS`] floats.
    type Floats: Copy;

    fn load(self, codes: &[i16; WIDTH]) -> Self::Codes;
    /// The bytes of four words, with their signs.
    fn bytes(self, words: &[i32; 4]) -> Self::Codes;
    /// Of each 16 bits of eight words the `PLACE`th four, with their signs.
    fn nibbles<const PLACE: usize>(self, words: &[i32; 8]) -> Self::Codes;
    /// `a0 b0 + a1 b1`, `a2 b2 + a3 b3`, …
    fn products(self, a: Self::Codes, b: Self::Codes) -> Self::Sums;
    fn add(self, a: Self::Sums, b: Self::Sums) -> Self::Sums;
    fn zero(self) -> Self::Floats;
    /// `total + scale sums`, rounded after the product and after the sum.
    fn add_scaled(self, total: Self::Floats, scale: f32, sums: Self::Sums) -> Self::Floats;
    fn floats(self, total: Self::Floats) -> [f32; SUMS];
    fn load_floats(self, floats: &[f32; SUMS]) -> Self::Floats;
    /// Finite floats of 16 bits (IEEE half precision).
    fn halves(self, codes: &[u16; SUMS]) -> Self::Floats;
    /// Floats whose upper halves these are.
    fn upper_halves(self, codes: &[u16; SUMS]) -> Self::Floats;
    /// `total + a b`, rounded after the product and after the sum.
    fn add_products(self, total: Self::Floats, a: Self::Floats, b: &[f32; SUMS]) -> Self::Floats;
}

/// Runs `work` with the machine's widest instructions.
pub(super) trait Work {
    type Output;
    fn run<V: Vectors>(self, vectors: V) -> Self::Output;
}

pub(super) fn widest<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = avx2::Avx2::detect() {
        return avx2.run(work);
    }
    #[cfg(target_arch = "wasm32")]
    return work.run(simd128::Simd128);
    #[cfg(not(target_arch = "wasm32"))]
    work.run(Plain)
}

/// Any machine's.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Clone, Copy)]
pub(super) struct Plain;

#[cfg(not(target_arch = "wasm32"))]
impl Vectors for Plain {
    type Codes = [i16; WIDTH];
    type Sums = [i32; SUMS];
    type Floats = [f32; SUMS];

    #[inline(always)]
    fn load(self, codes: &[i16; WIDTH]) -> [i16; WIDTH] {
        *codes
    }

    #[inline(always)]
    fn bytes(self, words: &[i32; 4]) -> [i16; WIDTH] {
        std::array::from_fn(|place| i16::from((words[place / 4] >> (8 * (place % 4))) as i8))
    }

    #[inline(always)]
    fn nibbles<const PLACE: usize>(self, words: &[i32; 8]) -> [i16; WIDTH] {
        std::array::from_fn(|place| {
            let both = (words[place / 2] >> (16 * (place % 2))) as i16;
            (both << (12 - 4 * PLACE)) >> 12
        })
    }

    #[inline(always)]
    fn products(self, a: [i16; WIDTH], b: [i16; WIDTH]) -> [i32; SUMS] {
        let product = |place: usize| i32::from(a[place]) * i32::from(b[place]);
        std::array::from_fn(|lane| product(2 * lane) + product(2 * lane + 1))
    }

    #[inline(always)]
    fn add(self, a: [i32; SUMS], b: [i32; SUMS]) -> [i32; SUMS] {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn zero(self) -> [f32; SUMS] {
        [0.0; SUMS]
    }

    #[inline(always)]
    fn add_scaled(self, total: [f32; SUMS], scale: f32, sums: [i32; SUMS]) -> [f32; SUMS] {
        std::array::from_fn(|lane| total[lane] + scale * sums[lane] as f32)
    }

    #[inline(always)]
    fn floats(self, total: [f32; SUMS]) -> [f32; SUMS] {
        total
    }

    #[inline(always)]
    fn load_floats(self, floats: &[f32; SUMS]) -> [f32; SUMS] {
        *floats
    }

    #[inline(always)]
    fn halves(self, codes: &[u16; SUMS]) -> [f32; SUMS] {
        codes.map(scalar::half)
    }

    #[inline(always)]
    fn upper_halves(self, codes: &[u16; SUMS]) -> [f32; SUMS] {
        codes.map(scalar::upper_half)
    }

    #[inline(always)]
    fn add_products(self, total: [f32; SUMS], a: [f32; SUMS], b: &[f32; SUMS]) -> [f32; SUMS] {
        std::array::from_fn(|lane| total[lane] + a[lane] * b[lane])
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{SUMS, Vectors, WIDTH, Work};

    /// Stands for a machine that has AVX2 and F16C: nothing else makes one.
    #[derive(Clone, Copy)]
    pub(super) struct Avx2(());

    impl Avx2 {
        pub(super) fn detect() -> Option<Self> {
            let has_both = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
            has_both.then_some(Self(()))
        }

        pub(super) fn run<W: Work>(self, work: W) -> W::Output {
            #[target_feature(enable = "avx2,f16c")]
            fn inner<W: Work>(avx2: Avx2, work: W) -> W::Output {
                work.run(avx2)
            }
            // SAFETY: the machine has both.
            unsafe { inner(self, work) }
        }
    }

    // SAFETY of all below: the machine has both, and what is loaded is as long as a vector.
    impl Vectors for Avx2 {
        type Codes = __m256i;
        type Sums = __m256i;
        type Floats = __m256;

        #[inline(always)]
        fn load(self, codes: &[i16; WIDTH]) -> __m256i {
            unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) }
        }

        #[inline(always)]
        fn bytes(self, words: &[i32; 4]) -> __m256i {
            unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(words.as_ptr().cast())) }
        }

        #[inline(always)]
        fn nibbles<const PLACE: usize>(self, words: &[i32; 8]) -> __m256i {
            unsafe {
                let both = _mm256_loadu_si256(words.as_ptr().cast());
                let up = match PLACE {
                    0 => _mm256_slli_epi16::<12>(both),
                    1 => _mm256_slli_epi16::<8>(both),
                    2 => _mm256_slli_epi16::<4>(both),
                    _ => both,
                };
                _mm256_srai_epi16::<12>(up)
            }
        }

        #[inline(always)]
        fn products(self, a: __m256i, b: __m256i) -> __m256i {
            unsafe { _mm256_madd_epi16(a, b) }
        }

        #[inline(always)]
        fn add(self, a: __m256i, b: __m256i) -> __m256i {
            unsafe { _mm256_add_epi32(a, b) }
        }

        #[inline(always)]
        fn zero(self) -> __m256 {
            unsafe { _mm256_setzero_ps() }
        }

        #[inline(always)]
        fn add_scaled(self, total: __m256, scale: f32, sums: __m256i) -> __m256 {
            unsafe { _mm256_add_ps(total, _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(sums))) }
        }

        #[inline(always)]
        fn floats(self, total: __m256) -> [f32; SUMS] {
            let mut out = [0.0; SUMS];
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), total) };
            out
        }

        #[inline(always)]
        fn load_floats(self, floats: &[f32; SUMS]) -> __m256 {
            unsafe { _mm256_loadu_ps(floats.as_ptr()) }
        }

        #[inline(always)]
        fn halves(self, codes: &[u16; SUMS]) -> __m256 {
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(codes.as_ptr().cast())) }
        }

        #[inline(always)]
        fn upper_halves(self, codes: &[u16; SUMS]) -> __m256 {
            unsafe {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(codes.as_ptr().cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }
        }

        #[inline(always)]
        fn add_products(self, total: __m256, a: __m256, b: &[f32; SUMS]) -> __m256 {
            unsafe { _mm256_add_ps(total, _mm256_mul_ps(a, _mm256_loadu_ps(b.as_ptr()))) }
        }
    }
}

#[cfg(target_arch = "wasm32")]
mod simd128 {
    use std::arch::wasm32::*;

    use super::{SUMS, Vectors, WIDTH};

    #[derive(Clone, Copy)]
    pub(super) struct Simd128;

    /// SAFETY of what calls it: 16 bytes are there.
    #[inline(always)]
    unsafe fn at<T>(values: &[T], place: usize) -> v128 {
        unsafe { v128_load(values.as_ptr().cast::<v128>().add(place)) }
    }

    #[inline(always)]
    fn widened(codes: &[u16; SUMS]) -> [v128; 2] {
        let codes = unsafe { at(codes, 0) };
        [u32x4_extend_low_u16x8(codes), u32x4_extend_high_u16x8(codes)]
    }

    impl Vectors for Simd128 {
        type Codes = [v128; 2];
        type Sums = [v128; 2];
        type Floats = [v128; 2];

        #[inline(always)]
        fn load(self, codes: &[i16; WIDTH]) -> [v128; 2] {
            unsafe { [at(codes, 0), at(codes, 1)] }
        }

        #[inline(always)]
        fn bytes(self, words: &[i32; 4]) -> [v128; 2] {
            let bytes = unsafe { at(words, 0) };
            [i16x8_extend_low_i8x16(bytes), i16x8_extend_high_i8x16(bytes)]
        }

        #[inline(always)]
        fn nibbles<const PLACE: usize>(self, words: &[i32; 8]) -> [v128; 2] {
            let both = unsafe { [at(words, 0), at(words, 1)] };
            both.map(|both| i16x8_shr(i16x8_shl(both, 12 - 4 * PLACE as u32), 12))
        }

        #[inline(always)]
        fn products(self, a: [v128; 2], b: [v128; 2]) -> [v128; 2] {
            [i32x4_dot_i16x8(a[0], b[0]), i32x4_dot_i16x8(a[1], b[1])]
        }

        #[inline(always)]
        fn add(self, a: [v128; 2], b: [v128; 2]) -> [v128; 2] {
            [i32x4_add(a[0], b[0]), i32x4_add(a[1], b[1])]
        }

        #[inline(always)]
        fn zero(self) -> [v128; 2] {
            [f32x4_splat(0.0); 2]
        }

        #[inline(always)]
        fn add_scaled(self, total: [v128; 2], scale: f32, sums: [v128; 2]) -> [v128; 2] {
            let scale = f32x4_splat(scale);
            [0, 1].map(|half| f32x4_add(total[half], f32x4_mul(scale, f32x4_convert_i32x4(sums[half]))))
        }

        #[inline(always)]
        fn floats(self, total: [v128; 2]) -> [f32; SUMS] {
            let mut out = [0.0; SUMS];
            for (half, total) in total.into_iter().enumerate() {
                // SAFETY: each half has room for four floats.
                unsafe { v128_store(out[4 * half..].as_mut_ptr().cast(), total) };
            }
            out
        }

        #[inline(always)]
        fn load_floats(self, floats: &[f32; SUMS]) -> [v128; 2] {
            unsafe { [at(floats, 0), at(floats, 1)] }
        }

        /// As `scalar::half`.
        #[inline(always)]
        fn halves(self, codes: &[u16; SUMS]) -> [v128; 2] {
            widened(codes).map(|bits| {
                let size = v128_and(bits, u32x4_splat(0x7fff));
                let normal = u32x4_add(u32x4_shl(size, 13), u32x4_splat(112 << 23));
                let small = f32x4_mul(f32x4_convert_i32x4(size), f32x4_splat(1.0 / 16_777_216.0));
                let value = v128_bitselect(small, normal, u32x4_lt(size, u32x4_splat(0x400)));
                v128_or(value, u32x4_shl(v128_and(bits, u32x4_splat(0x8000)), 16))
            })
        }

        #[inline(always)]
        fn upper_halves(self, codes: &[u16; SUMS]) -> [v128; 2] {
            widened(codes).map(|bits| u32x4_shl(bits, 16))
        }

        #[inline(always)]
        fn add_products(self, total: [v128; 2], a: [v128; 2], b: &[f32; SUMS]) -> [v128; 2] {
            [0, 1].map(|half| {
                let b = unsafe { at(b, half) };
                f32x4_add(total[half], f32x4_mul(a[half], b))
            })
        }
    }
}
