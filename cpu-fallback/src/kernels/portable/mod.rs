//! Kernels for any machine: safe Rust in blocks that the compiler vectorises, on the current rayon pool.

mod convert;
mod linear;
mod reduce;
mod slotwise;

use std::ops::Range;
use std::sync::Arc;

use cryptodl_core::backend::{
    Backend, LinearMap, Result, Shape, SlotwiseOp, Window, packed_len, packed_row, slotwise_shape,
};
use cryptodl_core::ckks::UniformSource;
use cryptodl_core::ring::{Modulus, NttTable, RnsBasis, Twiddle, pack_row, unpack_row};
use rayon::prelude::*;

use crate::machine::processor;
use crate::tensor::{CpuTensor, Place};
use reduce::ProductReducer;

/// The portable backend. Uses the threads of the rayon pool in which it is called.
#[derive(Clone, Debug)]
pub struct Portable {
    basis: Arc<RnsBasis>,
}

impl Portable {
    /// A backend over `basis`.
    pub fn new(basis: Arc<RnsBasis>) -> Self {
        Portable { basis }
    }

    fn modulus(&self, x: &Shape, place: Place) -> Modulus {
        self.basis.modulus(x.limbs[place.limb])
    }

    /// Applies `f(modulus, place, row)` to every row.
    fn each_row(&self, x: &mut CpuTensor, f: impl Fn(Modulus, Place, &mut [u32]) + Sync) {
        let shape = x.shape().clone();
        x.par_rows_mut().for_each(|(place, row)| f(self.modulus(&shape, place), place, row));
    }

    /// Transforms every row.
    fn transform(&self, x: &mut CpuTensor, f: impl Fn(&NttTable, &mut [u32]) + Sync) {
        let limbs = x.shape().limbs.clone();
        x.par_rows_mut().for_each(|(place, row)| f(self.basis.table(limbs[place.limb]), row));
    }
}

impl Backend for Portable {
    type Tensor = CpuTensor;

