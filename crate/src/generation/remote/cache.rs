//! Replies on disk, by the whole request: a stopped run does not ask twice, and a finished one can
//! be read again.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorCode, Result};

/// A folder of files `ab/abcdef….json`, each a request and its reply.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

#[derive(Deserialize, Serialize)]
struct Entry {
    url: String,
    request: Value,
    reply: String,
}

impl Cache {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, url: &str, request: &Value) -> PathBuf {
        let name = format!("{:x}", Sha256::digest(format!("{url}\n{request}")));
        self.folder.join(&name[..2]).join(format!("{name}.json"))
    }

    /// The reply to the same request, where there was one.
    pub(super) fn find(&self, url: &str, request: &Value) -> Result<Option<String>> {
        let path = self.path(url, request);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path, "read").with_source(error)),
        };
        let entry: Entry = serde_json::from_slice(&bytes)
            .map_err(|error| failed(&path, "understood; delete it").with_source(error))?;
        Ok((entry.url == url && entry.request == *request).then_some(entry.reply))
    }

    /// Keeps a reply; the file is whole or not there.
    pub(super) fn keep(&self, url: &str, request: &Value, reply: &str) -> Result<()> {
        let path = self.path(url, request);
        let entry = Entry { url: url.to_owned(), request: request.clone(), reply: reply.to_owned() };
        let text = serde_json::to_string_pretty(&entry)
            .map_err(|error| Error::internal("a reply as JSON").with_source(error))?;
        let aside = path.with_extension(format!("{}.tmp", std::process::id()));
        let written = fs::create_dir_all(path.parent().unwrap_or(&self.folder))
            .and_then(|()| fs::write(&aside, text))
            .and_then(|()| fs::rename(&aside, &path));
        written.map_err(|error| failed(&path, "written").with_source(error))
    }
}

fn failed(path: &Path, what: &str) -> Error {
    Error::new(ErrorCode::NotReachable, format!("the reply in {} could not be {what}", path.display()))
}
