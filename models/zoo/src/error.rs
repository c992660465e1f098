//! Errors of loading.

use std::path::PathBuf;

use cryptodl_network::ModelError;
use thiserror::Error;

use crate::shipped;

/// How alike two names are, from 0 to 1, for one of them to be a slip of the other.
const ALIKE: f64 = 0.8;

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
        "unknown model `{name}`{} For a model of your own give the path of its .toml file, or of the folder that holds it",
        near(name)
    )]
    UnknownModel {
        /// What was asked for.
        name: String,
    },
}

/// The shipped models that `name` may stand for; all of them where it is like none.
fn near(name: &str) -> String {
    let alike = |known: &'static str| (strsim::jaro_winkler(&name.to_lowercase(), known), known);
    let mut near: Vec<(f64, &str)> =
        shipped::names().iter().copied().map(alike).filter(|(alike, _)| *alike >= ALIKE).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    match near[..] {
        [] => format!(". Shipped models are {}.", shipped::names().join(", ")),
        [(_, first), ..] => format!("; did you mean `{first}`?"),
    }
}
