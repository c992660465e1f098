//! A network as somebody states it, before it is checked.

use super::{Accuracy, DatasetId, InputSpec, LayerOp, OutputCalibration, Source};

/// What [`Network::new`](super::Network::new) checks and makes a network of.
#[derive(Debug, Clone)]
pub struct NetworkSpec {
    /// Short name: 1 to 64 letters, digits, `.`, `_` or `-`.
    pub name: String,
    /// One line for people, of 1 to 200 characters.
    pub title: String,
    /// The data set that `accuracy` is about.
    pub dataset: Option<DatasetId>,
    /// What one input image looks like.
    pub input: InputSpec,
    /// Plain name of the weight file beside the description.
    pub weights: String,
    /// Test accuracy of the network in the clear.
    pub accuracy: Option<Accuracy>,
    /// The share of labels that may change under encryption, in (0, 0.5].
    pub tolerance: Option<f64>,
    /// The layers, 1 to [`MAX_LAYERS`](super::MAX_LAYERS). The output of the last one is the
    /// scores.
    pub layers: Vec<LayerSpec>,
    /// Calibration of the scores.
    pub output: Option<OutputCalibration>,
}

impl NetworkSpec {
    /// A network of which nothing is known but what it computes; its weight file is named after it.
    pub fn new(name: &str, title: &str, input: InputSpec, layers: Vec<LayerSpec>) -> Self {
        Self {
            name: name.into(),
            title: title.into(),
            dataset: None,
            input,
            weights: format!("{name}.safetensors"),
            accuracy: None,
            tolerance: None,
            layers,
            output: None,
        }
    }
}

/// A layer of a [`NetworkSpec`]; shapes follow from its operands.
#[derive(Debug, Clone)]
pub struct LayerSpec {
    /// Name, unique in its network: 1 to 64 letters, digits, `.`, `_` or `-`, and not `input`,
    /// which stands for the image.
    pub name: String,
    /// What the layer computes.
    pub op: LayerOp,
    /// Its operands: the image or earlier layers.
    pub inputs: Vec<Source>,
    /// Root mean square of the values of all its operands together; greater than zero.
    pub input_rms: Option<f64>,
    /// Smallest and largest value of its output.
    pub output_range: Option<[f64; 2]>,
}

impl LayerSpec {
    /// A layer without calibration.
    pub fn new(name: &str, op: LayerOp, inputs: Vec<Source>) -> Self {
        Self { name: name.into(), op, inputs, input_rms: None, output_range: None }
    }
}
