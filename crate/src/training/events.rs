//! TensorBoard's event files: records of length, checksum, a protocol buffer, checksum.
//!
//! Of the format (`tensorflow/core/util/event.proto`, `tfrecord`) this writes what a curve needs: a file's version,
//! and scalars by step. Every start of a run writes a file of its own; `TensorBoard` joins them.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::error::{Error, ErrorCode, Result};

/// An event file under way.
pub(super) struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// A new file in a run's folder.
    pub(super) fn create(folder: &Path) -> Result<Self> {
        let (seconds, process) = (now(), std::process::id());
        let path = folder.join(format!("events.out.tfevents.{seconds:.3}.{process}.memory-r1"));
        let file = File::create(&path).map_err(|error| failed(&path, error))?;
        let mut events = Self { path, file };
        events.record(&event(seconds, 0, &bytes_field(3, b"brain.Event:2")))?;
        Ok(events)
    }

    /// Numbers of a step, each a curve of its own.
    fn scalars<'a>(&mut self, step: u64, values: impl IntoIterator<Item = (&'a str, f64)>) -> Result<()> {
        let value = |(tag, value): (&str, f64)| {
            let mut own = bytes_field(1, tag.as_bytes());
            own.push(2 << 3 | 5);
            own.extend((value as f32).to_le_bytes());
            bytes_field(1, &own)
        };
        let summary: Vec<u8> = values.into_iter().flat_map(value).collect();
        self.record(&event(now(), step, &bytes_field(5, &summary)))
    }

    /// The numbers of a line of metrics.
    pub(super) fn line(&mut self, line: &Value) -> Result<()> {
        let step = line.get("step").and_then(Value::as_u64).unwrap_or_default();
        let numbers = line.as_object().into_iter().flatten().filter(|(name, _)| *name != "step");
        self.scalars(step, numbers.filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?))))
    }

    fn record(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked(&length));
        record.extend_from_slice(data);
        record.extend(masked(data));
        self.file.write_all(&record).map_err(|error| failed(&self.path, error))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// An `Event` of a time and a step with this field behind.
fn event(seconds: f64, step: u64, field: &[u8]) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(seconds.to_le_bytes());
    event.push(2 << 3);
    event.extend(varint(step));
    event.extend_from_slice(field);
    event
}

fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    field.extend(varint(bytes.len() as u64));
    field.extend_from_slice(bytes);
    field
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// The record format's checksum: CRC-32C, turned and moved so that a checksum of checksums is none of them.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorCode::NotReachable, format!("{} could not be written", path.display())).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What TensorBoard 2.21 reads back is checked by `tests/reference/events.py`; here, the bytes that it wrote
    /// of the same event.
    #[test]
    fn an_event_has_the_bytes_that_tensorboard_writes() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = Events::create(folder.path()).unwrap();
        events.scalars(300, [("reward", 0.25), ("kl", -1.5)]).unwrap();
        let bytes = std::fs::read(&events.path).unwrap();
        // length, checksum of the length, event (9 bytes of time), checksum.
        let (mut rest, mut found) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(masked(&rest[..8]), rest[8..12]);
            let data = &rest[12..12 + length];
            assert_eq!(masked(data), rest[12 + length..16 + length]);
            found.push(data[9..].to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(found[0], [&[0x10, 0x00, 0x1a, 0x0d][..], b"brain.Event:2"].concat());
        let scalars: &[u8] = &[
            0x10, 0xac, 0x02, 0x2a, 0x1a, 0x0a, 0x0d, 0x0a, 0x06, b'r', b'e', b'w', b'a', b'r', b'd', 0x15,
            0, 0, 0x80, 0x3e, 0x0a, 0x09, 0x0a, 0x02, b'k', b'l', 0x15, 0, 0, 0xc0, 0xbf,
        ];
        assert_eq!(found[1], scalars);
        // CRC-32C's check value, masked.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }
}
