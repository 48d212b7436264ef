//! What the machine can do: how fast it moves memory, and how fast it multiplies.

use std::hint::black_box;
use std::time::Instant;

use burn::tensor::Tensor;

use crate::error::Result;
use crate::kernels::Kernels;
use crate::nn::read_back;
use crate::random::Random;

/// The buffers' size: far more than caches hold.
const BYTES: usize = 128 << 20;
/// The edge of the matrices.
const EDGE: usize = 1024;
/// How often each is done; the best counts, for whatever else ran only slowed it down.
const ROUNDS: usize = 5;

/// Bytes a second, read and written counted both (as McCalpin's STREAM counts), of copying memory
/// in `threads` threads.
pub fn copy_bandwidth(threads: usize) -> f64 {
    let length = BYTES / threads.max(1) / 4;
    let mut pairs: Vec<(Vec<f32>, Vec<f32>)> =
        (0..threads.max(1)).map(|_| (vec![1.0; length], vec![0.0; length])).collect();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for (from, to) in &mut pairs {
                scope.spawn(|| black_box(&mut to[..]).copy_from_slice(black_box(&from[..])));
            }
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    (2 * 4 * length * threads.max(1)) as f64 / best
}

/// Floating-point operations a second of a product of two 1024 × 1024 matrices of f32.
pub async fn matmul_rate<B: Kernels>(device: &B::Device) -> Result<f64> {
    let mut random = Random::new(1, &[]);
    let mut matrix = || {
        let values: Vec<f32> = (0..EDGE * EDGE).map(|_| random.uniform() as f32).collect();
        Tensor::<B, 1>::from_data(&values[..], device).reshape([EDGE, EDGE])
    };
    let (a, b) = (matrix(), matrix());
    let mut best = f64::INFINITY;
    for _ in 0..=ROUNDS {
        let start = Instant::now();
        let product = a.clone().matmul(b.clone());
        // Only one number comes back; it is there when all are.
        read_back(product.narrow(0, EDGE - 1, 1).narrow(1, EDGE - 1, 1)).await?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(2.0 * (EDGE as f64).powi(3) / best)
}
