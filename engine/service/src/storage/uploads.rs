//! Requests on their way to the service, in as many pieces as they need.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::keys::find_key;
use super::objects::request_name;
use super::{BlobKind, Id, Store, StoreError, add_column, id, integer, now};

/// A request that is not yet a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its name.
    pub id: Id,
    /// The keys that it is to be computed with.
    pub key: Id,
    /// Digest of the Program.
    pub program: String,
    /// Bytes when it is whole.
    pub length: u64,
    /// Bytes that are on the disk.
    pub received: u64,
    /// Seconds since 1970 at which it is removed.
    pub expires: i64,
    /// Images, where its sets go to a store.
    pub images: Option<u64>,
}

impl Upload {
    /// Whether all of it is there.
    pub fn is_whole(&self) -> bool {
        self.received == self.length
    }
}

/// The right to change an upload, for one request at a time.
pub struct Writing<'a> {
    store: &'a Store,
    upload: Id,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.store.being_written().remove(&self.upload);
    }
}

const SELECT: &str = "SELECT u.id, u.key, k.program, u.length, u.received, u.expires, u.images FROM uploads u JOIN keys k ON k.id = u.key";

fn upload_row(row: &Row<'_>) -> rusqlite::Result<Upload> {
    Ok(Upload {
        id: id(row, 0)?,
        key: id(row, 1)?,
        program: row.get(2)?,
        length: row.get::<_, i64>(3)? as u64,
        received: row.get::<_, i64>(4)? as u64,
        expires: row.get(5)?,
        images: row.get::<_, Option<i64>>(6)?.map(|images| images as u64),
    })
}

/// Brings a database in order that a service without stores has left.
pub(super) fn migrate(db: &Connection) -> Result<(), StoreError> {
    Ok(add_column(db, "uploads", "images", "INTEGER")?)
}

/// A tenant's upload.
pub(super) fn find_upload(db: &Connection, tenant: i64, upload: &Id) -> Result<Upload, StoreError> {
    let select = format!("{SELECT} WHERE u.id = ?1 AND u.tenant = ?2");
    let found = db.query_row(&select, params![upload.as_str(), tenant], upload_row).optional()?;
    found.ok_or(StoreError::Absent("upload"))
}

