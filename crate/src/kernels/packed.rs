//! Matrices in few bits: what lies in memory, and how it becomes numbers again.
//!
//! A row is cut into groups of [`GROUP`] values with a scale each: `value = scale · code`, a code being an integer
//! of 4 or of 8 bits in two's complement. The codes of a row lie behind each other from the least significant bit
//! of its first word on; what is left of its last word is 0.

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, ElementConversion, Int, Tensor, TensorData};

/// How many values of a row share a scale.
pub const GROUP: usize = 64;

/// A packed matrix on the host, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedMatrix {
    /// How many rows and columns.
    pub shape: [usize; 2],
    /// 4 or 8.
    pub bits: usize,
    /// `[rows, row_words]`
    pub words: Vec<i32>,
    /// `[rows, row_groups]`
    pub scales: Vec<f32>,
}

/// How many words the codes of a row fill.
pub fn row_words(columns: usize, bits: usize) -> usize {
    (columns * bits).div_ceil(32)
}

/// How many scales a row has.
pub fn row_groups(columns: usize) -> usize {
    columns.div_ceil(GROUP)
}

impl PackedMatrix {
    /// How many bytes the codes and the scales have.
    pub fn bytes(&self) -> usize {
        4 * (self.words.len() + self.scales.len())
    }

    /// The values, `[rows, columns]`.
    pub fn values(&self) -> Vec<f32> {
        let [rows, columns] = self.shape;
        let mut values = vec![0.0; rows * columns];
        if columns > 0 {
            let unpack = if self.bits == 4 { unpack::<4> } else { unpack::<8> };
            let words = self.words.chunks_exact(row_words(columns, self.bits));
            let rows = words.zip(self.scales.chunks_exact(row_groups(columns)));
            for (values, (words, scales)) in values.chunks_exact_mut(columns).zip(rows) {
                unpack(words, scales, values);
            }
        }
        values
    }
}

/// The values of one row.
pub(super) fn unpack<const BITS: usize>(words: &[i32], scales: &[f32], values: &mut [f32]) {
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

/// A packed matrix where a backend computes with it. In which order its words and scales lie is the backend's
/// ([`super::Kernels::store`]).
#[derive(Module, Debug)]
pub struct Packed<B: Backend> {
    pub(super) words: Tensor<B, 1, Int>,
    pub(super) scales: Tensor<B, 1>,
    #[module(skip)]
    shape: [usize; 2],
    #[module(skip)]
    bits: usize,
}

impl<B: Backend> Packed<B> {
    /// Words and scales as they are given.
    pub(super) fn new(
        shape: [usize; 2],
        bits: usize,
        (words, scales): (Vec<i32>, Vec<f32>),
        device: &B::Device,
    ) -> Self {
        let (word_count, scale_count) = ([words.len()], [scales.len()]);
        Self {
            words: Tensor::from_data(TensorData::new(words, word_count), (device, DType::I32)),
            scales: Tensor::from_data(TensorData::new(scales, scale_count), device),
            shape,
            bits,
        }
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
        self.scales.device()
    }

    /// The bits of a code: 4 or 8.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// Of a matrix whose words and scales lie in rows: some of its rows, in the order of the ids.
    pub(super) fn select_rows(&self, ids: Tensor<B, 1, Int>) -> Self {
        let [rows, columns] = self.shape;
        let words = self.words.clone().reshape([rows, row_words(columns, self.bits)]).select(0, ids.clone());
        let scales = self.scales.clone().reshape([rows, row_groups(columns)]).select(0, ids.clone());
        let shape = [ids.dims()[0], columns];
        Self { words: words.flatten(0, 1), scales: scales.flatten(0, 1), shape, bits: self.bits }
    }

    /// Of a matrix whose words and scales lie in rows: its values, `[rows, columns]`, by burn's operators.
    pub(super) fn row_values(&self) -> Tensor<B, 2> {
        let ([rows, columns], bits) = (self.shape, self.bits as i32);
        let words = self.words.clone().reshape([rows, row_words(columns, self.bits)]);
        let codes = (0..32 / bits).map(|place| {
            let up = words.clone().bitwise_left_shift_scalar((32 - bits * (place + 1)).elem());
            up.bitwise_right_shift_scalar((32 - bits).elem()).unsqueeze_dim::<3>(2)
        });
        let codes: Tensor<B, 3, Int> = Tensor::cat(codes.collect(), 2);
        let width = codes.dims()[1] * codes.dims()[2];
        let codes = codes.float().reshape([rows, width]).narrow(1, 0, columns);
        let groups = row_groups(columns);
        let scales = self.scales.clone().reshape([rows, groups, 1]).repeat_dim(2, GROUP);
        codes * scales.reshape([rows, groups * GROUP]).narrow(1, 0, columns)
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
pub(super) mod tests {
    use burn::backend::Flex;
    use burn::backend::flex::FlexDevice;

    use super::*;
    use crate::random::Random;

    /// Any codes with any scales.
    pub(crate) fn random_matrix(random: &mut Random, shape: [usize; 2], bits: usize) -> PackedMatrix {
        let words = row_words(shape[1], bits);
        let mut drawn: Vec<i32> = (0..shape[0] * words).map(|_| random.next_u64() as i32).collect();
        let left = words * 32 - shape[1] * bits;
        for last in drawn.chunks_exact_mut(words).map(|row| &mut row[words - 1]) {
            *last = ((*last as u32) << left >> left) as i32;
        }
        let scales = (0..shape[0] * row_groups(shape[1])).map(|_| random.normal() as f32 / 100.0).collect();
        PackedMatrix { shape, bits, words: drawn, scales }
    }

    #[test]
    fn codes_are_integers_of_two_s_complement() {
        let matrix =
            PackedMatrix { shape: [2, 5], bits: 4, words: vec![0x000f_1278, 0x3], scales: vec![0.5, 2.0] };
        assert_eq!(matrix.values(), [-4.0, 3.5, 1.0, 0.5, -0.5, 6.0, 0.0, 0.0, 0.0, 0.0]);
        let matrix = PackedMatrix { shape: [1, 5], bits: 8, words: vec![0x01ff_7f80, -2], scales: vec![1.0] };
        assert_eq!(matrix.values(), [-128.0, 127.0, -1.0, 1.0, -2.0]);
    }

    #[test]
    fn burns_operators_unpack_the_same() {
        let mut random = Random::new(5, &[]);
        for (shape, bits) in [([3, 70], 4), ([2, 64], 8), ([5, 130], 8), ([1, 9], 4)] {
            let matrix = random_matrix(&mut random, shape, bits);
            let wanted = matrix.values();
            let packed = Packed::<Flex>::new(shape, bits, (matrix.words, matrix.scales), &FlexDevice);
            let values = |tensor: Tensor<Flex, 2>| tensor.into_data().to_vec::<f32>().unwrap();
            assert_eq!(values(packed.row_values()), wanted);
            let last = Tensor::from_data([shape[0] as i32 - 1, 0], &FlexDevice);
            let selected = values(packed.select_rows(last).row_values());
            assert_eq!(selected[..shape[1]], wanted[wanted.len() - shape[1]..]);
            assert_eq!(selected[shape[1]..], wanted[..shape[1]]);
        }
    }
}
