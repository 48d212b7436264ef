//! The kernels of WebGPU against burn's operators on the same device, and what they are faster.
#![cfg(target_arch = "wasm32")]

use std::cell::Cell;

use burn::backend::wgpu::{
    CubeBackend, RuntimeOptions, Wgpu, WgpuDevice, WgpuRuntime, graphics::AutoGraphicsApi, init_setup_async,
};
use burn::tensor::{Int, Tensor, TensorData};
use js_sys::Date;
use memory_r1::kernels::{Format, Kernels, Packed, PackedMatrix, PackedRows};
use memory_r1::nn::{Decoder, DecoderConfig, KvCache, read_back};
use wasm_bindgen_test::{console_log, wasm_bindgen_test, wasm_bindgen_test_configure};

wasm_bindgen_test_configure!(run_in_browser);

/// The same device by burn's operators.
type Operators = CubeBackend<WgpuRuntime, f32, u32, u32>;

thread_local! {
    static STARTED: Cell<bool> = const { Cell::new(false) };
}

/// The GPU, set up once for all tests of this page.
async fn gpu() -> WgpuDevice {
    let device = WgpuDevice::default();
    if !STARTED.replace(true) {
        init_setup_async::<AutoGraphicsApi>(&device, RuntimeOptions::default()).await;
    }
    device
}

/// Numbers around 0 (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    fn data<const D: usize>(&mut self, shape: [usize; D]) -> TensorData {
        TensorData::new(self.values(shape.iter().product()), shape)
    }

    /// Floats are below 2 or 4.
    fn rows(&mut self, shape: [usize; 2], format: Format) -> PackedRows {
        let width = format.row_words(shape[1]);
        let mask = if format.is_scaled() { -1 } else { 0xbfff_bfff_u32.cast_signed() };
        let words = (0..shape[0] * width).map(|_| (self.next() >> 32) as i32 & mask);
        let mut words: Vec<i32> = words.collect();
        if !format.is_scaled() {
            // Not all so small that a product is 0.
            words[0] |= 0x3c00_3c00;
        }
        let left = width * 32 - shape[1] * format.bits();
        for last in words.chunks_exact_mut(width).map(|row| &mut row[width - 1]) {
            *last = ((*last as u32) << left >> left) as i32;
        }
        PackedRows { words, scales: self.values(shape[0] * format.row_scales(shape[1])) }
    }
}

/// On the device, three rows at a time.
fn stored<B: Kernels>(rows: &PackedRows, shape: [usize; 2], format: Format, device: &B::Device) -> Packed<B> {
    let (words, scales) = (3 * format.row_words(shape[1]), 3 * format.row_scales(shape[1]));
    let pieces = (0..shape[0].div_ceil(3)).map(|piece| {
        let of = |all: usize, width: usize| piece * width..((piece + 1) * width).min(all);
        Ok(PackedRows {
            words: rows.words[of(rows.words.len(), words)].to_vec(),
            scales: rows.scales[of(rows.scales.len(), scales)].to_vec(),
        })
    });
    B::store(PackedMatrix { shape, format, rows: Box::new(pieces) }, device).unwrap()
}

/// What a test computes, by any backend.
macro_rules! both {
    ($device:ident, $name:expr, |$backend:ident| $compute:expr) => {{
        let own = {
            type $backend = Wgpu;
            read_back($compute).await.unwrap()
        };
        let wanted = {
            type $backend = Operators;
            read_back($compute).await.unwrap()
        };
        assert_alike(&own, &wanted, $name);
    }};
}

/// Equal to a ten-thousandth of the largest value.
fn assert_alike(own: &[f32], wanted: &[f32], name: impl std::fmt::Debug) {
    assert_eq!(own.len(), wanted.len(), "{name:?}");
    let largest = wanted.iter().fold(0.0, |largest, value| value.abs().max(largest));
    assert!(largest > 0.0 && largest.is_finite(), "{name:?}: {largest}");
    for (place, (own, wanted)) in own.iter().zip(wanted).enumerate() {
        let difference = (own - wanted).abs();
        assert!(difference <= largest * 1e-4, "{name:?}, place {place}: {own} and not {wanted}");
    }
}

/// Rows, inner width, columns.
const PRODUCTS: [[usize; 3]; 9] = [
    [1, 256, 256],
    [1, 67, 33],
    // Fewer inner values than slices.
    [1, 1, 1],
    [2, 130, 257],
    [3, 512, 40],
    [5, 64, 1],
    [9, 31, 70],
    [17, 9, 130],
    [1, 300, 1000],
];

