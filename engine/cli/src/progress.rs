//! Progress of long steps: bars on stderr where it is a terminal, nothing elsewhere.

use std::sync::LazyLock;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// All bars, one below the other: a long step may begin another.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A bar for the step `name`. It disappears when it is dropped.
pub struct Bar(ProgressBar);

impl Bar {
    pub fn new(name: &'static str) -> Self {
        let style = ProgressStyle::with_template("{prefix:10} {wide_bar} {percent:>3} % {elapsed} {msg}");
        let bar = ProgressBar::new(0).with_style(style.expect("a valid template")).with_prefix(name);
        Bar(BARS.add(bar))
    }

    /// `done` of `total` parts are done.
    pub fn show(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    /// Says what is going on.
    pub fn say(&self, message: String) {
        self.0.set_message(message);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
        BARS.remove(&self.0);
    }
}
