use std::cell::Cell;
use std::ops::Add as _;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use futures_lite::future::block_on;

use super::*;
use crate::generation::tokenizer::testing;
use crate::generation::{FinishReason, Part, Sampling, parse_decision};
use crate::nn::{CHUNK, DecoderConfig, Family, token_tensor};

const TEMPLATE: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>";

fn config() -> DecoderConfig {
    DecoderConfig {
        vocab_size: testing::trained().vocabulary_size() + 3,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        // Loud weights, so that nothing is nearly equal.
        initializer_range: 0.3,
        ..DecoderConfig::nano()
    }
}

fn model(context_length: usize, turn: Turn) -> LocalModel<Flex> {
    model_of(&config(), context_length, turn)
}

/// Its prompts are two blocks: what ends with the name of the user's role, and the rest.
fn prefix_model(turn: Turn) -> LocalModel<Flex> {
    let block_token_id = testing::trained().token_id("<|user|>");
    assert!(block_token_id.is_some());
    let config = DecoderConfig { family: Family::Bert, num_key_value_heads: 4, block_token_id, ..config() };
    model_of(&config, 1024, turn)
}

fn model_of(config: &DecoderConfig, context_length: usize, turn: Turn) -> LocalModel<Flex> {
    let tokenizer = testing::trained();
    let info = ModelInfo {
        name: "random".into(),
        fingerprint: String::new(),
        prompt_family: PromptFamily::Compact,
        context_length,
        candidates_per_speaker: 12,
        manager_candidates: 5,
        extractor_candidates: 0,
        fact_threshold: 0.0,
    };
    let template = ChatTemplate::new(None, Some(TEMPLATE)).unwrap();
    let decoder = LanguageDecoder::init(config, 3, &FlexDevice);
    LocalModel::new(decoder, tokenizer, template, info, None, turn).unwrap()
}

fn request(text: &str, grammar: Option<Grammar>) -> Request {
    let message = |role: &str, content: &str| ChatMessage { role: role.into(), content: content.into() };
    Request {
        messages: vec![message("system", "manage"), message("user", text)],
        grammar,
        max_new_tokens: 60,
        sampling: Sampling { temperature: 1.0, seed: 5, ..Sampling::default() },
        stop: Vec::new(),
    }
}

fn generate(model: &LocalModel<Flex>, request: &Request) -> Result<(Generation, String)> {
    let mut streamed = String::new();
    let generation =
        block_on(model.generate(request, &Cancel::default(), &mut |text| streamed.push_str(text)))?;
    Ok((generation, streamed))
}

#[test]
fn a_decision_is_valid_and_streams_what_it_says() {
    let model = model(1024, no_turn());
    for sample in 0..20 {
        let mut request =
            request("8 May 2023: Has a dog #0\n> Has a cat", Some(Grammar::Decision { shown: 1 }));
        request.sampling.key = [0, 0, sample];
        let (generation, streamed) = generate(&model, &request).unwrap();
        parse_decision(&generation.text, 1).unwrap();
        assert_eq!(streamed, generation.text);
        assert_eq!(generation.ids.len(), generation.logprobs.len());
        assert_eq!(generation.ids.len(), generation.parts.len());
        assert_eq!(generation.finish_reason, FinishReason::Stop);
        for (part, logprob) in generation.parts.iter().zip(&generation.logprobs) {
            assert!(if *part == Part::Forced { *logprob == 0.0 } else { *logprob <= 0.0 });
        }
    }
}

/// Read once and written side by side, they are what each is alone.
#[test]
fn samples_of_one_prompt_are_what_separate_runs_give() {
    let text = "8 May 2023: Has a dog #0\n9 May 2023: Likes tea #1\n> Has a cat";
    let answer = Grammar::Answer { lines: vec!["8 May 2023: Has a dog".into(), "Likes tea".into()] };
    for model in [model(1024, no_turn()), prefix_model(no_turn())] {
        for grammar in [None, Some(Grammar::Decision { shown: 2 }), Some(answer.clone())] {
            for (temperature, top_p) in [(1.0, 1.0), (0.7, 0.9), (0.0, 1.0)] {
                let mut request = request(text, grammar.clone());
                request.sampling = Sampling { temperature, top_p, ..request.sampling };
                if request.grammar.is_none() {
                    request.stop = vec!["e".into()];
                }
                let together = block_on(model.samples(&request, 7, &Cancel::default())).unwrap();
                assert_eq!(together.len(), 7);
                for (sample, own) in (0..).zip(&together) {
                    let sampling = request.sampling.of_sample(sample);
                    let (alone, _) = generate(&model, &Request { sampling, ..request.clone() }).unwrap();
                    assert_eq!((&own.ids, &own.parts, &own.text), (&alone.ids, &alone.parts, &alone.text));
                    assert_eq!(
                        (own.finish_reason, &own.prompt_ids),
                        (alone.finish_reason, &alone.prompt_ids)
                    );
                    for (a, b) in own.logprobs.iter().zip(&alone.logprobs) {
                        assert!((a - b).abs() < 1e-5, "{a} {b}");
                    }
                }
                let is_varied = together.iter().any(|own| own.ids != together[0].ids);
                assert_eq!(is_varied, temperature > 0.0);
            }
        }
    }
}

