//! `train`: nano from synthetic dialogues.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use tracing_subscriber::EnvFilter;

use super::output::Output;
use super::precision::Precision;
use crate::checkpoint::Quantization;
use crate::error::{Error, ErrorCode, Result};
use crate::generation::Cancel;
use crate::training::{SftConfig, export, run as train};

/// Trains a model.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    method: Method,
}

#[derive(Debug, Subcommand)]
enum Method {
    /// Supervised fine-tuning on synthetic dialogues, from scratch.
    Sft(SftArguments),
    /// A bundle for the browser out of a run.
    Export(ExportArguments),
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

    /// The bundle's folder; what it held before goes.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// The bundle's name.
    #[arg(long, default_value = "nano")]
    name: String,

    /// How the weights are written (`memory-r1 eval quantization` prints what it costs).
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "f16")]
    quantize: Precision,

    /// How the tables of embeddings are written, where not as the other weights.
    #[arg(long, value_enum, value_name = "FORMAT")]
    embedding: Option<Precision>,
}

/// A run folder is the configuration's output_dir: checkpoints, metrics.jsonl, and in the end
/// the model. Ctrl-C writes a checkpoint and stops.
#[derive(Debug, Args)]
struct SftArguments {
    /// The configuration, such as configs/nano.toml.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Go on from the last checkpoint.
    #[arg(long)]
    resume: bool,

    /// Another run folder than the configuration's.
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    match &arguments.method {
        Method::Sft(arguments) => sft(arguments, output),
        Method::Export(arguments) => bundle(arguments, output),
    }
}

fn read_config(path: &Path) -> Result<SftConfig> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::new(ErrorCode::NotReachable, format!("{} could not be read", path.display()))
            .with_source(error)
    })?;
    SftConfig::parse(&text)
}

fn bundle(arguments: &ExportArguments, output: &mut Output) -> Result<()> {
    let config = read_config(&arguments.config)?;
    let model = arguments.model.clone().unwrap_or_else(|| config.output_dir.join("model"));
    let precision = (arguments.quantize.into(), arguments.embedding.map(Quantization::from));
    let bytes = export(&config, &arguments.name, precision, &model, &arguments.out)?;
    output.result(&json!({ "path": arguments.out, "bytes": bytes }), || {
        format!("the bundle is in {} ({bytes} bytes)", arguments.out.display())
    })
}

fn sft(arguments: &SftArguments, output: &mut Output) -> Result<()> {
    let mut config = read_config(&arguments.config)?;
    if let Some(folder) = &arguments.output_dir {
        config.output_dir.clone_from(folder);
    }
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
    let outcome = train(&config, arguments.resume, &stop)?;
    let (eval_loss, eval_exact_match) = outcome.eval.unzip();
    let value = json!({
        "step": outcome.step,
        "finished": outcome.finished,
        "path": outcome.path,
        "eval_loss": eval_loss,
        "eval_exact_match": eval_exact_match,
    });
    output.result(&value, || {
        let what = if outcome.finished { "the trained model" } else { "a checkpoint to resume from" };
        format!("{what} is in {} (step {})", outcome.path.display(), outcome.step)
    })
}
