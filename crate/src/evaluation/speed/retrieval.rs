//! How fast the nearest of many vectors are found.

use std::time::Instant;

use serde::Serialize;

use super::{Times, copy_bandwidth};
use crate::error::{Error, Result};
use crate::generation::Cancel;
use crate::random::Random;
use crate::retrieval::Dense;

/// The most bytes of vectors.
const MOST_BYTES: usize = 8 << 30;

/// Exact search by cosine, in one thread.
#[derive(Clone, Debug, Serialize)]
pub struct RetrievalSpeed {
    /// How many vectors there are.
    pub memories: usize,
    /// How many numbers a vector has.
    pub width: usize,
    /// How many are wanted.
    pub top_k: usize,
    /// Of one search.
    pub search: Times,
    /// Bytes of vectors a second, at the median.
    pub bytes_per_second: f64,
    /// Bytes a second that one thread copies: read and written.
    pub copy_bytes_per_second: f64,
    /// The share of that which is reached, in per cent.
    pub percent_of_copy: f64,
    /// The share of what brute force in f64 finds that was found.
    pub recall: f64,
}

/// Searches `runs` times among random vectors; the first search is checked against brute force.
pub fn retrieval(
    (memories, width, top_k): (usize, usize, usize),
    runs: usize,
    seed: u64,
    cancel: &Cancel,
    on_progress: &mut dyn FnMut(usize),
) -> Result<RetrievalSpeed> {
    if memories == 0 || width == 0 || top_k == 0 || memories.saturating_mul(width) > MOST_BYTES / 4 {
        return Err(Error::invalid("at least one vector of one number, and at most 8 GiB of them"));
    }
    let mut random = Random::new(seed, &[0xbe7c]);
    let mut draw = || -> Vec<f32> { (0..width).map(|_| random.uniform() as f32 - 0.5).collect() };
    let mut index = Dense::new(width);
    let mut rows = Vec::with_capacity(memories);
    for _ in 0..memories {
        let row = draw();
        index.push(&row)?;
        rows.push(row);
    }
    cancel.check()?;
    let query = draw();
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let mut exact: Vec<(f64, usize)> =
        rows.iter().map(|row| dot(row, &query) / dot(row, row).sqrt()).zip(0..).collect();
    exact.sort_by(|a, b| b.0.total_cmp(&a.0));
    exact.truncate(top_k);
    drop(rows);
    let found = index.search(&query, top_k)?;
    let hits = exact.iter().filter(|(_, place)| found.iter().any(|own| own.place == *place)).count();
    let mut times = Vec::with_capacity(runs);
    for done in 1..=runs {
        cancel.check()?;
        let query = draw();
        let start = Instant::now();
        std::hint::black_box(index.search(&query, top_k)?);
        times.push(start.elapsed());
        on_progress(done);
    }
    let search = Times::new(times);
    let bytes_per_second = (4 * memories * width) as f64 * 1e3 / search.p50_ms.max(f64::MIN_POSITIVE);
    let copy_bytes_per_second = copy_bandwidth(1);
    Ok(RetrievalSpeed {
        memories,
        width,
        top_k,
        search,
        bytes_per_second,
        copy_bytes_per_second,
        percent_of_copy: 100.0 * bytes_per_second / copy_bytes_per_second,
        recall: hits as f64 / exact.len() as f64,
    })
}
