//! The sets of jobs, each computed by whoever has its lease: a worker, or the service itself.
//!
//! A lease has a number, and every lease that is given has a higher one than all before it (a *fencing number*). Only the last lease
//! of a set may publish its result, and only as long as it has not expired. So a worker that was cut off, and comes back with a result
//! when another one has the set, changes nothing.

use std::collections::HashSet;
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension, params};
use zeroize::Zeroizing;

use super::blobs::Whole;
use super::jobs::JobState;
use super::objects::result_name;
use super::{BlobKind, Id, Store, StoreError, add_column, id, integer, set_name};

/// Leases of one set. Each ended without a word, with its worker or with the service; a set that always ends whoever computes it must
/// not do so for ever.
pub const MAX_ATTEMPTS: u32 = 16;
/// Leases of one set that ended with an error.
pub const MAX_FAILURES: u32 = 3;

/// When the service's own leases end: with the process.
const WITH_THE_PROCESS: i64 = i64::MAX;

/// A set that is to be computed now.
pub struct Lease {
    /// Of this lease.
    pub number: i64,
    /// The job.
    pub job: Id,
    /// The set's number among those of the job.
    pub set: u64,
    /// The keys that it is computed with.
    pub key: Id,
    /// The request that it is a part of.
    pub upload: Id,
    /// Images of the whole request.
    pub images: u64,
    /// Digest of the Program.
    pub program: String,
    /// What masks and floods of this set are expanded from, at every attempt the same.
    pub secret: Zeroizing<[u8; 32]>,
    /// Seconds that are left.
    pub seconds: u64,
}

/// What came of a look for work.
#[derive(Default)]
pub struct Turn {
    /// A set, if one waits.
    pub lease: Option<Lease>,
    /// Jobs that failed on the way, because they were begun too often.
    pub failed: Vec<Id>,
}

/// How many sets there are to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// That wait for somebody who computes them.
    pub waiting: u64,
    /// That somebody computes.
    pub leased: u64,
}

/// A lease as its row has it.
struct Found {
    job: Id,
    set: u64,
    done: bool,
    expires: Option<i64>,
}

/// Makes the rows of a job's sets.
pub(super) fn insert_sets(db: &Connection, job: &Id, sets: u64) -> rusqlite::Result<usize> {
    let insert = "WITH RECURSIVE numbers (number) AS
            (SELECT 0 UNION ALL SELECT number + 1 FROM numbers WHERE number + 1 < ?2)
        INSERT INTO sets (job, number) SELECT ?1, number FROM numbers";
    db.execute(insert, params![job.as_str(), integer(sets)])
}

/// Brings a database in order that a service without leases has left.
pub(super) fn migrate(db: &Connection) -> Result<(), StoreError> {
    add_column(db, "jobs", "checked", "INTEGER NOT NULL DEFAULT 0")?;
    let jobs: Vec<(Id, i64)> = {
        let select = "SELECT id, sets FROM jobs j WHERE state IN ('queued', 'running')
            AND NOT EXISTS (SELECT 1 FROM sets s WHERE s.job = j.id)";
        let mut rows = db.prepare(select)?;
        rows.query_map([], |row| Ok((id(row, 0)?, row.get(1)?)))?.collect::<Result<_, _>>()?
    };
    for (job, sets) in jobs {
        insert_sets(db, &job, sets as u64)?;
    }
    Ok(())
}

/// The names in the store of the published results of a job's sets.
pub(super) fn published_results(db: &Connection, job: &Id) -> rusqlite::Result<HashSet<String>> {
    let mut rows = db.prepare("SELECT number, lease FROM sets WHERE job = ?1 AND done = 1")?;
    rows.query_map([job.as_str()], |row| Ok(result_name(job, row.get::<_, i64>(0)? as u64, row.get(1)?)))?.collect()
}

/// The names of all results of sets that are published.
pub(super) fn published_sets(db: &Connection) -> rusqlite::Result<HashSet<Id>> {
    let mut rows = db.prepare("SELECT job, number FROM sets WHERE done = 1")?;
    rows.query_map([], |row| Ok(set_name(&id(row, 0)?, row.get::<_, i64>(1)? as u64)))?.collect()
}

