//! A run on disk: configuration, metrics and checkpoints, whole at every moment.
//!
//! ```text
//! config.toml            what was asked for
//! metrics.jsonl          one object a report, under TRL's names
//! events.out.tfevents…   the same for TensorBoard, a file for every start
//! samples.jsonl          a few completions at each validation
//! checkpoint-500/        a Hugging Face folder (model.safetensors, config.json, tokenizer…)
//!   optimizer.safetensors, more.safetensors, trainer_state.json    what resuming needs beside it
//! model/                 the same folder without these, at the end
//! adapter/               in PEFT's layout, where an adapter was trained; model/ has it in its weights
//! ```
//!
//! A checkpoint is written under another name, flushed and renamed: a process killed at any
//! moment leaves the previous one.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bpe::TokenizerFiles;
use super::lora::Lora;
use super::network::Layout;
use super::optimizer::Moments;
use crate::checkpoint::{Files, LEXICON, WORD_VECTORS};
use crate::error::{Error, ErrorCode, Result};

/// What a checkpoint has of the optimiser's memory.
const OPTIMIZER: &str = "optimizer.safetensors";
/// What else a run needs to go on: a critic, an adapter.
const MORE: &str = "more.safetensors";

/// What a run is made of between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainerState {
    /// Steps done.
    pub step: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Seconds spent.
    pub seconds: f64,
    /// The weights.
    pub parameters: Vec<f32>,
    /// The optimiser's memory of them; empty where an adapter alone learns.
    pub moments: Moments,
    /// What else the run keeps between steps.
    pub more: Value,
}

#[derive(Serialize, Deserialize)]
struct Counters {
    format: u32,
    step: u64,
    tokens: u64,
    seconds: f64,
    more: Value,
    /// How long the logs were, in bytes.
    logs: BTreeMap<String, u64>,
}

const STATE_FORMAT: u32 = 2;
const LOGS: [&str; 3] = ["metrics.jsonl", "samples.jsonl", "timings.jsonl"];

/// What a run is asked for.
pub trait RunConfig: Serialize + PartialEq + Sized {
    /// Reads it; an unknown or senseless option is an error that names it.
    fn parse(text: &str) -> Result<Self>;

    /// Where the run is.
    fn output_dir(&self) -> &Path;

    /// What a run may not change when it resumes: everything but where it is, how long it may
    /// take and how often it reports.
    fn identity(&self) -> Self;
}

