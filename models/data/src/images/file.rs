//! Image files of any of the formats, and files of labels.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::path::{Path, PathBuf};

use cryptodl_network::InputSpec;
use ndarray::Array4;

use super::error::{ImageError, open_file};
use super::folder::Files;
use super::picture::is_picture;
use super::raw::{RawImages, room, stack};
use super::{array, idx, npy};

/// Images of a file or folder, read some at a time: files of any size take no more memory than that.
///
/// What a file is shows in its content (PNG, JPEG, npy, gzip) or follows IDX:
///
/// - IDX of unsigned bytes, N x H x W or N x C x H x W, plain or gzip-compressed;
/// - `.npy` of uint8, float32 or float64, N x H x W or N x C x H x W, or where the shape is known N x values, and N x H x W x C if
///   that is no other shape;
/// - PNG or JPEG: one image, and nothing after it. Palettes, 16 bits and an alpha channel that hides nothing become 8-bit grey or
///   RGB; where the shape is known, colours become grey and grey three channels;
/// - a folder: all its `.png`, `.jpg` and `.jpeg` files, of equal size, in the order of their names compared byte by byte.
pub struct ImageFile {
    path: PathBuf,
    source: Source,
    taken: usize,
}

enum Source {
    Idx(array::Source<idx::Unzip<BufReader<File>>>),
    Npy(array::Source<BufReader<File>>),
    Pictures(Files),
}

impl ImageFile {
    /// Opens a file or folder and reads what it says of its images. With `shape` (channels, height, width), images of another
    /// shape are refused before any of them is read.
    ///
    /// # Errors
    /// Names the file with what was found and what is expected; [`ImageError::Shape`] if the images have another shape.
    pub fn open(path: &Path, shape: Option<[usize; 3]>) -> Result<Self, ImageError> {
        let images = ImageFile { path: path.to_owned(), source: Source::open(path, shape)?, taken: 0 };
        match shape {
            Some(expected) if expected != images.shape() => Err(ImageError::Shape { expected, actual: images.shape() }),
            _ => Ok(images),
        }
    }

    /// Channels, height, width.
    pub fn shape(&self) -> [usize; 3] {
        match &self.source {
            Source::Idx(source) => source.shape(),
            Source::Npy(source) => source.shape(),
            Source::Pictures(files) => files.shape(),
        }
    }

    /// Images in all, as the file says.
    pub fn count(&self) -> usize {
        match &self.source {
            Source::Idx(source) => source.count() as usize,
            Source::Npy(source) => source.count() as usize,
            Source::Pictures(files) => files.count(),
        }
    }

    /// Names of the files that the images come from, one for each image, without folders; none
    /// where one file holds many.
    pub fn names(&self) -> Option<&[String]> {
        match &self.source {
            Source::Pictures(files) => Some(files.names()),
            Source::Idx(_) | Source::Npy(_) => None,
        }
    }

    /// What the user should know of the images: what was left out or converted.
    pub fn notes(&self) -> &[String] {
        match &self.source {
            Source::Pictures(files) => &files.notes,
            Source::Idx(_) | Source::Npy(_) => &[],
        }
    }

    /// The next `count` images, fewer at the end.
    ///
    /// # Errors
    /// Names the file with what was found and what is expected. That a file goes on after its last image shows when that
    /// is read.
    pub fn next(&mut self, count: usize) -> Result<RawImages, ImageError> {
        let wrong = |problem| ImageError::File { path: self.path.clone(), problem };
        let images = match &mut self.source {
            Source::Idx(source) => source.next(count as u64).map_err(wrong)?,
            Source::Npy(source) => source.next(count as u64).map_err(wrong)?,
            Source::Pictures(files) => files.next(count)?,
        };
        self.taken += images.count;
        Ok(images)
    }

    /// The values that a network with this input sees in the next `count` images, fewer at the end: see
    /// [`RawImages::to_values`]. What is stored is read and converted in pieces, so that it takes the memory of the values and
    /// little more.
    ///
    /// # Errors
    /// As [`Self::next`] and [`RawImages::to_values`].
    pub fn next_values(&mut self, count: usize, input: &InputSpec) -> Result<Array4<f32>, ImageError> {
        let (count, first) = (count.min(self.count() - self.taken), self.taken);
        let mut values = room(count, self.shape())?;
        while self.taken < first + count {
            let start = self.taken;
            let piece = self.next(self.piece().min(first + count - start))?;
            piece.append_values(input, &mut values).map_err(|error| match error {
                ImageError::Value { image, place, value, range } => {
                    ImageError::Value { image: start + image, place, value, range }
                }
                error => error,
            })?;
        }
        Ok(stack(values, count, input))
    }

    /// Images that are read together.
    fn piece(&self) -> usize {
        match &self.source {
            Source::Idx(source) => source.piece() as usize,
            Source::Npy(source) => source.piece() as usize,
            Source::Pictures(files) => files.piece(),
        }
    }
}

impl Source {
    fn open(path: &Path, shape: Option<[usize; 3]>) -> Result<Self, ImageError> {
        let channels = shape.map(|shape| shape[0]);
        if path.is_dir() {
            return Files::folder(path, channels).map(Source::Pictures);
        }
        let mut file = open_file(path)?;
        let read = |source| ImageError::Read { path: path.to_owned(), source };
        let wrong = |problem| ImageError::File { path: path.to_owned(), problem };
        match file.fill_buf().map_err(read)? {
            start if is_picture(start) => Files::one(path, channels).map(Source::Pictures),
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => {
                let mut source = npy::open(file, shape).map_err(wrong)?;
                let rest = rest(source.file_mut()).map_err(read)?;
                rest.map_or(Ok(()), |bytes| source.expect_len(bytes)).map_err(wrong)?;
                Ok(Source::Npy(source))
            }
            _ => {
                let mut source = idx::open(file).map_err(wrong)?;
                if let idx::Unzip::Plain(file) = source.file_mut() {
                    let rest = rest(file).map_err(read)?;
                    rest.map_or(Ok(()), |bytes| source.expect_len(bytes)).map_err(wrong)?;
                }
                Ok(Source::Idx(source))
            }
        }
    }
}

/// Bytes that are still to be read, where the system knows.
fn rest(file: &mut BufReader<File>) -> io::Result<Option<u64>> {
    let found = file.get_ref().metadata()?;
    if !found.is_file() {
        return Ok(None);
    }
    Ok(Some(found.len().saturating_sub(file.stream_position()?)))
}

/// Reads labels of `images` images from an IDX file of unsigned bytes, plain or gzip-compressed.
///
/// # Errors
/// Names the file with what was found and what is expected. Labels of another number of images are refused before they are read.
pub fn read_labels(path: &Path, images: usize) -> Result<Vec<u8>, ImageError> {
    let wrong = |problem| ImageError::File { path: path.to_owned(), problem };
    let mut source = idx::open_labels(open_file(path)?).map_err(wrong)?;
    let labels = source.count();
    if labels != images as u64 {
        return Err(wrong(format!("{images} images, but {labels} labels: one for each is needed")));
    }
    idx::labels(&mut source).map_err(wrong)
}
