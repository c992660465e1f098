//! The activations that networks use: values, derivatives and Taylor series.

use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::fmt;
use std::str::FromStr;

use crate::{Error, Interval};

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `max(0, x)`.
    Relu,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `tanh x`.
    Tanh,
    /// `x sigmoid(x)`, also called SiLU.
    Swish,
    /// `ln(1 + e^x)`, whose derivative is the sigmoid.
    Softplus,
    /// `x Phi(x)` with the distribution function `Phi` of the standard normal law; the exact form, by the error function.
    Gelu,
}

impl Activation {
    /// All of them.
    pub const ALL: [Activation; 6] = [
        Activation::Relu,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Swish,
        Activation::Softplus,
        Activation::Gelu,
    ];

    /// The name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Relu => "relu",
            Activation::Sigmoid => "sigmoid",
            Activation::Tanh => "tanh",
            Activation::Swish => "swish",
            Activation::Softplus => "softplus",
            Activation::Gelu => "gelu",
        }
    }

    /// The value at `x`, within a few units in the last place.
    pub fn value(self, x: f64) -> f64 {
        match self {
            Activation::Relu => x.max(0.0),
            Activation::Sigmoid => sigmoid(x),
            Activation::Tanh => libm::tanh(x),
            Activation::Swish => x * sigmoid(x),
            Activation::Softplus => x.max(0.0) + libm::log1p(libm::exp(-x.abs())),
            Activation::Gelu => x * normal_distribution(x),
        }
    }

    /// The derivative at `x`; 1/2 for ReLU at 0.
    pub fn derivative(self, x: f64) -> f64 {
        match self {
            Activation::Relu => {
                if x == 0.0 {
                    0.5
                } else {
                    f64::from(x > 0.0)
                }
            }
            Activation::Sigmoid => sigmoid(x) * sigmoid(-x),
            Activation::Tanh => 4.0 * sigmoid(2.0 * x) * sigmoid(-2.0 * x),
            Activation::Swish => sigmoid(x) * (1.0 + x * sigmoid(-x)),
            Activation::Softplus => sigmoid(x),
            Activation::Gelu => normal_distribution(x) + x * normal_density(x),
        }
    }

    /// Coefficients of `(x - at)^0, ..., (x - at)^degree` of the Taylor series at `at`, or nothing where there is no
    /// series: ReLU at 0. From the differential equations of the functions, term by term (Griewank and Walther, Evaluating
    /// Derivatives, 2008, chapter 13).
    pub fn taylor(self, at: f64, degree: usize) -> Option<Vec<f64>> {
        let line =
            |f: f64, df: f64| [f, df].into_iter().chain(std::iter::repeat(0.0)).take(degree + 1).collect::<Vec<_>>();
        Some(match self {
            Activation::Relu if at == 0.0 => return None,
            Activation::Relu => line(self.value(at), self.derivative(at)),
            // s' = s (1 - s)
            Activation::Sigmoid => logistic(sigmoid(at), degree, 1.0, |s, k| s[k] - convolution(s, s, k)),
            // t' = 1 - t^2
            Activation::Tanh => logistic(libm::tanh(at), degree, 1.0, |t, k| f64::from(k == 0) - convolution(t, t, k)),
            Activation::Swish => product(&line(at, 1.0), &Activation::Sigmoid.taylor(at, degree)?),
            Activation::Softplus => integral(self.value(at), &Activation::Sigmoid.taylor(at, degree)?),
            Activation::Gelu => {
                // d' = -x d for the density d of the normal law
                let density =
                    logistic(normal_density(at), degree, -1.0, |d, k| at * d[k] + if k > 0 { d[k - 1] } else { 0.0 });
                product(&line(at, 1.0), &integral(normal_distribution(at), &density))
            }
        })
    }

    /// Kinks, and points around 0 in steps that grow with the distance: the curvature sits near 0, whatever the interval.
    pub(crate) fn breaks(self, interval: Interval) -> Vec<f64> {
        let distances = match self {
            Activation::Relu => 0,
            _ => (0..).take_while(|&k| libm::scalbn(1.0, 2 * k) < interval.magnitude()).count() as i32,
        };
        let both = |k| [-libm::scalbn(1.0, 2 * k), libm::scalbn(1.0, 2 * k)];
        std::iter::once(0.0).chain((0..distances).flat_map(both)).collect()
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Activation {
    type Err = Error;

    /// By name; `silu` is Swish.
    fn from_str(name: &str) -> Result<Self, Error> {
        let name = if name == "silu" { "swish" } else { name };
        let found = Activation::ALL.into_iter().find(|activation| activation.name() == name);
        found.ok_or_else(|| Error::UnknownFunction { name: name.into() })
    }
}

/// Without overflow, and without cancellation on either side.
pub(crate) fn sigmoid(x: f64) -> f64 {
    let e = libm::exp(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

fn normal_distribution(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

fn normal_density(x: f64) -> f64 {
    libm::exp(-0.5 * x * x) / libm::sqrt(2.0 * PI)
}

/// The series `u` with `u_0 = first` and `u' = sign right(u, k)` in the coefficient of degree `k`.
fn logistic(first: f64, degree: usize, sign: f64, right: impl Fn(&[f64], usize) -> f64) -> Vec<f64> {
    let mut u = vec![first];
    for k in 0..degree {
        u.push(sign * right(&u, k) / (k + 1) as f64);
    }
    u
}

fn convolution(u: &[f64], v: &[f64], k: usize) -> f64 {
    (0..=k).map(|i| u[i] * v[k - i]).sum()
}

fn product(u: &[f64], v: &[f64]) -> Vec<f64> {
    (0..u.len()).map(|k| convolution(u, v, k)).collect()
}

/// The antiderivative with value `first`, as long as `u`.
fn integral(first: f64, u: &[f64]) -> Vec<f64> {
    let terms = u[..u.len() - 1].iter().enumerate().map(|(k, u)| u / (k + 1) as f64);
    std::iter::once(first).chain(terms).collect()
}
