//! The depth-budget driver, second half: the executor follows a [`cryptodl_program::Program`] and decides nothing.
//!
//! It depends on neither networks nor planning.
#![forbid(unsafe_code)]

mod bands;
mod checkpoint;
mod error;
mod execution;
mod execution_plan;
mod executor;
mod ops;
mod report;
mod scores;

pub use checkpoint::{Checkpoint, CheckpointError, KeysDigest, Request, Thrift};
pub use error::RunError;
pub use executor::{Computation, Executor, ExpandedKeys, Rerandomisation, least_memory_budget};
pub use report::{ComputeParts, ComputeReport, SegmentTime};

#[cfg(test)]
mod tests;
