//! Kernels, each written once over the vectors of [`crate::simd`].

pub(crate) mod convert;
pub(crate) mod elementwise;
pub(crate) mod expand;
pub(crate) mod linear;
pub(crate) mod ntt;
pub(crate) mod reduce;
pub(crate) mod slotwise;
