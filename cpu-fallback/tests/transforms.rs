//! Transforms of every family against the reference in every dimension, where the number and kind of passes differ, and for
//! primes with and without reductions between layers.

use std::sync::Arc;

use cryptodl_core::backend::{Backend, Shape};
use cryptodl_core::ring::{RnsBasis, ntt_primes};
use cryptodl_cpu::{Cpu, Kernels, Reference};
use rayon::prelude::*;

/// Polynomials with the largest sums first: all residues `q - 1`, one of them alone, signs that
/// alternate, and all sizes mixed.
fn operands(q: u32, n: usize) -> Vec<u32> {
    let mixed = |i: usize| (i as u32).wrapping_mul(0x9e37_79b9).rotate_left(9) % q;
    let kinds: [&dyn Fn(usize) -> u32; 4] =
        [&|_| q - 1, &|i| if i == n - 1 { q - 1 } else { 0 }, &|i| if i % 2 == 0 { 1 } else { q - 1 }, &mixed];
    kinds.iter().flat_map(|kind| (0..n).map(kind)).collect()
}

#[test]
fn transforms_of_every_dimension_are_those_of_the_reference() {
    let dimensions: Vec<u32> = (4..=16).collect();
    dimensions.into_par_iter().for_each(|log_n| {
        let n = 1 << log_n;
        for bits in [14, 18, 25, 26, 27, 30] {
            // Small primes are congruent to 1 modulo 4 N in small dimensions only.
            let Ok(primes) = ntt_primes(n, bits, 1) else { continue };
            let basis = Arc::new(RnsBasis::new(n, &primes).expect("a basis"));
            let shape = Shape { limbs: vec![0], values: 4, components: 1, lanes: n };
            let residues = operands(primes[0], n);
            let reference = Reference::new(basis.clone());
            let mut evaluated = reference.upload(shape.clone(), &residues).expect("uploaded");
            reference.forward_ntt(&mut evaluated).expect("transformed");
            let mut interpolated = reference.upload(shape.clone(), &residues).expect("uploaded");
            reference.inverse_ntt(&mut interpolated).expect("transformed");
            for kernels in Kernels::available() {
                let what = format!("{}, N = {n}, {bits} bits", kernels.name());
                let cpu = Cpu::with_kernels(basis.clone(), kernels);
                let mut x = cpu.upload(shape.clone(), &residues).expect("uploaded");
                cpu.forward_ntt(&mut x).expect("transformed");
                assert!(x.residues() == evaluated.residues(), "forward, {what}");
                let mut x = cpu.upload(shape.clone(), &residues).expect("uploaded");
                cpu.inverse_ntt(&mut x).expect("transformed");
                assert!(x.residues() == interpolated.residues(), "inverse, {what}");
            }
        }
    });
}
