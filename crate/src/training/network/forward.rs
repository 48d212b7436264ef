//! From tokens to losses.

use std::ops::Range;
use std::sync::Arc;

use super::adapter::Adapter;
use super::dropout::{Dropout, Part};
use super::layout::{Block, Layout, Parts};
use super::linear::Linear;
use super::math::{Into, View, add_rows, argmax, matmul, rms_norm, rotate, softmax, swiglu, wide};
use crate::error::{Error, Result};
use crate::generation::Bitset;

/// A token that the network should have predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The row of the batch that predicts it: the place of the token before it.
    pub row: usize,
    /// The token.
    pub token: u32,
    /// How much it counts.
    pub weight: f32,
}

/// Several sequences that begin alike: the tokens that they share stand once, before the rest of
/// each. A branch reads the stem and itself, and stands at the positions behind the stem, as if
/// it were alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// How many tokens all branches share.
    pub stem: usize,
    /// How many tokens follow in each.
    pub branches: Vec<usize>,
    /// How many tokens at the start of each branch are its prompt, which then, like the stem, is
    /// read in both directions: BERT's two blocks. None where a token sees what stands before it only.
    pub prompts: Option<Vec<usize>>,
}

impl Tree {
    /// How many tokens it has.
    pub fn len(&self) -> usize {
        self.stem + self.branches.iter().sum::<usize>()
    }

    /// Whether that is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The position of every token in its own sequence.
    pub(super) fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        let behind = |length: &usize| self.stem..self.stem + length;
        (0..self.stem).chain(self.branches.iter().flat_map(behind))
    }

    /// For every token, where what it sees ends, and before that what it does not see: the
    /// branches before its own.
    pub(super) fn seen(&self) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let of_stem = (0..self.stem).map(|i| (if self.prompts.is_some() { self.stem } else { i + 1 }, 0..0));
        let mut start = self.stem;
        let branches = self.branches.iter().enumerate().flat_map(move |(place, &length)| {
            let prompt = self.prompts.as_ref().map_or(0, |prompts| prompts[place]);
            let own = start;
            start += length;
            (0..length).map(move |i| (own + (i + 1).max(prompt), self.stem..own))
        });
        of_stem.chain(branches)
    }
}

/// What a policy chose its tokens from. Without it all tokens compete, at temperature 1.
#[derive(Clone, Debug)]
pub struct Choices {
    /// For each target the tokens that were allowed, all where there is no set.
    pub allowed: Vec<Option<Arc<Bitset>>>,
    /// What the logits are divided by, above 0.
    pub temperature: f32,
}

/// Sequences one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// All tokens.
    pub tokens: Vec<u32>,
    /// How they divide.
    pub trees: Vec<Tree>,
    /// What is to be predicted.
    pub targets: Vec<Target>,
    /// What is dropped; nothing outside of training.
    pub dropout: Option<Dropout>,
    /// The adapter in the weights, with this batch's choice, where it drops of what it reads; nothing outside of training.
    pub adapter: Option<Adapter>,
    /// What the targets were chosen from.
    pub choices: Option<Choices>,
}

impl Batch {
    /// Appends a sequence; the rows of its targets count from its own start.
    pub fn push(&mut self, tokens: &[u32], targets: impl IntoIterator<Item = Target>) {
        self.push_tree(tokens, Tree { stem: 0, branches: vec![tokens.len()], prompts: None }, targets);
    }

    /// Appends sequences that begin alike; the rows of the targets count from the stem's start.
    pub fn push_tree(&mut self, tokens: &[u32], tree: Tree, targets: impl IntoIterator<Item = Target>) {
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.trees.push(tree);
        self.targets.extend(targets.into_iter().map(|t| Target { row: t.row + start, ..t }));
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.trees.clear();
        self.targets.clear();
        self.dropout = None;
        self.adapter = None;
        self.choices = None;
    }

    /// Drops of an activation of a layer, or of its gradient, where anything is dropped.
    pub(super) fn drop(&self, values: &mut [f32], layer: usize, part: Part) {
        if let Some(dropout) = self.dropout {
            dropout.apply(values, layer, part);
        }
    }

