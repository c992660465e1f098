//! Functions given by points.

use crate::Error;

/// Points `(x_i, y_i)` with ascending `x_i`, joined by the monotone cubic interpolant of Fritsch and Carlson (Monotone Piecewise
/// Cubic Interpolation, 1980) with the slopes of Fritsch and Butland (1984): it passes through the points, has a continuous
/// derivative, and never overshoots.
#[derive(Clone, Debug)]
pub struct Samples {
    x: Vec<f64>,
    y: Vec<f64>,
    slopes: Vec<f64>,
}

impl Samples {
    /// Points in ascending order of x.
    ///
    /// # Errors
    /// [`Error::TooFewSamples`] below two points, [`Error::Sample`] for one that is not finite or does not ascend.
    pub fn new(points: &[(f64, f64)]) -> Result<Self, Error> {
        if points.len() < 2 {
            return Err(Error::TooFewSamples { found: points.len(), needed: 2 });
        }
        for (index, &(x, y)) in points.iter().enumerate() {
            let ascends = index == 0 || points[index - 1].0 < x;
            if !(x.is_finite() && y.is_finite() && ascends) {
                return Err(Error::Sample { index, x, y });
            }
        }
        let (x, y): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
        let slopes = slopes(&x, &y);
        Ok(Samples { x, y, slopes })
    }

    /// Abscissas, ascending.
    pub fn x(&self) -> &[f64] {
        &self.x
    }

    /// Ordinates.
    pub fn y(&self) -> &[f64] {
        &self.y
    }

    /// First and last abscissa.
    pub fn range(&self) -> (f64, f64) {
        (self.x[0], self.x[self.x.len() - 1])
    }

    /// The interpolant at `x`.
    pub fn value(&self, x: f64) -> f64 {
        let (i, h, s) = self.locate(x);
        let r = 1.0 - s;
        let values = self.y[i] * (1.0 + 2.0 * s) * r * r + self.y[i + 1] * (1.0 + 2.0 * r) * s * s;
        values + h * s * r * (self.slopes[i] * r - self.slopes[i + 1] * s)
    }

    /// The interpolant's derivative at `x`.
    pub fn derivative(&self, x: f64) -> f64 {
        let (i, h, s) = self.locate(x);
        let r = 1.0 - s;
        let chord = (self.y[i + 1] - self.y[i]) / h;
        6.0 * s * r * chord + self.slopes[i] * r * (r - 2.0 * s) + self.slopes[i + 1] * s * (s - 2.0 * r)
    }

    /// The piece of `x`, its length, and where in it `x` is, from 0 to 1.
    fn locate(&self, x: f64) -> (usize, f64, f64) {
        let i = self.x.partition_point(|&left| left <= x).clamp(1, self.x.len() - 1) - 1;
        let h = self.x[i + 1] - self.x[i];
        (i, h, (x - self.x[i]) / h)
    }
}

fn slopes(x: &[f64], y: &[f64]) -> Vec<f64> {
    let h: Vec<f64> = x.windows(2).map(|x| x[1] - x[0]).collect();
    let chord: Vec<f64> = y.windows(2).zip(&h).map(|(y, h)| (y[1] - y[0]) / h).collect();
    let last = chord.len() - 1;
    let inner = |i: usize| {
        let (left, right) = (chord[i - 1], chord[i]);
        if left * right <= 0.0 {
            return 0.0;
        }
        let (u, v) = (2.0 * h[i] + h[i - 1], h[i] + 2.0 * h[i - 1]);
        (u + v) / (u / left + v / right)
    };
    // At an end, the parabola through three points, limited so that it keeps the shape.
    let end = |near: usize, far: usize| {
        if last == 0 {
            return chord[near];
        }
        let slope = ((2.0 * h[near] + h[far]) * chord[near] - h[near] * chord[far]) / (h[near] + h[far]);
        if slope * chord[near] <= 0.0 {
            0.0
        } else if chord[near] * chord[far] <= 0.0 && slope.abs() > 3.0 * chord[near].abs() {
            3.0 * chord[near]
        } else {
            slope
        }
    };
    let mut slopes = vec![end(0, last.min(1))];
    slopes.extend((1..=last).map(inner));
    slopes.push(end(last, last.saturating_sub(1)));
    slopes
}
