//! The same network on a burn device, by automatic differentiation of the decoder that serves users.
//!
//! The weights and the optimiser's memory stay with the trainer, in 32 bits; the device has a copy for as long as the
//! passes last, in 16 bits where asked, and gives back the sum of their gradients (the division of ZeRO-Offload; Ren et
//! al., 2021). Each layer is differentiated by itself, so that with checkpointing (Chen et al., 2016) the activations of
//! one layer are in memory at a time, whatever burn's own strategy for single operations is.

mod head;
mod sums;
#[cfg(test)]
mod tests;
mod trees;

use burn::backend::Autodiff;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{FloatDType, IndexingUpdateOp, Int, Tensor, TensorData};
use futures_lite::future::block_on;

use self::head::{pieces, score};
use self::sums::Sums;
use self::trees::Trees;
use super::dropout::Part;
use super::forward::{Batch, Losses};
use super::layout::Layout;
use super::pass::{Learns, Network, Pass, learns_no_head, learns_nothing};
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::nn::{Decoder, Parameter, read_back};

/// The gradients of one backward half.
type Gradients<B> = <Autodiff<B> as AutodiffBackend>::Gradients;

/// A device that computes passes.
#[derive(Clone, Debug)]
pub struct DeviceNetwork<B: Kernels> {
    /// Which.
    pub device: B::Device,
    /// Multiply in bfloat16; norms, softmax, the residual stream and losses stay in 32 bits.
    pub bf16: bool,
    /// Keep of every layer what it reads only.
    pub gradient_checkpointing: bool,
}

impl<B: Kernels> Network for DeviceNetwork<B> {
    fn pass<'a>(
        &'a mut self,
        layout: &'a Layout,
        parameters: &'a [f32],
        learns: Learns<'a>,
    ) -> Result<Box<dyn Pass + 'a>> {
        Ok(Box::new(self.passes(layout, parameters, learns)?))
    }
}

impl<B: Kernels> DeviceNetwork<B> {
    fn passes<'a>(
        &'a self,
        layout: &'a Layout,
        parameters: &[f32],
        learns: Learns<'a>,
    ) -> Result<DevicePass<'a, B>> {
        let mut decoder = Decoder::<Autodiff<B>>::from_parameters(&layout.config, &self.device, |spec| {
            let tensor = layout.tensors.iter().find(|tensor| tensor.name == spec.name);
            let tensor = tensor.ok_or_else(|| Error::internal(format!("{} is not trained", spec.name)))?;
            Ok(parameters[tensor.range()].to_vec().into())
        })?;
        if self.bf16 {
            decoder = decoder.map(&mut Narrow);
        }
        let still = decoder.clone().no_grad();
        let sums = Sums::new(layout, &layout.config.parameters(), &learns, &self.device)?;
        Ok(DevicePass {
            own: self,
            layout,
            learns,
            decoder,
            still,
            sums,
            head_sum: Vec::new(),
            trees: None,
            layers: Vec::new(),
            last: None,
        })
    }
}

/// Matrices in bfloat16.
struct Narrow;

impl<B: AutodiffBackend> ModuleMapper<B> for Narrow {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let tensor = if D == 2 {
            Tensor::from_inner(tensor.inner().cast(FloatDType::BF16)).require_grad()
        } else {
            tensor
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}

/// A layer of the last forward half.
struct LayerRun<B: Kernels> {
    /// What it read.
    input: Tensor<Autodiff<B>, 2>,
    /// What it wrote, with its history, where that was kept.
    output: Option<Tensor<Autodiff<B>, 2>>,
}

struct DevicePass<'a, B: Kernels> {
    own: &'a DeviceNetwork<B>,
    layout: &'a Layout,
    learns: Learns<'a>,
    /// The weights, tracked.
    decoder: Decoder<Autodiff<B>>,
    /// The same ones, not tracked.
    still: Decoder<Autodiff<B>>,
    sums: Sums<B>,
    /// A value head's.
    head_sum: Vec<f32>,
    trees: Option<Trees<Autodiff<B>>>,
    layers: Vec<LayerRun<B>>,
    /// What the last layer wrote.
    last: Option<Tensor<B, 2>>,
}

