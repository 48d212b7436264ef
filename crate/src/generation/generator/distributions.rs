//! What a model thinks of a completion that stands.

use super::LocalModel;
use crate::error::{Error, Result};
use crate::generation::constraint::Step;
use crate::generation::{Bitset, Cancel, Request};
use crate::kernels::Kernels;
use crate::nn::{KvCache, read_back};

impl<B: Kernels> LocalModel<B> {
    /// The natural logarithms of the allowed tokens' probabilities, by id, at each place of `ids`
    /// where a token was chosen and not forced. `ids` are what a request with a grammar was
    /// answered with, by this model or by another of the same tokenizer; other tokens are
    /// `INVALID_ARGUMENT`.
    pub async fn distributions(
        &self,
        request: &Request,
        ids: &[u32],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<f32>>> {
        let other = || Error::invalid("the tokens are no answer to this request");
        let grammar = request.grammar.as_ref().ok_or_else(|| Error::invalid("the request has no grammar"))?;
        let (prompt, room) = self.prepare(request)?;
        let mut constraint = self.constraint(request, grammar, (prompt.len(), room))?;
        let mut cache = KvCache::new(self.decoder.config(), 1, prompt.len() + room, &self.decoder.device());
        let (mut unread, mut rest) = (prompt.clone(), ids);
        let mut distributions = Vec::new();
        loop {
            match constraint.next()? {
                Step::Forced(forced) => {
                    rest = rest.strip_prefix(&forced[..]).ok_or_else(other)?;
                    unread.extend(forced);
                }
                Step::Choose(allowed) => {
                    let (id, behind) = rest.split_first().ok_or_else(other)?;
                    if !allowed.contains(*id) {
                        return Err(other());
                    }
                    let hidden = self.read(&unread, &prompt, &mut cache, cancel).await?.ok_or_else(other)?;
                    let logits = read_back(self.decoder.logits(hidden)).await?;
                    distributions.push(log_softmax(&logits, &allowed));
                    constraint.accept(*id)?;
                    (unread, rest) = (vec![*id], behind);
                }
                Step::Done if rest.is_empty() => return Ok(distributions),
                Step::Done => return Err(other()),
            }
        }
    }
}

fn log_softmax(logits: &[f32], allowed: &Bitset) -> Vec<f32> {
    let mut values: Vec<f32> = allowed.iter().filter_map(|id| logits.get(id as usize)).copied().collect();
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = values.iter().map(|value| f64::from(value - largest).exp()).sum();
    let total = largest + sum.ln() as f32;
    for value in &mut values {
        *value -= total;
    }
    values
}
