//! Measures: where an approximation is to be good.

use std::f64::consts::PI;

use serde::Serialize;

use crate::quadrature::Chart;
use crate::{Activation, Error, Function, Interval, Quadrature};

/// A finite measure on a bounded interval, normalised to mass 1 where it is integrated.
pub trait Measure {
    /// The interval that carries it.
    fn support(&self) -> Interval;

    /// Density with respect to `dx`, up to a constant factor; infinite where it is singular, and nothing for a measure of
    /// single points.
    fn weight(&self, x: f64) -> Option<f64>;

    /// Nodes and weights that integrate `function` times polynomials of degree `2 degree`.
    ///
    /// # Errors
    /// [`Error::NotFinite`], [`Error::Unresolved`], [`Error::TooFewSamples`].
    fn quadrature(&self, function: &Function, degree: usize) -> Result<Quadrature, Error>;
}

/// A measure given by its density on an interval, by the names of the orthogonal polynomials that it defines.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "weight")]
pub enum Weight {
    /// `dx`.
    Legendre,
    /// `dx / (l sqrt(1 - (x/l)^2))` on [-l, l] (CryptoDL, sections 3.2, method 3, and 3.3), mapped affinely to other intervals.
    Chebyshev,
    /// `exp(-1 / (1e-5 + x^2)) dx`, in the units of `x` (CryptoDL, section 3.2, method 4): no weight where ReLU bends.
    ModifiedRelu,
    /// `exp(-(l/x)^2) dx` on [-l, l] (CryptoDL, section 3.3), mapped affinely to other intervals: no weight in the middle.
    ModifiedSigmoid,
    /// `exp(-(x - m)^2 / (2 sigma^2)) dx` with `m` the centre of the interval: inputs after batch normalisation. Its
    /// polynomials are those of Hermite as the interval grows.
    Gaussian {
        /// Standard deviation, in the units of `x`; a third of the half-length if it is not given.
        sigma: Option<f64>,
    },
}

impl Weight {
    /// The modified Chebyshev measure that CryptoDL uses for `function`: [`Weight::ModifiedSigmoid`] for Sigmoid and Tanh (section
    /// 3.3), [`Weight::ModifiedRelu`] for ReLU (section 3.2) and for everything else, which the paper leaves open.
    pub fn modified(function: &Function) -> Self {
        match function.activation() {
            Some(Activation::Sigmoid | Activation::Tanh) => Weight::ModifiedSigmoid,
            _ => Weight::ModifiedRelu,
        }
    }

    /// The measure on `interval`.
    ///
    /// # Errors
    /// [`Error::Sigma`].
    pub fn on(self, interval: Interval) -> Result<WeightedMeasure, Error> {
        match self {
            Weight::Gaussian { sigma: Some(sigma) } if !(sigma.is_finite() && sigma > 0.0) => {
                Err(Error::Sigma { sigma })
            }
            _ => Ok(WeightedMeasure { weight: self, interval }),
        }
    }
}

/// A [`Weight`] on an interval.
#[derive(Clone, Copy, Debug)]
pub struct WeightedMeasure {
    weight: Weight,
    interval: Interval,
}

impl WeightedMeasure {
    fn sigma(&self, sigma: Option<f64>) -> f64 {
        sigma.unwrap_or(self.interval.half_length() / 3.0)
    }

    /// Points between which the weight is smooth on the scale of their distance.
    fn breaks(&self) -> Vec<f64> {
        let around = |centre: f64, scale: f64| -> Vec<f64> {
            let steps = (0..).map(|k| scale * libm::scalbn(1.0, 2 * k));
            let inside = steps.take_while(|step| *step < 2.0 * self.interval.magnitude());
            std::iter::once(centre).chain(inside.flat_map(|step| [centre - step, centre + step])).collect()
        };
        match self.weight {
            Weight::Legendre | Weight::Chebyshev => Vec::new(),
            Weight::ModifiedRelu => around(0.0, 1.0 / 64.0),
            Weight::ModifiedSigmoid => vec![self.interval.centre()],
            Weight::Gaussian { sigma } => around(self.interval.centre(), self.sigma(sigma)),
        }
    }
}

impl Measure for WeightedMeasure {
    fn support(&self) -> Interval {
        self.interval
    }

    fn weight(&self, x: f64) -> Option<f64> {
        let t = self.interval.to_unit(x);
        Some(match self.weight {
            _ if !self.interval.contains(x) => 0.0,
            Weight::Legendre => 1.0,
            Weight::Chebyshev => 1.0 / libm::sqrt((1.0 - t) * (1.0 + t)),
            // Divided by the largest value, which a short interval would make vanish.
            Weight::ModifiedRelu => {
                let magnitude = self.interval.magnitude();
                libm::exp(1.0 / (1e-5 + magnitude * magnitude) - 1.0 / (1e-5 + x * x))
            }
            Weight::ModifiedSigmoid => libm::exp(1.0 - 1.0 / (t * t)),
            Weight::Gaussian { sigma } => {
                let z = (x - self.interval.centre()) / self.sigma(sigma);
                libm::exp(-0.5 * z * z)
            }
        })
    }

    fn quadrature(&self, function: &Function, degree: usize) -> Result<Quadrature, Error> {
        let interval = self.interval;
        let splits = interval.split_at(&[self.breaks(), function.breaks(interval)].concat());
        if self.weight == Weight::Chebyshev {
            // x = -cos s makes the density constant. The ends are exact, whatever the map to [-1, 1] rounds.
            let inner = splits[1..splits.len() - 1].iter().map(|&x| libm::acos(-interval.to_unit(x)));
            let splits: Vec<f64> = std::iter::once(0.0).chain(inner).chain([PI]).collect();
            let map = |s: f64| (interval.from_unit(-libm::cos(s)), 1.0);
            return Chart { splits, map: &map }.quadrature(function, interval, degree);
        }
        let map = |x: f64| (x, self.weight(x).unwrap_or(0.0));
        Chart { splits, map: &map }.quadrature(function, interval, degree)
    }
}

/// Equal weight on single points.
#[derive(Clone, Debug)]
pub struct Points {
    interval: Interval,
    x: Vec<f64>,
}

impl Points {
    /// The samples inside `interval`, or `count` points at equal distances for a function without samples.
    pub fn new(function: &Function, interval: Interval, count: usize) -> Self {
        let x = match function.samples() {
            Some(samples) => samples.x().iter().copied().filter(|&x| interval.contains(x)).collect(),
            None => {
                (0..count).map(|i| interval.from_unit((2.0 * i as f64 / (count.max(2) - 1) as f64) - 1.0)).collect()
            }
        };
        Points { interval, x }
    }
}

impl Measure for Points {
    fn support(&self) -> Interval {
        self.interval
    }

    fn weight(&self, _: f64) -> Option<f64> {
        None
    }

    fn quadrature(&self, function: &Function, degree: usize) -> Result<Quadrature, Error> {
        if self.x.len() <= degree {
            return Err(Error::TooFewSamples { found: self.x.len(), needed: degree + 1 });
        }
        self.x.iter().try_for_each(|&x| function.finite(x).map(drop))?;
        Ok(Quadrature::normalised(&self.x, &vec![1.0; self.x.len()]))
    }
}
