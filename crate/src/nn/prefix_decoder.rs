//! BERT (Devlin et al., 2019) as a prefix language model (Dong et al., "Unified language model
//! pre-training", 2019): a prompt is read in blocks whose tokens all see each other and what stands
//! before them, and what is written behind it sees what stands before it.

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

use super::bert::{self, Affine, BertBody, Positions};
use super::decoder::{Parameter, ParameterKind, ParameterSpec, read_parameters};
use super::weight::vector;
use super::{DecoderConfig, Family, KvCache, Values};
use crate::error::{Error, Result};
use crate::kernels::Kernels;

/// A prefix language model. A projection's weight is `[in, out]`, Hugging Face's transposed.
#[derive(Module, Debug)]
pub struct PrefixDecoder<B: Backend> {
    body: BertBody<B>,
    /// What stands between the body and the embedding, which is the head.
    transform: Affine<B, 2>,
    transform_norm: Affine<B, 1>,
    /// Added to the scores, `[vocab_size]`
    head_bias: Param<Tensor<B, 1>>,
    #[module(skip)]
    config: DecoderConfig,
}

/// Every parameter under the names of Hugging Face's `BertLMHeadModel`.
pub(super) fn parameters(config: &DecoderConfig) -> Vec<ParameterSpec> {
    let hidden = config.hidden_size;
    let mut all = bert::parameters(&bert::Sizes {
        prefix: "bert.",
        tokens: config.vocab_size,
        places: config.max_position_embeddings,
        segments: 1,
        hidden,
        inner: config.intermediate_size,
        layers: config.num_hidden_layers,
    });
    all.extend(bert::dense_parameters("cls.predictions.transform.dense", hidden, hidden));
    all.extend(bert::norm_parameters("cls.predictions.transform.LayerNorm", hidden));
    all.push(ParameterSpec::new("cls.predictions.bias", &[config.vocab_size], ParameterKind::Bias));
    all
}

impl<B: Kernels> PrefixDecoder<B> {
    /// Builds a decoder out of values in Hugging Face's layout; `values` is asked once for each
    /// of [`DecoderConfig::parameters`], in order.
    pub fn from_parameters<'a>(
        config: &DecoderConfig,
        device: &B::Device,
        mut values: impl FnMut(&ParameterSpec) -> Result<Values<'a>>,
    ) -> Result<Self> {
        config.validate()?;
        if config.family != Family::Bert {
            return Err(Error::internal("only BERT is a prefix decoder"));
        }
        let mut specs = config.parameters().into_iter();
        let mut next = || {
            let spec = specs.next().unwrap_or_else(|| unreachable!("a decoder has these parameters"));
            values(&spec).map(|values| (spec, values))
        };
        Ok(Self {
            body: BertBody::read(config.num_hidden_layers, &mut next, device)?,
            transform: Affine::<B, 2>::read(&mut next, device)?,
            transform_norm: Affine::<B, 1>::read(&mut next, device)?,
            head_bias: vector(next()?, device)?,
            config: config.clone(),
        })
    }

    /// The parameters with their values in Hugging Face's layout, in order.
    pub async fn to_parameters(&self) -> Result<Vec<(ParameterSpec, Vec<f32>)>> {
        let mut tensors = self.body.parameters();
        tensors.extend(self.transform.parameters());
        tensors.extend(self.transform_norm.parameters());
        tensors.push(Parameter::Vector(&self.head_bias));
        read_parameters(self.config.parameters(), tensors).await
    }

    /// The sizes.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> B::Device {
        self.head_bias.val().device()
    }
}

impl<B: Kernels> PrefixDecoder<B> {
    /// How many tokens each block of a prompt has, see [`DecoderConfig::block_token_id`]; none is empty.
    pub fn blocks(&self, prompt: &[u32]) -> impl Iterator<Item = usize> + use<B> {
        let first = self.config.first_block(prompt);
        [first, prompt.len() - first].into_iter().filter(|length| *length > 0)
    }