/// Prompts of any length, and requests of any kind, are written side by side as each is alone.
#[test]
fn many_prompts_are_what_each_gives_alone() {
    let memory = "8 May 2023: Has a dog #0\n9 May 2023: Likes tea #1\n";
    let answer = Grammar::Answer { lines: vec!["8 May 2023: Has a dog".into(), "Likes tea".into()] };
    for model in [model(1024, no_turn()), prefix_model(no_turn())] {
        let mut requests = Vec::new();
        for (place, text) in ["> Has a cat", "> No", "> Has a cat"].into_iter().enumerate() {
            for grammar in [None, Some(Grammar::Decision { shown: 2 }), Some(answer.clone())] {
                let mut request = request(&memory.repeat(2 * place).add(text), grammar);
                request.sampling.key = [0, place as u64, 0];
                request.sampling.temperature = if place == 1 { 0.0 } else { 1.0 };
                request.max_new_tokens = 50 + 10 * place;
                requests.push(request);
            }
        }
        let counts = [1, 3, 2, 1, 1, 2, 1, 1, 0];
        let mut asked: Vec<(Request, usize)> = requests.into_iter().zip(counts).collect();
        let together = block_on(model.samples_each(&asked, &Cancel::default())).unwrap();
        assert_eq!(together.iter().map(Vec::len).collect::<Vec<_>>(), counts);
        let own = asked.iter().zip(&together).flat_map(|((request, _), own)| {
            own.iter().zip(0..).map(move |(own, sample)| (request.sampling.of_sample(sample), request, own))
        });
        for (sampling, request, own) in own {
            let (alone, _) = generate(&model, &Request { sampling, ..request.clone() }).unwrap();
            assert_eq!((&own.ids, &own.text), (&alone.ids, &alone.text));
            assert_eq!((own.finish_reason, &own.prompt_ids), (alone.finish_reason, &alone.prompt_ids));
            for (a, b) in own.logprobs.iter().zip(&alone.logprobs) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
        assert!(block_on(model.samples_each(&[], &Cancel::default())).unwrap().is_empty());
        asked[4].0.messages[1].content = "long ".repeat(2000);
        let error = block_on(model.samples_each(&asked, &Cancel::default())).unwrap_err();
        assert_eq!(error.code(), ErrorCode::ContextOverflow);
    }
}

#[test]
fn samples_can_be_none_and_can_be_cancelled() {
    let model = model(1024, no_turn());
    let (request, cancel) = (request("Hello", None), Cancel::default());
    assert!(block_on(model.samples(&request, 0, &cancel)).unwrap().is_empty());
    let stops = Cell::new(0);
    let turns = Rc::new({
        let cancel = cancel.clone();
        move || {
            stops.set(stops.get() + 1);
            if stops.get() == 5 {
                cancel.cancel();
            }
            Box::pin(std::future::ready(())) as LocalBoxFuture<'static, ()>
        }
    });
    let model = self::model(1024, turns);
    assert_eq!(block_on(model.samples(&request, 3, &cancel)).unwrap_err().code(), ErrorCode::Aborted);
}

/// One forward pass over prompt and completion, without cache or chunks, says the same about
/// every chosen token as the generator did.
#[test]
fn log_probabilities_are_those_of_one_pass() {
    let model = model(1024, no_turn());
    let text = "Has a dog named Scout ".repeat(60);
    let (generation, _) = generate(&model, &request(&text, None)).unwrap();
    assert!(generation.prompt_ids.len() > 2 * CHUNK, "{}", generation.prompt_ids.len());
    let ids: Vec<u32> = generation.prompt_ids.iter().chain(&generation.ids).copied().collect();
    let LanguageDecoder::Causal(decoder) = &model.decoder else { unreachable!("it is nano's family") };
    let hidden = decoder.forward(token_tensor(&ids, &FlexDevice));
    let start = generation.prompt_ids.len() - 1;
    let count = generation.ids.len();
    let rows = hidden.narrow(1, start, count).reshape([count, 32]);
    let known = model.tokenizer.vocabulary_size();
    let logits = model.decoder.logits(rows).narrow(1, 0, known);
    let logprobs = burn::tensor::activation::log_softmax(logits, 1).into_data().into_vec::<f32>().unwrap();
    for (place, (id, logprob)) in generation.ids.iter().zip(&generation.logprobs).enumerate() {
        let wanted = logprobs[place * known + *id as usize];
        assert!((wanted - logprob).abs() < 1e-3, "{place}: {logprob} instead of {wanted}");
    }
}

/// The generator's own completion, read again: the chosen token's probability is the same.
#[test]
fn distributions_are_those_that_were_chosen_from() {
    let model = model(1024, no_turn());
    let request = request("8 May 2023: Has a dog #0\n> Has a cat", Some(Grammar::Decision { shown: 1 }));
    let (generation, _) = generate(&model, &request).unwrap();
    let distributions = |ids: &[u32]| block_on(model.distributions(&request, ids, &Cancel::default()));
    let own = distributions(&generation.ids).unwrap();
    let chosen: Vec<f32> = (generation.parts.iter().zip(&generation.logprobs))
        .filter_map(|(part, logprob)| (*part != Part::Forced).then_some(*logprob))
        .collect();
    assert_eq!(own.len(), chosen.len());
    for (distribution, logprob) in own.iter().zip(chosen) {
        let total: f32 = distribution.iter().map(|own| own.exp()).sum();
        assert!((total - 1.0).abs() < 1e-4, "{total}");
        assert!(distribution.iter().any(|own| (own - logprob).abs() < 1e-5), "{logprob}");
    }
    let cut = &generation.ids[..generation.ids.len() - 1];
    let longer = [&generation.ids[..], &[0]].concat();
    for wrong in [cut, &longer] {
        assert_eq!(distributions(wrong).unwrap_err().code(), ErrorCode::InvalidArgument);
    }
}

#[test]
fn the_same_request_gives_the_same_and_another_key_another() {
    let model = model(1024, no_turn());
    let mut request = request("> Has a cat", None);
    let first = generate(&model, &request).unwrap();
    assert_eq!(generate(&model, &request).unwrap(), first);
    request.sampling.key = [0, 0, 1];
    assert_ne!(generate(&model, &request).unwrap(), first);
}

#[test]
fn free_text_ends_before_a_stop_string() {
    let model = model(1024, no_turn());
    let mut request = request("> Has a cat", None);
    let (whole, _) = generate(&model, &request).unwrap();
    let characters: Vec<char> = whole.text.chars().collect();
    let stop: String = characters[characters.len() / 2..][..4].iter().collect();
    request.stop = vec!["never said".into(), stop.clone()];
    let (cut, streamed) = generate(&model, &request).unwrap();
    assert_eq!(cut.text, whole.text[..whole.text.find(&stop).unwrap()]);
    assert_eq!((streamed, cut.finish_reason), (cut.text, FinishReason::Stop));
    assert!(cut.ids.len() < whole.ids.len() && whole.ids.starts_with(&cut.ids));
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let model = model(1024, no_turn());
    let refused = |grammar, change: fn(&mut Request)| {
        let mut request = request("> Has a cat", grammar);
        change(&mut request);
        let error = generate(&model, &request).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        error.message().to_owned()
    };
    let top_p = refused(None, |request| request.sampling.top_p = f32::NAN);
    assert_eq!(top_p, "top_p must be a number from 0 to 1, not NaN");
    assert_eq!(refused(None, |request| request.stop.push(String::new())), "a stop string is empty");
    let both = refused(Some(Grammar::Decision { shown: 0 }), |request| request.stop.push("x".into()));
    assert_eq!(both, "stop strings end free text; a grammar knows its own end");
}

#[test]
fn a_prompt_without_room_is_refused_before_any_work() {
    let turns = Rc::new(Cell::new(0));
    let counter = Rc::clone(&turns);
    let turn: Turn = Rc::new(move || {
        counter.set(counter.get() + 1);
        Box::pin(std::future::ready(()))
    });
    let model = model(40, turn);
    let long = "a b c d ".repeat(40);
    for grammar in [None, Some(Grammar::Decision { shown: 0 })] {
        let error = generate(&model, &request(&long, grammar)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::ContextOverflow);
    }
    // A prompt that fits, but leaves too little for the shortest decision.
    let words = (1..30).map(|count| "家 ".repeat(count)).find(|text| {
        let messages = request(text, None).messages;
        model.template.encode(&model.tokenizer, &messages).unwrap().len() == 38
    });
    if let Some(text) = words {
        let error = generate(&model, &request(&text, Some(Grammar::Decision { shown: 0 }))).unwrap_err();
        assert_eq!(error.code(), ErrorCode::ContextOverflow);
    }
    assert_eq!(turns.get(), 0);
}

#[test]
fn a_cancellation_is_heard_at_the_next_token() {
    let cancel = Cancel::default();
    let (seen, own) = (Rc::new(Cell::new(0)), cancel.clone());
    let counter = Rc::clone(&seen);
    let turn: Turn = Rc::new(move || {
        counter.set(counter.get() + 1);
        if counter.get() == 5 {
            own.cancel();
        }
        Box::pin(std::future::ready(()))
    });
    let model = model(1024, turn);
    let error = block_on(model.generate(&request("> Hi", None), &cancel, &mut |_| {})).unwrap_err();
    assert_eq!((error.code(), seen.get()), (ErrorCode::Aborted, 5));
}

/// Behind the two blocks of a prompt every token sees what stands before it: a pass over prompt
/// and completion says the same about every chosen token as the generator did.
#[test]
fn a_prefix_model_writes_behind_the_two_blocks_of_its_prompt() {
    let model = prefix_model(no_turn());
    let mut request = request(&"Has a dog named Scout ".repeat(30), None);
    request.max_new_tokens = 12;
    let (generation, _) = generate(&model, &request).unwrap();
    let (prompt, ids) = (&generation.prompt_ids, &generation.ids);
    let LanguageDecoder::Prefix(decoder) = &model.decoder else { unreachable!("it is BERT's family") };
    let first = decoder.config().first_block(prompt);
    assert_eq!(prompt[first - 1], decoder.config().block_token_id.unwrap());
    assert!(first < CHUNK && prompt.len() - first > CHUNK, "{first} {}", prompt.len());
    let known = model.tokenizer.vocabulary_size();
    for (place, (id, logprob)) in ids.iter().zip(&generation.logprobs).enumerate() {
        let mut cache = KvCache::new(decoder.config(), 1, prompt.len() + place, &FlexDevice);
        let mut hidden = None;
        for block in [&prompt[..first], &prompt[first..]] {
            let block = token_tensor(block, &FlexDevice);
            hidden = Some(block_on(decoder.extend_block(block, &mut cache, async || Ok(()))).unwrap());
        }
        if place > 0 {
            hidden = Some(decoder.extend(token_tensor(&ids[..place], &FlexDevice), &mut cache));
        }
        let logits = decoder.logits(hidden.unwrap()).narrow(1, 0, known);
        let logprobs = burn::tensor::activation::log_softmax(logits, 1).into_data();
        let wanted = logprobs.as_slice::<f32>().unwrap()[*id as usize];
        assert!((wanted - logprob).abs() < 1e-3, "{place}: {logprob} instead of {wanted}");
    }
}

#[test]
fn a_prefix_model_decides_validly() {
    let model = prefix_model(no_turn());
    for sample in 0..10 {
        let mut request = request("Has a dog #0\n> Has a cat", Some(Grammar::Decision { shown: 1 }));
        request.sampling.key = [0, 0, sample];
        let (generation, _) = generate(&model, &request).unwrap();
        parse_decision(&generation.text, 1).unwrap();
    }
}

/// A turn before each of the two blocks, one between the two layers of the long one, and one
/// before each token: in every one of them a cancellation is heard.
#[test]
fn a_long_block_gives_turns_between_its_layers() {
    let mut request = request(&"Has a dog named Scout ".repeat(30), None);
    request.max_new_tokens = 3;
    for stop in 1..=6 {
        let cancel = Cancel::default();
        let (seen, own) = (Rc::new(Cell::new(0)), cancel.clone());
        let counter = Rc::clone(&seen);
        let turn: Turn = Rc::new(move || {
            counter.set(counter.get() + 1);
            if counter.get() == stop {
                own.cancel();
            }
            Box::pin(std::future::ready(()))
        });
        let made = block_on(prefix_model(turn).generate(&request, &cancel, &mut |_| {}));
        if stop <= 5 {
            assert_eq!((made.unwrap_err().code(), seen.get()), (ErrorCode::Aborted, stop));
        } else {
            assert_eq!((made.unwrap().ids.len(), seen.get()), (3, 5));
        }
    }
}

/// `cargo test --release --lib speed_of_decoding -- --ignored --nocapture`
#[test]
#[ignore = "prints a speed; run it alone"]
#[allow(clippy::print_stdout)]
fn speed_of_decoding() {
    let decoder = DecoderConfig::nano().init::<Flex>(3, &FlexDevice);
    let tokenizer = testing::trained();
    let template = ChatTemplate::new(None, Some(TEMPLATE)).unwrap();
    let info = model(1024, no_turn()).info;
    let model = LocalModel::new(decoder, tokenizer, template, info, None, no_turn()).unwrap();
    let mut request = request(&"Has a dog named Scout ".repeat(60), None);
    for max_new_tokens in [1, 257, 1, 257] {
        request.max_new_tokens = max_new_tokens;
        request.sampling.temperature = 0.0;
        let start = std::time::Instant::now();
        let (generation, _) = generate(&model, &request).unwrap();
        println!(
            "{} read, {} written: {:.1} ms",
            generation.prompt_ids.len(),
            generation.ids.len(),
            start.elapsed().as_secs_f64() * 1e3
        );
    }
}