impl<B: Kernels> DevicePass<'_, B> {
    fn ids(&self, values: impl Iterator<Item = usize>) -> Tensor<B, 1, Int> {
        let values: Vec<i32> = values.map(|value| value as i32).collect();
        let count = values.len();
        Tensor::from_data(TensorData::new(values, [count]), &self.own.device)
    }

    fn floats(&self, values: &[f32]) -> Tensor<Autodiff<B>, 1> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &self.own.device)
    }

    /// Drops of an activation, the same values whenever it is asked.
    fn drop(
        &self,
        batch: &Batch,
        layer: usize,
        part: Part,
        x: Tensor<Autodiff<B>, 2>,
    ) -> Tensor<Autodiff<B>, 2> {
        if batch.dropout.is_none() {
            return x;
        }
        let shape = x.dims();
        let mut kept = vec![1.0; shape[0] * shape[1]];
        batch.drop(&mut kept, layer, part);
        x * Tensor::from_data(TensorData::new(kept, shape), &self.own.device)
    }

    /// The vectors of a batch's tokens.
    fn embed(&self, decoder: &Decoder<Autodiff<B>>, batch: &Batch) -> Tensor<Autodiff<B>, 2> {
        let ids = self.ids(batch.tokens.iter().map(|token| *token as usize));
        let x = decoder.embed(Tensor::from_inner(ids).unsqueeze::<2>()).cast(FloatDType::F32);
        self.drop(batch, 0, Part::Embedding, x)
    }

    fn layer(
        &self,
        decoder: &Decoder<Autodiff<B>>,
        place: usize,
        batch: &Batch,
        trees: &Trees<Autodiff<B>>,
        x: Tensor<Autodiff<B>, 2>,
    ) -> Tensor<Autodiff<B>, 2> {
        let (layer, config) = (&decoder.layers[place], &self.layout.config);
        let projected = layer.project(layer.norm_input(x.clone(), config), 1, config);
        let attended = trees.attend(projected);
        let mixed = |x| self.drop(batch, place, Part::Mixed, x);
        let gated = |x| self.drop(batch, place, Part::Gated, x);
        layer.finish_with(x, attended, config, mixed, gated)
    }

    /// The states of all rows behind the last layer.
    fn run_layers(&mut self, batch: &Batch) -> Result<Tensor<B, 2>> {
        batch.check(self.layout)?;
        if batch.adapter.is_some() {
            return Err(Error::internal("a device drops nothing of what an adapter reads"));
        }
        // The histories of the last batch go before this one's come.
        self.layers.clear();
        let trees = Trees::new(&self.layout.config, batch, self.own.bf16, &self.own.device);
        let learns = !matches!(self.learns, Learns::Nothing);
        let keep = learns && !self.own.gradient_checkpointing;
        let mut layers = Vec::new();
        let mut x = self.embed(&self.still, batch).inner();
        for place in 0..self.layout.config.num_hidden_layers {
            let input = Tensor::from_inner(x);
            let run = if keep {
                let input = input.require_grad();
                let output = self.layer(&self.decoder, place, batch, &trees, input.clone());
                x = output.clone().inner();
                LayerRun { input, output: Some(output) }
            } else {
                x = self.layer(&self.still, place, batch, &trees, input.clone()).inner();
                LayerRun { input, output: None }
            };
            if learns {
                layers.push(run);
            }
        }
        (self.trees, self.layers) = (Some(trees), layers);
        self.last = Some(x.clone());
        Ok(x)
    }

    fn target_rows(&self, batch: &Batch) -> Tensor<B, 1, Int> {
        self.ids(batch.targets.iter().map(|target| target.row))
    }

    /// The rows of the last layer that predict a target.
    fn picked(&self, batch: &Batch) -> Result<Tensor<B, 2>> {
        let last =
            self.last.clone().ok_or_else(|| Error::internal("a backward half without a forward half"))?;
        Ok(last.select(0, self.target_rows(batch)))
    }

    /// The place of the norm before the head among the parameters.
    fn norm_place(&self) -> usize {
        self.layout.config.parameters().len() - 1 - usize::from(self.decoder.lm_head.is_some())
    }

    /// The weights, tracked where the norm before the head, and the head, learn.
    fn head_decoder(&self) -> Decoder<Autodiff<B>> {
        if self.sums.keeps(self.norm_place()) { self.decoder.clone() } else { self.still.clone() }
    }

    /// Adds what those two have in these gradients.
    fn add_head(&mut self, decoder: &Decoder<Autodiff<B>>, gradients: &Gradients<B>) {
        let norm = self.norm_place();
        if !self.sums.keeps(norm) {
            return;
        }
        self.sums.add(norm, &Parameter::Vector(&decoder.norm), gradients);
        match &decoder.lm_head {
            Some(head) => self.sums.add(norm + 1, &Parameter::Weight(head), gradients),
            None => self.sums.add(0, &Parameter::Weight(&decoder.embed_tokens), gradients),
        }
    }

    /// From the gradient of the picked rows to those of everything below.
    fn layers_backward(&mut self, batch: &Batch, dpicked: Tensor<B, 2>) -> Result<()> {
        let trees = self.trees.take().ok_or_else(learns_nothing)?;
        let shape = [batch.tokens.len(), self.layout.config.hidden_size];
        let mut dx = Tensor::<B, 2>::zeros(shape, &self.own.device).select_assign(
            0,
            self.target_rows(batch),
            dpicked,
            IndexingUpdateOp::Add,
        );
        let decoder = self.decoder.clone();
        let mut end = self.norm_place();
        for place in (0..decoder.layers.len()).rev() {
            let LayerRun { input, output } = self.layers.pop().ok_or_else(learns_nothing)?;
            let (input, output) = if let Some(output) = output {
                (input, output)
            } else {
                let input = input.require_grad();
                let output = self.layer(&decoder, place, batch, &trees, input.clone());
                (input, output)
            };
            let gradients = (output * Tensor::from_inner(dx)).sum().backward();
            let parameters = decoder.layers[place].parameters();
            let first = end - parameters.len();
            for (own, parameter) in (first..end).zip(&parameters) {
                self.sums.add(own, parameter, &gradients);
            }
            end = first;
            dx = input.grad(&gradients).ok_or_else(|| Error::internal("a layer without a gradient"))?;
        }
        if self.sums.keeps(0) {
            let gradients = (self.embed(&decoder, batch) * Tensor::from_inner(dx)).sum().backward();
            self.sums.add(0, &Parameter::Weight(&decoder.embed_tokens), &gradients);
        }
        Ok(())
    }

    /// The values of picked rows, `[targets]`.
    fn values(
        decoder: &Decoder<Autodiff<B>>,
        rows: Tensor<Autodiff<B>, 2>,
        head: Tensor<Autodiff<B>, 1>,
    ) -> Tensor<Autodiff<B>, 1> {
        let [count, hidden] = rows.dims();
        let weights = head.clone().narrow(0, 0, hidden).reshape([hidden, 1]);
        let values = decoder.norm_output(rows).matmul(weights).reshape([count]);
        values + head.narrow(0, hidden, 1)
    }

    fn check_head(&self, head: &[f32]) -> Result<()> {
        if head.len() == self.layout.config.hidden_size + 1 {
            Ok(())
        } else {
            Err(Error::internal("a value head is as wide as the network and has a bias"))
        }
    }
}

