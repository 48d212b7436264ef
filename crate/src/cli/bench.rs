//! `bench`: speed, beside what the machine can do.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use futures_lite::future::block_on;
use serde::Serialize;

use super::device::Device;
use super::interrupt::on_interrupt;
use super::model::{ModelArguments, OnBackend, compute, on_backend, read_folder};
use super::output::Output;
use super::precision::Precision;
use super::progress::Progress;
use crate::checkpoint::{CONFIG, Quantization, WEIGHTS, small, write_weights_file};
use crate::error::{Error, ErrorCode, Result};
use crate::evaluation::speed::{
    DecodeSpeed, LoadSpeed, PrefillSpeed, RetrievalSpeed, TrainSize, TrainSpeed, decode, load, prefill,
    random_decoder, random_values, retrieval, shape, train,
};
use crate::generation::Cancel;
use crate::kernels::{Format, Kernels};
use crate::nn::LanguageDecoder;
use crate::training::Precision as Passes;
use crate::training::network::Layout;

/// Speed, with the machine's own limit measured in the same run.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Tokens written one after the other.
    Decode(DecodeArguments),
    /// A prompt read at once.
    Prefill(PrefillArguments),
    /// From files to a model that can be asked.
    Load(LoadArguments),
    /// Steps of supervised training, every weight moved.
    Train(TrainArguments),
    /// The nearest of many vectors, searched exactly.
    Retrieval(RetrievalArguments),
    /// A model's folder with random weights, in 16 bits: for `pack`, and for what cannot make them itself.
    Random(RandomArguments),
}

#[derive(Debug, Args)]
struct Subject {
    #[command(flatten)]
    model: ModelArguments,
    /// A model of this shape with random weights instead: nano, minilm-prefix, qwen2.5-0.5b,
    /// qwen2.5-1.5b, qwen2.5-3b, qwen3-0.6b, llama-3.2-1b.
    #[arg(long, value_name = "SHAPE", conflicts_with = "model")]
    random: Option<String>,
    /// How the random weights lie in memory: f32, f16, q8 or q4; a folder's are as they lie there.
    #[arg(long, value_enum, value_name = "FORMAT", requires = "random")]
    quantize: Option<Precision>,
    /// The seed of random weights.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Args)]
struct DecodeArguments {
    #[command(flatten)]
    subject: Subject,
    /// How many tokens stand before.
    #[arg(long, value_name = "N", default_value_t = 128)]
    prompt_tokens: usize,
    /// How many are written.
    #[arg(long, value_name = "N", default_value_t = 64)]
    new_tokens: usize,
    /// How many texts are written side by side, behind prompts of different lengths.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    rows: u16,
}

#[derive(Debug, Args)]
struct PrefillArguments {
    #[command(flatten)]
    subject: Subject,
    /// How many tokens the prompt has.
    #[arg(long, value_name = "N", default_value_t = 256)]
    prompt_tokens: usize,
    /// How often it is read.
    #[arg(long, value_name = "N", default_value_t = 10)]
    runs: usize,
}

#[derive(Debug, Args)]
struct TrainArguments {
    /// The model's shape, with random weights: nano, minilm-prefix, qwen2.5-0.5b, qwen2.5-1.5b, qwen2.5-3b, qwen3-0.6b,
    /// llama-3.2-1b.
    #[arg(long, value_name = "SHAPE", default_value = "nano")]
    random: String,
    /// The seed of the weights.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Where it computes; with several GPUs, each takes its share of the sequences.
    #[arg(long, value_enum, default_value_t)]
    device: Device,
    /// How many sequences a step has.
    #[arg(long, value_name = "N", default_value_t = 8)]
    sequences: usize,
    /// How many tokens each has.
    #[arg(long, value_name = "N", default_value_t = 256)]
    tokens: usize,
    /// How many threads, on the CPU.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Multiply in bfloat16 (a GPU's).
    #[arg(long)]
    bf16: bool,
    /// Compute activations again instead of keeping them.
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Train an adapter of this rank on all projections instead of the weights.
    #[arg(long, value_name = "RANK")]
    lora: Option<usize>,
    /// How many steps.
    #[arg(long, value_name = "N", default_value_t = 10)]
    runs: usize,
}

#[derive(Debug, Args)]
struct LoadArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// How often.
    #[arg(long, value_name = "N", default_value_t = 10)]
    runs: usize,
}

