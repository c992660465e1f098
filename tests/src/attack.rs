//! What a curious client can compute from its own results: the gradients of the network at an image of its choice.
//!
//! The client encrypts, so it knows the plaintext of every slot to the last bit: the pixel and the encryption's noise. A set
//! of N copies of one image is therefore N evaluations of the network at points that differ by known small amounts, and least
//! squares over them estimate the derivative of every score with respect to every pixel.

use cryptodl_program::Program;
use cryptodl_program::plain;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

/// The derivatives of all scores at `image`, `[pixel][class]`, by central differences of the Program in plain mode.
pub fn gradients(program: &Program, image: ArrayView1<'_, f32>) -> Array2<f64> {
    const STEP: f32 = 1.0 / 128.0;
    let pixels = image.len();
    let moved = |step: f32| {
        let images = Array2::from_shape_fn((pixels, pixels), |(row, pixel)| {
            image[pixel] + if row == pixel { step } else { 0.0 }
        });
        plain(program, images.view())
    };
    let width = image.mapv(|pixel| f64::from(pixel + STEP) - f64::from(pixel - STEP));
    (moved(STEP) - moved(-STEP)) / &width.insert_axis(Axis(1))
}

/// The least-squares estimate of the gradients, `[pixel][class]`, from N evaluations: how far each slot's pixels are from
/// the image, `[slot][pixel]`, and the scores, `[slot][class]`. More slots than pixels are needed.
pub fn least_squares(deviations: ArrayView2<'_, f64>, scores: ArrayView2<'_, f64>) -> Array2<f64> {
    let centred = |x: ArrayView2<'_, f64>| &x - &x.mean_axis(Axis(0)).expect("slots").insert_axis(Axis(0));
    let (x, y) = (centred(deviations), centred(scores));
    solve(x.t().dot(&x), x.t().dot(&y))
}

/// What is left of an estimate's error, as a share of what was to be estimated.
pub fn relative_error(estimate: &Array2<f64>, truth: &Array2<f64>) -> f64 {
    (norm(&(estimate - truth))) / norm(truth)
}

/// Correlation of an estimate with the truth, without subtracting means.
pub fn correlation(estimate: &Array2<f64>, truth: &Array2<f64>) -> f64 {
    (estimate * truth).sum() / (norm(estimate) * norm(truth))
}

/// Square root of the sum of squares.
pub fn norm(x: &Array2<f64>) -> f64 {
    x.mapv(|v| v * v).sum().sqrt()
}

/// Solves `a x = b` for a positive definite `a` by Cholesky's factorisation.
fn solve(a: Array2<f64>, b: Array2<f64>) -> Array2<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut rows: Vec<Vec<f64>> = a.rows().into_iter().map(|row| row.to_vec()).collect();
    let n = rows.len();
    for i in 0..n {
        let (above, row) = rows.split_at_mut(i);
        let row = &mut row[0];
        for (j, other) in above.iter().enumerate() {
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        row[i] = (row[i] - dot(&row[..i], &row[..i])).sqrt();
    }
    let mut x = b;
    for mut column in x.columns_mut() {
        let mut y = vec![0.0; n];
        for i in 0..n {
            y[i] = (column[i] - dot(&rows[i][..i], &y[..i])) / rows[i][i];
        }
        for i in (0..n).rev() {
            y[i] /= rows[i][i];
            let known = y[i];
            y[..i].iter_mut().zip(&rows[i]).for_each(|(y, l)| *y -= l * known);
        }
        column.assign(&Array1::from(y));
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_squares_finds_the_coefficients_of_a_linear_function() {
        let truth = Array2::from_shape_fn((5, 2), |(i, j)| (i as f64 - 2.0) * (j as f64 + 0.5));
        let x = Array2::from_shape_fn((40, 5), |(i, j)| ((i * 7 + j * j * 3 + i * i * j) % 11) as f64);
        let found = least_squares(x.view(), (x.dot(&truth) + 3.0).view());
        assert!(relative_error(&found, &truth) < 1e-9);
        assert!(correlation(&found, &truth) > 0.999_999);
    }
}
