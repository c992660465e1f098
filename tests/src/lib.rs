//! Helpers of the library-level tests: a client and a server in one process, and random graphs.
#![forbid(unsafe_code)]

pub mod attack;
mod graphs;
mod pipeline;

pub use graphs::{random_graph, random_images};
pub use pipeline::{Client, execute, mnist, rms_bits, scores, typical_bits};
