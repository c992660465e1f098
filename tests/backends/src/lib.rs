//! Backends around others, for tests: [`Faulty`] is wrong on purpose, [`Metered`] counts.
#![forbid(unsafe_code)]

#[macro_use]
mod forward;
mod faulty;
mod metered;

pub use faulty::{Fault, Faulty};
pub use metered::{Counts, Metered};
