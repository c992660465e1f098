//! A worker: a process that computes sets for a service elsewhere.
//!
//! Three threads share it. One takes leases and fetches ciphertexts, the next set while one is computed. One computes and publishes.
//! One renews leases, and ends a computation whose lease is over.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cryptodl::{CiphertextsInfo, Error, Progress, RunError, Service, Watch};
use cryptodl_core::wire::{CiphertextLayout, CiphertextsReader, WireError};
use serde::Serialize;

use crate::compute::{Recent, compute_set, read_keys, write_result};
use crate::remote::leases::Leased;
use crate::remote::{Remote, RemoteError};
use crate::stop::Stop;

/// Seconds that the service is asked to wait for a set.
const WAIT: u64 = 5;
/// How often threads look whether to go on.
const LOOK: Duration = Duration::from_millis(100);
/// How long a set has been computed when the next one is asked for: whoever waits with nothing to do should have it first.
const AHEAD: Duration = Duration::from_millis(100);
/// After a failure of the service itself, or of the line.
const PAUSE: Duration = Duration::from_secs(1);
/// Attempts to fetch a set whose bytes arrive damaged, or only in part.
const FETCHES: u32 = 5;

/// How a worker works.
#[derive(Clone, Copy, Debug)]
pub struct WorkOptions {
    /// Bytes of expanded evaluation keys that are kept for the next set.
    pub key_memory: u64,
    /// How long the set that is computed may take to end after the stop.
    pub grace: Duration,
    /// Computes without masks where the service says so: for tests only.
    pub insecure_deterministic: bool,
}

/// What a worker has done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WorkReport {
    /// Sets whose results were published.
    pub sets: u64,
    /// Their images.
    pub images: u64,
    /// Leases that ended before there was a result, or whose result came too late.
    pub lost: u64,
    /// Sets that could not be computed.
    pub failed: u64,
    /// Sets that were given back at the end.
    pub given_back: u64,
    /// Where the time went.
    pub seconds: WorkSeconds,
}

/// Seconds of a worker.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WorkSeconds {
    /// Waiting for a set to be there, also while it was fetched.
    pub wait: f64,
    /// Computing, with the first use of keys.
    pub compute: f64,
    /// Sending results.
    pub publish: f64,
}

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The service refuses it, or does not answer.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The service asks for what the client must not get.
    #[error(
        "the service asks for results that are not masked, which show exact equations in the weights: it was started with \
         --insecure-deterministic; for a test, start the worker with it as well"
    )]
    Unmasked,
}

/// A set that this worker has.
struct Held {
    lease: Leased,
    cancel: AtomicBool,
    done: AtomicUsize,
    total: AtomicUsize,
    /// What its steps compute, as soon as its computation begins.
    layers: OnceLock<Vec<String>>,
    /// When it must be renewed, and when it ends.
    times: Mutex<(Instant, Instant)>,
}

impl Held {
    fn new(lease: Leased, asked: Instant) -> Self {
        let times = Mutex::new(times(asked, lease.seconds));
        let (done, total) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Held { lease, cancel: AtomicBool::new(false), done, total, layers: OnceLock::new(), times }
    }

    /// The layer that is being computed.
    fn layer(&self) -> Option<&str> {
        self.layers.get()?.get(self.done.load(Ordering::Relaxed)).map(String::as_str)
    }
}

/// A third of a lease leaves time for two more attempts. It runs from before the question, not from after the answer.
fn times(asked: Instant, seconds: u64) -> (Instant, Instant) {
    let whole = Duration::from_secs(seconds);
    (asked + whole / 3, asked + whole)
}

/// A set that has arrived.
struct Fetched {
    held: Arc<Held>,
    /// Its place among `services`.
    service: usize,
    part: CiphertextsInfo,
    bytes: Vec<u8>,
}

/// When the next set is to be fetched.
#[derive(Default)]
struct Pace {
    state: Mutex<PaceState>,
    changed: Condvar,
}

#[derive(Default)]
struct PaceState {
    /// When the computation of a set began; none where nothing is computed.
    since: Option<Instant>,
    ended: bool,
}

