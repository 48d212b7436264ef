//! The gradients of passes, gathered on the device.

use std::collections::BTreeMap;

use burn::backend::Autodiff;
use burn::module::Param;
use burn::tensor::{FloatDType, Tensor, TensorData};
use futures_lite::future::block_on;

use super::Gradients;
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::nn::{Parameter, ParameterSpec, Weight, read_back};
use crate::training::network::{Adapter, Layout, Learns};

/// What is kept of a parameter's gradient.
enum Kept<B: Kernels> {
    /// Nothing: it does not learn.
    Nothing,
    /// All of it; where it begins among all gradients.
    Whole(usize),
    /// What its adapter's factors have in it. The gradient itself, `[out, in]`, goes with its layer.
    Factors {
        /// `A`, `[rank, in]`, and where its gradient begins.
        a: (Tensor<B, 2>, usize),
        /// `B`, `[out, rank]`, likewise.
        b: (Tensor<B, 2>, usize),
        /// What `B A` is multiplied by.
        scale: f32,
    },
}

/// The gradient of everything that learns, as far as it is known.
pub(super) struct Sums<B: Kernels> {
    /// By parameter: what is kept, and whether the decoder has its matrix turned.
    kept: Vec<(Kept<B>, bool)>,
    /// By where they begin: flat, in 32 bits.
    sums: BTreeMap<usize, Tensor<B, 1>>,
}

impl<B: Kernels> Sums<B> {
    /// Before the first backward half.
    pub(super) fn new(
        layout: &Layout,
        specs: &[ParameterSpec],
        learns: &Learns<'_>,
        device: &B::Device,
    ) -> Result<Self> {
        let keep = |spec: &ParameterSpec| {
            let kept = match learns {
                Learns::Nothing => Kept::Nothing,
                Learns::Weights(_) => {
                    let tensor = layout.tensors.iter().find(|tensor| tensor.name == spec.name);
                    let missing = || Error::internal(format!("{} is not trained", spec.name));
                    Kept::Whole(tensor.ok_or_else(missing)?.start)
                }
                Learns::Adapter(adapter, _) => factors(adapter, spec, device),
            };
            Ok((kept, spec.is_transposed()))
        };
        Ok(Self { kept: specs.iter().map(keep).collect::<Result<_>>()?, sums: BTreeMap::new() })
    }

    /// Whether anything of the `place`-th parameter's gradient is kept.
    pub(super) fn keeps(&self, place: usize) -> bool {
        !matches!(self.kept[place].0, Kept::Nothing)
    }

    /// Adds what these gradients have of the `place`-th parameter.
    pub(super) fn add(
        &mut self,
        place: usize,
        parameter: &Parameter<'_, Autodiff<B>>,
        gradients: &Gradients<B>,
    ) {
        let is_transposed = self.kept[place].1;
        let matrix = |own: &Param<Tensor<Autodiff<B>, 2>>| {
            let own = own.val().grad(gradients)?;
            Some(if is_transposed { own.transpose() } else { own }.cast(FloatDType::F32))
        };
        let slope = match parameter {
            Parameter::Weight(Weight::Full(own)) => matrix(own),
            Parameter::Matrix(own) => matrix(own),
            Parameter::Weight(Weight::Packed(_)) | Parameter::Vector(_) => None,
        };
        match (&self.kept[place].0, slope, parameter) {
            (&Kept::Whole(start), Some(slope), _) => self.sum(start, slope.reshape([-1])),
            (&Kept::Whole(start), None, Parameter::Vector(own)) => {
                if let Some(slope) = own.val().grad(gradients) {
                    self.sum(start, slope);
                }
            }
            (Kept::Factors { a: (a, at_a), b: (b, at_b), scale }, Some(slope), _) => {
                let of_a = b.clone().transpose().matmul(slope.clone()).mul_scalar(*scale);
                let of_b = slope.matmul(a.clone().transpose()).mul_scalar(*scale);
                let (at_a, at_b) = (*at_a, *at_b);
                self.sum(at_a, of_a.reshape([-1]));
                self.sum(at_b, of_b.reshape([-1]));
            }
            _ => {}
        }
    }

    fn sum(&mut self, start: usize, own: Tensor<B, 1>) {
        let sum = match self.sums.remove(&start) {
            Some(sum) => sum + own,
            None => own,
        };
        self.sums.insert(start, sum);
    }

    /// How many numbers lie on the device.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sums.values().map(|sum| sum.dims()[0]).sum()
    }

    /// Adds everything to what the host has.
    pub(super) fn read(self, gradient: &mut [f32]) -> Result<()> {
        for (start, sum) in self.sums {
            let own = block_on(read_back(sum))?;
            gradient[start..].iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        }
        Ok(())
    }
}

fn factors<B: Kernels>(adapter: &Adapter, spec: &ParameterSpec, device: &B::Device) -> Kept<B> {
    let Some(pair) = adapter.pairs.iter().find(|pair| pair.tensor.name == spec.name) else {
        return Kept::Nothing;
    };
    let ((rows, cols), rank) = (pair.dims(), adapter.rank);
    let factor = |start: usize, shape: [usize; 2]| {
        let values = adapter.factors[start..][..shape[0] * shape[1]].to_vec();
        (Tensor::from_data(TensorData::new(values, shape), device), start)
    };
    Kept::Factors { a: factor(pair.a, [rank, cols]), b: factor(pair.b, [rows, rank]), scale: adapter.scale }
}
