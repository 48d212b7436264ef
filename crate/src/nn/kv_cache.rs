//! The keys and values of what a decoder has read.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

use super::{DecoderConfig, Rotary};
use crate::kernels::Kernels;

/// Buffers of a fixed capacity for each layer, `[batch, kv_heads, capacity, head_dim]`.
///
/// A write takes the buffer out, writes in place and puts it back: were another handle alive,
/// the backend would copy the whole buffer.
#[derive(Debug)]
pub struct KvCache<B: Backend> {
    layers: Vec<Option<(Tensor<B, 4>, Tensor<B, 4>)>>,
    capacity: usize,
    len: usize,
    /// Where each row's text begins, if not all begin at 0: they end together.
    first: Option<Vec<usize>>,
}

impl<B: Kernels> KvCache<B> {
    /// An empty cache for `capacity` tokens a row.
    pub fn new(config: &DecoderConfig, batch: usize, capacity: usize, device: &B::Device) -> Self {
        let shape = [batch, config.num_key_value_heads, capacity, config.head_dim];
        let buffers = || Some((Tensor::zeros(shape, device), Tensor::zeros(shape, device)));
        Self {
            layers: (0..config.num_hidden_layers).map(|_| buffers()).collect(),
            capacity,
            len: 0,
            first: None,
        }
    }

    /// How many tokens it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True of a new one.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many tokens it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets what stands behind the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// So many rows of a cache of one row.
    #[must_use]
    pub fn repeat(self, rows: usize) -> Self {
        self.map(|buffer| buffer.repeat_dim(0, rows))
    }

    /// The rows of caches of one row each, so many times each, in one cache for `more` further tokens a row. The
    /// texts end at the same place, with nothing before the shorter ones (left padding).
    pub fn join(rows: Vec<(Self, usize)>, more: usize) -> Self {
        let len = rows.iter().map(|(own, _)| own.len).max().unwrap_or_default();
        let capacity = len + more;
        let layers = rows.first().map_or(0, |(own, _)| own.layers.len());
        let first: Vec<usize> = rows.iter().flat_map(|(own, count)| vec![len - own.len; *count]).collect();
        let first = first.iter().any(|first| *first > 0).then_some(first);
        let place = |(own, count): &(Self, usize), buffer: &Tensor<B, 4>| {
            let [_, heads, _, width] = buffer.dims();
            let empty = |length| Tensor::<B, 4>::zeros([1, heads, length, width], &buffer.device());
            let mut parts = vec![buffer.clone().narrow(2, 0, own.len)];
            if len > own.len {
                parts.insert(0, empty(len - own.len));
            }
            if more > 0 {
                parts.push(empty(more));
            }
            Tensor::cat(parts, 2).repeat_dim(0, *count)
        };
        let layer = |layer: usize| {
            let own = rows.iter().filter_map(|row| row.0.layers[layer].as_ref().map(|own| (row, own)));
            let (keys, values) = own.map(|(row, (k, v))| (place(row, k), place(row, v))).unzip();
            Some((Tensor::cat(keys, 0), Tensor::cat(values, 0)))
        };
        Self { layers: (0..layers).map(layer).collect(), capacity, len, first }
    }

    /// The position of each row's next token, where rows begin at different places.
    pub(crate) fn positions(&self) -> Option<Vec<usize>> {
        self.first.as_ref().map(|first| first.iter().map(|first| self.len - first).collect())
    }

    /// Attention over these keys and values, the first query at place `start`.
    pub(crate) fn attend(
        &self,
        q: Tensor<B, 4>,
        (k, v): (Tensor<B, 4>, Tensor<B, 4>),
        start: usize,
        bias: Option<Tensor<B, 2>>,
    ) -> Tensor<B, 4> {
        match &self.first {
            Some(first) => B::row_attention(q, k, v, first),
            None => B::causal_attention(q, k, v, start, bias),
        }
    }

