//! What is approximated.

mod activation;
mod samples;

use std::fmt;
use std::sync::Arc;

pub use activation::Activation;
pub use samples::Samples;

use crate::{Error, Interval};

type Real = Arc<dyn Fn(f64) -> f64 + Send + Sync>;

/// A real function of one variable, with what the methods need to know of it.
#[derive(Clone)]
pub struct Function {
    name: String,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Activation(Activation),
    Closure { value: Real, derivative: Option<Real>, breaks: Vec<f64> },
    Samples(Samples),
    Derivative(Box<Function>),
}

impl Function {
    /// Any function; it must be finite on the interval of approximation.
    pub fn new(name: impl Into<String>, value: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Self {
        Function {
            name: name.into(),
            kind: Kind::Closure { value: Arc::new(value), derivative: None, breaks: Vec::new() },
        }
    }

    /// Points between which the function is smooth, such as kinks and steps. Quadrature and the search for extrema work
    /// between them; undeclared ones cost time and digits. Only for a function made by [`Self::new`]; others know theirs.
    pub fn with_breaks(mut self, points: &[f64]) -> Self {
        if let Kind::Closure { breaks, .. } = &mut self.kind {
            *breaks = points.to_vec();
        }
        self
    }

    /// The derivative, for the derivative method and derivative errors. Only for a function made by [`Self::new`].
    pub fn with_derivative(mut self, function: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Self {
        if let Kind::Closure { derivative, .. } = &mut self.kind {
            *derivative = Some(Arc::new(function));
        }
        self
    }

    /// Measured points. Method `numerical` fits the points themselves; others fit the monotone cubic through them.
    pub fn sampled(name: impl Into<String>, samples: Samples) -> Self {
        Function { name: name.into(), kind: Kind::Samples(samples) }
    }

    /// For errors and reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The activation, if it is one of the named ones.
    pub fn activation(&self) -> Option<Activation> {
        match self.kind {
            Kind::Activation(activation) => Some(activation),
            _ => None,
        }
    }

    /// The samples, if that is what it is.
    pub fn samples(&self) -> Option<&Samples> {
        match &self.kind {
            Kind::Samples(samples) => Some(samples),
            _ => None,
        }
    }

    /// The value at `x`.
    pub fn value(&self, x: f64) -> f64 {
        match &self.kind {
            Kind::Activation(activation) => activation.value(x),
            Kind::Closure { value, .. } => value(x),
            Kind::Samples(samples) => samples.value(x),
            Kind::Derivative(function) => function.derivative(x).unwrap_or(f64::NAN),
        }
    }

    /// The derivative at `x`, if it is known; at a kink the mean of both sides.
    pub fn derivative(&self, x: f64) -> Option<f64> {
        match &self.kind {
            Kind::Activation(activation) => Some(activation.derivative(x)),
            Kind::Closure { derivative, .. } => derivative.as_ref().map(|derivative| derivative(x)),
            Kind::Samples(samples) => Some(samples.derivative(x)),
            Kind::Derivative(_) => None,
        }
    }

    /// Whether [`Self::derivative`] knows it.
    pub fn has_derivative(&self) -> bool {
        !matches!(self.kind, Kind::Closure { derivative: None, .. } | Kind::Derivative(_))
    }

    /// The derivative as a function, if it is known.
    pub(crate) fn derivative_function(&self) -> Option<Function> {
        let kind = Kind::Derivative(Box::new(self.clone()));
        self.has_derivative().then(|| Function { name: format!("the derivative of {}", self.name), kind })
    }

    /// Points inside `interval` between which the function is smooth on the scale of their distance.
    pub(crate) fn breaks(&self, interval: Interval) -> Vec<f64> {
        match &self.kind {
            Kind::Activation(activation) => activation.breaks(interval),
            Kind::Closure { breaks, .. } => breaks.clone(),
            Kind::Samples(samples) => samples.x().to_vec(),
            Kind::Derivative(function) => function.breaks(interval),
        }
    }

    /// Checks that the function is finite at the ends, in the middle and on a grid of `interval`.
    pub(crate) fn check(&self, interval: Interval) -> Result<(), Error> {
        if let Kind::Samples(samples) = &self.kind {
            let (low, high) = samples.range();
            if interval.low() < low || interval.high() > high {
                return Err(Error::OutsideSamples { low, high });
            }
        }
        const GRID: usize = 1024;
        let point = |i| interval.from_unit(2.0 * i as f64 / GRID as f64 - 1.0);
        (0..=GRID).map(point).try_for_each(|x| self.finite(x).map(drop))
    }

    /// The value at `x`.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(crate) fn finite(&self, x: f64) -> Result<f64, Error> {
        let value = self.value(x);
        let failed = || Error::NotFinite { function: self.name.clone(), x, value };
        value.is_finite().then_some(value).ok_or_else(failed)
    }
}

impl From<Activation> for Function {
    fn from(activation: Activation) -> Self {
        Function { name: activation.name().into(), kind: Kind::Activation(activation) }
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Function").field(&self.name).finish()
    }
}