    /// Reads a block of a prompt behind what is in the cache: each of its tokens sees all of them.
    /// It cannot be read in pieces; `pause` is awaited between two layers, and its error ends the
    /// reading, as if nothing had been read.
    ///
    /// # Shapes
    /// - tokens: `[batch, sequence]`
    /// - output: `[batch, hidden_size]`, of the last token
    pub async fn extend_block(
        &self,
        tokens: Tensor<B, 2, Int>,
        cache: &mut KvCache<B>,
        mut pause: impl AsyncFnMut() -> Result<()>,
    ) -> Result<Tensor<B, 2>> {
        let [batch, length] = tokens.dims();
        // A first query at the last key's place sees every key, and so do all behind it.
        let first = cache.len() + length - 1;
        let mut x = self.body.embed(tokens, Positions::From(cache.len()), self.config.rms_norm_eps);
        for place in 0..self.body.layers.len() {
            if place > 0 {
                pause().await?;
            }
            x = self.read_layer(place, x, batch, (first, None), cache);
        }
        cache.advance(length);
        Ok(x)
    }

    /// Reads more tokens behind those in the cache, none of which sees what stands behind it.
    ///
    /// # Shapes
    /// - tokens: `[batch, sequence]`
    /// - output: `[batch, hidden_size]`, of the last token
    pub fn extend(&self, tokens: Tensor<B, 2, Int>, cache: &mut KvCache<B>) -> Tensor<B, 2> {
        let [batch, length] = tokens.dims();
        let first = cache.len();
        let bias = B::causal_bias(first, length, first + length, &tokens.device());
        let rows = cache.positions();
        let positions = rows.as_deref().map_or(Positions::From(first), Positions::OfRows);
        let mut x = self.body.embed(tokens, positions, self.config.rms_norm_eps);
        for place in 0..self.body.layers.len() {
            x = self.read_layer(place, x, batch, (first, bias.clone()), cache);
        }
        cache.advance(length);
        x
    }

    /// One layer over new tokens, `[batch · sequence, hidden_size]`, of which query `i` sees the keys
    /// up to `first + i`. Of the last layer only the last token's row is asked for:
    /// `[batch, hidden_size]`.
    fn read_layer(
        &self,
        place: usize,
        x: Tensor<B, 2>,
        batch: usize,
        (first, bias): (usize, Option<Tensor<B, 2>>),
        cache: &mut KvCache<B>,
    ) -> Tensor<B, 2> {
        let (layer, heads) = (&self.body.layers[place], self.config.num_attention_heads);
        let k = layer.key.heads(x.clone(), batch, heads);
        let v = layer.value.heads(x.clone(), batch, heads);
        let (k, v) = cache.append(place, k, v);
        let (x, first, bias) = if place + 1 == self.body.layers.len() {
            (last_rows(x, batch), k.dims()[2] - 1, None)
        } else {
            (x, first, bias)
        };
        let q = layer.query.heads(x.clone(), batch, heads);
        let attended = cache.attend(q, (k, v), first, bias);
        layer.finish(x, attended, self.config.rms_norm_eps)
    }

    /// The scores of every token as the next one, before softmax.
    ///
    /// # Shapes
    /// - hidden: `[rows, hidden_size]`: take only the rows whose logits are needed
    /// - output: `[rows, vocab_size]`
    pub fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        let transformed = <B as Kernels>::gelu(self.transform.project(hidden));
        let normed = self.transform_norm.norm(transformed, self.config.rms_norm_eps);
        B::project_transposed(normed, self.body.word_embeddings.val()) + self.head_bias.val().unsqueeze()
    }
}

