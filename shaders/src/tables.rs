//! Tables of the transforms and of the centred conversion.

use cryptodl_core::ring::{RnsBasis, Twiddle};

use crate::constants::convert_basis::{MAX_SOURCES, OFFSET};
use crate::params::Limb;

/// Twiddles of the forward transform for all limbs of a basis: the `twiddles` binding of `ntt_forward_*`.
///
/// `N + 4` pairs of factor and companion per limb, in the order described in `ntt.wgsl`.
pub fn forward_twiddles(basis: &RnsBasis) -> Vec<[u32; 2]> {
    let limbs = (0..basis.len()).map(|limb| basis.table(limb));
    limbs.flat_map(|table| arranged(table.forward_twiddles(), &[table.iota()])).collect()
}

/// Twiddles of the inverse transform: the `twiddles` binding of `ntt_inverse_*`, laid out alike.
pub fn inverse_twiddles(basis: &RnsBasis) -> Vec<[u32; 2]> {
    let limbs = (0..basis.len()).map(|limb| basis.table(limb));
    limbs.flat_map(|table| arranged(table.inverse_twiddles(), &[table.inverse_scales()[1], table.iota()])).collect()
}

/// One limb's twiddles: the last round's blocks side by side, and the folding layer's constants at the end.
fn arranged(nodes: &[Twiddle], folding: &[Twiddle]) -> Vec<[u32; 2]> {
    let (n, blocks) = (nodes.len(), nodes.len() / 16);
    let mut table = vec![[0; 2]; n + 4];
    let pair = |twiddle: &Twiddle| [twiddle.factor, twiddle.companion];
    for (to, node) in table.iter_mut().zip(&nodes[..blocks]) {
        *to = pair(node);
    }
    for h in 1..16usize {
        let first = 1 << h.ilog2();
        for i in 0..blocks {
            table[h * blocks + i] = pair(&nodes[(blocks + i) * first + (h - first)]);
        }
    }
    for (to, constant) in table[n..].iter_mut().zip(folding) {
        *to = pair(constant);
    }
    table
}

/// Tables of `convert_basis` for some sources and targets.
///
/// The kernel keeps digits as `d_i + 2^30`. What that adds to a weighted sum is taken off with
/// [`Limb::constant`]: a source adds it to what is left, a target subtracts it.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// Binding 1: sources, then targets.
    pub limbs: Vec<Limb>,
    /// Binding 4, `[source or target][source]`: factor and companion.
    pub weights: Vec<[u32; 2]>,
}

impl Conversion {
    /// Prepares a conversion between limbs of `basis`.
    ///
    /// # Panics
    /// Without sources, or with more than [`MAX_SOURCES`].
    pub fn new(basis: &RnsBasis, from: &[usize], to: &[usize]) -> Self {
        assert!((1..=MAX_SOURCES as usize).contains(&from.len()), "{} source limbs", from.len());
        let mut conversion = Conversion { limbs: Vec::new(), weights: Vec::new() };
        for (row, &limb) in from.iter().chain(to).enumerate() {
            let m = basis.modulus(limb);
            let source = (row < from.len()).then_some(row);
            let digits = source.unwrap_or(from.len());
            let mut weights: Vec<u32> = (0..from.len()).map(|j| basis.product_mod(&from[..j], limb)).collect();
            let excess = weights[..digits].iter().fold(0, |sum, &weight| m.add(sum, m.mul(weight, OFFSET)));
            if source.is_some() {
                weights[row] = m.inv(weights[row]);
            }
            let constant = if source.is_some() { excess } else { m.neg(excess) };
            conversion.limbs.push(Limb { constant, ..Limb::new(basis, limb) });
            conversion.weights.extend(weights.iter().map(|&weight| {
                let Twiddle { factor, companion } = Twiddle::new(m, weight);
                [factor, companion]
            }));
        }
        conversion
    }
}
