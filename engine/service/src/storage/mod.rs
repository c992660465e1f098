//! What outlives the process: rows in SQLite, and blobs as files beside them (see `blobs`) or in an object store (see `objects`).
//!
//! One order holds everywhere. A blob is whole and synced before a row says that it is there, and a row stops saying so before the
//! blob is removed. So after any crash rows are right, and blobs that no row knows are leftovers, which [`Store::open`] removes.

mod blobs;
mod jobs;
mod keys;
mod leases;
mod objects;
mod uploads;

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

pub use blobs::{BlobKind, Blobs, Id, Part, Whole, make_private_folder};
pub use jobs::{Accepted, Chore, Job, JobState, NewJob, set_name};
pub use keys::{KeyRow, Registered};
pub use leases::{Lease, Turn};
pub use objects::{MAX_OBJECT, Objects, keys_name, result_name, set_name as request_set_name};
pub use uploads::Upload;

/// What a tenant and all tenants together may have.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Bytes on disk for one tenant: keys, uploads as long as they were announced, and results.
    pub disk_per_tenant: u64,
    /// Keys of one tenant, of all models together.
    pub keys_per_tenant: u32,
    /// Unfinished uploads of one tenant.
    pub uploads_per_tenant: u32,
    /// Jobs of one tenant that wait or run.
    pub jobs_per_tenant: u32,
    /// Jobs of all tenants that wait or run.
    pub jobs: u32,
    /// Seconds after its last progress that an upload is kept.
    pub upload_seconds: u64,
    /// Seconds after its end that a job and its result are kept.
    pub result_seconds: u64,
    /// Seconds in which a worker must renew the lease of a set.
    pub lease_seconds: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            disk_per_tenant: 16 << 30,
            keys_per_tenant: 16,
            uploads_per_tenant: 16,
            jobs_per_tenant: 16,
            jobs: 64,
            upload_seconds: 24 * 3600,
            result_seconds: 24 * 3600,
            lease_seconds: 60,
        }
    }
}

/// Why something is not stored, or not found.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing of this tenant has this id.
    #[error("there is no {0} of this id")]
    Absent(&'static str),
    /// It is not in a state in which this can be done.
    #[error("{0}")]
    Conflict(String),
    /// Somebody writes to it at this moment.
    #[error("another request is writing to this upload")]
    Busy,
    /// A bound that time lifts by itself: waiting helps.
    #[error("{0}")]
    Full(String),
    /// A bound that stays until the tenant deletes something, or the operator allows more.
    #[error("{0}")]
    Quota(String),
    /// An object store does not answer, or not as it should.
    #[error("object store: {0}")]
    Objects(String),
    /// Ciphertexts are elsewhere than the operator says.
    #[error(
        "this state has keys, uploads or jobs in {}, and not in {}: give the store that it was begun with, or another folder \
         for the state", place_name(.was.as_deref()), place_name(.is.as_deref())
    )]
    Elsewhere {
        /// The store that the state was begun with, or none.
        was: Option<String>,
        /// The one that it is opened with.
        is: Option<String>,
    },
    /// Another process has this state.
    #[error("{0} is used by another process: stop it first, or name another folder")]
    InUse(PathBuf),
    /// SQLite.
    #[error("database: {0}")]
    Database(#[from] rusqlite::Error),
    /// A blob.
    #[error("file: {0}")]
    Files(#[from] io::Error),
}

/// Rows and blobs of a service. Only one process opens it at a time.
pub struct Store {
    db: Mutex<Connection>,
    blobs: Blobs,
    /// In the place of blobs, where the operator says so.
    objects: Option<Arc<Objects>>,
    bounds: Bounds,
    /// Uploads that a request writes to.
    written: Mutex<HashSet<Id>>,
    _lock: File,
}

/// What was found at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Jobs that the service was computing, and begins again.
    pub jobs: usize,
    /// Files and objects that belonged to nothing, and are gone.
    pub leftovers: usize,
}

impl Store {
    /// Opens the state in `folder`, or makes it, and brings it in order after a crash. With `objects` keys, requests and results are
    /// there.
    ///
    /// # Errors
    /// Another process has it; it was begun with another store; it cannot be read or written.
    pub fn open(folder: &Path, objects: Option<Arc<Objects>>, bounds: Bounds) -> Result<(Self, Recovered), StoreError> {
        make_private_folder(folder)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let blobs = Blobs::open(folder)?;
        let db = Connection::open(folder.join("service.sqlite3"))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        // A commit is on the disk when it returns.
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        // What is deleted is overwritten: rows hold the secrets of masks.
        db.pragma_update(None, "secure_delete", true)?;
        db.execute_batch(include_str!("schema.sql"))?;
        leases::migrate(&db)?;
        uploads::migrate(&db)?;
        let written = Mutex::default();
        let store = Store { db: Mutex::new(db), blobs, objects, bounds, written, _lock: lock };
        store.settle()?;
        let recovered = store.recover()?;
        Ok((store, recovered))
    }

