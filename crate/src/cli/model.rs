//! The model that a command asks: which folder, on which device.

use std::env;
use std::fs;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use clap::Args;

use super::device::Device;
use super::embedder::EmbedderArguments;
use super::output::Output;
use super::progress::Progress;
use crate::agents::Models;
use crate::checkpoint::{
    CONFIG, Content, Downloaded, Files, Hub, HubName, OnDisk, POOLING, WORD_VECTORS, extractor,
    is_model_file, is_weights, small,
};
use crate::error::{Error, ErrorCode, Result};
use crate::generation::{Embedder, LanguageModel, LocalEmbedder, LocalModel, no_turn};
use crate::kernels::Kernels;
use crate::retrieval::Retriever;
use crate::training::{Compute, Cpu, Devices};

/// The variable that names a model's folder.
const VARIABLE: &str = "MEMORY_R1_MODEL";
/// Where the repository keeps the model that ships with the package.
const BUNDLED: &str = "pkg/models/nano";

/// Which model, and where it computes.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct ModelArguments {
    /// The model's folder (a bundle, or Hugging Face's layout), or the name of a repository on the hub,
    /// OWNER/NAME or OWNER/NAME@REVISION, which is downloaded once (HF_HOME, HF_TOKEN, HF_ENDPOINT and
    /// HF_HUB_OFFLINE do what they do for Hugging Face's tools). Without it the one that the variable
    /// MEMORY_R1_MODEL names, else the bundled nano.
    #[arg(long, value_name = "DIR|NAME")]
    model: Option<PathBuf>,
    /// Where it computes.
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) device: Device,
}

impl ModelArguments {
    /// Loads it.
    pub(in crate::cli) fn load(&self) -> Result<Models> {
        self.device.require()?;
        let folder = self.folder()?;
        let files = read_folder(&folder)?;
        let model = |files: &Files| load_on::<dyn LanguageModel>(self.device, files);
        let models = model(&files).and_then(|first| {
            let retriever = Retriever::read(small(&files, WORD_VECTORS))?;
            let models = Models::one(first).with_retriever(retriever);
            let extractor = extractor(&files)?.map(|own| model(&own)).transpose()?;
            Ok(match extractor {
                Some(extractor) => Models { extractor, ..models },
                None => models,
            })
        });
        models.map_err(|error| {
            Error::new(error.code(), format!("the model in {}: {}", folder.display(), error.message()))
        })
    }

    /// Loads it, and a sentence encoder on the same device where one is given.
    pub(in crate::cli) fn load_with(&self, embedder: &EmbedderArguments) -> Result<Models> {
        Ok(Models { embedder: embedder.load(self.device)?, ..self.load()? })
    }

    /// What was given, where it is text.
    pub(in crate::cli) fn given(&self) -> Option<&str> {
        self.model.as_deref().and_then(Path::to_str)
    }

    /// The same device with another model.
    pub(in crate::cli) fn of(&self, given: &str) -> Self {
        Self { model: Some(given.into()), device: self.device }
    }

    /// Which folder it is in.
    pub(in crate::cli) fn folder(&self) -> Result<PathBuf> {
        if let Some(given) = &self.model {
            return find_folder(given);
        }
        if let Some(given) = env::var_os(VARIABLE).filter(|given| !given.is_empty()) {
            return find_folder(Path::new(&given));
        }
        let program = env::current_exe().and_then(fs::canonicalize).ok();
        let starts = [program, env::current_dir().ok()];
        let above = starts.iter().flatten().flat_map(|start| start.ancestors());
        above.map(|folder| folder.join(BUNDLED)).find(|folder| folder.join(CONFIG).is_file()).ok_or_else(|| {
            Error::new(
                ErrorCode::NotReachable,
                format!("there is no model: give --model DIR, set {VARIABLE}, or run within the repository, which has one in {BUNDLED}"),
            )
        })
    }
}

/// What is loaded the same way on every backend.
trait Loaded {
    fn load<B: Kernels>(files: &Files) -> Result<Rc<Self>>;
}

impl Loaded for dyn LanguageModel {
    fn load<B: Kernels>(files: &Files) -> Result<Rc<Self>> {
        Ok(Rc::new(LocalModel::<B>::load(files, &B::Device::default(), no_turn())?))
    }
}

impl Loaded for dyn Embedder {
    fn load<B: Kernels>(files: &Files) -> Result<Rc<Self>> {
        Ok(Rc::new(LocalEmbedder::<B>::load(files, &B::Device::default(), no_turn())?))
    }
}

