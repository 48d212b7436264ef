//! Functions of one number without branches or calls, so that the compiler turns a loop over them
//! into vector instructions. They are inlined by force: a loop that is compiled for the machine's
//! widest vectors must hold them.

#![allow(clippy::inline_always)]

use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

/// Runs `work` compiled for the machine's widest vectors; WebAssembly has one width.
#[inline]
pub(crate) fn wide<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(not(target_arch = "wasm32"))]
    return pulp::Arch::new().dispatch(work);
    #[cfg(target_arch = "wasm32")]
    return work();
}

/// `e^x` to 2 units in the last place; nearly 0 below -87.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; `e^r` by its series of degree 7.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer behind
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let series = 1.0
        + r * (1.0
            + r * (0.5
                + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r / 5040.0))))));
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    series * f32::from_bits(exponent)
}

/// Φ, the distribution function of the normal distribution, to 1e-7 (Abramowitz and Stegun, 7.1.26).
#[inline(always)]
pub(crate) fn normal_cdf(x: f32) -> f32 {
    let z = x.abs() * FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series =
        ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_7) * t - 0.284_496_74) * t + 0.254_829_6) * t;
    let above = 0.5 * series * exp(-z * z);
    if x < 0.0 { above } else { 1.0 - above }
}

/// The finite float of 16 bits (IEEE half precision) that these bits are.
#[inline(always)]
pub(crate) fn half(bits: u16) -> f32 {
    const LEAST: f32 = 1.0 / 16_777_216.0;
    let bits = u32::from(bits);
    let size = bits & 0x7fff;
    let normal = (size << 13) + (112 << 23);
    let size = if size < 0x400 { (size.cast_signed() as f32 * LEAST).to_bits() } else { normal };
    f32::from_bits(size | ((bits & 0x8000) << 16))
}

/// The float whose upper half these bits are.
#[inline(always)]
pub(crate) fn upper_half(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// `x Φ(x)` (Hendrycks and Gimpel, 2016).
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    x * normal_cdf(x)
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_right_to_a_millionth() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let (own, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((own / exact - 1.0).abs() < 1e-6, "{x}: {own} {exact}");
        }
        assert!(exp(-1e30) < 1e-37 && exp(f32::NEG_INFINITY) >= 0.0 && exp(f32::NAN).is_nan());
    }

    #[test]
    fn every_finite_half_is_what_it_is() {
        for bits in 0..=u16::MAX {
            let wanted = [half::f16::from_bits(bits).to_f32(), half::bf16::from_bits(bits).to_f32()];
            for (own, wanted) in [half(bits), upper_half(bits)].into_iter().zip(wanted) {
                assert!(own.to_bits() == wanted.to_bits() || !wanted.is_finite(), "{bits:x}");
            }
        }
    }

    #[test]
    fn gelu_is_that_of_the_error_function() {
        // torch.nn.functional.gelu
        let wanted = [
            (-3.0, -0.004_049_69),
            (-1.0, -0.158_655_25),
            (-0.1, -0.046_017_22),
            (0.0, 0.0),
            (0.5, 0.345_731_2),
            (2.0, 1.954_499_7),
            (40.0, 40.0),
            (-40.0, 0.0),
        ];
        for (x, wanted) in wanted {
            assert!((gelu(x) - wanted).abs() < 1e-6, "{x}: {}", gelu(x));
        }
        assert!(gelu(f32::NAN).is_nan());
    }
}
