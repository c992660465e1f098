//! The CPU backends of CryptoDL.
//!
//! [`Reference`] is the oracle: the definitions, written down as plainly as possible. [`Cpu`] is what runs: blocked, parallel
//! kernels, written once over vectors and compiled for several instruction sets ([`Kernels`]), of which the machine's best is
//! chosen at run time. All return the same bits; the conformance suite of `cryptodl-core` says so.
#![deny(unsafe_code)]
#![allow(
    clippy::absurd_extreme_comparisons,
    clippy::out_of_bounds_indexing,
    reason = "`unrolled!` writes out steps with constant indices, and those that its condition then leaves out"
)]

mod ceilings;
mod ciphertext;
mod cpu;
mod kernels;
mod machine;
mod memory;
mod reference;
mod rows;
mod simd;
mod tensor;

pub use cpu::Cpu;
pub use reference::Reference;
pub use rows::Rows;
pub use simd::Kernels;
pub use tensor::{CpuTensor, Place};
