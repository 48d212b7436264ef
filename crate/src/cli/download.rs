//! A file from the web, whole or not at all. What came of it lies beside its place until all is there, so that
//! a download that was cut off goes on.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::digest::sha256_of_file;
use super::interrupt::on_interrupt;
use super::output::Output;
use super::progress::Progress;
use crate::error::{Error, ErrorCode, Result};
use crate::generation::Cancel;

/// How often in a row nothing may come before the download is given up.
const ATTEMPTS: u32 = 5;
/// How long a server may say nothing.
const PATIENCE: Duration = Duration::from_mins(1);
/// Before the second attempt; twice as long before each further one.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// Why an attempt ended before the file did.
enum Stop {
    Passing(Error),
    Lasting(Error),
}

/// Fetches `url` to `path`, whose content must have this hash.
pub(super) fn download(url: &str, path: &Path, sha256: &str, output: &Output) -> Result<()> {
    let part = PathBuf::from(format!("{}.part", path.display()));
    let cancel = on_interrupt()?;
    let mut progress = Progress::bytes();
    let what = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut report = |done: u64, total: u64| progress.at(done, total, &what, output);
    let fetched = insist(url, &part, &cancel, &mut report);
    progress.finish();
    fetched?;
    let own = sha256_of_file(&part)?;
    if own != sha256 {
        let _ = fs::remove_file(&part);
        return Err(Error::new(
            ErrorCode::NotReachable,
            format!("{url} has the sha256 {own} instead of {sha256}; nothing of it was kept"),
        ));
    }
    fs::rename(&part, path).map_err(|error| unwritable(path, error))
}

/// Attempts until the part is whole, or nothing comes any more.
fn insist(url: &str, part: &Path, cancel: &Cancel, report: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let (mut failed, mut wait) = (0, FIRST_WAIT);
    loop {
        let before = length(part);
        match attempt(url, part, cancel, report) {
            Ok(()) => return Ok(()),
            Err(Stop::Lasting(error)) => return Err(error),
            Err(Stop::Passing(error)) => {
                if length(part) > before {
                    (failed, wait) = (0, FIRST_WAIT);
                }
                failed += 1;
                if failed == ATTEMPTS {
                    let message =
                        format!("{} (tried {ATTEMPTS} times; the same command goes on)", error.message());
                    return Err(Error::new(error.code(), message).with_source(error));
                }
                thread::sleep(wait);
                wait *= 2;
            }
        }
    }
}

fn length(part: &Path) -> u64 {
    fs::metadata(part).map_or(0, |own| own.len())
}

/// Appends what the part lacks.
fn attempt(
    url: &str,
    part: &Path,
    cancel: &Cancel,
    report: &mut dyn FnMut(u64, u64),
) -> std::result::Result<(), Stop> {
    let unreachable = |why: String| Error::new(ErrorCode::NotReachable, format!("{url}: {why}"));
    let have = length(part);
    let agent = ureq::AgentBuilder::new().timeout_connect(PATIENCE).timeout_read(PATIENCE).build();
    let mut request = agent.get(url);
    if have > 0 {
        request = request.set("Range", &format!("bytes={have}-"));
    }
    let reply = match request.call() {
        Ok(reply) => reply,
        // The part is as long as the file, or longer.
        Err(ureq::Error::Status(416, reply)) => {
            let total =
                reply.header("Content-Range").and_then(|range| range.rsplit('/').next()?.parse().ok());
            if total == Some(have) {
                return Ok(());
            }
            let _ = fs::remove_file(part);
            return Err(Stop::Passing(unreachable("the part that was there is no part of it".to_owned())));
        }
        Err(ureq::Error::Status(code, _)) => {
            let error = unreachable(format!("status {code}"));
            return Err(if code == 429 || code >= 500 { Stop::Passing(error) } else { Stop::Lasting(error) });
        }
        Err(ureq::Error::Transport(error)) => return Err(Stop::Passing(unreachable(error.to_string()))),
    };
    let goes_on = reply.status() == 206;
    let start = if goes_on { have } else { 0 };
    let rest = reply.header("Content-Length").and_then(|text| text.parse::<u64>().ok());
    let range = reply.header("Content-Range").and_then(|range| range.rsplit('/').next()?.parse().ok());
    let total: Option<u64> = range.or(rest.map(|rest| start + rest));
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .append(goes_on)
        .truncate(!goes_on)
        .open(part)
        .map_err(|error| Stop::Lasting(unwritable(part, error)))?;
    let (mut reader, mut done, mut buffer) = (reply.into_reader(), start, vec![0; 1 << 16]);
    loop {
        cancel.check().map_err(Stop::Lasting)?;
        report(done, total.unwrap_or(done));
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                file.write_all(&buffer[..count]).map_err(|error| Stop::Lasting(unwritable(part, error)))?;
                done += count as u64;
            }
            Err(error) => return Err(Stop::Passing(unreachable(format!("cut off: {error}")))),
        }
    }
    if total.is_some_and(|total| done < total) {
        return Err(Stop::Passing(unreachable("cut off".to_owned())));
    }
    Ok(())
}

fn unwritable(path: &Path, error: io::Error) -> Error {
    Error::new(ErrorCode::NotReachable, format!("{} could not be written", path.display())).with_source(error)
}
