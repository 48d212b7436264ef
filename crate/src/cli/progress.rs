//! A bar for who waits, on standard error; where that is no terminal, a line now and then.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::Output;

/// How often a log gets a line.
const EVERY: Duration = Duration::from_secs(30);

/// How far the work is, its rate and the time that is left.
pub(in crate::cli) struct Progress {
    bar: ProgressBar,
    logged: Instant,
    /// What was done before this process: no measure of its rate.
    before: Option<u64>,
}

impl Progress {
    pub(in crate::cli) fn new(total: u64) -> Self {
        Self::styled(total, "{msg:24!} {wide_bar} {pos}/{len} · {per_sec} · {eta_precise} left")
    }

    /// Of a download whose length is not known yet.
    pub(in crate::cli) fn bytes() -> Self {
        let style = "{msg:48!} {wide_bar} {bytes}/{total_bytes} · {bytes_per_sec} · {eta_precise} left";
        Self::styled(0, style)
    }

    fn styled(total: u64, style: &str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, logged: Instant::now(), before: None }
    }

    pub(in crate::cli) fn at(&mut self, done: u64, total: u64, what: &str, output: &Output) {
        if self.before.is_none() {
            self.before = Some(done);
            self.bar.set_position(done);
            self.bar.reset_eta();
        }
        self.bar.set_length(total);
        self.bar.set_message(what.to_owned());
        self.bar.set_position(done);
        if self.bar.is_hidden() && self.logged.elapsed() >= EVERY {
            self.logged = Instant::now();
            let left = self.bar.eta().as_secs();
            output.note(&format!(
                "{what}: {done} of {total}, {:.2} a second, {left} s left",
                self.bar.per_sec()
            ));
        }
    }

    pub(in crate::cli) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
