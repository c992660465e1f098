//! The rings that a search has met: each is made once.

use std::collections::BTreeMap;

use cryptodl_core::ckks::{Leaves, MAX_SPECIAL_PRIMES, SecurityLevel};
use cryptodl_core::ring::largest_ntt_primes;

use super::options::{LIMBS, PRIME_BITS};
use super::ring::{Ring, RingShape};
use super::unpacking::Unpacking;
use super::work::{Counted, Switching};

/// The rings.
#[derive(Default)]
pub(super) struct Rings {
    /// Values of an image.
    inputs: usize,
    /// By dimension and prime size, the largest primes, as many as the longest chain takes where there are so many.
    primes: BTreeMap<(usize, u32), Vec<u32>>,
    rings: BTreeMap<RingShape, Ring>,
    /// What [`Self::own_special`] has found, by dimension, prime size, limbs, primes in a digit and parts of a prime.
    own_special: BTreeMap<(usize, u32, usize, usize, usize), Option<u32>>,
    /// By `log2` of the most pixels in a ciphertext.
    unpackings: BTreeMap<u32, Vec<Unpacking>>,
}

impl Rings {
    /// For images of so many values.
    pub(super) fn of_inputs(inputs: usize) -> Self {
        Rings { inputs, ..Rings::default() }
    }

    /// The number of the unpacking that costs least on a ring, keys included; `None` where there are too few primes.
    pub(super) fn cheapest_unpacking(&mut self, shape: RingShape, counted: &Counted) -> Option<usize> {
        self.get(shape)?;
        let (ring, choices) = (&self.rings[&shape], &self.unpackings[&shape.log_leaves]);
        let prices: Vec<f64> = choices.iter().map(|choice| counted.unpacking_price(ring, choice)).collect();
        (0..prices.len()).min_by(|&a, &b| prices[a].total_cmp(&prices[b]))
    }

    /// A ring, unless there are too few primes.
    pub(super) fn get(&mut self, shape: RingShape) -> Option<&Ring> {
        let RingShape { n, prime_bits, limbs, special, own_special, .. } = shape;
        let primes = match own_special {
            0 => self.primes(n, prime_bits).get(..limbs + special)?.to_vec(),
            largest => {
                let others = self.primes(n, bits_of(largest)).iter().copied().filter(|&p| p < largest);
                let special: Vec<u32> = std::iter::once(largest).chain(others).take(special).collect();
                special.into_iter().chain(self.primes(n, prime_bits).get(..limbs)?.iter().copied()).collect()
            }
        };
        let (leaves, inputs) = (Leaves { log: shape.log_leaves }, self.inputs);
        let choices = self.unpackings.entry(leaves.log).or_insert_with(|| Unpacking::choices(leaves, inputs));
        let unpacking = || choices[shape.unpacking].clone();
        Some(self.rings.entry(shape).or_insert_with(|| Ring::new(shape, &primes, unpacking())))
    }

    /// The largest primes of so many bits, descending.
    fn primes(&mut self, n: usize, prime_bits: u32) -> &[u32] {
        let most = LIMBS.end() + MAX_SPECIAL_PRIMES;
        let found = || largest_ntt_primes(n, prime_bits, most).unwrap_or_default();
        self.primes.entry((n, prime_bits)).or_insert_with(found)
    }

    /// The largest special prime where they have a size of their own: as large as there is room for, fewer bits than those of
    /// the chain where digits are parts of primes, and more where digits are larger than `P`. `None` if none is as large as a
    /// digit that is part of a prime, and 0 where the special primes are like those of the chain.
    pub(super) fn own_special(
        &mut self,
        n: usize,
        prime_bits: u32,
        limbs: usize,
        switching: Switching,
        security: SecurityLevel,
    ) -> Option<u32> {
        let Switching { special, digit_primes, parts } = switching;
        if parts == 1 && digit_primes <= special {
            return Some(0);
        }
        if let Some(&known) = self.own_special.get(&(n, prime_bits, limbs, digit_primes, parts)) {
            return known;
        }
        let log_q: f64 = self.primes(n, prime_bits).get(..limbs)?.iter().map(|&q| libm::log2(q.into())).sum();
        let room = (f64::from(security.max_log_qp(n)) - log_q) / special as f64;
        let largest = room.floor() as u32 + 1;
        let found = if parts > 1 {
            let digit = 1 << prime_bits.div_ceil(parts as u32);
            let mut sizes = (bits_of(digit - 1)..=largest.min(prime_bits - 1)).rev();
            sizes.find_map(|bits| {
                let primes = largest_ntt_primes(n, bits, usize::MAX).unwrap_or_default();
                primes.into_iter().find(|&q| q >= digit && libm::log2(q.into()) <= room)
            })
        } else {
            let mut sizes = (prime_bits + 1..=largest.min(*PRIME_BITS.end())).rev();
            let fits = |primes: &[u32]| primes.len() >= special && libm::log2(primes[0].into()) <= room;
            sizes.find_map(|bits| Some(self.primes(n, bits)).filter(|primes| fits(primes)).map(|p| p[0])).or(Some(0))
        };
        self.own_special.insert((n, prime_bits, limbs, digit_primes, parts), found);
        found
    }

    /// A ring that [`Self::get`] made.
    pub(super) fn of(&self, shape: RingShape) -> &Ring {
        &self.rings[&shape]
    }
}

fn bits_of(x: u32) -> u32 {
    u32::BITS - x.leading_zeros()
}
