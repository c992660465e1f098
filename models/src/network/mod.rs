//! The description of a trained network: layers, weights and the calibration that the planner needs.
//!
//! A network is a readable TOML file beside a safetensors file of f32 weights. [`Network::load`] and
//! [`Network::parse`] check both completely, so that whoever holds a [`Network`] holds one whose layers fit each
//! other, whose weights have the described shapes and are finite, and whose ranges are not empty.

mod build;
mod calibration;
mod description;
mod error;
mod fields;
mod tensors;
mod write;

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use ndarray::{Array1, Array2, Array4};

pub use crate::data::DatasetId;
pub use calibration::{Calibration, MAX_CALIBRATION_BYTES, MAX_MARGINS, MAX_STORED_IMAGES, SourceGains};
pub use error::{ModelError, Problem};
pub use tensors::MAX_HEADER_BYTES;

use description::Description;

/// Least share of labels that a description may allow to change: as many decimals as are shown of it.
pub const MIN_TOLERANCE: f64 = 1e-9;
/// Largest description that is read, in bytes.
pub const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;
/// Largest weight file that is read, in bytes.
pub const MAX_WEIGHT_BYTES: u64 = 1 << 25;
/// Most layers of a network.
pub const MAX_LAYERS: usize = 512;
/// Largest single dimension (channels, height, width, kernel, stride, features).
pub const MAX_DIMENSION: usize = 1 << 16;
/// Most values that one image may have between two layers.
pub const MAX_VALUES: usize = 1 << 18;
/// Most values that all windows of a convolution or pool may hold: weights per output value times output positions.
pub const MAX_WINDOW_VALUES: u128 = 1 << 24;

/// A trained, validated network.
#[derive(Debug, Clone)]
pub struct Network {
    /// Short name, as on the command line.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// The data set that [`Network::accuracy`] is about.
    pub dataset: Option<DatasetId>,
    /// What one input image looks like.
    pub input: InputSpec,
    /// Plain name of the weight file, beside the description.
    pub weights: String,
    /// Test accuracy of the float network, measured by the training recipe.
    pub accuracy: Option<Accuracy>,
    /// The layers in order; each one's input shape is the output shape of the one before.
    pub layers: Vec<Layer>,
    /// The share of labels that may change under encryption, in [[`MIN_TOLERANCE`], 0.5], where the model file states it.
    pub tolerance: Option<f64>,
    /// Calibration of the logits.
    pub output: Option<OutputCalibration>,
    /// Calibration of single images.
    pub calibration: Option<Calibration>,
    /// BLAKE3 over the weights and the layers' shapes and coefficients: what a [`Calibration`] belongs to.
    pub fingerprint: [u8; 32],
    /// BLAKE3 over the description, the weights and the calibration file if there is one, each preceded by its length as a
    /// little-endian u64.
    pub digest: [u8; 32],
}

/// Shape and value range of an input image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InputSpec {
    /// Channels, height, width.
    pub shape: [usize; 3],
    /// Smallest and largest value; an 8-bit pixel p means `range[0] + p / 255 * (range[1] - range[0])`.
    pub range: [f64; 2],
}

/// Correct labels out of a number of test images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accuracy {
    /// Images labelled correctly.
    pub correct: u64,
    /// Images in the test set.
    pub images: u64,
}

impl Accuracy {
    /// Share of correct labels, in [0, 1].
    pub fn share(&self) -> f64 {
        self.correct as f64 / self.images as f64
    }
}

/// One layer with its calibration on the training images.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Name, unique in its network.
    pub name: String,
    /// What the layer computes.
    pub op: LayerOp,
    /// Root mean square of its input values; greater than zero.
    pub input_rms: Option<f64>,
    /// Smallest and largest value of its output.
    pub output_range: Option<[f64; 2]>,
    /// Shape of its input.
    pub input_shape: Shape,
    /// Shape of its output.
    pub output_shape: Shape,
}

/// Shape of the values of one image between two layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A stack of maps.
    Image {
        /// Number of maps.
        channels: usize,
        /// Rows of a map.
        height: usize,
        /// Columns of a map.
        width: usize,
    },
    /// A vector; a flattened image is in channel, row, column order.
    Flat(usize),
}

impl Shape {
    /// Number of values.
    #[expect(clippy::len_without_is_empty, reason = "a validated shape is never empty")]
    pub fn len(&self) -> usize {
        match *self {
            Shape::Image { channels, height, width } => channels * height * width,
            Shape::Flat(len) => len,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Image { channels, height, width } => write!(f, "{channels} x {height} x {width}"),
            Shape::Flat(len) => write!(f, "{len} values"),
        }
    }
}

