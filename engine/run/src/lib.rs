//! The depth-budget driver, second half: the executor follows a [`cryptodl_program::Program`] and decides nothing.
//!
//! It depends on neither networks nor planning.
#![forbid(unsafe_code)]

mod bands;
mod error;
mod executor;
mod follow;
mod layers;
mod ops;
mod report;

pub use error::RunError;
pub use executor::{Computation, Executor, Masks};
pub use report::{ComputeParts, ComputeReport, LayerTime};

#[cfg(test)]
mod tests;
