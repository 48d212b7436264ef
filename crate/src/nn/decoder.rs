//! The decoder: RMS norm, rotary embedding, grouped-query attention, SwiGLU. Families differ in
//! a few parameters ([`super::Family`]).

use burn::module::{Module, Param, ParamId};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

use super::weight::vector;
use super::{DecoderConfig, Family, KvCache, Rotary, Values, Weight, prefix_decoder, read_back};
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::random::{Random, keyed};

/// A decoder language model.
#[derive(Module, Debug)]
pub struct Decoder<B: Backend> {
    /// `[vocab_size, hidden_size]`
    pub embed_tokens: Weight<B>,
    /// The layers, first to last.
    pub layers: Vec<DecoderLayer<B>>,
    /// The last norm's weight, `[hidden_size]`
    pub norm: Param<Tensor<B, 1>>,
    /// `[vocab_size, hidden_size]`; none where the embedding is the head.
    pub lm_head: Option<Weight<B>>,
    #[module(skip)]
    config: DecoderConfig,
}

/// One layer; what a family has not is none. A projection's weight is `[in, out]`, Hugging Face's transposed.
#[derive(Module, Debug)]
pub struct DecoderLayer<B: Backend> {
    /// The norm before attention, `[hidden_size]`
    pub input_layernorm: Param<Tensor<B, 1>>,
    /// `[hidden_size, heads · head_dim]`
    pub q_proj: Weight<B>,
    /// `[heads · head_dim]`
    pub q_bias: Option<Param<Tensor<B, 1>>>,
    /// `[hidden_size, kv_heads · head_dim]`
    pub k_proj: Weight<B>,
    /// `[kv_heads · head_dim]`
    pub k_bias: Option<Param<Tensor<B, 1>>>,
    /// `[hidden_size, kv_heads · head_dim]`
    pub v_proj: Weight<B>,
    /// `[kv_heads · head_dim]`
    pub v_bias: Option<Param<Tensor<B, 1>>>,
    /// The norm of each head's query, `[head_dim]`
    pub q_norm: Option<Param<Tensor<B, 1>>>,
    /// The norm of each head's key, `[head_dim]`
    pub k_norm: Option<Param<Tensor<B, 1>>>,
    /// `[heads · head_dim, hidden_size]`
    pub o_proj: Weight<B>,
    /// The norm before the feed-forward part, `[hidden_size]`
    pub post_attention_layernorm: Param<Tensor<B, 1>>,
    /// `[hidden_size, intermediate_size]`
    pub gate_proj: Weight<B>,
    /// `[hidden_size, intermediate_size]`
    pub up_proj: Weight<B>,
    /// `[intermediate_size, hidden_size]`
    pub down_proj: Weight<B>,
}

/// What a parameter is, which says how it starts and how it lies in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// A table that lies as it is used.
    Embedding,
    /// A projection, `[out, in]` in a checkpoint.
    Projection,
    /// A projection back into the residual stream.
    ResidualProjection,
    /// An added vector.
    Bias,
    /// A norm's factors.
    Norm,
}

/// One parameter under Hugging Face's name and shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Such as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// As in a checkpoint.
    pub shape: Vec<usize>,
    /// What it is.
    pub kind: ParameterKind,
}

impl ParameterSpec {
    pub(super) fn new(name: impl Into<String>, shape: &[usize], kind: ParameterKind) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), kind }
    }

    /// The same in every process, so that an optimizer's state finds its parameter again.
    pub(super) fn id(&self) -> ParamId {
        let letters: Vec<u64> = self.name.bytes().map(u64::from).collect();
        ParamId::from(keyed(0, &letters))
    }

    pub(crate) fn is_transposed(&self) -> bool {
        matches!(self.kind, ParameterKind::Projection | ParameterKind::ResidualProjection)
    }
}

