//! BERT's parts (Devlin et al., 2019), forwards and backwards: layer norm behind each residual sum,
//! a table of positions, GELU, and the head of its masked language model.

use super::dropout::Part;
use super::forward::{Activations, Batch, Tree, Workspace, attention, room, sum_rows};
use super::layout::{BertBlock, BertParts, Layout, Norm};
use super::linear::Linear;
use super::math::{gelu, gelu_backward, layer_norm, layer_norm_backward, wide};

/// Adds `from` to `to`, element by element.
fn add(to: &mut [f32], from: &[f32]) {
    wide(
        #[inline(always)]
        || to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
    );
}

/// Through a layer norm backwards: adds the gradients of its factors and summands, and writes that of
/// its input. `hat` and `inverse` are what it kept.
fn norm_backward(
    norm: Norm,
    parameters: &[f32],
    gradient: &mut [f32],
    dx: &mut [f32],
    dy: &[f32],
    (hat, inverse): (&[f32], &[f32]),
) {
    let width = hat.len() / inverse.len().max(1);
    let (gain, _) = norm.of(parameters, width);
    let (dgain, dbias) = norm.of_mut(gradient, width);
    layer_norm_backward(dx, dgain, dbias, dy, hat, gain, inverse);
}

impl Workspace {
    /// The rows of tokens, positions and the one segment, normed; into `x`.
    pub(super) fn bert_embed(
        &mut self,
        layout: &Layout,
        parts: &BertParts,
        parameters: &[f32],
        batch: &Batch,
        x: &mut Vec<f32>,
    ) {
        let hidden = layout.config.hidden_size;
        let n = batch.tokens.len();
        let sum = room(&mut self.dmixed, n * hidden);
        let segment = &parameters[parts.segment..][..hidden];
        let positions = batch.trees.iter().flat_map(Tree::positions);
        for ((row, &token), position) in sum.chunks_exact_mut(hidden).zip(&batch.tokens).zip(positions) {
            let word = &parameters[layout.embedding().start + token as usize * hidden..][..hidden];
            let place = &parameters[parts.positions + position * hidden..][..hidden];
            for i in 0..hidden {
                row[i] = word[i] + place[i] + segment[i];
            }
        }
        let (hat, inverse) = (room(&mut self.first_hat, n * hidden), room(&mut self.first_inverse, n));
        let norm = parts.norm.of(parameters, hidden);
        layer_norm(room(x, n * hidden), hat, inverse, &self.dmixed, norm, layout.config.rms_norm_eps as f32);
    }

    /// From the gradient of what [`Self::bert_embed`] gave to the tables.
    pub(super) fn bert_embed_backward(
        &mut self,
        layout: &Layout,
        parts: &BertParts,
        parameters: &[f32],
        batch: &Batch,
        dx: &[f32],
        gradient: &mut [f32],
    ) {
        let hidden = layout.config.hidden_size;
        let n = batch.tokens.len();
        let dsum = room(&mut self.dmixed, n * hidden);
        norm_backward(parts.norm, parameters, gradient, dsum, dx, (&self.first_hat, &self.first_inverse));
        sum_rows(&mut gradient[parts.segment..][..hidden], &self.dmixed);
        let positions = batch.trees.iter().flat_map(Tree::positions);
        for ((row, &token), position) in self.dmixed.chunks_exact(hidden).zip(&batch.tokens).zip(positions) {
            for start in
                [layout.embedding().start + token as usize * hidden, parts.positions + position * hidden]
            {
                gradient[start..][..hidden].iter_mut().zip(row).for_each(|(sum, own)| *sum += own);
            }
        }
    }

    pub(super) fn bert_block(
        &mut self,
        layout: &Layout,
        at: &BertBlock,
        parameters: &[f32],
        batch: &Batch,
        a: &mut Activations,
        out: &mut Vec<f32>,
    ) {
        let config = &layout.config;
        let (hidden, inner, eps) = (config.hidden_size, config.intermediate_size, config.rms_norm_eps as f32);
        let n = batch.tokens.len();
        let linear = Linear { parameters, n, adapter: batch.adapter.as_ref() };
        let qkv = room(&mut a.qkv, n * 3 * hidden);
        linear.with_bias(qkv, (at.qkv, at.qkv_bias), [3 * hidden, hidden], &a.x);
        attention(layout, &batch.trees, a);
        batch.drop(&mut a.mixed, a.layer, Part::Mixed);
        let sum = room(&mut self.dmixed, n * hidden);
        linear.with_bias(sum, (at.output, at.output_bias), [hidden, hidden], &a.mixed);
        add(sum, &a.x);
        let (hat, inverse) = (room(&mut a.normed1, n * hidden), room(&mut a.inverse1, n));
        layer_norm(room(&mut a.middle, n * hidden), hat, inverse, sum, at.norm1.of(parameters, hidden), eps);

        let wide_rows = room(&mut a.gate_up, n * inner);
        linear.with_bias(wide_rows, (at.up, at.up_bias), [inner, hidden], &a.middle);
        gelu(room(&mut a.gated, n * inner), wide_rows);
        batch.drop(&mut a.gated, a.layer, Part::Gated);
        let sum = room(&mut self.dmixed, n * hidden);
        linear.with_bias(sum, (at.down, at.down_bias), [hidden, inner], &a.gated);
        add(sum, &a.middle);
        let (hat, inverse) = (room(&mut a.normed2, n * hidden), room(&mut a.inverse2, n));
        layer_norm(room(out, n * hidden), hat, inverse, sum, at.norm2.of(parameters, hidden), eps);
    }

