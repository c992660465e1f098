//! What the service does for every job, whoever computes it: compare the checksum of its request, and make its result of those of its
//! sets.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::thread;
use std::time::Duration;

use cryptodl_core::wire::{CiphertextLayout, CiphertextsReader, TRAILER_LEN, WireError};

use crate::host::Host;
use crate::model::Model;
use crate::problem::Problem;
use crate::sets;
use crate::storage::{BlobKind, Chore, Id, Job, StoreError, Whole, now, set_name};
use crate::worker::{NAP, PAUSE};

/// How often a chore is tried that the disk or the database does not let come to an end.
const MAX_TRIES: u32 = 16;
/// Bytes that are read between two looks whether to go on.
const PIECE: usize = 1 << 20;

/// Why a chore came to no end.
enum Trouble {
    /// The service stops: it is done after the next start.
    Stopping,
    /// The job cannot have a result: for its tenant to read.
    Job(String),
    /// The service's own disk or database.
    Store(StoreError),
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Trouble::Store(error.into())
    }
}

impl From<WireError> for Trouble {
    fn from(error: WireError) -> Self {
        Trouble::Job(format!("the service has damaged the result of a set: {error}"))
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Trouble::Store(error)
    }
}

impl Host {
    /// Does chores until the service stops and nothing computes in it any more.
    pub(crate) fn keep_books(&self) {
        let programs = self.programs();
        let mut heard = 0;
        let mut tries: HashMap<Id, u32> = HashMap::new();
        loop {
            let chore = match self.store.next_chore(&programs) {
                Ok(Some(chore)) => chore,
                Ok(None) if self.is_stopping() && self.running().is_none() => return,
                Ok(None) => {
                    self.wait_for_work(&mut heard, if self.is_stopping() { PAUSE / 20 } else { NAP });
                    continue;
                }
                Err(error) => {
                    eprintln!("error: {error}");
                    if self.is_stopping() {
                        return;
                    }
                    thread::sleep(PAUSE);
                    continue;
                }
            };
            let (Chore::Check(job) | Chore::Join(job)) = &chore;
            let done = match self.model_of(&job.program) {
                None => Ok(()),
                Some(model) => match &chore {
                    Chore::Check(job) => self.check(model, job),
                    Chore::Join(job) => self.join(model, job),
                },
            };
            let failed = match done {
                Ok(()) => {
                    tries.remove(&job.id);
                    continue;
                }
                Err(Trouble::Stopping) => return,
                Err(Trouble::Job(why)) => Some(why),
                Err(Trouble::Store(error)) => {
                    // Its files are gone when a job was ended meanwhile.
                    let tried = tries.entry(job.id.clone()).or_default();
                    *tried += 1;
                    if *tried < MAX_TRIES {
                        eprintln!("error: {error}");
                        thread::sleep(PAUSE);
                        None
                    } else {
                        Some("the service could not read or write its files".into())
                    }
                }
            };
            if let Some(why) = failed {
                tries.remove(&job.id);
                match self.store.fail_job(&job.id, &why) {
                    Ok(()) => self.job_failed(&job.id),
                    Err(error) => {
                        eprintln!("error: {error}");
                        thread::sleep(PAUSE);
                    }
                }
            }
        }
    }

    /// A job has failed.
    pub(crate) fn job_failed(&self, job: &Id) {
        self.end_job(job, "failed");
        let model = self.store.program_of(job).ok().and_then(|program| Some(self.model_of(&program)?.name()));
        self.metrics.ended(model.unwrap_or("none"), "failed");
        self.job_changed();
    }

    /// Compares the checksum of a whole request. Its sets are computed meanwhile.
    fn check(&self, model: &Model, job: &Job) -> Result<(), Trouble> {
        let path = self.store.blobs().path(BlobKind::Uploads, &job.upload);
        let file = match File::open(&path) {
            // It was ended meanwhile.
            Err(_) if !self.store.is_pending(&job.id)? => return Ok(()),
            opened => opened?,
        };
        let length = file.metadata()?.len();
        let refused = |problem: Problem| Trouble::Job(problem.detail().to_owned());
        model.open_request(file.try_clone()?, length).map_err(refused)?;
        if !self.has_checksum(file, length)? {
            return Err(Trouble::Job(format!("the request is refused: {}", WireError::Checksum)));
        }
        self.store.note_checked(&job.id)?;
        Ok(())
    }

    /// Whether the last bytes of a file of `length` bytes are the checksum of the others.
    fn has_checksum(&self, mut file: File, length: u64) -> Result<bool, Trouble> {
        use std::io::{Read, Seek, SeekFrom};
        file.seek(SeekFrom::Start(0))?;
        let mut left = length.saturating_sub(TRAILER_LEN as u64);
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![0; PIECE];
        while left > 0 {
            if self.is_stopping() && self.running().is_none() {
                return Err(Trouble::Stopping);
            }
            let take = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
            file.read_exact(&mut piece[..take])?;
            hasher.update(&piece[..take]);
            left -= take as u64;
        }
        let mut checksum = [0; TRAILER_LEN];
        file.read_exact(&mut checksum)?;
        Ok(hasher.finalize() == checksum)
    }

    /// Makes the result of a job of those of its sets, in their order, and publishes it. Where these are in a store, its client joins
    /// them.
    fn join(&self, model: &Model, job: &Job) -> Result<(), Trouble> {
        let joined = if self.store.objects().is_some() { Ok(None) } else { self.joined(model, job).map(Some) };
        let result = match joined {
            Err(_) if !self.store.is_pending(&job.id)? => return Ok(()),
            joined => joined?,
        };
        if self.store.finish_job(&job.id, result)? {
            let took = self.end_job(&job.id, "done").unwrap_or_default();
            let began = job.started.unwrap_or_else(now);
            let waited = Duration::from_secs(began.saturating_sub(job.created).max(0) as u64);
            self.metrics.computed(model.name(), job.images, job.sets, waited, took);
            self.metrics.ended(model.name(), "done");
        }
        self.job_changed();
        Ok(())
    }

    fn joined(&self, model: &Model, job: &Job) -> Result<(Whole, u64), Trouble> {
        let layout = CiphertextLayout::result(model.spec());
        let binding = model.binding();
        let open = |set: u64| {
            let file = File::open(self.store.blobs().path(BlobKind::Sets, &set_name(&job.id, set)))?;
            Ok::<_, Trouble>(CiphertextsReader::open(file, &binding, &layout)?)
        };
        let part = self.store.blobs().part(BlobKind::Results)?;
        let mut sink = BufWriter::with_capacity(1 << 16, part.file());
        sets::join(&binding, &layout, job.images as usize, job.sets, open, &mut sink)?;
        sink.flush()?;
        drop(sink);
        let length = part.file().metadata()?.len();
        Ok((part.sync()?, length))
    }
}
