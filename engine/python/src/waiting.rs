//! Long calls: the interpreter is free meanwhile, a callback is told how far they are, and Ctrl-C
//! ends them.

use std::panic::resume_unwind;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use cryptodl::{Progress, Watch};
use pyo3::prelude::*;
use rayon::ThreadPool;

use crate::errors::Raised;

/// The threads of this process, one per core. A process that was forked has none of its parent's,
/// so that whoever waited for them, as for those of rayon's global pool, would wait for ever.
static THREADS: Mutex<Option<(u32, Arc<ThreadPool>)>> = Mutex::new(None);

/// How often signals are looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Threads for parallel work: one per core.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The threads of this process.
pub fn threads() -> Arc<ThreadPool> {
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let here = process::id();
    match &*threads {
        Some((process, pool)) if *process == here => pool.clone(),
        _ => {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(cores()).build();
            let pool = Arc::new(pool.expect("the system gives threads"));
            // The parent's is left as it is: nothing of it can be ended here.
            std::mem::forget(threads.replace((here, pool.clone())));
            pool
        }
    }
}

/// Does `work` on the threads of this process. `progress(done, total)` is called with the
/// interpreter held.
pub fn wait<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(Watch<'_>) -> Result<T, cryptodl::Error> + Send,
) -> PyResult<T> {
    wait_apart(py, progress, |watch| threads().install(|| work(watch)))
}

/// Does `work` on a thread of its own, for work that has threads, or that waits for other such
/// work.
pub fn wait_apart<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(Watch<'_>) -> Result<T, cryptodl::Error> + Send,
) -> PyResult<T> {
    wait_sharing(py, progress, |watch, _| work(watch))
}

/// The same for work that others end as well: they are given what is set at Ctrl-C.
pub fn wait_sharing<T: Send, E: Raised + Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(Watch<'_>, &Arc<AtomicBool>) -> Result<T, E> + Send,
) -> PyResult<T> {
    let (cancel, done, total) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0), AtomicUsize::new(0));
    let tell = |progress: Progress| {
        total.store(progress.total, Ordering::Relaxed);
        done.store(progress.done, Ordering::Relaxed);
    };
    let mut told = 0;
    let mut report = |py: Python<'_>| -> PyResult<()> {
        py.check_signals()?;
        let now = done.load(Ordering::Relaxed);
        if let Some(progress) = &progress
            && now != told
        {
            told = now;
            progress.call1(py, (now, total.load(Ordering::Relaxed)))?;
        }
        Ok(())
    };
    let (outcome, interrupted) = py.detach(|| {
        let main = thread::current();
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let outcome = work(Watch::new(&tell).with_cancel(&cancel), &cancel);
                main.unpark();
                outcome
            });
            let mut interrupted = None;
            while !worker.is_finished() {
                thread::park_timeout(LOOK);
                if interrupted.is_none() {
                    interrupted = Python::attach(&mut report).err();
                    cancel.store(interrupted.is_some(), Ordering::Relaxed);
                }
            }
            (worker.join().unwrap_or_else(|panic| resume_unwind(panic)), interrupted)
        })
    });
    if let Some(error) = interrupted {
        return Err(error);
    }
    if outcome.is_ok() {
        report(py)?;
    }
    outcome.map_err(Raised::raised)
}
