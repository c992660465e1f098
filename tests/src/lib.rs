//! Helpers of the library-level tests: a client and a server in one process, random
//! graphs, and shipped networks in small.
#![forbid(unsafe_code)]

pub mod attack;
mod cut_down;
mod graphs;
mod pipeline;

pub use cut_down::cut_down;
pub use graphs::{random_graph, random_images};
pub use pipeline::{Client, execute, mnist, rms_bits, scores, typical_bits};
