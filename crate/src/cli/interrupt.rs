//! Ctrl-C: the first asks the work to stop where it loses nothing, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::generation::Cancel;

/// The status of a process that SIGINT ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// A flag that Ctrl-C raises. Once a process.
pub(in crate::cli) fn on_interrupt() -> Result<Cancel> {
    let cancel = Cancel::default();
    let handle = cancel.clone();
    let asked = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED);
        }
        handle.cancel();
    })
    .map_err(|error| Error::internal("Ctrl-C cannot be listened to").with_source(error))?;
    Ok(cancel)
}