impl DecoderConfig {
    /// Every parameter, in the order in which a decoder is built.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        if self.family == Family::Bert { prefix_decoder::parameters(self) } else { self.causal_parameters() }
    }

    fn causal_parameters(&self) -> Vec<ParameterSpec> {
        use ParameterKind::{Bias, Embedding, Norm, Projection, ResidualProjection};
        let hidden = self.hidden_size;
        let (heads, kv) =
            (self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim);
        let intermediate = self.intermediate_size;
        let mut all =
            vec![ParameterSpec::new("model.embed_tokens.weight", &[self.vocab_size, hidden], Embedding)];
        for layer in 0..self.num_hidden_layers {
            let mut add = |name: &str, shape: &[usize], kind| {
                all.push(ParameterSpec::new(format!("model.layers.{layer}.{name}"), shape, kind));
            };
            add("input_layernorm.weight", &[hidden], Norm);
            for (name, width) in [("q", heads), ("k", kv), ("v", kv)] {
                add(&format!("self_attn.{name}_proj.weight"), &[width, hidden], Projection);
                if self.family.has_biases() {
                    add(&format!("self_attn.{name}_proj.bias"), &[width], Bias);
                }
            }
            if self.family.has_head_norms() {
                add("self_attn.q_norm.weight", &[self.head_dim], Norm);
                add("self_attn.k_norm.weight", &[self.head_dim], Norm);
            }
            add("self_attn.o_proj.weight", &[hidden, heads], ResidualProjection);
            add("post_attention_layernorm.weight", &[hidden], Norm);
            add("mlp.gate_proj.weight", &[intermediate, hidden], Projection);
            add("mlp.up_proj.weight", &[intermediate, hidden], Projection);
            add("mlp.down_proj.weight", &[hidden, intermediate], ResidualProjection);
        }
        all.push(ParameterSpec::new("model.norm.weight", &[hidden], Norm));
        if !self.tie_word_embeddings {
            all.push(ParameterSpec::new("lm_head.weight", &[self.vocab_size, hidden], Embedding));
        }
        all
    }

    /// A decoder of any family but BERT with fresh weights: normal with `initializer_range`,
    /// projections into the residual stream divided by `sqrt(2 · layers)`, biases 0, norms 1.
    pub fn init<B: Kernels>(&self, seed: u64, device: &B::Device) -> Decoder<B> {
        match Decoder::from_parameters(self, device, self.fresh(seed)) {
            Ok(decoder) => decoder,
            Err(error) => panic!("fresh weights cannot be missing: {error}"),
        }
    }

    /// The fresh weights of one parameter after the other.
    pub(super) fn fresh(&self, seed: u64) -> impl FnMut(&ParameterSpec) -> Result<Values<'static>> {
        let residual = 1.0 / (2.0 * self.num_hidden_layers as f64).sqrt();
        let mut place = 0;
        move |spec| {
            place += 1;
            let size = spec.shape.iter().product();
            let deviation = match spec.kind {
                ParameterKind::Bias => return Ok(vec![0.0; size].into()),
                ParameterKind::Norm => return Ok(vec![1.0; size].into()),
                ParameterKind::Embedding | ParameterKind::Projection => self.initializer_range,
                ParameterKind::ResidualProjection => self.initializer_range * residual,
            };
            let mut random = Random::new(seed, &[place]);
            Ok(Values::Full((0..size).map(|_| (random.normal() * deviation) as f32).collect()))
        }
    }
}