impl Pace {
    fn set(&self, change: impl FnOnce(&mut PaceState)) {
        change(&mut lock(&self.state));
        self.changed.notify_all();
    }

    /// Waits until a set is wanted; false when none will be.
    fn wait(&self) -> bool {
        let mut state = lock(&self.state);
        loop {
            let left = match state.since {
                _ if state.ended => return false,
                None => return true,
                Some(since) => AHEAD.saturating_sub(since.elapsed()),
            };
            if left.is_zero() {
                return true;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What the threads share.
struct Worker<'a> {
    remote: &'a Remote,
    services: &'a [Service],
    programs: Vec<String>,
    options: WorkOptions,
    stop: &'a Stop,
    tell: &'a (dyn Fn(&str) + Sync),
    held: Mutex<HashMap<i64, Arc<Held>>>,
    report: Mutex<WorkReport>,
    pace: Pace,
    ended: AtomicBool,
}

/// Computes sets of `services` for the service at `remote` until `stop`, and says what was done. `tell` is told what went wrong with
/// single sets; the worker goes on.
///
/// # Errors
/// The service refuses the worker, or does not answer for as long as the patience of `remote` lasts.
pub fn work(
    remote: &Remote,
    services: &[Service],
    options: WorkOptions,
    stop: &Stop,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<WorkReport, WorkError> {
    let worker = Worker {
        remote,
        services,
        programs: services.iter().map(|service| service.spec().program.to_string()).collect(),
        options,
        stop,
        tell,
        held: Mutex::default(),
        report: Mutex::default(),
        pace: Pace::default(),
        ended: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        scope.spawn(|| worker.renew());
        // One set lies here while another one is computed.
        let (fetched, sets) = sync_channel(0);
        let fetcher = scope.spawn(|| worker.fetch(fetched));
        let computed = worker.compute(sets);
        worker.pace.set(|pace| pace.ended = true);
        let fetched = fetcher.join().expect("the thread that fetches does not panic");
        worker.ended.store(true, Ordering::SeqCst);
        computed.and(fetched)
    })?;
    Ok(worker.report.into_inner().unwrap_or_else(PoisonError::into_inner))
}

impl Worker<'_> {
    /// Takes and fetches a set whenever one is wanted.
    fn fetch(&self, fetched: SyncSender<Fetched>) -> Result<(), WorkError> {
        while self.pace.wait() {
            let Some(set) = self.next_set()? else { return Ok(()) };
            self.pace.set(|pace| pace.since = Some(Instant::now()));
            if let Err(returned) = fetched.send(set) {
                self.give_back(&returned.0.held);
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next set, as soon as there is one; none when it is time to stop.
    fn next_set(&self) -> Result<Option<Fetched>, WorkError> {
        let mut answered = Instant::now();
        loop {
            if self.stop.is_stopped() {
                return Ok(None);
            }
            let asked = Instant::now();
            let lease = match self.remote.take_leases(&self.programs, 1, WAIT) {
                Ok(leases) => leases.into_iter().next(),
                Err(_) if self.stop.is_stopped() => return Ok(None),
                // The service's own trouble, which may pass.
                Err(RemoteError::Refused { status: 500.., .. }) if answered.elapsed() < self.remote.patience() => {
                    thread::sleep(PAUSE);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            answered = Instant::now();
            let Some(lease) = lease else { continue };
            let held = Arc::new(Held::new(lease, asked));
            let number = held.lease.lease;
            lock(&self.held).insert(number, held.clone());
            if self.stop.is_stopped() {
                self.give_back(&held);
                return Ok(None);
            }
            if held.lease.secret()?.is_none() && !self.options.insecure_deterministic {
                self.give_back(&held);
                return Err(WorkError::Unmasked);
            }
            match self.receive(&held) {
                Ok(set) => return Ok(Some(set)),
                Err(error) if error.is_over() => self.lost(&held, &error.to_string()),
                Err(RemoteError::Protocol(why)) => self.failed(&held, &why)?,
                Err(_) if self.stop.is_stopped() => self.give_back(&held),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Fetches the ciphertexts of a set.
    fn receive(&self, held: &Arc<Held>) -> Result<Fetched, RemoteError> {
        let lease = &held.lease;
        let unknown = || RemoteError::Protocol("a set of a Program that this worker does not have".into());
        let service = self.programs.iter().position(|program| *program == lease.program).ok_or_else(unknown)?;
        let spec = self.services[service].spec();
        let (binding, layout) = (self.services[service].binding(), CiphertextLayout::input(spec));
        let read = || -> Result<(CiphertextsInfo, Vec<u8>), RemoteError> {
            let input = self.remote.leased_input(lease.lease)?;
            let refused = |error: WireError| RemoteError::Protocol(format!("the request is refused: {error}"));
            let mut reader = CiphertextsReader::open(input, &binding, &layout).map_err(refused)?;
            reader.expect_len(lease.bytes).map_err(refused)?;
            let part = reader.info().clone();
            if part.sets(spec.params()) != 1 || part.images as u64 != lease.images {
                return Err(RemoteError::Protocol("more or less than the set that was leased".into()));
            }
            let mut bytes = Vec::new();
            while reader.next(&mut bytes).map_err(refused)? {}
            reader.finish().map_err(refused)?;
            Ok((part, bytes))
        };
        let mut tries = 1;
        let (part, bytes) = loop {
            match read() {
                // A broken line looks like a damaged file.
                Err(RemoteError::Protocol(_)) if tries < FETCHES && !held.cancel.load(Ordering::SeqCst) => {
                    tries += 1;
                    thread::sleep(PAUSE);
                }
                read => break read?,
            }
        };
        Ok(Fetched { held: held.clone(), service, part, bytes })
    }

    /// Computes sets as they come, and publishes their results.
    fn compute(&self, sets: Receiver<Fetched>) -> Result<(), WorkError> {
        let mut recent = Recent::new(self.options.key_memory);
        loop {
            let waiting = Instant::now();
            let set = loop {
                match sets.recv_timeout(LOOK) {
                    Ok(set) => break set,
                    Err(RecvTimeoutError::Timeout) if !self.stop.is_stopped() => {}
                    Err(_) => return Ok(()),
                }
            };
            self.pace.set(|pace| pace.since = Some(Instant::now()));
            lock(&self.report).seconds.wait += waiting.elapsed().as_secs_f64();
            if self.stop.is_stopped() {
                self.give_back(&set.held);
                return Ok(());
            }
            let Fetched { held, service, part, bytes } = set;
            let computing = Instant::now();
            let service = &self.services[service];
            let computed = catch_unwind(AssertUnwindSafe(|| {
                let keys = recent.get(&held.lease.key, held.lease.key_bytes, service, || {
                    let bytes = self.remote.leased_keys(&held.lease)?;
                    Ok::<_, Trouble>(read_keys(&bytes[..], service.params())?)
                })?;
                held.layers.get_or_init(|| service.layers());
                let tell = |Progress { done, total }: Progress| {
                    held.total.store(total, Ordering::Relaxed);
                    held.done.store(done, Ordering::Relaxed);
                };
                let watch = Watch::new(&tell).with_cancel(&held.cancel);
                let secret = held.lease.secret()?;
                // Its lease may be somebody else's tomorrow, elsewhere: nothing is kept here of what is not done.
                let (scores, _) = compute_set(service, &keys, &part, &bytes, secret.as_deref(), None, watch)?;
                let mut result = Vec::new();
                write_result(service, &part, &scores, &mut result).map_err(RemoteError::from)?;
                Ok::<_, Trouble>(result)
            }));
            drop(bytes);
            self.pace.set(|pace| pace.since = None);
            lock(&self.report).seconds.compute += computing.elapsed().as_secs_f64();
            let result = match computed {
                Ok(Ok(result)) => result,
                Ok(Err(Trouble::Cancelled)) if self.stop.is_stopped() => {
                    self.give_back(&held);
                    continue;
                }
                Ok(Err(Trouble::Cancelled)) => {
                    self.lost(&held, "its lease ended while it was computed");
                    continue;
                }
                Ok(Err(Trouble::Remote(error))) if error.is_over() => {
                    self.lost(&held, &error.to_string());
                    continue;
                }
                Ok(Err(Trouble::Remote(error))) => return Err(error.into()),
                Ok(Err(Trouble::Set(why))) => {
                    self.failed(&held, &why)?;
                    continue;
                }
                Err(_) => {
                    // Keys may have been used half.
                    recent.clear();
                    self.failed(&held, "the worker failed while it computed this set")?;
                    continue;
                }
            };
            let publishing = Instant::now();
            let published = self.remote.publish(&held.lease, result);
            self.forget(&held);
            let mut report = lock(&self.report);
            report.seconds.publish += publishing.elapsed().as_secs_f64();
            match published {
                Ok(()) => {
                    report.sets += 1;
                    report.images += held.lease.images;
                }
                Err(error) if error.is_over() => {
                    drop(report);
                    self.lost(&held, &error.to_string());
                }
                Err(RemoteError::Refused { status: 400..500, detail }) => {
                    drop(report);
                    self.failed(&held, &detail)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Renews leases as long as there are some.
    fn renew(&self) {
        let mut stopped = None;
        while !self.ended.load(Ordering::SeqCst) {
            if self.stop.is_stopped() {
                let since = *stopped.get_or_insert_with(Instant::now);
                if since.elapsed() > self.options.grace {
                    lock(&self.held).values().for_each(|held| held.cancel.store(true, Ordering::SeqCst));
                }
            }
            let all: Vec<Arc<Held>> = lock(&self.held).values().cloned().collect();
            for held in all {
                let (due, end) = *lock(&held.times);
                let asked = Instant::now();
                if asked >= end {
                    // Whatever comes of it is refused.
                    held.cancel.store(true, Ordering::SeqCst);
                } else if asked >= due && !held.cancel.load(Ordering::SeqCst) {
                    let (done, total) = (held.done.load(Ordering::Relaxed), held.total.load(Ordering::Relaxed));
                    match self.remote.renew_lease(held.lease.lease, done, total, held.layer()) {
                        Ok(Some(seconds)) => *lock(&held.times) = times(asked, seconds),
                        // It was published meanwhile, or is lost; it is forgotten in the first case.
                        Err(error) if error.is_over() => held.cancel.store(true, Ordering::SeqCst),
                        Ok(None) | Err(_) => thread::sleep(LOOK),
                    }
                }
            }
            thread::sleep(LOOK);
        }
    }

    fn forget(&self, held: &Held) {
        lock(&self.held).remove(&held.lease.lease);
    }

    /// A set is somebody else's now, or nobody's.
    fn lost(&self, held: &Held, why: &str) {
        self.forget(held);
        lock(&self.report).lost += 1;
        (self.tell)(&format!("set {} of lease {} is lost: {why}", held.lease.set, held.lease.lease));
    }

    /// A set cannot be computed here.
    fn failed(&self, held: &Held, why: &str) -> Result<(), WorkError> {
        self.forget(held);
        lock(&self.report).failed += 1;
        (self.tell)(&format!("set {} of lease {} cannot be computed: {why}", held.lease.set, held.lease.lease));
        match self.remote.fail_lease(held.lease.lease, why) {
            Err(error) if !error.is_over() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// A set is left to another worker. If nobody hears it, the lease expires.
    fn give_back(&self, held: &Held) {
        match self.remote.give_back(held.lease.lease) {
            Err(error) if error.is_over() => self.lost(held, &error.to_string()),
            _ => {
                self.forget(held);
                lock(&self.report).given_back += 1;
            }
        }
    }
}

/// Why a set has no result.
enum Trouble {
    Cancelled,
    Remote(RemoteError),
    Set(String),
}

impl From<RemoteError> for Trouble {
    fn from(error: RemoteError) -> Self {
        Trouble::Remote(error)
    }
}

impl From<WireError> for Trouble {
    fn from(error: WireError) -> Self {
        Trouble::Set(format!("keys are refused: {error}"))
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled(_) | Error::Run(RunError::Cancelled(_)) => Trouble::Cancelled,
            error => Trouble::Set(error.to_string()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
