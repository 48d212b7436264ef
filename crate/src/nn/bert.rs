//! What BERT (Devlin et al., 2019) is made of, whether it encodes sentences or writes: the sum of
//! three embeddings, and layers whose norms stand behind each residual sum.

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

use super::Values;
use super::decoder::{Parameter, ParameterKind, ParameterSpec};
use super::weight::{full_matrix, vector};
use crate::error::Result;
use crate::kernels::Kernels;

/// The numbers that say which parameters a body has.
pub(super) struct Sizes<'a> {
    /// What stands before each name.
    pub(super) prefix: &'a str,
    pub(super) tokens: usize,
    pub(super) places: usize,
    pub(super) segments: usize,
    pub(super) hidden: usize,
    pub(super) inner: usize,
    pub(super) layers: usize,
}

/// Every parameter of a body, in the order of [`BertBody::read`].
pub(super) fn parameters(sizes: &Sizes) -> Vec<ParameterSpec> {
    let Sizes { prefix, hidden, inner, .. } = *sizes;
    let mut all = Vec::new();
    for (name, rows) in [("word", sizes.tokens), ("position", sizes.places), ("token_type", sizes.segments)] {
        let name = format!("{prefix}embeddings.{name}_embeddings.weight");
        all.push(ParameterSpec::new(name, &[rows, hidden], ParameterKind::Embedding));
    }
    all.extend(norm_parameters(&format!("{prefix}embeddings.LayerNorm"), hidden));
    for layer in 0..sizes.layers {
        let name = |own: &str| format!("{prefix}encoder.layer.{layer}.{own}");
        for own in ["query", "key", "value"] {
            all.extend(dense_parameters(&name(&format!("attention.self.{own}")), hidden, hidden));
        }
        all.extend(dense_parameters(&name("attention.output.dense"), hidden, hidden));
        all.extend(norm_parameters(&name("attention.output.LayerNorm"), hidden));
        all.extend(dense_parameters(&name("intermediate.dense"), inner, hidden));
        all.extend(dense_parameters(&name("output.dense"), hidden, inner));
        all.extend(norm_parameters(&name("output.LayerNorm"), hidden));
    }
    all
}

/// A projection and its bias.
pub(super) fn dense_parameters(name: &str, output: usize, input: usize) -> [ParameterSpec; 2] {
    [
        ParameterSpec::new(format!("{name}.weight"), &[output, input], ParameterKind::Projection),
        ParameterSpec::new(format!("{name}.bias"), &[output], ParameterKind::Bias),
    ]
}

/// A layer norm's factors and what it adds.
pub(super) fn norm_parameters(name: &str, width: usize) -> [ParameterSpec; 2] {
    [
        ParameterSpec::new(format!("{name}.weight"), &[width], ParameterKind::Norm),
        ParameterSpec::new(format!("{name}.bias"), &[width], ParameterKind::Bias),
    ]
}

/// A weight and what is added behind it: a projection's matrix, or the factors of a layer norm.
#[derive(Module, Debug)]
pub struct Affine<B: Backend, const D: usize> {
    weight: Param<Tensor<B, D>>,
    bias: Param<Tensor<B, 1>>,
}

/// The next parameter and its values, in Hugging Face's layout.
type Next<'a, 'v> = &'a mut dyn FnMut() -> Result<(ParameterSpec, Values<'v>)>;

impl<B: Backend> Affine<B, 1> {
    /// A layer norm out of the next two parameters.
    pub(super) fn read(next: Next, device: &B::Device) -> Result<Self> {
        Ok(Self { weight: vector(next()?, device)?, bias: vector(next()?, device)? })
    }

    pub(super) fn parameters(&self) -> [Parameter<'_, B>; 2] {
        [Parameter::Vector(&self.weight), Parameter::Vector(&self.bias)]
    }
}

impl<B: Backend> Affine<B, 2> {
    /// A projection out of the next two parameters.
    pub(super) fn read(next: Next, device: &B::Device) -> Result<Self> {
        Ok(Self { weight: full_matrix(next()?, device)?, bias: vector(next()?, device)? })
    }

    pub(super) fn parameters(&self) -> [Parameter<'_, B>; 2] {
        [Parameter::Matrix(&self.weight), Parameter::Vector(&self.bias)]
    }
}

impl<B: Kernels> Affine<B, 1> {
    /// Each row of `x`, normed.
    pub(super) fn norm(&self, x: Tensor<B, 2>, epsilon: f64) -> Tensor<B, 2> {
        <B as Kernels>::layer_norm(x, self.weight.val(), self.bias.val(), epsilon)
    }
}

impl<B: Kernels> Affine<B, 2> {
    /// `x W + b`, `[rows, in]` to `[rows, out]`.
    pub(super) fn project(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        B::project(x, self.weight.val(), Some(self.bias.val()))
    }

    /// The same, `[batch · sequence, in]` split into heads: `[batch, heads, sequence, head_dim]`.
    pub(super) fn heads(&self, x: Tensor<B, 2>, batch: usize, heads: usize) -> Tensor<B, 4> {
        let x = self.project(x);
        let [rows, width] = x.dims();
        x.reshape([batch, rows / batch, heads, width / heads]).swap_dims(1, 2)
    }
}