#[derive(Debug, Args)]
struct RetrievalArguments {
    /// How many vectors.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    memories: usize,
    /// How many numbers a vector has.
    #[arg(long, value_name = "N", default_value_t = 384)]
    width: usize,
    /// How many are wanted.
    #[arg(long, value_name = "N", default_value_t = 60)]
    top_k: usize,
    /// How many searches.
    #[arg(long, value_name = "N", default_value_t = 50)]
    runs: usize,
    /// The seed of the vectors.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Args)]
struct RandomArguments {
    /// The model's shape: nano, qwen2.5-0.5b, qwen2.5-1.5b, qwen2.5-3b, qwen3-0.6b, llama-3.2-1b.
    #[arg(long, value_name = "SHAPE")]
    shape: String,
    /// The folder whose tokenizer it has.
    #[command(flatten)]
    tokenizer: ModelArguments,
    /// The seed of the weights.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The folder to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let cancel = on_interrupt()?;
    match &arguments.what {
        What::Decode(own) => {
            let work = Decode { own, cancel: &cancel, output };
            let speed = on_device(&own.subject.model, work)?;
            output.result(&speed, || decoded(&speed))
        }
        What::Prefill(own) => {
            let work = Prefill { own, cancel: &cancel, output };
            let speed = on_device(&own.subject.model, work)?;
            output.result(&speed, || prefilled(&speed))
        }
        What::Load(own) => {
            let work = Load { own, cancel: &cancel, output };
            let speed = on_device(&own.model, work)?;
            output.result(&speed, || loaded(&speed))
        }
        What::Train(own) => {
            own.device.require()?;
            let speed = on_backend(own.device, Train { own, cancel: &cancel, output })?;
            output.result(&speed, || trained(&speed))
        }
        What::Retrieval(own) => {
            let sizes = (own.memories, own.width, own.top_k);
            let mut progress = Progress::new(own.runs as u64);
            let mut heard = |done: usize| progress.at(done as u64, own.runs as u64, "searches", output);
            let speed = retrieval(sizes, own.runs, own.seed, &cancel, &mut heard);
            progress.finish();
            let speed = speed?;
            output.result(&speed, || searched(&speed))
        }
        What::Random(own) => {
            let written = own.write()?;
            output.result(&written, || format!("{} bytes of weights in {}", written.bytes, own.out.display()))
        }
    }
}

fn on_device<W: OnBackend>(model: &ModelArguments, work: W) -> Result<W::Output> {
    model.device.require()?;
    on_backend(model.device, work)
}

#[derive(Serialize)]
struct Written {
    bytes: u64,
}

impl RandomArguments {
    fn write(&self) -> Result<Written> {
        let config = shape(&self.shape)?;
        let files = read_folder(&self.tokenizer.folder()?)?;
        let unwritable = |cause| {
            let text = format!("{} could not be written", self.out.display());
            Error::new(ErrorCode::NotReachable, text).with_source(cause)
        };
        fs::create_dir_all(&self.out).map_err(unwritable)?;
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            let Some(bytes) = small(&files, name) else { continue };
            fs::write(self.out.join(name), bytes).map_err(unwritable)?;
        }
        fs::write(self.out.join(CONFIG), config.to_json()).map_err(unwritable)?;
        let path = self.out.join(WEIGHTS);
        write_weights_file(&path, &config.parameters(), Quantization::F16, |spec| {
            random_values(spec, self.seed)
        })?;
        Ok(Written { bytes: fs::metadata(&path).map_err(unwritable)?.len() })
    }
}

impl Subject {
    /// What random matrices consist of.
    fn format(&self) -> Result<Format> {
        match self.quantize {
            None | Some(Precision::F32) => Ok(Format::F32),
            Some(Precision::F16) => Ok(Format::F16),
            Some(Precision::Q8) => Ok(Format::Q8),
            Some(Precision::Q4) => Ok(Format::Q4),
            Some(Precision::Q6) => Err(Error::invalid(
                "in memory weights have 32, 16, 8 or 4 bits: give --quantize f32, f16, q8 or q4",
            )),
        }
    }

    fn build<B: Kernels>(&self) -> Result<LanguageDecoder<B>> {
        let device = B::Device::default();
        match &self.random {
            Some(name) => random_decoder(&shape(name)?, self.format()?, self.seed, &device),
            None => crate::checkpoint::read_decoder(&read_folder(&self.model.folder()?)?, &device),
        }
    }
}

struct Decode<'a> {
    own: &'a DecodeArguments,
    cancel: &'a Cancel,
    output: &'a Output,
}

impl OnBackend for Decode<'_> {
    type Output = DecodeSpeed;

    fn run<B: Kernels>(self) -> Result<DecodeSpeed> {
        let (decoder, new) = (self.own.subject.build::<B>()?, self.own.new_tokens);
        let sizes = [self.own.prompt_tokens, new, self.own.rows.into()];
        let mut progress = Progress::new(new as u64);
        let mut heard = |done: usize| progress.at(done as u64, new as u64, "tokens", self.output);
        let speed = block_on(decode(&decoder, sizes, self.cancel, &mut heard));
        progress.finish();
        speed
    }
}

struct Prefill<'a> {
    own: &'a PrefillArguments,
    cancel: &'a Cancel,
    output: &'a Output,
}

