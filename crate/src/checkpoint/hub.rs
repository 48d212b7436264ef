//! Models by the name of their repository on a Hugging Face hub, in the cache that Hugging Face's own
//! tools share: what one of them has downloaded is there for all.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::{CONFIG, INDEX, WEIGHTS, hex, is_model_file};
use crate::error::{Error, ErrorCode, Result};

/// The revision where a name says none.
const MAIN: &str = "main";
/// How often something is asked for, and how long to wait before the second time; then twice as long.
const ATTEMPTS: u32 = 5;
const WAIT: Duration = Duration::from_millis(300);
/// What the name of a mark ends with: its file was not compared with the hub's hash yet.
const UNCHECKED: &str = ".unchecked";

/// A repository and its revision: `owner/name` or `owner/name@revision`, where a revision is a branch,
/// a tag or a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    repository: String,
    revision: String,
}

impl HubName {
    /// Reads it; nothing where this is no such name.
    pub fn parse(text: &str) -> Option<Self> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let (owner, name) = repository.split_once('/')?;
        let is_part = |part: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            (1..=96).contains(&part.len())
                && part.chars().all(is_plain)
                && !part.starts_with('.')
                && !part.contains("..")
        };
        let is_revision = revision.split('/').all(is_part);
        (is_part(owner) && is_part(name) && is_revision)
            .then(|| Self { repository: repository.to_owned(), revision: revision.to_owned() })
    }

    /// Whether the revision is a commit, which never changes.
    fn is_fixed(&self) -> bool {
        is_commit(&self.revision)
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.repository.clone(), RepoType::Model, revision.to_owned())
    }
}

impl std::fmt::Display for HubName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.repository)?;
        if self.revision == MAIN { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// How far a download is.
#[derive(Clone, Copy, Debug)]
pub struct Downloaded<'a> {
    /// The file that is coming.
    pub file: &'a str,
    /// Bytes that are here, of all files of the model.
    pub bytes: u64,
    /// Bytes of all files.
    pub total: u64,
}

/// A hub and where its models are kept.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Its address; Hugging Face's own where there is none.
    pub endpoint: Option<String>,
    /// The folder that keeps its models, in the layout of `huggingface_hub`.
    pub cache: PathBuf,
    /// What lets read a repository that is private or gated.
    pub token: Option<String>,
    /// Whether it may not be asked at all.
    pub offline: bool,
}

impl Hub {
    /// As the variables of Hugging Face's tools say: `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` (or the token
    /// that `hf auth login` wrote) and `HF_HUB_OFFLINE`.
    pub fn from_env() -> Self {
        let filled = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let cache = match filled("HF_HUB_CACHE") {
            Some(folder) => Cache::new(folder.into()),
            None => Cache::from_env(),
        };
        let offline = filled("HF_HUB_OFFLINE")
            .is_some_and(|value| ["1", "on", "yes", "true"].contains(&&*value.to_lowercase()));
        let token = filled("HF_TOKEN").or_else(|| cache.token());
        Self { endpoint: filled("HF_ENDPOINT"), cache: cache.path().clone(), token, offline }
    }