#[wasm_bindgen_test]
async fn products_are_those_of_burn() {
    let (device, mut numbers) = (gpu().await, Numbers(1));
    for [rows, inner, columns] in PRODUCTS {
        let (x, weight) = (numbers.data([rows, inner]), numbers.data([inner, columns]));
        let bias = numbers.data([columns]);
        let name = (rows, inner, columns);
        both!(device, name, |B| {
            let x = Tensor::<B, 2>::from_data(x.clone(), &device);
            B::project(x, Tensor::from_data(weight.clone(), &device), None)
        });
        both!(device, name, |B| {
            let x = Tensor::<B, 2>::from_data(x.clone(), &device);
            let bias = Tensor::from_data(bias.clone(), &device);
            B::project(x, Tensor::from_data(weight.clone(), &device), Some(bias))
        });
        let (added, other) = (numbers.data([rows, columns]), numbers.data([inner, columns]));
        both!(device, name, |B| {
            let [added, x, weight] =
                [&added, &x, &weight].map(|data| Tensor::<B, 2>::from_data(data.clone(), &device));
            B::project_onto(added, x, weight)
        });
        both!(device, name, |B| {
            let [x, gate, up] =
                [&x, &weight, &other].map(|data| Tensor::<B, 2>::from_data(data.clone(), &device));
            B::project_gated(x, gate, up)
        });
        both!(device, name, |B| {
            let weight = TensorData::new(weight.to_vec::<f32>().unwrap(), [columns, inner]);
            let x = Tensor::<B, 2>::from_data(x.clone(), &device);
            B::project_transposed(x, Tensor::from_data(weight, &device))
        });
    }
}

#[wasm_bindgen_test]
async fn products_of_views_are_those_of_burn() {
    let (device, mut numbers) = (gpu().await, Numbers(2));
    let (lhs, rhs) = (numbers.data([2, 5, 3, 7]), numbers.data([2, 3, 11, 7]));
    both!(device, "views", |B| {
        let lhs = Tensor::<B, 4>::from_data(lhs.clone(), &device).swap_dims(1, 2);
        let rhs = Tensor::<B, 4>::from_data(rhs.clone(), &device).swap_dims(2, 3);
        B::product(lhs, rhs)
    });
}

#[wasm_bindgen_test]
async fn packed_matrices_are_their_values() {
    let (device, mut numbers) = (gpu().await, Numbers(3));
    for format in [Format::Q4, Format::Q8, Format::F16, Format::BF16, Format::F32] {
        for [rows, inner, columns] in PRODUCTS {
            let (name, shape) = ((format, rows, inner, columns), [columns, inner]);
            let (x, bias) = (numbers.data([rows, inner]), numbers.data([columns]));
            let matrix = numbers.rows(shape, format);
            let ids: Vec<i32> = [columns - 1, 0, columns / 2, 0].map(|id| id as i32).into();
            for biased in [false, true] {
                both!(device, name, |B| {
                    let x = Tensor::<B, 2>::from_data(x.clone(), &device);
                    let bias = biased.then(|| Tensor::from_data(bias.clone(), &device));
                    B::project_packed(x, &stored(&matrix, shape, format, &device), bias)
                });
            }
            let (added, other) = (numbers.data([rows, columns]), numbers.rows(shape, format));
            both!(device, name, |B| {
                let [added, x] = [&added, &x].map(|data| Tensor::<B, 2>::from_data(data.clone(), &device));
                B::project_packed_onto(added, x, &stored(&matrix, shape, format, &device))
            });
            both!(device, name, |B| {
                let x = Tensor::<B, 2>::from_data(x.clone(), &device).mul_scalar(0.01);
                let [gate, up] = [&matrix, &other].map(|matrix| stored(matrix, shape, format, &device));
                B::project_packed_gated(x, &gate, &up)
            });
            both!(device, name, |B| {
                let ids = Tensor::<B, 1, Int>::from_data(ids.as_slice(), &device);
                B::packed_rows(&stored(&matrix, shape, format, &device), ids)
            });
            // The operators' own unpacking, against the host's.
            let ids = Tensor::<Wgpu, 1, Int>::from_data(ids.as_slice(), &device);
            let own = Wgpu::packed_rows(&stored(&matrix, shape, format, &device), ids);
            let values = matrix.values(inner, format);
            assert_eq!(read_back(own).await.unwrap()[..inner], values[(columns - 1) * inner..]);
        }
    }
}

