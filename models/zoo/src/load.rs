//! Networks by name, or from files.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use cryptodl_network::limits::{MAX_CALIBRATION_BYTES, MAX_DESCRIPTION_BYTES, MAX_WEIGHT_BYTES};
use cryptodl_network::{Description, ModelError, Network};

use crate::error::LoadError;
use crate::shipped::{self, Shipped};

/// The shipped network of this name, or the one described by the file if `name_or_path` ends in `.toml`, or by the only such
/// file in the folder `name_or_path`.
///
/// # Errors
/// Those of [`load_file`]; an unknown name is met with the nearest of the shipped ones, or with all; a folder with no or
/// several descriptions.
pub fn load(name_or_path: &str) -> Result<Network, LoadError> {
    if let Some(path) = description(name_or_path)? {
        return load_file(&path);
    }
    let Some(Shipped { toml, weights, calibration }) = shipped::find(name_or_path) else {
        return Err(LoadError::UnknownModel { name: name_or_path.into() });
    };
    Ok(Network::parse(name_or_path, toml, weights, Some(calibration))?)
}

/// The description that `name_or_path` stands for, if it is no shipped network.
fn description(name_or_path: &str) -> Result<Option<PathBuf>, LoadError> {
    let path = Path::new(name_or_path);
    if name_or_path.ends_with(".toml") {
        return Ok(Some(path.to_owned()));
    }
    if shipped::find(name_or_path).is_some() || !path.is_dir() {
        return Ok(None);
    }
    let read = |source| LoadError::Read { path: path.to_owned(), source };
    let mut found = Vec::new();
    for entry in path.read_dir().map_err(read)? {
        let file = entry.map_err(read)?.path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            found.push(file);
        }
    }
    match found.len() {
        1 => Ok(found.pop()),
        count => Err(LoadError::Folder { path: path.to_owned(), count }),
    }
}

/// Reads and checks the description at `path` and the files of weights and calibration that it names, which lie beside it.
///
/// # Errors
/// Names the file, the layer or section and the field, with what was found and what is allowed.
pub fn load_file(path: &Path) -> Result<Network, LoadError> {
    let bytes = read_bounded(path, MAX_DESCRIPTION_BYTES)?;
    let file = path.display().to_string();
    let toml = String::from_utf8(bytes).map_err(|_| ModelError::Syntax {
        file: file.clone(),
        message: "not UTF-8 text; a network description is a TOML file".into(),
    })?;
    let description = Description::parse(&file, &toml)?;
    let weights = read_bounded(&path.with_file_name(description.weights()), MAX_WEIGHT_BYTES)?;
    let calibration = match description.calibration() {
        Some(name) => Some(read_bounded(&path.with_file_name(name), MAX_CALIBRATION_BYTES)?),
        None => None,
    };
    Ok(description.network(&weights, calibration.as_deref())?)
}

/// The bytes of the weight file of `network`, which [`load`] found under this name.
///
/// # Errors
/// A file that cannot be read.
pub fn weights(name_or_path: &str, network: &Network) -> Result<Vec<u8>, LoadError> {
    match shipped::find(name_or_path) {
        Some(shipped) => Ok(shipped.weights.to_vec()),
        None => {
            let description = description(name_or_path)?.unwrap_or_else(|| name_or_path.into());
            let path = description.with_file_name(&network.weights);
            std::fs::read(&path).map_err(|source| LoadError::Read { path, source })
        }
    }
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, LoadError> {
    let read = |source| LoadError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    // In one piece: a buffer that grows takes up to three times as much.
    let len = file.metadata().map_err(read)?.len().min(limit) as usize;
    bytes.try_reserve_exact(len + 1).map_err(|_| read(ErrorKind::OutOfMemory.into()))?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > limit {
        return Err(ModelError::TooLarge { file: path.display().to_string(), limit }.into());
    }
    Ok(bytes)
}
