//! Products with weights, forwards and backwards.

use super::adapter::Adapter;
use super::math::{Into, View, matmul};

/// The products `out = input weight^T` of `n` rows, whose weights lie in one buffer.
pub(super) struct Linear<'a> {
    pub(super) parameters: &'a [f32],
    pub(super) n: usize,
    /// What the weights' adapter adds where it drops of what it reads.
    pub(super) adapter: Option<&'a Adapter>,
}

impl<'a> Linear<'a> {
    fn weight(&self, start: usize, [rows, cols]: [usize; 2]) -> View<'a> {
        View::new(&self.parameters[start..][..rows * cols], rows, cols)
    }

    /// Writes the product with the weight at `start`, of shape `[rows, cols]`, or adds it.
    pub(super) fn forward(&self, out: &mut [f32], how: Into, start: usize, dims: [usize; 2], input: &[f32]) {
        let [rows, cols] = dims;
        let rows_in = View::new(input, self.n, cols);
        matmul(out, rows, how, 1.0, rows_in, self.weight(start, dims).t());
        if let Some(adapter) = self.adapter {
            adapter.forward((start, dims), input, out);
        }
    }

    /// Writes the product with a weight, and its bias added.
    pub(super) fn with_bias(
        &self,
        out: &mut [f32],
        (weight, bias): (usize, usize),
        dims: [usize; 2],
        input: &[f32],
    ) {
        for row in out.chunks_exact_mut(dims[0]) {
            row.copy_from_slice(&self.parameters[bias..][..dims[0]]);
        }
        self.forward(out, Into::Add, weight, dims, input);
    }

    /// Adds the gradient of the weight at `start` and writes that of the input.
    pub(super) fn backward(
        &self,
        gradient: &mut [f32],
        start: usize,
        dims: [usize; 2],
        dout: &[f32],
        input: &[f32],
        dinput: &mut [f32],
    ) {
        let [rows, cols] = dims;
        let (dout_rows, input_rows) = (View::new(dout, self.n, rows), View::new(input, self.n, cols));
        let weight = &mut gradient[start..start + rows * cols];
        matmul(weight, cols, Into::Add, 1.0, dout_rows.t(), input_rows);
        matmul(dinput, cols, Into::Replace, 1.0, dout_rows, self.weight(start, dims));
        if let Some(adapter) = self.adapter {
            adapter.backward(gradient, (start, dims), dout, input, dinput);
        }
    }
}
