//! Errors of images.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use cryptodl_network::text::one_line;
use thiserror::Error;

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
pub(super) fn shown(path: &Path) -> String {
    one_line(&path.display().to_string())
}

/// Opens a file; the error names it.
pub(super) fn open_file(path: &Path) -> Result<BufReader<File>, ImageError> {
    File::open(path).map(BufReader::new).map_err(|source| ImageError::Read { path: path.to_owned(), source })
}
