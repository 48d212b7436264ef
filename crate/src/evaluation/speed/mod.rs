//! How fast it is, beside what the machine can do, measured in the same run.

mod language;
mod limits;
mod retrieval;
mod shapes;
mod training;

use std::time::Duration;

use serde::Serialize;

pub use language::{DecodeSpeed, LoadSpeed, PrefillSpeed, decode, load, prefill};
pub use limits::{copy_bandwidth, matmul_rate};
pub use retrieval::{RetrievalSpeed, retrieval};
pub use shapes::{random_decoder, random_values, shape};
pub use training::{TrainSize, TrainSpeed, train};

/// How long the same thing took, time after time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Times {
    /// How often it was done.
    pub n: usize,
    /// The median, in milliseconds.
    pub p50_ms: f64,
    /// The 95th percentile, in milliseconds.
    pub p95_ms: f64,
}

impl Times {
    /// Of durations; all 0 of none. A percentile is the smallest value that so many are not above.
    pub fn new(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let at = |share: f64| {
            let place = (share * all.len() as f64).ceil() as usize;
            all.get(place.max(1) - 1).map_or(0.0, |own| own.as_secs_f64() * 1e3)
        };
        Self { n: all.len(), p50_ms: at(0.5), p95_ms: at(0.95) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let times = Times::new((1..=20).rev().map(Duration::from_millis).collect());
        assert_eq!(times, Times { n: 20, p50_ms: 10.0, p95_ms: 19.0 });
        assert_eq!(Times::new(vec![Duration::from_millis(3)]), Times { n: 1, p50_ms: 3.0, p95_ms: 3.0 });
        assert_eq!(Times::new(Vec::new()), Times { n: 0, p50_ms: 0.0, p95_ms: 0.0 });
    }
}
