//! Matrices in few bits: what lies in memory, and how it becomes numbers again.
//!
//! The codes of a row lie behind each other from the least significant bit of its first word on; what is left of its
//! last word is 0. A code of 4 or of 8 bits is an integer in two's complement, and a row is cut into groups of
//! [`GROUP`] values with a scale each: `value = scale · code`. A code of 16 or of 32 bits is a float by itself.

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, ElementConversion, Int, Tensor, TensorData};

use super::scalar;
use crate::error::Result;

/// How many values of a row share a scale.
pub const GROUP: usize = 64;

/// What a code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// An integer of 4 bits, with a scale.
    Q4,
    /// An integer of 8 bits, with a scale.
    Q8,
    /// A float of 16 bits (IEEE half precision); a finite one.
    F16,
    /// The upper half of a float of 32 bits.
    BF16,
    /// A float of 32 bits.
    F32,
}

impl Format {
    /// How many bits a code has.
    pub const fn bits(self) -> usize {
        match self {
            Self::Q4 => 4,
            Self::Q8 => 8,
            Self::F16 | Self::BF16 => 16,
            Self::F32 => 32,
        }
    }

    /// Whether groups have scales.
    pub const fn is_scaled(self) -> bool {
        matches!(self, Self::Q4 | Self::Q8)
    }

    /// How many words the codes of a row fill.
    pub const fn row_words(self, columns: usize) -> usize {
        (columns * self.bits()).div_ceil(32)
    }

    /// How many scales a row has.
    pub const fn row_scales(self, columns: usize) -> usize {
        if self.is_scaled() { row_groups(columns) } else { 0 }
    }
}

/// How many groups a row has.
pub const fn row_groups(columns: usize) -> usize {
    columns.div_ceil(GROUP)
}

/// Rows of a packed matrix on the host: words `[rows, row_words]` and scales `[rows, row_scales]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedRows {
    /// The codes.
    pub words: Vec<i32>,
    /// None of a format without scales.
    pub scales: Vec<f32>,
}

/// A packed matrix that is on its way to a device, some rows at a time: a large one need not be on the host at once.
pub struct PackedMatrix<'a> {
    /// How many rows and columns.
    pub shape: [usize; 2],
    /// What its codes are.
    pub format: Format,
    /// All its rows, in order, as many at a time as the iterator likes.
    pub rows: Box<dyn Iterator<Item = Result<PackedRows>> + 'a>,
}

impl PackedMatrix<'_> {
    /// Of rows that are all here.
    pub fn new(shape: [usize; 2], format: Format, rows: PackedRows) -> Self {
        Self { shape, format, rows: Box::new(std::iter::once(Ok(rows))) }
    }

    /// All its rows.
    pub fn collect(self) -> Result<PackedRows> {
        let [rows, columns] = self.shape;
        let words = Vec::with_capacity(rows * self.format.row_words(columns));
        let scales = Vec::with_capacity(rows * self.format.row_scales(columns));
        let mut all = PackedRows { words, scales };
        for rows in self.rows {
            let rows = rows?;
            all.words.extend(rows.words);
            all.scales.extend(rows.scales);
        }
        Ok(all)
    }

    /// The values, `[rows, columns]`.
    pub fn values(self) -> Result<Vec<f32>> {
        let ([rows, columns], format) = (self.shape, self.format);
        let mut values = Vec::with_capacity(rows * columns);
        for rows in self.rows {
            values.extend(rows?.values(columns, format));
        }
        Ok(values)
    }
}

impl PackedRows {
    /// The values, `[rows, columns]`.
    pub fn values(&self, columns: usize, format: Format) -> Vec<f32> {
        let (row_words, row_scales) = (format.row_words(columns), format.row_scales(columns));
        let rows = self.words.len() / row_words.max(1);
        let mut values = vec![0.0; rows * columns];
        for (row, values) in values.chunks_exact_mut(columns.max(1)).enumerate() {
            let words = &self.words[row * row_words..][..row_words];
            unpack(format, words, &self.scales[row * row_scales..][..row_scales], values);
        }
        values
    }
}

/// The values of one row.
pub(super) fn unpack(format: Format, words: &[i32], scales: &[f32], values: &mut [f32]) {
    match format {
        Format::Q4 => unpack_integers::<4>(words, scales, values),
        Format::Q8 => unpack_integers::<8>(words, scales, values),
        Format::F16 => unpack_floats(words, values, scalar::half),
        Format::BF16 => unpack_floats(words, values, scalar::upper_half),
        Format::F32 => values.copy_from_slice(&bytemuck::cast_slice(words)[..values.len()]),
    }
}

