//! nano's forward and backward pass on the CPU, written out.
//!
//! Two networks (Qwen2: RMS norm, rotary embedding, grouped-query attention, SwiGLU, tied head; and
//! BERT as a prefix language model) in one flat buffer of parameters, over sequences that lie one behind the other without any
//! padding. Burn's automatic differentiation computes the same; on the CPU it spends more time
//! on moving activations from one small operation to the next than on the products themselves,
//! and nano is trained on a laptop. On a GPU it does the work ([`DeviceNetwork`]); what a trainer asks of either is a
//! [`Pass`].

mod adapter;
mod backward;
mod bert;
mod device;
mod dropout;
mod forward;
mod layout;
mod linear;
mod math;
mod pass;
mod values;

pub use adapter::{Adapter, Pair};
pub use device::DeviceNetwork;
pub use dropout::Dropout;
pub use forward::{Batch, Choices, Losses, Target, Tree, Workspace};
pub use layout::{Layout, NamedTensor};
pub(super) use math::{Into, View, matmul};
pub use pass::{Learns, Network, Pass};

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::generation::Bitset;
    use crate::nn::{Decoder, DecoderConfig, Family};
    use crate::random::Random;

    pub(super) fn tiny() -> Layout {
        Layout::new(DecoderConfig {
            vocab_size: 23,
            hidden_size: 12,
            num_hidden_layers: 2,
            head_dim: 6,
            intermediate_size: 20,
            max_position_embeddings: 32,
            rope_theta: 100.0,
            ..DecoderConfig::nano()
        })
        .unwrap()
    }

    pub(super) fn tiny_bert() -> Layout {
        let config = DecoderConfig {
            family: Family::Bert,
            num_attention_heads: 2,
            num_key_value_heads: 2,
            ..tiny().config
        };
        Layout::new(config).unwrap()
    }

    /// Two trees whose prompts are read in blocks.
    fn blocks(random: &mut Random) -> Batch {
        let mut batch = Batch::default();
        for (stem, branches, prompts) in [(5, vec![6, 4], vec![3, 4]), (0, vec![9], vec![5])] {
            let length = stem + branches.iter().sum::<usize>();
            let tokens: Vec<u32> = (0..length).map(|_| random.below(23) as u32).collect();
            let targets: Vec<Target> = (stem..length)
                .filter(|row| row % 3 != 1)
                .map(|row| Target { row, token: random.below(23) as u32, weight: 0.25 + row as f32 / 10.0 })
                .collect();
            batch.push_tree(&tokens, Tree { stem, branches, prompts: Some(prompts) }, targets);
        }
        batch
    }

    pub(super) fn batch(random: &mut Random) -> Batch {
        let mut batch = Batch::default();
        for length in [7, 1, 18] {
            let tokens: Vec<u32> = (0..length).map(|_| random.below(23) as u32).collect();
            let targets: Vec<Target> = (0..length)
                .filter(|row| row % 3 != 1)
                .map(|row| Target { row, token: random.below(23) as u32, weight: 0.25 + row as f32 / 10.0 })
                .collect();
            batch.push(&tokens, targets);
        }
        batch
    }

    fn loss(layout: &Layout, parameters: &[f32], batch: &Batch) -> f64 {
        let losses = Workspace::default().forward(layout, parameters, batch).unwrap();
        let terms = losses.logprobs.iter().zip(&batch.targets);
        terms.map(|(logprob, target)| -f64::from(*logprob) * f64::from(target.weight)).sum()
    }

    /// Along a random direction within each tensor, the slope of the loss is the product of
    /// gradient and direction.
    #[test]
    fn the_gradient_of_every_tensor_is_the_slope_of_the_loss() {
        slopes(&tiny(), batch);
        slopes(&tiny_bert(), batch);
        slopes(&tiny_bert(), blocks);
        for layout in [tiny(), tiny_bert()] {
            let dropout = Some(Dropout { rate: 0.3, key: 11 });
            slopes(&layout, |random| Batch { dropout, ..batch(random) });
        }
    }

    fn slopes(layout: &Layout, batch: impl Fn(&mut Random) -> Batch) {
        let mut random = Random::new(5, &[]);
        let mut parameters = layout.initialize(1);
        // Away from the start's small numbers, so that every path matters.
        for p in &mut parameters {
            *p += (random.normal() * 0.3) as f32;
        }
        let batch = batch(&mut random);
        let weights: Vec<f32> = batch.targets.iter().map(|target| target.weight).collect();
        let mut gradient = vec![0.0; layout.len()];
        let mut workspace = Workspace::default();
        // A dirty workspace must not matter.
        for _ in 0..2 {
            gradient.fill(0.0);
            workspace.forward(layout, &parameters, &batch).unwrap();
            workspace.backward(layout, &parameters, &batch, &weights, &mut gradient);
        }
        check_slopes(layout, &parameters, &gradient, &mut random, |moved| loss(layout, moved, &batch));
    }

    fn check_slopes(
        layout: &Layout,
        parameters: &[f32],
        gradient: &[f32],
        random: &mut Random,
        loss: impl Fn(&[f32]) -> f64,
    ) {
        for tensor in &layout.tensors {
            let direction: Vec<f32> = (0..tensor.len()).map(|_| random.normal() as f32).collect();
            let along = |step: f32| {
                let mut moved = parameters.to_vec();
                moved[tensor.range()].iter_mut().zip(&direction).for_each(|(p, d)| *p += step * d);
                loss(&moved)
            };
            let step = 2e-3;
            let slope = (along(step) - along(-step)) / (2.0 * f64::from(step));
            let product: f64 = gradient[tensor.range()]
                .iter()
                .zip(&direction)
                .map(|(g, d)| f64::from(*g) * f64::from(*d))
                .sum();
            let scale = gradient[tensor.range()].iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            assert!((slope - product).abs() < 0.01 * scale + 1e-3, "{}: {slope} {product}", tensor.name);
        }
    }

    /// Some tokens forbidden, some targets without a set.
    pub(super) fn choices(random: &mut Random, batch: &Batch) -> Choices {
        let allowed = batch.targets.iter().map(|target| {
            random.chance(0.7).then(|| {
                let mut set = Bitset::new(23);
                (0..23).filter(|_| random.chance(0.5)).for_each(|id| set.insert(id));
                set.insert(target.token);
                Arc::new(set)
            })
        });
        Choices { allowed: allowed.collect(), temperature: 0.7 }
    }

    /// A policy's log-probabilities are those of the softmax over what was allowed, and its gradient, an entropy
    /// bonus included, is the slope of its loss.
    #[test]
    fn a_policy_chooses_among_what_is_allowed() {
        let layout = tiny();
        let mut random = Random::new(15, &[]);
        let mut parameters = layout.initialize(1);
        for p in &mut parameters {
            *p += (random.normal() * 0.3) as f32;
        }
        let free = batch(&mut random);
        let all = |parameters: &[f32], row: usize| {
            let targets = (0..23).map(|token| Target { row, token, weight: 1.0 });
            let batch = Batch { targets: targets.collect(), ..free.clone() };
            Workspace::default().forward(&layout, parameters, &batch).unwrap().logprobs
        };
        let own = Batch { choices: Some(choices(&mut random, &free)), ..free.clone() };
        let sets = &own.choices.as_ref().unwrap().allowed;
        let losses = Workspace::default().forward(&layout, &parameters, &own).unwrap();
        for (i, (target, set)) in own.targets.iter().zip(sets).enumerate() {
            let scores = all(&parameters, target.row);
            let known = |id: u32| set.as_ref().is_none_or(|set| set.contains(id));
            let scaled: Vec<f64> =
                (0..23).filter(|id| known(*id)).map(|id| f64::from(scores[id as usize]) / 0.7).collect();
            let total = scaled.iter().map(|score| score.exp()).sum::<f64>();
            let wanted = f64::from(scores[target.token as usize]) / 0.7 - total.ln();
            assert!((f64::from(losses.logprobs[i]) - wanted).abs() < 1e-4);
            let entropy = -scaled.iter().map(|score| score.exp() / total * (score - total.ln())).sum::<f64>();
            assert!((f64::from(losses.entropies[i]) - entropy).abs() < 1e-4);
        }

        let (bonus, weights) =
            (0.3f32, own.targets.iter().map(|target| target.weight - 1.0).collect::<Vec<_>>());
        let loss = |parameters: &[f32]| {
            let losses = Workspace::default().forward(&layout, parameters, &own).unwrap();
            let policy = losses.logprobs.iter().zip(&weights).map(|(own, weight)| f64::from(-own * weight));
            policy.sum::<f64>() - losses.entropies.iter().map(|own| f64::from(own * bonus)).sum::<f64>()
        };
        let mut gradient = vec![0.0; layout.len()];
        let mut workspace = Workspace::default();
        workspace.forward(&layout, &parameters, &own).unwrap();
        let bonuses = vec![bonus; weights.len()];
        workspace.backward_policy(&layout, &parameters, &own, &weights, &bonuses, &mut gradient);
        check_slopes(&layout, &parameters, &gradient, &mut random, loss);
    }

    /// To the bit, and the activations of one block alone are kept, whatever their number.
    #[test]
    fn checkpointing_changes_memory_and_no_number() {
        for layout in [tiny(), tiny_bert()] {
            let config = DecoderConfig { num_hidden_layers: 6, ..layout.config.clone() };
            let layout = Layout::new(config).unwrap();
            let mut random = Random::new(25, &[]);
            let parameters = layout.initialize(1);
            let batch = Batch { dropout: Some(Dropout { rate: 0.3, key: 11 }), ..batch(&mut random) };
            let run = |gradient_checkpointing: bool| {
                let mut workspace = Workspace::new(gradient_checkpointing);
                let mut gradient = vec![0.0; layout.len()];
                // The second pass reads what the first one left.
                for _ in 0..2 {
                    gradient.fill(0.0);
                    workspace.forward(&layout, &parameters, &batch).unwrap();
                    let ones = vec![1.0; batch.targets.len()];
                    workspace.backward(&layout, &parameters, &batch, &ones, &mut gradient);
                }
                (gradient, workspace.blocks.len(), workspace.bytes())
            };
            let (plain, kept) = (run(false), run(true));
            assert_eq!(plain.0, kept.0);
            assert_eq!((plain.1, kept.1), (6, 1));
            assert!(kept.2 * 2 < plain.2, "{} {}", kept.2, plain.2);
        }
    }

    #[test]
    fn a_value_has_the_slope_that_its_gradient_says() {
        let layout = tiny();
        let mut random = Random::new(16, &[]);
        let mut parameters = layout.initialize(1);
        for p in &mut parameters {
            *p += (random.normal() * 0.3) as f32;
        }
        let batch = batch(&mut random);
        let head: Vec<f32> = (0..13).map(|_| random.normal() as f32).collect();
        let slopes: Vec<f32> = batch.targets.iter().map(|target| target.weight - 1.0).collect();
        let sum = |parameters: &[f32], head: &[f32]| {
            let values = Workspace::default().forward_values(&layout, parameters, head, &batch).unwrap();
            values.iter().zip(&slopes).map(|(value, slope)| f64::from(value * slope)).sum::<f64>()
        };
        let (mut gradient, mut head_gradient) = (vec![0.0; layout.len()], vec![0.0; 13]);
        let mut workspace = Workspace::default();
        workspace.forward_values(&layout, &parameters, &head, &batch).unwrap();
        let both = ((&parameters[..], &mut gradient[..]), (&head[..], &mut head_gradient[..]));
        workspace.backward_values(&layout, both.0, both.1, &batch, &slopes);
        check_slopes(&layout, &parameters, &gradient, &mut random, |parameters| sum(parameters, &head));
        for i in 0..13 {
            let along = |step: f32| {
                let mut moved = head.clone();
                moved[i] += step;
                sum(&parameters, &moved)
            };
            let slope = (along(1e-2) - along(-1e-2)) / 2e-2;
            assert!((slope - f64::from(head_gradient[i])).abs() < 1e-2 * (1.0 + slope.abs()));
        }
        assert!(workspace.forward_values(&layout, &parameters, &head[1..], &batch).is_err());
    }

    #[test]
    fn sequences_of_a_batch_do_not_see_each_other() {
        let layout = tiny();
        let mut random = Random::new(6, &[]);
        let parameters = layout.initialize(2);
        let whole = batch(&mut random);
        let mut last = Batch::default();
        let targets = whole.targets.iter().filter(|t| t.row >= 8).map(|t| Target { row: t.row - 8, ..*t });
        last.push(&whole.tokens[8..], targets);
        let logprobs =
            |batch: &Batch| Workspace::default().forward(&layout, &parameters, batch).unwrap().logprobs;
        let (together, alone) = (logprobs(&whole), logprobs(&last));
        for (a, b) in together[together.len() - alone.len()..].iter().zip(&alone) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }

    /// Branches that share a stem give what each gives alone behind it, and the gradient is the sum.
    #[test]
    fn a_branch_reads_its_stem_and_itself() {
        let layout = tiny();
        let mut random = Random::new(9, &[]);
        let mut parameters = layout.initialize(4);
        for p in &mut parameters {
            *p += (random.normal() * 0.3) as f32;
        }
        let mut tokens = |count: usize| (0..count).map(|_| random.below(23) as u32).collect::<Vec<_>>();
        let (stem, branches) = (tokens(6), [tokens(4), tokens(1), tokens(7)]);
        let target = |row: usize| Target { row, token: (row * 7 % 23) as u32, weight: 1.0 };
        let (mut shared, mut apart) = (Batch::default(), Batch::default());
        let mut all = stem.clone();
        let mut targets = Vec::new();
        for branch in &branches {
            let own = (0..branch.len()).map(|i| target(stem.len() + i));
            targets.extend(own.clone().map(|t| Target { row: t.row + all.len() - stem.len(), ..t }));
            apart.push(&[&stem[..], branch].concat(), own);
            all.extend(branch);
        }
        let lengths = branches.iter().map(Vec::len).collect();
        shared.push_tree(&all, Tree { stem: stem.len(), branches: lengths, prompts: None }, targets);
        let run = |batch: &Batch| {
            let mut workspace = Workspace::default();
            let mut gradient = vec![0.0; layout.len()];
            let losses = workspace.forward(&layout, &parameters, batch).unwrap();
            let weights = vec![1.0; batch.targets.len()];
            workspace.backward(&layout, &parameters, batch, &weights, &mut gradient);
            (losses.logprobs, gradient)
        };
        let ((a, da), (b, db)) = (run(&shared), run(&apart));
        assert_eq!(a.len(), 12);
        for (a, b) in a.iter().zip(&b).chain(da.iter().zip(&db)) {
            assert!((a - b).abs() < 1e-4 * (1.0 + b.abs()), "{a} {b}");
        }
    }

    /// Within a block all see all; the second block and what follows see the first; nothing sees
    /// what stands behind its block.
    #[test]
    fn a_prompt_is_read_in_two_blocks() {
        let layout = tiny_bert();
        let mut parameters = layout.initialize(4);
        let mut random = Random::new(9, &[]);
        for p in &mut parameters {
            *p += (random.normal() * 0.3) as f32;
        }
        let logprobs = |tokens: &[u32]| {
            let mut batch = Batch::default();
            let tree = Tree { stem: 3, branches: vec![5], prompts: Some(vec![3]) };
            batch.push_tree(tokens, tree, (0..8).map(|row| Target { row, token: 1, weight: 1.0 }));
            Workspace::default().forward(&layout, &parameters, &batch).unwrap().logprobs
        };
        let tokens = [1, 2, 3, 4, 5, 6, 7, 8];
        let base = logprobs(&tokens);
        for place in 0..8 {
            let mut other = tokens;
            other[place] = 20;
            let seen_from = [0, 0, 0, 3, 3, 3, 6, 7][place];
            for (row, (own, base)) in logprobs(&other).iter().zip(&base).enumerate() {
                assert_eq!((own - base).abs() > 1e-6, row >= seen_from, "{place} seen by {row}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let layout = tiny();
        let parameters = layout.initialize(2);
        let forward = |tokens: &[u32], token: u32, row: usize| {
            let mut batch = Batch::default();
            batch.push(tokens, [Target { row, token, weight: 1.0 }]);
            Workspace::default().forward(&layout, &parameters, &batch).map(|_| ())
        };
        assert!(forward(&[1, 2], 3, 1).is_ok());
        assert!(forward(&[1, 23], 3, 1).is_err());
        assert!(forward(&[1, 2], 23, 1).is_err());
        assert!(forward(&[1, 2], 3, 2).is_err());
        assert!(forward(&[1; 33], 3, 2).is_err());
    }

    /// Burn's decoder, which serves the trained weights, gives the same log-probabilities.
    #[test]
    fn the_decoder_of_nn_agrees() {
        use burn::backend::Flex;
        use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
        use burn_flex::FlexDevice;

        let layout = tiny();
        let mut random = Random::new(8, &[]);
        let mut parameters = layout.initialize(3);
        for p in &mut parameters {
            *p += (random.normal() * 0.3) as f32;
        }
        let tokens: Vec<u32> = (0..19).map(|_| random.below(23) as u32).collect();
        let mut batch = Batch::default();
        batch.push(&[3, 1, 4], []);
        batch.push(&tokens, (0..19).map(|row| Target { row, token: (row % 23) as u32, weight: 1.0 }));
        let own = Workspace::default().forward(&layout, &parameters, &batch).unwrap().logprobs;

        let device = FlexDevice;
        let decoder = Decoder::<Flex>::from_parameters(&layout.config, &device, |spec| {
            let tensor = layout.tensors.iter().find(|tensor| tensor.name == spec.name).unwrap();
            assert_eq!(tensor.shape, spec.shape);
            Ok(parameters[tensor.range()].to_vec().into())
        })
        .unwrap();
        let ids: Vec<i32> = tokens.iter().map(|id| *id as i32).collect();
        let ids = Tensor::<Flex, 2, Int>::from_data(TensorData::new(ids, [1, 19]), &device);
        let hidden = decoder.forward(ids).squeeze_dim::<2>(0);
        let logprobs = log_softmax(decoder.logits(hidden), 1).into_data().to_vec::<f32>().unwrap();
        for (row, own) in own.iter().enumerate() {
            let other = logprobs[row * 23 + row % 23];
            assert!((own - other).abs() < 1e-4, "row {row}: {own} {other}");
        }
    }

    /// So does its prefix decoder, over the two blocks of a prompt and what follows it.
    #[test]
    fn the_prefix_decoder_of_nn_agrees() {
        use burn::backend::Flex;
        use burn::tensor::activation::log_softmax;
        use burn_flex::FlexDevice;

        use crate::nn::{KvCache, LanguageDecoder};

        let mut layout = tiny_bert();
        layout.config.block_token_id = Some(22);
        let mut random = Random::new(8, &[]);
        let mut parameters = layout.initialize(3);
        for p in &mut parameters {
            *p += (random.normal() * 0.3) as f32;
        }
        let mut tokens: Vec<u32> = (0..14).map(|_| random.below(22) as u32).collect();
        tokens[4] = 22;
        let prompt = 9;
        let mut batch = Batch::default();
        let tree = Tree { stem: 5, branches: vec![9], prompts: Some(vec![prompt - 5]) };
        let targets = (prompt - 1..14).map(|row| Target { row, token: (row % 23) as u32, weight: 1.0 });
        batch.push_tree(&tokens, tree, targets);
        let own = Workspace::default().forward(&layout, &parameters, &batch).unwrap().logprobs;

        let decoder = LanguageDecoder::<Flex>::from_parameters(&layout.config, &FlexDevice, |spec| {
            let tensor = layout.tensors.iter().find(|tensor| tensor.name == spec.name).unwrap();
            assert_eq!(tensor.shape, spec.shape);
            Ok(parameters[tensor.range()].to_vec().into())
        })
        .unwrap();
        let mut cache = KvCache::new(&layout.config, 1, tokens.len(), &FlexDevice);
        for (place, own) in own.iter().enumerate() {
            let (from, to) = if place == 0 { (0, prompt) } else { (prompt + place - 1, prompt + place) };
            let read = decoder.read(&tokens[from..to], to, &mut cache, async || Ok(()));
            let hidden = futures_lite::future::block_on(read).unwrap().unwrap();
            let logprobs = log_softmax(decoder.logits(hidden), 1).into_data().to_vec::<f32>().unwrap();
            let other = logprobs[(prompt - 1 + place) % 23];
            assert!((own - other).abs() < 1e-4, "{place}: {own} {other}");
        }
    }
}