    pub(super) fn check(&self, layout: &Layout) -> Result<()> {
        let config = &layout.config;
        let known = |token: u32| (token as usize) < config.vocab_size;
        let whole = self.trees.iter().map(Tree::len).sum::<usize>() == self.tokens.len();
        let longest = |tree: &Tree| tree.stem + tree.branches.iter().max().copied().unwrap_or(0);
        let fits = self.trees.iter().all(|tree| longest(tree) <= config.max_position_embeddings);
        let targets = self.targets.iter().all(|t| t.row < self.tokens.len() && known(t.token));
        let prompts = self.trees.iter().all(|tree| {
            tree.prompts.as_ref().is_none_or(|prompts| {
                prompts.len() == tree.branches.len()
                    && prompts.iter().zip(&tree.branches).all(|(prompt, length)| prompt <= length)
            })
        });
        let choices = self.choices.as_ref().is_none_or(|choices| {
            let sets = choices.allowed.iter().zip(&self.targets);
            choices.allowed.len() == self.targets.len()
                && choices.temperature > 0.0
                && sets
                    .into_iter()
                    .all(|(set, target)| set.as_ref().is_none_or(|set| set.contains(target.token)))
        });
        if whole && fits && targets && prompts && choices && self.tokens.iter().all(|&token| known(token)) {
            Ok(())
        } else {
            Err(Error::invalid("a batch has a token, a target or a length that the model has no room for"))
        }
    }
}

/// What each target of a batch cost.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// The logarithm of the probability of each target.
    pub logprobs: Vec<f32>,
    /// The most probable token in each target's place.
    pub predicted: Vec<u32>,
    /// The entropy of each choice in nats; of a batch with [`Choices`] only.
    pub entropies: Vec<f32>,
}

/// The activations of one block that its backward pass needs.
#[derive(Default)]
pub(super) struct Activations {
    pub(super) x: Vec<f32>,
    pub(super) inverse1: Vec<f32>,
    pub(super) normed1: Vec<f32>,
    pub(super) qkv: Vec<f32>,
    pub(super) attention: Vec<f32>,
    pub(super) mixed: Vec<f32>,
    pub(super) middle: Vec<f32>,
    pub(super) inverse2: Vec<f32>,
    pub(super) normed2: Vec<f32>,
    pub(super) gate_up: Vec<f32>,
    pub(super) gated: Vec<f32>,
    pub(super) layer: usize,
}

#[cfg(test)]
impl Activations {
    fn buffers(&self) -> [&Vec<f32>; 11] {
        [
            &self.x,
            &self.inverse1,
            &self.normed1,
            &self.qkv,
            &self.attention,
            &self.mixed,
            &self.middle,
            &self.inverse2,
            &self.normed2,
            &self.gate_up,
            &self.gated,
        ]
    }
}

/// The memory of one worker; it grows to what the largest batch needs and is used again.
#[derive(Default)]
pub struct Workspace {
    /// Keep of each block what it reads only, and compute the rest again when its gradient is asked for (Chen et al.,
    /// 2016): the same numbers with less memory, for the time of another forward pass.
    gradient_checkpointing: bool,
    /// One for each block; with checkpointing one for all.
    pub(super) blocks: Vec<Activations>,
    /// With checkpointing, what each block reads.
    inputs: Vec<Vec<f32>>,
    /// With checkpointing, what a block writes when it is computed again.
    again: Vec<f32>,
    pub(super) last: Vec<f32>,
    pub(super) picked: Vec<f32>,
    pub(super) inverse: Vec<f32>,
    pub(super) normed: Vec<f32>,
    /// The probabilities of all tokens, a row a target; the backward pass turns them into the
    /// gradients of the logits.
    pub(super) logits: Vec<f32>,
    pub(super) dx: Vec<f32>,
    pub(super) dnormed: Vec<f32>,
    pub(super) dqkv: Vec<f32>,
    pub(super) dmixed: Vec<f32>,
    pub(super) dgated: Vec<f32>,
    pub(super) dscores: Vec<f32>,
    pub(super) dpicked: Vec<f32>,
    pub(super) first_hat: Vec<f32>,
    pub(super) first_inverse: Vec<f32>,
    pub(super) head_before: Vec<f32>,
    pub(super) head_hat: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// A buffer of exactly `len` elements whose old values do not matter.
pub(super) fn room(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(len, 0.0);
    buffer
}

impl Workspace {
    /// An empty one.
    pub fn new(gradient_checkpointing: bool) -> Self {
        Self { gradient_checkpointing, ..Self::default() }
    }

