//! Activation polynomials, monic, in the two arrangements that backends evaluate.
//!
//! A polynomial has one constant of each kind for the whole operand, or one for every channel of it
//! (see [`Channels`]).

use std::ops::Range;

use super::Channels;
use crate::ring::RnsBasis;

/// `sign (((z + c_(d-1)) z + c_(d-2)) z + ... + c_1) z + c_0` with d - 1 products of ciphertexts and nothing else: adding a
/// constant is exact and free, so a monic polynomial needs no multiplication by a scalar.
///
/// The constants are integers at the scale of the place where they are added; `c_0` is added after
/// the sign, which is the same for all channels.
#[derive(Clone, Debug, PartialEq)]
pub struct Horner {
    negate: bool,
    degree: usize,
    channels: usize,
    /// `[limb][channel][c_(d-1), ..., c_0]`, canonical: an evaluation takes those of a channel one
    /// after the other.
    constants: Vec<u32>,
}

impl Horner {
    /// From integer-valued constants `c_(d-1), ..., c_0`; the degree `d` is their number.
    ///
    /// # Panics
    /// If fewer than two constants are given, or one is no integer.
    pub fn new(basis: &RnsBasis, negate: bool, constants: &[f64]) -> Self {
        Self::per_channel(basis, negate, 1, constants)
    }

    /// From integer-valued constants `[c_(d-1), ..., c_0][channel]`.
    ///
    /// # Panics
    /// If there are no channels, fewer than two constants for each, or one that is no integer.
    pub fn per_channel(basis: &RnsBasis, negate: bool, channels: usize, constants: &[f64]) -> Self {
        assert!(channels > 0 && constants.len().is_multiple_of(channels), "as many constants for every channel");
        let degree = constants.len() / channels;
        assert!(degree >= 2, "an activation has degree 2 or more");
        let mut residues = Vec::with_capacity(basis.len() * constants.len());
        for limb in 0..basis.len() {
            let modulus = basis.modulus(limb);
            for channel in 0..channels {
                let of_channel = constants.iter().skip(channel).step_by(channels);
                residues.extend(of_channel.map(|&c| modulus.reduce_integer_f64(c)));
            }
        }
        Horner { negate, degree, channels, constants: residues }
    }

    /// Degree `d`.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// Channels. An operand's number of values is a multiple of it.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Whether the monic part is negated before `c_0` is added.
    pub fn negates(&self) -> bool {
        self.negate
    }

    /// Residues of `c_(d-1), ..., c_0` of a channel, modulo the prime of `limb`.
    pub fn of_channel(&self, limb: usize, channel: usize) -> &[u32] {
        &self.constants[(limb * self.channels + channel) * self.degree..][..self.degree]
    }

    /// Residues `[limb][channel]` of the constant that is added after `products` products (0:
    /// before the first).
    pub fn constants(&self, products: usize, limbs: &[usize]) -> Vec<u32> {
        let of_limb = |&limb: &usize| (0..self.channels).map(move |channel| self.of_channel(limb, channel)[products]);
        limbs.iter().flat_map(of_limb).collect()
    }

    /// The polynomial for values `values` of an operand of `total` values: the same where there is
    /// one channel, else one with a channel for each of these values.
    ///
    /// # Panics
    /// If `total` is no multiple of the channels, or `values` is empty or reaches beyond it.
    pub fn of_values(&self, values: Range<usize>, total: usize) -> Self {
        let chosen = channels_of_values(self.channels, values, total);
        let Some(chosen) = chosen else { return self.clone() };
        let blocks = self.constants.chunks_exact(self.channels * self.degree);
        let constants = blocks.flat_map(|block| {
            chosen.iter().flat_map(move |&channel| &block[channel * self.degree..][..self.degree]).copied()
        });
        Horner { channels: chosen.len(), constants: constants.collect(), ..*self }
    }
}

/// The channel of each of the values `values` of `total`, or `None` where there is but one.
fn channels_of_values(channels: usize, values: Range<usize>, total: usize) -> Option<Vec<usize>> {
    let channels = Channels::new(channels, total);
    assert!(!values.is_empty() && values.end <= total, "values {values:?} of {total}");
    (channels.count() > 1).then(|| values.map(|value| channels.of_value(value)).collect())
}

/// A monic polynomial of degree `d >= 3` with `ceil(d / 2)` products of ciphertexts instead of Horner's `d - 1`: the arrangement of
/// Paterson and Stockmeyer ("On the number of nonscalar multiplications necessary to evaluate polynomials", SIAM J. Comput. 2,
/// 1973) with the powers 1, z and w = z (z + shift).
///
/// `u = w + c_0` for even `d`, `u = z + c_0` for odd `d`; then `u = u w + b_i z + c_i` again and again, with the sign before the last
/// constant. The first product is `w`. Constants and multiples are integers: a constant at the scale of the place where it is
/// added, `b_i` such that `b_i z` has the scale of the product `u w`, to which it is added before that is divided.
#[derive(Clone, Debug, PartialEq)]
pub struct PatersonStockmeyer {
    negate: bool,
    odd: bool,
    /// One.
    shift: PerChannel,
    /// `c_0, c_1, ...`.
    constants: PerChannel,
    /// `b_1, b_2, ...`.
    multiples: PerChannel,
}