impl<B: Kernels> Decoder<B> {
    /// Builds a decoder out of values in Hugging Face's layout; `values` is asked once for each
    /// of [`DecoderConfig::parameters`], in order.
    pub fn from_parameters<'a>(
        config: &DecoderConfig,
        device: &B::Device,
        mut values: impl FnMut(&ParameterSpec) -> Result<Values<'a>>,
    ) -> Result<Self> {
        config.validate()?;
        if config.family == Family::Bert {
            return Err(Error::internal("BERT is no causal decoder"));
        }
        let mut specs = config.parameters().into_iter();
        let mut next = || {
            let spec = specs.next().unwrap_or_else(|| unreachable!("a decoder has these parameters"));
            values(&spec).map(|values| (spec, values))
        };
        let (biases, head_norms) = (config.family.has_biases(), config.family.has_head_norms());
        let embed_tokens = Weight::new(next()?, device)?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for _ in 0..config.num_hidden_layers {
            let input_layernorm = vector(next()?, device)?;
            let mut projection = || {
                let weight = Weight::new(next()?, device)?;
                let bias = if biases { Some(vector(next()?, device)?) } else { None };
                Ok::<_, Error>((weight, bias))
            };
            let ((q_proj, q_bias), (k_proj, k_bias)) = (projection()?, projection()?);
            let (v_proj, v_bias) = projection()?;
            let (q_norm, k_norm) = if head_norms {
                (Some(vector(next()?, device)?), Some(vector(next()?, device)?))
            } else {
                (None, None)
            };
            layers.push(DecoderLayer {
                input_layernorm,
                q_proj,
                q_bias,
                k_proj,
                k_bias,
                v_proj,
                v_bias,
                q_norm,
                k_norm,
                o_proj: Weight::new(next()?, device)?,
                post_attention_layernorm: vector(next()?, device)?,
                gate_proj: Weight::new(next()?, device)?,
                up_proj: Weight::new(next()?, device)?,
                down_proj: Weight::new(next()?, device)?,
            });
        }
        let norm = vector(next()?, device)?;
        let lm_head = if config.tie_word_embeddings { None } else { Some(Weight::new(next()?, device)?) };
        Ok(Self { embed_tokens, layers, norm, lm_head, config: config.clone() })
    }

    /// The parameters with their values in Hugging Face's layout, in order.
    pub async fn to_parameters(&self) -> Result<Vec<(ParameterSpec, Vec<f32>)>> {
        let mut tensors = vec![Parameter::Weight(&self.embed_tokens)];
        tensors.extend(self.layers.iter().flat_map(DecoderLayer::parameters));
        tensors.push(Parameter::Vector(&self.norm));
        tensors.extend(self.lm_head.as_ref().map(Parameter::Weight));
        read_parameters(self.config.parameters(), tensors).await
    }

    /// How many bytes of weights each token is multiplied with: all but a table that is only looked up.
    pub fn multiplied_bytes(&self) -> u64 {
        let head = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
        let layers = self.layers.iter().flat_map(|layer| {
            [&layer.q_proj, &layer.k_proj, &layer.v_proj, &layer.o_proj, &layer.gate_proj, &layer.up_proj]
                .into_iter()
                .chain([&layer.down_proj])
        });
        let matrices: u64 = layers.chain([head]).map(|weight| weight.bytes() as u64).sum();
        let vectors = self.config.parameters().into_iter().filter(|spec| spec.shape.len() == 1);
        matrices + vectors.map(|spec| 4 * spec.shape[0] as u64).sum::<u64>()
    }

    /// The sizes.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> B::Device {
        self.norm.val().device()
    }
}

