//! Data sets: fetched, read and cut into images and labels.

use std::path::PathBuf;

use cryptodl_network::DatasetId;

use crate::cache::dataset_dir;
use crate::error::DataError;
use crate::files::{self, CIFAR_PIXELS, StandardFile};
use crate::images::{Pixels, RawImages, parse_idx_images, parse_idx_labels};
use crate::options::{FetchOptions, Progress, Split};
use crate::source::Source;

const CIFAR_RECORD: usize = 1 + CIFAR_PIXELS;

/// Images with their labels.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// 8-bit pixels in the set's own order.
    pub images: RawImages,
    /// One label per image, 0 to 9.
    pub labels: Vec<u8>,
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
            file.store(&folder, &bytes, progress)?;
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
