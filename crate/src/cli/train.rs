//! `train`: nano from synthetic dialogues, by supervision and by reinforcement.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use tracing_subscriber::EnvFilter;

use super::device::Device;
use super::model::compute;
use super::output::Output;
use super::precision::Precision;
use crate::checkpoint::Quantization;
use crate::error::{Error, ErrorCode, Result};
use crate::generation::Cancel;
use crate::training::rl::{self, RlConfig};
use crate::training::{RunConfig, SftConfig, average, export, merge_adapter, run_on as train};

/// Trains a model.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    method: Method,
}

#[derive(Debug, Subcommand)]
enum Method {
    /// Supervised fine-tuning on synthetic dialogues, from scratch.
    Sft(RunArguments),
    /// Reinforcement learning of both agents from outcomes: group relative policy optimisation.
    Grpo(RunArguments),
    /// Reinforcement learning of both agents from outcomes: proximal policy optimisation, with a critic.
    Ppo(RunArguments),
    /// A model with a LoRA adapter, in PEFT's layout, in its weights.
    Merge(MergeArguments),
    /// The mean of several models' weights, all of which went on from the same ones.
    Average(AverageArguments),
    /// A bundle for the browser out of a run.
    Export(ExportArguments),
}

/// The result is a plain model folder.
#[derive(Debug, Args)]
struct MergeArguments {
    /// The model's folder.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,

    /// The adapter's folder: adapter_config.json and adapter_model.safetensors.
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,

    /// The new model's folder; what it held before goes.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// The result is a plain model folder.
#[derive(Debug, Args)]
struct AverageArguments {
    /// The models' folders, of one shape and vocabulary; one that is named twice counts twice.
    #[arg(value_name = "DIR", num_args = 2.., required = true)]
    models: Vec<PathBuf>,

    /// The new model's folder; what it held before goes.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Weights in few bits, with the manifest that the package verifies.
#[derive(Debug, Args)]
struct ExportArguments {
    /// The run's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// A model folder or checkpoint instead of the run's trained model.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,

    /// A command that made that model out of the run's own, for the manifest; may be given several times.
    #[arg(long, value_name = "COMMAND", requires = "model")]
    made_by: Vec<String>,

    /// The bundle's folder; what it held before goes.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// The bundle's name.
    #[arg(long, default_value = "nano")]
    name: String,

    /// How the weights are written (`memory-r1 eval quantization` prints what it costs).
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "f16")]
    quantize: Precision,

    /// How the tables of embeddings are written; without it as the other weights, but beside q4 in q8.
    #[arg(long, value_enum, value_name = "FORMAT")]
    embedding: Option<Precision>,
}

/// A run folder is the configuration's output_dir: checkpoints, metrics.jsonl, and in the end
/// the model. Ctrl-C writes a checkpoint and stops.
#[derive(Debug, Args)]
struct RunArguments {
    /// The configuration, such as configs/nano.toml or configs/grpo.toml.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Go on from the last checkpoint.
    #[arg(long)]
    resume: bool,

    /// Another run folder than the configuration's.
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,

    /// Where it computes: with several GPUs, each has the model and a share of every batch (CUDA_VISIBLE_DEVICES says
    /// which there are).
    #[arg(long, value_enum, default_value_t)]
    device: Device,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    match &arguments.method {
        Method::Sft(arguments) => sft(arguments, output),
        Method::Grpo(arguments) => reinforce(rl::Method::Grpo, arguments, output),
        Method::Ppo(arguments) => reinforce(rl::Method::Ppo, arguments, output),
        Method::Merge(arguments) => {
            merge_adapter(&arguments.model, &arguments.adapter, &arguments.out)?;
            output.result(&json!({ "path": arguments.out }), || {
                format!("the merged model is in {}", arguments.out.display())
            })
        }
        Method::Average(arguments) => {
            average(&arguments.models, &arguments.out)?;
            output.result(&json!({ "path": arguments.out }), || {
                format!("the mean of {} models is in {}", arguments.models.len(), arguments.out.display())
            })
        }
        Method::Export(arguments) => bundle(arguments, output),
    }
}

fn read_config<C: RunConfig>(path: &Path) -> Result<C> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::new(ErrorCode::NotReachable, format!("{} could not be read", path.display()))
            .with_source(error)
    })?;
    C::parse(&text)
}

fn bundle(arguments: &ExportArguments, output: &mut Output) -> Result<()> {
    let config: SftConfig = read_config(&arguments.config)?;
    let model = arguments.model.clone().unwrap_or_else(|| config.output_dir.join("model"));
    let precision = (arguments.quantize.into(), arguments.embedding.map(Quantization::from));
    let bytes = export(&config, &arguments.name, precision, (&model, &arguments.made_by), &arguments.out)?;
    output.result(&json!({ "path": arguments.out, "bytes": bytes }), || {
        format!("the bundle is in {} ({bytes} bytes)", arguments.out.display())
    })
}

/// Progress goes to standard error; Ctrl-C stops the run at its next step.
fn listen() -> Result<Cancel> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Another subscriber may be there already; then it gets the lines.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .try_init();
    let stop = Cancel::default();
    let handle = stop.clone();
    ctrlc::set_handler(move || handle.cancel())
        .map_err(|error| Error::internal("Ctrl-C cannot be listened to").with_source(error))?;
    Ok(stop)
}

/// Where the outcome of a run is.
fn told(finished: bool, path: &Path, step: u64) -> String {
    let what = if finished { "the trained model" } else { "a checkpoint to resume from" };
    format!("{what} is in {} (step {step})", path.display())
}

fn sft(arguments: &RunArguments, output: &mut Output) -> Result<()> {
    let mut config: SftConfig = read_config(&arguments.config)?;
    if let Some(folder) = &arguments.output_dir {
        config.output_dir.clone_from(folder);
    }
    let compute = compute(arguments.device)?;
    let outcome = train(&*compute, &config, arguments.resume, &listen()?)?;
    let (eval_loss, eval_exact_match) = outcome.eval.unzip();
    let value = json!({
        "step": outcome.step,
        "finished": outcome.finished,
        "path": outcome.path,
        "eval_loss": eval_loss,
        "eval_exact_match": eval_exact_match,
    });
    output.result(&value, || told(outcome.finished, &outcome.path, outcome.step))
}

fn reinforce(method: rl::Method, arguments: &RunArguments, output: &mut Output) -> Result<()> {
    let mut config: RlConfig = read_config(&arguments.config)?;
    if let Some(folder) = &arguments.output_dir {
        config.output_dir.clone_from(folder);
    }
    let compute = compute(arguments.device)?;
    let outcome = rl::run_on(&*compute, method, &config, arguments.resume, &listen()?)?;
    let value = json!({
        "step": outcome.step,
        "finished": outcome.finished,
        "path": outcome.path,
        "eval": outcome.eval,
    });
    output.result(&value, || told(outcome.finished, &outcome.path, outcome.step))
}
