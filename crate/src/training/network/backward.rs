//! From the targets' coefficients back to the gradient of every parameter.

use super::dropout::Part;
use super::forward::{Activations, Batch, Tree, Workspace, entropy, room, sum_rows};
use super::layout::{Block, Layout, Parts};
use super::linear::Linear;
use super::math::{Into, View, dot, matmul, rms_norm_backward, swiglu_backward, wide};

impl Workspace {
    /// Adds to `gradient` the gradient of `sum over targets of coefficient * -logprob`; must
    /// follow the `forward` of the same batch, once. With `weight / total` as coefficients that
    /// is the gradient of the mean loss; a policy's gradient has advantages in their place.
    pub fn backward(
        &mut self,
        layout: &Layout,
        parameters: &[f32],
        batch: &Batch,
        coefficients: &[f32],
        gradient: &mut [f32],
    ) {
        self.backward_policy(layout, parameters, batch, coefficients, &[], gradient);
    }

    /// The same of a batch with [`super::Choices`], with the gradient of `sum over targets of bonus *
    /// -entropy` added; without bonuses that is nothing.
    pub fn backward_policy(
        &mut self,
        layout: &Layout,
        parameters: &[f32],
        batch: &Batch,
        coefficients: &[f32],
        bonuses: &[f32],
        gradient: &mut [f32],
    ) {
        assert_eq!(coefficients.len(), batch.targets.len(), "a coefficient for each target");
        self.logit_slopes(layout, batch, coefficients, bonuses);
        self.head_backward(layout, parameters, batch, gradient);
        self.blocks_backward(layout, parameters, batch, gradient);
    }

    /// From the gradients of the picked rows to those of everything below.
    pub(super) fn blocks_backward(
        &mut self,
        layout: &Layout,
        parameters: &[f32],
        batch: &Batch,
        gradient: &mut [f32],
    ) {
        let n = batch.tokens.len();
        let hidden = layout.config.hidden_size;
        let mut dx = std::mem::take(&mut self.dx);
        let dx_rows = room(&mut dx, n * hidden);
        dx_rows.fill(0.0);
        for (row, target) in self.dpicked.chunks_exact(hidden).zip(&batch.targets) {
            let place = &mut dx_rows[target.row * hidden..][..hidden];
            place.iter_mut().zip(row).for_each(|(place, value)| *place += value);
        }
        for i in (0..layout.config.num_hidden_layers).rev() {
            let mut block = self.recall_block(layout, i, parameters, batch);
            match &layout.parts {
                Parts::Qwen2 { blocks, .. } => {
                    self.block_backward(layout, blocks[i], parameters, batch, &mut block, &mut dx, gradient);
                }
                Parts::Other { .. } => {}
                Parts::Bert(parts) => {
                    let at = &parts.blocks[i];
                    self.bert_block_backward(layout, at, parameters, batch, &mut block, &mut dx, gradient);
                }
            }
            self.put_block(i, block);
        }
        batch.drop(&mut dx, 0, Part::Embedding);
        match &layout.parts {
            Parts::Qwen2 { .. } | Parts::Other { .. } => {
                let embedding = &mut gradient[layout.embedding..];
                for (row, &token) in dx.chunks_exact(hidden).zip(&batch.tokens) {
                    let place = &mut embedding[token as usize * hidden..][..hidden];
                    place.iter_mut().zip(row).for_each(|(place, value)| *place += value);
                }
            }
            Parts::Bert(parts) => {
                self.bert_embed_backward(layout, parts, parameters, batch, &dx, gradient);
            }
        }
        self.dx = dx;
    }

    /// Turns the probabilities into the gradients of the logits.
    fn logit_slopes(&mut self, layout: &Layout, batch: &Batch, coefficients: &[f32], bonuses: &[f32]) {
        let vocab = layout.config.vocab_size;
        let temperature = batch.choices.as_ref().map_or(1.0, |choices| choices.temperature);
        let dlogits = &mut self.logits;
        wide(
            #[inline(always)]
            || {
                let bonuses = bonuses.iter().copied().chain(std::iter::repeat(0.0));
                let rows = dlogits.chunks_exact_mut(vocab).zip(&batch.targets).zip(coefficients).zip(bonuses);
                for (((row, target), &coefficient), bonus) in rows {
                    let coefficient = coefficient / temperature;
                    if bonus == 0.0 {
                        for value in row.iter_mut() {
                            *value *= coefficient;
                        }
                    } else {
                        let (own, bonus) = (entropy(row), bonus / temperature);
                        for value in row.iter_mut().filter(|value| **value > 0.0) {
                            *value *= coefficient + bonus * (value.ln() + own);
                        }
                    }
                    row[target.token as usize] -= coefficient;
                }
            },
        );
    }

    fn head_backward(&mut self, layout: &Layout, parameters: &[f32], batch: &Batch, gradient: &mut [f32]) {
        let (hidden, vocab) = (layout.config.hidden_size, layout.config.vocab_size);
        let count = batch.targets.len();
        let dlogits = &mut self.logits;
        if let Parts::Bert(parts) = &layout.parts {
            sum_rows(&mut gradient[parts.head_bias..][..vocab], dlogits);
        }
        let table = layout.embedding..layout.embedding + vocab * hidden;
        let dlogits = View::new(dlogits, count, vocab);
        let normed = View::new(&self.normed, count, hidden);
        matmul(&mut gradient[table.clone()], hidden, Into::Add, 1.0, dlogits.t(), normed);
        let dnormed = room(&mut self.dnormed, count * hidden);
        let embedding = View::new(&parameters[table], vocab, hidden);
        matmul(dnormed, hidden, Into::Replace, 1.0, dlogits, embedding);
        self.pick_backward(layout, parameters, count, gradient);
    }