/// What a layer computes.
#[derive(Debug, Clone)]
pub enum LayerOp {
    /// Cross-correlation with zero padding, as in PyTorch.
    Conv2d {
        /// Output channels, input channels, kernel rows, kernel columns.
        weight: Array4<f32>,
        /// One per output channel.
        bias: Option<Array1<f32>>,
        /// Rows, columns.
        stride: [usize; 2],
        /// Rows above and below, columns left and right.
        padding: [usize; 2],
    },
    /// Mean over windows.
    AvgPool2d {
        /// Rows, columns of a window.
        kernel: [usize; 2],
        /// Rows, columns between windows.
        stride: [usize; 2],
    },
    /// Sum over windows.
    SumPool2d {
        /// Rows, columns of a window.
        kernel: [usize; 2],
        /// Rows, columns between windows.
        stride: [usize; 2],
    },
    /// `(x - mean) / sqrt(var + eps) * gamma + beta`, per channel (per value on a flat input).
    BatchNorm {
        /// Scale.
        gamma: Array1<f32>,
        /// Shift.
        beta: Array1<f32>,
        /// Running mean.
        mean: Array1<f32>,
        /// Running variance; not negative.
        var: Array1<f32>,
        /// Added to the variance; greater than zero.
        eps: f64,
    },
    /// The same polynomial of every value: `c[0] + c[1] x + c[2] x^2 + ...`.
    Polynomial {
        /// Constant term first; at least two, the last one not zero.
        coefficients: Vec<f64>,
        /// What is known of its input values.
        inputs: Option<Inputs>,
    },
    /// Image to vector in channel, row, column order.
    Flatten,
    /// Its input.
    Identity,
    /// Its input (active in training only).
    Dropout,
    /// Matrix product.
    Dense {
        /// Output features, input features.
        weight: Array2<f32>,
        /// One per output feature.
        bias: Option<Array1<f32>>,
    },
}

impl LayerOp {
    /// The `kind` of this layer in a description.
    pub fn kind(&self) -> &'static str {
        match self {
            LayerOp::Conv2d { .. } => "conv2d",
            LayerOp::AvgPool2d { .. } => "avg_pool2d",
            LayerOp::SumPool2d { .. } => "sum_pool2d",
            LayerOp::BatchNorm { .. } => "batch_norm",
            LayerOp::Polynomial { .. } => "polynomial",
            LayerOp::Flatten => "flatten",
            LayerOp::Identity => "identity",
            LayerOp::Dropout => "dropout",
            LayerOp::Dense { .. } => "dense",
        }
    }
}

impl Layer {
    /// Multiply-adds per image of a convolution or dense layer as described; zero for every other layer, as is usual.
    pub fn multiply_adds(&self) -> u64 {
        let per_output = match &self.op {
            LayerOp::Conv2d { weight, .. } => weight.len() / weight.dim().0,
            LayerOp::Dense { weight, .. } => weight.ncols(),
            _ => 0,
        };
        self.output_shape.len() as u64 * per_output as u64
    }
}

/// Counts of values in equal bins over an interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Lower end of the first bin.
    pub low: f64,
    /// Upper end of the last bin; greater than `low`.
    pub high: f64,
    /// Values per bin; not all zero.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// The middle of every bin, in order.
    pub fn centres(&self) -> impl Iterator<Item = f64> + '_ {
        let width = (self.high - self.low) / self.counts.len() as f64;
        (0..self.counts.len()).map(move |i| self.low + (i as f64 + 0.5) * width)
    }

    /// The middle of every bin with its share of all values; the shares add up to one.
    pub fn shares(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let total: f64 = self.counts.iter().map(|&count| count as f64).sum();
        self.centres().zip(self.counts.iter().map(move |&count| count as f64 / total))
    }
}

/// Calibration of an activation's input values.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    /// Smallest and largest value.
    pub range: [f64; 2],
    /// Distribution over `range`.
    pub histogram: Histogram,
}

/// Calibration of the logits on the training images.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputCalibration {
    /// Smallest and largest logit.
    pub range: [f64; 2],
    /// Largest minus second largest logit of an image.
    pub margins: Histogram,
}

impl Network {
    /// Reads and checks the description at `path` and the files of weights and calibration that it names, which lie beside it.
    ///
    /// # Errors
    /// Names the file, the layer or section and the field, with what was found and what is allowed.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        let bytes = read_bounded(path, MAX_DESCRIPTION_BYTES)?;
        let source_name = path.display().to_string();
        let toml = String::from_utf8(bytes).map_err(|_| ModelError::Syntax {
            file: source_name.clone(),
            message: "not UTF-8 text; a network description is a TOML file".into(),
        })?;
        let description = Description::parse(&source_name, &toml)?;
        let weights = read_bounded(&path.with_file_name(&description.weights), MAX_WEIGHT_BYTES)?;
        let calibration = match &description.calibration {
            Some(name) => Some(read_bounded(&path.with_file_name(name), MAX_CALIBRATION_BYTES)?),
            None => None,
        };
        build::network(&source_name, description, &toml, &weights, calibration.as_deref())
    }

    /// Checks a description, the bytes of its weight file, and those of its calibration file if it names one; `source_name`
    /// appears in errors. A calibration that it does not name is left out.
    ///
    /// # Errors
    /// As [`Network::load`], without the reading.
    pub fn parse(
        source_name: &str,
        toml: &str,
        weights: &[u8],
        calibration: Option<&[u8]>,
    ) -> Result<Self, ModelError> {
        let description = Description::parse(source_name, toml)?;
        let calibration = calibration.filter(|_| description.calibration.is_some());
        build::network(source_name, description, toml, weights, calibration)
    }

    /// Number of logits; at least two.
    pub fn classes(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.output_shape.len())
    }

    /// Multiply-adds per image of all layers as described, before any folding.
    pub fn multiply_adds(&self) -> u64 {
        self.layers.iter().map(Layer::multiply_adds).sum()
    }
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, ModelError> {
    let read = |source| ModelError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    // In one piece: a buffer that grows takes up to three times as much.
    let len = file.metadata().map_err(read)?.len().min(limit) as usize;
    bytes.try_reserve_exact(len + 1).map_err(|_| read(ErrorKind::OutOfMemory.into()))?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > limit {
        return Err(ModelError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}