impl Store {
    /// Makes room for a request of `length` bytes, and with `images` for one of so many whose sets go to a store.
    ///
    /// # Errors
    /// Keys that the tenant does not have; too many uploads; no room.
    pub fn create_upload(&self, tenant: i64, key: &Id, length: u64, images: Option<u64>) -> Result<Upload, StoreError> {
        let upload = Id::fresh()?;
        if images.is_none() {
            self.blobs.create(BlobKind::Uploads, &upload)?;
        }
        let created = self.transaction(|db| {
            find_key(db, tenant, key)?;
            let uploads: u32 =
                db.query_row("SELECT count(*) FROM uploads WHERE tenant = ?1", [tenant], |row| row.get(0))?;
            let most = self.bounds.uploads_per_tenant;
            if uploads >= most {
                return Err(StoreError::Full(format!(
                    "you have {uploads} uploads that are no jobs yet, and {most} are allowed: finish or delete one"
                )));
            }
            self.require_disk(db, tenant, length)?;
            db.execute(
                "INSERT INTO uploads (id, tenant, key, length, expires, images) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    upload.as_str(),
                    tenant,
                    key.as_str(),
                    integer(length),
                    self.upload_expiry(),
                    images.map(integer)
                ],
            )?;
            find_upload(db, tenant, &upload)
        });
        if created.is_err() {
            self.remove_request(&upload)?;
        }
        created
    }

    /// A tenant's upload.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn upload(&self, tenant: i64, upload: &Id) -> Result<Upload, StoreError> {
        find_upload(&self.db(), tenant, upload)
    }

    /// The right to change an upload.
    ///
    /// # Errors
    /// Somebody else has it.
    pub fn write_to(&self, upload: &Id) -> Result<Writing<'_>, StoreError> {
        if self.being_written().insert(upload.clone()) {
            Ok(Writing { store: self, upload: upload.clone() })
        } else {
            Err(StoreError::Busy)
        }
    }

    /// The file of an upload, where its next byte goes.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn upload_file(&self, upload: &Upload) -> Result<File, StoreError> {
        let mut file =
            OpenOptions::new().read(true).write(true).open(self.blobs.path(BlobKind::Uploads, &upload.id))?;
        // What a failed write left behind the valid part.
        file.set_len(upload.received)?;
        file.seek(SeekFrom::End(0))?;
        Ok(file)
    }

    /// Notes that the first `received` bytes of an upload are valid, after bringing them to the disk.
    ///
    /// # Errors
    /// The file cannot be synced; the upload is gone.
    pub fn commit_upload(&self, upload: &Id, file: &File, received: u64) -> Result<(), StoreError> {
        file.sync_data()?;
        self.note_received(upload, received)
    }

    /// Notes that `received` bytes of an upload are where they belong. It is kept longer from now on.
    ///
    /// # Errors
    /// The upload is gone.
    pub fn note_received(&self, upload: &Id, received: u64) -> Result<(), StoreError> {
        let update = "UPDATE uploads SET received = ?2, expires = ?3 WHERE id = ?1";
        let changed = self.db().execute(update, params![upload.as_str(), integer(received), self.upload_expiry()])?;
        if changed == 1 { Ok(()) } else { Err(StoreError::Absent("upload")) }
    }

    /// Gives up an upload.
    ///
    /// # Errors
    /// There is none of this name; somebody is writing to it.
    pub fn delete_upload(&self, tenant: i64, upload: &Id) -> Result<(), StoreError> {
        let _writing = self.write_to(upload)?;
        find_upload(&self.db(), tenant, upload)?;
        self.drop_upload(upload)
    }

    fn drop_upload(&self, upload: &Id) -> Result<(), StoreError> {
        self.db().execute("DELETE FROM uploads WHERE id = ?1", [upload.as_str()])?;
        self.remove_request(upload)
    }

    /// Removes the ciphertexts of a request.
    pub(super) fn remove_request(&self, upload: &Id) -> Result<(), StoreError> {
        match self.objects() {
            Some(objects) => objects.remove_below(&request_name(upload), |_| false),
            None => self.blobs.remove(BlobKind::Uploads, upload)?,
        }
        Ok(())
    }

    fn upload_expiry(&self) -> i64 {
        now().saturating_add(integer(self.bounds.upload_seconds))
    }

    pub(super) fn sweep_uploads(&self, now: i64) -> Result<usize, StoreError> {
        let expired = self.upload_names("SELECT id FROM uploads WHERE expires <= ?1", now)?;
        let mut swept = 0;
        for upload in expired {
            // One that is being written to lives.
            if let Ok(_writing) = self.write_to(&upload) {
                self.drop_upload(&upload)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// An upload whose file is shorter than its row says is none.
    pub(super) fn recover_uploads(&self) -> Result<(), StoreError> {
        for upload in self.upload_names("SELECT id FROM uploads WHERE expires >= ?1", i64::MIN)? {
            let select = "SELECT received FROM uploads WHERE id = ?1";
            let received: i64 = self.db().query_row(select, [upload.as_str()], |row| row.get(0))?;
            let len =
                std::fs::metadata(self.blobs.path(BlobKind::Uploads, &upload)).map_or(-1, |file| file.len() as i64);
            if len < received {
                self.drop_upload(&upload)?;
            }
        }
        Ok(())
    }

    fn upload_names(&self, select: &str, bound: i64) -> Result<Vec<Id>, StoreError> {
        let db = self.db();
        let mut rows = db.prepare(select)?;
        Ok(rows.query_map([bound], |row| id(row, 0))?.collect::<Result<_, _>>()?)
    }

    fn being_written(&self) -> std::sync::MutexGuard<'_, std::collections::HashSet<Id>> {
        self.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
