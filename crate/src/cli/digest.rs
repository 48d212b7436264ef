//! The hash of a file that may be larger than memory.

use std::fs::File;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorCode, Result};

/// The sha256 of a file's content in lower-case hexadecimal digits.
pub(super) fn sha256_of_file(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let read = File::open(path).and_then(|mut file| io::copy(&mut file, &mut hasher));
    read.map_err(|error| {
        Error::new(ErrorCode::NotReachable, format!("{} could not be read", path.display()))
            .with_source(error)
    })?;
    Ok(format!("{:x}", hasher.finalize()))
}
