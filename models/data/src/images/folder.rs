//! A PNG file, or a folder of some.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::array::{MAX_BYTES, PIECE_BYTES};
use super::error::{ImageError, open_file, shown};
use super::png::{decode, header, largest_file};
use super::raw::{Pixels, RawImages};

/// PNG files of one size, which are decoded when their turn comes.
pub(super) struct Files {
    paths: Vec<PathBuf>,
    /// Channels, height, width of the first.
    shape: [usize; 3],
    taken: usize,
}

impl Files {
    /// All `.png` files of a folder in the order of their names.
    pub fn folder(folder: &Path) -> Result<Self, ImageError> {
        let unread = |source| ImageError::Read { path: folder.to_owned(), source };
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .map_err(unread)?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")));
        paths.sort();
        if paths.is_empty() {
            let problem = "holds no .png files; at least one image is needed".into();
            return Err(ImageError::File { path: folder.to_owned(), problem });
        }
        Self::new(paths)
    }

    /// One file.
    pub fn one(path: &Path) -> Result<Self, ImageError> {
        Self::new(vec![path.to_owned()])
    }

    fn new(paths: Vec<PathBuf>) -> Result<Self, ImageError> {
        let header = header(open_file(&paths[0])?);
        let (_, shape) = header.map_err(|problem| ImageError::File { path: paths[0].clone(), problem })?;
        Ok(Files { paths, shape, taken: 0 })
    }

    /// Images that are read together.
    pub fn piece(&self) -> usize {
        (PIECE_BYTES as usize / self.shape.iter().product::<usize>()).max(1)
    }

    pub fn count(&self) -> usize {
        self.paths.len()
    }

    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The next `count` images, fewer at the end.
    pub fn next(&mut self, count: usize) -> Result<RawImages, ImageError> {
        let count = count.min(self.paths.len() - self.taken);
        let mut all = Vec::new();
        for path in &self.paths[self.taken..][..count] {
            let wrong = |problem| ImageError::File { path: path.clone(), problem };
            // What it decodes to is known before it is paid for.
            let (_, shape) = header(open_file(path)?).map_err(wrong)?;
            if shape != self.shape {
                let [channels, height, width] = self.shape;
                return Err(wrong(format!(
                    "image of {} x {} x {} but {} is {channels} x {height} x {width} (channels x height x width); \
                     all images of a folder must have one size",
                    shape[0],
                    shape[1],
                    shape[2],
                    shown(&self.paths[0])
                )));
            }
            let read = |source| ImageError::Read { path: path.clone(), source };
            let mut bytes = Vec::new();
            open_file(path)?.take(largest_file(shape) + 1).read_to_end(&mut bytes).map_err(read)?;
            let (pixels, _) = decode(&bytes).map_err(wrong)?;
            if (all.len() + pixels.len()) as u64 > MAX_BYTES {
                return Err(wrong(format!("more than {MAX_BYTES} bytes of pixels are not read at once")));
            }
            all.extend(pixels);
        }
        self.taken += count;
        Ok(RawImages { pixels: Pixels::U8(all), count, shape: self.shape })
    }
}