    /// The folder of a model, in Hugging Face's layout; what of it is not here yet is downloaded, and
    /// what was cut short goes on where it stopped. Every file is checked against the hub's length and
    /// hash.
    ///
    /// A commit that is here whole is not asked for. A branch or a tag is, and where the hub cannot be
    /// reached the model that is here serves.
    ///
    /// # Errors
    /// - [`ErrorCode::NotReachable`]: no answer, none without a token, or no such repository
    /// - [`ErrorCode::ModelIntegrity`]: a file is not what the hub says, or the repository holds no model
    /// - [`ErrorCode::QuotaExceeded`]: the disk is full
    pub fn folder(&self, name: &HubName, report: &mut dyn FnMut(Downloaded<'_>)) -> Result<PathBuf> {
        let kept = self.kept(name);
        if let Some(folder) = kept.as_ref().filter(|_| self.offline || name.is_fixed()) {
            return Ok(folder.clone());
        }
        if self.offline {
            return Err(Error::new(
                ErrorCode::NotReachable,
                format!(
                    "{name} is not in {}, and HF_HUB_OFFLINE forbids to ask the hub",
                    self.cache.display()
                ),
            ));
        }
        // Who has it already does not wait.
        let attempts = if kept.is_some() { 1 } else { ATTEMPTS };
        match with_retries(attempts, || self.survey(name)) {
            Ok((api, listing)) => self.download(&api, name, &listing, report),
            Err(Failure::Passing(error)) => kept.ok_or(error),
            Err(Failure::Lasting(error)) => Err(error),
        }
    }

    /// The folder of a model that is here whole.
    fn kept(&self, name: &HubName) -> Option<PathBuf> {
        let folder = if name.is_fixed() {
            self.snapshot(name, &name.revision)
        } else {
            self.cache().repo(name.repo(&name.revision)).get(CONFIG)?.parent()?.to_owned()
        };
        is_whole(&folder).then_some(folder)
    }

    fn snapshot(&self, name: &HubName, commit: &str) -> PathBuf {
        let repository = name.repo(commit).folder_name();
        self.cache.join(repository).join("snapshots").join(commit)
    }

    /// Removes what a process that was killed at the very end of a file left: it is as long as the file,
    /// and a server has nothing to send behind it.
    fn drop_spent_part(&self, name: &HubName, file: &Listed) {
        let (Some(size), Some(hash)) = (file.size, file.hash()) else { return };
        let blobs = self.cache.join(name.repo(MAIN).folder_name()).join("blobs");
        let part = blobs.join(hash).with_extension("part");
        if fs::metadata(&part).is_ok_and(|found| found.len() >= size) {
            let _ = fs::remove_file(part);
        }
    }

    fn cache(&self) -> Cache {
        Cache::new(self.cache.clone())
    }

    fn survey(&self, name: &HubName) -> Result<(Api, Listing), Failure> {
        let mut builder = ApiBuilder::from_cache(self.cache())
            .with_progress(false)
            .with_token(self.token.clone())
            .with_user_agent(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        let wrong = |error| Failure::of(name, "its list of files", error);
        let api = builder.build().map_err(wrong)?;
        let request = api.repo(name.repo(&name.revision)).info_request().query("blobs", "true");
        let answer = request.call().map_err(|error| wrong(ApiError::RequestError(Box::new(error))))?;
        let mut listing: Listing = answer.into_json().map_err(|error| wrong(error.into()))?;
        if !is_commit(&listing.sha) {
            // It becomes the name of a folder.
            return Err(wrong(ApiError::InvalidHeader("sha")));
        }
        listing.siblings.retain(|file| is_model_file(&file.rfilename));
        // Weights come last: where they are, the rest is.
        listing.siblings.sort_by_key(|file| (is_weights(&file.rfilename), file.rfilename.clone()));
        let has = |wanted: &dyn Fn(&str) -> bool| listing.siblings.iter().any(|file| wanted(&file.rfilename));
        if !has(&|file| file == CONFIG) || !has(&is_weights) {
            let lack = if has(&is_weights) { CONFIG } else { WEIGHTS };
            return Err(Failure::Lasting(Error::new(
                ErrorCode::ModelIntegrity,
                format!("{name} holds no model that can be read here: it has no {lack}"),
            )));
        }
        Ok((api, listing))
    }

    fn download(
        &self,
        api: &Api,
        name: &HubName,
        listing: &Listing,
        report: &mut dyn FnMut(Downloaded<'_>),
    ) -> Result<PathBuf> {
        let folder = self.snapshot(name, &listing.sha);
        let total = listing.siblings.iter().filter_map(|file| file.size).sum();
        let mut before = 0;
        for file in &listing.siblings {
            let path = folder.join(&file.rfilename);
            // A process that dies between the last byte and the check leaves the mark.
            let mark = folder.join(format!("{}{UNCHECKED}", file.rfilename.replace('/', "-")));
            if !path.exists() {
                let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&mark, ""));
                written.map_err(|error| Failure::of(name, &file.rfilename, error.into()).into_error())?;
                let mut bar = Bar { file: &file.rfilename, before, own: 0, total, report: &mut *report };
                self.drop_spent_part(name, file);
                let repo = api.repo(name.repo(&listing.sha));
                let fetch = || {
                    let fetched = repo.download_with_progress(&file.rfilename, &mut bar);
                    fetched.map_err(|error| Failure::of(name, &file.rfilename, error))
                };
                with_retries(ATTEMPTS, fetch).map_err(Failure::into_error)?;
            }
            if mark.exists() {
                file.check(&path).map_err(|error| {
                    // Kept, it would be taken for whole.
                    if let Ok(blob) = fs::canonicalize(&path) {
                        let _ = fs::remove_file(blob);
                    }
                    let _ = fs::remove_file(&path);
                    Error::new(error.code(), format!("{name}: {}", error.message()))
                })?;
                let _ = fs::remove_file(mark);
            }
            before += file.size.unwrap_or_default();
        }
        let named = self.cache().repo(name.repo(&name.revision)).create_ref(&listing.sha);
        named.map_err(|error| Failure::of(name, "its revision", error.into()).into_error())?;
        Ok(folder)
    }
}

fn with_retries<T>(attempts: u32, mut ask: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    let mut wait = WAIT;
    for _ in 1..attempts {
        match ask() {
            Err(Failure::Passing(_)) => sleep(wait),
            other => return other,
        }
        wait *= 2;
    }
    ask()
}

/// What a hub says of a repository.
#[derive(Debug, Deserialize)]
struct Listing {
    /// The commit.
    sha: String,
    siblings: Vec<Listed>,
}

/// What it says of a file; a mirror may not know lengths and hashes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    rfilename: String,
    size: Option<u64>,
    /// As git hashes a file.
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    sha256: String,
}

