//! Which low-degree polynomial replaces an activation, and what that costs.
//!
//! Under leveled homomorphic encryption a network may add and multiply only, so activations become polynomials. This crate
//! finds them by the five methods of CryptoDL (Hesamifard, Takabi, Ghasemi, 2017, section 3) and by the classical ones
//! beside them, for any function, degree and interval; it reports the errors and the depth of each choice, and gives
//! coefficients only where they are numerically stable.
//!
//! ```
//! use cryptodl_approx::{Activation, Approximation, Interval, Method, Weight};
//!
//! let interval = Interval::symmetric(4.0)?;
//! let relu = Approximation::new(&Activation::Relu.into(), interval, Method::Projection(Weight::Chebyshev), 2)?;
//! let [a0, a1, a2] = relu.monomial()?.coefficients[..] else { panic!("degree 2") };
//! // (x + |x|) / 2 with |x| = 4 (2/pi + 4/(3 pi) T_2(x/4) - ...)
//! assert!((a0 - 4.0 / (3.0 * std::f64::consts::PI)).abs() < 1e-14);
//! assert!((a1 - 0.5).abs() < 1e-14);
//! assert!((a2 - 1.0 / (3.0 * std::f64::consts::PI)).abs() < 1e-14);
//! # Ok::<(), cryptodl_approx::Error>(())
//! ```
//!
//! All results are computed with IEEE operations and `libm` only, so they are the same on every machine.
#![forbid(unsafe_code)]

mod approximation;
mod cost;
mod error;
mod extrema;
mod function;
mod interval;
mod measure;
mod methods;
mod monomial;
mod orthogonal;
mod quadrature;
mod series;

pub use approximation::{Approximation, Errors, MAX_DEGREE};
pub use cost::{Circuit, Cost};
pub use error::Error;
pub use function::{Activation, Function, Samples};
pub use interval::Interval;
pub use measure::{Measure, Points, Weight, WeightedMeasure};
pub use methods::{Alternation, DEFAULT_POINTS, Method};
pub use monomial::{MAX_LOST_BITS, Monomial};
pub use orthogonal::orthogonal_polynomials;
pub use quadrature::{Quadrature, gauss_legendre};
pub use series::{Recurrence, Series};

pub(crate) use approximation::check_degree;
