//! Where a command's words go.

use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;

use serde::Serialize;

use crate::error::{Error, ErrorCode, Result};

/// Standard output as text or as one JSON document, and standard error.
pub(in crate::cli) struct Output {
    json: bool,
    /// Nobody reads our output any more (`memory-r1 … | head`): say no more, and fail quietly.
    closed: bool,
}

impl Output {
    pub(in crate::cli) fn new(json: bool) -> Self {
        Self { json, closed: false }
    }

    /// The result of the command: `value` with `--json`, else the text.
    pub(in crate::cli) fn result(
        &mut self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<()> {
        if self.json {
            let json = serde_json::to_string_pretty(value)
                .map_err(|error| Error::internal("the result as JSON").with_source(error))?;
            self.write(&(json + "\n"))
        } else {
            let text = text();
            self.write(&if text.is_empty() || text.ends_with('\n') { text } else { text + "\n" })
        }
    }

    /// Whether the result is to be JSON.
    pub(in crate::cli) fn is_json(&self) -> bool {
        self.json
    }

    /// Text on standard output, at once.
    pub(in crate::cli) fn write(&mut self, text: &str) -> Result<()> {
        let mut out = stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Err(Error::new(ErrorCode::NotReachable, "standard output was closed"))
            }
            Err(error) => Err(Error::new(ErrorCode::NotReachable, "standard output cannot be written to")
                .with_source(error)),
            Ok(()) => Ok(()),
        }
    }

    /// A line for the person who waits.
    #[expect(clippy::unused_self, reason = "all that a command says goes through its output")]
    pub(in crate::cli) fn note(&self, line: &str) {
        let _ = writeln!(stderr(), "{line}");
    }

    /// Says why the command failed, in one line.
    pub(in crate::cli) fn fail(&self, error: &Error) -> ExitCode {
        if self.closed {
            return ExitCode::SUCCESS;
        }
        let line = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let (bold, plain) = if stderr().is_terminal() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        let _ = writeln!(stderr(), "{bold}error{plain}: {line}");
        ExitCode::FAILURE
    }
}
