//! Where absent files come from: a folder, an address, or the unpacked registry package.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryptodl_network::DatasetId;
use flate2::read::MultiGzDecoder;
use tempfile::TempDir;

use crate::cache::dataset_dir;
use crate::error::DataError;
use crate::files::{self, StandardFile};
use crate::options::{FetchOptions, Progress};
use crate::package;

const CONNECT_LIMIT: Duration = Duration::from_secs(20);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(1800);

pub(crate) enum Source {
    Folder(PathBuf),
    Url(String),
    /// A package's files in a temporary folder, which lives as long as this.
    Package(TempDir),
}

impl Source {
    /// The folder or address that the caller names, else the registry package (which is downloaded here).
    pub(crate) fn open(
        id: DatasetId,
        options: &FetchOptions,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Self, DataError> {
        let unavailable = |reason: String| match dataset_dir(id, options.cache.as_deref()) {
            Ok(folder) => DataError::Unavailable { id, folder, reason, ways: ways(id) },
            Err(error) => error,
        };
        match (&options.from_dir, &options.from_url) {
            (Some(folder), _) => Ok(Source::Folder(folder.clone())),
            (None, _) if options.offline => Err(unavailable("working offline".into())),
            (None, Some(url)) if url.starts_with("http://") || url.starts_with("https://") => {
                Ok(Source::Url(url.trim_end_matches('/').to_owned()))
            }
            (None, Some(url)) => {
                Err(DataError::Download { url: url.clone(), reason: "expected http:// or https://".into() })
            }
            (None, None) => {
                progress(Progress::Step(&format!("running {}", package::command(id))));
                package::unpack(id, options.cancel, progress).map(Source::Package).map_err(unavailable)
            }
        }
    }

    /// The content of one file, checked.
    pub(crate) fn read(
        &self,
        id: DatasetId,
        file: &'static StandardFile,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Vec<u8>, DataError> {
        match self {
            Source::Folder(folder) => from_folder(folder, file, progress),
            Source::Package(folder) => from_folder(&package::files_in(id, folder.path()), file, progress),
            Source::Url(base) => from_url(base, file, progress),
        }
    }
}

fn from_folder(
    folder: &Path,
    file: &'static StandardFile,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<u8>, DataError> {
    for (name, zipped) in [(file.name.to_owned(), false), (format!("{}.gz", file.name), true)] {
        let path = folder.join(name);
        let opened = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened,
        };
        let place = path.display().to_string();
        let bytes = opened.and_then(|opened| receive(opened, zipped, file, progress));
        let bytes = bytes.map_err(|source| DataError::Read { path, source })?;
        file.check(&place, &bytes)?;
        return Ok(bytes);
    }
    Err(DataError::Absent { place: folder.display().to_string(), file: file.name })
}

fn from_url(
    base: &str,
    file: &'static StandardFile,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<u8>, DataError> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT_LIMIT))
        .timeout_global(Some(DOWNLOAD_LIMIT))
        .build()
        .into();
    for (name, zipped) in [(file.name.to_owned(), false), (format!("{}.gz", file.name), true)] {
        let url = format!("{base}/{name}");
        let failed = |reason: String| DataError::Download { url: url.clone(), reason };
        let response = match agent.get(&url).call() {
            Err(ureq::Error::StatusCode(404)) => continue,
            other => other.map_err(|error| failed(error.to_string()))?,
        };
        let body = response.into_body().into_reader();
        let bytes = receive(body, zipped, file, progress).map_err(|error| failed(error.to_string()))?;
        file.check(&url, &bytes)?;
        return Ok(bytes);
    }
    Err(DataError::Absent { place: base.into(), file: file.name })
}

/// Reads at most one byte more than the file has, so that a longer one is noticed and never stored.
pub(crate) fn receive(
    reader: impl Read,
    zipped: bool,
    file: &StandardFile,
    progress: &mut dyn FnMut(Progress<'_>),
) -> io::Result<Vec<u8>> {
    let reader: Box<dyn Read> =
        if zipped { Box::new(MultiGzDecoder::new(io::BufReader::new(reader))) } else { Box::new(reader) };
    let mut reader = reader.take(file.bytes + 1);
    let mut bytes = Vec::new();
    while (&mut reader).take(1 << 20).read_to_end(&mut bytes)? > 0 {
        progress(Progress::Received { file: file.name, bytes: bytes.len() as u64, total: file.bytes });
    }
    Ok(bytes)
}

/// How to provide a data set.
fn ways(id: DatasetId) -> String {
    let names: Vec<&str> = files::of(id).iter().map(|file| file.name).collect();
    format!(
        "It can be fetched from the network (with `{}`), from a folder that holds {}, each plain or as .gz, or from a \
         mirror with these file names",
        package::command(id),
        names.join(", ")
    )
}