    fn name(&self) -> &'static str {
        "cpu"
    }

    fn kernels(&self) -> &'static str {
        "portable"
    }

    fn device(&self) -> String {
        processor()
    }

    fn basis(&self) -> &Arc<RnsBasis> {
        &self.basis
    }

    fn shape<'a>(&self, x: &'a CpuTensor) -> &'a Shape {
        x.shape()
    }

    fn zeros(&self, shape: Shape) -> Result<CpuTensor> {
        CpuTensor::zeros(shape)
    }

    fn upload(&self, shape: Shape, residues: &[u32]) -> Result<CpuTensor> {
        CpuTensor::from_residues(shape, residues)
    }

    fn download(&self, x: &CpuTensor) -> Result<Vec<u32>> {
        Ok(x.residues().to_vec())
    }

    fn copy(&self, x: &CpuTensor, from: &Window, out: &mut CpuTensor, to: &Window) -> Result<()> {
        x.copy(from, out, to);
        Ok(())
    }

    fn unpack(&self, packed: &[u8], out: &mut CpuTensor, component: usize) -> Result<bool> {
        let shape = out.shape().clone();
        assert_eq!((packed.len(), shape.lanes), (packed_len(&self.basis, &shape), self.basis.n()), "packed rows");
        let mut rest = packed;
        let blocks: Vec<&[u8]> = (shape.limbs.iter())
            .map(|&limb| {
                rest.split_off(..shape.values * packed_row(&self.basis, limb)).expect("the length was checked")
            })
            .collect();
        let rows = out.par_rows_mut().filter(|(place, _)| place.component == component);
        Ok(rows.all(|(place, row)| {
            let (m, len) = (self.modulus(&shape, place), packed_row(&self.basis, shape.limbs[place.limb]));
            unpack_row(&blocks[place.limb][place.value * len..][..len], m.bits(), row);
            row.iter().fold(0, |largest, &residue| largest.max(residue)) < m.value()
        }))
    }

    fn pack(&self, x: &CpuTensor, component: usize) -> Result<Vec<u8>> {
        let shape = x.shape();
        assert_eq!(shape.lanes, self.basis.n(), "whole polynomials");
        let mut packed = vec![0; packed_len(&self.basis, shape)];
        let mut rest = &mut packed[..];
        for (limb, &index) in shape.limbs.iter().enumerate() {
            let (bits, len) = (self.basis.modulus(index).bits(), packed_row(&self.basis, index));
            let block = rest.split_off_mut(..shape.values * len).expect("the lengths add up");
            block.par_chunks_exact_mut(len).enumerate().for_each(|(value, bytes)| {
                pack_row(x.row(Place { limb, value, component }), bits, bytes);
            });
        }
        Ok(packed)
    }

    fn expand(&self, source: &UniformSource, first_object: u32, out: &mut CpuTensor, component: usize) -> Result<()> {
        let limbs = out.shape().limbs.clone();
        self.each_row(out, |m, place, row| {
            if place.component == component {
                source.fill(first_object + place.value as u32, limbs[place.limb] as u32, m, 0, row);
            }
        });
        Ok(())
    }

    fn linear(&self, map: &LinearMap, x: &CpuTensor) -> Result<CpuTensor> {
        let ops = [SlotwiseOp::Linear(map)];
        let mut out = CpuTensor::zeros(slotwise_shape(&ops, x.shape()))?;
        slotwise::run(&self.basis, &ops, x, 0..x.shape().lanes, &mut out);
        Ok(out)
    }

    fn multiply(&self, a: &CpuTensor, b: &CpuTensor) -> Result<CpuTensor> {
        let (left, right) = (a.shape(), b.shape());
        assert_eq!(left, &Shape { components: left.components, ..right.clone() }, "factors");
        let components = left.components + right.components - 1;
        let mut out = CpuTensor::zeros(Shape { components, ..left.clone() })?;
        let of = |x: &Shape| x.components * x.lanes;
        let factors = a.residues().par_chunks_exact(of(left)).zip(b.residues().par_chunks_exact(of(right)));
        let products = out.residues_mut().par_chunks_exact_mut(components * left.lanes);
        products.zip(factors).enumerate().for_each(|(index, (product, (a, b)))| {
            let modulus = self.basis.modulus(left.limbs[index / left.values]);
            ProductReducer::new(modulus).multiply(a, b, left.lanes, product);
        });
        Ok(out)
    }

    fn add_constant(&self, x: &mut CpuTensor, constants: &[u32]) -> Result<()> {
        assert_eq!(constants.len(), x.shape().limbs.len(), "one constant per limb");
        self.each_row(x, |m, place, row| {
            if place.component == 0 {
                row.iter_mut().for_each(|x| *x = m.add(*x, constants[place.limb]));
            }
        });
        Ok(())
    }

    fn scale(&self, x: &mut CpuTensor, factors: &[u32]) -> Result<()> {
        assert_eq!(factors.len(), x.shape().limbs.len(), "one factor per limb");
        self.each_row(x, |m, place, row| {
            let factor = Twiddle::new(m, factors[place.limb]);
            row.iter_mut().for_each(|x| *x = canonical(m, factor.mul_lazy(m, *x)));
        });
        Ok(())
    }

    fn add(&self, x: &mut CpuTensor, y: &CpuTensor) -> Result<()> {
        assert_eq!(x.shape(), y.shape(), "summands");
        self.each_row(x, |m, place, row| row.iter_mut().zip(y.row(place)).for_each(|(x, &y)| *x = m.add(*x, y)));
        Ok(())
    }

    fn subtract_scale(&self, x: &mut CpuTensor, y: &CpuTensor, factors: &[u32]) -> Result<()> {
        assert_eq!(x.shape(), y.shape(), "operands of a difference");
        assert_eq!(factors.len(), x.shape().limbs.len(), "one factor per limb");
        self.each_row(x, |m, place, row| {
            let factor = Twiddle::new(m, factors[place.limb]);
            let pairs = row.iter_mut().zip(y.row(place));
            // The product takes any u32, so the difference stays unreduced in (0, 2q).
            pairs.for_each(|(x, &y)| *x = canonical(m, factor.mul_lazy(m, *x + m.value() - y)));
        });
        Ok(())
    }

    fn accumulate_key(&self, acc: &mut CpuTensor, digit: &CpuTensor, key: &CpuTensor, row: usize) -> Result<()> {
        let expected = Shape { components: 1, ..acc.shape().clone() };
        assert_eq!((digit.shape(), acc.shape().components, key.shape().components), (&expected, 2, 2), "key switch");
        let in_key = |limb| key.shape().limbs.iter().position(|l| l == limb).expect("the key has every limb");
        let key_limbs: Vec<usize> = acc.shape().limbs.iter().map(in_key).collect();
        self.each_row(acc, |m, place, sums| {
            let key = key.row(Place { limb: key_limbs[place.limb], value: row, ..place });
            ProductReducer::new(m).add_products(sums, digit.row(Place { component: 0, ..place }), key);
        });
        Ok(())
    }

    fn forward_ntt(&self, x: &mut CpuTensor) -> Result<()> {
        self.transform(x, NttTable::forward);
        Ok(())
    }

    fn inverse_ntt(&self, x: &mut CpuTensor) -> Result<()> {
        self.transform(x, NttTable::inverse);
        Ok(())
    }

    fn convert_centred(&self, x: &CpuTensor, limbs: &[usize]) -> Result<CpuTensor> {
        let mut out = CpuTensor::zeros(Shape { limbs: limbs.to_vec(), ..x.shape().clone() })?;
        convert::convert_centred(&self.basis, x, &mut out);
        Ok(out)
    }

    fn synchronise(&self) -> Result<()> {
        Ok(())
    }

    fn slotwise(&self, ops: &[SlotwiseOp<'_>], x: &CpuTensor, lanes: Range<usize>, out: &mut CpuTensor) -> Result<()> {
        slotwise::run(&self.basis, ops, x, lanes, out);
        Ok(())
    }
}

/// `[0, 2q)` to `[0, q)`.
#[inline(always)]
fn canonical(m: Modulus, x: u32) -> u32 {
    x.min(x.wrapping_sub(m.value()))
}
