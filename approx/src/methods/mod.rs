//! Ways to choose a polynomial.

mod derivative;
mod minimax;
mod taylor;

use std::fmt;

pub use minimax::Alternation;

use crate::measure::Points;
use crate::orthogonal::project;
use crate::{Error, Function, Interval, Measure, Quadrature, Series, Weight};

/// Points at equal distances that method `numerical` takes from a function.
pub const DEFAULT_POINTS: usize = 1001;

/// How a polynomial is chosen. Sections are those of CryptoDL (Hesamifard, Takabi, Ghasemi, CryptoDL: Deep Neural Networks over
/// Encrypted Data, 2017).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Least squares on sample points (section 3.2, method 1): the samples themselves of a sampled function, else `points` of
    /// them at equal distances. By polynomials orthogonal on the points (Forsythe, Generation and use of orthogonal
    /// polynomials for data-fitting with a digital computer, 1957).
    Numerical {
        /// How many; without effect on a sampled function.
        points: usize,
    },
    /// The Taylor polynomial (section 3.2, method 2).
    ///
    /// ReLU has no Taylor series at 0, and the paper does not say what it took. Here ReLU at 0 is replaced by Softplus, the
    /// smooth function whose derivative is the Sigmoid, as ReLU's derivative is replaced by the Sigmoid in method 5.
    Taylor {
        /// Where to expand; if not given at 0, or at the centre of an interval without 0.
        at: Option<f64>,
    },
    /// The best approximation in the mean square of a measure: Chebyshev and modified Chebyshev (section 3.2, methods 3 and 4,
    /// and section 3.3), Legendre, Gaussian.
    Projection(Weight),
    /// The best mean-square approximation of the derivative, integrated (section 3.2, method 5).
    ///
    /// ReLU's derivative, a step, is replaced by the Sigmoid as in the paper; other functions keep theirs. The constant of
    /// integration, which the paper leaves open, makes the error zero in the mean of the same measure.
    Derivative(Weight),
    /// The smallest largest error, by Remez's exchange (Pachon and Trefethen, Barycentric-Remez algorithms for best polynomial
    /// approximation in the chebfun system, 2009), with the alternation that certifies it.
    Minimax,
}

impl Method {
    /// Names that [`Method::from_name`] knows: the paper's five methods first, in its order.
    pub const NAMES: [&'static str; 8] =
        ["numerical", "taylor", "chebyshev", "modified-chebyshev", "derivative", "legendre", "gaussian", "minimax"];

    /// The method of this name with the usual settings, for `function`: `modified-chebyshev` is [`Weight::modified`],
    /// `derivative` fits in Chebyshev's measure.
    ///
    /// # Errors
    /// [`Error::UnknownMethod`].
    pub fn from_name(name: &str, function: &Function) -> Result<Self, Error> {
        Ok(match name {
            "numerical" => {
                Method::Numerical { points: function.samples().map_or(DEFAULT_POINTS, |samples| samples.x().len()) }
            }
            "taylor" => Method::Taylor { at: None },
            "chebyshev" => Method::Projection(Weight::Chebyshev),
            "modified-chebyshev" => Method::Projection(Weight::modified(function)),
            "derivative" => Method::Derivative(Weight::Chebyshev),
            "legendre" => Method::Projection(Weight::Legendre),
            "gaussian" => Method::Projection(Weight::Gaussian { sigma: None }),
            "minimax" => Method::Minimax,
            _ => return Err(Error::UnknownMethod { name: name.into() }),
        })
    }

    /// The name that [`Method::from_name`] knows.
    pub fn name(&self) -> &'static str {
        match self {
            Method::Numerical { .. } => "numerical",
            Method::Taylor { .. } => "taylor",
            Method::Projection(Weight::Chebyshev) => "chebyshev",
            Method::Projection(Weight::ModifiedRelu | Weight::ModifiedSigmoid) => "modified-chebyshev",
            Method::Projection(Weight::Legendre) => "legendre",
            Method::Projection(Weight::Gaussian { .. }) => "gaussian",
            Method::Derivative(_) => "derivative",
            Method::Minimax => "minimax",
        }
    }
}

/// The name, with the settings that it does not tell.
impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Method::Numerical { points } => write!(f, " ({points} points)"),
            Method::Taylor { at: Some(at) } => write!(f, " (at {at})"),
            Method::Derivative(weight) => write!(f, " ({})", Method::Projection(*weight)),
            Method::Projection(Weight::Gaussian { sigma: Some(sigma) }) => write!(f, " (sigma {sigma})"),
            _ => Ok(()),
        }
    }
}

/// What a method makes.
pub(crate) struct Fit {
    pub series: Series,
    /// The measure in which the fit is best, discretised.
    pub measure: Option<Quadrature>,
    pub alternation: Option<Alternation>,
}

/// Fits `function` by `method`; degree and function are checked.
pub(crate) fn fit(function: &Function, interval: Interval, method: Method, degree: usize) -> Result<Fit, Error> {
    let projected = |measure: &dyn Measure| {
        let quadrature = measure.quadrature(function, degree)?;
        let series = project(function, interval, &quadrature, degree)?;
        Ok(Fit { series, measure: Some(quadrature), alternation: None })
    };
    match method {
        Method::Numerical { points } => projected(&Points::new(function, interval, points)),
        Method::Projection(weight) => projected(&weight.on(interval)?),
        Method::Derivative(weight) => derivative::integrated(function, &weight.on(interval)?, degree),
        Method::Taylor { at } => {
            let series = taylor::expand(function, interval, at, degree)?;
            Ok(Fit { series, measure: None, alternation: None })
        }
        Method::Minimax => {
            let (series, alternation) = minimax::exchange(function, interval, degree)?;
            Ok(Fit { series, measure: None, alternation: Some(alternation) })
        }
    }
}