fn unpack_integers<const BITS: usize>(words: &[i32], scales: &[f32], values: &mut [f32]) {
    let groups = values.chunks_mut(GROUP).zip(words.chunks(GROUP * BITS / 32));
    for ((values, words), scale) in groups.zip(scales) {
        for (values, word) in values.chunks_mut(32 / BITS).zip(words) {
            for (place, value) in values.iter_mut().enumerate() {
                // Up to the sign bit, then down again with the sign.
                let code = (word << (32 - BITS * (place + 1))) >> (32 - BITS);
                *value = code as f32 * scale;
            }
        }
    }
}

/// Codes of 16 bits in their order: all machines that this runs on put a word's lower half first.
fn unpack_floats(words: &[i32], values: &mut [f32], float: impl Fn(u16) -> f32) {
    for (value, code) in values.iter_mut().zip(bytemuck::cast_slice::<i32, u16>(words)) {
        *value = float(*code);
    }
}

/// A packed matrix where a backend computes with it. In which order its words and scales lie is the backend's
/// ([`super::Kernels::store`]).
#[derive(Module, Debug)]
pub struct Packed<B: Backend> {
    pub(super) words: Tensor<B, 1, Int>,
    pub(super) scales: Tensor<B, 1>,
    #[module(skip)]
    shape: [usize; 2],
    #[module(skip)]
    format: Format,
}

impl<B: Backend> Packed<B> {
    /// Rows as they are given.
    pub(super) fn new(shape: [usize; 2], format: Format, rows: PackedRows, device: &B::Device) -> Self {
        let (words, scales) = ([rows.words.len()], [rows.scales.len()]);
        let words = Tensor::from_data(TensorData::new(rows.words, words), (device, DType::I32));
        let scales = Tensor::from_data(TensorData::new(rows.scales, scales), device);
        Self::of(shape, format, words, scales)
    }

    /// Of tensors that are on the device.
    pub(super) fn of(
        shape: [usize; 2],
        format: Format,
        words: Tensor<B, 1, Int>,
        scales: Tensor<B, 1>,
    ) -> Self {
        Self { words, scales, shape, format }
    }

    /// How many rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// How many bytes its words and scales have.
    pub fn bytes(&self) -> usize {
        4 * (self.words.dims()[0] + self.scales.dims()[0])
    }

    /// Where it is.
    pub fn device(&self) -> B::Device {
        self.words.device()
    }

    /// What its codes are.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Of a matrix whose words and scales lie in rows: some of its rows, in the order of the ids.
    pub(super) fn select_rows(&self, ids: Tensor<B, 1, Int>) -> Self {
        let ([rows, columns], format) = (self.shape, self.format);
        let words = self.words.clone().reshape([rows, format.row_words(columns)]).select(0, ids.clone());
        let mut scales = self.scales.clone();
        if format.is_scaled() {
            scales = scales.reshape([rows, format.row_scales(columns)]).select(0, ids.clone()).flatten(0, 1);
        }
        Self::of([ids.dims()[0], columns], format, words.flatten(0, 1), scales)
    }

    /// Of a matrix whose words and scales lie in rows: its values, `[rows, columns]`, by burn's operators.
    pub(super) fn row_values(&self) -> Tensor<B, 2> {
        let ([rows, columns], format) = (self.shape, self.format);
        let bits = format.bits() as i32;
        let words = self.words.clone().reshape([rows, format.row_words(columns)]);
        let codes = (0..32 / bits).map(|place| {
            let up = words.clone().bitwise_left_shift_scalar((32 - bits * (place + 1)).elem());
            up.bitwise_right_shift_scalar((32 - bits).elem()).unsqueeze_dim::<3>(2)
        });
        let codes: Tensor<B, 3, Int> = Tensor::cat(codes.collect(), 2);
        let width = codes.dims()[1] * codes.dims()[2];
        let codes = codes.reshape([rows, width]).narrow(1, 0, columns);
        match format {
            Format::F16 => float_values(codes, 16, 10),
            Format::BF16 => float_values(codes, 16, 7),
            Format::F32 => float_values(codes, 32, 23),
            Format::Q4 | Format::Q8 => {
                let groups = row_groups(columns);
                let scales = self.scales.clone().reshape([rows, groups, 1]).repeat_dim(2, GROUP);
                codes.float() * scales.reshape([rows, groups * GROUP]).narrow(1, 0, columns)
            }
        }
    }
}

