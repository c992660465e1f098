//! Taylor polynomials.

use crate::{Activation, Error, Function, Interval, Recurrence, Series};

/// The Taylor polynomial of `function`, or of Softplus in place of ReLU at 0.
pub(super) fn expand(function: &Function, interval: Interval, at: Option<f64>, degree: usize) -> Result<Series, Error> {
    let at = at.unwrap_or(if interval.contains(0.0) { 0.0 } else { interval.centre() });
    if !at.is_finite() {
        return Err(Error::ExpansionPoint { at });
    }
    let smooth = match function.activation() {
        Some(Activation::Relu) if at == 0.0 => Some(Activation::Softplus),
        other => other,
    };
    let none = || Error::NoTaylorSeries { function: function.name().into(), at };
    let coefficients = smooth.and_then(|activation| activation.taylor(at, degree)).ok_or_else(none)?;
    let mut power = 1.0;
    let scaled = coefficients.into_iter().map(|c| {
        let scaled = c * power;
        power *= interval.half_length();
        scaled
    });
    Ok(Series::new(interval, Recurrence::powers(interval.to_unit(at), degree), scaled.collect()))
}
