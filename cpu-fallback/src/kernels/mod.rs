//! Kernels by instruction set. [`portable`] runs everywhere.

pub mod portable;
