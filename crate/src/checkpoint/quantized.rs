//! Matrices in few bits: blocks of small integers, each with a scale.
//!
//! A row is cut into groups of [`GROUP`] consecutive values; the last group of a row has what is
//! left. With b bits a value, `value = scale · code`, where:
//! - `code` is an integer in `-2^(b-1) ..= 2^(b-1) - 1`;
//! - `scale` is one half-precision float a group. It may be negative, so that a group's largest
//!   value of either sign can have the code `-2^(b-1)`: in 4 bits that sixteenth code counts. Of a
//!   few fractions ([`CLIPPING`]) of `max|value| / 2^(b-1)` and of `max|value| / (2^(b-1) - 1)` it
//!   is the one with the least squared error: cutting a lone large value off makes the others finer.
//!
//! The codes of a row are one stream of bits without gaps, from the least significant bit of its
//! first byte on: code `i` has the bits `b·i .. b·(i+1)` in two's complement, and what is left of
//! the last byte is zero. A group of 64 is thus `8·b` bytes: whole 32-bit words for a kernel, and
//! in 8 bits an array of `i8`.
//!
//! In a safetensors file the matrix `name` of shape `[rows, columns]` is two tensors: `name`, U8 of
//! shape `[rows, ⌈b · columns / 8⌉]`, and `name.scales`, F16 of shape `[rows, ⌈columns / 64⌉]`. The
//! file alone says what b is.

use half::f16;

use super::weights::{Stored, broken, to_f32};
use crate::error::Result;
use crate::kernels::{Format, GROUP, PackedMatrix, PackedRows, row_groups};
use crate::nn::ParameterSpec;

/// The bits a value may have.
const BITS: [usize; 3] = [4, 6, 8];
/// The fewest columns of a quantised matrix: below, the bytes of a row do not say how many bits a
/// value has, and a scale costs more than it saves.
const FEWEST_COLUMNS: usize = 4;
/// The share of the largest value's reach that a scale may have.
const CLIPPING: [f32; 8] = [1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.75, 0.7];

/// How many bytes of a matrix are read at once.
const PIECE: usize = 1 << 20;

/// What follows a matrix's name in the name of its scales.
pub(super) const SCALES: &str = ".scales";

/// Whether a tensor of this shape is quantised; vectors are not.
pub(super) fn is_quantizable(shape: &[usize]) -> bool {
    matches!(shape, [_, columns] if *columns >= FEWEST_COLUMNS)
}

/// How many bytes the codes of a row have.
pub(super) fn row_bytes(columns: usize, bits: usize) -> usize {
    (columns * bits).div_ceil(8)
}

/// The scales of a matrix, whose values must be within the range of half precision.
///
/// # Shapes
/// - values: `[rows, columns]`
/// - output: `[rows, row_groups]`
pub(super) fn scales(values: &[f32], columns: usize, bits: usize) -> Vec<f16> {
    let groups = values.chunks_exact(columns).flat_map(|row| row.chunks(GROUP));
    groups.map(|group| best_scale(group, bits)).collect()
}

/// The codes of a matrix with these scales.
///
/// # Shapes
/// - values: `[rows, columns]`
/// - output: `[rows, row_bytes]`
pub(super) fn codes(values: &[f32], scales: &[f16], columns: usize, bits: usize) -> Vec<u8> {
    let mut codes = Vec::with_capacity(values.len() / columns * row_bytes(columns, bits));
    let groups = values.chunks_exact(columns).flat_map(|row| row.chunks(GROUP));
    for (group, scale) in groups.zip(scales) {
        let encoder = Encoder::new(scale.to_f32(), bits);
        pack(group.iter().map(|value| encoder.code(*value) as i32), bits, &mut codes);
    }
    codes
}