    /// From the gradients of the normed rows to those of the picked ones.
    pub(super) fn pick_backward(
        &mut self,
        layout: &Layout,
        parameters: &[f32],
        count: usize,
        gradient: &mut [f32],
    ) {
        let hidden = layout.config.hidden_size;
        if let Parts::Bert(parts) = &layout.parts {
            self.bert_head_backward(layout, parts, parameters, count, gradient);
            return;
        }
        let dpicked = room(&mut self.dpicked, count * hidden);
        dpicked.fill(0.0);
        let gain = layout.final_norm();
        rms_norm_backward(
            dpicked,
            &mut gradient[gain.clone()],
            &self.dnormed,
            &self.picked,
            &parameters[gain],
            &self.inverse,
        );
    }

    #[allow(clippy::too_many_arguments)]
    fn block_backward(
        &mut self,
        layout: &Layout,
        at: Block,
        parameters: &[f32],
        batch: &Batch,
        a: &mut Activations,
        dx: &mut [f32],
        gradient: &mut [f32],
    ) {
        let config = &layout.config;
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (query, qkv_width) = (layout.query_width(), layout.qkv_width());
        let n = batch.tokens.len();
        let linear = Linear { parameters, n, adapter: batch.adapter.as_ref() };
        let dgated = room(&mut self.dgated, n * inner);
        linear.backward(gradient, at.down, [hidden, inner], dx, &a.gated, dgated);
        batch.drop(dgated, a.layer, Part::Gated);
        swiglu_backward(&mut a.gate_up, dgated, inner);
        let dnormed = room(&mut self.dnormed, n * hidden);
        linear.backward(gradient, at.gate_up, [2 * inner, hidden], &a.gate_up, &a.normed2, dnormed);
        let gain = at.post_norm..at.post_norm + hidden;
        rms_norm_backward(
            dx,
            &mut gradient[gain.clone()],
            &self.dnormed,
            &a.middle,
            &parameters[gain],
            &a.inverse2,
        );

        let dmixed = room(&mut self.dmixed, n * query);
        linear.backward(gradient, at.output, [hidden, query], dx, &a.mixed, dmixed);
        batch.drop(dmixed, a.layer, Part::Mixed);
        self.attention_backward(layout, &batch.trees, a);
        let mut dqkv = std::mem::take(&mut self.dqkv);
        let (qk, head) = (query + layout.key_width(), config.head_dim);
        self.rotate_all(&mut dqkv, &batch.trees, qkv_width, qk, head, -1.0);
        sum_rows(&mut gradient[at.qkv_bias..][..qkv_width], &dqkv);
        let dnormed = room(&mut self.dnormed, n * hidden);
        linear.backward(gradient, at.qkv, [qkv_width, hidden], &dqkv, &a.normed1, dnormed);
        self.dqkv = dqkv;
        let gain = at.input_norm..at.input_norm + hidden;
        rms_norm_backward(
            dx,
            &mut gradient[gain.clone()],
            &self.dnormed,
            &a.x,
            &parameters[gain],
            &a.inverse1,
        );
    }

    /// From `dmixed` to `dqkv`, whose queries and keys are still turned.
    pub(super) fn attention_backward(&mut self, layout: &Layout, trees: &[Tree], a: &Activations) {
        let config = &layout.config;
        let (head, width, query) = (config.head_dim, layout.qkv_width(), layout.query_width());
        let group = config.num_attention_heads / config.num_key_value_heads;
        let n: usize = trees.iter().map(Tree::len).sum();
        let scale = 1.0 / (head as f32).sqrt();
        let dqkv = room(&mut self.dqkv, n * width);
        dqkv.fill(0.0);
        let (mut start, mut place) = (0, 0);
        for tree in trees {
            let length = tree.len();
            let rows = &a.qkv[start * width..][..length * width];
            let drows = &mut dqkv[start * width..][..length * width];
            for h in 0..config.num_attention_heads {
                let (key, value) = (query + h / group * head, query + layout.key_width() + h / group * head);
                let part = |at: usize| View::strided(&rows[at..], length, head, width);
                let p = &a.attention[place..][..length * length];
                place += length * length;
                let dout = View::strided(&self.dmixed[start * query + h * head..], length, head, query);
                matmul(&mut drows[value..], width, Into::Add, 1.0, View::new(p, length, length).t(), dout);
                let ds = room(&mut self.dscores, length * length);
                matmul(ds, length, Into::Replace, 1.0, dout, part(value).t());
                wide(
                    #[inline(always)]
                    || {
                        // What a token does not see has the probability 0, and so no slope.
                        for (ds, p) in ds.chunks_exact_mut(length).zip(p.chunks_exact(length)) {
                            let mean = dot(ds, p);
                            ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = (*ds - mean) * p * scale);
                        }
                    },
                );
                let ds = View::new(ds, length, length);
                matmul(&mut drows[h * head..], width, Into::Add, 1.0, ds, part(key));
                matmul(&mut drows[key..], width, Into::Add, 1.0, ds.t(), part(h * head));
            }
            start += length;
        }
    }
}
