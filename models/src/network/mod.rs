//! The description of a trained network: layers, weights and the calibration that the planner needs.
//!
//! A network is a graph: each layer takes the image or outputs of earlier layers, and the output of
//! the last layer is the scores. As files it is a readable TOML description beside a safetensors
//! file of f32 weights, which [`Network::load`] and [`Network::parse`] read. [`Network::new`] makes
//! one of layers in memory.
//!
//! All of them check the network completely by the same rules. Whoever holds a [`Network`] holds
//! one whose layers fit each other and are all used, whose weights have the right shapes and are
//! finite, whose ranges are not empty, and whose sizes are within the limits below.

mod build;
mod calibration;
mod check;
mod description;
mod error;
mod fields;
mod fingerprint;
mod layer;
mod spec;
mod tensors;
mod write;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

pub use crate::data::DatasetId;
pub use calibration::{CHANNEL_BINS, Calibration, MAX_CALIBRATION_BYTES, MAX_MARGINS, MAX_STORED_IMAGES, SourceGains};
pub use error::{Invalid, ModelError, Problem};
pub use layer::{Inputs, Layer, LayerOp, Padding, Shape, Source};
pub use spec::{LayerSpec, NetworkSpec};
pub use tensors::MAX_HEADER_BYTES;

use check::Builder;
use description::Description;

/// Least share of labels that a description may allow to change: as many decimals as are shown of it.
pub const MIN_TOLERANCE: f64 = 1e-9;
/// Largest description that is read, in bytes.
pub const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;
/// Largest weight file that is read, in bytes.
pub const MAX_WEIGHT_BYTES: u64 = 1 << 25;
/// Most layers of a network.
pub const MAX_LAYERS: usize = 512;
/// Most operands of a layer that joins some.
pub const MAX_OPERANDS: usize = 64;
/// Largest single dimension (channels, height, width, kernel, stride, padding, dilation, features).
pub const MAX_DIMENSION: usize = 1 << 16;
/// Most values that one image may have between two layers.
pub const MAX_VALUES: usize = 1 << 18;
/// Most values of one image that may be needed at once: a layer's operands and output, and what
/// later layers read.
pub const MAX_HELD_VALUES: usize = 1 << 22;
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
    /// The layers; each one comes after its operands, and the output of the last one is the scores.
    pub layers: Vec<Layer>,
    /// The share of labels that may change under encryption, in [[`MIN_TOLERANCE`], 0.5], where the model file states it.
    pub tolerance: Option<f64>,
    /// Calibration of the logits.
    pub output: Option<OutputCalibration>,
    /// Calibration of single images.
    pub calibration: Option<Calibration>,
    /// BLAKE3 over the weight file and all that the layers compute: what a [`Calibration`] belongs
    /// to.
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

/// Calibration of the logits on the training images.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputCalibration {
    /// Smallest and largest logit.
    pub range: [f64; 2],
    /// Largest minus second largest logit of an image.
    pub margins: Histogram,
}

impl Network {
    /// Checks a network and makes it. Its digests are those of the files that
    /// [`Network::description`] (without comment) and [`Network::weight_file`] give.
    ///
    /// Coefficients of single channels are rounded to f32, as the weight file holds them.
    ///
    /// # Errors
    /// Names the layer or section and what is wrong with it: what was found, and what is allowed.
    pub fn new(mut spec: NetworkSpec) -> Result<Self, Invalid> {
        let layers = std::mem::take(&mut spec.layers);
        let mut builder = Builder::new(spec, layers.len())?;
        for layer in layers {
            let name = layer.name.clone();
            builder.push(layer).map_err(|problem| Invalid::layer(&name, problem))?;
        }
        let weights = tensors::weight_file(builder.layers());
        if weights.len() as u64 > MAX_WEIGHT_BYTES {
            return Err(Invalid::new("weights".into(), Problem::WeightBytes { bytes: weights.len() }));
        }
        let mut network = builder.finish(&weights, [0; 32])?;
        network.digest = fingerprint::digest(network.description("", None).as_bytes(), &weights, None);
        Ok(network)
    }

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
        let weights = read_bounded(&path.with_file_name(&description.spec.weights), MAX_WEIGHT_BYTES)?;
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

    /// Shape of the values that come from `source`.
    pub fn shape(&self, source: Source) -> Shape {
        match source {
            Source::Input => {
                let [channels, height, width] = self.input.shape;
                Shape::Image { channels, height, width }
            }
            Source::Layer(index) => self.layers[index].output_shape,
        }
    }

    /// Name of `source` as in a description: a layer's, or `input` for the image.
    pub fn source_name(&self, source: Source) -> &str {
        match source {
            Source::Input => check::INPUT,
            Source::Layer(index) => &self.layers[index].name,
        }
    }

    /// For each layer, those of its operands that no later layer reads, each once.
    pub fn released(&self) -> Vec<Vec<Source>> {
        check::released(&self.layers)
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
