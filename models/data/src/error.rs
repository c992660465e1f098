//! Errors of data sets.

use std::io;
use std::path::PathBuf;

use cryptodl_network::DatasetId;
use thiserror::Error;

/// Environment variable that names the cache folder.
pub const CACHE_VARIABLE: &str = "CRYPTODL_CACHE";

/// Why a data set could not be had.
#[derive(Debug, Error)]
pub enum DataError {
    /// The platform names no cache folder.
    #[error("this user has no cache folder; name one in the environment variable {CACHE_VARIABLE}")]
    NoCache,
    /// A file or folder could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not the genuine one.
    #[error("{place} is damaged or not the standard file: {found}, expected {expected}")]
    Digest {
        /// File or address.
        place: String,
        /// Size or md5 found.
        found: String,
        /// Size or md5 of the genuine file.
        expected: String,
    },
    /// The named folder or address lacks a file.
    #[error("{place} has neither {file} nor {file}.gz")]
    Absent {
        /// Folder or address.
        place: String,
        /// Standard name of the file.
        file: &'static str,
    },
    /// A download failed.
    #[error("cannot download {url}: {reason}")]
    Download {
        /// Address of the file.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The set is not in the cache and could not be fetched.
    #[error("{id} is not in {} and cannot be fetched: {reason}. {ways}", folder.display())]
    Unavailable {
        /// The data set.
        id: DatasetId,
        /// Its folder in the cache.
        folder: PathBuf,
        /// What went wrong.
        reason: String,
        /// How to provide it.
        ways: String,
    },
}
