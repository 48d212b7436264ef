//! `generate`: a completion of a prompt.

use std::time::Instant;

use clap::Args;
use futures_lite::future::block_on;
use serde::Serialize;

use super::interrupt::on_interrupt;
use super::model::ModelArguments;
use super::output::Output;
use crate::error::Result;
use crate::generation::{ChatMessage, FinishReason, Generation, Request, Sampling};

/// Chat-templated generation: greedy, or sampled with a temperature and then top-k, top-p, min-p.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// What the user says.
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// What the system says before.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// The most tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: u32,
    /// 0 is greedy.
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = temperature)]
    temperature: f32,
    /// Draw from the K most probable tokens; 0 is all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Draw from the smallest set of tokens with this much probability, 0 to 1; 1 is all.
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = share)]
    top_p: f32,
    /// Draw from tokens at least this probable relative to the best, 0 to 1; 0 is all.
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share)]
    min_p: f32,
    /// End before this text; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// The seed of the random numbers.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// So many completions, side by side; the prompt is read once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    samples: u32,
}

#[derive(Serialize)]
struct Generated {
    prompt_ids: Vec<u32>,
    #[serde(flatten)]
    sample: Sample,
    timing: Timing,
}

#[derive(Serialize)]
struct Several {
    prompt_ids: Vec<u32>,
    samples: Vec<Sample>,
    timing: Timing,
}

#[derive(Serialize)]
struct Sample {
    ids: Vec<u32>,
    /// The natural logarithm of each new token's probability: the model's own at temperature 1, or
    /// with top-k, top-p or min-p that of the distribution drawn from.
    logprobs: Vec<f32>,
    text: String,
    finish_reason: FinishReason,
}

impl From<Generation> for Sample {
    fn from(own: Generation) -> Self {
        let Generation { ids, logprobs, text, finish_reason, .. } = own;
        Self { ids, logprobs, text, finish_reason }
    }
}

#[derive(Serialize)]
struct Timing {
    load_seconds: f64,
    /// Until the first text came.
    first_text_seconds: Option<f64>,
    generate_seconds: f64,
    tokens_per_second: f64,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let start = Instant::now();
    let model = arguments.model.load()?.answer_agent;
    let load_seconds = start.elapsed().as_secs_f64();
    let message =
        |role: &str, content: &String| ChatMessage { role: role.to_owned(), content: content.clone() };
    let mut messages: Vec<ChatMessage> =
        arguments.system.iter().map(|text| message("system", text)).collect();
    messages.push(message("user", &arguments.prompt));
    let request = Request {
        messages,
        grammar: None,
        max_new_tokens: arguments.max_new_tokens as usize,
        sampling: Sampling {
            temperature: arguments.temperature,
            top_k: arguments.top_k,
            top_p: arguments.top_p,
            min_p: arguments.min_p,
            seed: arguments.seed,
            key: [0; 3],
        },
        stop: arguments.stop.clone(),
    };
    let cancel = on_interrupt()?;
    let start = Instant::now();
    let timing = |first_text_seconds, tokens: usize| {
        let generate_seconds = start.elapsed().as_secs_f64();
        let tokens_per_second = tokens as f64 / generate_seconds;
        Timing { load_seconds, first_text_seconds, generate_seconds, tokens_per_second }
    };
    if arguments.samples > 1 {
        let all = block_on(model.samples(&request, arguments.samples as usize, &cancel))?;
        let timing = timing(None, all.iter().map(|own| own.ids.len()).sum());
        let prompt_ids = all.first().map(|own| own.prompt_ids.clone()).unwrap_or_default();
        let several = Several { prompt_ids, samples: all.into_iter().map(Sample::from).collect(), timing };
        let texts = || several.samples.iter().map(|own| &own.text[..]).collect::<Vec<_>>().join("\n");
        return output.result(&several, texts);
    }
    let mut first = None;
    let mut printed = Ok(());
    let generation = block_on(model.generate(&request, &cancel, &mut |text| {
        first.get_or_insert_with(|| start.elapsed().as_secs_f64());
        if !output.is_json() && printed.is_ok() {
            printed = output.write(text);
            if printed.is_err() {
                cancel.cancel();
            }
        }
    }));
    printed?;
    let generation = generation?;
    let timing = timing(first, generation.ids.len());
    if !output.is_json() {
        return output.write("\n");
    }
    let prompt_ids = generation.prompt_ids.clone();
    let generated = Generated { prompt_ids, sample: generation.into(), timing };
    output.result(&generated, String::new)
}

pub(super) fn temperature(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err("a temperature is a number from 0 to 100".to_owned()),
    }
}

fn share(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}
