//! Helpers of the library-level tests: a client and a server in one process, and a backend that counts.
#![forbid(unsafe_code)]

pub mod attack;
mod graphs;
mod metered;
mod pipeline;

pub use graphs::{random_graph, random_images};
pub use metered::{Counts, Metered};
pub use pipeline::{Client, execute, mnist, rms_bits, scores, typical_bits};
