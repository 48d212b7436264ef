//! Several completions of one prompt, which is read once, and written side by side.

use std::collections::VecDeque;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};

use super::LocalModel;
use super::writing::{Next, Writing};
use crate::error::{Error, Result};
use crate::generation::sampler::{Ask, choose_each};
use crate::generation::{Bitset, Cancel, Generation, Request, Sampling};
use crate::kernels::Kernels;

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

impl<B: Kernels> LocalModel<B> {
    /// Does it.
    pub(super) async fn write_samples(
        &self,
        request: &Request,
        count: usize,
        cancel: &Cancel,
    ) -> Result<Vec<Generation>> {
        let (prompt, mut cache, mut first) = self.begin(request, cancel)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut unread = prompt.clone();
        let Next::Choose(allowed) = first.next(&mut unread)? else {
            return Ok((0..count).map(|_| first.clone().finish(prompt.clone())).collect());
        };
        let nothing = || Error::internal("there is nothing to choose behind");
        let hidden = self.read(&unread, &prompt, &mut cache, cancel).await?.ok_or_else(nothing)?;
        let mut hidden = hidden.repeat_dim(0, count);
        let mut cache = cache.repeat(count);
        let mut rows: Vec<Row<'_>> = (0..count)
            .map(|sample| Row {
                writing: first.clone(),
                sampling: request.sampling.of_sample(sample as u64),
                unread: VecDeque::new(),
                allowed: allowed.clone(),
                is_done: false,
            })
            .collect();
        // Which row each row of the batch is.
        let mut batch: Vec<usize> = (0..count).collect();
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
                break;
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
        Ok(rows.into_iter().map(|row| row.writing.finish(prompt.clone())).collect())
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
