//! The command line, run as a shell runs it.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub fn memory_r1(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_memory-r1"))
        .args(arguments)
        .env_remove("MEMORY_R1_MODEL")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Standard output as JSON; the command must succeed.
pub fn json(arguments: &[&str]) -> Value {
    let output = memory_r1(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}

/// The line on standard error of a command that must fail, with nothing on standard output.
pub fn failure(arguments: &[&str]) -> String {
    let output = memory_r1(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

/// The same with a text on standard input.
pub fn memory_r1_reading(arguments: &[&str], text: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_memory-r1"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}
