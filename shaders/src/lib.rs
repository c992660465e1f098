//! The GPU kernels of CryptoDL in WGSL, and what a host needs to run them.
//!
//! One kernel is one file in `kernels/`; `shared/` holds the arithmetic. The build composes every [`Variant`] by concatenation,
//! validates it with naga, reflects bindings and sizes into [`Kernel`]s, and compares the structs in [`params`] with the
//! shaders' own, so a bad shader does not build. All variants of a kernel return the same bits, canonical residues in `[0, q)`.
//!
//! # Calling convention
//! Entry point `main`, bind group 0. Binding 0 is the kernel's uniform struct of [`params`], binding 1 the `limbs` table, one
//! [`Limb`](params::Limb) per limb of the dispatch; the rest is listed at each kernel. Tensors are arrays of `u32` in the order
//! `[limb][value][component][lane]`, found through [`View`](params::View)s. Functions in [`groups`] give the number of
//! workgroups; they never exceed 65535 in a dimension, kernels loop over what is beyond.

#![forbid(unsafe_code)]

/// The shaders' own constants, by kernel.
pub mod constants {
    include!(concat!(env!("OUT_DIR"), "/constants.rs"));
}
pub mod groups;
mod kernel;
mod linear;
pub mod params;
mod tables;

pub use kernel::*;
pub use linear::LinearTables;
pub use tables::{Conversion, forward_twiddles, inverse_twiddles};