/// The last token's row of each sequence.
fn last_rows<B: Backend>(x: Tensor<B, 2>, batch: usize) -> Tensor<B, 2> {
    let [rows, hidden] = x.dims();
    let length = rows / batch;
    x.reshape([batch, length, hidden]).narrow(1, length - 1, 1).reshape([batch, hidden])
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use burn::backend::Flex;
    use burn::backend::flex::FlexDevice;
    use burn::tensor::{Tolerance, activation};
    use futures_lite::future::block_on;

    use super::*;
    use crate::error::ErrorCode;
    use crate::kernels::HIDDEN;

    fn config() -> DecoderConfig {
        DecoderConfig {
            family: Family::Bert,
            vocab_size: 40,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            num_key_value_heads: 4,
            head_dim: 4,
            max_position_embeddings: 64,
            initializer_range: 0.4,
            block_token_id: Some(7),
            ..DecoderConfig::nano()
        }
    }

    fn values(config: &DecoderConfig) -> Vec<(ParameterSpec, Vec<f32>)> {
        // Biases and norms away from where they start, so that each of them matters.
        let mut fresh = config.fresh(5);
        let mut noise = config.fresh(6);
        let specs = config.parameters().into_iter();
        let noisy = specs.map(|spec| {
            let own = ParameterSpec { kind: ParameterKind::Embedding, ..spec.clone() };
            let noise = noise(&own).unwrap();
            let values = fresh(&spec)
                .unwrap()
                .into_floats()
                .unwrap()
                .into_iter()
                .zip(noise.into_floats().unwrap())
                .map(|(own, noise)| own + 0.3 * noise);
            (spec, values.collect())
        });
        noisy.collect()
    }

    fn decoder() -> PrefixDecoder<Flex> {
        let mut values = values(&config()).into_iter();
        PrefixDecoder::from_parameters(&config(), &FlexDevice, |_| Ok(values.next().unwrap().1.into()))
            .unwrap()
    }

    fn tokens(ids: &[u32]) -> Tensor<Flex, 2, Int> {
        let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        Tensor::<Flex, 1, Int>::from_data(&ids[..], &FlexDevice).unsqueeze()
    }

    fn block(decoder: &PrefixDecoder<Flex>, ids: &[u32], cache: &mut KvCache<Flex>) -> Tensor<Flex, 2> {
        block_on(decoder.extend_block(tokens(ids), cache, async || Ok(()))).unwrap()
    }

    /// The logits of every token in one pass over the whole sequence, with the mask written out:
    /// `sees(query, key)`.
    fn naive(ids: &[u32], sees: impl Fn(usize, usize) -> bool) -> Tensor<Flex, 2> {
        let (config, all) = (config(), values(&config()));
        let matrix = |name: &str| -> Tensor<Flex, 2> {
            let (spec, values) = all.iter().find(|(spec, _)| spec.name == name).unwrap();
            let columns = spec.shape.get(1).copied();
            let shape = columns.map_or([1, spec.shape[0]], |columns| [spec.shape[0], columns]);
            Tensor::<Flex, 1>::from_data(&values[..], &FlexDevice).reshape(shape)
        };
        let dense = |x: Tensor<Flex, 2>, name: &str| {
            x.matmul(matrix(&format!("{name}.weight")).transpose()) + matrix(&format!("{name}.bias"))
        };
        let norm = |x: Tensor<Flex, 2>, name: &str| {
            let centred = x.clone() - x.mean_dim(1);
            let variance = centred.clone().powf_scalar(2.0).mean_dim(1);
            let scaled = centred / variance.add_scalar(config.rms_norm_eps).sqrt();
            scaled * matrix(&format!("{name}.weight")) + matrix(&format!("{name}.bias"))
        };
        let n = ids.len();
        let mask: Vec<f32> =
            (0..n * n).map(|place| if sees(place / n, place % n) { 0.0 } else { HIDDEN }).collect();
        let mask = Tensor::<Flex, 1>::from_data(&mask[..], &FlexDevice).reshape([n, n]);
        let words = matrix("bert.embeddings.word_embeddings.weight");
        let x = words.clone().select(0, tokens(ids).reshape([n]))
            + matrix("bert.embeddings.position_embeddings.weight").narrow(0, 0, n)
            + matrix("bert.embeddings.token_type_embeddings.weight");
        let mut x = norm(x, "bert.embeddings.LayerNorm");
        for layer in 0..config.num_hidden_layers {
            let name = |own: &str| format!("bert.encoder.layer.{layer}.{own}");
            let of = |own: &str| dense(x.clone(), &name(&format!("attention.self.{own}")));
            let (q, k, v) = (of("query"), of("key"), of("value"));
            let head = |x: &Tensor<Flex, 2>, head: usize| x.clone().narrow(1, head * 4, 4);
            let attended = (0..4).map(|own| {
                let scores = head(&q, own).matmul(head(&k, own).transpose()).div_scalar(2.0) + mask.clone();
                activation::softmax(scores, 1).matmul(head(&v, own))
            });
            let attended = Tensor::cat(attended.collect(), 1);
            let attended = dense(attended, &name("attention.output.dense"));
            x = norm(x + attended, &name("attention.output.LayerNorm"));
            let inner = activation::gelu(dense(x.clone(), &name("intermediate.dense")));
            x = norm(x + dense(inner, &name("output.dense")), &name("output.LayerNorm"));
        }
        let y = activation::gelu(dense(x, "cls.predictions.transform.dense"));
        let y = norm(y, "cls.predictions.transform.LayerNorm");
        y.matmul(words.transpose()) + matrix("cls.predictions.bias")
    }

    #[test]
    fn blocks_and_what_follows_are_one_masked_pass() {
        let decoder = decoder();
        let ids: Vec<u32> = (0..50).map(|place| place * 11 % 40).collect();
        // Blocks and causal pieces of every kind of length; a first block that is empty is none.
        let prompts: [&[usize]; 4] = [&[20, 15], &[30], &[1, 1], &[3, 12]];
        let rests: [&[usize]; 3] = [&[1, 1, 1, 1, 1], &[9, 6], &[2, 13]];
        for (blocks, rest) in prompts.iter().flat_map(|own| rests.iter().map(move |rest| (own, rest))) {
            let prompt: usize = blocks.iter().sum();
            let end_of_block = |query: usize| {
                let mut end = 0;
                blocks
                    .iter()
                    .map(|length| {
                        end += length;
                        end
                    })
                    .find(|end| query < *end)
            };
            let count = prompt + rest.iter().sum::<usize>();
            let all = naive(&ids[..count], |query, key| key < end_of_block(query).unwrap_or(query + 1));
            let mut cache = KvCache::new(decoder.config(), 1, 50, &FlexDevice);
            let check = |hidden: Tensor<Flex, 2>, end: usize| {
                let wanted = all.clone().narrow(0, end - 1, 1).into_data();
                let logits = decoder.logits(hidden).into_data();
                logits.assert_approx_eq::<f32>(&wanted, Tolerance::absolute(1e-4));
            };
            for length in *blocks {
                let start = cache.len();
                check(block(&decoder, &ids[start..start + length], &mut cache), start + length);
            }
            for length in *rest {
                let start = cache.len();
                let hidden = decoder.extend(tokens(&ids[start..start + length]), &mut cache);
                check(hidden, start + length);
            }
            assert_eq!(cache.len(), count);
        }
    }

    #[test]
    fn a_batch_gives_what_its_rows_give() {
        let decoder = decoder();
        let rows = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]];
        let read = |ids: Tensor<Flex, 2, Int>, batch: usize| {
            let mut cache = KvCache::new(decoder.config(), batch, 10, &FlexDevice);
            block_on(decoder.extend_block(ids.clone(), &mut cache, async || Ok(()))).unwrap();
            decoder.logits(decoder.extend(ids, &mut cache))
        };
        let both = read(Tensor::from_data(rows.map(|row| row.map(|id| id as i32)), &FlexDevice), 2);
        for (place, row) in rows.iter().enumerate() {
            let alone = read(tokens(row), 1).into_data();
            let own = both.clone().narrow(0, place, 1).into_data();
            own.assert_approx_eq::<f32>(&alone, Tolerance::absolute(1e-4));
        }
    }

    #[test]
    fn a_prompt_has_up_to_two_blocks() {
        let decoder = decoder();
        let blocks = |prompt: &[u32]| decoder.blocks(prompt).collect::<Vec<_>>();
        assert_eq!(blocks(&[1, 7, 2, 7, 3]), [4, 1]);
        assert_eq!(blocks(&[1, 7]), [2]);
        assert_eq!(blocks(&[1, 2, 3]), [3]);
        assert_eq!(blocks(&[7]), [1]);
    }

    #[test]
    fn a_block_that_is_given_up_has_not_been_read() {
        let decoder = decoder();
        let mut cache = KvCache::new(decoder.config(), 1, 10, &FlexDevice);
        block(&decoder, &[1, 2, 3], &mut cache);
        let mut pauses = 0;
        let given_up = block_on(decoder.extend_block(tokens(&[30, 31, 32]), &mut cache, async || {
            pauses += 1;
            if pauses == 2 { Err(Error::new(ErrorCode::Aborted, "enough")) } else { Ok(()) }
        }));
        assert_eq!((given_up.unwrap_err().code(), pauses, cache.len()), (ErrorCode::Aborted, 2, 3));
        let after = decoder.logits(block(&decoder, &[4, 5], &mut cache)).into_data();
        let mut fresh = KvCache::new(decoder.config(), 1, 10, &FlexDevice);
        block(&decoder, &[1, 2, 3], &mut fresh);
        assert_eq!(decoder.logits(block(&decoder, &[4, 5], &mut fresh)).into_data(), after);
    }

    #[test]
    fn the_parameters_come_back_as_they_were_given() {
        assert_eq!(block_on(decoder().to_parameters()).unwrap(), values(&config()));
    }

    /// `cargo test --release --lib speed_of_blocks -- --ignored --nocapture`
    #[test]
    #[ignore = "prints a speed; run it alone"]
    #[allow(clippy::print_stdout)]
    fn speed_of_blocks() {
        let config = DecoderConfig {
            vocab_size: 8192,
            hidden_size: 384,
            intermediate_size: 1536,
            num_hidden_layers: 6,
            num_attention_heads: 12,
            num_key_value_heads: 12,
            head_dim: 32,
            max_position_embeddings: 512,
            ..config()
        };
        let decoder = PrefixDecoder::<Flex>::from_parameters(&config, &FlexDevice, config.fresh(1)).unwrap();
        let ids: Vec<u32> = (0..200).map(|place| place * 37 % 8192).collect();
        let random = |shape: [usize; 2]| {
            Tensor::<Flex, 2>::random(shape, burn::tensor::Distribution::Default, &FlexDevice)
        };
        let (x, wide) = (random([200, 384]), random([200, 1536]));
        let weights = (0..6).map(|_| (random([384, 384]), random([384, 1536]), random([1536, 384])));
        let weights: Vec<_> = weights.collect();
        for _ in 0..5 {
            let mut cache = KvCache::new(&config, 1, 256, &FlexDevice);
            let start = std::time::Instant::now();
            block(&decoder, &ids, &mut cache);
            let read = start.elapsed();
            let start = std::time::Instant::now();
            for id in 0..20 {
                decoder.logits(decoder.extend(tokens(&[id]), &mut cache)).into_data();
            }
            let written = start.elapsed() / 20;
            let start = std::time::Instant::now();
            for (attention, intermediate, output) in &weights {
                for _ in 0..4 {
                    drop(x.clone().matmul(attention.clone()));
                }
                drop(x.clone().matmul(intermediate.clone()));
                drop(wide.clone().matmul(output.clone()));
            }
            let products = start.elapsed();
            println!("200 tokens {read:?}, one token and its logits {written:?}, products {products:?}");
        }
    }
}
