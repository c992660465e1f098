//! A Program without encryption.

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use crate::program::PlainMap;
use crate::{Program, SplitMix, Step};

/// Images computed together, so that inner loops run along images.
const BATCH: usize = 32;

/// Scores `[image][class]` of the Program in plain mode: f64 arithmetic on the quantised weights and constants, exactly what an
/// encrypted run computes up to its noise. `images` is `[image][pixel]` in the input's range.
///
/// # Panics
/// If a row does not have as many pixels as the Program's input.
pub fn plain(program: &Program, images: ArrayView2<'_, f32>) -> Array2<f64> {
    assert_eq!(images.ncols(), program.inputs(), "pixels per image");
    let content = &program.content;
    let maps: Vec<Vec<PlainMap>> = content.steps.iter().map(PlainMap::of).collect();
    let readers: Vec<usize> = program.readers().iter().map(Vec::len).collect();
    let mut scores = Array2::zeros((images.nrows(), content.output.classes));
    scores
        .axis_chunks_iter_mut(Axis(0), BATCH)
        .into_par_iter()
        .zip(images.axis_chunks_iter(Axis(0), BATCH).into_par_iter())
        .for_each(|(mut scores, images)| {
            let batch = images.nrows();
            let pixels: Vec<f64> = images.t().iter().map(|&p| f64::from(p)).collect();
            let values = follow(&content.steps, &maps, readers.clone(), pixels, batch);
            for (mut class, values) in scores.columns_mut().into_iter().zip(values.chunks_exact(batch)) {
                class.iter_mut().zip(values).for_each(|(score, value)| *score = *value);
            }
        });
    scores
}

/// [`plain`] plus Gaussian noise of the predicted standard deviation on every score: what an encrypted run is predicted to
/// return. `seed` makes it reproducible; nothing here is secret.
pub fn simulate(program: &Program, images: ArrayView2<'_, f32>, seed: u64) -> Array2<f64> {
    let mut scores = plain(program, images);
    let mut random = SplitMix(seed);
    // Box-Muller.
    scores.mapv_inplace(|score| {
        let radius = (-2.0 * libm::log(1.0 - random.unit())).sqrt();
        score + program.content.output.noise * radius * libm::cos(std::f64::consts::TAU * random.unit())
    });
    scores
}

/// The last step's values `[value][batch]`; each tensor is kept until its last reader, of which
/// `left` are left, has taken it.
fn follow(steps: &[Step], maps: &[Vec<PlainMap>], mut left: Vec<usize>, input: Vec<f64>, batch: usize) -> Vec<f64> {
    let mut tensors = vec![input];
    for (step, maps) in steps.iter().zip(maps) {
        let mut take = |tensor: usize, tensors: &mut Vec<Vec<f64>>| {
            left[tensor] -= 1;
            if left[tensor] == 0 { std::mem::take(&mut tensors[tensor]) } else { tensors[tensor].clone() }
        };
        let result = match step {
            Step::Linear { terms, .. } => {
                let parts: Vec<Vec<f64>> = maps
                    .iter()
                    .zip(terms)
                    .map(|(map, term)| map.apply(&take(term.operand, &mut tensors), batch))
                    .collect();
                sum(parts.iter())
            }
            Step::Activation { operand, activation } => {
                let mut values = take(*operand, &mut tensors);
                activation.apply(&mut values, batch);
                values
            }
            Step::Maintenance { operand, .. } => take(*operand, &mut tensors),
        };
        tensors.push(result);
    }
    tensors.pop().unwrap_or_default()
}

/// The sum of equally long vectors, value by value, in their order.
pub fn sum<'a>(vectors: impl Iterator<Item = &'a Vec<f64>>) -> Vec<f64> {
    let mut sum: Option<Vec<f64>> = None;
    for vector in vectors {
        match &mut sum {
            None => sum = Some(vector.clone()),
            Some(sum) => sum.iter_mut().zip(vector).for_each(|(sum, v)| *sum += v),
        }
    }
    sum.unwrap_or_default()
}
