//! The trained networks that ship inside the program, and networks loaded by name or from files.
//!
//! Shipped networks lie in `trained/`, written by `models/train`. Without the feature
//! `every-network` only `mnist-1` and `mnist-2` are inside.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod error;
mod load;
mod shipped;

pub use error::LoadError;
pub use load::{load, load_file, weights};
pub use shipped::names;