/// One layer.
#[derive(Module, Debug)]
pub struct BertLayer<B: Backend> {
    pub(super) query: Affine<B, 2>,
    pub(super) key: Affine<B, 2>,
    pub(super) value: Affine<B, 2>,
    attention_output: Affine<B, 2>,
    attention_norm: Affine<B, 1>,
    intermediate: Affine<B, 2>,
    output: Affine<B, 2>,
    output_norm: Affine<B, 1>,
}

impl<B: Kernels> BertLayer<B> {
    /// What follows attention: its projection and the feed-forward part, each added to `x` and normed.
    ///
    /// # Shapes
    /// - x and output: `[batch · sequence, hidden]`
    /// - attended: `[batch, heads, sequence, head_dim]`
    pub(super) fn finish(&self, x: Tensor<B, 2>, attended: Tensor<B, 4>, epsilon: f64) -> Tensor<B, 2> {
        let attended = attended.swap_dims(1, 2).reshape(x.dims());
        let x = self.attention_norm.norm(x + self.attention_output.project(attended), epsilon);
        let inner = <B as Kernels>::gelu(self.intermediate.project(x.clone()));
        self.output_norm.norm(x + self.output.project(inner), epsilon)
    }
}

/// Embeddings and layers.
#[derive(Module, Debug)]
pub struct BertBody<B: Backend> {
    /// `[tokens, hidden]`
    pub(super) word_embeddings: Param<Tensor<B, 2>>,
    /// `[places, hidden]`
    position_embeddings: Param<Tensor<B, 2>>,
    /// `[segments, hidden]`; only the first is used.
    token_type_embeddings: Param<Tensor<B, 2>>,
    embedding_norm: Affine<B, 1>,
    /// First to last.
    pub(super) layers: Vec<BertLayer<B>>,
}

impl<B: Backend> BertBody<B> {
    /// A body out of the next parameters, in the order of [`parameters`].
    pub(super) fn read(layers: usize, next: Next, device: &B::Device) -> Result<Self> {
        let word_embeddings = full_matrix(next()?, device)?;
        let position_embeddings = full_matrix(next()?, device)?;
        let token_type_embeddings = full_matrix(next()?, device)?;
        let embedding_norm = Affine::<B, 1>::read(next, device)?;
        let mut layer = || {
            Ok(BertLayer {
                query: Affine::<B, 2>::read(next, device)?,
                key: Affine::<B, 2>::read(next, device)?,
                value: Affine::<B, 2>::read(next, device)?,
                attention_output: Affine::<B, 2>::read(next, device)?,
                attention_norm: Affine::<B, 1>::read(next, device)?,
                intermediate: Affine::<B, 2>::read(next, device)?,
                output: Affine::<B, 2>::read(next, device)?,
                output_norm: Affine::<B, 1>::read(next, device)?,
            })
        };
        let layers = (0..layers).map(|_| layer()).collect::<Result<_>>()?;
        Ok(Self { word_embeddings, position_embeddings, token_type_embeddings, embedding_norm, layers })
    }

    /// All parameters, in the order of [`parameters`].
    pub(super) fn parameters(&self) -> Vec<Parameter<'_, B>> {
        let tables = [&self.word_embeddings, &self.position_embeddings, &self.token_type_embeddings];
        let mut all: Vec<_> = tables.map(Parameter::Matrix).into();
        all.extend(self.embedding_norm.parameters());
        for layer in &self.layers {
            all.extend(
                [&layer.query, &layer.key, &layer.value].into_iter().flat_map(Affine::<B, 2>::parameters),
            );
            all.extend(layer.attention_output.parameters());
            all.extend(layer.attention_norm.parameters());
            all.extend(layer.intermediate.parameters());
            all.extend(layer.output.parameters());
            all.extend(layer.output_norm.parameters());
        }
        all
    }
}

/// Where the tokens that are read stand in their texts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Positions<'a> {
    /// All rows alike, from here on.
    From(usize),
    /// One token of each row, here.
    OfRows(&'a [usize]),
}

impl<B: Kernels> BertBody<B> {
    /// The normed sum of the rows of tokens, places and the first segment.
    ///
    /// # Shapes
    /// - tokens: `[batch, sequence]`; one a row where positions are of rows
    /// - output: `[batch · sequence, hidden]`
    pub(super) fn embed(
        &self,
        tokens: Tensor<B, 2, Int>,
        positions: Positions<'_>,
        epsilon: f64,
    ) -> Tensor<B, 2> {
        let [batch, length] = tokens.dims();
        let [_, hidden] = self.word_embeddings.dims();
        let words = self.word_embeddings.val().select(0, tokens.reshape([batch * length]));
        let segment = self.token_type_embeddings.val().narrow(0, 0, 1);
        let table = self.position_embeddings.val();
        let places = match positions {
            Positions::From(start) => table.narrow(0, start, length).unsqueeze::<3>(),
            Positions::OfRows(rows) => {
                // A row that is done may be carried along beyond the last place.
                let last = table.dims()[0] - 1;
                let rows: Vec<i32> = rows.iter().map(|row| (*row).min(last) as i32).collect();
                let rows = Tensor::<B, 1, Int>::from_data(rows.as_slice(), &table.device());
                table.select(0, rows).reshape([batch, 1, hidden])
            }
        };
        let x = words.reshape([batch, length, hidden]) + (places + segment.unsqueeze::<3>());
        self.embedding_norm.norm(x.reshape([batch * length, hidden]), epsilon)
    }
}