impl<B: Kernels> Pass for DevicePass<'_, B> {
    fn forward(&mut self, batch: &Batch) -> Result<Losses> {
        self.run_layers(batch)?;
        let (picked, mut losses) = (self.picked(batch)?, Losses::default());
        for piece in pieces(batch, self.layout.config.vocab_size) {
            let rows = Tensor::from_inner(picked.clone().slice([piece.clone()]));
            let scores = score(&self.still, rows, batch, piece);
            let predicted = block_on(scores.predicted.into_data_async());
            let predicted = predicted.map_err(|cause| Error::internal(format!("{cause:?}")))?;
            losses.predicted.extend(predicted.iter::<i64>().map(|id| id as u32));
            losses.logprobs.extend(block_on(read_back(scores.logprobs))?);
            if batch.choices.is_some() {
                losses.entropies.extend(block_on(read_back(scores.entropies))?);
            }
        }
        Ok(losses)
    }

    fn backward(&mut self, batch: &Batch, coefficients: &[f32], bonuses: &[f32]) -> Result<()> {
        assert_eq!(coefficients.len(), batch.targets.len(), "a coefficient for each target");
        let (picked, mut dpicked) = (self.picked(batch)?, Vec::new());
        let decoder = self.head_decoder();
        for piece in pieces(batch, self.layout.config.vocab_size) {
            let rows = Tensor::<Autodiff<B>, 2>::from_inner(picked.clone().slice([piece.clone()]));
            let rows = rows.require_grad();
            let scores = score(&decoder, rows.clone(), batch, piece.clone());
            let mut gain = scores.logprobs * self.floats(&coefficients[piece.clone()]);
            if !bonuses.is_empty() {
                gain = gain + scores.entropies * self.floats(&bonuses[piece]);
            }
            let gradients = gain.sum().neg().backward();
            self.add_head(&decoder, &gradients);
            let own = rows.grad(&gradients).ok_or_else(|| Error::internal("a head without a gradient"))?;
            dpicked.push(own);
        }
        if dpicked.is_empty() {
            return Ok(());
        }
        self.layers_backward(batch, Tensor::cat(dpicked, 0))
    }

    fn forward_values(&mut self, head: &[f32], batch: &Batch) -> Result<Vec<f32>> {
        self.check_head(head)?;
        self.run_layers(batch)?;
        if batch.targets.is_empty() {
            return Ok(Vec::new());
        }
        let rows = Tensor::from_inner(self.picked(batch)?);
        block_on(read_back(Self::values(&self.still, rows, self.floats(head))))
    }

    fn backward_values(&mut self, head: &[f32], batch: &Batch, slopes: &[f32]) -> Result<()> {
        self.check_head(head)?;
        if !matches!(self.learns, Learns::Weights(_)) {
            return Err(learns_no_head());
        }
        if batch.targets.is_empty() {
            return Ok(());
        }
        let rows = Tensor::<Autodiff<B>, 2>::from_inner(self.picked(batch)?).require_grad();
        let weights = self.floats(head).require_grad();
        let decoder = self.decoder.clone();
        let values = Self::values(&decoder, rows.clone(), weights.clone());
        let gradients = (values * self.floats(slopes)).sum().backward();
        self.add_head(&decoder, &gradients);
        let missing = || Error::internal("a value head without a gradient");
        let own = block_on(read_back(weights.grad(&gradients).ok_or_else(missing)?))?;
        self.head_sum.resize(own.len(), 0.0);
        self.head_sum.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        self.layers_backward(batch, rows.grad(&gradients).ok_or_else(missing)?)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        match self.learns {
            Learns::Nothing => Ok(()),
            Learns::Adapter(_, gradient) => self.sums.read(gradient),
            Learns::Weights(gradient) => {
                let (network, of_head) = gradient.split_at_mut(self.layout.len());
                of_head.iter_mut().zip(self.head_sum).for_each(|(sum, own)| *sum += own);
                self.sums.read(network)
            }
        }
    }
}