/// The floats that so many bits, given with their sign, stand for: `± (1 + mantissa / 2^width) · 2^(exponent - bias)`,
/// and without the 1 where the exponent is 0, which then counts as 1.
fn float_values<B: Backend>(codes: Tensor<B, 2, Int>, bits: usize, width: usize) -> Tensor<B, 2> {
    let bias = (1 << (bits - width - 2)) - 1;
    let negative = codes.clone().lower_elem(0).float().mul_scalar(-2.0).add_scalar(1.0);
    let size = codes.bitwise_and_scalar((i32::MAX >> (32 - bits)).elem());
    let exponent = size.clone().bitwise_right_shift_scalar((width as i32).elem());
    let mantissa = size.bitwise_and_scalar(((1 << width) - 1).elem()).float();
    let normal = exponent.clone().greater_elem(0).float();
    let power = exponent.clamp_min(1).float().sub_scalar(bias);
    let mantissa = mantissa.div_scalar((1 << width) as f32) + normal;
    mantissa * negative * Tensor::full(power.shape(), 2.0, &power.device()).powf(power)
}

#[cfg(all(test, not(target_arch = "wasm32")))]
pub(super) mod tests {
    use burn::backend::Flex;
    use burn::backend::flex::FlexDevice;

    use super::*;
    use crate::random::Random;

    /// Any codes with any scales; floats around 0.
    pub(crate) fn random_rows(random: &mut Random, shape: [usize; 2], format: Format) -> PackedRows {
        let (width, bits) = (format.row_words(shape[1]), format.bits());
        let mut words: Vec<i32> = (0..shape[0] * width).map(|_| random.next_u64() as i32).collect();
        if !format.is_scaled() {
            // Below 2 or 4; without infinities and what is no number.
            for word in &mut words {
                *word &= 0xbfff_bfff_u32.cast_signed();
            }
        }
        let left = width * 32 - shape[1] * bits;
        for last in words.chunks_exact_mut(width).map(|row| &mut row[width - 1]) {
            *last = ((*last as u32) << left >> left) as i32;
        }
        let scales = shape[0] * format.row_scales(shape[1]);
        PackedRows { words, scales: (0..scales).map(|_| random.normal() as f32 / 100.0).collect() }
    }

    pub(crate) const FORMATS: [Format; 5] = [Format::Q4, Format::Q8, Format::F16, Format::BF16, Format::F32];

    fn rows(words: &[i32], scales: &[f32]) -> PackedRows {
        PackedRows { words: words.to_vec(), scales: scales.to_vec() }
    }

    #[test]
    fn codes_are_integers_of_two_s_complement() {
        let matrix = rows(&[0x000f_1278, 0x3], &[0.5, 2.0]);
        let wanted = [-4.0, 3.5, 1.0, 0.5, -0.5, 6.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(matrix.values(5, Format::Q4), wanted);
        let matrix = rows(&[0x01ff_7f80, -2], &[1.0]);
        assert_eq!(matrix.values(5, Format::Q8), [-128.0, 127.0, -1.0, 1.0, -2.0]);
    }

    #[test]
    fn other_codes_are_floats() {
        let words = [0xbc00_3c00_u32.cast_signed(), 0x0001_7bff, 0x8001];
        let wanted = [1.0, -1.0, 65504.0, 2.0_f32.powi(-24), -(2.0_f32.powi(-24))];
        assert_eq!(rows(&words, &[]).values(5, Format::F16), wanted);
        let words = [0xbf80_3f80_u32.cast_signed(), 0x0001_4049];
        let wanted = [1.0, -1.0, 3.140_625, f32::from_bits(0x0001_0000)];
        assert_eq!(rows(&words, &[]).values(4, Format::BF16), wanted);
        assert_eq!(rows(&[0x4049_0fdb], &[]).values(1, Format::F32), [std::f32::consts::PI]);
    }

    #[test]
    fn burns_operators_unpack_the_same() {
        let mut random = Random::new(5, &[]);
        for format in FORMATS {
            for shape in [[3, 70], [2, 64], [5, 130], [1, 9]] {
                let rows = random_rows(&mut random, shape, format);
                let wanted = rows.values(shape[1], format);
                let packed = Packed::<Flex>::new(shape, format, rows, &FlexDevice);
                let values = |tensor: Tensor<Flex, 2>| tensor.into_data().to_vec::<f32>().unwrap();
                assert_eq!(values(packed.row_values()), wanted, "{format:?}");
                let last = Tensor::from_data([shape[0] as i32 - 1, 0], &FlexDevice);
                let selected = values(packed.select_rows(last).row_values());
                assert_eq!(selected[..shape[1]], wanted[wanted.len() - shape[1]..]);
                assert_eq!(selected[shape[1]..], wanted[..shape[1]]);
            }
        }
    }
}