/// The folder of a run.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// A new run; a folder that holds one already is an error.
    pub fn create(config: &impl RunConfig) -> Result<Self> {
        let path = config.output_dir().to_owned();
        if path.join("config.toml").exists() {
            return Err(Error::invalid(format!(
                "{} holds a run already: pass --resume to go on with it, or choose another output_dir",
                path.display()
            )));
        }
        fs::create_dir_all(&path).map_err(|error| io(&path, "created", error))?;
        let text = toml::to_string(config)
            .map_err(|error| Error::internal("the configuration as TOML").with_source(error))?;
        let folder = Self { path };
        write_atomically(&folder.path.join("config.toml"), text.as_bytes())?;
        Ok(folder)
    }

    /// A run that is there; one that was started with other options is an error.
    pub fn open<C: RunConfig>(config: &C) -> Result<Self> {
        let folder = Self { path: config.output_dir().to_owned() };
        let started = C::parse(&read_text(&folder.path.join("config.toml"))?)?;
        if started.identity() != config.identity() {
            return Err(Error::invalid(format!(
                "{} was started with other options: see its config.toml",
                folder.path.display()
            )));
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a checkpoint, and beside the rest of it one more file of named numbers, where there are any; then
    /// drops the oldest beyond `keep`.
    pub fn save(
        &self,
        layout: &Layout,
        tokenizer: &TokenizerFiles,
        state: &TrainerState,
        values: &[(&str, &[f32])],
        keep: usize,
    ) -> Result<PathBuf> {
        let path = self.path.join(format!("checkpoint-{}", state.step));
        replace_folder(&path, |partial| {
            write_model(partial, layout, tokenizer, &state.parameters)?;
            let moments = [("mean", &state.moments.mean[..]), ("square", &state.moments.square)];
            // Where an adapter alone learns, nothing is remembered of the weights.
            let moments = &moments[..if state.moments.mean.is_empty() { 0 } else { 2 }];
            for (name, values) in [(OPTIMIZER, moments), (MORE, values)] {
                if !values.is_empty() {
                    let views = values.iter().map(|(name, own)| ((*name).to_owned(), vec![own.len()], *own));
                    write(&partial.join(name), &tensors(views)?)?;
                }
            }
            let (step, tokens, seconds) = (state.step, state.tokens, state.seconds);
            let logs = self.log_lengths();
            let counters =
                Counters { format: STATE_FORMAT, step, tokens, seconds, more: state.more.clone(), logs };
            write(&partial.join("trainer_state.json"), json(&counters)?.as_bytes())
        })?;
        let checkpoints = self.checkpoints()?;
        for (_, old) in checkpoints.iter().take(checkpoints.len().saturating_sub(keep)) {
            fs::remove_dir_all(old).map_err(|error| io(old, "removed", error))?;
        }
        Ok(path)
    }

    /// Writes the adapter of a run that began as the model in the folder `base`.
    pub fn save_adapter(&self, lora: &Lora, base: &Path) -> Result<()> {
        lora.save(&self.path.join("adapter"), &base.display().to_string())
    }

    /// Writes a model as a plain Hugging Face folder of this name.
    pub fn save_model(
        &self,
        name: &str,
        layout: &Layout,
        tokenizer: &TokenizerFiles,
        parameters: &[f32],
    ) -> Result<PathBuf> {
        let path = self.path.join(name);
        write_model_folder(&path, layout, tokenizer, parameters)?;
        Ok(path)
    }

    /// The latest checkpoint, with its tokenizer; nothing before the first one. Where an adapter learned, nothing is
    /// remembered of the weights.
    pub fn load_latest(
        &self,
        layout: &Layout,
        is_adapted: bool,
    ) -> Result<Option<(TrainerState, TokenizerFiles)>> {
        let Some((_, path)) = self.checkpoints()?.pop() else { return Ok(None) };
        let counters = read_counters(&path)?;
        let moments = if is_adapted {
            Moments::new(0)
        } else {
            let optimizer = read_tensors(&path.join(OPTIMIZER))?;
            let moment = |name: &str| {
                let values = optimizer.get(name).filter(|values| values.len() == layout.len());
                values.cloned().ok_or_else(|| broken(&path))
            };
            Moments { mean: moment("mean")?, square: moment("square")? }
        };
        let state = TrainerState {
            step: counters.step,
            tokens: counters.tokens,
            seconds: counters.seconds,
            parameters: read_model(&path, layout)?,
            moments,
            more: counters.more,
        };
        Ok(Some((state, TokenizerFiles::load(&path)?)))
    }

    /// The numbers that [`Self::save`] wrote beside the latest checkpoint; nothing where there are none.
    pub fn load_more(&self) -> Result<HashMap<String, Vec<f32>>> {
        let Some((_, path)) = self.checkpoints()?.pop() else { return Ok(HashMap::new()) };
        let path = path.join(MORE);
        if path.exists() { read_tensors(&path) } else { Ok(HashMap::new()) }
    }

    /// The whole checkpoints, oldest first.
    pub fn checkpoints(&self) -> Result<Vec<(u64, PathBuf)>> {
        let entries = fs::read_dir(&self.path).map_err(|error| io(&self.path, "read", error))?;
        let mut found: Vec<(u64, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name();
                Some((name.to_str()?.strip_prefix("checkpoint-")?.parse().ok()?, entry.path()))
            })
            .collect();
        found.sort();
        Ok(found)
    }

    /// Appends a line to one of the logs.
    pub fn log(&self, name: &str, line: &Value) -> Result<()> {
        let path = self.path.join(name);
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|error| io(&path, "opened", error))?;
        file.write_all(format!("{line}\n").as_bytes()).map_err(|error| io(&path, "written", error))
    }

    fn log_lengths(&self) -> BTreeMap<String, u64> {
        let length = |name: &str| Some((name.to_owned(), fs::metadata(self.path.join(name)).ok()?.len()));
        LOGS.into_iter().filter_map(length).collect()
    }

    /// Takes out of the logs what was written since the latest checkpoint: it will be written again.
    pub fn rewind_logs(&self) -> Result<()> {
        let logs = match self.checkpoints()?.pop() {
            Some((_, path)) => read_counters(&path)?.logs,
            None => BTreeMap::new(),
        };
        for name in LOGS {
            let path = self.path.join(name);
            if !path.exists() {
                continue;
            }
            let length = logs.get(name).copied().unwrap_or_default();
            let file = File::options().write(true).open(&path).map_err(|error| io(&path, "opened", error))?;
            let own = file.metadata().map_err(|error| io(&path, "read", error))?.len();
            file.set_len(length.min(own)).map_err(|error| io(&path, "written", error))?;
        }
        Ok(())
    }
}

