//! What a file holds: in memory, or read where it lies when it is asked for. Weights are large, and only one
//! tensor at a time is needed.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::hex;
use super::weights::broken;
use crate::error::Result;

/// How much is read at once where a whole file is gone through.
const CHUNK: usize = 1 << 20;

/// What threads may share; in a browser there is only one.
#[cfg(not(target_arch = "wasm32"))]
pub trait Shared: Send + Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + Sync> Shared for T {}
/// What threads may share; in a browser there is only one.
#[cfg(target_arch = "wasm32")]
pub trait Shared {}
#[cfg(target_arch = "wasm32")]
impl<T> Shared for T {}

/// A place that files are read from, such as a disk.
pub trait Source: Shared {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `into` with the bytes from `start` on; fewer are an error.
    fn read(&self, start: u64, into: &mut [u8]) -> Result<()>;
}

/// A file's bytes.
#[derive(Clone)]
pub enum Content {
    /// In memory.
    Memory(Vec<u8>),
    /// Elsewhere.
    Elsewhere(Arc<dyn Source>),
}

impl Content {
    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Elsewhere(source) => source.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that are in memory: none of weights that lie elsewhere.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match self {
            Self::Memory(bytes) => Some(bytes),
            Self::Elsewhere(_) => None,
        }
    }

    /// Some of the bytes.
    pub fn part(&self, start: u64, length: usize) -> Result<Cow<'_, [u8]>> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.len()) {
            return Err(broken(format!("{length} bytes from place {start} on are not there")));
        }
        match self {
            Self::Memory(bytes) => Ok(Cow::Borrowed(&bytes[start as usize..][..length])),
            Self::Elsewhere(source) => {
                let mut bytes = vec![0; length];
                source.read(start, &mut bytes)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// All of them.
    pub fn whole(&self) -> Result<Cow<'_, [u8]>> {
        self.part(0, self.len() as usize)
    }

    /// All of them, one piece after the other.
    pub fn each_piece(&self, mut hear: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let length = self.len();
        for start in (0..length).step_by(CHUNK) {
            hear(&self.part(start, (length - start).min(CHUNK as u64) as usize)?)?;
        }
        Ok(())
    }

    /// 64 hexadecimal digits.
    pub fn sha256(&self) -> Result<String> {
        let mut hash = Sha256::new();
        self.each_piece(|piece| {
            hash.update(piece);
            Ok(())
        })?;
        Ok(hex(&hash.finalize()))
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Memory(bytes)
    }
}

impl Default for Content {
    fn default() -> Self {
        Self::Memory(Vec::new())
    }
}

/// By their bytes; what cannot be read is equal to nothing.
impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && matches!((self.whole(), other.whole()), (Ok(own), Ok(other)) if own == other)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

/// A file on this machine, whose bytes stay there.
#[cfg(not(target_arch = "wasm32"))]
pub struct OnDisk {
    file: std::sync::Mutex<std::fs::File>,
    length: u64,
}

#[cfg(not(target_arch = "wasm32"))]
impl OnDisk {
    /// Opens it.
    pub fn open(path: &std::path::Path) -> std::io::Result<Self> {
        let file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file: file.into(), length })
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Source for OnDisk {
    fn len(&self) -> u64 {
        self.length
    }

    fn read(&self, start: u64, into: &mut [u8]) -> Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(into));
        read.map_err(|cause| broken("a file of weights could not be read").with_source(cause))
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::checkpoint::sha256;
    use crate::error::ErrorCode;

    #[test]
    fn a_file_on_disk_is_what_it_is_in_memory() {
        let bytes: Vec<u8> = (0..CHUNK + 77).map(|place| (place * 31 % 251) as u8).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let there = Content::Elsewhere(Arc::new(OnDisk::open(file.path()).unwrap()));
        let here = Content::from(bytes.clone());
        assert_eq!(there, here);
        assert!(there.in_memory().is_none() && here.in_memory() == Some(&bytes));
        assert_eq!(there.sha256().unwrap(), sha256(&bytes));
        assert_eq!(&*there.part(5, 7).unwrap(), &bytes[5..12]);
        for content in [&there, &here] {
            let error = content.part(bytes.len() as u64 - 3, 4).unwrap_err();
            assert_eq!(error.code(), ErrorCode::ModelIntegrity);
            assert_eq!(error.message(), format!("4 bytes from place {} on are not there", bytes.len() - 3));
        }
        // It was cut after it was opened.
        file.as_file().set_len(10).unwrap();
        let error = there.part(5, 7).unwrap_err();
        assert_eq!(error.message(), "a file of weights could not be read");
    }
}