#[wasm_bindgen_test]
async fn norms_and_gates_are_those_of_burn() {
    let (device, mut numbers) = (gpu().await, Numbers(4));
    for [rows, width] in [[1, 256], [7, 67], [3, 1], [2, 1000], [300, 64]] {
        let (x, y, weight) =
            (numbers.data([rows, width]), numbers.data([rows, width]), numbers.data([width]));
        let bias = numbers.data([width]);
        both!(device, (rows, width), |B| {
            let x = Tensor::<B, 2>::from_data(x.clone(), &device);
            B::rms_norm(x, Tensor::from_data(weight.clone(), &device), 1e-3)
        });
        both!(device, (rows, width), |B| {
            let x = Tensor::<B, 2>::from_data(x.clone(), &device).add_scalar(3.0);
            let [weight, bias] = [&weight, &bias].map(|data| Tensor::from_data(data.clone(), &device));
            <B as Kernels>::layer_norm(x, weight, bias, 1e-3)
        });
        both!(device, (rows, width), |B| {
            let x = Tensor::<B, 2>::from_data(x.clone(), &device).mul_scalar(20.0);
            B::swiglu(x, Tensor::from_data(y.clone(), &device))
        });
    }
}

#[wasm_bindgen_test]
async fn rotation_is_that_of_burn() {
    let (device, mut numbers) = (gpu().await, Numbers(5));
    for [batch, heads, length, width] in [[1, 4, 1, 64], [2, 3, 5, 6], [1, 1, 70, 34]] {
        let x = numbers.data([batch, length, heads, width]);
        let (cos, sin) = (numbers.data([length, width / 2]), numbers.data([length, width / 2]));
        both!(device, (batch, heads, length, width), |B| {
            let x = Tensor::<B, 4>::from_data(x.clone(), &device).swap_dims(1, 2);
            let [cos, sin] = [&cos, &sin].map(|angles| Tensor::from_data(angles.clone(), &device));
            B::rotary(x, cos, sin)
        });
    }
}

#[wasm_bindgen_test]
async fn keys_and_values_are_cached_as_burn_does() {
    let (device, mut numbers) = (gpu().await, Numbers(8));
    for (by_row, [batch, heads, kv_heads, length, width]) in
        [(false, [1, 4, 2, 1, 64]), (false, [2, 3, 1, 5, 6]), (true, [3, 2, 2, 1, 10])]
    {
        let (capacity, start) = (9, 3);
        let projected = [heads, kv_heads, kv_heads].map(|heads| numbers.data([batch, length, heads, width]));
        let angles = [0, 1].map(|_| numbers.data([if by_row { batch } else { length }, width / 2]));
        let buffers = [0, 1].map(|_| numbers.data([batch, kv_heads, capacity, width]));
        for (place, shared) in [(0, false), (1, false), (2, false), (0, true), (1, true), (2, true)] {
            both!(device, (by_row, batch, heads, place, shared), |B| {
                let tensor = |data: &TensorData| Tensor::<B, 4>::from_data(data.clone(), &device);
                let projected = [0, 1, 2].map(|place| tensor(&projected[place]).swap_dims(1, 2));
                let buffers = [0, 1].map(|place| tensor(&buffers[place]));
                let angles = [0, 1].map(|place| Tensor::<B, 2>::from_data(angles[place].clone(), &device));
                // Other handles, whose values must stay.
                let kept = shared.then(|| [projected[0].clone(), buffers[0].clone(), buffers[1].clone()]);
                let written = B::rotate_into_cache(projected, angles, by_row, buffers, start);
                let chosen = written[place].clone();
                match kept {
                    Some(kept) => {
                        Tensor::cat(vec![chosen.flatten::<1>(0, 3), kept[place].clone().flatten(0, 3)], 0)
                    }
                    None => chosen.flatten::<1>(0, 3),
                }
            });
        }
    }
}

/// Batch, heads, heads of keys, queries, keys, width of a head.
const ATTENTIONS: [[usize; 6]; 8] = [
    [1, 4, 2, 1, 70, 64],
    [1, 4, 2, 1, 1, 64],
    [2, 6, 2, 5, 12, 32],
    [1, 3, 1, 9, 9, 20],
    [1, 2, 2, 3, 200, 80],
    [1, 1, 1, 1, 129, 7],
    [1, 2, 1, 2, 65, 130],
    [2, 4, 4, 70, 140, 16],
];

