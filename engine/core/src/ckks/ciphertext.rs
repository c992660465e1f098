//! The serialisable form of ciphertexts. The device form is a backend's tensor.

use super::{Leaves, Params};
use crate::backend::{Shape, packed_len};

/// What ciphertext sets are, without the sets themselves: what is known before the first of them has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CiphertextsInfo {
    /// Chain limbs.
    pub level: usize,
    /// Ciphertexts per set.
    pub values: usize,
    /// Components of each ciphertext, 2 or more.
    pub components: usize,
    /// How the values of images lie in the ciphertexts. If not spread, there is one set.
    pub leaves: Leaves,
    /// Index of the first set within the whole that these sets are a part of, 0 for a whole.
    /// `(first_set + sets) x values` is below 2^32.
    pub first_set: usize,
    /// With a seed, component 1 is expanded from it (two components, purpose
    /// [`super::UniformPurpose::Ciphertext`], object = (first_set + set) x values + value) and only
    /// component 0 is stored. All parts of a whole share the seed.
    pub seed: Option<[u8; 32]>,
    /// Images over all sets; the last set is padded.
    pub images: usize,
}

impl CiphertextsInfo {
    /// Components that are stored.
    pub fn stored_components(&self) -> usize {
        if self.seed.is_some() { 1 } else { self.components }
    }

    /// Shape of one whole set as a tensor.
    pub fn shape(&self, params: &Params) -> Shape {
        Shape { limbs: params.chain(self.level), values: self.values, components: self.components, lanes: params.n() }
    }

    /// Bytes of one packed component of one set.
    pub fn component_bytes(&self, params: &Params) -> usize {
        packed_len(params.basis(), &self.shape(params))
    }

    /// Bytes of one set.
    pub fn set_bytes(&self, params: &Params) -> usize {
        self.stored_components() * self.component_bytes(params)
    }

    /// Whether every value of every set has a number below 2^32 of its own within the whole: that
    /// of its uniform object where there is a seed.
    pub fn is_numbered(&self, params: &Params) -> bool {
        let end = self.first_set as u128 + self.sets(params) as u128;
        end.saturating_mul(self.values as u128) < 1 << 32
    }

    /// Number of sets that hold the images.
    pub fn sets(&self, params: &Params) -> usize {
        self.images.div_ceil(self.leaves.capacity(params.n()))
    }
}

/// Ciphertext sets as they travel: bit-packed residues in evaluation domain. One set holds up to N images, one per slot; value
/// `v` of a set carries the v-th feature (pixel, logit) of all of them, unless it is packed otherwise ([`Leaves`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ciphertexts {
    /// Chain limbs.
    pub level: usize,
    /// Ciphertexts per set.
    pub values: usize,
    /// Components of each ciphertext, 2 or more.
    pub components: usize,
    /// How the values of images lie in the ciphertexts, as in [`CiphertextsInfo`].
    pub leaves: Leaves,
    /// Index of the first set within a whole, as in [`CiphertextsInfo`].
    pub first_set: usize,
    /// Seed of component 1, as in [`CiphertextsInfo`].
    pub seed: Option<[u8; 32]>,
    /// Images over all sets; the last set is padded.
    pub images: usize,
    /// Per set: the stored components one after the other, each packed as [`crate::backend::Backend::unpack`] takes it.
    pub sets: Vec<Vec<u8>>,
}

impl Ciphertexts {
    /// These sets, which `info` describes.
    pub fn new(info: &CiphertextsInfo, sets: Vec<Vec<u8>>) -> Self {
        let &CiphertextsInfo { level, values, components, leaves, first_set, seed, images } = info;
        Ciphertexts { level, values, components, leaves, first_set, seed, images, sets }
    }

    /// What the sets are.
    pub fn info(&self) -> CiphertextsInfo {
        let &Ciphertexts { level, values, components, leaves, first_set, seed, images, .. } = self;
        CiphertextsInfo { level, values, components, leaves, first_set, seed, images }
    }

    /// Components that are stored.
    pub fn stored_components(&self) -> usize {
        self.info().stored_components()
    }

    /// Bytes of one set.
    pub fn set_bytes(&self, params: &Params) -> usize {
        self.info().set_bytes(params)
    }
}
