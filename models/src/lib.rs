//! Networks, data sets and plaintext inference.
//!
//! - [`network`]: a trained network as a checked graph, from files or in memory;
//! - [`zoo`]: the networks that ship inside the program;
//! - [`measure`]: what a description states of its layers' values, measured on images;
//! - [`plain`]: inference in the clear, in f32, the yardstick of every encrypted run;
//! - [`images`]: bounded readers of IDX, `.npy` and PNG files;
//! - [`text`]: what strangers wrote, as errors quote it;
//! - [`data`]: MNIST, Fashion-MNIST and CIFAR-10, fetched once and checked by digest.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod data;
pub mod images;
pub mod measure;
pub mod network;
pub mod plain;
pub mod text;
pub mod zoo;

pub use network::{ModelError, Network};
