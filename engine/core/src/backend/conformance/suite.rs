//! Running calls on both backends, and the operands they get.

use super::call::{Call, Host, Key, equal};
use super::random::Random;
use super::{Cause, Check, Failure};
use crate::backend::{Backend, Horner, LinearMap, PADDING, PatersonStockmeyer, RelinLayout, Shape};
use crate::ring::RnsBasis;

/// The two backends, the source of inputs, and what passed so far.
pub(super) struct Suite<'a, R, C> {
    pub(super) reference: &'a R,
    pub(super) candidate: &'a C,
    pub(super) random: Random,
    pub(super) progress: &'a mut dyn FnMut(&Check),
    pub(super) passed: Vec<Check>,
}

impl<R: Backend, C: Backend> Suite<'_, R, C> {
    /// Runs one call on both backends and compares.
    pub(super) fn check(&mut self, case: impl Into<String>, call: Call<'_>) -> Result<(), Failure> {
        let (operation, shape) = call.describe();
        let check = Check { operation, case: case.into(), shape: shape.clone() };
        if let Err(cause) = self.agree(&call) {
            return Err(Failure { check: Box::new(check), cause });
        }
        (self.progress)(&check);
        self.passed.push(check);
        Ok(())
    }

    fn agree(&self, call: &Call<'_>) -> Result<(), Cause> {
        equal(&call.run(self.reference)?, &call.run(self.candidate)?)
    }

    pub(super) fn basis(&self) -> &RnsBasis {
        self.reference.basis()
    }

    pub(super) fn n(&self) -> usize {
        self.basis().n()
    }

    /// Lanes of slot-wise operands: one, odd numbers, and all.
    pub(super) fn lane_counts(&self) -> [usize; 4] {
        [1, 13, self.n().min(67), self.n()]
    }

    pub(super) fn random(&mut self, limbs: &[usize], values: usize, components: usize, lanes: usize) -> Host {
        let shape = Shape { limbs: limbs.to_vec(), values, components, lanes };
        let (basis, random) = (self.reference.basis(), &mut self.random);
        let limb = |&limb: &usize| {
            let q = basis.modulus(limb).value();
            (0..shape.limb_len()).map(|_| random.residue(q)).collect::<Vec<_>>()
        };
        let residues = limbs.iter().flat_map(limb).collect();
        Host { shape, residues }
    }

    /// The largest residues everywhere.
    pub(super) fn largest(&self, limbs: &[usize], values: usize, components: usize, lanes: usize) -> Host {
        let shape = Shape { limbs: limbs.to_vec(), values, components, lanes };
        let limb = |&limb: &usize| vec![self.basis().modulus(limb).value() - 1; shape.limb_len()];
        let residues = limbs.iter().flat_map(limb).collect();
        Host { shape, residues }
    }

    /// Random and largest operands of one shape, with a word for each.
    pub(super) fn operands(
        &mut self,
        limbs: &[usize],
        values: usize,
        components: usize,
        lanes: usize,
    ) -> [(&'static str, Host); 2] {
        let random = self.random(limbs, values, components, lanes);
        [("random residues", random), ("largest residues", self.largest(limbs, values, components, lanes))]
    }

    /// Canonical residues `[limb][channel]`.
    pub(super) fn factors(&mut self, limbs: &[usize], channels: usize) -> Vec<u32> {
        self.random(limbs, channels, 1, 1).residues
    }

    /// A monic polynomial in Horner's arrangement, with constants `[product][channel]`.
    pub(super) fn horner(&mut self, degree: usize, negate: bool, channels: usize) -> Horner {
        let constants: Vec<f64> = (0..degree * channels).map(|_| self.random.constant()).collect();
        Horner::per_channel(self.basis(), negate, channels, &constants)
    }

    /// A monic polynomial in the arrangement with fewer products.
    pub(super) fn paterson_stockmeyer(&mut self, degree: usize, negate: bool, channels: usize) -> PatersonStockmeyer {
        let mut numbers =
            |count: usize| -> Vec<f64> { (0..count * channels).map(|_| self.random.constant()).collect() };
        let products = degree.div_ceil(2);
        let (shift, constants, multiples) = (numbers(1), numbers(products), numbers(products - 1));
        PatersonStockmeyer::per_channel(self.basis(), negate, degree % 2 == 1, &shift, &constants, &multiples)
    }

    /// A random map; every `padding`-th index is padding if that is not 0.
    pub(super) fn map(
        &mut self,
        [inputs, rows, taps, positions]: [usize; 4],
        groups: usize,
        padding: usize,
    ) -> LinearMap {
        let stride = if groups > 1 { inputs / groups } else { 0 };
        let reach = inputs - (groups - 1) * stride;
        let weights = (0..rows * taps).map(|_| self.random.weight()).collect();
        let gather = (1..=positions * taps)
            .map(|i| if padding > 0 && i % padding == 0 { PADDING } else { self.random.below(reach as u64) as u32 })
            .collect();
        let constants: Vec<f64> = (0..rows).map(|_| self.random.constant()).collect();
        LinearMap::new(self.basis(), inputs, rows, taps, groups, stride as u32, weights, gather, &constants)
            .expect("a map that fits")
    }

    /// Coefficients `(D-1)/2 - 2, ..., (D-1)/2 + 2` over and over, `D` the product of the primes.
    pub(super) fn around_half(&self, limbs: &[usize]) -> Host {
        let n = self.n();
        let shape = Shape { limbs: limbs.to_vec(), values: 1, components: 1, lanes: n };
        // D is 0 modulo each prime, so (D-1)/2 is -1/2.
        let limb = |&limb: &usize| {
            let m = self.basis().modulus(limb);
            let half = m.neg(m.inv(2));
            (0..n as i64).map(move |j| m.add(half, m.reduce_signed(j % 5 - 2)))
        };
        let residues = limbs.iter().flat_map(limb).collect();
        Host { shape, residues }
    }

    /// A relinearisation key with digits of whole primes.
    pub(super) fn relin_key<'k>(&mut self, level: usize, digit_primes: usize, special: &'k [usize]) -> Key<'k> {
        self.key_of(RelinLayout::of_primes(level, digit_primes), special)
    }

    /// A key of random rows: to a backend it is only numbers.
    pub(super) fn key_of<'k>(&mut self, layout: RelinLayout, special: &'k [usize]) -> Key<'k> {
        let limbs: Vec<usize> = (0..layout.level).chain(special.iter().copied()).collect();
        let n = self.n();
        Key { rows: self.random(&limbs, layout.digits(layout.level), 2, n), layout, special }
    }
}
