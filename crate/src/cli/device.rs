//! Where a model computes, and whether that is possible here.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ValueEnum;
use libloading::Library;

use crate::error::{Error, ErrorCode, Result};

/// Where a model computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Device {
    /// The processor; in every build.
    #[default]
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
    /// Any GPU with a Vulkan driver.
    Vulkan,
    /// Any GPU, through WebGPU's shading language.
    Webgpu,
}

impl Device {
    pub(in crate::cli) const ALL: [Self; 4] = [Self::Cpu, Self::Cuda, Self::Vulkan, Self::Webgpu];

    /// The name on the command line.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Vulkan => "vulkan",
            Self::Webgpu => "webgpu",
        }
    }

    /// Whether this build has the backend.
    pub(in crate::cli) fn is_built(self) -> bool {
        match self {
            Self::Cpu => true,
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Webgpu => cfg!(feature = "webgpu"),
        }
    }

    /// What the machine has for it; the error is why it has nothing. Asked before a backend is
    /// touched, because burn's panic where the driver is missing.
    pub(in crate::cli) fn look(self) -> Result<String, String> {
        match self {
            Self::Cpu => {
                let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
                Ok(format!("{} with {cores} cores", std::env::consts::ARCH))
            }
            Self::Cuda => {
                let names = cuda_devices()?.join(", ");
                cuda_headers(&toolkits(std::env::var_os("CUDA_PATH"))).map(|()| names)
            }
            Self::Vulkan | Self::Webgpu if cfg!(target_os = "macos") => Ok("Metal".to_owned()),
            Self::Vulkan | Self::Webgpu => {
                let loader = ["libvulkan.so.1", "vulkan-1.dll"].into_iter().find(|name| open(name).is_some());
                loader
                    .map(|name| format!("the Vulkan loader {name}"))
                    .ok_or("no Vulkan driver is installed".to_owned())
            }
        }
    }

    /// An error unless this build and this machine can compute there.
    pub(in crate::cli) fn require(self) -> Result<()> {
        let unsupported = |message: String| Err(Error::new(ErrorCode::ModelUnsupported, message));
        let name = self.name();
        if !self.is_built() {
            return unsupported(format!(
                "this build has no {name} backend; build it with `--features {name}`, or use --device cpu"
            ));
        }
        match self.look() {
            Ok(_) => Ok(()),
            Err(why) => unsupported(format!("{name} cannot run here: {why}; use --device cpu")),
        }
    }
}

fn open(name: &str) -> Option<Library> {
    // SAFETY: these are the system's driver libraries, whose initialisers do nothing but set up
    // their own state; the backends load the same ones.
    unsafe { Library::new(name) }.ok()
}

/// Where a CUDA toolkit may be: there alone where `CUDA_PATH` says it is.
fn toolkits(given: Option<OsString>) -> Vec<PathBuf> {
    given.map_or_else(
        || ["/usr/local/cuda", "/opt/cuda", "/usr"].map(PathBuf::from).to_vec(),
        |path| vec![PathBuf::from(path)],
    )
}

/// The kernels are compiled at run time, with the toolkit's headers.
fn cuda_headers(toolkits: &[PathBuf]) -> Result<(), String> {
    if toolkits.iter().any(|path| path.join("include/cuda_runtime.h").exists()) {
        return Ok(());
    }
    let places = toolkits.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(format!("no CUDA headers (include/cuda_runtime.h) in {places}; set CUDA_PATH to a CUDA toolkit"))
}

/// The names of the GPUs that the CUDA driver sees; the error is why there are none.
fn cuda_devices() -> Result<Vec<String>, String> {
    type Init = unsafe extern "C" fn(u32) -> i32;
    type GetCount = unsafe extern "C" fn(*mut i32) -> i32;
    type GetName = unsafe extern "C" fn(*mut u8, i32, i32) -> i32;
    let library = ["libcuda.so.1", "libcuda.so", "nvcuda.dll"].into_iter().find_map(open);
    let library = library.ok_or("no NVIDIA driver (libcuda) is installed")?;
    let broken = |error: libloading::Error| format!("the NVIDIA driver is broken: {error}");
    // SAFETY: the signatures are those of the CUDA driver's interface, which are the same in every
    // version; each pointer is to a live buffer of the length that is passed.
    unsafe {
        let init = library.get::<Init>(b"cuInit\0").map_err(broken)?;
        let get_count = library.get::<GetCount>(b"cuDeviceGetCount\0").map_err(broken)?;
        let get_name = library.get::<GetName>(b"cuDeviceGetName\0").map_err(broken)?;
        let status = init(0);
        if status != 0 {
            return Err(format!("the NVIDIA driver does not start (CUDA error {status})"));
        }
        let mut count = 0;
        if get_count(&raw mut count) != 0 || count == 0 {
            return Err("the NVIDIA driver sees no GPU".to_owned());
        }
        let name = |place| {
            let mut name = [0; 128];
            get_name(name.as_mut_ptr(), 128, place);
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            String::from_utf8_lossy(&name[..end]).into_owned()
        };
        Ok((0..count).map(name).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_cuda_headers_are_named() {
        let toolkit = tempfile::tempdir().unwrap();
        let given = toolkits(Some(toolkit.path().into()));
        let error = cuda_headers(&given).unwrap_err();
        let wanted = format!("in {}; set CUDA_PATH", toolkit.path().display());
        assert!(error.contains(&wanted), "{error}");
        std::fs::create_dir(toolkit.path().join("include")).unwrap();
        std::fs::write(toolkit.path().join("include/cuda_runtime.h"), "").unwrap();
        assert_eq!(cuda_headers(&given), Ok(()));
        assert!(toolkits(None).len() > 1);
    }
}
