//! Images from files: IDX, `.npy`, PNG, JPEG, or a folder of pictures, every allocation bounded
//! before it is made.

mod array;
mod error;
mod file;
mod folder;
mod idx;
mod jpeg;
mod npy;
mod picture;
mod png;
mod raw;

pub use array::{MAX_BYTES, PIECE_BYTES};
pub use error::ImageError;
pub use file::{ImageFile, read_labels};
pub use folder::is_image_name;
pub use idx::{parse_images as parse_idx_images, parse_labels as parse_idx_labels};
pub use npy::parse as parse_npy;
pub(crate) use picture::decode as decode_picture;
pub use picture::parse as parse_picture;
pub use raw::{Pixels, RawImages};
