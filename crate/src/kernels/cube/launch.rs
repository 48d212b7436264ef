//! Between burn's tensors and launches.

use burn::tensor::{DType, Tensor, TensorPrimitive};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime};
use cubecl::CubeCount;

/// A backend whose floats and integers have 32 bits.
pub(super) type Backend<R, T> = CubeBackend<R, f32, i32, T>;

pub(super) fn primitive<R: CubeRuntime, T: BoolElement, const D: usize>(
    tensor: Tensor<Backend<R, T>, D>,
) -> CubeTensor<R> {
    tensor.into_primitive().tensor()
}

/// With values that lie in row-major order without gaps.
pub(super) fn dense<R: CubeRuntime, T: BoolElement, const D: usize>(
    tensor: Tensor<Backend<R, T>, D>,
) -> CubeTensor<R> {
    into_contiguous(primitive(tensor))
}

pub(super) fn tensor<R: CubeRuntime, T: BoolElement, const D: usize>(
    primitive: CubeTensor<R>,
) -> Tensor<Backend<R, T>, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// Floats where the other tensor is, without values yet.
pub(super) fn empty<R: CubeRuntime>(other: &CubeTensor<R>, shape: &[usize]) -> CubeTensor<R> {
    let client = other.client.clone();
    let handle = client.empty(shape.iter().product::<usize>() * size_of::<f32>());
    CubeTensor::new_contiguous(client, other.device.clone(), shape.to_vec().into(), handle, DType::F32)
}

/// The strides of at most four dimensions, as of four.
pub(super) fn strides<R: CubeRuntime>(tensor: &CubeTensor<R>) -> [usize; 4] {
    let mut all = [0; 4];
    for (place, stride) in tensor.meta.strides().iter().rev().enumerate() {
        all[3 - place] = *stride;
    }
    all
}

/// As many workgroups, in as many dimensions as it takes: one takes 65,535 at most. A few too many.
pub(super) fn workgroups(count: usize) -> CubeCount {
    const MOST: usize = 65_535;
    let rows = count.div_ceil(MOST);
    CubeCount::Static(count.div_ceil(rows.max(1)) as u32, rows as u32, 1)
}

/// With values of a row that lie beside each other.
pub(super) fn columns<R: CubeRuntime, T: BoolElement, const D: usize>(
    tensor: Tensor<Backend<R, T>, D>,
) -> CubeTensor<R> {
    let tensor = primitive(tensor);
    if tensor.meta.strides()[D - 1] == 1 { tensor } else { into_contiguous(tensor) }
}
