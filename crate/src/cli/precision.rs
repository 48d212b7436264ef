//! How a command writes weights.

use clap::ValueEnum;

use crate::checkpoint::Quantization;

/// How weights are written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 8 bits a value, and a 16-bit scale for every 64.
    Q8,
    /// 6 bits a value, and a 16-bit scale for every 64.
    Q6,
    /// 4 bits a value, and a 16-bit scale for every 64.
    Q4,
}

impl From<Precision> for Quantization {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::F16 => Self::F16,
            Precision::Q8 => Self::Q8,
            Precision::Q6 => Self::Q6,
            Precision::Q4 => Self::Q4,
        }
    }
}
