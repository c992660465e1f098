//! Per-image calibration: what the planner's predictions rest on beyond ranges and histograms.
//!
//! Everything in it is keyed by *place*: a point between two linear maps or activations of the
//! network as the planner folds it, named after the layers that end there.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2};

/// What a calibration measured, image by image, on the network as the planner folds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Pixels of the images that weight rounding is measured on, `[image][pixel]`: `p` means `p / 255` of the input's range.
    pub images: Array2<u8>,
    /// Scores of the network in the clear for these images, `[image][class]`.
    pub scores: Array2<f32>,
    /// By place, the mean of every channel over these images and over positions.
    pub means: BTreeMap<String, Array1<f32>>,
    /// Largest minus second largest score of the images that gains are known of, ascending.
    pub margins: Vec<f32>,
    /// By source of noise, how far unit noise there moves the scores of those images.
    pub gains: BTreeMap<String, SourceGains>,
    /// Places in order, the input first.
    pub places: Vec<String>,
    /// `[from][to]`: root mean square, over images and values, of the noise at one place per unit noise at another; zero before it.
    pub growth: Array2<f32>,
}

/// How far independent noise of unit variance on every value at a source moves an image's scores; one entry per image, in the
/// order of [`Calibration::margins`].
#[derive(Debug, Clone, PartialEq)]
pub struct SourceGains {
    /// Standard deviation of the difference of the two largest scores.
    pub margin: Vec<f32>,
    /// Root mean square over classes of a score's deviation.
    pub score: Vec<f32>,
}
