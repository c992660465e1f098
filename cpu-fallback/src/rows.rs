//! Rows of a client with the machine's vectors.

use std::sync::Arc;

use cryptodl_core::ring::{Integers, RnsBasis, RowKernels, Twiddle, UniformSource};

use crate::kernels::elementwise::{AddWords, MultiplyAdd, Signed, SubtractProduct};
use crate::kernels::expand::Expand;
use crate::kernels::ntt::{ForwardNtt, InverseNtt, Tables};
use crate::simd::{Kernels, Simd, with_simd};

/// [`RowKernels`] in vectors.
#[derive(Debug)]
pub struct Rows {
    basis: Arc<RnsBasis>,
    /// By limb.
    tables: Vec<Tables>,
    kernels: Kernels,
}

impl Rows {
    /// Over `basis`, with the machine's best kernels.
    pub fn new(basis: Arc<RnsBasis>) -> Self {
        Self::with_kernels(basis, Kernels::best())
    }

    /// Over `basis`, with the given kernels.
    pub fn with_kernels(basis: Arc<RnsBasis>, kernels: Kernels) -> Self {
        let tables = (0..basis.len()).map(|limb| Tables::new(basis.table(limb))).collect();
        Rows { basis, tables, kernels }
    }
}

impl RowKernels for Rows {
    fn forward(&self, limb: usize, row: &mut [u32]) {
        with_simd!(self.kernels, s => s.run(ForwardNtt(&self.tables[limb], row)));
    }

    fn inverse(&self, limb: usize, row: &mut [u32]) {
        with_simd!(self.kernels, s => s.run(InverseNtt(&self.tables[limb], row)));
    }

    fn expand(&self, source: &UniformSource, object: u32, limb: usize, row: &mut [u32]) {
        let (key, modulus) = (source.key(), self.basis.modulus(limb));
        with_simd!(self.kernels, s => s.run(Expand { key, object, limb: limb as u32, modulus, out: row }));
    }

    fn signed(&self, limb: usize, row: &mut [u32], integers: &[u32]) {
        row.copy_from_slice(integers);
        let modulus = self.basis.modulus(limb);
        with_simd!(self.kernels, s => s.run(Signed { modulus, integer: row }));
    }

    fn add_integers(&self, limb: usize, row: &mut [u32], integers: &Integers, factor: u32) {
        let modulus = self.basis.modulus(limb);
        let times = |by: u64| modulus.mul(modulus.reduce(by), factor);
        let constant = modulus.neg(times(Integers::OFFSET));
        let (low_factor, high_factor) = (Twiddle::new(modulus, factor), Twiddle::new(modulus, times(1 << 32)));
        let Integers { low, high } = integers;
        with_simd!(self.kernels, s => s.run(AddWords { modulus, x: row, low, high, low_factor, high_factor, constant }));
    }

    fn subtract_product(&self, limb: usize, row: &mut [u32], a: &[u32], b: &[u32]) {
        let modulus = self.basis.modulus(limb);
        with_simd!(self.kernels, s => s.run(SubtractProduct { modulus, x: row, a, b }));
    }

    fn multiply_add(&self, limb: usize, row: &mut [u32], a: &[u32], b: &[u32]) {
        let modulus = self.basis.modulus(limb);
        with_simd!(self.kernels, s => s.run(MultiplyAdd { modulus, x: row, a, b }));
    }
}
