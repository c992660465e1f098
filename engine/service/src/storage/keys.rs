//! A client's public and evaluation keys.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{BlobKind, Id, Part, Store, StoreError, id, integer, keys_name, now};

/// Keys that a tenant has registered for a Program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Its name.
    pub id: Id,
    /// Digest of the Program.
    pub program: String,
    /// BLAKE3 of the blob, in hexadecimal digits.
    pub digest: String,
    /// Bytes of the blob.
    pub bytes: u64,
    /// Seconds since 1970.
    pub created: i64,
    /// Sets that were accepted with it, less those whose jobs gave no result.
    pub sets: u64,
}

/// What a registration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The keys.
    pub key: KeyRow,
    /// Whether they are new.
    pub created: bool,
}

const COLUMNS: &str = "id, program, digest, bytes, created, sets";

fn key_row(row: &Row<'_>) -> rusqlite::Result<KeyRow> {
    Ok(KeyRow {
        id: id(row, 0)?,
        program: row.get(1)?,
        digest: row.get(2)?,
        bytes: row.get::<_, i64>(3)? as u64,
        created: row.get(4)?,
        sets: row.get::<_, i64>(5)? as u64,
    })
}

impl Store {
    /// Refuses keys of `bytes` bytes for which there is no room, before they are sent.
    ///
    /// # Errors
    /// Too many keys, or too many bytes.
    pub fn require_room_for_key(&self, tenant: i64, bytes: u64) -> Result<(), StoreError> {
        let db = self.db();
        self.require_disk(&db, tenant, bytes)
    }

    /// Registers the keys that `part` holds, whose BLAKE3 digest is `digest`. The same keys again are the same registration, also
    /// after they were deleted.
    ///
    /// # Errors
    /// Too many keys, no room, a failure of the database or the file.
    pub fn register_key(
        &self,
        tenant: i64,
        program: &str,
        part: Part,
        bytes: u64,
        digest: &blake3::Hash,
    ) -> Result<Registered, StoreError> {
        let name = Id::derived(&[&tenant.to_le_bytes(), program.as_bytes(), digest.as_bytes()]);
        if let Ok(key) = self.key(tenant, &name) {
            return Ok(Registered { key, created: false });
        }
        // What has the name already has the same contents.
        match self.objects() {
            Some(objects) => objects.create(&keys_name(&name), part.read()?).map(|_| ())?,
            None => part.sync()?.publish(&self.blobs.path(BlobKind::Keys, &name)).map(|_| ())?,
        }
        let registered = self.transaction(|db| {
            self.require_disk(db, tenant, bytes)?;
            // Keys that were used count for ever: new keys must not be a way around the quota of old ones.
            let count = "SELECT count(*) FROM keys WHERE tenant = ?1 AND id <> ?2 AND (deleted = 0 OR sets > 0)";
            let keys: u32 = db.query_row(count, params![tenant, name.as_str()], |row| row.get(0))?;
            let most = self.bounds.keys_per_tenant;
            if keys >= most {
                return Err(StoreError::Quota(format!(
                    "you have registered {keys} keys, and {most} are allowed, where deleted ones that were used count too: go \
                     on with one that you have"
                )));
            }
            db.execute(
                "INSERT INTO keys (id, tenant, program, digest, bytes, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (id) DO UPDATE SET deleted = 0, bytes = ?5",
                params![name.as_str(), tenant, program, digest.to_hex().as_str(), integer(bytes), now()],
            )?;
            find_key(db, tenant, &name)
        });
        match registered {
            Ok(key) => Ok(Registered { key, created: true }),
            Err(error) => {
                self.remove_keys(&name)?;
                Err(error)
            }
        }
    }

    /// A tenant's keys of this name.
    ///
    /// # Errors
    /// There are none.
    pub fn key(&self, tenant: i64, key: &Id) -> Result<KeyRow, StoreError> {
        find_key(&self.db(), tenant, key)
    }

    /// All keys of a tenant.
    ///
    /// # Errors
    /// The database fails.
    pub fn keys(&self, tenant: i64) -> Result<Vec<KeyRow>, StoreError> {
        let db = self.db();
        let mut rows =
            db.prepare(&format!("SELECT {COLUMNS} FROM keys WHERE tenant = ?1 AND deleted = 0 ORDER BY created, id"))?;
        Ok(rows.query_map([tenant], key_row)?.collect::<Result<_, _>>()?)
    }

    /// Deletes a tenant's keys. How often they were used is kept.
    ///
    /// # Errors
    /// There are none of this name; an upload or a job still needs them.
    pub fn delete_key(&self, tenant: i64, key: &Id) -> Result<(), StoreError> {
        self.transaction(|db| {
            find_key(db, tenant, key)?;
            let needed = "SELECT (SELECT count(*) FROM uploads WHERE key = ?1)
                               + (SELECT count(*) FROM jobs WHERE key = ?1 AND state IN ('queued', 'running'))";
            let needed: i64 = db.query_row(needed, [key.as_str()], |row| row.get(0))?;
            if needed > 0 {
                return Err(StoreError::Conflict(format!(
                    "{needed} uploads or jobs still need these keys: delete or cancel them first"
                )));
            }
            db.execute("UPDATE keys SET deleted = 1 WHERE id = ?1", [key.as_str()])?;
            forget_unused(db)?;
            Ok(())
        })?;
        self.remove_keys(key)
    }

    fn remove_keys(&self, key: &Id) -> Result<(), StoreError> {
        match self.objects() {
            Some(objects) => objects.remove(&keys_name(key)),
            None => Ok(self.blobs.remove(BlobKind::Keys, key)?),
        }
    }

    /// Keys without a blob are none.
    pub(super) fn recover_keys(&self) -> Result<(), StoreError> {
        let names = {
            let db = self.db();
            let mut rows = db.prepare("SELECT id FROM keys WHERE deleted = 0")?;
            rows.query_map([], |row| id(row, 0))?.collect::<Result<Vec<_>, _>>()?
        };
        for name in names {
            if !self.blobs.path(BlobKind::Keys, &name).exists() {
                self.db().execute("UPDATE keys SET deleted = 1 WHERE id = ?1", [name.as_str()])?;
            }
        }
        Ok(())
    }
}

/// Removes the rows of deleted keys that were never used, unless a job that ended still names them.
pub(super) fn forget_unused(db: &Connection) -> rusqlite::Result<usize> {
    let unused = "DELETE FROM keys WHERE deleted = 1 AND sets = 0 AND id NOT IN (SELECT key FROM jobs)
        AND id NOT IN (SELECT key FROM uploads)";
    db.execute(unused, [])
}

/// A tenant's keys of this name that are not deleted.
pub(super) fn find_key(db: &Connection, tenant: i64, key: &Id) -> Result<KeyRow, StoreError> {
    let select = format!("SELECT {COLUMNS} FROM keys WHERE id = ?1 AND tenant = ?2 AND deleted = 0");
    let found = db.query_row(&select, params![key.as_str(), tenant], key_row).optional()?;
    found.ok_or(StoreError::Absent("key"))
}
