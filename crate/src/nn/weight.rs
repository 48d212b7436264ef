//! A matrix of weights, in floats or packed.

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

use super::decoder::ParameterSpec;
use super::{DecoderConfig, read_back};
use crate::error::Result;
use crate::kernels::{Kernels, Packed, PackedMatrix};

/// What a parameter is read as, in Hugging Face's layout.
pub enum Values<'a> {
    /// Floats.
    Full(Vec<f32>),
    /// A matrix in few bits.
    Packed(PackedMatrix<'a>),
}

/// A model whose floats have up to so many bytes is unpacked where it is loaded: products of floats are faster
/// where the caches hold them, and there is room.
const SMALL: usize = 64 << 20;

impl Values<'_> {
    /// As they should lie in memory where they are a model's of this configuration.
    pub fn of_model(self, config: &DecoderConfig) -> Result<Self> {
        let floats = config.parameters().into_iter().map(|spec| 4 * spec.shape.iter().product::<usize>());
        if floats.sum::<usize>() <= SMALL { self.into_floats().map(Self::Full) } else { Ok(self) }
    }

    /// As floats.
    pub fn into_floats(self) -> Result<Vec<f32>> {
        match self {
            Self::Full(values) => Ok(values),
            Self::Packed(matrix) => matrix.values(),
        }
    }
}

impl From<Vec<f32>> for Values<'_> {
    fn from(values: Vec<f32>) -> Self {
        Self::Full(values)
    }
}

/// A matrix of weights.
#[derive(Module, Debug)]
pub enum Weight<B: Backend> {
    /// Floats: a projection's `[in, out]`, Hugging Face's transposed; a table's `[rows, hidden_size]`.
    Full(Param<Tensor<B, 2>>),
    /// Few bits, in Hugging Face's layout: `[out, in]` of a projection.
    Packed(Packed<B>),
}

impl<B: Kernels> Weight<B> {
    pub(super) fn new((spec, values): (ParameterSpec, Values<'_>), device: &B::Device) -> Result<Self> {
        Ok(match values {
            Values::Packed(matrix) => Self::Packed(B::store(matrix, device)?),
            full @ Values::Full(_) => Self::Full(full_matrix((spec, full), device)?),
        })
    }

    /// As a projection: `x W + b`.
    ///
    /// # Shapes
    /// - x: `[rows, in]`, bias: `[out]`
    /// - output: `[rows, out]`
    pub(crate) fn project(&self, x: Tensor<B, 2>, bias: Option<Tensor<B, 1>>) -> Tensor<B, 2> {
        match self {
            Self::Full(weight) => B::project(x, weight.val(), bias),
            Self::Packed(weight) => B::project_packed(x, weight, bias),
        }
    }

    /// As a projection onto values that are there: `added + x W`.
    ///
    /// # Shapes
    /// - x: `[rows, in]`
    /// - added and output: `[rows, out]`
    pub(crate) fn project_onto(&self, added: Tensor<B, 2>, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Full(weight) => B::project_onto(added, x, weight.val()),
            Self::Packed(weight) => B::project_packed_onto(added, x, weight),
        }
    }

    /// As the gate of `up` in SwiGLU.
    ///
    /// # Shapes
    /// - x: `[rows, in]`
    /// - output: `[rows, out]`
    pub(crate) fn gate(&self, up: &Self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match (self, up) {
            (Self::Full(gate), Self::Full(up)) => B::project_gated(x, gate.val(), up.val()),
            (Self::Packed(gate), Self::Packed(up)) => B::project_packed_gated(x, gate, up),
            _ => B::swiglu(self.project(x.clone(), None), up.project(x, None)),
        }
    }

    /// As a table that scores: the product of `x` with each row.
    ///
    /// # Shapes
    /// - x: `[rows, hidden_size]`
    /// - output: `[rows, table's rows]`
    pub(crate) fn score(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Full(weight) => B::project_transposed(x, weight.val()),
            Self::Packed(weight) => B::project_packed(x, weight, None),
        }
    }

    /// As a table that is looked up.
    ///
    /// # Shapes
    /// - ids: `[count]`
    /// - output: `[count, hidden_size]`
    pub(crate) fn rows(&self, ids: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        match self {
            Self::Full(weight) => weight.val().select(0, ids),
            Self::Packed(weight) => B::packed_rows(weight, ids),
        }
    }

    /// The values in Hugging Face's layout.
    pub(super) async fn values(&self, spec: &ParameterSpec) -> Result<Vec<f32>> {
        match self {
            Self::Full(weight) if spec.is_transposed() => read_back(weight.val().transpose()).await,
            Self::Full(weight) => read_back(weight.val()).await,
            Self::Packed(weight) => {
                let ids: Vec<i32> = (0..weight.shape()[0] as i32).collect();
                let ids = Tensor::from_data(TensorData::new(ids, [weight.shape()[0]]), &weight.device());
                read_back(B::packed_rows(weight, ids)).await
            }
        }
    }

    /// How many bytes lie on the device.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Full(weight) => 4 * weight.val().dims().iter().product::<usize>(),
            Self::Packed(weight) => weight.bytes(),
        }
    }
}

/// How many rows and columns are turned at once: what the nearest cache holds.
const TILE: usize = 32;

/// The transpose of a matrix with so many columns.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len() / columns.max(1);
    let mut turned = vec![0.0; values.len()];
    for top in (0..rows).step_by(TILE) {
        for left in (0..columns).step_by(TILE) {
            for row in top..(top + TILE).min(rows) {
                for column in left..(left + TILE).min(columns) {
                    turned[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    turned
}

/// A matrix of floats, however it was read.
pub(super) fn full_matrix<B: Backend>(
    (spec, values): (ParameterSpec, Values<'_>),
    device: &B::Device,
) -> Result<Param<Tensor<B, 2>>> {
    let values = values.into_floats()?;
    let [rows, columns] = [spec.shape[0], spec.shape[1]];
    let data = if spec.is_transposed() {
        let transposed = transposed(&values, columns);
        TensorData::new(transposed, [columns, rows])
    } else {
        TensorData::new(values, [rows, columns])
    };
    Ok(Param::initialized(spec.id(), Tensor::from_data(data, device).require_grad()))
}

pub(super) fn vector<B: Backend>(
    (spec, values): (ParameterSpec, Values<'_>),
    device: &B::Device,
) -> Result<Param<Tensor<B, 1>>> {
    let data = TensorData::new(values.into_floats()?, [spec.shape[0]]);
    Ok(Param::initialized(spec.id(), Tensor::from_data(data, device).require_grad()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_turned_whatever_its_size() {
        for (rows, columns) in [(1, 1), (3, 70), (65, 33), (32, 64)] {
            let values: Vec<f32> = (0..rows * columns).map(|place| place as f32).collect();
            let turned = transposed(&values, columns);
            let column = |column: usize| values.iter().copied().skip(column).step_by(columns);
            assert_eq!(turned, (0..columns).flat_map(column).collect::<Vec<f32>>());
        }
    }
}
