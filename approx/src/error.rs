//! What can be wrong with a request.

use thiserror::Error;

use crate::{MAX_DEGREE, MAX_LOST_BITS};

/// Why there is no approximation.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Error {
    /// Not a bounded interval with room inside.
    #[error(
        "[{low}, {high}] is no interval: two finite ends are needed, the smaller first, further apart than 2e-9 of the larger \
         magnitude; for example [-5, 5]"
    )]
    Interval {
        /// First end.
        low: f64,
        /// Second end.
        high: f64,
    },
    /// Degree 0, or more than [`MAX_DEGREE`].
    #[error("degree {degree} is not possible: 1 to {MAX_DEGREE} are")]
    Degree {
        /// What was asked for.
        degree: usize,
    },
    /// The tolerance of a search is no positive number.
    #[error("an error of {tolerance} cannot be asked for: a finite number above 0 is needed")]
    Tolerance {
        /// What was asked for.
        tolerance: f64,
    },
    /// The width of a Gaussian is no positive number.
    #[error("sigma {sigma} is not possible: a finite number above 0 is needed")]
    Sigma {
        /// What was asked for.
        sigma: f64,
    },
    /// The point of a Taylor expansion is not finite.
    #[error("{at} is no point to expand at: a finite number is needed")]
    ExpansionPoint {
        /// What was asked for.
        at: f64,
    },
    /// The function is infinite or not a number at a point of the interval.
    #[error("{function} is {value} at {x}: it must be finite on the whole interval; choose one that avoids this point")]
    NotFinite {
        /// Name of the function.
        function: String,
        /// The point.
        x: f64,
        /// Its value there.
        value: f64,
    },
    /// The function varies too fast, or too irregularly, for quadrature to converge.
    #[error(
        "{function} varies too fast on [{low}, {high}] to be integrated: declare its break points, choose a smaller interval, or \
         give it as samples with method `numerical`"
    )]
    Unresolved {
        /// Name of the function.
        function: String,
        /// Left end.
        low: f64,
        /// Right end.
        high: f64,
    },
    /// Fewer points than a polynomial of the degree needs.
    #[error(
        "{found} samples in the interval are too few: {needed} or more are needed; give more points or a lower degree"
    )]
    TooFewSamples {
        /// Points in the interval.
        found: usize,
        /// The least number.
        needed: usize,
    },
    /// A sample is not finite, or not to the right of the one before.
    #[error("sample {index} is ({x}, {y}): samples must be finite and ascend strictly in x")]
    Sample {
        /// Its index, from 0.
        index: usize,
        /// Abscissa.
        x: f64,
        /// Ordinate.
        y: f64,
    },
    /// The interval is wider than the samples.
    #[error("the samples cover [{low}, {high}] only: choose an interval inside, or more samples")]
    OutsideSamples {
        /// First abscissa.
        low: f64,
        /// Last abscissa.
        high: f64,
    },
    /// Taylor's method needs derivatives that the function does not have.
    #[error(
        "{function} has no Taylor series at {at}: only the named activations have; take another method, such as `chebyshev`"
    )]
    NoTaylorSeries {
        /// Name of the function.
        function: String,
        /// The point of expansion.
        at: f64,
    },
    /// The derivative method needs the derivative.
    #[error("{function} has no known derivative, which the derivative method needs: give one, or take another method")]
    NoDerivative {
        /// Name of the function.
        function: String,
    },
    /// The measure's weight lies on so few points that polynomials of this degree cannot be told apart.
    #[error(
        "polynomials of degree {degree} are not independent in this measure: it lies on too few points; give a lower degree, or a \
         wider interval"
    )]
    Dependent {
        /// The first degree that fails.
        degree: usize,
    },
    /// Monomial coefficients would lose the polynomial to rounding.
    #[error(
        "degree {degree} is too high for stable monomial coefficients on [{low}, {high}]: {lost_bits:.0} of 53 bits would cancel, \
         {MAX_LOST_BITS} may; give a lower degree{}",
        centring(*.low, *.high)
    )]
    Unstable {
        /// Degree of the polynomial.
        degree: usize,
        /// Left end.
        low: f64,
        /// Right end.
        high: f64,
        /// Bits that cancel between the monomials; infinite where a coefficient overflows.
        lost_bits: f64,
    },
    /// The exchange found too few alternations: the function is constant or irregular.
    #[error(
        "the exchange did not converge for {function} at degree {degree}: take method `chebyshev`, or declare break points"
    )]
    Exchange {
        /// Name of the function.
        function: String,
        /// Degree.
        degree: usize,
    },
    /// No degree up to the limit reaches the tolerance.
    #[error(
        "no degree up to {max_degree} reaches an error of {tolerance:e}: the best is {best_error:.3e} at degree {best_degree}; allow a \
         larger error, or choose a smaller interval or another method"
    )]
    ToleranceNotReached {
        /// What was asked for.
        tolerance: f64,
        /// Last degree tried.
        max_degree: usize,
        /// Degree with the smallest error.
        best_degree: usize,
        /// That error.
        best_error: f64,
    },
    /// No function of this name.
    #[error("unknown function `{name}`: relu, sigmoid, tanh, swish, softplus and gelu are known")]
    UnknownFunction {
        /// What was asked for.
        name: String,
    },
    /// No method of this name.
    #[error(
        "unknown method `{name}`: numerical, taylor, legendre, chebyshev, modified-chebyshev, gaussian, derivative and minimax are \
         known"
    )]
    UnknownMethod {
        /// What was asked for.
        name: String,
    },
}

/// Advice for an interval far from 0.
fn centring(low: f64, high: f64) -> &'static str {
    let far = 0.5 * (low + high).abs() > 0.25 * (high - low);
    if far { ", or shift the input so that the interval has 0 in its middle" } else { "" }
}
