//! `pack`: a bundle for the browser out of a model's folder.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::backend::flex::FlexDevice;
use clap::Args;
use futures_lite::future::block_on;
use serde::Serialize;

use super::asking::{Asking, Prompts};
use super::model::{read_folder, read_model};
use super::output::Output;
use super::precision::Precision;
use crate::checkpoint::{
    Files, MANIFEST, Manifest, PackOptions, Quantization, WEIGHTS, add_extractor, extractor, fingerprint,
    is_notice, pack, total, verify,
};
use crate::error::{Error, ErrorCode, Result};

/// Makes a bundle: weights in one file, a manifest with the hash of every file. What is not said
/// is taken from the folder's own manifest, or else from the bundle that it is like.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The model's folder, in Hugging Face's layout or a bundle.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// How the weights are written (`memory-r1 eval quantization` prints what it costs).
    #[arg(long, value_enum, value_name = "FORMAT")]
    quantize: Precision,
    /// How the tables of embeddings are written; without it as the other weights, but beside q4 in q8.
    #[arg(long, value_enum, value_name = "FORMAT")]
    embedding: Option<Precision>,
    /// A bundle that this one is like: a run's model, which has no manifest, is asked in the words of the bundle that it
    /// went on from, is shown as many memories, and takes its licence and its extractor.
    #[arg(long, value_name = "DIR")]
    like: Option<PathBuf>,
    /// A bundle with the same tokenizer whose extractor, or else its model, takes the facts out of turns.
    #[arg(long, value_name = "DIR")]
    extractor: Option<PathBuf>,
    /// The bundle's folder; what a bundle in it had before is replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The bundle's name; the folder's without it.
    #[arg(long)]
    name: Option<String>,
    /// The longest prompt and completion together, in tokens.
    #[arg(long, value_name = "N")]
    context_length: Option<usize>,
    #[command(flatten)]
    asking: Asking,
    /// The weights' licence, an SPDX expression.
    #[arg(long)]
    licence: Option<String>,
}

#[derive(Serialize)]
struct Packed {
    name: String,
    bytes: u64,
    fingerprint: String,
    files: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let mut files = read_model(&arguments.model)?;
    let own = verify(&files)?;
    let like = arguments.like.as_deref().map(read_like).transpose()?;
    // The other's licence is that of a model which has none of its own.
    let licensed = like.iter().filter(|_| own.is_none()).flat_map(|(files, _)| files);
    for (name, content) in licensed.filter(|(name, _)| is_notice(name)) {
        files.entry(name.clone()).or_insert_with(|| content.clone());
    }
    let options = options(arguments, own.as_ref(), like.as_ref().map(|(_, manifest)| manifest))?;
    fs::create_dir_all(&arguments.out).map_err(|error| unwritable(&arguments.out, error))?;
    let weights = partial(&arguments.out, WEIGHTS);
    let packing = pack::<burn::backend::Flex>(&files, &options, Some(&weights), &FlexDevice);
    let mut bundle = block_on(packing).inspect_err(|_| drop(fs::remove_file(&weights)))?;
    let given = match &arguments.extractor {
        Some(folder) => {
            let files = read_model(folder)?;
            Some(extractor(&files)?.unwrap_or(files))
        }
        None if extractor(&bundle)?.is_some() => None,
        None => like.map(|(files, _)| extractor(&files)).transpose()?.flatten(),
    };
    if let Some(files) = given {
        add_extractor(&mut bundle, &files)?;
    }
    write(&arguments.out, &bundle)?;
    let packed = Packed {
        name: verify(&bundle)?.map_or(String::new(), |manifest| manifest.name),
        bytes: total(&bundle),
        fingerprint: fingerprint(&bundle)?,
        files: bundle.keys().cloned().collect(),
    };
    output.result(&packed, || {
        format!(
            "{} of {:.2} MiB in {}",
            packed.name,
            packed.bytes as f64 / 1_048_576.0,
            arguments.out.display()
        )
    })
}

/// A bundle and its manifest.
fn read_like(folder: &Path) -> Result<(Files, Manifest)> {
    let files = read_model(folder)?;
    let manifest = verify(&files)?.ok_or_else(|| {
        Error::invalid(format!("--like: {} is no bundle: it has no manifest", folder.display()))
    })?;
    Ok((files, manifest))
}

fn options(arguments: &Arguments, own: Option<&Manifest>, like: Option<&Manifest>) -> Result<PackOptions> {
    let folder = fs::canonicalize(&arguments.model).ok();
    let folder_name =
        folder.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let asking = &arguments.asking;
    let prompts = asking.prompts.map(|prompts| match prompts {
        Prompts::Instruct => "instruct".to_owned(),
        Prompts::Compact => "compact".to_owned(),
    });
    let name = if own.is_none() { folder_name } else { None };
    let own = PackOptions::of(own.or(like));
    let mut training = own.training;
    // As it was typed: what made a bundle stands in its manifest.
    let typed: Vec<String> = std::env::args().skip(1).collect();
    training.commands.push(format!("memory-r1 {}", typed.join(" ")));
    let licence = arguments.licence.clone().unwrap_or(own.licence);
    if licence.is_empty() {
        return Err(Error::invalid("under which licence are the weights? give --licence"));
    }
    Ok(PackOptions {
        name: arguments.name.clone().or(name).unwrap_or(own.name),
        quantization: arguments.quantize.into(),
        embedding_quantization: arguments.embedding.map(Quantization::from),
        prompt_family: prompts.unwrap_or(own.prompt_family),
        context_length: arguments.context_length.or(own.context_length),
        candidates_per_speaker: asking.candidates_per_speaker.unwrap_or(own.candidates_per_speaker),
        manager_candidates: asking.manager_candidates.unwrap_or(own.manager_candidates),
        extractor_candidates: asking.extractor_candidates.unwrap_or(own.extractor_candidates),
        fact_threshold: asking.fact_threshold.unwrap_or(own.fact_threshold),
        licence,
        training,
    })
}

fn unwritable(folder: &Path, cause: std::io::Error) -> Error {
    Error::new(ErrorCode::NotReachable, format!("{} could not be written", folder.display()))
        .with_source(cause)
}

/// Where a file lies until it is whole.
fn partial(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.partial"))
}

/// Writes a bundle's files, the manifest last: a folder with a manifest is whole. The weights lie beside their place
/// already. What is read of an old bundle in the folder may be written there again.
fn write(folder: &Path, bundle: &Files) -> Result<()> {
    let unwritable = |error| unwritable(folder, error);
    match fs::remove_file(folder.join(MANIFEST)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(unwritable(error)),
        _ => (),
    }
    for (name, content) in bundle.iter().filter(|(name, _)| *name != WEIGHTS) {
        let mut file = fs::File::create(partial(folder, name)).map_err(unwritable)?;
        content.each_piece(|piece| file.write_all(piece).map_err(unwritable))?;
    }
    for stale in read_folder(folder).unwrap_or_default().keys().filter(|name| name.ends_with(".safetensors"))
    {
        fs::remove_file(folder.join(stale)).map_err(unwritable)?;
    }
    let (manifest, others): (Vec<_>, Vec<_>) = bundle.keys().partition(|name| *name == MANIFEST);
    for name in others.into_iter().chain(manifest) {
        fs::rename(partial(folder, name), folder.join(name)).map_err(unwritable)?;
    }
    Ok(())
}
