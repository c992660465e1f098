//! Requests that were accepted, until their results expire.

use rusqlite::{Connection, OptionalExtension, Row, params};
use zeroize::Zeroizing;

use super::blobs::Whole;
use super::objects::{result_name, results_name};
use super::uploads::find_upload;
use super::{BlobKind, Id, Store, StoreError, id, integer, leases, now};

/// Jobs of one tenant that are kept, whatever became of them.
pub const JOBS_KEPT: u32 = 1000;

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It waits for its turn.
    Queued,
    /// It is being computed.
    Running,
    /// Its result can be fetched.
    Done,
    /// It has no result, and says why.
    Failed,
    /// Its tenant has ended it.
    Cancelled,
}

impl JobState {
    /// As in the database and in answers.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Done => "done",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }

    /// Whether it goes on.
    pub fn is_pending(self) -> bool {
        matches!(self, JobState::Queued | JobState::Running)
    }

    fn named(name: &str) -> Option<Self> {
        use JobState::{Cancelled, Done, Failed, Queued, Running};
        [Queued, Running, Done, Failed, Cancelled].into_iter().find(|state| state.name() == name)
    }
}

/// A job as its tenant sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub id: Id,
    /// The upload that it was made of.
    pub upload: Id,
    /// The keys that it is computed with.
    pub key: Id,
    /// Digest of the Program.
    pub program: String,
    /// Encrypted images.
    pub images: u64,
    /// Sets that they fill.
    pub sets: u64,
    /// Those of a job that is not done whose results are there.
    pub sets_done: u64,
    /// Bytes of the result.
    pub result_bytes: u64,
    /// Where it is.
    pub state: JobState,
    /// Seconds since 1970.
    pub created: i64,
    /// When the first of its sets was begun.
    pub started: Option<i64>,
    /// When it ended.
    pub finished: Option<i64>,
    /// When it is removed with its result.
    pub expires: Option<i64>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Job {
    /// Refuses a job that is not done.
    ///
    /// # Errors
    /// It has no result.
    pub fn require_result(&self) -> Result<(), StoreError> {
        if self.state == JobState::Done {
            return Ok(());
        }
        Err(StoreError::Conflict(format!("this job is {}, and has no result", self.state.name())))
    }
}

/// What is to be accepted as a job.
#[derive(Clone, Copy, Debug)]
pub struct NewJob {
    /// Encrypted images.
    pub images: u64,
    /// Sets that they fill.
    pub sets: u64,
    /// Bytes of the result.
    pub result_bytes: u64,
    /// Sets that one key may be used for with this Program.
    pub sets_per_key: Option<u64>,
    /// Sets that all keys of the tenant together may be used for with this Program.
    pub sets_per_tenant: Option<u64>,
}

/// What a request for a job did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The job.
    pub job: Job,
    /// Whether it is new; else the upload was a job before.
    pub created: bool,
}

/// What the service itself does for a job, whoever computes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chore {
    /// Compare the checksum of its request.
    Check(Job),
    /// Make its result of those of its sets.
    Join(Job),
}

const SELECT: &str = "SELECT j.id, j.upload, j.key, k.program, j.images, j.sets,
    (SELECT count(*) FROM sets s WHERE s.job = j.id AND s.done = 1), j.result_bytes, j.state,
    j.created, j.started, j.finished, j.expires, j.error FROM jobs j JOIN keys k ON k.id = j.key";

fn job_row(row: &Row<'_>) -> rusqlite::Result<Job> {
    let state: String = row.get(8)?;
    let unknown = || rusqlite::Error::FromSqlConversionFailure(8, rusqlite::types::Type::Text, "no state".into());
    Ok(Job {
        id: id(row, 0)?,
        upload: id(row, 1)?,
        key: id(row, 2)?,
        program: row.get(3)?,
        images: row.get::<_, i64>(4)? as u64,
        sets: row.get::<_, i64>(5)? as u64,
        sets_done: row.get::<_, i64>(6)? as u64,
        result_bytes: row.get::<_, i64>(7)? as u64,
        state: JobState::named(&state).ok_or_else(unknown)?,
        created: row.get(9)?,
        started: row.get(10)?,
        finished: row.get(11)?,
        expires: row.get(12)?,
        error: row.get(13)?,
    })
}

