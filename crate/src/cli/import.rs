//! `import`: journals that `export`, or a browser, wrote.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use futures_lite::future::block_on;
use serde::Serialize;

use super::database::{DatabaseArguments, count};
use super::output::Output;
use crate::bank::Journal;
use crate::error::{Error, ErrorCode, Result};
use crate::store::Store;

/// Appends what the file has beyond the journals of the database. A journal that parts from the
/// one there is an error, and then nothing is imported.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// The file; `-` is standard input.
    file: PathBuf,
}

#[derive(Serialize)]
struct Imported {
    /// Events that were new.
    imported: usize,
    /// Events that were there already.
    skipped: usize,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<()> {
    let text = read_text(&arguments.file)?;
    let journals = Journal::read_export(&text)?;
    let store = arguments.database.open_or_create()?;
    let imported = block_on(import(&store, &journals))?;
    output.result(&imported, || {
        format!(
            "{} imported, {} there already",
            count(imported.imported, "event", "events"),
            imported.skipped
        )
    })
}

async fn import(store: &dyn Store, journals: &[Journal]) -> Result<Imported> {
    let mut batches = Vec::with_capacity(journals.len());
    let mut done = Imported { imported: 0, skipped: 0 };
    let mut locks = Vec::with_capacity(journals.len());
    let mut order: Vec<&Journal> = journals.iter().collect();
    order.sort_by_key(|journal| journal.scope().key());
    if order.windows(2).any(|pair| pair[0].scope() == pair[1].scope()) {
        return Err(Error::invalid("the export holds two journals of one scope"));
    }
    for theirs in order {
        locks.push(store.lock(theirs.scope()).await?);
        let (seq, events) = match store.load(theirs.scope()).await? {
            Some(own) => (own.seq(), own.missing_from(theirs)?),
            None => (0, theirs.events().to_vec()),
        };
        done.imported += events.len();
        done.skipped += theirs.events().len() - events.len();
        batches.push((theirs.scope(), seq, events));
    }
    for (scope, seq, events) in batches.iter().filter(|(_, _, events)| !events.is_empty()) {
        store.append(scope, *seq, events).await?;
    }
    Ok(done)
}

/// A file's text, or standard input's for `-`.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|error| {
        Error::new(ErrorCode::NotReachable, format!("{} could not be read as text", path.display()))
            .with_source(error)
    })?;
    Ok(text)
}
