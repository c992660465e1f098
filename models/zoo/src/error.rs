//! Errors of loading.

use std::path::PathBuf;

use cryptodl_network::ModelError;
use thiserror::Error;

use crate::shipped;

/// Why a network could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The files are no network.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A folder without a description, or with several.
    #[error("{} holds {count} descriptions (.toml files); give the path of one", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// How many there are.
        count: usize,
    },
    /// Neither a shipped model nor a path to a description.
    #[error(
        "unknown model `{name}`; shipped models: {}; for a model of your own give the path of its .toml file, \
         or of the folder that holds it",
        shipped::names().join(", ")
    )]
    UnknownModel {
        /// What was asked for.
        name: String,
    },
}
