//! The log-probabilities of a batch's targets, some rows at a time: never all rows of the vocabulary at once.

use std::ops::Range;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::kernels::{HIDDEN, Kernels};
use crate::nn::Decoder;
use crate::training::network::Batch;

/// How many logits are there at once.
const LOGITS: usize = 32 << 20;

/// The targets of a batch in pieces.
pub(super) fn pieces(batch: &Batch, vocab: usize) -> impl DoubleEndedIterator<Item = Range<usize>> + use<> {
    let (count, most) = (batch.targets.len(), (LOGITS / vocab).max(1));
    (0..count.div_ceil(most)).map(move |piece| piece * most..((piece + 1) * most).min(count))
}

/// What the targets of a piece cost.
pub(super) struct Scores<B: Kernels> {
    /// `[targets]`
    pub(super) logprobs: Tensor<B, 1>,
    /// Of the choice among what is allowed, in nats, `[targets]`
    pub(super) entropies: Tensor<B, 1>,
    /// The most probable tokens, `[targets]`
    pub(super) predicted: Tensor<B, 1, Int>,
}

/// The scores of a piece, whose rows are `[targets, hidden_size]` and not normed yet.
pub(super) fn score<B: Kernels>(
    decoder: &Decoder<B>,
    rows: Tensor<B, 2>,
    batch: &Batch,
    piece: Range<usize>,
) -> Scores<B> {
    let (device, count) = (rows.device(), piece.len());
    let mut logits = decoder.logits(decoder.norm_output(rows));
    if let Some(choices) = &batch.choices {
        logits = logits.div_scalar(choices.temperature);
        let allowed = &choices.allowed[piece.clone()];
        if allowed.iter().any(Option::is_some) {
            let vocab = logits.dims()[1];
            let sets = allowed.iter();
            let forbidden: Vec<bool> = sets
                .flat_map(|set| {
                    (0..vocab as u32).map(move |id| set.as_ref().is_some_and(|set| !set.contains(id)))
                })
                .collect();
            let forbidden = TensorData::new(forbidden, [count, vocab]);
            logits = logits.mask_fill(Tensor::<B, 2, Bool>::from_data(forbidden, &device), HIDDEN);
        }
    }
    let tokens: Vec<i32> = batch.targets[piece].iter().map(|target| target.token as i32).collect();
    let tokens = Tensor::<B, 2, Int>::from_data(TensorData::new(tokens, [count, 1]), &device);
    let predicted = logits.clone().detach().argmax(1).reshape([count]);
    let logprobs = log_softmax(logits, 1);
    let entropies = (logprobs.clone().exp() * logprobs.clone()).sum_dim(1).neg().reshape([count]);
    Scores { logprobs: logprobs.gather(1, tokens).reshape([count]), entropies, predicted }
}