    /// The angles of every position.
    fn prepare(&mut self, layout: &Layout) {
        let config = &layout.config;
        let half = config.head_dim / 2;
        let kept = if self.gradient_checkpointing { 1 } else { config.num_hidden_layers };
        self.blocks.resize_with(kept, Activations::default);
        self.inputs.resize_with(config.num_hidden_layers, Vec::new);
        if self.cos.len() == half * config.max_position_embeddings {
            return;
        }
        (self.cos, self.sin) = (0..config.max_position_embeddings)
            .flat_map(|position| (0..half).map(move |i| (position, i)))
            .map(|(position, i)| {
                let frequency = config.rope_theta.powf(-(2.0 * i as f64) / config.head_dim as f64);
                // In f32 like the reference implementation, so that long prompts agree too.
                let angle = position as f32 * frequency as f32;
                (angle.cos(), angle.sin())
            })
            .unzip();
    }

    /// Turns queries and keys of all rows by their positions, or back.
    pub(super) fn rotate_all(
        &self,
        qkv: &mut [f32],
        trees: &[Tree],
        width: usize,
        qk: usize,
        head: usize,
        sign: f32,
    ) {
        let half = head / 2;
        wide(
            #[inline(always)]
            || {
                let positions = trees.iter().flat_map(Tree::positions);
                for (row, position) in qkv.chunks_exact_mut(width).zip(positions) {
                    let at = position * half..(position + 1) * half;
                    rotate(&mut row[..qk], head, &self.cos[at.clone()], &self.sin[at], sign);
                }
            },
        );
    }

    /// Computes the log-probability of every target and keeps what the backward pass needs.
    pub fn forward(&mut self, layout: &Layout, parameters: &[f32], batch: &Batch) -> Result<Losses> {
        self.run_blocks(layout, parameters, batch)?;
        Ok(self.head(layout, parameters, batch))
    }

    /// The states of all rows behind the last block.
    pub(super) fn run_blocks(&mut self, layout: &Layout, parameters: &[f32], batch: &Batch) -> Result<()> {
        batch.check(layout)?;
        self.prepare(layout);
        let config = &layout.config;
        let hidden = config.hidden_size;
        let n = batch.tokens.len();

        let mut x = std::mem::take(&mut self.last);
        match &layout.parts {
            Parts::Qwen2 { .. } => {
                room(&mut x, n * hidden);
                let embedding = &parameters[layout.embedding..];
                for (row, &token) in x.chunks_exact_mut(hidden).zip(&batch.tokens) {
                    row.copy_from_slice(&embedding[token as usize * hidden..][..hidden]);
                }
            }
            Parts::Bert(parts) => self.bert_embed(layout, parts, parameters, batch, &mut x),
            Parts::Other { .. } => return Err(Error::internal("this layout has no pass on the CPU")),
        }
        batch.drop(&mut x, 0, Part::Embedding);
        for i in 0..config.num_hidden_layers {
            let mut block = self.take_block(i);
            std::mem::swap(&mut block.x, &mut x);
            self.run_block(layout, i, parameters, batch, &mut block, &mut x);
            if self.gradient_checkpointing {
                std::mem::swap(&mut block.x, &mut self.inputs[i]);
            }
            self.put_block(i, block);
        }
        self.last = x;
        Ok(())
    }

    fn place_of(&self, layer: usize) -> usize {
        if self.gradient_checkpointing { 0 } else { layer }
    }

    fn take_block(&mut self, layer: usize) -> Activations {
        let place = self.place_of(layer);
        Activations { layer, ..std::mem::take(&mut self.blocks[place]) }
    }

    pub(super) fn put_block(&mut self, layer: usize, block: Activations) {
        let place = self.place_of(layer);
        self.blocks[place] = block;
    }

    /// The activations of a block, computed again where they were not kept.
    pub(super) fn recall_block(
        &mut self,
        layout: &Layout,
        layer: usize,
        parameters: &[f32],
        batch: &Batch,
    ) -> Activations {
        let mut block = self.take_block(layer);
        if self.gradient_checkpointing {
            std::mem::swap(&mut block.x, &mut self.inputs[layer]);
            let mut out = std::mem::take(&mut self.again);
            self.run_block(layout, layer, parameters, batch, &mut block, &mut out);
            self.again = out;
        }
        block
    }

