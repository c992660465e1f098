//! Networks: what they are, what they compute in the clear, and what is measured of them.
//!
//! A [`Network`] is a checked graph of layers. It is made in memory ([`Network::new`]) or of the
//! bytes of its files ([`Network::parse`]): a readable TOML description beside a safetensors file
//! of f32 weights, and a calibration. Each layer takes the image or outputs of earlier layers, and
//! the output of the last layer is the scores.
//!
//! - [`plain`]: inference in the clear, in f32, the yardstick of every encrypted run;
//! - [`measure`]: what a description states of its layers' values, measured on images;
//! - [`limits`]: how large a network and its files may be;
//! - [`text`]: what strangers wrote, as errors quote it.
//!
//! Nothing here reads files or addresses: `cryptodl-zoo` does that, and `cryptodl-data` has images.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod limits;
pub mod measure;
pub mod plain;
pub mod text;

mod calibration;
mod calibration_file;
mod check;
mod dataset;
mod description;
mod error;
mod fields;
mod fingerprint;
mod histogram;
mod layer;
mod network;
mod parse;
mod rules;
mod spec;
mod tensors;
mod write;

pub use calibration::{Calibration, SourceGains};
pub use dataset::{DatasetId, UnknownDataset};
pub use description::Description;
pub use error::{Invalid, ModelError, Problem};
pub use histogram::Histogram;
pub use layer::{Inputs, Layer, LayerOp, Padding, Shape, Source};
pub use network::Network;
pub use spec::{Accuracy, InputSpec, NetworkSpec, OutputCalibration};