impl Listed {
    /// By which the hub, and so the cache, names the content.
    fn hash(&self) -> Option<&str> {
        self.lfs
            .as_ref()
            .map(|lfs| &*lfs.sha256)
            .or(self.blob_id.as_deref())
            .filter(|hash| hash.chars().all(|c| c.is_ascii_hexdigit()))
    }

    /// Compares what came with what was promised.
    fn check(&self, path: &Path) -> Result<()> {
        let wrong = |what: String| {
            let message = format!("{} is not what the hub has: {what}; try again", self.rfilename);
            Err(Error::new(ErrorCode::ModelIntegrity, message))
        };
        let unreadable = |error: io::Error| {
            Error::new(ErrorCode::NotReachable, format!("{} could not be read", path.display()))
                .with_source(error)
        };
        let mut file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        if let Some(size) = self.size.filter(|size| *size != length) {
            return wrong(format!("{length} bytes instead of {size}"));
        }
        let (found, promised) = match (&self.lfs, &self.blob_id) {
            (Some(lfs), _) => (digest(Sha256::new(), &mut file), &lfs.sha256),
            (None, Some(blob)) => {
                let start = Sha1::new_with_prefix(format!("blob {length}\0"));
                (digest(start, &mut file), blob)
            }
            (None, None) => return Ok(()),
        };
        let found = found.map_err(unreadable)?;
        if found == *promised { Ok(()) } else { wrong(format!("the hash {found} instead of {promised}")) }
    }
}

fn digest<D: Digest>(mut state: D, file: &mut File) -> io::Result<String> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => state.update(&buffer[..read]),
        }
    }
    Ok(hex(&state.finalize()))
}