fn read_counters(checkpoint: &Path) -> Result<Counters> {
    let text = read_text(&checkpoint.join("trainer_state.json"))?;
    let wrong = |error| broken(checkpoint).with_source(error);
    let found: Value = serde_json::from_str(&text).map_err(wrong)?;
    if found["format"] != STATE_FORMAT {
        return Err(Error::new(
            ErrorCode::ModelUnsupported,
            format!("{} was written by another version", checkpoint.display()),
        ));
    }
    serde_json::from_value(found).map_err(wrong)
}

/// Reads the weights of a Hugging Face folder into the flat buffer.
pub fn read_model(folder: &Path, layout: &Layout) -> Result<Vec<f32>> {
    let found = read_tensors(&folder.join("model.safetensors"))?;
    let mut parameters = vec![0.0; layout.len()];
    for tensor in &layout.tensors {
        let values = found.get(&tensor.name).filter(|values| values.len() == tensor.len());
        parameters[tensor.range()].copy_from_slice(values.ok_or_else(|| broken(folder))?);
    }
    Ok(parameters)
}

fn write_model(folder: &Path, layout: &Layout, tokenizer: &TokenizerFiles, parameters: &[f32]) -> Result<()> {
    let views = layout
        .tensors
        .iter()
        .map(|tensor| (tensor.name.clone(), tensor.shape.clone(), &parameters[tensor.range()]));
    write(&folder.join("model.safetensors"), &tensors(views)?)?;
    write(&folder.join("config.json"), layout.config.to_json().as_bytes())?;
    write(&folder.join("tokenizer.json"), tokenizer.tokenizer.as_bytes())?;
    write(&folder.join("tokenizer_config.json"), tokenizer.config.as_bytes())?;
    write(&folder.join(LEXICON), tokenizer.lexicon.as_bytes())?;
    write(&folder.join(WORD_VECTORS), &tokenizer.word_vectors)
}

fn tensors<'a>(values: impl IntoIterator<Item = (String, Vec<usize>, &'a [f32])>) -> Result<Vec<u8>> {
    let views = values
        .into_iter()
        .map(|(name, shape, values)| {
            let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(values))?;
            Ok((name, view))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    views
        .and_then(|views| serialize(views, Some(metadata)))
        .map_err(|error| Error::internal("weights as safetensors").with_source(error))
}

pub(super) fn read_tensors(path: &Path) -> Result<HashMap<String, Vec<f32>>> {
    let bytes = fs::read(path).map_err(|error| io(path, "read", error))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| broken(path).with_source(error))?;
    let mut found = HashMap::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(broken(path));
        }
        found.insert(name.to_owned(), floats(view.data()));
    }
    Ok(found)
}

