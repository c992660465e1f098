//! Kernels and whole models against what the machine allows, measured in one run, for every backend alike.
//!
//! What computes something else than the reference is an error, not a time. Models are timed as
//! `run` does it, with their accuracy, and in turns with plaintext PyTorch where that is at hand.

mod alternatives;
mod calibrate;
mod cases;
mod client;
mod kernels;
mod models;
mod operands;
mod plots;
mod published;
mod pytorch;
mod report;

pub use alternatives::Alternatives;
pub use calibrate::Calibration;
pub use cases::{Shipped, programs, transforms};
pub use client::client;
pub use kernels::Bench;
pub use models::{EndToEnd, Limits, end_to_end};
pub use plots::draw;
pub use pytorch::Peer;
pub use report::Report;