/// The scale with which a group's squared error is least.
fn best_scale(group: &[f32], bits: usize) -> f16 {
    let largest = group.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(0.0);
    let half = (1 << (bits - 1)) as f32;
    let reaches = [largest / (half - 1.0), -largest / half];
    let candidates = reaches.iter().flat_map(|reach| CLIPPING.map(|share| f16::from_f32(reach * share)));
    // With the scale 0, which is all that is left of values too small for half precision.
    let nothing = (f16::ZERO, group.iter().map(|value| value * value).sum::<f32>());
    let (best, _) = candidates.fold(nothing, |best, scale| {
        let error = squared_error(group, scale.to_f32(), bits);
        if error < best.1 { (scale, error) } else { best }
    });
    best
}

fn squared_error(group: &[f32], scale: f32, bits: usize) -> f32 {
    let encoder = Encoder::new(scale, bits);
    // Eight sums at a time: one alone would wait for each addition.
    let mut sums = [0.0; 8];
    for values in group.chunks(8) {
        for (sum, value) in sums.iter_mut().zip(values) {
            let error = value - encoder.code(*value) * scale;
            *sum += error * error;
        }
    }
    sums.iter().sum()
}

/// From values to codes, which are whole numbers.
struct Encoder {
    inverse: f32,
    lowest: f32,
    highest: f32,
}

impl Encoder {
    fn new(scale: f32, bits: usize) -> Self {
        let half = (1 << (bits - 1)) as f32;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        Self { inverse, lowest: -half, highest: half - 1.0 }
    }

    /// The code whose value is nearest.
    fn code(&self, value: f32) -> f32 {
        // From here on an f32 has no room for a fraction: adding rounds, and faster than `round`.
        const WHOLE: f32 = 12_582_912.0;
        let code = (value * self.inverse).clamp(self.lowest, self.highest);
        code + WHOLE - WHOLE
    }
}

/// Puts the codes of a group behind the bytes of the groups before it.
fn pack(codes: impl Iterator<Item = i32>, bits: usize, bytes: &mut Vec<u8>) {
    let mask = (1 << bits) - 1;
    let (mut word, mut filled) = (0_u32, 0);
    for code in codes {
        word |= (code.cast_unsigned() & mask) << filled;
        filled += bits;
        while filled >= 8 {
            bytes.push(word as u8);
            word >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        bytes.push(word as u8);
    }
}

/// The quantised matrix that lies in two tensors. One that does not have the lengths of the
/// shape in `spec` is `MODEL_INTEGRITY` and named.
pub(super) fn read<'a>(
    spec: &ParameterSpec,
    codes: Stored<'a>,
    scales: Stored<'a>,
) -> Result<PackedMatrix<'a>> {
    let (name, is) = (&spec.name, &codes.shape);
    let ([rows, columns], [own_rows, bytes]) = (&spec.shape[..], &is[..]) else {
        let wanted = &spec.shape;
        return Err(broken(format!(
            "the tensor {name} has the shape {is:?}, quantised, instead of {wanted:?}"
        )));
    };
    let bits = BITS.into_iter().find(|bits| row_bytes(*columns, *bits) == *bytes);
    let (Some(bits), true) = (bits.filter(|_| is_quantizable(&spec.shape)), rows == own_rows) else {
        let wanted: Vec<String> =
            BITS.iter().map(|bits| format!("{:?}", [*rows, row_bytes(*columns, *bits)])).collect();
        return Err(broken(format!(
            "the tensor {name} has the shape {is:?}, quantised, instead of {}",
            wanted.join(", ")
        )));
    };
    let (rows, columns) = (*rows, *columns);
    let (wanted, name) = ([rows, row_groups(columns)], format!("{name}{SCALES}"));
    if scales.shape != wanted {
        let is = &scales.shape;
        return Err(broken(format!("the tensor {name} has the shape {is:?} instead of {wanted:?}")));
    }
    let (bytes, groups) = (row_bytes(columns, bits), row_groups(columns));
    let format = if bits == 4 { Format::Q4 } else { Format::Q8 };
    let pieces = pieces(rows, bytes).map(move |(first, count)| {
        let scales = to_f32(&name, &scales, first * groups, count * groups)?;
        let codes = codes.part(first * bytes, count * bytes)?;
        let mut words = Vec::with_capacity(count * format.row_words(columns));
        add_words(&codes, columns, bits, &mut words);
        Ok(PackedRows { words, scales })
    });
    Ok(PackedMatrix { shape: [rows, columns], format, rows: Box::new(pieces) })
}