/// The shape and the values of one tensor of a file.
pub(super) fn read_shaped(path: &Path, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
    let bytes = fs::read(path).map_err(|error| io(path, "read", error))?;
    let unfit = || Error::invalid(format!("{} has no tensor {name} of 32-bit numbers", path.display()));
    let file = SafeTensors::deserialize(&bytes).map_err(|error| unfit().with_source(error))?;
    let view = file.tensor(name).map_err(|error| unfit().with_source(error))?;
    if view.dtype() != Dtype::F32 {
        return Err(unfit());
    }
    Ok((view.shape().to_vec(), floats(view.data())))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// All files of a model folder.
pub(super) fn read_files(folder: &Path) -> Result<Files> {
    let entries = fs::read_dir(folder).map_err(|error| io(folder, "read", error))?;
    let mut files = Files::new();
    for entry in entries {
        let path = entry.map_err(|error| io(folder, "read", error))?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name().and_then(|name| name.to_str())) {
            let bytes = fs::read(&path).map_err(|error| io(&path, "read", error))?;
            files.insert(name.to_owned(), bytes.into());
        }
    }
    Ok(files)
}

/// Puts files into a folder of their own, whose old content goes.
pub(super) fn write_files(folder: &Path, files: &Files) -> Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(|error| io(parent, "created", error))?;
    }
    replace_folder(folder, |partial| {
        files.iter().try_for_each(|(name, bytes)| write(&partial.join(name), &bytes.whole()?))
    })
}

/// Puts tensors, and texts beside them, into a folder of their own, whose old content goes.
pub(super) fn write_tensors<'a>(
    folder: &Path,
    name: &str,
    values: impl IntoIterator<Item = (String, Vec<usize>, &'a [f32])>,
    texts: &[(&str, String)],
) -> Result<()> {
    let bytes = tensors(values)?;
    replace_folder(folder, |partial| {
        write(&partial.join(name), &bytes)?;
        texts.iter().try_for_each(|(name, text)| write(&partial.join(name), text.as_bytes()))
    })
}

/// Writes a model as a plain Hugging Face folder, whose old content goes.
pub(super) fn write_model_folder(
    folder: &Path,
    layout: &Layout,
    tokenizer: &TokenizerFiles,
    parameters: &[f32],
) -> Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(|error| io(parent, "created", error))?;
    }
    replace_folder(folder, |partial| write_model(partial, layout, tokenizer, parameters))
}

/// Reads a file.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| io(path, "read", error))
}

/// Reads a text file.
pub(super) fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| io(path, "read", error))
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|error| Error::internal("JSON").with_source(error))
}

pub(super) fn broken(path: &Path) -> Error {
    Error::new(
        ErrorCode::ModelIntegrity,
        format!(
            "{} does not hold what this configuration trains; remove it to go on from an older one",
            path.display()
        ),
    )
}

fn io(path: &Path, what: &str, error: std::io::Error) -> Error {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorCode::QuotaExceeded,
        _ => ErrorCode::NotReachable,
    };
    Error::new(code, format!("{} could not be {what}", path.display())).with_source(error)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| io(path, "written", error))
}

pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    write(&partial, bytes)?;
    fs::rename(&partial, path).map_err(|error| io(path, "renamed", error))
}

/// Fills a folder under another name and puts it in the place of `path`.
fn replace_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = path.with_extension("partial");
    for old in [&partial, path] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(|error| io(old, "removed", error))?;
        }
    }
    fs::create_dir_all(&partial).map_err(|error| io(&partial, "created", error))?;
    fill(&partial)?;
    fs::rename(&partial, path).map_err(|error| io(path, "renamed", error))?;
    // A bare name lies in the current folder.
    let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(|error| io(parent, "flushed", error))
}