/// A file's part of the whole.
struct Bar<'a> {
    file: &'a str,
    before: u64,
    own: u64,
    total: u64,
    report: &'a mut dyn FnMut(Downloaded<'_>),
}

impl Progress for &mut Bar<'_> {
    fn init(&mut self, _: usize, _: &str) {
        self.own = 0;
        self.update(0);
    }

    fn update(&mut self, bytes: usize) {
        self.own += bytes as u64;
        let bytes = self.before + self.own;
        (self.report)(Downloaded { file: self.file, bytes, total: self.total.max(bytes) });
    }

    fn finish(&mut self) {}
}

/// Why something did not come.
enum Failure {
    /// It may the next time.
    Passing(Error),
    /// It will not.
    Lasting(Error),
}

impl Failure {
    fn of(name: &HubName, what: &str, error: ApiError) -> Self {
        let unreachable =
            |why: String| Error::new(ErrorCode::NotReachable, format!("{name}: {what} did not come: {why}"));
        match error {
            ApiError::RequestError(error) => match *error {
                ureq::Error::Status(401 | 403, _) => Self::Lasting(unreachable(
                    "the hub refuses it; the name may be wrong, or the repository private or gated, and then needs a token in HF_TOKEN".to_owned(),
                )),
                ureq::Error::Status(404, _) => {
                    Self::Lasting(unreachable("the hub has no such repository, revision or file".to_owned()))
                }
                ureq::Error::Status(status @ (429 | 500..), _) => {
                    Self::Passing(unreachable(format!("the hub answers {status}")))
                }
                ureq::Error::Status(status, _) => Self::Lasting(unreachable(format!("the hub answers {status}"))),
                ureq::Error::Transport(error) => {
                    Self::Passing(unreachable("the hub could not be reached".to_owned()).with_source(error))
                }
            },
            ApiError::IoError(error) if error.kind() == io::ErrorKind::StorageFull => Self::Lasting(
                Error::new(ErrorCode::QuotaExceeded, format!("{name}: the disk has no room left for {what}")),
            ),
            ApiError::IoError(error) => {
                Self::Passing(unreachable("the connection broke".to_owned()).with_source(error))
            }
            error => Self::Lasting(unreachable("the hub answers in an unknown form".to_owned()).with_source(error)),
        }
    }

    fn into_error(self) -> Error {
        match self {
            Self::Passing(error) | Self::Lasting(error) => error,
        }
    }
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.chars().all(|c| c.is_ascii_hexdigit())
}

fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors")
}

/// Whether a folder has its configuration and all its weights.
fn is_whole(folder: &Path) -> bool {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }

    let has = |name: &str| folder.join(name).exists() && !folder.join(format!("{name}{UNCHECKED}")).exists();
    let shards = || -> Option<BTreeSet<String>> {
        let index: Index = serde_json::from_slice(&fs::read(folder.join(INDEX)).ok()?).ok()?;
        Some(index.weight_map.into_values().collect())
    };
    has(CONFIG) && (has(WEIGHTS) || shards().is_some_and(|shards| shards.iter().all(|shard| has(shard))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_an_owner_and_perhaps_a_revision() {
        for (text, revision) in
            [("Qwen/Qwen2.5-0.5B", "main"), ("a/b@v1.0", "v1.0"), ("a/b@refs/pr/1", "refs/pr/1")]
        {
            let name = HubName::parse(text).unwrap();
            assert_eq!((&name.revision[..], &name.to_string()[..]), (revision, text));
        }
        for text in
            ["nano", "a/b/c", "/a", "a/", "../a", "a/..", "a/.b", "a b/c", "a/b@", "a/b@../../c", "a/b@x y"]
        {
            assert_eq!(HubName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_a_commit_is_fixed() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert!(HubName::parse(&format!("a/b@{commit}")).unwrap().is_fixed());
        assert!(!HubName::parse("a/b@main").unwrap().is_fixed());
    }
}