/// A parameter of a model, to be read back.
pub(crate) enum Parameter<'a, B: Backend> {
    Weight(&'a Weight<B>),
    Matrix(&'a Param<Tensor<B, 2>>),
    Vector(&'a Param<Tensor<B, 1>>),
}

/// The values of parameters in Hugging Face's layout.
pub(super) async fn read_parameters<B: Kernels>(
    specs: Vec<ParameterSpec>,
    tensors: Vec<Parameter<'_, B>>,
) -> Result<Vec<(ParameterSpec, Vec<f32>)>> {
    let mut parameters = Vec::with_capacity(tensors.len());
    for (spec, tensor) in specs.into_iter().zip(tensors) {
        let values = match tensor {
            Parameter::Weight(weight) => weight.values(&spec).await?,
            Parameter::Matrix(param) if spec.is_transposed() => read_back(param.val().transpose()).await?,
            Parameter::Matrix(param) => read_back(param.val()).await?,
            Parameter::Vector(param) => read_back(param.val()).await?,
        };
        parameters.push((spec, values));
    }
    Ok(parameters)
}

impl<B: Kernels> Decoder<B> {
    /// Reads whole sequences, as training does. A row shorter than the others is filled up on the
    /// right: no token sees what stands behind it, so the filling changes nothing before it.
    ///
    /// # Shapes
    /// - tokens: `[batch, sequence]`
    /// - output: `[batch, sequence, hidden_size]`, after the last norm
    pub fn forward(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let [batch, length] = tokens.dims();
        let device = tokens.device();
        let rotary = Rotary::new(&self.config, 0, length, &device);
        let bias = B::causal_bias(0, length, length, &device);
        let mut x = self.embed(tokens);
        for layer in &self.layers {
            let normed = layer.norm_input(x.clone(), &self.config);
            let [q, k, v] = layer.project(normed, batch, &self.config);
            let (q, k) = (rotary.apply(q), rotary.apply(k));
            let attended = B::causal_attention(q, k, v, 0, bias.clone());
            x = layer.finish(x, attended, &self.config);
        }
        self.norm_output(x).reshape([batch, length, self.config.hidden_size])
    }

    /// Reads more tokens behind those in the cache: one a row where its rows begin at different places.
    ///
    /// # Shapes
    /// - tokens: `[batch, sequence]`
    /// - output: `[batch, hidden_size]`, of the last token, after the last norm
    pub fn extend(&self, tokens: Tensor<B, 2, Int>, cache: &mut KvCache<B>) -> Tensor<B, 2> {
        let [batch, length] = tokens.dims();
        let (start, device) = (cache.len(), tokens.device());
        let rotary = match cache.positions() {
            Some(positions) => Rotary::of_rows(&self.config, &positions, &device),
            None => Rotary::new(&self.config, start, length, &device),
        };
        let bias = B::causal_bias(start, length, start + length, &device);
        let mut x = self.embed(tokens);
        for (place, layer) in self.layers.iter().enumerate() {
            let normed = layer.norm_input(x.clone(), &self.config);
            let projected = layer.project(normed, batch, &self.config);
            let (q, seen) = cache.append_rotated(place, projected, &rotary);
            let attended = cache.attend(q, seen, start, bias.clone());
            x = layer.finish(x, attended, &self.config);
        }
        cache.advance(length);
        let hidden = self.config.hidden_size;
        let last = x.reshape([batch, length, hidden]).narrow(1, length - 1, 1).reshape([batch, hidden]);
        self.norm_output(last)
    }

    /// The scores of every token as the next one, before softmax.
    ///
    /// # Shapes
    /// - hidden: `[rows, hidden_size]`: take only the rows whose logits are needed
    /// - output: `[rows, vocab_size]`
    pub fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        let head = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
        head.score(hidden)
    }

    /// The rows of the tokens, `[batch · sequence, hidden_size]`.
    pub(crate) fn embed(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let [batch, length] = tokens.dims();
        self.embed_tokens.rows(tokens.reshape([batch * length]))
    }

    /// The last norm.
    pub(crate) fn norm_output(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        B::rms_norm(x, self.norm.val(), self.config.rms_norm_eps)
    }
}

impl<B: Kernels> DecoderLayer<B> {
    /// The parameters, in the order of [`DecoderConfig::parameters`].
    pub(crate) fn parameters(&self) -> Vec<Parameter<'_, B>> {
        let mut all = vec![Parameter::Vector(&self.input_layernorm)];
        for (weight, bias) in
            [(&self.q_proj, &self.q_bias), (&self.k_proj, &self.k_bias), (&self.v_proj, &self.v_bias)]
        {
            all.push(Parameter::Weight(weight));
            all.extend(bias.as_ref().map(Parameter::Vector));
        }
        all.extend([&self.q_norm, &self.k_norm].into_iter().flatten().map(Parameter::Vector));
        all.extend([
            Parameter::Weight(&self.o_proj),
            Parameter::Vector(&self.post_attention_layernorm),
            Parameter::Weight(&self.gate_proj),
            Parameter::Weight(&self.up_proj),
            Parameter::Weight(&self.down_proj),
        ]);
        all
    }

    /// The norm before attention.
    pub(crate) fn norm_input(&self, x: Tensor<B, 2>, config: &DecoderConfig) -> Tensor<B, 2> {
        B::rms_norm(x, self.input_layernorm.val(), config.rms_norm_eps)
    }

    /// Queries, keys and values, `[batch, heads, sequence, head_dim]`, none rotated.
    pub(crate) fn project(&self, x: Tensor<B, 2>, batch: usize, config: &DecoderConfig) -> [Tensor<B, 4>; 3] {
        type Vector<B> = Option<Param<Tensor<B, 1>>>;
        let heads = |x: Tensor<B, 2>, weight: &Weight<B>, bias: &Vector<B>, norm: &Vector<B>| {
            let [rows, _] = x.dims();
            let mut x = weight.project(x, bias.as_ref().map(Param::val));
            let [_, width] = x.dims();
            let (count, head_dim) = (width / config.head_dim, config.head_dim);
            if let Some(norm) = norm {
                x = B::rms_norm(x.reshape([rows * count, head_dim]), norm.val(), config.rms_norm_eps);
            }
            x.reshape([batch, rows / batch, count, head_dim]).swap_dims(1, 2)
        };
        let q = heads(x.clone(), &self.q_proj, &self.q_bias, &self.q_norm);
        let k = heads(x.clone(), &self.k_proj, &self.k_bias, &self.k_norm);
        let v = heads(x, &self.v_proj, &self.v_bias, &None);
        [q, k, v]
    }

    /// What follows attention: its projection and the feed-forward part, each added to `x`.
    pub(crate) fn finish(
        &self,
        x: Tensor<B, 2>,
        attended: Tensor<B, 4>,
        config: &DecoderConfig,
    ) -> Tensor<B, 2> {
        self.finish_with(x, attended, config, |attended| attended, |inner| inner)
    }

    /// The same with something done to what attention and the feed-forward part hand to their last products,
    /// `[rows, heads · head_dim]` and `[rows, intermediate_size]`.
    pub(crate) fn finish_with(
        &self,
        x: Tensor<B, 2>,
        attended: Tensor<B, 4>,
        config: &DecoderConfig,
        mixed: impl FnOnce(Tensor<B, 2>) -> Tensor<B, 2>,
        gated: impl FnOnce(Tensor<B, 2>) -> Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        let [rows, _] = x.dims();
        let width = config.num_attention_heads * config.head_dim;
        let attended = attended.swap_dims(1, 2).reshape([rows, width]);
        let x = self.o_proj.project_onto(x, mixed(attended));
        let normed = B::rms_norm(x.clone(), self.post_attention_layernorm.val(), config.rms_norm_eps);
        let inner = self.gate_proj.gate(&self.up_proj, normed);
        self.down_proj.project_onto(x, gated(inner))
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use burn::backend::flex::FlexDevice;
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::Int;

    use super::*;
    use crate::kernels::{Format, PackedMatrix, random_rows};

    fn tiny(tie: bool) -> DecoderConfig {
        DecoderConfig {
            vocab_size: 32,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 4,
            tie_word_embeddings: tie,
            ..DecoderConfig::nano()
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_weights_and_ids() {
        let device = FlexDevice;
        let first = tiny(true).init::<Flex>(7, &device);
        let second = tiny(true).init::<Flex>(7, &device);
        let other = tiny(true).init::<Flex>(8, &device);
        let full = |decoder: &Decoder<Flex>, layer: usize| match &decoder.layers[layer].q_proj {
            Weight::Full(weight) => weight.clone(),
            Weight::Packed(_) => panic!("fresh weights are not packed"),
        };
        let q = |decoder: &Decoder<Flex>| full(decoder, 1).val().into_data();
        assert_eq!(q(&first), q(&second));
        assert_ne!(q(&first), q(&other));
        assert_eq!(full(&first, 1).id, full(&second, 1).id);
        assert_ne!(full(&first, 1).id, full(&second, 0).id);
    }

    #[test]
    fn nothing_behind_a_token_changes_it() {
        let device = FlexDevice;
        let decoder = tiny(false).init::<Flex>(7, &device);
        let hidden = |tokens: [[i32; 5]; 1]| {
            let hidden = decoder.forward(Tensor::<Flex, 2, Int>::from_data(tokens, &device));
            hidden.slice([0..1, 0..3]).into_data()
        };
        hidden([[1, 2, 3, 4, 5]])
            .assert_approx_eq::<f32>(&hidden([[1, 2, 3, 9, 0]]), burn::tensor::Tolerance::absolute(1e-6));
    }

    #[test]
    fn packed_weights_give_the_logits_of_their_values() {
        let mut random = Random::new(9, &[]);
        for (format, tie, rows) in [
            (Format::Q4, true, 3),
            (Format::Q8, false, 3),
            (Format::Q8, true, 20),
            (Format::F16, true, 3),
            (Format::BF16, false, 20),
        ] {
            let mut packed = Vec::new();
            let mut values = |spec: &ParameterSpec| {
                let [rows, columns] = spec.shape[..] else {
                    packed.push(vec![1.0; spec.shape[0]]);
                    return Ok(Values::Full(vec![1.0; spec.shape[0]]));
                };
                let lines = random_rows(&mut random, [rows, columns], format);
                packed.push(lines.values(columns, format));
                Ok(Values::Packed(PackedMatrix::new([rows, columns], format, lines)))
            };
            let decoder = Decoder::<Flex>::from_parameters(&tiny(tie), &FlexDevice, &mut values).unwrap();
            let mut again = packed.into_iter();
            let full = |_: &ParameterSpec| Ok(Values::Full(again.next().unwrap()));
            let full = Decoder::<Flex>::from_parameters(&tiny(tie), &FlexDevice, full).unwrap();
            let ids: Vec<i32> = (0..rows).map(|place| place * 7 % 32).collect();
            let logits = |decoder: &Decoder<Flex>| {
                let ids = Tensor::<Flex, 1, Int>::from_data(&ids[..], &FlexDevice).unsqueeze::<2>();
                let hidden = decoder.forward(ids).reshape([rows as usize, 16]);
                decoder.logits(hidden).into_data()
            };
            // Few rows are rounded to 16 bits before they are multiplied with codes.
            logits(&decoder).assert_approx_eq::<f32>(&logits(&full), burn::tensor::Tolerance::absolute(1e-3));
            assert!(decoder.multiplied_bytes() < full.multiplied_bytes() * 5 / 8);
            let read = futures_lite::future::block_on(decoder.to_parameters()).unwrap();
            let wanted = futures_lite::future::block_on(full.to_parameters()).unwrap();
            assert_eq!(read, wanted);
        }
    }

    #[test]
    fn every_parameter_gets_a_gradient() {
        let device = FlexDevice;
        for (tie, family) in [(true, Family::Qwen2), (false, Family::Qwen3), (true, Family::Llama)] {
            let config = DecoderConfig { family, ..tiny(tie) };
            let decoder = config.init::<Autodiff<Flex>>(7, &device);
            let tokens = Tensor::<Autodiff<Flex>, 2, Int>::from_data([[1, 2, 3, 4], [5, 6, 7, 8]], &device);
            let hidden = decoder.forward(tokens).reshape([8, 16]);
            let grads = decoder.logits(hidden).powf_scalar(2.0).sum().backward();
            let grads = burn::optim::GradientsParams::from_grads(grads, &decoder);
            assert_eq!(grads.len(), config.parameters().len());
        }
    }

    #[test]
    #[ignore = "prints a speed; run it alone, with --nocapture"]
    #[allow(clippy::print_stdout)]
    fn speed_of_training() {
        let device = FlexDevice;
        let (batch, length) = (16, 128);
        let decoder = DecoderConfig::nano().init::<Autodiff<Flex>>(7, &device);
        let ids: Vec<i32> = (0..batch * length).map(|i| i * 37 % 2048).collect();
        for _ in 0..5 {
            let tokens = Tensor::<Autodiff<Flex>, 1, Int>::from_data(&ids[..], &device);
            let start = std::time::Instant::now();
            let hidden = decoder.forward(tokens.clone().reshape([batch, length]));
            let logits = decoder.logits(hidden.reshape([batch * length, 256]));
            let logprobs = burn::tensor::activation::log_softmax(logits, 1);
            let loss = logprobs.gather(1, tokens.reshape([batch * length, 1])).mean().neg();
            let forward = start.elapsed();
            let grads = loss.backward();
            let grads = burn::optim::GradientsParams::from_grads(grads, &decoder);
            let total = start.elapsed();
            println!(
                "forward {:.0} ms, backward {:.0} ms, {:.0} tokens/s ({} gradients)",
                forward.as_secs_f64() * 1e3,
                total.saturating_sub(forward).as_secs_f64() * 1e3,
                (batch * length) as f64 / total.as_secs_f64(),
                grads.len()
            );
        }
    }
}
