//! The CPU backends of CryptoDL.
//!
//! [`Reference`] is the oracle: the definitions, written down as plainly as possible. [`Portable`] is what runs: blocked,
//! parallel kernels in safe Rust that the compiler vectorises for any machine. Both return the same bits; the conformance
//! suite of `cryptodl-core` says so.
#![forbid(unsafe_code)]

mod ceilings;
pub mod kernels;
mod machine;
mod reference;
mod tensor;

pub use kernels::portable::Portable;
pub use reference::Reference;
pub use tensor::{CpuTensor, Place};