impl PatersonStockmeyer {
    /// From integer-valued numbers: the shift, `c_0, c_1, ...`, and `b_1, b_2, ...`.
    ///
    /// # Panics
    /// Unless there is one multiple at least and one constant more than multiples, all integers.
    pub fn new(basis: &RnsBasis, negate: bool, odd: bool, shift: f64, constants: &[f64], multiples: &[f64]) -> Self {
        Self::per_channel(basis, negate, odd, &[shift], constants, multiples)
    }

    /// From integer-valued numbers: the shift of every channel, `[c_0, c_1, ...][channel]`, and
    /// `[b_1, b_2, ...][channel]`.
    ///
    /// # Panics
    /// Unless there is one channel at least, and for each one multiple at least and one constant
    /// more than multiples, all integers.
    pub fn per_channel(
        basis: &RnsBasis,
        negate: bool,
        odd: bool,
        shift: &[f64],
        constants: &[f64],
        multiples: &[f64],
    ) -> Self {
        let numbers = |numbers| PerChannel::new(basis, shift.len(), numbers);
        assert!(
            !multiples.is_empty() && constants.len() == multiples.len() + shift.len(),
            "a constant more than multiples"
        );
        PatersonStockmeyer {
            negate,
            odd,
            shift: numbers(shift),
            constants: numbers(constants),
            multiples: numbers(multiples),
        }
    }

    /// Products of ciphertexts, `ceil(d / 2)`.
    pub fn products(&self) -> usize {
        self.constants.count()
    }

    /// Channels. An operand's number of values is a multiple of it.
    pub fn channels(&self) -> usize {
        self.shift.channels
    }

    /// Whether `u` starts from `z` instead of `w`.
    pub fn is_odd(&self) -> bool {
        self.odd
    }

    /// Whether the monic part is negated before the last constant is added.
    pub fn negates(&self) -> bool {
        self.negate
    }

    /// Residues `[limb][channel]` of the shift in `w = z (z + shift)`.
    pub fn shift(&self, limbs: &[usize]) -> Vec<u32> {
        self.shift.residues(0, limbs)
    }

    /// Residues `[limb][channel]` of the constant `c_i`.
    pub fn constants(&self, i: usize, limbs: &[usize]) -> Vec<u32> {
        self.constants.residues(i, limbs)
    }

    /// Residues `[limb][channel]` of the multiple `b_i` of `z`, `i >= 1`.
    pub fn multiples(&self, i: usize, limbs: &[usize]) -> Vec<u32> {
        self.multiples.residues(i - 1, limbs)
    }

    /// The polynomial for values `values` of an operand of `total` values: the same where there is
    /// one channel, else one with a channel for each of these values.
    ///
    /// # Panics
    /// If `total` is no multiple of the channels, or `values` is empty or reaches beyond it.
    pub fn of_values(&self, values: Range<usize>, total: usize) -> Self {
        let chosen = channels_of_values(self.channels(), values, total);
        let Some(chosen) = chosen else { return self.clone() };
        PatersonStockmeyer {
            shift: self.shift.with_channels(&chosen),
            constants: self.constants.with_channels(&chosen),
            multiples: self.multiples.with_channels(&chosen),
            ..*self
        }
    }
}

/// Integers, each with a value for every channel.
#[derive(Clone, Debug, PartialEq)]
struct PerChannel {
    limbs: usize,
    channels: usize,
    /// `[integer][limb][channel]`, canonical.
    residues: Vec<u32>,
}

impl PerChannel {
    /// From numbers `[integer][channel]`.
    fn new(basis: &RnsBasis, channels: usize, numbers: &[f64]) -> Self {
        assert!(channels > 0 && numbers.len().is_multiple_of(channels), "as many numbers for every channel");
        let (limbs, mut residues) = (basis.len(), Vec::with_capacity(basis.len() * numbers.len()));
        for integer in numbers.chunks_exact(channels) {
            for limb in 0..limbs {
                residues.extend(integer.iter().map(|&number| basis.modulus(limb).reduce_integer_f64(number)));
            }
        }
        PerChannel { limbs, channels, residues }
    }

    /// How many integers there are.
    fn count(&self) -> usize {
        self.residues.len() / (self.limbs * self.channels)
    }

    /// Residues `[limb][channel]` of an integer.
    fn residues(&self, integer: usize, limbs: &[usize]) -> Vec<u32> {
        let row = |&limb: &usize| &self.residues[(integer * self.limbs + limb) * self.channels..][..self.channels];
        limbs.iter().flat_map(row).copied().collect()
    }

    /// With these of the channels in the place of all.
    fn with_channels(&self, chosen: &[usize]) -> Self {
        let rows = self.residues.chunks_exact(self.channels);
        let residues = rows.flat_map(|row| chosen.iter().map(|&channel| row[channel])).collect();
        PerChannel { limbs: self.limbs, channels: chosen.len(), residues }
    }
}
