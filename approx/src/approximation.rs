//! A polynomial in the place of a function, and how good it is.

use serde::Serialize;

use crate::extrema::Search;
use crate::methods::{Alternation, Fit, fit};
use crate::{Cost, Error, Function, Interval, Measure, Method, Monomial, Series, Weight};

/// Highest degree of an approximation.
pub const MAX_DEGREE: usize = 128;

/// How far a polynomial `p` is from the function `f` on the interval. Mean squares are over the interval, not sums: the L2 norm
/// of the measure scaled to mass 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Errors {
    /// `max |f - p|`.
    pub sup: f64,
    /// Where it is taken.
    pub sup_at: f64,
    /// Root mean square of `f - p`, for `dx`.
    pub l2: f64,
    /// Root mean square of `f - p` in the measure that the method fits in, for methods that have one.
    pub l2_weighted: Option<f64>,
    /// `sup |f' - p'|`, beside kinks, if the function's derivative is known.
    pub derivative_sup: Option<f64>,
    /// Root mean square of `f' - p'`, for `dx`.
    pub derivative_l2: Option<f64>,
}

/// A polynomial in the place of a function on an interval.
#[derive(Clone, Debug)]
pub struct Approximation {
    /// How it was chosen.
    pub method: Method,
    /// The polynomial, of the degree that was asked for; its leading coefficient may be zero.
    pub series: Series,
    /// How good it is.
    pub errors: Errors,
    /// Proof that nothing of this degree has a smaller largest error, for [`Method::Minimax`].
    pub alternation: Option<Alternation>,
}

impl Approximation {
    /// Approximates `function` on `interval` by a polynomial of degree at most `degree`.
    ///
    /// # Errors
    /// [`Error::Degree`] unless `degree` is 1 to [`MAX_DEGREE`]; [`Error::NotFinite`], [`Error::Unresolved`] and
    /// [`Error::OutsideSamples`] for a function that is not well-behaved on the interval; what the method needs and does not
    /// get: [`Error::TooFewSamples`], [`Error::NoTaylorSeries`], [`Error::NoDerivative`], [`Error::Sigma`],
    /// [`Error::ExpansionPoint`], [`Error::Dependent`], [`Error::Exchange`].
    pub fn new(function: &Function, interval: Interval, method: Method, degree: usize) -> Result<Self, Error> {
        check_degree(degree)?;
        function.check(interval)?;
        let Fit { series, measure, alternation } = fit(function, interval, method, degree)?;
        if series.coefficients().iter().any(|c| !c.is_finite()) {
            let (low, high) = (interval.low(), interval.high());
            return Err(Error::Unstable { degree, low, high, lost_bits: f64::INFINITY });
        }
        let search = Search::new(interval, &function.breaks(interval), degree);
        let error = |x: f64| function.value(x) - series.value(x);
        let slope_error = |x: f64| function.derivative(x).unwrap_or(0.0) - series.derivative(x);
        let uniform = Weight::Legendre.on(interval)?.quadrature(function, degree)?;
        let sup = search.largest(true, error);
        let smooth = function.has_derivative();
        let errors = Errors {
            sup: sup.value.abs(),
            sup_at: sup.x,
            l2: libm::sqrt(uniform.mean(|x| error(x) * error(x))),
            l2_weighted: measure.map(|measure| libm::sqrt(measure.mean(|x| error(x) * error(x)))),
            derivative_sup: smooth.then(|| search.largest(false, slope_error).value.abs()),
            derivative_l2: smooth.then(|| libm::sqrt(uniform.mean(|x| slope_error(x) * slope_error(x)))),
        };
        Ok(Approximation { method, series, errors, alternation })
    }

    /// The approximation of lowest degree with a largest error of at most `tolerance`: by the theorem of Stone and
    /// Weierstrass there is one for every continuous function if the degree may grow without limit (CryptoDL, section 3.1).
    ///
    /// Degrees are tried upwards, because the largest error of most methods does not fall with every degree; only for
    /// [`Method::Minimax`] is the answer the lowest degree of any polynomial.
    ///
    /// # Errors
    /// [`Error::Tolerance`] unless `tolerance` is finite and positive; [`Error::ToleranceNotReached`] if no degree up to
    /// `max_degree` is enough; and those of [`Self::new`].
    pub fn of_lowest_degree(
        function: &Function,
        interval: Interval,
        method: Method,
        tolerance: f64,
        max_degree: usize,
    ) -> Result<Self, Error> {
        if !(tolerance.is_finite() && tolerance > 0.0) {
            return Err(Error::Tolerance { tolerance });
        }
        check_degree(max_degree)?;
        let (mut best_degree, mut best_error) = (0, f64::INFINITY);
        for degree in 1..=max_degree {
            let found = Approximation::new(function, interval, method, degree)?;
            if found.errors.sup <= tolerance {
                return Ok(found);
            }
            if found.errors.sup < best_error {
                (best_degree, best_error) = (degree, found.errors.sup);
            }
        }
        Err(Error::ToleranceNotReached { tolerance, max_degree, best_degree, best_error })
    }

    /// The polynomial in powers of `x`, for a network description.
    ///
    /// # Errors
    /// [`Error::Unstable`] for a degree at which this form loses the polynomial to rounding.
    pub fn monomial(&self) -> Result<Monomial, Error> {
        Monomial::new(&self.series)
    }

    /// What it costs under encryption, by the degree of [`Self::monomial`].
    ///
    /// # Errors
    /// [`Error::Unstable`].
    pub fn cost(&self) -> Result<Cost, Error> {
        Ok(Cost::new(self.monomial()?.degree()))
    }
}

/// Checks a degree that was asked for.
pub(crate) fn check_degree(degree: usize) -> Result<(), Error> {
    if (1..=MAX_DEGREE).contains(&degree) { Ok(()) } else { Err(Error::Degree { degree }) }
}
