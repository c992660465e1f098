//! Centred conversion between sets of limbs, one polynomial per task.

use cryptodl_core::ring::RnsBasis;
use rayon::prelude::*;

use crate::tensor::{CpuTensor, Place};

/// Writes to every limb of `out` what `x` stands for: see `Backend::convert_centred`.
pub(super) fn convert_centred(basis: &RnsBasis, x: &CpuTensor, out: &mut CpuTensor) {
    let from = x.shape();
    let converter = basis.centred_converter(&from.limbs, &out.shape().limbs);
    polynomials(out).into_par_iter().enumerate().for_each(|(row, mut targets)| {
        let (value, component) = (row / from.components, row % from.components);
        let sources: Vec<&[u32]> = (0..from.limbs.len()).map(|limb| x.row(Place { limb, value, component })).collect();
        let mut residues = vec![0; sources.len()];
        let mut digits = vec![0; sources.len()];
        for lane in 0..from.lanes {
            residues.iter_mut().zip(&sources).for_each(|(residue, source)| *residue = source[lane]);
            converter.digits(&residues, &mut digits);
            for (index, target) in targets.iter_mut().enumerate() {
                target[lane] = converter.residue(&digits, index);
            }
        }
    });
}

/// For every value and component, the polynomial's rows in all limbs.
fn polynomials(x: &mut CpuTensor) -> Vec<Vec<&mut [u32]>> {
    let shape = x.shape();
    let (limbs, rows, lanes, limb_len) =
        (shape.limbs.len(), shape.values * shape.components, shape.lanes, shape.limb_len());
    let mut polynomials: Vec<_> = (0..rows).map(|_| Vec::with_capacity(limbs)).collect();
    for block in x.residues_mut().chunks_exact_mut(limb_len.max(1)) {
        let rows = block.chunks_exact_mut(lanes);
        polynomials.iter_mut().zip(rows).for_each(|(polynomial, row)| polynomial.push(row));
    }
    polynomials
}
