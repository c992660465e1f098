//! The depth-budget driver, second half: the executor follows a [`crate::plan::Program`] and decides nothing.
//!
//! One Program runs three ways: [`plain`] (f64 on the quantised weights), [`simulate`] (plain plus the predicted noise), and
//! encrypted ([`Executor`]).

mod bands;
mod error;
mod executor;
mod follow;
mod layers;
mod ops;
mod plain;
mod report;
#[cfg(test)]
mod tests;

pub use error::RunError;
pub use executor::{Computation, Executor, Masks};
pub use plain::{plain, simulate};
pub use report::{ComputeParts, ComputeReport, LayerTime, Progress};