    /// A block's activations and output out of what it reads.
    fn run_block(
        &mut self,
        layout: &Layout,
        layer: usize,
        parameters: &[f32],
        batch: &Batch,
        block: &mut Activations,
        out: &mut Vec<f32>,
    ) {
        match &layout.parts {
            Parts::Qwen2 { blocks, .. } => self.block(layout, blocks[layer], parameters, batch, block, out),
            Parts::Bert(parts) => {
                self.bert_block(layout, &parts.blocks[layer], parameters, batch, block, out);
            }
            // Refused before its first block.
            Parts::Other { .. } => {}
        }
    }

    /// How much memory its buffers hold, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().flat_map(Activations::buffers);
        let own = [
            &self.again,
            &self.last,
            &self.picked,
            &self.inverse,
            &self.normed,
            &self.logits,
            &self.dx,
            &self.dnormed,
            &self.dqkv,
            &self.dmixed,
            &self.dgated,
            &self.dscores,
            &self.dpicked,
        ];
        let all = blocks.chain(own).chain(&self.inputs);
        all.map(|buffer| buffer.capacity() * size_of::<f32>()).sum()
    }

    fn block(
        &mut self,
        layout: &Layout,
        at: Block,
        parameters: &[f32],
        batch: &Batch,
        a: &mut Activations,
        out: &mut Vec<f32>,
    ) {
        let config = &layout.config;
        let (hidden, inner, eps) = (config.hidden_size, config.intermediate_size, config.rms_norm_eps as f32);
        let (query, qkv_width) = (layout.query_width(), layout.qkv_width());
        let n = batch.tokens.len();
        let linear = Linear { parameters, n, adapter: batch.adapter.as_ref() };

        let (normed, inverse) = (room(&mut a.normed1, n * hidden), room(&mut a.inverse1, n));
        rms_norm(normed, inverse, &a.x, &parameters[at.input_norm..][..hidden], eps);
        let qkv = room(&mut a.qkv, n * qkv_width);
        linear.with_bias(qkv, (at.qkv, at.qkv_bias), [qkv_width, hidden], &a.normed1);
        let (qk, head) = (query + layout.key_width(), config.head_dim);
        self.rotate_all(qkv, &batch.trees, qkv_width, qk, head, 1.0);
        attention(layout, &batch.trees, a);
        batch.drop(&mut a.mixed, a.layer, Part::Mixed);

        let middle = room(&mut a.middle, n * hidden);
        middle.copy_from_slice(&a.x);
        linear.forward(middle, Into::Add, at.output, [hidden, query], &a.mixed);

        let (normed, inverse) = (room(&mut a.normed2, n * hidden), room(&mut a.inverse2, n));
        rms_norm(normed, inverse, &a.middle, &parameters[at.post_norm..][..hidden], eps);
        let gate_up = room(&mut a.gate_up, n * 2 * inner);
        linear.forward(gate_up, Into::Replace, at.gate_up, [2 * inner, hidden], &a.normed2);
        swiglu(room(&mut a.gated, n * inner), &a.gate_up, inner);
        batch.drop(&mut a.gated, a.layer, Part::Gated);

        let out = room(out, n * hidden);
        out.copy_from_slice(&a.middle);
        linear.forward(out, Into::Add, at.down, [hidden, inner], &a.gated);
    }