    /// The blobs.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// The store that keys, requests and results are in, if it is one.
    pub fn objects(&self) -> Option<&Objects> {
        self.objects.as_deref()
    }

    /// Notes where blobs are, and claims the place.
    fn settle(&self) -> Result<(), StoreError> {
        let is = self.objects().map(|objects| objects.place().to_owned());
        let owner = self.transaction(|db| {
            let select = "SELECT owner, store FROM place";
            let found = db.query_row(select, [], |row| Ok((id(row, 0)?, row.get(1)?))).optional()?;
            let (owner, was) = found.map_or_else(|| Ok::<_, StoreError>((Id::fresh()?, None)), Ok)?;
            let kept = "SELECT EXISTS (SELECT 1 FROM keys WHERE deleted = 0) OR EXISTS (SELECT 1 FROM uploads)
                OR EXISTS (SELECT 1 FROM jobs)";
            if was != is && db.query_row(kept, [], |row| row.get(0))? {
                return Err(StoreError::Elsewhere { was, is: is.clone() });
            }
            db.execute("INSERT OR REPLACE INTO place VALUES (0, ?1, ?2)", params![owner.as_str(), is])?;
            Ok(owner)
        })?;
        self.objects().map_or(Ok(()), |objects| objects.claim(&owner))
    }

    /// The number of the tenant `name`, who is new if there was none.
    ///
    /// # Errors
    /// The database fails.
    pub fn tenant(&self, name: &str) -> Result<i64, StoreError> {
        let db = self.db();
        db.execute("INSERT INTO tenants (name) VALUES (?1) ON CONFLICT DO NOTHING", [name])?;
        Ok(db.query_row("SELECT id FROM tenants WHERE name = ?1", [name], |row| row.get(0))?)
    }

    /// Notes a model that is served.
    ///
    /// # Errors
    /// The database fails.
    pub fn add_model(&self, program: &str, name: &str) -> Result<(), StoreError> {
        let insert = "INSERT INTO models VALUES (?1, ?2, ?3) ON CONFLICT (program) DO UPDATE SET name = ?2";
        self.db().execute(insert, params![program, name, now()])?;
        Ok(())
    }