/// Where some rows at a time begin and how many they are, so that a large matrix is not there as a whole.
pub(super) fn pieces(rows: usize, row_bytes: usize) -> impl Iterator<Item = (usize, usize)> {
    let some = (PIECE / row_bytes.max(1)).max(1);
    (0..rows).step_by(some).map(move |first| (first, some.min(rows - first)))
}

/// Rows of 4 or 8 bits, whose bytes are the words of memory; those of 6 have 8 there.
///
/// # Shapes
/// - codes: `[rows, row_bytes]`
fn add_words(codes: &[u8], columns: usize, bits: usize, words: &mut Vec<i32>) {
    if bits != 6 {
        return add_whole_words(codes, row_bytes(columns, bits), words);
    }
    for row in codes.chunks_exact(row_bytes(columns, bits)) {
        let wide = widened(row, columns);
        words.extend(wide.as_chunks().0.iter().map(|word| i32::from_le_bytes(*word)));
    }
}

/// Rows of so many bytes, each filled up with 0 to whole words.
pub(super) fn add_whole_words(rows: &[u8], row_bytes: usize, words: &mut Vec<i32>) {
    for row in rows.chunks_exact(row_bytes) {
        words.extend(row.chunks(4).map(|word| i32::from_le_bytes(filled(word))));
    }
}

fn filled<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut all = [0; N];
    all[..bytes.len()].copy_from_slice(bytes);
    all
}