    /// Replaces `dx`, the gradient of the block's output, by that of its input.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn bert_block_backward(
        &mut self,
        layout: &Layout,
        at: &BertBlock,
        parameters: &[f32],
        batch: &Batch,
        a: &mut Activations,
        dx: &mut [f32],
        gradient: &mut [f32],
    ) {
        let config = &layout.config;
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let n = batch.tokens.len();
        let linear = Linear { parameters, n, adapter: batch.adapter.as_ref() };
        // Through the second norm, the feed-forward part, and the sum with what it read.
        let dsum = room(&mut self.dnormed, n * hidden);
        norm_backward(at.norm2, parameters, gradient, dsum, dx, (&a.normed2, &a.inverse2));
        sum_rows(&mut gradient[at.down_bias..][..hidden], dsum);
        let dgated = room(&mut self.dgated, n * inner);
        linear.backward(gradient, at.down, [hidden, inner], dsum, &a.gated, dgated);
        batch.drop(dgated, a.layer, Part::Gated);
        gelu_backward(dgated, &a.gate_up);
        sum_rows(&mut gradient[at.up_bias..][..inner], dgated);
        linear.backward(gradient, at.up, [inner, hidden], dgated, &a.middle, dx);
        add(dx, &self.dnormed);
        // The same of attention.
        let dsum = room(&mut self.dnormed, n * hidden);
        norm_backward(at.norm1, parameters, gradient, dsum, dx, (&a.normed1, &a.inverse1));
        sum_rows(&mut gradient[at.output_bias..][..hidden], dsum);
        let dmixed = room(&mut self.dmixed, n * hidden);
        linear.backward(gradient, at.output, [hidden, hidden], &self.dnormed, &a.mixed, dmixed);
        batch.drop(dmixed, a.layer, Part::Mixed);
        self.attention_backward(layout, &batch.trees, a);
        sum_rows(&mut gradient[at.qkv_bias..][..3 * hidden], &self.dqkv);
        linear.backward(gradient, at.qkv, [3 * hidden, hidden], &self.dqkv, &a.x, dx);
        add(dx, &self.dnormed);
    }

    /// What the head makes of the picked rows before their product with the embedding.
    pub(super) fn bert_head(&mut self, layout: &Layout, parts: &BertParts, parameters: &[f32], count: usize) {
        let hidden = layout.config.hidden_size;
        let before = room(&mut self.head_before, count * hidden);
        let linear = Linear { parameters, n: count, adapter: None };
        let weight = (parts.transform, parts.transform_bias);
        linear.with_bias(before, weight, [hidden, hidden], &self.picked);
        gelu(room(&mut self.dpicked, count * hidden), before);
        let (hat, inverse) = (room(&mut self.head_hat, count * hidden), room(&mut self.inverse, count));
        let (norm, eps) = (parts.transform_norm.of(parameters, hidden), layout.config.rms_norm_eps as f32);
        layer_norm(room(&mut self.normed, count * hidden), hat, inverse, &self.dpicked, norm, eps);
    }

    /// From `dnormed` to `dpicked`.
    pub(super) fn bert_head_backward(
        &mut self,
        layout: &Layout,
        parts: &BertParts,
        parameters: &[f32],
        count: usize,
        gradient: &mut [f32],
    ) {
        let hidden = layout.config.hidden_size;
        let dafter = room(&mut self.dmixed, count * hidden);
        norm_backward(
            parts.transform_norm,
            parameters,
            gradient,
            dafter,
            &self.dnormed,
            (&self.head_hat, &self.inverse),
        );
        gelu_backward(dafter, &self.head_before);
        sum_rows(&mut gradient[parts.transform_bias..][..hidden], dafter);
        let dpicked = room(&mut self.dpicked, count * hidden);
        let linear = Linear { parameters, n: count, adapter: None };
        linear.backward(gradient, parts.transform, [hidden, hidden], &self.dmixed, &self.picked, dpicked);
    }
}