/// All sets whose results are not published.
pub(super) fn unpublished_sets(db: &Connection) -> rusqlite::Result<Vec<(Id, u64)>> {
    let mut rows = db.prepare("SELECT job, number FROM sets WHERE done = 0")?;
    rows.query_map([], |row| Ok((id(row, 0)?, row.get::<_, i64>(1)? as u64)))?.collect()
}

impl Store {
    /// Gives the next set of one of `programs` to `worker`, or to the service itself if that is none: of the tenant whose last turn
    /// was longest ago the first set that nobody has of the oldest job. The service itself first goes on with the set that it has kept
    /// a part of. `now` is in seconds since 1970, here and below.
    ///
    /// # Errors
    /// The database fails.
    pub fn lease_set(&self, programs: &[String], worker: Option<&str>, now: i64) -> Result<Turn, StoreError> {
        let programs = serde_json::to_string(programs).expect("a list of strings");
        // Where there is nothing to do nothing is written: many may ask.
        if !any_set(&self.db(), &programs, now)? {
            return Ok(Turn::default());
        }
        let mut failed = Vec::new();
        let kept = if worker.is_none() { self.kept_set()? } else { None };
        let lease = self.transaction(|db| {
            loop {
                let Some(Next { job, set, tenant, key, upload, images, program, secret, attempts }) =
                    next_set(db, &programs, kept.as_ref(), now)?
                else {
                    return Ok(None);
                };
                let why = if attempts >= MAX_ATTEMPTS {
                    Some(format!("set {set} of this job was begun {attempts} times, and never came to an end"))
                } else if secret.len() != 32 {
                    Some("the service has lost this job's secret".into())
                } else {
                    None
                };
                if let Some(why) = why {
                    self.end_job(db, &job, JobState::Failed, Some(&why))?;
                    failed.push(job);
                    continue;
                }
                let turn = "UPDATE tenants SET served = (SELECT max(served) + 1 FROM tenants) WHERE id = ?1";
                db.execute(turn, [tenant])?;
                let count = "UPDATE leases SET last = last + 1 RETURNING last";
                let number: i64 = db.query_row(count, [], |row| row.get(0))?;
                let expires = if worker.is_some() { self.lease_end(now) } else { WITH_THE_PROCESS };
                let give = "UPDATE sets SET lease = ?3, worker = ?4, expires = ?5, attempts = attempts + 1
                    WHERE job = ?1 AND number = ?2";
                db.execute(give, params![job.as_str(), integer(set), number, worker, expires])?;
                let start = "UPDATE jobs SET state = 'running', started = coalesce(started, ?2) WHERE id = ?1";
                db.execute(start, params![job.as_str(), now])?;
                let seconds = self.bounds.lease_seconds;
                let secret = secret_of(&secret, set);
                return Ok(Some(Lease { number, job, set, key, upload, images, program, secret, seconds }));
            }
        })?;
        failed.iter().try_for_each(|job| self.remove_parts(job))?;
        Ok(Turn { lease, failed })
    }

    /// The set that `worker` has under this lease.
    ///
    /// # Errors
    /// There was never such a lease of this worker; it is over.
    pub fn leased(&self, number: i64, worker: Option<&str>, now: i64) -> Result<Lease, StoreError> {
        let db = self.db();
        let Found { job, set, .. } = require_lease(&db, number, worker, now)?;
        let select =
            "SELECT j.key, j.upload, k.program, j.secret, s.expires, j.images FROM jobs j JOIN keys k ON k.id = j.key
            JOIN sets s ON s.job = j.id AND s.lease = ?2 WHERE j.id = ?1";
        let lease = db.query_row(select, params![job.as_str(), number], |row| {
            let secret: Zeroizing<Vec<u8>> = Zeroizing::new(row.get(3)?);
            // None of a set that is done.
            let seconds = row.get::<_, Option<i64>>(4)?.map_or(0, |expires| expires.saturating_sub(now)) as u64;
            let (key, upload, program) = (id(row, 0)?, id(row, 1)?, row.get(2)?);
            let (images, secret) = (row.get::<_, i64>(5)? as u64, secret_of(&secret, set));
            Ok(Lease { number, job: job.clone(), set, key, upload, images, program, secret, seconds })
        });
        Ok(lease?)
    }

