//! Where data sets are kept.

use std::path::{Path, PathBuf};

use cryptodl_network::DatasetId;

use crate::error::{CACHE_VARIABLE, DataError};

/// The cache folder: the one given, else `$CRYPTODL_CACHE`, else the platform's cache folder for this program.
///
/// # Errors
/// [`DataError::NoCache`] if nothing is given and the platform has no cache folder for this user.
pub fn cache_dir(given: Option<&Path>) -> Result<PathBuf, DataError> {
    given
        .map(Path::to_owned)
        .or_else(|| std::env::var_os(CACHE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from))
        .or_else(|| Some(directories::ProjectDirs::from("", "", "cryptodl")?.cache_dir().to_owned()))
        .ok_or(DataError::NoCache)
}

/// The folder of one data set in the cache.
///
/// # Errors
/// As [`cache_dir`].
pub fn dataset_dir(id: DatasetId, cache: Option<&Path>) -> Result<PathBuf, DataError> {
    Ok(cache_dir(cache)?.join(id.name()))
}
