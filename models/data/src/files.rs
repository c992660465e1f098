//! The standard files of each set with their sizes and digests, and their place in the cache.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use cryptodl_network::DatasetId;
use md5::{Digest, Md5};
use tempfile::NamedTempFile;

use crate::error::DataError;
use crate::options::{Progress, Split};

/// Values of an image of CIFAR-10.
pub(crate) const CIFAR_PIXELS: usize = 3 * 32 * 32;

/// A file that everybody may read whom the process's mask allows: what is published is no secret.
fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// One raw file of a data set.
#[derive(Debug)]
pub(crate) struct StandardFile {
    pub(crate) name: &'static str,
    pub(crate) bytes: u64,
    md5: &'static str,
}

pub(crate) const fn file(name: &'static str, bytes: u64, md5: &'static str) -> StandardFile {
    StandardFile { name, bytes, md5 }
}

const MNIST: [StandardFile; 4] = [
    file("train-images-idx3-ubyte", 47_040_016, "6bbc9ace898e44ae57da46a324031adb"),
    file("train-labels-idx1-ubyte", 60_008, "a25bea736e30d166cdddb491f175f624"),
    file("t10k-images-idx3-ubyte", 7_840_016, "2646ac647ad5339dbf082846283269ea"),
    file("t10k-labels-idx1-ubyte", 10_008, "27ae3e4e09519cfbb04c329615203637"),
];

const FASHION_MNIST: [StandardFile; 4] = [
    file("train-images-idx3-ubyte", 47_040_016, "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
    file("train-labels-idx1-ubyte", 60_008, "9018921c3c673c538a1fc5bad174d6f9"),
    file("t10k-images-idx3-ubyte", 7_840_016, "8181f5470baa50b63fa0f6fddb340f0a"),
    file("t10k-labels-idx1-ubyte", 10_008, "15d484375f8d13e6eb1aabb0c3f46965"),
];

const CIFAR10: [StandardFile; 6] = [
    file("data_batch_1.bin", 30_730_000, "5dd7e06a14cb22eb9f671a540d1b7c25"),
    file("data_batch_2.bin", 30_730_000, "5ea93a67294ea407fff1d09f752e9692"),
    file("data_batch_3.bin", 30_730_000, "942cd6a4bcdd0dd3c604fbe906cb4421"),
    file("data_batch_4.bin", 30_730_000, "ae636b3ba5c66a11e91e8cb52e771fcb"),
    file("data_batch_5.bin", 30_730_000, "53f37980c15c3d472c316c40844f3f0d"),
    file("test_batch.bin", 30_730_000, "803d5f7f4d78ea53de84dbe85f74fb6d"),
];

/// All files of a set, those of the training split first.
pub(crate) fn of(id: DatasetId) -> &'static [StandardFile] {
    match id {
        DatasetId::Mnist => &MNIST,
        DatasetId::FashionMnist => &FASHION_MNIST,
        DatasetId::Cifar10 => &CIFAR10,
    }
}

/// The files of one split: images then labels, or the batches in order.
pub(crate) fn of_split(id: DatasetId, split: Split) -> &'static [StandardFile] {
    let all = of(id);
    let test = match id {
        DatasetId::Mnist | DatasetId::FashionMnist => 2,
        DatasetId::Cifar10 => 5,
    };
    match split {
        Split::Train => &all[..test],
        Split::Test => &all[test..],
    }
}

impl StandardFile {
    /// The checked content of the file in a folder of the cache, or `None` if it is not there.
    pub(crate) fn read_cached(&self, folder: &Path) -> Result<Option<Vec<u8>>, DataError> {
        let path = folder.join(self.name);
        let place = path.display().to_string();
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(DataError::Read { path, source }),
            Ok(metadata) => self.check_size(&place, metadata.len())?,
        }
        let bytes = fs::read(&path).map_err(|source| DataError::Read { path, source })?;
        self.check(&place, &bytes)?;
        Ok(Some(bytes))
    }

    /// Refuses content of another size or digest; `place` says where it came from.
    pub(crate) fn check(&self, place: &str, bytes: &[u8]) -> Result<(), DataError> {
        self.check_size(place, bytes.len() as u64)?;
        let found: String = Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if found == self.md5 {
            return Ok(());
        }
        let (found, expected) = (format!("md5 {found}"), format!("md5 {}", self.md5));
        Err(DataError::Digest { place: place.into(), found, expected })
    }

    fn check_size(&self, place: &str, bytes: u64) -> Result<(), DataError> {
        if bytes == self.bytes {
            return Ok(());
        }
        let found = if bytes > self.bytes { "more bytes".into() } else { format!("{bytes} bytes") };
        Err(DataError::Digest { place: place.into(), found, expected: format!("{} bytes", self.bytes) })
    }

    /// Puts checked content into a folder of the cache: written to a temporary name, then renamed.
    pub(crate) fn store(
        &self,
        folder: &Path,
        bytes: &[u8],
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), DataError> {
        let path = folder.join(self.name);
        let mut write = || {
            fs::create_dir_all(folder)?;
            let mut file = temporary(folder)?;
            progress(Progress::Temporary(file.path()));
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(|source| DataError::Write { path: path.clone(), source })
    }

    /// The error for a file that was in the cache a moment ago.
    pub(crate) fn vanished(&self, folder: &Path) -> DataError {
        DataError::Read { path: folder.join(self.name), source: io::ErrorKind::NotFound.into() }
    }
}
