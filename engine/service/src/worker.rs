//! The one thread of the service that computes: one set at a time, because a computation takes all of a backend. It takes leases from
//! the same queue as workers elsewhere.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cryptodl::{Checkpoint, Error, Progress, RunError, Watch};
use cryptodl_core::wire::WireError;

use crate::compute::{Recent, compute_set, first_set, write_result};
use crate::host::{Host, Running};
use crate::model::Model;
use crate::problem::Problem;
use crate::sets::part_of;
use crate::storage::{BlobKind, Lease, StoreError, Turn, Whole, now};

/// How long a thread sleeps when nobody wakes it.
pub(crate) const NAP: Duration = Duration::from_secs(5);
/// And after a failure of the database.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// Why a set has no result.
enum Failure {
    /// It was told to end.
    Cancelled,
    /// The client sent what cannot be computed, or the backend could not do it: for the client to read.
    Job(String),
    /// The service's own disk or database.
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Store(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Store(error.into())
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Failure::Job(format!("the request is refused: {error}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled(_) => Failure::Cancelled,
            Error::Run(RunError::Cancelled(_)) => Failure::Cancelled,
            error => Failure::Job(error.to_string()),
        }
    }
}

/// What a [`Host`] does on threads of its own.
pub struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    /// Waits until they have ended, after [`Host::stop`].
    pub fn join(self) {
        for thread in self.0 {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Host {
    /// Begins to work, on threads of its own, until [`Host::stop`]: to compute the models that are computed in this process, and to
    /// make results of sets, whoever has computed them.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(self: &Arc<Self>) -> io::Result<Threads> {
        let mut threads = Vec::new();
        let mut start = |name: &str, work: fn(&Host)| {
            let host = self.clone();
            self.working.fetch_add(1, Ordering::SeqCst);
            let thread = thread::Builder::new().name(name.into()).spawn(move || {
                work(&host);
                host.working.fetch_sub(1, Ordering::SeqCst);
            });
            thread.map(|thread| threads.push(thread)).inspect_err(|_| {
                self.working.fetch_sub(1, Ordering::SeqCst);
            })
        };
        if self.models.iter().any(|model| model.service().is_some()) {
            start("worker", Host::work)?;
        }
        start("clerk", Host::keep_books)?;
        Ok(Threads(threads))
    }

    fn work(&self) {
        let computed = self.models.iter().filter(|model| model.service().is_some());
        let programs: Vec<String> = computed.map(|model| model.program().to_owned()).collect();
        let mut recent = Recent::new(self.config.key_memory);
        let mut heard = 0;
        while !self.is_stopping() {
            match self.lease(&programs, None) {
                Ok(None) => self.wait_for_work(&mut heard, NAP),
                Ok(Some(lease)) => {
                    if let Err(error) = self.follow(&lease, &mut recent) {
                        eprintln!("error: {error}");
                        thread::sleep(PAUSE);
                    }
                }
                Err(error) => {
                    eprintln!("error: {error}");
                    thread::sleep(PAUSE);
                }
            }
        }
        // Nobody needs to wait for this thread any more.
        self.wake();
    }

    /// Gives the next set of one of `programs` to `worker`, or to this process if that is none.
    pub(crate) fn lease(&self, programs: &[String], worker: Option<&str>) -> Result<Option<Lease>, StoreError> {
        let Turn { lease, failed } = self.store.lease_set(programs, worker, now())?;
        failed.iter().for_each(|job| self.job_failed(job));
        if let Some(lease) = &lease {
            self.begin_set(lease);
        }
        Ok(lease)
    }

    /// Computes a set to its end, or lets it wait again. What was kept of it stays as long as it waits.
    fn follow(&self, lease: &Lease, recent: &mut Recent) -> Result<(), StoreError> {
        let followed = self.try_set(lease, recent);
        let waits = self.store.is_unpublished(&lease.job, lease.set)?;
        if !waits {
            self.store.remove_checkpoint(&lease.job, lease.set)?;
        }
        followed
    }

    fn try_set(&self, lease: &Lease, recent: &mut Recent) -> Result<(), StoreError> {
        let running = Arc::new(Running { job: lease.job.clone(), cancel: AtomicBool::new(false) });
        self.set_running(Some(running.clone()));
        self.job_changed();
        let computed = catch_unwind(AssertUnwindSafe(|| self.compute(lease, &running, recent)));
        let end = match computed {
            Ok(Ok(result)) => self.store.publish_set(lease.number, None, Some(result), now()).map(|_| "done"),
            // The service stops, and the job was not meant: it waits for the next start. Or the job has ended, and nobody minds.
            Ok(Err(Failure::Cancelled)) => {
                self.store.give_back(lease.number, None, false, now()).map(|()| "given back")
            }
            Ok(Err(Failure::Job(why))) => self.fail_set(lease.number, None, &why).map(|()| "failed"),
            Ok(Err(Failure::Store(error))) => {
                let back = self.store.give_back(lease.number, None, true, now());
                self.set_running(None);
                self.end_set(lease.number, "given back");
                return match back {
                    // Files of a job that has ended are gone, and that is no failure.
                    Err(StoreError::Conflict(_)) => Ok(()),
                    _ => Err(error),
                };
            }
            Err(_) => {
                // Keys may have been used half.
                recent.clear();
                self.fail_set(lease.number, None, "the service failed while it computed this set").map(|()| "failed")
            }
        };
        self.set_running(None);
        let outcome = match end {
            Ok(outcome) => outcome,
            // The job ended meanwhile.
            Err(StoreError::Conflict(_)) => "refused",
            Err(error) => {
                self.end_set(lease.number, "refused");
                return Err(error);
            }
        };
        self.end_set(lease.number, outcome);
        self.wake();
        self.job_changed();
        Ok(())
    }

    /// Ends a lease with an error, and the job if that is enough.
    pub(crate) fn fail_set(&self, lease: i64, worker: Option<&str>, why: &str) -> Result<(), StoreError> {
        let (job, failed) = self.store.fail_set(lease, worker, why, now())?;
        self.end_set(lease, "failed");
        if failed {
            self.job_failed(&job);
        }
        Ok(())
    }

    /// The scores of a set, on the disk and not yet published.
    fn compute(&self, lease: &Lease, running: &Running, recent: &mut Recent) -> Result<Whole, Failure> {
        let model = self.model_of(&lease.program).ok_or(Failure::Cancelled)?;
        let service = model.service().ok_or(Failure::Cancelled)?;
        let keys = recent.get(lease.key.as_str(), model.keys_len(), service, || {
            let file = File::open(self.store.blobs().path(BlobKind::Keys, &lease.key))?;
            Ok::<_, Failure>(model.read_keys(&file)?)
        })?;
        let (request, bytes) = self.read_set(model, lease)?;
        let part = part_of(&request, lease.set, model.params());
        let layers = service.layers();
        let tell = |Progress { done, total }: Progress| {
            self.progress_set(lease, done, total, layers.get(done).map(String::as_str));
        };
        tell(Progress { done: 0, total: layers.len() });
        let watch = Watch::new(&tell).with_cancel(&running.cancel);
        let secret = (!self.config.insecure_deterministic).then_some(&*lease.secret);
        let compute =
            |checkpoint: Option<&Checkpoint>| compute_set(service, &keys, &part, &bytes, secret, checkpoint, watch);
        let folder = self.store.checkpoint(&lease.job, lease.set)?;
        let request = keys.request(service, &part, secret.is_some());
        let opened = Checkpoint::open_when_due(&folder, request, self.config.checkpoints);
        let computed = match opened.map_err(|error| RunError::from(error).into()).and_then(|kept| compute(Some(&kept)))
        {
            Err(Error::Run(RunError::Checkpoint(error))) => {
                // The disk is full, or somebody has changed the folder. The set can be computed all the same.
                eprintln!("error: {error}: set {} of job {} is computed without", lease.set, lease.job);
                self.store.remove_checkpoint(&lease.job, lease.set)?;
                compute(None)
            }
            computed => computed,
        };
        let (scores, report) = computed?;
        self.metrics.resumed(model.name(), report.steps_kept);
        drop(bytes);
        let file = self.store.blobs().part(BlobKind::Sets)?;
        let mut sink = BufWriter::with_capacity(1 << 16, file.file());
        write_result(service, &part, &scores, &mut sink)?;
        sink.flush()?;
        drop(sink);
        Ok(file.sync()?)
    }

    /// What the whole request is, and the ciphertexts of the leased set.
    fn read_set(&self, model: &Model, lease: &Lease) -> Result<(cryptodl::CiphertextsInfo, Vec<u8>), Failure> {
        let refused = |problem: Problem| Failure::Job(problem.detail().to_owned());
        let mut file = File::open(self.store.blobs().path(BlobKind::Uploads, &lease.upload))?;
        let length = file.metadata()?.len();
        let request = model.open_request(file.try_clone()?, length).map_err(refused)?.info().clone();
        let set_bytes = request.set_bytes(model.params());
        let mut set = Vec::new();
        let room = set.try_reserve_exact(set_bytes);
        room.map_err(|_| Failure::Job(format!("there is no memory for the {set_bytes} bytes of a set")))?;
        let start = first_set(&request, model.params(), length) + lease.set * set_bytes as u64;
        file.seek(SeekFrom::Start(start))?;
        if file.take(set_bytes as u64).read_to_end(&mut set)? < set_bytes {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok((request, set))
    }
}