    /// Prolongs a lease, and returns the seconds until it ends.
    ///
    /// # Errors
    /// There was never such a lease of this worker; it is over.
    pub fn renew_lease(&self, number: i64, worker: Option<&str>, now: i64) -> Result<u64, StoreError> {
        self.transaction(|db| {
            if require_lease(db, number, worker, now)?.done {
                return Err(over(number));
            }
            let update = "UPDATE sets SET expires = max(expires, ?2) WHERE lease = ?1";
            db.execute(update, params![number, self.lease_end(now)])?;
            Ok(self.bounds.lease_seconds)
        })
    }

    /// The folder for what the service keeps of a set that it computes. It computes one at a time, so that what was kept of any other is
    /// removed.
    ///
    /// # Errors
    /// A folder cannot be read or removed.
    pub fn checkpoint(&self, job: &Id, set: u64) -> Result<PathBuf, StoreError> {
        let name = set_name(job, set);
        self.blobs.remove_others(BlobKind::Checkpoints, |other| *other == name)?;
        Ok(self.blobs.path(BlobKind::Checkpoints, &name))
    }

    /// Removes what the service has kept of a set.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub fn remove_checkpoint(&self, job: &Id, set: u64) -> Result<(), StoreError> {
        Ok(self.blobs.remove(BlobKind::Checkpoints, &set_name(job, set))?)
    }

    /// Whether a set is one of a job that waits or runs, and its result is not published.
    ///
    /// # Errors
    /// The database fails.
    pub fn is_unpublished(&self, job: &Id, set: u64) -> Result<bool, StoreError> {
        let select = "SELECT EXISTS (SELECT 1 FROM sets WHERE job = ?1 AND number = ?2 AND done = 0)";
        Ok(self.db().query_row(select, params![job.as_str(), integer(set)], |row| row.get(0))?)
    }

    /// The set that the service has kept a part of, if there is one.
    fn kept_set(&self) -> Result<Option<(Id, u64)>, StoreError> {
        let names = self.blobs.names(BlobKind::Checkpoints)?;
        if names.is_empty() {
            return Ok(None);
        }
        let sets = unpublished_sets(&self.db())?;
        Ok(sets.into_iter().find(|(job, set)| names.contains(&set_name(job, *set))))
    }

    /// Publishes the result of a set, and returns its job; without `result` the one that lies in the store under this lease. The same
    /// lease may do so again, and changes nothing.
    ///
    /// # Errors
    /// There was never such a lease of this worker; it is over; the database or the file fails.
    pub fn publish_set(
        &self,
        number: i64,
        worker: Option<&str>,
        result: Option<Whole>,
        now: i64,
    ) -> Result<Id, StoreError> {
        let (job, set) = self.transaction(|db| {
            let Found { job, set, done, .. } = require_lease(db, number, worker, now)?;
            if !done {
                if let Some(result) = result {
                    // What has the name already is the same result, of an attempt whose row was not written.
                    result.publish(&self.blobs.path(BlobKind::Sets, &set_name(&job, set)))?;
                }
                db.execute("UPDATE sets SET done = 1, expires = NULL WHERE lease = ?1", [number])?;
            }
            Ok((job, set))
        })?;
        self.remove_checkpoint(&job, set)?;
        Ok(job)
    }

    /// Ends a lease without a result, so that the set waits again. Only what `counts` is an attempt: a worker that stops in good order
    /// has not tried.
    ///
    /// # Errors
    /// There was never such a lease of this worker; it is over.
    pub fn give_back(&self, number: i64, worker: Option<&str>, counts: bool, now: i64) -> Result<(), StoreError> {
        self.transaction(|db| {
            let Found { job, done, .. } = require_lease(db, number, worker, now)?;
            if done {
                return Err(over(number));
            }
            release(db, number, counts)?;
            settle(db, &job)
        })
    }

    /// Ends a lease with an error. The set waits again, or its job fails if that is enough. Returns the job, and whether it failed.
    ///
    /// # Errors
    /// There was never such a lease of this worker; it is over.
    pub fn fail_set(&self, number: i64, worker: Option<&str>, why: &str, now: i64) -> Result<(Id, bool), StoreError> {
        let (job, failed) = self.transaction(|db| {
            let Found { job, set, done, .. } = require_lease(db, number, worker, now)?;
            if done {
                return Err(over(number));
            }
            let count = "UPDATE sets SET failures = failures + 1 WHERE lease = ?1 RETURNING failures";
            let failures: u32 = db.query_row(count, [number], |row| row.get(0))?;
            release(db, number, true)?;
            if failures >= MAX_FAILURES {
                let why = format!("set {set} of this job failed {failures} times, at last because: {why}");
                self.end_job(db, &job, JobState::Failed, Some(&why))?;
            } else {
                settle(db, &job)?;
            }
            Ok((job, failures >= MAX_FAILURES))
        })?;
        if failed {
            self.remove_parts(&job)?;
        }
        Ok((job, failed))
    }

    /// How many sets of `programs` wait, and how many somebody computes.
    ///
    /// # Errors
    /// The database fails.
    pub fn fleet(&self, programs: &[String], now: i64) -> Result<Fleet, StoreError> {
        let programs = serde_json::to_string(programs).expect("a list of strings");
        let count = format!("SELECT count(*), coalesce(sum(s.expires > ?2), 0) FROM {PENDING}");
        let (all, leased): (i64, i64) =
            self.db().query_row(&count, params![programs, now], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(Fleet { waiting: (all - leased) as u64, leased: leased as u64 })
    }

    /// Numbers of the leases under which sets are computed.
    ///
    /// # Errors
    /// The database fails.
    pub fn leases(&self, now: i64) -> Result<HashSet<i64>, StoreError> {
        let db = self.db();
        let mut rows = db.prepare("SELECT lease FROM sets WHERE done = 0 AND expires > ?1")?;
        Ok(rows.query_map([now], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    /// The service's own leases ended with the process. Those of workers go on, with all of their time: they may have tried to renew
    /// them while nobody listened. Returns how many jobs wait again.
    pub(super) fn recover_leases(&self, now: i64) -> Result<usize, StoreError> {
        self.transaction(|db| {
            let prolong = "UPDATE sets SET expires = ?1 WHERE worker IS NOT NULL AND done = 0 AND expires IS NOT NULL";
            db.execute(prolong, [self.lease_end(now)])?;
            let own: Vec<Id> = {
                let select = "SELECT DISTINCT job FROM sets WHERE worker IS NULL AND done = 0 AND expires IS NOT NULL";
                let mut rows = db.prepare(select)?;
                rows.query_map([], |row| id(row, 0))?.collect::<Result<_, _>>()?
            };
            let end = "UPDATE sets SET lease = NULL, expires = NULL
                WHERE worker IS NULL AND done = 0 AND expires IS NOT NULL";
            db.execute(end, [])?;
            own.iter().try_for_each(|job| settle(db, job))?;
            // Left by a service without leases.
            db.execute(&format!("UPDATE jobs AS j SET state = 'queued', started = NULL WHERE {IDLE}"), [])?;
            Ok(own.len())
        })
    }

    fn lease_end(&self, now: i64) -> i64 {
        now.saturating_add(integer(self.bounds.lease_seconds))
    }
}

/// Sets that have no result yet, of jobs that are to be computed.
const PENDING: &str = "sets s JOIN jobs j ON j.id = s.job JOIN keys k ON k.id = j.key JOIN tenants t ON t.id = j.tenant
    WHERE s.done = 0 AND j.state IN ('queued', 'running') AND k.program IN (SELECT value FROM json_each(?1))";

/// A job that runs, of which nobody has a set and none is done.
const IDLE: &str = "j.state = 'running'
    AND NOT EXISTS (SELECT 1 FROM sets s WHERE s.job = j.id AND (s.done = 1 OR s.expires IS NOT NULL))";

/// The row of a set that waits.
struct Next {
    job: Id,
    set: u64,
    tenant: i64,
    key: Id,
    upload: Id,
    images: u64,
    program: String,
    secret: Zeroizing<Vec<u8>>,
    attempts: u32,
}

fn any_set(db: &Connection, programs: &str, now: i64) -> rusqlite::Result<bool> {
    let select = format!("SELECT EXISTS (SELECT 1 FROM {PENDING} AND (s.expires IS NULL OR s.expires <= ?2))");
    db.query_row(&select, params![programs, now], |row| row.get(0))
}

fn next_set(db: &Connection, programs: &str, kept: Option<&(Id, u64)>, now: i64) -> rusqlite::Result<Option<Next>> {
    let select = format!(
        "SELECT j.id, s.number, j.tenant, j.key, j.upload, k.program, j.secret, s.attempts, j.images FROM {PENDING}
         AND (s.expires IS NULL OR s.expires <= ?2)
         ORDER BY (j.id IS ?3 AND s.number IS ?4) DESC, t.served, j.seq, s.number LIMIT 1"
    );
    let (job, set) = kept.map(|(job, set)| (job.as_str(), integer(*set))).unzip();
    db.query_row(&select, params![programs, now, job, set], |row| {
        Ok(Next {
            job: id(row, 0)?,
            set: row.get::<_, i64>(1)? as u64,
            tenant: row.get(2)?,
            key: id(row, 3)?,
            upload: id(row, 4)?,
            program: row.get(5)?,
            secret: Zeroizing::new(row.get(6)?),
            attempts: row.get(7)?,
            images: row.get::<_, i64>(8)? as u64,
        })
    })
    .optional()
}

/// The lease of this number, if it is the last of a set of a job that goes on, has not expired, and is `worker`'s.
fn require_lease(db: &Connection, number: i64, worker: Option<&str>, now: i64) -> Result<Found, StoreError> {
    let select = "SELECT s.job, s.number, s.done, s.expires FROM sets s JOIN jobs j ON j.id = s.job
        WHERE s.lease = ?1 AND s.worker IS ?2 AND j.state IN ('queued', 'running')";
    let found = db.query_row(select, params![number, worker], |row| {
        Ok(Found { job: id(row, 0)?, set: row.get::<_, i64>(1)? as u64, done: row.get(2)?, expires: row.get(3)? })
    });
    let Some(found) = found.optional()? else {
        let last: i64 = db.query_row("SELECT last FROM leases", [], |row| row.get(0))?;
        let is_known = (1..=last).contains(&number);
        return Err(if is_known { over(number) } else { StoreError::Absent("lease") });
    };
    match found.expires {
        Some(expires) if expires <= now => Err(StoreError::Conflict(format!(
            "lease {number} expired {} seconds ago, and was not renewed in time: nothing that was computed under it is taken, \
             ask for another lease",
            now - expires
        ))),
        _ => Ok(found),
    }
}

fn over(number: i64) -> StoreError {
    StoreError::Conflict(format!(
        "lease {number} is over: somebody else has its set, or has computed it, or the job has ended; nothing that was computed \
         under it is taken, ask for another lease"
    ))
}

/// Nobody has the set of this lease any more.
fn release(db: &Connection, number: i64, counts: bool) -> rusqlite::Result<usize> {
    let update =
        "UPDATE sets SET lease = NULL, worker = NULL, expires = NULL, attempts = attempts - ?2 WHERE lease = ?1";
    db.execute(update, params![number, i32::from(!counts)])
}

/// A job of which nobody has a set, and none is done, waits.
fn settle(db: &Connection, job: &Id) -> Result<(), StoreError> {
    let update = format!("UPDATE jobs AS j SET state = 'queued', started = NULL WHERE j.id = ?1 AND {IDLE}");
    db.execute(&update, [job.as_str()])?;
    Ok(())
}

/// What the masks of one set of a job are expanded from. Sets are computed apart, and whoever computes one learns nothing of the
/// masks of another.
fn secret_of(secret: &[u8], set: u64) -> Zeroizing<[u8; 32]> {
    let material = Zeroizing::new([secret, &set.to_le_bytes()].concat());
    Zeroizing::new(blake3::derive_key("cryptodl service masks of a set v1", &material))
}
