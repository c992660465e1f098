//! Images from files: IDX, `.npy`, PNG, or a folder of PNGs, every allocation bounded before it is made.

mod idx;
mod npy;
mod png;
mod source;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::path::{Path, PathBuf};

use ndarray::Array4;
use thiserror::Error;

use crate::network::InputSpec;
use crate::text::one_line;

pub use idx::{parse_images as parse_idx_images, parse_labels as parse_idx_labels};
pub use npy::parse as parse_npy;
pub(crate) use png::decode as decode_png;
pub use png::parse as parse_png;

/// Most bytes of pixels that are read at once, and of labels.
pub const MAX_BYTES: u64 = 1 << 30;
/// Bytes of pixels that are read and converted at a time, but for an image that is larger.
pub const PIECE_BYTES: u64 = 1 << 22;

/// Images as they were stored, one after the other in channel, row, column order.
#[derive(Debug, Clone, PartialEq)]
pub struct RawImages {
    /// All pixels; `count * shape[0] * shape[1] * shape[2]` of them.
    pub pixels: Pixels,
    /// Number of images; at least one.
    pub count: usize,
    /// Channels, height, width; none is zero.
    pub shape: [usize; 3],
}

/// Pixels of 8 bits, or values.
#[derive(Debug, Clone, PartialEq)]
pub enum Pixels {
    /// 0 is the lower and 255 the upper end of the network's input range.
    U8(Vec<u8>),
    /// Values in the network's input range.
    F32(Vec<f32>),
}

/// Why images or labels could not be used.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A file or folder could not be read.
    #[error("cannot read {}: {source}", shown(path))]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {problem}", shown(path))]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// There is no memory for the pixels.
    #[error("no memory for the values of {count} images: use a machine with more, or encrypt fewer images at a time")]
    Memory {
        /// Images that are held together.
        count: usize,
    },
    /// The images have another shape than the network takes.
    #[error(
        "images are {} x {} x {} (channels x height x width) but the network takes {} x {} x {}",
        actual[0], actual[1], actual[2], expected[0], expected[1], expected[2]
    )]
    Shape {
        /// Shape of the network's input.
        expected: [usize; 3],
        /// Shape of the images.
        actual: [usize; 3],
    },
    /// A value is not a number or outside the network's input range.
    #[error(
        "image {image}: the value at channel {}, row {}, column {} is {value}, outside the network's input range \
         [{}, {}]; give values in that range, or 8-bit pixels as uint8", place[0], place[1], place[2], range[0], range[1]
    )]
    Value {
        /// Index of the image, from zero.
        image: usize,
        /// Channel, row, column.
        place: [usize; 3],
        /// The value.
        value: f32,
        /// The network's input range.
        range: [f64; 2],
    },
}

/// A path in one line: names in a folder are a stranger's, too.
fn shown(path: &Path) -> String {
    one_line(&path.display().to_string())
}

/// Images of a file or folder, read some at a time: files of any size take no more memory than that.
///
/// What a file is shows in its content (PNG, npy, gzip) or follows IDX:
///
/// - IDX of unsigned bytes, N x H x W or N x C x H x W, plain or gzip-compressed;
/// - `.npy` of uint8, float32 or float64, N x H x W or N x C x H x W, or N x values where the shape is known;
/// - PNG, 8-bit gray or RGB, without alpha: one image, and nothing after it;
/// - a folder: all its `.png` files, of equal size, in the order of their names compared byte by byte.
pub struct ImageFile {
    path: PathBuf,
    source: Source,
    taken: usize,
}

enum Source {
    Idx(source::Source<idx::Unzip<BufReader<File>>>),
    Npy(source::Source<BufReader<File>>),
    Png(png::Files),
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
            Source::Png(files) => files.shape(),
        }
    }

    /// Images in all, as the file says.
    pub fn count(&self) -> usize {
        match &self.source {
            Source::Idx(source) => source.count() as usize,
            Source::Npy(source) => source.count() as usize,
            Source::Png(files) => files.count(),
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
            Source::Png(files) => files.next(count)?,
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
        Ok(array(values, count, input))
    }

    /// Images that are read together.
    fn piece(&self) -> usize {
        match &self.source {
            Source::Idx(source) => source.piece() as usize,
            Source::Npy(source) => source.piece() as usize,
            Source::Png(files) => files.piece(),
        }
    }
}

/// An empty vector with room for the values of `count` images.
fn room(count: usize, shape: [usize; 3]) -> Result<Vec<f32>, ImageError> {
    let mut values = Vec::new();
    let len = shape.iter().try_fold(count, |len, &size| len.checked_mul(size));
    match len.map(|len| values.try_reserve_exact(len)) {
        Some(Ok(())) => Ok(values),
        _ => Err(ImageError::Memory { count }),
    }
}

fn array(values: Vec<f32>, count: usize, input: &InputSpec) -> Array4<f32> {
    let [channels, height, width] = input.shape;
    Array4::from_shape_vec((count, channels, height, width), values).expect("the number of pixels is count times shape")
}

impl Source {
    fn open(path: &Path, shape: Option<[usize; 3]>) -> Result<Self, ImageError> {
        if path.is_dir() {
            return png::Files::folder(path).map(Source::Png);
        }
        let mut file = open_file(path)?;
        let read = |source| ImageError::Read { path: path.to_owned(), source };
        let wrong = |problem| ImageError::File { path: path.to_owned(), problem };
        match file.fill_buf().map_err(read)? {
            [0x89, b'P', b'N', b'G', ..] => png::Files::one(path).map(Source::Png),
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

fn open_file(path: &Path) -> Result<BufReader<File>, ImageError> {
    File::open(path).map(BufReader::new).map_err(|source| ImageError::Read { path: path.to_owned(), source })
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

impl RawImages {
    /// The values that the network sees, N x channels x height x width, each in `input.range`.
    ///
    /// # Errors
    /// [`ImageError::Shape`] if the images have another shape than the input, [`ImageError::Value`] for the first
    /// value that is not a number or outside the range (by more than f32 rounding).
    ///
    /// # Panics
    /// If the number of pixels is not `count` times the shape; that of everything that is read from files is.
    pub fn to_values(&self, input: &InputSpec) -> Result<Array4<f32>, ImageError> {
        let mut values = room(self.count, self.shape)?;
        self.append_values(input, &mut values)?;
        Ok(array(values, self.count, input))
    }

    /// The same after other `values`, which have room for them.
    fn append_values(&self, input: &InputSpec, values: &mut Vec<f32>) -> Result<(), ImageError> {
        if self.shape != input.shape {
            return Err(ImageError::Shape { expected: input.shape, actual: self.shape });
        }
        let [low, high] = input.range;
        match &self.pixels {
            Pixels::U8(pixels) => {
                let table: Vec<f32> = (0..=255).map(|p| (low + f64::from(p) / 255.0 * (high - low)) as f32).collect();
                values.extend(pixels.iter().map(|&pixel| table[usize::from(pixel)]));
            }
            Pixels::F32(pixels) => {
                let slack = (high - low) * 1e-6;
                let inside = |value: f32| (low - slack..=high + slack).contains(&f64::from(value));
                if let Some(index) = pixels.iter().position(|&value| !inside(value)) {
                    let [_, height, width] = self.shape;
                    let len = self.shape.iter().product::<usize>();
                    let place = [index % len / (height * width), index / width % height, index % width];
                    return Err(ImageError::Value {
                        image: index / len,
                        place,
                        value: pixels[index],
                        range: input.range,
                    });
                }
                values.extend_from_slice(pixels);
            }
        }
        Ok(())
    }
}
