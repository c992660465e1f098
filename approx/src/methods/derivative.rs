//! CryptoDL's own method: approximate the derivative, then integrate.

use super::Fit;
use crate::measure::WeightedMeasure;
use crate::orthogonal::project;
use crate::series::chebyshev_interpolant;
use crate::{Activation, Error, Function, Measure, Series};

/// Projects the derivative to degree `degree - 1`, integrates, and chooses the constant of zero mean error.
pub(super) fn integrated(function: &Function, measure: &WeightedMeasure, degree: usize) -> Result<Fit, Error> {
    let interval = measure.support();
    let derivative = target(function)?;
    derivative.check(interval)?;
    let quadrature = measure.quadrature(&derivative, degree)?;
    let slope = project(&derivative, interval, &quadrature, degree - 1)?;
    let slope = chebyshev_interpolant(degree - 1, |t| slope.value(interval.from_unit(t)));
    let mut coefficients = antiderivative(&slope);
    coefficients.iter_mut().for_each(|c| *c *= interval.half_length());
    let without_constant = Series::from_chebyshev(interval, &coefficients);
    let quadrature = measure.quadrature(function, degree)?;
    coefficients[0] = quadrature.mean(|x| function.value(x) - without_constant.value(x));
    let series = Series::from_chebyshev(interval, &coefficients);
    Ok(Fit { series, measure: Some(quadrature), alternation: None })
}

/// The derivative, or the Sigmoid in place of ReLU's.
fn target(function: &Function) -> Result<Function, Error> {
    if function.activation() == Some(Activation::Relu) {
        return Ok(Activation::Sigmoid.into());
    }
    function.derivative_function().ok_or_else(|| Error::NoDerivative { function: function.name().into() })
}

/// Integrates `sum_k c_k T_k`, up to the constant: `T_0 -> T_1`, `T_1 -> T_2 / 4`, `T_k -> T_(k+1) / (2k+2) - T_(k-1) / (2k-2)`
/// (Mason and Handscomb, Chebyshev Polynomials, 2003, section 2.4.4).
fn antiderivative(c: &[f64]) -> Vec<f64> {
    let at = |k: usize| c.get(k).copied().unwrap_or(0.0);
    let term = |k: usize| match k {
        0 => 0.0,
        1 => at(0) - 0.5 * at(2),
        _ => (at(k - 1) - at(k + 1)) / (2 * k) as f64,
    };
    (0..=c.len()).map(term).collect()
}
