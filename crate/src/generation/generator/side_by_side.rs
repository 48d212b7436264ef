//! Several completions, of one prompt or of many, written side by side; a prompt is read once.

use std::collections::VecDeque;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};

use super::LocalModel;
use super::writing::{Next, Writing};
use crate::error::{Error, Result};
use crate::generation::sampler::{Ask, choose_each};
use crate::generation::{Bitset, Cancel, Generation, Request, Sampling};
use crate::kernels::Kernels;
use crate::nn::KvCache;

/// One of the completions. All are fed one token a step, so that they stay at the same position.
struct Row<'a> {
    writing: Writing<'a>,
    sampling: Sampling,
    /// What it has to read before it chooses.
    unread: VecDeque<u32>,
    /// What it then may choose.
    allowed: Option<Arc<Bitset>>,
    is_done: bool,
}

impl Row<'_> {
    fn is_choosing(&self) -> bool {
        !self.is_done && self.unread.is_empty()
    }

    fn go_on(&mut self, mut unread: Vec<u32>) -> Result<()> {
        match self.writing.next(&mut unread)? {
            Next::Choose(allowed) => {
                self.allowed = allowed;
                self.unread = unread.into();
            }
            Next::Done => self.is_done = true,
        }
        Ok(())
    }
}

/// A prompt that was read, with all that had to follow it, and what was asked of it.
struct Read<B: Kernels> {
    tokens: Vec<u32>,
    cache: KvCache<B>,
    hidden: Tensor<B, 2>,
    count: usize,
}

impl<B: Kernels> LocalModel<B> {
    /// So many samples of each request, in order. A prompt is read once; then all are written side by side.
    pub(super) async fn write(
        &self,
        asked: &[(&Request, usize)],
        cancel: &Cancel,
    ) -> Result<Vec<Generation>> {
        cancel.check()?;
        let mut rows: Vec<Row<'_>> = Vec::new();
        let mut prompts = Vec::new();
        let mut read: Vec<Read<B>> = Vec::new();
        // Which rows have read which prompt.
        let mut readers: Vec<Vec<usize>> = Vec::new();
        let mut more = 0;
        for (request, count) in asked {
            let (prompt, room, mut first) = self.writing(request)?;
            let mut tokens = prompt.clone();
            let next = first.next(&mut tokens)?;
            let own = rows.len()..rows.len() + count;
            rows.extend((0..*count as u64).map(|sample| Row {
                writing: first.clone(),
                sampling: request.sampling.of_sample(sample),
                unread: VecDeque::new(),
                allowed: if let Next::Choose(allowed) = &next { allowed.clone() } else { None },
                is_done: matches!(next, Next::Done),
            }));
            prompts.extend(std::iter::repeat_n(prompt.clone(), *count));
            if matches!(next, Next::Done) || *count == 0 {
                continue;
            }
            more = more.max((prompt.len() + room).saturating_sub(tokens.len()));
            if let Some(place) = read.iter().position(|known| known.tokens == tokens) {
                read[place].count += count;
                readers[place].extend(own);
                continue;
            }
            let mut cache = KvCache::new(self.decoder.config(), 1, tokens.len(), &self.decoder.device());
            let hidden = self.read(&tokens, &prompt, &mut cache, cancel).await?;
            let hidden = hidden.ok_or_else(|| Error::internal("there is nothing to choose behind"))?;
            read.push(Read { tokens, cache, hidden, count: *count });
            readers.push(own.collect());
        }
        self.write_rows(&mut rows, (read, readers), more, cancel).await?;
        Ok(rows.into_iter().zip(prompts).map(|(row, prompt)| row.writing.finish(prompt)).collect())
    }

    /// Writes the rows to their ends, each at most `more` tokens behind what it has read.
    async fn write_rows(
        &self,
        rows: &mut [Row<'_>],
        (read, readers): (Vec<Read<B>>, Vec<Vec<usize>>),
        more: usize,
        cancel: &Cancel,
    ) -> Result<()> {
        if read.is_empty() {
            return Ok(());
        }
        let hidden = read.iter().map(|own| own.hidden.clone().repeat_dim(0, own.count)).collect();
        let mut hidden = Tensor::cat(hidden, 0);
        let mut cache = KvCache::join(read.into_iter().map(|own| (own.cache, own.count)).collect(), more);
        // Which row each row of the batch is.
        let mut batch: Vec<usize> = readers.into_iter().flatten().collect();
        loop {
            let choosing: Vec<usize> =
                (0..batch.len()).filter(|place| rows[batch[*place]].is_choosing()).collect();
            if !choosing.is_empty() {
                let asks: Vec<Ask<'_>> = choosing.iter().map(|place| &rows[batch[*place]]).map(ask).collect();
                let chosen =
                    choose_each(self.decoder.logits(select(hidden.clone(), &choosing)), &asks).await?;
                for (place, choice) in choosing.into_iter().zip(chosen) {
                    let row = &mut rows[batch[place]];
                    row.writing.accept(choice, &self.tokenizer)?;
                    row.go_on(vec![choice.id])?;
                }
            }
            let live: Vec<usize> = (0..batch.len()).filter(|place| !rows[batch[*place]].is_done).collect();
            if live.is_empty() {
                return Ok(());
            }
            // Those that are done are carried along, until they are the half.
            if live.len() * 2 <= batch.len() {
                cache = cache.select(&live);
                batch = live.iter().map(|place| batch[*place]).collect();
            }
            (self.turn)().await;
            cancel.check()?;
            let next = |row: &usize| rows[*row].unread.pop_front().unwrap_or_default() as i32;
            let tokens: Vec<i32> = batch.iter().map(next).collect();
            let tokens = TensorData::new(tokens, [batch.len(), 1]);
            hidden = self.decoder.extend(Tensor::from_data(tokens, &self.decoder.device()), &mut cache);
        }
    }
}

fn ask<'a>(row: &'a Row<'_>) -> Ask<'a> {
    Ask { allowed: row.allowed.as_deref(), sampling: &row.sampling, position: row.writing.len() }
}

/// The rows of these places; all of them as they are.
fn select<B: Kernels>(rows: Tensor<B, 2>, places: &[usize]) -> Tensor<B, 2> {
    if rows.dims()[0] == places.len() {
        return rows;
    }
    let places: Vec<i32> = places.iter().map(|place| *place as i32).collect();
    let device = rows.device();
    rows.select(0, Tensor::<B, 1, Int>::from_data(places.as_slice(), &device))
}
