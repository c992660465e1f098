//! Images from files: IDX, `.npy`, PNG, or a folder of PNGs, every allocation bounded before it is made.

mod array;
mod error;
mod file;
mod folder;
mod idx;
mod npy;
mod png;
mod raw;

pub use array::{MAX_BYTES, PIECE_BYTES};
pub use error::ImageError;
pub use file::{ImageFile, read_labels};
pub use idx::{parse_images as parse_idx_images, parse_labels as parse_idx_labels};
pub use npy::parse as parse_npy;
pub(crate) use png::decode as decode_png;
pub use png::parse as parse_png;
pub use raw::{Pixels, RawImages};