/// The codes of a row of 6 bits in bytes, filled up with 0 to whole words.
fn widened(row: &[u8], columns: usize) -> Vec<u8> {
    let mut wide = Vec::with_capacity(columns.next_multiple_of(4));
    for group in row.chunks(3) {
        let word = i32::from_le_bytes(filled(group));
        wide.extend((0..4).map(|place| ((word << (26 - 6 * place)) >> 26) as u8));
    }
    wide.resize(columns.next_multiple_of(4), 0);
    wide[columns..].fill(0);
    wide
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::Dtype;

    use super::*;
    use crate::checkpoint::Content;
    use crate::error::ErrorCode;
    use crate::nn::ParameterKind;

    fn into_memory(codes: &[u8], scales: Vec<f32>, columns: usize, bits: usize) -> PackedRows {
        let mut words = Vec::new();
        add_words(codes, columns, bits, &mut words);
        PackedRows { words, scales }
    }

    fn values(codes: &[u8], scales: Vec<f32>, columns: usize, bits: usize) -> Vec<f32> {
        let format = if bits == 4 { Format::Q4 } else { Format::Q8 };
        into_memory(codes, scales, columns, bits).values(columns, format)
    }

    fn floats(scales: &[f16]) -> Vec<f32> {
        scales.iter().map(|scale| scale.to_f32()).collect()
    }

    fn there_and_back(values: &[f32], columns: usize, bits: usize) -> Vec<f32> {
        let scales = scales(values, columns, bits);
        let codes = codes(values, &scales, columns, bits);
        assert_eq!(codes.len(), values.len() / columns * row_bytes(columns, bits));
        self::values(&codes, floats(&scales), columns, bits)
    }

    #[test]
    fn the_layout_is_what_it_was() {
        for (values, bits, codes, scale) in [
            (&[-4.0, 3.5, 0.0, 0.5, 1.0, -0.5, 2.0][..], 4, &[0x78, 0x10, 0xf2, 0x04][..], 0.5),
            // The largest value may have the lowest code: the scale is negative then.
            (&[4.0, -3.5, 0.0, -0.5], 4, &[0x78, 0x10], -0.5),
            (&[-8.0, 7.75, 0.25, -0.25, 0.5], 6, &[0xe0, 0x17, 0xfc, 0x02], 0.25),
            (&[-128.0, 127.0, 1.0, -1.0], 8, &[0x80, 0x7f, 0x01, 0xff], 1.0),
            (&[0.0; 5], 6, &[0; 4], 0.0),
        ] {
            let own = scales(values, values.len(), bits);
            assert_eq!(floats(&own), [scale]);
            assert_eq!(super::codes(values, &own, values.len(), bits), codes);
            assert_eq!(self::values(codes, vec![scale], values.len(), bits), values);
        }
    }

    #[test]
    fn a_group_has_64_values_and_a_row_its_own_groups() {
        let mut values = vec![1.0; 2 * 70];
        values[64..70].fill(3.0);
        values[70..].fill(-0.5);
        let scales = scales(&values, 70, 8);
        assert_eq!(scales.len(), 2 * 2);
        assert_eq!(codes(&values, &scales, 70, 8).len(), 140);
        let back = there_and_back(&values, 70, 4);
        for (value, own) in values.iter().zip(&back) {
            assert!((value - own).abs() < 1e-3 * value.abs(), "{own} instead of {value}");
        }
    }

    #[test]
    fn a_lone_large_value_is_clipped_where_the_others_gain() {
        let mut values: Vec<f32> = (0..64).map(|place| ((place * 37 % 64) as f32 - 31.5) / 50.0).collect();
        values[9] = 1.0;
        let unclipped = squared_error(&values, 1.0 / -8.0, 4);
        let own: f32 = there_and_back(&values, 64, 4)
            .iter()
            .zip(&values)
            .map(|(own, value)| (own - value).powi(2))
            .sum();
        assert!(own < 0.95 * unclipped, "{own} instead of {unclipped}");
    }

    #[test]
    fn a_large_matrix_is_read_in_pieces() {
        let (rows, columns) = (9000, 130);
        let values: Vec<f32> = (0..rows * columns).map(|place| (place * 37 % 101) as f32 - 50.0).collect();
        for bits in [4, 6, 8] {
            let scales = scales(&values, columns, bits);
            let codes = codes(&values, &scales, columns, bits);
            let halves: Vec<u8> = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
            let (wanted, pieces) = (into_memory(&codes, floats(&scales), columns, bits), codes.len() / PIECE);
            let (codes, scales) = (Content::from(codes), Content::from(halves));
            let codes = Stored::new(Dtype::U8, &[rows, row_bytes(columns, bits)], &codes);
            let scales = Stored::new(Dtype::F16, &[rows, row_groups(columns)], &scales);
            let spec = ParameterSpec {
                name: "w".into(),
                shape: vec![rows, columns],
                kind: ParameterKind::Projection,
            };
            assert!(bits < 8 || pieces > 0);
            let matrix = read(&spec, codes, scales).unwrap();
            assert_eq!(matrix.shape, [rows, columns]);
            assert_eq!(matrix.collect().unwrap(), wanted);
        }
    }

    /// What reading the two tensors says, for a matrix of 3 rows and 70 columns.
    fn refusal(codes: [usize; 2], scales: &[usize], dtype: Dtype) -> (ErrorCode, String) {
        let spec = ParameterSpec { name: "w".into(), shape: vec![3, 70], kind: ParameterKind::Projection };
        let (bytes, width) = (vec![0; codes.iter().product()], if dtype == Dtype::U8 { 1 } else { 2 });
        let scale_bytes = [0x00, 0x7c].repeat(scales.iter().product::<usize>() * width / 2);
        let (bytes, scale_bytes) = (Content::from(bytes), Content::from(scale_bytes));
        let codes = Stored::new(Dtype::U8, &codes, &bytes);
        let scales = Stored::new(dtype, scales, &scale_bytes);
        let error = read(&spec, codes, scales).and_then(PackedMatrix::collect).unwrap_err();
        (error.code(), error.message().to_owned())
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused_by_name() {
        let is = |codes, scales: &[usize], dtype, code, wanted: &str| {
            assert_eq!(refusal(codes, scales, dtype), (code, wanted.to_owned()));
        };
        let integrity = ErrorCode::ModelIntegrity;
        let wanted = "instead of [3, 35], [3, 53], [3, 70]";
        for wrong in [[3, 34], [3, 71], [2, 35]] {
            let message = format!("the tensor w has the shape {wrong:?}, quantised, {wanted}");
            is(wrong, &[3, 2], Dtype::F16, integrity, &message);
        }
        let message = "the tensor w.scales has the shape [3, 1] instead of [3, 2]";
        is([3, 53], &[3, 1], Dtype::F16, integrity, message);
        is([3, 53], &[3, 2], Dtype::F16, integrity, "the tensor w.scales is not finite at place 0");
        let message = "the tensor w.scales has the type U8; supported: F32, F16, BF16";
        is([3, 53], &[3, 2], Dtype::U8, ErrorCode::ModelUnsupported, message);
    }

    #[test]
    fn the_bytes_of_a_row_say_its_bits() {
        for columns in FEWEST_COLUMNS..200 {
            let bytes = BITS.map(|bits| row_bytes(columns, bits));
            assert!(bytes[0] < bytes[1] && bytes[1] < bytes[2], "{columns}: {bytes:?}");
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    mod properties {
        use proptest::prelude::*;

        use super::*;

        /// Rows of one length, and the number of bits.
        fn matrices() -> impl Strategy<Value = (usize, usize, Vec<f32>)> {
            let sizes = (FEWEST_COLUMNS..150_usize, 1..4_usize, prop::sample::select(BITS.to_vec()));
            sizes.prop_flat_map(|(columns, rows, bits)| {
                let value =
                    (-1.0..1.0_f32, -10..10_i32).prop_map(|(value, power)| value * 2.0_f32.powi(power));
                (Just(columns), Just(bits), prop::collection::vec(value, rows * columns))
            })
        }

        proptest! {
            #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

            /// Never worse than rounding to the unclipped scale, which is half a step off at most.
            #[test]
            fn the_error_is_bounded((columns, bits, values) in matrices()) {
                let back = there_and_back(&values, columns, bits);
                for (own, values) in back.chunks(columns).zip(values.chunks(columns)) {
                    for (own, values) in own.chunks(GROUP).zip(values.chunks(GROUP)) {
                        let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
                        // A scale near the end of half precision is itself half of its steps off.
                        let half_step = 0.501 * largest / ((1 << (bits - 1)) - 1) as f32 + 128.0 * 2.0_f32.powi(-25);
                        let error: f32 = own.iter().zip(values).map(|(own, value)| (own - value).powi(2)).sum();
                        prop_assert!(error <= values.len() as f32 * half_step.powi(2), "{error}");
                    }
                }
            }

            /// Any codes with any scales come back as they were.
            #[test]
            fn codes_come_back_exactly(
                bits in prop::sample::select(BITS.to_vec()),
                codes in prop::collection::vec(-128..128_i32, 1..200),
                scale in -2.0..2.0_f32,
            ) {
                let half = 1 << (bits - 1);
                let codes: Vec<i32> = codes.into_iter().map(|code| code.clamp(-half, half - 1)).collect();
                let mut bytes = Vec::new();
                pack(codes.iter().copied(), bits, &mut bytes);
                prop_assert_eq!(bytes.len(), row_bytes(codes.len(), bits));
                let scales = vec![scale; row_groups(codes.len())];
                let values = super::values(&bytes, scales, codes.len(), bits);
                for (code, value) in codes.iter().zip(values) {
                    prop_assert_eq!((*code as f32 * scale).to_bits(), value.to_bits());
                }
            }
        }
    }
}
