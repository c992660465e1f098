//! Orthogonal polynomials of a measure, and projection onto them.

use crate::quadrature::sum;
use crate::{Error, Function, Interval, Quadrature, Recurrence, Series};

/// Largest cosine between two of the computed polynomials, which would be 0 in exact arithmetic.
const ORTHOGONAL: f64 = 1e-8;

/// Monic orthogonal polynomials up to degree `degree`, on the unit variable, with their values in the nodes.
pub(crate) struct Basis {
    interval: Interval,
    recurrence: Recurrence,
    /// Values of each polynomial in the nodes.
    values: Vec<Vec<f64>>,
    /// Mean squares.
    norms: Vec<f64>,
    weights: Vec<f64>,
}

impl Basis {
    /// The discretised Stieltjes procedure (Gautschi, Orthogonal Polynomials, 2004, section 2.2.3.1): `alpha_k = <t p_k, p_k> /
    /// <p_k, p_k>`, `beta_k = <p_k, p_k> / <p_(k-1), p_(k-1)>`, with scalar products by quadrature.
    ///
    /// # Errors
    /// [`Error::Dependent`] where the nodes cannot tell the polynomials apart.
    pub fn new(interval: Interval, quadrature: &Quadrature, degree: usize) -> Result<Self, Error> {
        let t: Vec<f64> = quadrature.nodes.iter().map(|&x| interval.to_unit(x)).collect();
        let weights = quadrature.weights.clone();
        let dot = |u: &[f64], v: &[f64]| sum(u.iter().zip(v).zip(&weights).map(|((u, v), w)| w * u * v));
        let mut recurrence = Recurrence { alpha: Vec::new(), beta: Vec::new() };
        let mut values = vec![vec![1.0; t.len()]];
        let mut norms = vec![dot(&values[0], &values[0])];
        for k in 0..degree {
            let p = &values[k];
            let tp: Vec<f64> = t.iter().zip(p).map(|(t, p)| t * p).collect();
            let alpha = dot(&tp, p) / norms[k];
            let beta = if k == 0 { 0.0 } else { norms[k] / norms[k - 1] };
            let before = |i: usize| if k == 0 { 0.0 } else { values[k - 1][i] };
            let next: Vec<f64> = (0..t.len()).map(|i| tp[i] - alpha * p[i] - beta * before(i)).collect();
            let norm = dot(&next, &next);
            let cosine = |(p, norm_p): (&Vec<f64>, &f64)| dot(p, &next).abs() / libm::sqrt(norm_p * norm);
            let independent = norm > 0.0 && values.iter().zip(&norms).map(cosine).all(|cosine| cosine <= ORTHOGONAL);
            if !independent {
                return Err(Error::Dependent { degree: k + 1 });
            }
            recurrence.alpha.push(alpha);
            recurrence.beta.push(beta);
            values.push(next);
            norms.push(norm);
        }
        Ok(Basis { interval, recurrence, values, norms, weights })
    }

    /// The best approximation in the mean square of the measure: `sum_k <f, p_k> / <p_k, p_k> p_k`. `values` are those of `f` in
    /// the nodes. Each coefficient is taken from what the lower ones left, which keeps rounding from growing.
    pub fn project(self, values: Vec<f64>) -> Series {
        let mut rest = values;
        let mut coefficients = Vec::new();
        for (p, norm) in self.values.iter().zip(&self.norms) {
            let product = sum(rest.iter().zip(p).zip(&self.weights).map(|((r, p), w)| w * r * p));
            let c = product / norm;
            rest.iter_mut().zip(p).for_each(|(r, p)| *r -= c * p);
            coefficients.push(c);
        }
        Series::new(self.interval, self.recurrence, coefficients)
    }
}

/// The best approximation of `function` in the mean square of the discretised measure, of degree `degree`.
pub(crate) fn project(
    function: &Function,
    interval: Interval,
    quadrature: &Quadrature,
    degree: usize,
) -> Result<Series, Error> {
    let values = quadrature.nodes.iter().map(|&x| function.finite(x)).collect::<Result<_, _>>()?;
    Ok(Basis::new(interval, quadrature, degree)?.project(values))
}

/// Recurrence coefficients of the monic orthogonal polynomials of `measure`, for `t` in [-1, 1] where `x` is in its support.
///
/// # Errors
/// [`Error::Degree`], [`Error::Unresolved`], [`Error::Dependent`].
pub fn orthogonal_polynomials(measure: &dyn crate::Measure, degree: usize) -> Result<Recurrence, Error> {
    crate::check_degree(degree)?;
    let one = Function::new("1", |_| 1.0);
    Ok(Basis::new(measure.support(), &measure.quadrature(&one, degree)?, degree)?.recurrence)
}
