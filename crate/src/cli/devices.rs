//! `devices`: what this build can compute on, and what it finds on this machine.

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::device::Device;
use super::output::Output;
use crate::error::Result;

/// The backends of this build and the machine's devices.
#[derive(Debug, Args)]
pub(super) struct Arguments {}

#[derive(Serialize)]
struct Devices {
    devices: Vec<Described>,
}

#[derive(Serialize)]
struct Described {
    /// The name that `--device` takes.
    device: &'static str,
    /// Whether this build has the backend.
    built: bool,
    /// Whether it can run here.
    available: bool,
    /// What it is, or why it cannot run.
    detail: String,
}

pub(super) fn run(_: &Arguments, output: &mut Output) -> Result<()> {
    let devices = Devices { devices: Device::ALL.into_iter().map(describe).collect() };
    output.result(&devices, || {
        devices.devices.iter().fold(String::new(), |mut text, device| {
            let state = if device.available { "yes" } else { "no" };
            let _ = writeln!(text, "{:<8} {state:<4} {}", device.device, device.detail);
            text
        })
    })
}

fn describe(device: Device) -> Described {
    let (name, built) = (device.name(), device.is_built());
    let found = device.look();
    let available = built && found.is_ok();
    let mut detail = found.unwrap_or_else(|why| why);
    if !built {
        detail = format!("not in this build (--features {name}); {detail}");
    }
    Described { device: name, built, available, detail }
}