#[wasm_bindgen_test]
async fn attention_is_that_of_burn() {
    let (device, mut numbers) = (gpu().await, Numbers(6));
    for [batch, heads, kv_heads, queries, keys, width] in ATTENTIONS {
        let q = numbers.data([batch, queries, heads, width]);
        // Buffers with room for more.
        let [k, v] = [0, 1].map(|_| numbers.data([batch, kv_heads, keys + 3, width]));
        let name = (batch, heads, kv_heads, queries, keys, width);
        both!(device, name, |B| {
            let q = Tensor::<B, 4>::from_data(q.clone(), &device).swap_dims(1, 2).mul_scalar(4.0);
            let [k, v] =
                [&k, &v].map(|data| Tensor::<B, 4>::from_data(data.clone(), &device).narrow(2, 0, keys));
            let start = keys - queries;
            B::causal_attention(q, k, v, start, B::causal_bias(start, queries, keys, &device))
        });
    }
}

#[wasm_bindgen_test]
async fn attention_of_padded_rows_is_that_of_burn() {
    let (device, mut numbers) = (gpu().await, Numbers(7));
    for (heads, kv_heads, keys, width, first) in
        [(4, 2, 150, 64, vec![0, 149, 70]), (3, 1, 9, 20, vec![5, 0]), (2, 2, 65, 6, vec![64])]
    {
        let batch = first.len();
        let q = numbers.data([batch, heads, 1, width]);
        let [k, v] = [0, 1].map(|_| numbers.data([batch, kv_heads, keys, width]));
        both!(device, (heads, kv_heads, keys, width), |B| {
            let q = Tensor::<B, 4>::from_data(q.clone(), &device).mul_scalar(4.0);
            let [k, v] = [&k, &v].map(|data| Tensor::<B, 4>::from_data(data.clone(), &device));
            B::row_attention(q, k, v, &first)
        });
    }
}

/// Logits behind each of `tokens` but the first, which waits for the pipelines; and the milliseconds that the
/// rest took.
async fn decode<B: Kernels>(
    decoder: &Decoder<B>,
    prompt: &[i32],
    tokens: &[i32],
    device: &B::Device,
) -> (Vec<f32>, f64) {
    let tensor =
        |ids: &[i32]| Tensor::<B, 2, Int>::from_data(TensorData::new(ids.to_vec(), [1, ids.len()]), device);
    let mut cache = KvCache::new(decoder.config(), 1, prompt.len() + tokens.len(), device);
    decoder.extend(tensor(prompt), &mut cache);
    let (mut all, mut start) = (Vec::new(), 0.0);
    for (place, id) in tokens.iter().enumerate() {
        let hidden = decoder.extend(tensor(&[*id]), &mut cache);
        let logits = read_back(decoder.logits(hidden)).await.unwrap();
        if place == 0 {
            start = Date::now();
        } else {
            all.extend(logits);
        }
    }
    (all, Date::now() - start)
}

/// Nano's shape, token after token, through the kernels and through burn's operators; prints both.
#[wasm_bindgen_test]
async fn nano_decodes_faster_than_by_burns_operators() {
    let device = gpu().await;
    let config = DecoderConfig { vocab_size: 11_264, ..DecoderConfig::nano() };
    let prompt: Vec<i32> = (0..32).map(|place| place * 331 % 11_264).collect();
    let tokens: Vec<i32> = (0..41).map(|place| place * 977 % 11_264).collect();
    let own = config.init::<Wgpu>(7, &device);
    let (logits, fast) = decode(&own, &prompt, &tokens, &device).await;
    let few = 6;
    let operators = config.init::<Operators>(7, &device);
    let (wanted, slow) = decode(&operators, &prompt, &tokens[..few], &device).await;
    let (fast, slow) = ((tokens.len() - 1) as f64 * 1e3 / fast, (few - 1) as f64 * 1e3 / slow);
    let scale = wanted.iter().fold(0.0, |largest: f32, logit| logit.abs().max(largest));
    let difference = logits.iter().zip(&wanted).map(|(own, wanted)| (own - wanted).abs()).fold(0.0, f32::max);
    console_log!(
        "nano: {fast:.1} tokens/s through the kernels, {slow:.2} through burn's operators: {:.0} times as fast; \
         largest difference of logits {difference:.1e} of {scale:.2}",
        fast / slow
    );
    assert!(scale > 0.01 && difference < 1e-4 * scale, "{difference} of {scale}");
}
