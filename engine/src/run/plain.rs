//! A Program without encryption.

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use crate::plan::{Program, Step};

/// Images computed together, so that inner loops run along images.
const LANES: usize = 32;

/// Scores `[image][class]` of the Program in plain mode: f64 arithmetic on the quantised weights and constants, exactly what an
/// encrypted run computes up to its noise. `images` is `[image][pixel]` in the input's range.
///
/// # Panics
/// If a row does not have as many pixels as the Program's input.
pub fn plain(program: &Program, images: ArrayView2<'_, f32>) -> Array2<f64> {
    assert_eq!(images.ncols(), program.inputs(), "pixels per image");
    let content = &program.content;
    let layers: Vec<Layer<'_>> = content.steps.iter().filter_map(Layer::new).collect();
    let mut scores = Array2::zeros((images.nrows(), content.output.classes));
    scores
        .axis_chunks_iter_mut(Axis(0), LANES)
        .into_par_iter()
        .zip(images.axis_chunks_iter(Axis(0), LANES).into_par_iter())
        .for_each(|(mut scores, images)| {
            let lanes = images.nrows();
            let pixels: Vec<f64> = images.t().iter().map(|&p| f64::from(p)).collect();
            let values = layers.iter().fold(pixels, |values, layer| layer.apply(values, lanes));
            for (mut class, values) in scores.columns_mut().into_iter().zip(values.chunks_exact(lanes)) {
                class.iter_mut().zip(values).for_each(|(score, value)| *score = *value);
            }
        });
    scores
}

/// [`plain`] plus Gaussian noise of the predicted standard deviation on every score: what an encrypted run is predicted to
/// return. `seed` makes it reproducible; nothing here is secret.
pub fn simulate(program: &Program, images: ArrayView2<'_, f32>, seed: u64) -> Array2<f64> {
    let mut scores = plain(program, images);
    let mut random = crate::plan::SplitMix(seed);
    // Box-Muller.
    scores.mapv_inplace(|score| {
        let radius = (-2.0 * libm::log(1.0 - random.unit())).sqrt();
        score + program.content.output.noise * radius * libm::cos(std::f64::consts::TAU * random.unit())
    });
    scores
}

enum Layer<'a> {
    Linear { map: &'a crate::plan::QuantisedMap, weights: Vec<f64>, constants: Vec<f64> },
    Activation(&'a crate::plan::ActivationStep),
}

impl<'a> Layer<'a> {
    /// None for a step that does not change values.
    fn new(step: &'a Step) -> Option<Self> {
        match step {
            Step::Linear { map, scale } => {
                let (weights, constants) = (map.real_weights(), map.real_constants(*scale));
                Some(Layer::Linear { map, weights, constants })
            }
            Step::Activation(activation) => Some(Layer::Activation(activation)),
            Step::Reduction { .. } => None,
        }
    }

    fn apply(&self, mut values: Vec<f64>, lanes: usize) -> Vec<f64> {
        match self {
            Layer::Linear { map, weights, constants } => map.geometry.apply(weights, Some(constants), &values, lanes),
            Layer::Activation(activation) => {
                values.iter_mut().for_each(|z| *z = activation.evaluate(*z));
                values
            }
        }
    }
}
