//! The depth-budget driver, second half: the executor follows a [`crate::plan::Program`] and decides nothing.
//!
//! One Program runs three ways: [`plain`] (f64 on the quantised weights), [`simulate`] (plain plus the predicted noise), and
//! encrypted ([`Executor`]).

mod error;
mod executor;
mod plain;
#[cfg(test)]
mod tests;

pub use error::RunError;
pub use executor::{ComputeParts, ComputeReport, Executor, LayerTime, Masks, Progress};
pub use plain::{plain, simulate};
