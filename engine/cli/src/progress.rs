//! Long steps: what they take, and bars on stderr where it is a terminal, nothing elsewhere.

use serde::Serialize;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::Result;
use cryptodl_core::watch::Progress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// All bars, one below the other: a long step may begin another.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// How often the elapsed time moves on.
const TICK: Duration = Duration::from_millis(250);

const UNKNOWN: &str = "{prefix:10} {spinner} {elapsed} so far  {wide_msg}";
const KNOWN: &str = "{prefix:10} {bar:30} {percent:>3} %  {elapsed} so far, {eta} left  {wide_msg}";

/// A bar for the step `name`, with the time left as soon as the step says how long it is. It
/// disappears when it is dropped. Where nothing is shown there is none: it would take a thread and
/// memory that may be scarce.
pub struct Bar(Option<ProgressBar>);

impl Bar {
    pub fn new(name: &'static str) -> Self {
        if BARS.is_hidden() {
            return Bar(None);
        }
        let bar = BARS.add(ProgressBar::no_length().with_style(style(UNKNOWN)).with_prefix(name));
        bar.enable_steady_tick(TICK);
        Bar(Some(bar))
    }

    /// `done` of `total` parts are done.
    pub fn show(&self, done: u64, total: u64) {
        let Some(bar) = &self.0 else { return };
        if bar.length().is_none() {
            bar.set_style(style(KNOWN));
        }
        bar.set_length(total);
        bar.set_position(done);
    }

    /// As [`Bar::show`], as libraries tell it.
    pub fn watch(&self, progress: Progress) {
        self.show(progress.done as u64, progress.total as u64);
    }

    /// Says what is going on.
    pub fn say(&self, message: String) {
        if let Some(bar) = &self.0 {
            bar.set_message(message);
        }
    }

    /// Leaves a line above all bars, where they are shown.
    pub fn leave(&self, line: &str) {
        // Only a terminal that is gone refuses it.
        let _ = BARS.println(line);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
            BARS.remove(bar);
        }
    }
}

/// Where the time of a command went that takes files to files.
#[derive(Default, Serialize)]
pub struct Seconds {
    pub read: f64,
    pub compute: f64,
    pub write: f64,
}

/// Adds what `work` takes to `seconds`.
pub fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let done = work();
    *seconds += start.elapsed().as_secs_f64();
    done
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a valid template")
}