    /// The normed states of the rows that predict a target; the bias of the head, where it has one.
    pub(super) fn pick<'p>(
        &mut self,
        layout: &Layout,
        parameters: &'p [f32],
        batch: &Batch,
    ) -> Option<&'p [f32]> {
        let (hidden, vocab) = (layout.config.hidden_size, layout.config.vocab_size);
        let count = batch.targets.len();
        let picked = room(&mut self.picked, count * hidden);
        for (row, target) in picked.chunks_exact_mut(hidden).zip(&batch.targets) {
            row.copy_from_slice(&self.last[target.row * hidden..][..hidden]);
        }
        match &layout.parts {
            Parts::Qwen2 { .. } | Parts::Other { .. } => {
                let gain = &parameters[layout.final_norm()];
                let (normed, inverse) =
                    (room(&mut self.normed, count * hidden), room(&mut self.inverse, count));
                rms_norm(normed, inverse, &self.picked, gain, layout.config.rms_norm_eps as f32);
                None
            }
            Parts::Bert(parts) => {
                self.bert_head(layout, parts, parameters, count);
                Some(&parameters[parts.head_bias..][..vocab])
            }
        }
    }

    /// The head, at the rows that predict a target only.
    fn head(&mut self, layout: &Layout, parameters: &[f32], batch: &Batch) -> Losses {
        let (hidden, vocab) = (layout.config.hidden_size, layout.config.vocab_size);
        let count = batch.targets.len();
        let bias = self.pick(layout, parameters, batch);
        let logits = room(&mut self.logits, count * vocab);
        if let Some(bias) = bias {
            logits.chunks_exact_mut(vocab).for_each(|row| row.copy_from_slice(bias));
        }
        let how = if bias.is_some() { Into::Add } else { Into::Replace };
        let embedding = View::new(&parameters[layout.embedding..][..vocab * hidden], vocab, hidden);
        matmul(logits, vocab, how, 1.0, View::new(&self.normed, count, hidden), embedding.t());
        let mut losses = Losses::default();
        wide(
            #[inline(always)]
            || {
                let Some(choices) = &batch.choices else {
                    for (row, target) in logits.chunks_exact_mut(vocab).zip(&batch.targets) {
                        let own = row[target.token as usize];
                        losses.predicted.push(argmax(row) as u32);
                        losses.logprobs.push(own - softmax(row));
                    }
                    return;
                };
                let rows = logits.chunks_exact_mut(vocab).zip(&batch.targets).zip(&choices.allowed);
                for ((row, target), allowed) in rows {
                    let forbid = |row: &mut [f32], value: f32| {
                        if let Some(allowed) = allowed {
                            let forbidden = |id: usize| !allowed.contains(id as u32);
                            let all = row.iter_mut().enumerate();
                            all.filter(|(id, _)| forbidden(*id)).for_each(|(_, own)| *own = value);
                        }
                    };
                    for value in row.iter_mut() {
                        *value /= choices.temperature;
                    }
                    forbid(row, f32::MIN);
                    let own = row[target.token as usize];
                    losses.predicted.push(argmax(row) as u32);
                    losses.logprobs.push(own - softmax(row));
                    forbid(row, 0.0);
                    losses.entropies.push(entropy(row));
                }
            },
        );
        losses
    }
}

/// The entropy of a row of probabilities, in nats.
pub(super) fn entropy(row: &[f32]) -> f32 {
    -row.iter().filter(|p| **p > 0.0).map(|p| f64::from(*p) * f64::from(*p).ln()).sum::<f64>() as f32
}

/// Attention within each branch and its stem, head by head; keeps the probabilities.
pub(super) fn attention(layout: &Layout, trees: &[Tree], a: &mut Activations) {
    let config = &layout.config;
    let (head, width, query) = (config.head_dim, layout.qkv_width(), layout.query_width());
    let group = config.num_attention_heads / config.num_key_value_heads;
    let n: usize = trees.iter().map(Tree::len).sum();
    let scores = trees.iter().map(|tree| tree.len().pow(2)).sum::<usize>() * config.num_attention_heads;
    let (mixed, probabilities) = (room(&mut a.mixed, n * query), room(&mut a.attention, scores));
    let scale = 1.0 / (head as f32).sqrt();
    let (mut start, mut place) = (0, 0);
    for tree in trees {
        let length = tree.len();
        let rows = &a.qkv[start * width..][..length * width];
        for h in 0..config.num_attention_heads {
            let (key, value) = (query + h / group * head, query + layout.key_width() + h / group * head);
            let part = |at: usize| View::strided(&rows[at..], length, head, width);
            let p = &mut probabilities[place..][..length * length];
            place += length * length;
            matmul(p, length, Into::Replace, scale, part(h * head), part(key).t());
            wide(
                #[inline(always)]
                || {
                    for (row, (end, unseen)) in p.chunks_exact_mut(length).zip(tree.seen()) {
                        let (seen, future) = row.split_at_mut(end);
                        seen[unseen.clone()].fill(f32::MIN);
                        softmax(seen);
                        seen[unseen].fill(0.0);
                        future.fill(0.0);
                    }
                },
            );
            let out = &mut mixed[start * query + h * head..];
            matmul(out, query, Into::Replace, 1.0, View::new(p, length, length), part(value));
        }
        start += length;
    }
}

/// Sums the rows of `rows` into `out`, vectorised.
pub(super) fn sum_rows(out: &mut [f32], rows: &[f32]) {
    wide(
        #[inline(always)]
        || add_rows(out, rows),
    );
}
