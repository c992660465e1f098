//! The one thread that computes: one job at a time, because a computation takes all of a backend.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cryptodl::{AcceptedEvaluationKeys, Error, Progress, PublicKey, Randomness, Rerandomisation, RunError, Watch};
use cryptodl_core::wire::{CiphertextLayout, CiphertextsWriter, WireError};

use crate::host::{Host, Running};
use crate::model::Model;
use crate::problem::Problem;
use crate::storage::{BlobKind, Id, Job, Part, StoreError, Work, now};

/// How long the worker sleeps when nobody wakes it.
const NAP: Duration = Duration::from_secs(5);
/// And after a failure of the database.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a computation gave no result.
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

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Store(error.into())
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Failure::Job(format!("the request is refused: {error}"))
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Cancelled(_) => Failure::Cancelled,
            error => Failure::Job(error.to_string()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled(_) => Failure::Cancelled,
            error => Failure::Job(error.to_string()),
        }
    }
}

/// A client's keys, ready for use.
struct Ready {
    key: Id,
    public: PublicKey,
    evaluation: AcceptedEvaluationKeys,
    bytes: u64,
}

/// Keys that were used lately, the last one at the end.
struct Recent {
    keys: Vec<Arc<Ready>>,
    most: u64,
}

impl Recent {
    /// The keys of a job, read and expanded unless they are still here.
    fn get(&mut self, host: &Host, model: &Model, job: &Job) -> Result<Arc<Ready>, Failure> {
        if let Some(at) = self.keys.iter().position(|ready| ready.key == job.key) {
            let ready = self.keys.remove(at);
            self.keys.push(ready.clone());
            return Ok(ready);
        }
        // Expanded, both halves of a key are words of 32 bits.
        let bytes = model.keys_len().saturating_mul(3);
        while !self.keys.is_empty()
            && self.keys.iter().map(|ready| ready.bytes).sum::<u64>().saturating_add(bytes) > self.most
        {
            self.keys.remove(0);
        }
        let file = File::open(host.store.blobs().path(BlobKind::Keys, &job.key))?;
        let (public, evaluation) = model.read_keys(&file)?;
        let evaluation = model.service().accept_evaluation_keys(&evaluation)?;
        let ready = Arc::new(Ready { key: job.key.clone(), public, evaluation, bytes });
        self.keys.push(ready.clone());
        Ok(ready)
    }
}

impl Host {
    /// Begins to compute, on a thread of its own, until [`Host::stop`].
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start_worker(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let host = self.clone();
        self.working.store(true, Ordering::SeqCst);
        thread::Builder::new().name("worker".into()).spawn(move || host.work())
    }

    fn work(&self) {
        let programs: Vec<String> = self.models.iter().map(|model| model.program().to_owned()).collect();
        let mut recent = Recent { keys: Vec::new(), most: self.config.key_memory };
        while !self.is_stopping() {
            match self.store.next_job(&programs) {
                Ok(None) => self.wait_for_work(NAP),
                Ok(Some(work)) => {
                    if let Err(error) = self.follow(work, &mut recent) {
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
        self.working.store(false, Ordering::SeqCst);
    }

    /// Computes a job to its end, or lets it wait again.
    fn follow(&self, work: Work, recent: &mut Recent) -> Result<(), StoreError> {
        let Work { job, secret } = work;
        let Some(model) = self.model_of(&job.program) else { return self.store.requeue_job(&job.id, false) };
        let running = Arc::new(Running {
            job: job.id.clone(),
            cancel: AtomicBool::new(false),
            done: AtomicUsize::new(0),
            total: AtomicUsize::new(0),
        });
        self.set_running(Some(running.clone()));
        self.job_changed();
        let began = Instant::now();
        let computed = catch_unwind(AssertUnwindSafe(|| self.compute(model, &job, &secret, &running, recent)));
        self.set_running(None);
        let outcome = match computed {
            Ok(Ok((part, bytes))) => {
                if self.store.finish_job(&job.id, part, bytes)? {
                    let waited = Duration::from_secs(now().saturating_sub(job.created).max(0) as u64);
                    self.metrics.computed(model.name(), job.images, job.sets, waited, began.elapsed());
                    "done"
                } else {
                    self.store.end_cancelled_job(&job.id)?;
                    "cancelled"
                }
            }
            // The service stops, and the job was not meant: it waits for the next start.
            Ok(Err(Failure::Cancelled)) if self.is_stopping() => {
                self.store.requeue_job(&job.id, false)?;
                "interrupted"
            }
            Ok(Err(Failure::Cancelled)) => {
                self.store.end_cancelled_job(&job.id)?;
                "cancelled"
            }
            Ok(Err(Failure::Job(why))) => {
                self.store.fail_job(&job.id, &why)?;
                "failed"
            }
            Ok(Err(Failure::Store(error))) => {
                self.store.requeue_job(&job.id, true)?;
                return Err(error);
            }
            Err(_) => {
                // Keys may have been used half.
                recent.keys.clear();
                self.store.fail_job(&job.id, "the service failed while it computed this job")?;
                "failed"
            }
        };
        self.metrics.ended(model.name(), outcome);
        self.job_changed();
        Ok(())
    }

    /// The result of a job, not yet published, and its length.
    fn compute(
        &self,
        model: &Model,
        job: &Job,
        secret: &[u8; 32],
        running: &Running,
        recent: &mut Recent,
    ) -> Result<(Part, u64), Failure> {
        let keys = recent.get(self, model, job)?;
        let service = model.service();
        let file = File::open(self.store.blobs().path(BlobKind::Uploads, &job.upload))?;
        let length = file.metadata()?.len();
        let refused = |problem: Problem| Failure::Job(problem.detail().to_owned());
        let mut request = model.open_request(file, length).map_err(refused)?;
        let mut masks = Randomness::from_secret(secret, "masks");
        let tell = |Progress { done, total }: Progress| {
            running.total.store(total, Ordering::Relaxed);
            running.done.store(done, Ordering::Relaxed);
        };
        let watch = Watch::new(&tell).with_cancel(&running.cancel);
        let rerandomisation = Rerandomisation::Fresh { key: &keys.public, rng: &mut masks };
        let mut computation = service.begin(request.info(), &keys.evaluation, rerandomisation, watch)?;
        let result = service.result(request.info());
        let part = self.store.blobs().part(BlobKind::Results, &job.id)?;
        let mut sink = BufWriter::with_capacity(1 << 16, part.file());
        let layout = CiphertextLayout::result(service.spec());
        let mut writer = CiphertextsWriter::new(&mut sink, &service.binding(), &layout, &result)?;
        let mut set = Vec::new();
        while request.next(&mut set)? {
            if let Some(result) = computation.push(&set)? {
                writer.put(&result)?;
            }
        }
        let (last, _) = computation.finish()?;
        if let Some(result) = last {
            writer.put(&result)?;
        }
        // A damaged request has no result.
        request.finish()?;
        writer.finish()?;
        sink.flush()?;
        drop(sink);
        let length = part.file().metadata()?.len();
        Ok((part, length))
    }
}
