//! The end of what runs long.

use tokio::sync::watch;

/// Ends a service, or a worker of one, from another thread.
#[derive(Clone)]
pub struct Stop(watch::Sender<bool>);

impl Default for Stop {
    fn default() -> Self {
        Stop(watch::channel(false).0)
    }
}

impl Stop {
    /// Ends it.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Whether it is to end.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// Is told of the end.
    #[cfg(feature = "server")]
    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}
