//! Who watches a long computation: told how far it is, and asked whether to go on.

use std::sync::atomic::{AtomicBool, Ordering};

/// Where a long computation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Steps that are done.
    pub done: usize,
    /// Steps in all.
    pub total: usize,
}

/// What a long computation tells, from any of its threads, and how it is ended early. The default tells nobody and goes to its end.
#[derive(Clone, Copy, Default)]
pub struct Watch<'a> {
    progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    cancel: Option<&'a AtomicBool>,
}

/// The computation was ended by its [`Watch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

impl<'a> Watch<'a> {
    /// Tells `progress`.
    pub fn new(progress: &'a (dyn Fn(Progress) + Sync)) -> Self {
        Watch { progress: Some(progress), cancel: None }
    }

    /// Ends the computation with an error soon after `cancel` is set: between two calls of a backend, which take a fraction of a second
    /// each on a common machine. On a GPU, what was handed over is computed to its end.
    pub fn with_cancel(self, cancel: &'a AtomicBool) -> Self {
        Watch { cancel: Some(cancel), ..self }
    }

    /// Tells how far the computation is.
    pub fn tell(&self, done: usize, total: usize) {
        if let Some(progress) = self.progress {
            progress(Progress { done, total });
        }
    }

    /// Whether anybody can end it.
    pub fn can_cancel(&self) -> bool {
        self.cancel.is_some()
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// [`Cancelled`].
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) { Err(Cancelled) } else { Ok(()) }
    }
}
