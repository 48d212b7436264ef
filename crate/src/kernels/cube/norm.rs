//! Norms of rows, and the gate of SwiGLU.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{empty, workgroups};

/// Units of a workgroup.
const UNITS: usize = 64;

/// The sum of a value of each unit.
#[cube]
fn sum(value: f32, #[comptime] units: usize) -> f32 {
    let mut parts = SharedMemory::<f32>::new(units);
    parts[UNIT_POS as usize] = value;
    sync_cube();
    let mut sum = 0.0f32;
    #[unroll]
    for part in 0..units {
        sum += parts[part];
    }
    sum
}

/// A row a workgroup.
#[cube(launch_unchecked)]
fn norm_kernel(
    x: &Array<f32>,
    weight: &Array<f32>,
    bias: &Array<f32>,
    out: &mut Array<f32>,
    rows: usize,
    width: usize,
    epsilon: f32,
    #[comptime] units: usize,
    #[comptime] centred: bool,
) {
    let unit = UNIT_POS as usize;
    let start = select(CUBE_POS < rows, CUBE_POS, rows - 1) * width;
    let mut mean = 0.0f32;
    if comptime!(centred) {
        let mut own = 0.0f32;
        for place in range_stepped(unit, width, units) {
            own += x[start + place];
        }
        mean = sum(own, units) / width as f32;
    }
    let mut squares = 0.0f32;
    for place in range_stepped(unit, width, units) {
        let value = x[start + place] - mean;
        squares += value * value;
    }
    let scale = 1.0 / (sum(squares, units) / width as f32 + epsilon).sqrt();
    if CUBE_POS < rows {
        for place in range_stepped(unit, width, units) {
            let mut value = (x[start + place] - mean) * scale * weight[place];
            if comptime!(centred) {
                value += bias[place];
            }
            out[start + place] = value;
        }
    }
}

/// `(x - mean(x)) / sqrt(variance(x) + ε) · weight + bias`; without a bias `x / sqrt(mean(x²) + ε) · weight`. All
/// dense.
pub(super) fn norm<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: CubeTensor<R>,
    bias: Option<CubeTensor<R>>,
    epsilon: f32,
) -> CubeTensor<R> {
    let [rows, width] = [x.meta.shape()[0], x.meta.shape()[1]];
    let (client, out) = (x.client.clone(), empty(&x, &[rows, width]));
    let centred = bias.is_some();
    // An absent one is bound all the same, and is not read.
    let bias = bias.unwrap_or_else(|| weight.clone());
    // Safety: every index is below the sizes of these dense tensors.
    unsafe {
        norm_kernel::launch_unchecked::<R>(
            &client,
            workgroups(rows),
            CubeDim::new_1d(UNITS as u32),
            x.into_array_arg(),
            weight.into_array_arg(),
            bias.into_array_arg(),
            out.clone().into_array_arg(),
            rows,
            width,
            epsilon,
            UNITS,
            centred,
        );
    }
    out
}

/// `silu(value)`.
#[cube]
pub(super) fn gate(value: f32) -> f32 {
    value / (1.0 + (-value).exp())
}

/// A value a unit.
#[cube(launch_unchecked)]
fn swiglu_kernel(gates: &Array<f32>, up: &Array<f32>, out: &mut Array<f32>, size: usize) {
    if ABSOLUTE_POS < size {
        out[ABSOLUTE_POS] = gate(gates[ABSOLUTE_POS]) * up[ABSOLUTE_POS];
    }
}

/// `silu(gate) · up`, both dense.
pub(super) fn swiglu<R: CubeRuntime>(gate: CubeTensor<R>, up: CubeTensor<R>) -> CubeTensor<R> {
    let (client, out) = (gate.client.clone(), empty(&gate, gate.meta.shape()));
    let size = gate.meta.shape().iter().product::<usize>();
    // Safety: every index is below the size that all three have.
    unsafe {
        swiglu_kernel::launch_unchecked::<R>(
            &client,
            workgroups(size.div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            gate.into_array_arg(),
            up.into_array_arg(),
            out.clone().into_array_arg(),
            size,
        );
    }
    out
}