    /// The rows of these places.
    #[must_use]
    pub fn select(self, rows: &[usize]) -> Self {
        let first = self.first.as_ref().map(|first| rows.iter().map(|row| first[*row]).collect());
        let rows: Vec<i32> = rows.iter().map(|row| *row as i32).collect();
        let chosen = self.map(|buffer| {
            let places = Tensor::<B, 1, Int>::from_data(rows.as_slice(), &buffer.device());
            buffer.select(0, places)
        });
        Self { first, ..chosen }
    }

    fn map(self, change: impl Fn(Tensor<B, 4>) -> Tensor<B, 4>) -> Self {
        let layers = self.layers.into_iter().map(|layer| layer.map(|(k, v)| (change(k), change(v))));
        Self { layers: layers.collect(), ..self }
    }

    /// Writes a layer's new keys and values; gives back all of them up to these.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        k: Tensor<B, 4>,
        v: Tensor<B, 4>,
    ) -> (Tensor<B, 4>, Tensor<B, 4>) {
        let length = k.dims()[2];
        let ([keys, values], start) = self.take(layer, length);
        let buffers = [B::write_cache(keys, start, k), B::write_cache(values, start, v)];
        self.put_back(layer, buffers, length)
    }

    /// The same of queries, keys and values that are still to be rotated; with the queries.
    pub(crate) fn append_rotated(
        &mut self,
        layer: usize,
        projected: [Tensor<B, 4>; 3],
        rotary: &Rotary<B>,
    ) -> (Tensor<B, 4>, (Tensor<B, 4>, Tensor<B, 4>)) {
        let length = projected[0].dims()[2];
        let (buffers, start) = self.take(layer, length);
        let [q, keys, values] = rotary.apply_into_cache(projected, buffers, start);
        (q, self.put_back(layer, [keys, values], length))
    }

    /// A layer's buffers, and where the next tokens stand, so many.
    fn take(&mut self, layer: usize, tokens: usize) -> ([Tensor<B, 4>; 2], usize) {
        let end = self.len + tokens;
        assert!(end <= self.capacity, "a cache for {} tokens cannot take {end}", self.capacity);
        let (keys, values) = self.layers[layer].take().unwrap_or_else(|| unreachable!("put back below"));
        ([keys, values], self.len)
    }

    fn put_back(
        &mut self,
        layer: usize,
        [keys, values]: [Tensor<B, 4>; 2],
        tokens: usize,
    ) -> (Tensor<B, 4>, Tensor<B, 4>) {
        let end = self.len + tokens;
        let seen = (keys.clone().narrow(2, 0, end), values.clone().narrow(2, 0, end));
        self.layers[layer] = Some((keys, values));
        seen
    }

    /// Counts tokens that every layer has written.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use std::time::{Duration, Instant};

    use burn::backend::flex::FlexDevice;
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::Tolerance;

    use super::*;

    fn config() -> DecoderConfig {
        DecoderConfig {
            vocab_size: 64,
            hidden_size: 32,
            intermediate_size: 48,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            ..DecoderConfig::nano()
        }
    }

    fn tokens(ids: &[i32]) -> Tensor<Flex, 2, Int> {
        Tensor::<Flex, 1, Int>::from_data(ids, &FlexDevice).unsqueeze()
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let decoder = config().init::<Flex>(5, &FlexDevice);
        let ids: Vec<i32> = (0..40).map(|i| i * 7 % 64).collect();
        let whole = decoder.forward(tokens(&ids));
        for sizes in [vec![40], vec![1; 40], vec![17, 1, 1, 21], vec![39, 1]] {
            let mut cache = KvCache::new(&config(), 1, 50, &FlexDevice);
            let mut at = 0;
            for size in sizes {
                let last = decoder.extend(tokens(&ids[at..at + size]), &mut cache);
                at += size;
                let wanted = whole.clone().narrow(1, at - 1, 1).reshape([1, 32]);
                last.into_data().assert_approx_eq::<f32>(&wanted.into_data(), Tolerance::absolute(1e-5));
            }
            assert_eq!(cache.len(), 40);
        }
    }

    #[test]
    fn a_batch_gives_what_its_rows_give() {
        let decoder = config().init::<Flex>(5, &FlexDevice);
        let rows = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]];
        let mut both = KvCache::new(&config(), 2, 8, &FlexDevice);
        let batch = decoder.extend(Tensor::from_data(rows, &FlexDevice), &mut both);
        for (place, row) in rows.iter().enumerate() {
            let mut cache = KvCache::new(&config(), 1, 8, &FlexDevice);
            let alone = decoder.extend(tokens(row), &mut cache);
            let own = batch.clone().narrow(0, place, 1);
            own.into_data().assert_approx_eq::<f32>(&alone.into_data(), Tolerance::absolute(1e-5));
        }
    }

    /// Read alone, joined, and read on side by side, rows of any length are what each is alone; by the CPU's own
    /// attention and by burn's operators.
    #[test]
    fn joined_rows_are_what_each_is_alone() {
        joined::<Flex>(&FlexDevice);
        joined::<Autodiff<Flex>>(&FlexDevice);
    }

    fn joined<B: Kernels>(device: &B::Device) {
        let decoder = config().init::<B>(5, device);
        let texts: [&[i32]; 3] = [&[3, 1, 4, 1, 5, 9], &[2, 6], &[5, 3, 5, 8]];
        let tokens = |ids: &[i32]| Tensor::<B, 1, Int>::from_data(ids, device).unsqueeze::<2>();
        let read = |text: &[i32], more: usize| {
            let mut cache = KvCache::new(&config(), 1, text.len() + more, device);
            decoder.extend(tokens(text), &mut cache);
            cache
        };
        let mut together = KvCache::join(texts.map(|text| (read(text, 0), 2)).into(), 3);
        let mut alone = texts.map(|text| read(text, 3));
        assert_eq!((together.len(), together.positions()), (6, Some(vec![6, 6, 2, 2, 4, 4])));
        // Which text each row is of.
        let mut texts_of = vec![0, 0, 1, 1, 2, 2];
        for step in 0..3 {
            let next = [7, 8, 9].map(|id| id + step);
            let column: Vec<i32> = texts_of.iter().map(|text| next[*text]).collect();
            let all = decoder.extend(tokens(&column).swap_dims(0, 1), &mut together);
            for (text, (id, cache)) in next.iter().zip(&mut alone).enumerate() {
                let wanted = decoder.extend(tokens(&[*id]), cache).into_data();
                for row in (0..texts_of.len()).filter(|row| texts_of[*row] == text) {
                    let own = all.clone().narrow(0, row, 1).into_data();
                    own.assert_approx_eq::<f32>(&wanted, Tolerance::absolute(1e-5));
                }
            }
            if step == 0 {
                together = together.select(&[2, 5, 0]);
                texts_of = vec![1, 2, 0];
            }
        }
        let same = KvCache::join(vec![(read(&[1, 2], 0), 1), (read(&[3, 4], 0), 1)], 1);
        assert_eq!(same.positions(), None);
    }

    #[test]
    fn a_cut_cache_goes_on_from_the_cut() {
        let decoder = config().init::<Flex>(5, &FlexDevice);
        let mut cache = KvCache::new(&config(), 1, 8, &FlexDevice);
        decoder.extend(tokens(&[1, 2, 3]), &mut cache);
        let first = decoder.extend(tokens(&[4]), &mut cache).into_data();
        cache.truncate(3);
        assert_eq!(decoder.extend(tokens(&[4]), &mut cache).into_data(), first);
    }

    /// 64 positions of 8192 buffers cost what they cost of 256: a copy of a whole buffer would
    /// cost 32 times as much.
    #[test]
    fn the_time_of_a_step_does_not_grow_with_the_capacity() {
        let config = DecoderConfig { num_key_value_heads: 4, head_dim: 64, ..config() };
        let decoder = config.init::<Flex>(5, &FlexDevice);
        let fastest = |capacity: usize| {
            let mut cache = KvCache::new(&config, 1, capacity, &FlexDevice);
            let mut step = |id: i32| {
                let start = Instant::now();
                decoder.extend(tokens(&[id]), &mut cache).into_data();
                start.elapsed()
            };
            step(0);
            (0..63).map(&mut step).min().unwrap_or(Duration::MAX)
        };
        let (small, large) = (fastest(256), fastest(8192));
        assert!(large < small * 3, "{small:?} of 256, {large:?} of 8192");
    }
}
