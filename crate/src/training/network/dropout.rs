//! Dropout (Srivastava et al., 2014): of the token embeddings, and of what attention and the
//! feed-forward layer hand to their last products.

use crate::random::keyed;

/// How many values one random number decides about, 16 bits each.
const PER_DRAW: usize = 4;

/// The activations of which is dropped.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// What the first layer reads.
    Embedding,
    /// What attention hands to its last product.
    Mixed,
    /// What the feed-forward layer hands to its last product.
    Gated,
    /// What an adapter reads; in the place of the layer stands the number of its matrix.
    Adapted,
}

/// Which values of a pass are dropped. The backward pass asks again instead of remembering.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// The share that is dropped, in `0..1`; the others grow so that the mean stays.
    pub rate: f32,
    /// What the choice depends on.
    pub key: u64,
}

impl Dropout {
    /// Drops of a layer's activation, or of its gradient.
    pub(super) fn apply(self, values: &mut [f32], layer: usize, part: Part) {
        let key = keyed(self.key, &[layer as u64, part as u64]);
        let scale = 1.0 / (1.0 - self.rate);
        let least = (self.rate * 65_536.0) as u64;
        for (number, chunk) in values.chunks_mut(PER_DRAW).enumerate() {
            let mut bits = keyed(key, &[number as u64]);
            for value in chunk {
                *value = if bits & 0xffff < least { 0.0 } else { *value * scale };
                bits >>= 16;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_dropped_the_mean_stays_and_the_same_key_chooses_the_same() {
        let dropped = |key: u64, layer: usize| {
            let mut values = vec![1.0_f32; 40_001];
            Dropout { rate: 0.2, key }.apply(&mut values, layer, Part::Gated);
            values
        };
        let values = dropped(3, 1);
        let zeros = values.iter().filter(|value| **value == 0.0).count() as f64 / values.len() as f64;
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
        assert!((zeros - 0.2).abs() < 0.01, "{zeros}");
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        assert_eq!(values, dropped(3, 1));
        assert_ne!(values, dropped(3, 2));
        assert_ne!(values, dropped(4, 1));
    }
}
