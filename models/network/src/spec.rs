//! A network as somebody states it, before it is checked.

use crate::dataset::DatasetId;
use crate::histogram::Histogram;
use crate::layer::Layer;

/// What [`Network::new`](crate::Network::new) checks and makes a network of.
#[derive(Debug, Clone)]
pub struct NetworkSpec {
    /// Short name, as on the command line: 1 to 64 letters, digits, `.`, `_` or `-`.
    pub name: String,
    /// One line for people, of 1 to 200 characters.
    pub title: String,
    /// The data set that `accuracy` is about.
    pub dataset: Option<DatasetId>,
    /// Names of the classes: none, or one for each score, in their order. A name has 1 to
    /// [`MAX_CLASS_NAME_BYTES`](crate::limits::MAX_CLASS_NAME_BYTES) bytes in one line, and all of them at most
    /// [`MAX_CLASS_NAMES_BYTES`](crate::limits::MAX_CLASS_NAMES_BYTES).
    pub class_names: Vec<String>,
    /// What one input image looks like.
    pub input: InputSpec,
    /// Plain name of the weight file beside the description.
    pub weights: String,
    /// Test accuracy of the network in the clear, measured by the training recipe.
    pub accuracy: Option<Accuracy>,
    /// The share of labels that may change under encryption, where it is stated: at least
    /// [`MIN_TOLERANCE`](crate::limits::MIN_TOLERANCE), at most 0.5.
    pub tolerance: Option<f64>,
    /// The layers, 1 to [`MAX_LAYERS`](crate::limits::MAX_LAYERS); each one comes after its
    /// operands, and the output of the last one is the scores.
    pub layers: Vec<Layer>,
    /// Calibration of the scores.
    pub output: Option<OutputCalibration>,
}

impl NetworkSpec {
    /// A network of which nothing is known but what it computes; its weight file is named after it.
    pub fn new(name: &str, title: &str, input: InputSpec, layers: Vec<Layer>) -> Self {
        Self {
            name: name.into(),
            title: title.into(),
            dataset: None,
            class_names: Vec::new(),
            input,
            weights: format!("{name}.safetensors"),
            accuracy: None,
            tolerance: None,
            layers,
            output: None,
        }
    }
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

/// Calibration of the logits on the training images.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputCalibration {
    /// Smallest and largest logit.
    pub range: [f64; 2],
    /// Largest minus second largest logit of an image.
    pub margins: Histogram,
}
