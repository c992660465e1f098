//! A Program is what the planner makes of a network and the executor follows: parameters, scales, integer weights, and one list of
//! steps with their operands. It has everything that a server needs, and nothing of the machine.
//!
//! One Program runs three ways: [`plain`] (f64 on the integer weights), [`simulate`] (plain plus the predicted noise), and
//! encrypted (`cryptodl-run`).
#![forbid(unsafe_code)]

mod activation;
mod arrangement;
mod bytes;
mod check;
mod geometry;
mod maps;
mod plain;
mod privacy;
mod program;
mod random;
mod tolerance;

pub use activation::{ActivationStep, Polynomial, PreparedPolynomial};
pub use arrangement::{Arrangement, Product, ProductTrace, SquareForm};
pub use bytes::MAX_PROGRAM_BYTES;
pub use check::{MAX_DEGREE, ProgramError};
pub use geometry::Geometry;
pub use maps::{DiagonalMap, QuantisedMap};
pub use plain::{plain, simulate, sum};
pub use privacy::{CircuitPrivacy, MAX_PRIVACY_BITS, MAX_PRIVACY_SETS, PrivacyGoal};
pub use program::{Content, PlainMap, Program, Salt, ScorePacking, Step, Term, TermMap};
pub use random::SplitMix;
pub use tolerance::{Tolerance, ToleranceError};