    /// Whether a row can be written.
    ///
    /// # Errors
    /// It cannot.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        self.transaction(|db| Ok(db.execute("UPDATE tenants SET served = served WHERE id = -1", []).map(|_| ())?))
    }

    /// Removes what has expired at `now`, in seconds since 1970, and wipes what was deleted from the log of the database. Returns how
    /// many uploads and jobs went.
    ///
    /// # Errors
    /// The database or a file fails.
    pub fn sweep(&self, now: i64) -> Result<usize, StoreError> {
        let swept = self.sweep_uploads(now)? + self.sweep_jobs(now)?;
        keys::forget_unused(&self.db())?;
        self.wipe_log()?;
        Ok(swept)
    }

    /// Empties the database's log, which holds older versions of pages. Readers of other processes can delay it.
    pub(crate) fn wipe_log(&self) -> Result<(), StoreError> {
        Ok(self.db().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    fn recover(&self) -> Result<Recovered, StoreError> {
        let jobs = self.recover_leases(now())?;
        let mut leftovers = match self.objects() {
            // Nobody registers keys yet, whose object is there before their row.
            Some(_) => self.sweep_objects(true)?,
            None => {
                self.recover_jobs()?;
                self.recover_uploads()?;
                self.recover_keys()?;
                0
            }
        };
        for kind in BlobKind::ALL {
            let known: HashSet<Id> = {
                let db = self.db();
                let names = |select: &str| {
                    let mut rows = db.prepare(select)?;
                    rows.query_map([], |row| id(row, 0))?.collect::<Result<_, _>>()
                };
                match kind {
                    BlobKind::Keys => names("SELECT id FROM keys WHERE deleted = 0")?,
                    BlobKind::Uploads => names("SELECT id FROM uploads UNION SELECT upload FROM jobs WHERE input = 1")?,
                    BlobKind::Sets => leases::published_sets(&db)?,
                    BlobKind::Results => names("SELECT id FROM jobs WHERE state = 'done'")?,
                    BlobKind::Checkpoints => {
                        leases::unpublished_sets(&db)?.into_iter().map(|(job, set)| set_name(&job, set)).collect()
                    }
                }
            };
            leftovers += self.blobs.remove_others(kind, |id| known.contains(id))?;
        }
        Ok(Recovered { jobs, leftovers })
    }

    /// Removes objects that no row knows, and says how many: what somebody put who came too late. Those of keys are looked at only
    /// with `keys`, when nobody registers any.
    ///
    /// # Errors
    /// The database fails; the store does not answer.
    pub fn sweep_objects(&self, keys: bool) -> Result<usize, StoreError> {
        let Some(objects) = self.objects() else { return Ok(0) };
        // Before the rows are read: whoever was allowed to put an object had a row, and if that is gone, it stays so.
        let there = objects.all_names()?;
        let known = self.known_objects()?;
        let is_known = |name: &str| {
            let request = name.rsplit_once('/').map_or(name, |(request, _)| request);
            known.contains(name) || known.contains(request) || (name.starts_with("keys/") && !keys)
        };
        let unknown: Vec<&String> = there.iter().filter(|name| !is_known(name)).collect();
        unknown.iter().try_for_each(|name| objects.remove(name))?;
        Ok(unknown.len())
    }

    /// Names of the objects that rows know; of a request what the names of all its sets begin with.
    fn known_objects(&self) -> Result<HashSet<String>, StoreError> {
        let db = self.db();
        let mut known = HashSet::new();
        let mut note = |select: &str, name: &dyn Fn(&Row<'_>) -> rusqlite::Result<String>| {
            let mut rows = db.prepare(select)?;
            for name in rows.query_map([], name)? {
                known.insert(name?);
            }
            Ok::<_, rusqlite::Error>(())
        };
        note("SELECT id FROM keys WHERE deleted = 0", &|row| Ok(keys_name(&id(row, 0)?)))?;
        let requests = "SELECT id FROM uploads UNION SELECT upload FROM jobs WHERE input = 1";
        note(requests, &|row| Ok(objects::request_name(&id(row, 0)?)))?;
        // That of a lease that is over is known until another one takes its place, or its job ends.
        note("SELECT job, number, lease FROM sets WHERE lease IS NOT NULL", &|row| {
            Ok(result_name(&id(row, 0)?, row.get::<_, i64>(1)? as u64, row.get(2)?))
        })?;
        Ok(known)
    }

    /// The only connection. A thread that panicked has left no transaction open: it was rolled back.
    fn db(&self) -> MutexGuard<'_, Connection> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` whole or not at all.
    fn transaction<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut db = self.db();
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// Refuses `more` bytes for a tenant where there is no room for them.
    fn require_disk(&self, db: &Connection, tenant: i64, more: u64) -> Result<(), StoreError> {
        let used: i64 = db.query_row(
            "SELECT (SELECT coalesce(sum(bytes), 0) FROM keys WHERE tenant = ?1 AND deleted = 0)
                  + (SELECT coalesce(sum(length), 0) FROM uploads WHERE tenant = ?1)
                  + (SELECT coalesce(sum(input * input_bytes), 0) FROM jobs WHERE tenant = ?1)
                  + (SELECT coalesce(sum(result_bytes), 0) FROM jobs
                     WHERE tenant = ?1 AND state IN ('queued', 'running', 'done'))",
            [tenant],
            |row| row.get(0),
        )?;
        let most = self.bounds.disk_per_tenant;
        if (used as u64).saturating_add(more) <= most {
            return Ok(());
        }
        Err(StoreError::Quota(format!(
            "this needs {more} bytes on the server's disk, where you have {used} of {most}: delete uploads, jobs or keys that \
             you no longer need, or send fewer images at a time"
        )))
    }
}

/// A store, or none, in words.
fn place_name(store: Option<&str>) -> &str {
    store.unwrap_or("files (no store)")
}

/// Adds a column to a table that an older service has made without it.
fn add_column(db: &Connection, table: &str, column: &str, definition: &str) -> rusqlite::Result<()> {
    let known = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2";
    if db.query_row(known, [table, column], |row| row.get::<_, i64>(0))? == 0 {
        db.execute(&format!("ALTER TABLE {table} ADD COLUMN {column} {definition}"), [])?;
    }
    Ok(())
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// The id in a column, which this module wrote.
fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<Id> {
    let text: String = row.get(column)?;
    Id::parse(&text).ok_or_else(|| {
        let error = format!("{text:?} is no id");
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
    })
}

/// A count or length, none of which exceeds what SQLite holds.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
