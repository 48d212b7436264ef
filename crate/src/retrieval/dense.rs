//! Exact search by cosine over dense vectors.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::error::{Error, Result};
use crate::kernels::scalar::wide;

/// How many partial sums a product has.
const LANES: usize = 16;
/// How many scores are made before they are looked at.
const BLOCK: usize = 256;

/// Vectors of length 1, one behind the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    width: usize,
    values: Vec<f32>,
}

/// A vector that was found; greater is better, and of equal ones the earlier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// The place of the vector.
    pub place: usize,
    /// Its cosine with the query, in -1..1.
    pub cosine: f32,
}

impl Eq for Neighbour {}

impl Ord for Neighbour {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cosine.total_cmp(&other.cosine).then(other.place.cmp(&self.place))
    }
}

impl PartialOrd for Neighbour {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Dense {
    /// An empty index of vectors of so many numbers.
    pub fn new(width: usize) -> Self {
        Self { width, values: Vec::new() }
    }

    /// How many vectors it holds.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a vector, scaled to length 1. One of another width, of length 0 or with a number that is
    /// not finite is `INVALID_ARGUMENT`: dimensions are never mixed.
    pub fn push(&mut self, vector: &[f32]) -> Result<()> {
        let scale = self.scale(vector)?;
        self.values.extend(vector.iter().map(|value| value * scale));
        Ok(())
    }

    /// The `count` nearest vectors, the nearest first.
    pub fn search(&self, query: &[f32], count: usize) -> Result<Vec<Neighbour>> {
        let scale = self.scale(query)?;
        let query: Vec<f32> = query.iter().map(|value| value * scale).collect();
        let mut best: BinaryHeap<Reverse<Neighbour>> = BinaryHeap::with_capacity(count + 1);
        let mut cosines = [0.0f32; BLOCK];
        for (number, block) in self.values.chunks(BLOCK * self.width).enumerate() {
            let rows = block.len() / self.width;
            products(&mut cosines[..rows], block, &query);
            for (row, &cosine) in cosines[..rows].iter().enumerate() {
                let own = Neighbour { place: number * BLOCK + row, cosine };
                if best.len() < count {
                    best.push(Reverse(own));
                } else if best.peek().is_some_and(|Reverse(worst)| own > *worst) {
                    best.pop();
                    best.push(Reverse(own));
                }
            }
        }
        Ok(best.into_sorted_vec().into_iter().map(|Reverse(own)| own).collect())
    }

    fn scale(&self, vector: &[f32]) -> Result<f32> {
        if vector.len() != self.width {
            return Err(Error::invalid(format!(
                "a vector of {} numbers does not fit into an index of vectors of {}",
                vector.len(),
                self.width
            )));
        }
        let square: f64 = vector.iter().map(|value| f64::from(*value).powi(2)).sum();
        if !square.is_finite() || square <= 0.0 {
            return Err(Error::invalid("a vector has no direction"));
        }
        Ok((1.0 / square.sqrt()) as f32)
    }
}

/// The product of each row with the query.
fn products(out: &mut [f32], rows: &[f32], query: &[f32]) {
    wide(
        #[inline(always)]
        || {
            for (out, row) in out.iter_mut().zip(rows.chunks_exact(query.len())) {
                let mut sums = [0.0f32; LANES];
                let (left, right) = (row.chunks_exact(LANES), query.chunks_exact(LANES));
                let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(x, y)| x * y).sum();
                for (x, y) in left.zip(right) {
                    for lane in 0..LANES {
                        sums[lane] += x[lane] * y[lane];
                    }
                }
                *out = sums.iter().sum::<f32>() + rest;
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn the_nearest_come_first_and_of_equal_ones_the_earlier() {
        let mut index = Dense::new(2);
        for vector in [[0.0, 2.0], [3.0, 0.0], [1.0, 1.0], [5.0, 0.0], [-1.0, 0.0]] {
            index.push(&vector).unwrap();
        }
        let found = index.search(&[10.0, 0.0], 3).unwrap();
        assert_eq!(found.iter().map(|own| own.place).collect::<Vec<_>>(), [1, 3, 2]);
        assert!((found[2].cosine - 0.5f32.sqrt()).abs() < 1e-6);
        assert_eq!(index.search(&[1.0, 0.0], 99).unwrap().len(), 5);
        assert!(index.search(&[1.0, 0.0], 0).unwrap().is_empty());
        assert!(Dense::new(2).search(&[1.0, 0.0], 3).unwrap().is_empty());
    }

    #[test]
    fn it_finds_what_brute_force_in_f64_finds() {
        let (width, mut random) = (37, Random::new(5, &[]));
        let vectors: Vec<Vec<f32>> =
            (0..1000).map(|_| (0..width).map(|_| random.normal() as f32).collect()).collect();
        let mut index = Dense::new(width);
        for vector in &vectors {
            index.push(vector).unwrap();
        }
        let query: Vec<f32> = (0..width).map(|_| random.normal() as f32).collect();
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let cosine = |own: &[f32]| dot(own, &query) / (dot(own, own) * dot(&query, &query)).sqrt();
        let mut exact: Vec<usize> = (0..1000).collect();
        exact.sort_by(|a, b| cosine(&vectors[*b]).total_cmp(&cosine(&vectors[*a])));
        let found = index.search(&query, 60).unwrap();
        assert_eq!(found.iter().map(|own| own.place).collect::<Vec<_>>(), exact[..60]);
        for own in found {
            assert!((f64::from(own.cosine) - cosine(&vectors[own.place])).abs() < 1e-6);
        }
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let mut index = Dense::new(3);
        for wrong in [&[1.0, 2.0][..], &[0.0; 3], &[1.0, f32::NAN, 0.0], &[1.0; 4]] {
            assert!(index.push(wrong).is_err() && index.search(wrong, 1).is_err());
        }
        assert!(index.is_empty());
    }
}