fn load_on<T: Loaded + ?Sized>(device: Device, files: &Files) -> Result<Rc<T>> {
    struct Load<'a, T: ?Sized>(&'a Files, PhantomData<T>);

    impl<T: Loaded + ?Sized> OnBackend for Load<'_, T> {
        type Output = Rc<T>;

        fn run<B: Kernels>(self) -> Result<Rc<T>> {
            T::load::<B>(self.0)
        }
    }

    on_backend(device, Load(files, PhantomData))
}

/// Work that is the same on every backend.
pub(in crate::cli) trait OnBackend {
    type Output;

    fn run<B: Kernels>(self) -> Result<Self::Output>;
}

/// Does it; `device` is one that [`Device::require`] has not refused.
pub(in crate::cli) fn on_backend<W: OnBackend>(device: Device, work: W) -> Result<W::Output> {
    match device {
        Device::Cpu => work.run::<burn::backend::Flex>(),
        #[cfg(feature = "cuda")]
        Device::Cuda => work.run::<burn::backend::Cuda>(),
        #[cfg(any(feature = "vulkan", feature = "webgpu"))]
        Device::Vulkan | Device::Webgpu => work.run::<burn::backend::wgpu::Wgpu>(),
        // `require` has refused what this build lacks.
        #[allow(unreachable_patterns)]
        _ => Err(Error::internal("a device without its backend")),
    }
}

/// What training computes with.
pub(in crate::cli) fn compute(device: Device) -> Result<Box<dyn Compute>> {
    struct All;

    impl OnBackend for All {
        type Output = Box<dyn Compute>;

        fn run<B: Kernels>(self) -> Result<Self::Output> {
            Ok(Box::new(Devices::<B>::all()))
        }
    }

    device.require()?;
    if device == Device::Cpu { Ok(Box::new(Cpu)) } else { on_backend(device, All) }
}

/// The sentence encoder of a folder.
pub(in crate::cli) fn load_embedder(folder: &Path, device: Device) -> Result<Rc<dyn Embedder>> {
    device.require()?;
    let files = read_model(folder)?;
    load_on::<dyn Embedder>(device, &files).map_err(|error| {
        Error::new(error.code(), format!("the encoder in {}: {}", folder.display(), error.message()))
    })
}

/// The files of a model that a user means.
pub(in crate::cli) fn read_model(given: &Path) -> Result<Files> {
    read_folder(&find_folder(given)?)
}

/// The folder that a user means: one of this machine, or the model of that name on the hub, which is
/// downloaded where it is not here yet.
fn find_folder(given: &Path) -> Result<PathBuf> {
    if given.is_dir() {
        return Ok(given.to_owned());
    }
    let Some(name) = given.to_str().and_then(HubName::parse) else {
        return Err(Error::new(ErrorCode::NotReachable, format!("there is no folder {}", given.display())));
    };
    let output = Output::new(false);
    let mut progress = Progress::bytes();
    let mut report =
        |now: Downloaded<'_>| progress.at(now.bytes, now.total, &format!("{name}: {}", now.file), &output);
    let folder = Hub::from_env().folder(&name, &mut report);
    progress.finish();
    folder.map_err(|error| {
        let message = format!("there is no folder {}; on the hub, {}", given.display(), error.message());
        Error::new(error.code(), message).with_source(error)
    })
}

/// The files of a model's folder: those that a model is read from, its licence and its card.
pub(in crate::cli) fn read_folder(folder: &Path) -> Result<Files> {
    let unreadable = |path: &Path, error| {
        Error::new(ErrorCode::NotReachable, format!("{} could not be read", path.display()))
            .with_source(error)
    };
    let mut files = Files::new();
    for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, error))? {
        let path = entry.map_err(|error| unreadable(folder, error))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        if is_model_file(&name) {
            let unreadable = |error| unreadable(&path, error);
            let content = if is_weights(&name) {
                Content::Elsewhere(Arc::new(OnDisk::open(&path).map_err(unreadable)?))
            } else {
                fs::read(&path).map_err(unreadable)?.into()
            };
            files.insert(name, content);
        }
    }
    // The one file that Sentence Transformers keep in a folder of its own.
    if let Ok(bytes) = fs::read(folder.join(POOLING)) {
        files.insert(POOLING.to_owned(), bytes.into());
    }
    if files.contains_key(CONFIG) {
        return Ok(files);
    }
    Err(Error::new(
        ErrorCode::ModelIntegrity,
        format!("{} is no model's folder: it has no {CONFIG}", folder.display()),
    ))
}
