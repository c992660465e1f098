//! Weights in files beside the model, which may come from a stranger: they are read from the
//! model's folder only.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use cryptodl_network::text;

use crate::error::Refusal;
use crate::limits::MAX_BYTES;
use crate::proto::StringStringEntryProto;

/// The folder of a model, or none.
pub(crate) struct Folder {
    path: Option<PathBuf>,
    /// Bytes that may still be read.
    left: Cell<u64>,
}

impl Folder {
    pub(crate) fn of(path: PathBuf) -> Self {
        Self { path: Some(path), left: Cell::new(MAX_BYTES) }
    }

    /// Refuses all external data.
    pub(crate) fn none() -> Self {
        Self { path: None, left: Cell::new(MAX_BYTES) }
    }

    /// The bytes of a tensor that takes `len` of them.
    pub(crate) fn read(&self, entries: &[StringStringEntryProto], len: usize) -> Result<Vec<u8>, Refusal> {
        let entry = |key: &str| {
            let found = entries.iter().find(|entry| entry.key.as_deref() == Some(key));
            found.and_then(|entry| entry.value.as_deref())
        };
        let number = |key: &str| match entry(key).map(str::parse::<u64>) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => Err(format!("the {key} of its external data is no number")),
        };
        let location = entry("location").ok_or("its external data has no location")?;
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        if length.is_some_and(|length| length != len as u64) {
            return Err(format!("its external data has {} bytes, but its shape takes {len}", length.unwrap_or(0)));
        }
        let left = self.left.get().checked_sub(len as u64);
        self.left.set(left.ok_or_else(|| format!("the external data is larger than {MAX_BYTES} bytes"))?);
        let path = self.contained(location)?;
        let shown = text::name(location);
        let failed = |error: std::io::Error| format!("its external data {shown} cannot be read: {error}");
        let mut file = File::open(&path).map_err(failed)?;
        let held = file.metadata().map_err(failed)?.len();
        if offset.checked_add(len as u64).is_none_or(|end| end > held) {
            return Err(format!(
                "its external data is {len} bytes from {offset} on, but {shown} has {held} bytes; the file is not the one \
                 that belongs to the model, or was cut off"
            ));
        }
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut bytes = vec![0; len];
        file.read_exact(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// The file of this name, which lies in the folder, links followed.
    fn contained(&self, location: &str) -> Result<PathBuf, Refusal> {
        let shown = text::name(location);
        let folder = self.path.as_ref().ok_or_else(|| {
            format!("its data is external ({shown}); give the file itself, so that its folder is known")
        })?;
        let outside = || {
            format!("its external data {shown} is not in the model's folder; only files in it are read: copy it there")
        };
        let plain = |component: Component<'_>| matches!(component, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || location.contains(['\\', ':', '\0']) || !Path::new(location).components().all(plain) {
            return Err(outside());
        }
        let failed = |error: std::io::Error| format!("its external data {shown} cannot be read: {error}");
        let folder = folder.canonicalize().map_err(failed)?;
        let file = folder.join(location).canonicalize().map_err(failed)?;
        if !file.starts_with(&folder) {
            return Err(outside());
        }
        // Opening anything else, a pipe for one, may never return.
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(format!("its external data {shown} is no plain file"));
        }
        Ok(file)
    }
}