fn find_job(db: &Connection, tenant: i64, job: &Id) -> Result<Job, StoreError> {
    let select = format!("{SELECT} WHERE j.id = ?1 AND j.tenant = ?2");
    let found = db.query_row(&select, params![job.as_str(), tenant], job_row).optional()?;
    found.ok_or(StoreError::Absent("job"))
}

impl Store {
    /// The job that was made of an upload, if there is one.
    ///
    /// # Errors
    /// The database fails.
    pub fn job_of_upload(&self, tenant: i64, upload: &Id) -> Result<Option<Job>, StoreError> {
        job_of_upload(&self.db(), tenant, upload)
    }

    /// Accepts an upload as a job, whose secret is drawn now. From here on it is computed once, whatever happens to the process.
    ///
    /// # Errors
    /// An upload that is not whole, or absent; a full queue; a quota; no room for the result.
    pub fn accept_job(&self, tenant: i64, upload: &Id, new: &NewJob) -> Result<Accepted, StoreError> {
        let writing = self.write_to(upload);
        self.transaction(|db| {
            if let Some(job) = job_of_upload(db, tenant, upload)? {
                return Ok(Accepted { job, created: false });
            }
            let found = find_upload(db, tenant, upload)?;
            // After the look for a job, so that a second request for one meets it.
            let _writing = writing?;
            if !found.is_whole() {
                return Err(StoreError::Conflict(format!(
                    "{} of {} bytes have arrived: send the others first",
                    found.received, found.length
                )));
            }
            self.require_turn(db, tenant)?;
            require_quota(db, tenant, &found.key, new)?;
            // The input is counted as an upload still.
            self.require_disk(db, tenant, new.result_bytes)?;
            let job = Id::fresh()?;
            let mut secret = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *secret).map_err(std::io::Error::other)?;
            db.execute(
                "INSERT INTO jobs (id, tenant, key, upload, images, sets, input_bytes, result_bytes, state, secret, created, checked)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'queued', ?9, ?10, ?11)",
                params![
                    job.as_str(),
                    tenant,
                    found.key.as_str(),
                    upload.as_str(),
                    integer(new.images),
                    integer(new.sets),
                    integer(found.length),
                    integer(new.result_bytes),
                    &secret[..],
                    now(),
                    // There is no checksum of the whole where each set is an object.
                    self.objects().is_some()
                ],
            )?;
            leases::insert_sets(db, &job, new.sets)?;
            db.execute("DELETE FROM uploads WHERE id = ?1", [upload.as_str()])?;
            let count = "UPDATE keys SET sets = sets + ?2 WHERE id = ?1";
            db.execute(count, params![found.key.as_str(), integer(new.sets)])?;
            Ok(Accepted { job: find_job(db, tenant, &job)?, created: true })
        })
    }

    fn require_turn(&self, db: &Connection, tenant: i64) -> Result<(), StoreError> {
        let pending = "state IN ('queued', 'running')";
        let all: u32 = db.query_row(&format!("SELECT count(*) FROM jobs WHERE {pending}"), [], |row| row.get(0))?;
        let own = format!("SELECT count(*) FROM jobs WHERE {pending} AND tenant = ?1");
        let own: u32 = db.query_row(&own, [tenant], |row| row.get(0))?;
        let most = self.bounds.jobs_per_tenant;
        if own >= most {
            return Err(StoreError::Full(format!(
                "{own} of your jobs wait or run, and {most} may: wait for one to end"
            )));
        }
        let kept: u32 = db.query_row("SELECT count(*) FROM jobs WHERE tenant = ?1", [tenant], |row| row.get(0))?;
        if kept >= JOBS_KEPT {
            return Err(StoreError::Quota(format!(
                "{kept} of your jobs are kept, and no more are: delete some that have ended"
            )));
        }
        if all >= self.bounds.jobs {
            return Err(StoreError::Full(format!("{all} jobs wait or run, and no more are taken: try again later")));
        }
        Ok(())
    }

    /// A tenant's job.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn job(&self, tenant: i64, job: &Id) -> Result<Job, StoreError> {
        find_job(&self.db(), tenant, job)
    }

    /// Whether a job, of whatever tenant, waits or runs.
    ///
    /// # Errors
    /// The database fails.
    pub fn is_pending(&self, job: &Id) -> Result<bool, StoreError> {
        let count = "SELECT count(*) FROM jobs WHERE id = ?1 AND state IN ('queued', 'running')";
        Ok(self.db().query_row(count, [job.as_str()], |row| row.get::<_, i64>(0))? > 0)
    }

    /// Digest of the Program of a job, of whatever tenant.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn program_of(&self, job: &Id) -> Result<String, StoreError> {
        let select = "SELECT k.program FROM jobs j JOIN keys k ON k.id = j.key WHERE j.id = ?1";
        let found = self.db().query_row(select, [job.as_str()], |row| row.get(0)).optional()?;
        found.ok_or(StoreError::Absent("job"))
    }

    /// All jobs of a tenant, in the order in which they were accepted.
    ///
    /// # Errors
    /// The database fails.
    pub fn jobs(&self, tenant: i64) -> Result<Vec<Job>, StoreError> {
        let db = self.db();
        let mut rows = db.prepare(&format!("{SELECT} WHERE j.tenant = ?1 ORDER BY j.seq"))?;
        Ok(rows.query_map([tenant], job_row)?.collect::<Result<_, _>>()?)
    }

    /// Jobs that wait or run.
    ///
    /// # Errors
    /// The database fails.
    pub fn pending_jobs(&self) -> Result<u64, StoreError> {
        let count = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')";
        Ok(self.db().query_row(count, [], |row| row.get::<_, i64>(0))? as u64)
    }

    /// Jobs of the same and of other tenants that come before a job that waits, as the queue is now.
    ///
    /// # Errors
    /// The database fails.
    pub fn jobs_before(&self, job: &Id) -> Result<u64, StoreError> {
        let count = "SELECT count(*) FROM jobs o, jobs j WHERE j.id = ?1 AND o.state IN ('queued', 'running')
            AND (o.state = 'running' OR o.seq < j.seq) AND o.id <> j.id";
        Ok(self.db().query_row(count, [job.as_str()], |row| row.get::<_, i64>(0))? as u64)
    }

    /// The next thing that the service itself has to do for a job of one of `programs`.
    ///
    /// # Errors
    /// The database fails.
    pub fn next_chore(&self, programs: &[String]) -> Result<Option<Chore>, StoreError> {
        let db = self.db();
        let programs = serde_json::to_string(programs).expect("a list of strings");
        let find = |which: &str| {
            let select = format!(
                "{SELECT} WHERE {which} AND k.program IN (SELECT value FROM json_each(?1)) ORDER BY j.seq LIMIT 1"
            );
            db.query_row(&select, [&programs], job_row).optional()
        };
        let computed = "j.state = 'running' AND j.checked = 1
            AND NOT EXISTS (SELECT 1 FROM sets s WHERE s.job = j.id AND s.done = 0)";
        if let Some(job) = find(computed)? {
            return Ok(Some(Chore::Join(job)));
        }
        Ok(find("j.state IN ('queued', 'running') AND j.checked = 0")?.map(Chore::Check))
    }

    /// Notes that the checksum of a job's request is right.
    ///
    /// # Errors
    /// The database fails.
    pub fn note_checked(&self, job: &Id) -> Result<(), StoreError> {
        self.db().execute("UPDATE jobs SET checked = 1 WHERE id = ?1", [job.as_str()])?;
        Ok(())
    }

    /// Publishes the result of a job that runs, with its bytes; where they are in a store, the results of its sets are it. False, and
    /// nothing is published, if the job has ended meanwhile, or something is left to do.
    ///
    /// # Errors
    /// The database or a file fails.
    pub fn finish_job(&self, job: &Id, result: Option<(Whole, u64)>) -> Result<bool, StoreError> {
        let done = self.transaction(|db| {
            let (result, bytes) = result.unzip();
            let update = "UPDATE jobs SET result_bytes = coalesce(?2, result_bytes)
                WHERE id = ?1 AND state = 'running' AND checked = 1
                AND NOT EXISTS (SELECT 1 FROM sets WHERE job = ?1 AND done = 0)";
            if db.execute(update, params![job.as_str(), bytes.map(integer)])? == 0 {
                return Ok(false);
            }
            if let Some(result) = result {
                // What has the name already was made of the same results of sets, and its row was not written.
                result.publish(&self.blobs.path(BlobKind::Results, job))?;
            }
            self.end_job(db, job, JobState::Done, None)?;
            Ok(true)
        })?;
        if done {
            self.remove_parts(job)?;
        }
        Ok(done)
    }

    /// Ends a job without a result. Its sets are not counted: nothing of the network was handed out.
    ///
    /// # Errors
    /// The database or a file fails.
    pub fn fail_job(&self, job: &Id, why: &str) -> Result<(), StoreError> {
        self.transaction(|db| self.end_job(db, job, JobState::Failed, Some(why)))?;
        self.remove_parts(job)
    }

    /// Ends a tenant's job. Whoever computes one of its sets has no lease of it any more. A job that has ended stays as it is.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn cancel_job(&self, tenant: i64, job: &Id) -> Result<Job, StoreError> {
        let found = self.transaction(|db| {
            if find_job(db, tenant, job)?.state.is_pending() {
                self.end_job(db, job, JobState::Cancelled, None)?;
            }
            find_job(db, tenant, job)
        })?;
        if found.state == JobState::Cancelled {
            self.remove_parts(job)?;
        }
        Ok(found)
    }

    /// Deletes a tenant's job that has ended, and its result.
    ///
    /// # Errors
    /// There is none of this name; it waits or runs.
    pub fn delete_job(&self, tenant: i64, job: &Id) -> Result<(), StoreError> {
        self.transaction(|db| {
            if find_job(db, tenant, job)?.state.is_pending() {
                return Err(StoreError::Conflict("this job waits or runs: cancel it first".into()));
            }
            db.execute("DELETE FROM jobs WHERE id = ?1", [job.as_str()])?;
            Ok(())
        })?;
        self.remove_result(job)
    }

    fn remove_result(&self, job: &Id) -> Result<(), StoreError> {
        match self.objects() {
            Some(objects) => objects.remove_below(&results_name(job), |_| false),
            None => self.blobs.remove(BlobKind::Results, job)?,
        }
        Ok(())
    }

    /// The name in the store of the published result of a set of a tenant's job.
    ///
    /// # Errors
    /// There is no such job, or no such set of it that has a result.
    pub fn published(&self, tenant: i64, job: &Id, set: u64) -> Result<String, StoreError> {
        let db = self.db();
        find_job(&db, tenant, job)?;
        let select = "SELECT lease FROM sets WHERE job = ?1 AND number = ?2 AND done = 1";
        let lease = db.query_row(select, params![job.as_str(), integer(set)], |row| row.get(0)).optional()?;
        Ok(result_name(job, set, lease.ok_or(StoreError::Absent("set"))?))
    }

    pub(super) fn sweep_jobs(&self, now: i64) -> Result<usize, StoreError> {
        let expired: Vec<Id> = {
            let db = self.db();
            let mut rows = db.prepare("SELECT id FROM jobs WHERE expires <= ?1")?;
            rows.query_map([now], |row| id(row, 0))?.collect::<Result<_, _>>()?
        };
        for job in &expired {
            self.db().execute("DELETE FROM jobs WHERE id = ?1", [job.as_str()])?;
            self.remove_result(job)?;
        }
        Ok(expired.len())
    }

    /// Ends jobs whose requests are gone. Nothing of this should happen: a file was removed by somebody else.
    pub(super) fn recover_jobs(&self) -> Result<(), StoreError> {
        for job in self.names_of("state IN ('queued', 'running')")? {
            let upload: String =
                self.db().query_row("SELECT upload FROM jobs WHERE id = ?1", [job.as_str()], |row| row.get(0))?;
            let there = Id::parse(&upload).is_some_and(|upload| self.blobs.path(BlobKind::Uploads, &upload).exists());
            if !there {
                self.transaction(|db| {
                    self.end_job(db, &job, JobState::Failed, Some("the service has lost this request"))
                })?;
            }
        }
        Ok(())
    }

    pub(super) fn names_of(&self, which: &str) -> Result<Vec<Id>, StoreError> {
        let db = self.db();
        let mut rows = db.prepare(&format!("SELECT id FROM jobs WHERE {which}"))?;
        Ok(rows.query_map([], |row| id(row, 0))?.collect::<Result<_, _>>()?)
    }

    /// Notes the end of a job. Its secret goes, because no attempt follows, and so do its sets with their leases, and the claim that
    /// its input is there. Where results are in a store, the sets of a job that is done stay: they say which results are published.
    pub(super) fn end_job(
        &self,
        db: &Connection,
        job: &Id,
        state: JobState,
        why: Option<&str>,
    ) -> Result<(), StoreError> {
        let expires = now().saturating_add(integer(self.bounds.result_seconds));
        let update = "UPDATE jobs SET state = ?2, error = ?3, finished = ?4, expires = ?5, secret = NULL, input = 0
            WHERE id = ?1 AND state IN ('queued', 'running')";
        let changed = db.execute(update, params![job.as_str(), state.name(), why, now(), expires])?;
        if changed == 1 && !(state == JobState::Done && self.objects().is_some()) {
            db.execute("DELETE FROM sets WHERE job = ?1", [job.as_str()])?;
        }
        if changed == 1 && state != JobState::Done {
            let uncount = "UPDATE keys SET sets = sets - (SELECT sets FROM jobs WHERE id = ?1)
                WHERE id = (SELECT key FROM jobs WHERE id = ?1)";
            db.execute(uncount, [job.as_str()])?;
        }
        Ok(())
    }

    /// Removes the request of a job that has ended, the results of its sets, and what is kept of one of them.
    pub(super) fn remove_parts(&self, job: &Id) -> Result<(), StoreError> {
        let found: Option<(String, i64)> = {
            let db = self.db();
            let select = "SELECT upload, sets FROM jobs WHERE id = ?1";
            db.query_row(select, [job.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?
        };
        let Some((upload, sets)) = found else { return Ok(()) };
        if let Some(upload) = Id::parse(&upload) {
            self.remove_request(&upload)?;
        }
        if let Some(objects) = self.objects() {
            let published = leases::published_results(&self.db(), job)?;
            objects.remove_below(&results_name(job), |name| published.contains(name));
            return Ok(());
        }
        for set in 0..sets as u64 {
            self.blobs.remove(BlobKind::Sets, &set_name(job, set))?;
            self.blobs.remove(BlobKind::Checkpoints, &set_name(job, set))?;
        }
        Ok(())
    }
}

/// The name of the result of a set of a job.
pub fn set_name(job: &Id, set: u64) -> Id {
    Id::derived(&[b"set", job.as_str().as_bytes(), &set.to_le_bytes()])
}

fn job_of_upload(db: &Connection, tenant: i64, upload: &Id) -> Result<Option<Job>, StoreError> {
    let select = format!("{SELECT} WHERE j.upload = ?1 AND j.tenant = ?2");
    Ok(db.query_row(&select, params![upload.as_str(), tenant], job_row).optional()?)
}

/// Refuses sets beyond what a key, or all keys of a tenant, may be used for with the Program of `key`.
fn require_quota(db: &Connection, tenant: i64, key: &Id, new: &NewJob) -> Result<(), StoreError> {
    let own = "SELECT sets FROM keys WHERE id = ?1 AND tenant = ?2";
    let all = "SELECT sum(sets) FROM keys WHERE tenant = ?2 AND program = (SELECT program FROM keys WHERE id = ?1)";
    for (whose, select, most) in
        [("this key", own, new.sets_per_key), ("all your keys together", all, new.sets_per_tenant)]
    {
        let Some(most) = most else { continue };
        let used = db.query_row(select, params![key.as_str(), tenant], |row| row.get::<_, i64>(0))? as u64;
        if used.saturating_add(new.sets) > most {
            return Err(StoreError::Quota(format!(
                "{used} of {most} sets of this model are used for {whose}, and this request has {}: ask the operator for more",
                new.sets
            )));
        }
    }
    Ok(())
}
