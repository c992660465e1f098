//! Files under temporary names do not outlive a process that is told to stop.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whether the process was told to stop: programs that it runs are to be ended.
pub static STOPPING: AtomicBool = AtomicBool::new(false);

/// Whether a signal is about to end the process.
pub fn stopping() -> bool {
    STOPPING.load(Ordering::Relaxed)
}

/// Every temporary file and folder that was made; the names of those that were published belong to
/// nothing any more.
static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Has `path` deleted if a signal ends the process.
pub fn delete_at_end(path: &Path) {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    hold().push(path);
}

/// While this is held, a signal waits: files that belong together are published all or none.
pub fn hold() -> MutexGuard<'static, Vec<PathBuf>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a command does at the first signal instead of being ended.
static GRACEFUL: Mutex<Option<Box<dyn FnOnce() + Send>>> = Mutex::new(None);

/// At the first signal `stop` is called, which lets the command end by itself; a second one ends the process.
pub fn end_gracefully(stop: impl FnOnce() + Send + 'static) {
    *GRACEFUL.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(stop));
}

/// From now on SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal is gone) delete temporary files
/// before they end the process.
#[cfg(unix)]
pub fn watch() -> std::io::Result<()> {
    use std::time::Duration;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    /// Programs that this process runs are ended within it.
    const PROGRAMS_END: Duration = Duration::from_millis(100);

    // A process that was started with a signal ignored, by `nohup` or in the background of a script, goes on ignoring it.
    let ignored = ignored();
    let watched = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = signal_hook::iterator::Signals::new(watched)?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let graceful = GRACEFUL.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(stop) = graceful {
                stop();
                continue;
            }
            STOPPING.store(true, Ordering::Relaxed);
            std::thread::sleep(PROGRAMS_END);
            for path in hold().iter() {
                // One that is gone was published or dropped.
                let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            }
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

/// Signals that are ignored, bit 0 for number 1, as far as the system tells.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Elsewhere the process ends as it does.
#[cfg(not(unix))]
pub fn watch() -> std::io::Result<()> {
    Ok(())
}
