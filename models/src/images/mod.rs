//! Images from files: IDX, `.npy`, PNG, or a folder of PNGs, every allocation bounded before it is made.

mod idx;
mod npy;
mod png;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ndarray::Array4;
use thiserror::Error;

use crate::network::InputSpec;

pub use idx::{parse_images as parse_idx_images, parse_labels as parse_idx_labels};
pub use npy::parse as parse_npy;
pub(crate) use png::decode as decode_png;
pub use png::parse as parse_png;

/// Most bytes of pixels, and of any one file, that are read.
pub const MAX_BYTES: u64 = 1 << 30;

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
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what is expected.
        problem: String,
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

/// Reads images from a file or folder; what it is shows in its content (PNG, npy, gzip) or follows IDX.
///
/// - IDX of unsigned bytes, N x H x W or N x C x H x W, plain or gzip-compressed;
/// - `.npy` of uint8, float32 or float64, N x H x W or N x C x H x W (for N x values use [`read_shaped`]);
/// - PNG, 8-bit gray or RGB, without alpha: one image;
/// - a folder: all its `.png` files, of equal size, in the order of their names compared byte by byte.
///
/// # Errors
/// Names the file with what was found and what is expected.
pub fn read(path: &Path) -> Result<RawImages, ImageError> {
    read_as(path, None)
}

/// As [`read`], for images of a known shape (channels, height, width): also takes `.npy` of N x values.
///
/// # Errors
/// As [`read`]; [`ImageError::Shape`] if the images have another shape.
pub fn read_shaped(path: &Path, shape: [usize; 3]) -> Result<RawImages, ImageError> {
    let images = read_as(path, Some(shape))?;
    if images.shape != shape {
        return Err(ImageError::Shape { expected: shape, actual: images.shape });
    }
    Ok(images)
}

fn read_as(path: &Path, shape: Option<[usize; 3]>) -> Result<RawImages, ImageError> {
    if path.is_dir() {
        return png::read_folder(path);
    }
    let bytes = read_bytes(path)?;
    let parsed = match &bytes[..] {
        [0x89, b'P', b'N', b'G', ..] => png::parse(&bytes),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => npy::parse(&bytes, shape),
        _ => idx::parse_images(&bytes),
    };
    parsed.map_err(|problem| ImageError::File { path: path.to_owned(), problem })
}

/// Reads labels from an IDX file of unsigned bytes, plain or gzip-compressed.
///
/// # Errors
/// Names the file with what was found and what is expected.
pub fn read_labels(path: &Path) -> Result<Vec<u8>, ImageError> {
    let bytes = read_bytes(path)?;
    idx::parse_labels(&bytes).map_err(|problem| ImageError::File { path: path.to_owned(), problem })
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, ImageError> {
    let read = |source| ImageError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(read)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > MAX_BYTES {
        let problem = format!("larger than {MAX_BYTES} bytes, the most that is read at once; split it");
        return Err(ImageError::File { path: path.to_owned(), problem });
    }
    Ok(bytes)
}

/// Number of values of `count` images, if neither is zero and they fit [`MAX_BYTES`] at `width` bytes per value.
fn checked_len(count: u64, shape: [u64; 3], width: u64) -> Result<usize, String> {
    if count == 0 {
        return Err("holds no images; at least one is needed".into());
    }
    if shape.contains(&0) {
        return Err(format!("images of {} x {} x {} have no pixels", shape[0], shape[1], shape[2]));
    }
    let len = shape.iter().try_fold(count, |len, &size| len.checked_mul(size));
    match len.filter(|len| len.checked_mul(width).is_some_and(|bytes| bytes <= MAX_BYTES)) {
        Some(len) => Ok(len as usize),
        None => Err(format!(
            "claims {count} images of {} x {} x {}; at most {MAX_BYTES} bytes of pixels are read at once",
            shape[0], shape[1], shape[2]
        )),
    }
}

impl RawImages {
    /// The values that the network sees, N x channels x height x width, each in `input.range`.
    ///
    /// # Errors
    /// [`ImageError::Shape`] if the images have another shape than the input, [`ImageError::Value`] for the first
    /// value that is not a number or outside the range (by more than f32 rounding).
    ///
    /// # Panics
    /// If the number of pixels is not `count` times the shape; that of everything that [`read`] returns is.
    pub fn to_values(&self, input: &InputSpec) -> Result<Array4<f32>, ImageError> {
        if self.shape != input.shape {
            return Err(ImageError::Shape { expected: input.shape, actual: self.shape });
        }
        let [low, high] = input.range;
        let values = match &self.pixels {
            Pixels::U8(pixels) => {
                let table: Vec<f32> = (0..=255).map(|p| (low + f64::from(p) / 255.0 * (high - low)) as f32).collect();
                pixels.iter().map(|&pixel| table[usize::from(pixel)]).collect()
            }
            Pixels::F32(values) => {
                let slack = (high - low) * 1e-6;
                let inside = |value: f32| (low - slack..=high + slack).contains(&f64::from(value));
                if let Some(index) = values.iter().position(|&value| !inside(value)) {
                    let [_, height, width] = self.shape;
                    let len = self.shape.iter().product::<usize>();
                    let place = [index % len / (height * width), index / width % height, index % width];
                    return Err(ImageError::Value {
                        image: index / len,
                        place,
                        value: values[index],
                        range: input.range,
                    });
                }
                values.clone()
            }
        };
        let [channels, height, width] = self.shape;
        Ok(Array4::from_shape_vec((self.count, channels, height, width), values)
            .expect("the number of pixels is count times shape"))
    }
}