impl OnBackend for Prefill<'_> {
    type Output = PrefillSpeed;

    fn run<B: Kernels>(self) -> Result<PrefillSpeed> {
        let (decoder, runs) = (self.own.subject.build::<B>()?, self.own.runs);
        let mut progress = Progress::new(runs as u64);
        let mut heard = |done: usize| progress.at(done as u64, runs as u64, "prompts", self.output);
        let speed = block_on(prefill(&decoder, self.own.prompt_tokens, runs, self.cancel, &mut heard));
        progress.finish();
        speed
    }
}

struct Train<'a> {
    own: &'a TrainArguments,
    cancel: &'a Cancel,
    output: &'a Output,
}

impl OnBackend for Train<'_> {
    type Output = TrainSpeed;

    fn run<B: Kernels>(self) -> Result<TrainSpeed> {
        let (own, runs) = (self.own, self.own.runs);
        let layout = Layout::new(shape(&own.random)?)?;
        let parameters = layout.initialize(own.seed);
        let precision = Passes {
            bf16: own.bf16,
            gradient_checkpointing: own.gradient_checkpointing,
            ..Passes::default()
        };
        let (sequences, tokens, threads) = (own.sequences, own.tokens, own.threads.into());
        let size = TrainSize { sequences, tokens, threads, precision, lora: own.lora };
        let mut progress = Progress::new(runs as u64);
        let mut heard = |done: usize| progress.at(done as u64, runs as u64, "steps", self.output);
        let compute = compute(own.device)?;
        let speed = train::<B>(&*compute, (&layout, parameters), size, runs, self.cancel, &mut heard);
        progress.finish();
        speed
    }
}

struct Load<'a> {
    own: &'a LoadArguments,
    cancel: &'a Cancel,
    output: &'a Output,
}

impl OnBackend for Load<'_> {
    type Output = LoadSpeed;

    fn run<B: Kernels>(self) -> Result<LoadSpeed> {
        let (files, runs) = (read_folder(&self.own.model.folder()?)?, self.own.runs);
        let mut progress = Progress::new(runs as u64);
        let mut heard = |done: usize| progress.at(done as u64, runs as u64, "loads", self.output);
        let speed = block_on(load::<B>(&files, &B::Device::default(), runs, self.cancel, &mut heard));
        progress.finish();
        speed
    }
}

fn decoded(speed: &DecodeSpeed) -> String {
    format!(
        "{:.1} tokens a second in {} texts behind {} tokens (p50 {:.2} ms, p95 {:.2} ms)\n{:.2} GB of weights a second, {:.0} % of the {:.2} that the machine copies",
        speed.tokens_per_second,
        speed.rows,
        speed.prompt_tokens,
        speed.token.p50_ms,
        speed.token.p95_ms,
        speed.bytes_per_second / 1e9,
        speed.percent_of_copy,
        speed.copy_bytes_per_second / 1e9,
    )
}

fn prefilled(speed: &PrefillSpeed) -> String {
    format!(
        "{:.0} tokens a second, {} at once (p50 {:.1} ms, p95 {:.1} ms)\n{:.1} GFLOP/s, {:.0} % of the {:.1} of a matrix product",
        speed.tokens_per_second,
        speed.prompt_tokens,
        speed.prompt.p50_ms,
        speed.prompt.p95_ms,
        speed.flops / 1e9,
        speed.percent_of_matmul,
        speed.matmul_flops / 1e9,
    )
}

fn trained(speed: &TrainSpeed) -> String {
    format!(
        "{:.0} tokens a second, {} sequences of {} in {} parts (p50 {:.1} ms a step, {:.1} ms of it for the gradient)\n{:.1} GFLOP/s, {:.0} % of the {:.1} of a matrix product",
        speed.tokens_per_second,
        speed.sequences,
        speed.sequence_tokens,
        speed.workers,
        speed.step.p50_ms,
        speed.gradient.p50_ms,
        speed.flops / 1e9,
        speed.percent_of_matmul,
        speed.matmul_flops / 1e9,
    )
}

fn loaded(speed: &LoadSpeed) -> String {
    format!(
        "{} bytes in {:.1} ms (p95 {:.1} ms), {:.0} MB a second",
        speed.bytes,
        speed.load.p50_ms,
        speed.load.p95_ms,
        speed.bytes_per_second / 1e6,
    )
}

fn searched(speed: &RetrievalSpeed) -> String {
    format!(
        "{} of {} vectors of {} in {:.2} ms (p95 {:.2} ms), recall {}\n{:.2} GB a second, {:.0} % of the {:.2} that a thread copies",
        speed.top_k,
        speed.memories,
        speed.width,
        speed.search.p50_ms,
        speed.search.p95_ms,
        speed.recall,
        speed.bytes_per_second / 1e9,
        speed.percent_of_copy,
        speed.copy_bytes_per_second / 1e9,
    )
}
