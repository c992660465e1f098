//! The ring and the modulus chain of a schedule, and the noise of its key switches.

use cryptodl_core::ckks::noise::{self, Noise};
use cryptodl_core::ckks::{Packing, RelinLayout, ScoreLeaves};

use super::cost::draws;
use super::unpacking::Unpacking;

/// What decides the ring and the modulus chain of a schedule: their primes are the largest that
/// there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RingShape {
    /// Dimension.
    pub n: usize,
    /// Size of the primes in bits.
    pub prime_bits: u32,
    /// Primes of the chain.
    pub limbs: usize,
    /// Special primes.
    pub special: usize,
    /// Primes of the chain in a digit of a key switch.
    pub digit_primes: usize,
    /// Digits in which each prime is cut for key switching; 1 where digits have whole primes.
    pub parts: usize,
    /// The largest special prime where they have a size of their own, else 0.
    pub own_special: u32,
    /// `log2` of the most pixels of an image in a ciphertext, 0 where images are spread.
    pub log_leaves: u32,
    /// `log2` of the most scores of an image in a ciphertext, 0 where every score has its own.
    pub log_scores: u32,
    /// Which of the [`Unpacking::choices`] is taken.
    pub unpacking: usize,
}

impl RingShape {
    /// How ciphertexts are key-switched, in words that follow the chain.
    pub fn switching(&self) -> String {
        let &RingShape { special, digit_primes, parts, own_special, .. } = self;
        let size = match own_special {
            0 => String::new(),
            largest => format!(" of {} bits", u32::BITS - largest.leading_zeros()),
        };
        match (special, digit_primes, parts) {
            (0, _, _) => String::new(),
            (special, _, 2..) => format!(" + {special} special{size}, {parts} digits for each prime"),
            (special, digit_primes, _) if digit_primes > special => {
                format!(" + {special} special{size}, {digit_primes} primes in a digit")
            }
            (special, _, _) => format!(" + {special} special"),
        }
    }
}

/// Ring and modulus chain of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Ring {
    /// What decides it.
    pub shape: RingShape,
    /// The chain.
    pub primes: Vec<u32>,
    /// Special primes.
    pub special: Vec<u32>,
    /// How images are unpacked.
    pub unpacking: Unpacking,
    /// `log2` of the product of the first primes of the chain, by their number.
    log_q: Vec<f64>,
    /// `log2 P`.
    log_p: f64,
    /// Sum of [`draws`] over the chain.
    draws: f64,
}

impl Ring {
    /// A ring over `primes`: the special primes first, then the chain, descending.
    pub fn new(shape: RingShape, primes: &[u32], unpacking: Unpacking) -> Self {
        let (special, chain) = primes.split_at(shape.special);
        let sums = |primes: &[u32]| {
            let sum = primes.iter().scan(0.0, |sum, &q| {
                *sum += libm::log2(q.into());
                Some(*sum)
            });
            std::iter::once(0.0).chain(sum).collect::<Vec<f64>>()
        };
        let (log_q, log_p) = (sums(chain), sums(special)[shape.special]);
        let draws = chain.iter().map(|&q| draws(q)).sum();
        Ring { shape, primes: chain.to_vec(), special: special.to_vec(), unpacking, log_q, log_p, draws }
    }

    /// `log2 Q` of the first `level` primes.
    pub fn log_q(&self, level: usize) -> f64 {
        self.log_q[level]
    }

    /// How often one residue modulo each prime of the chain is drawn, in all.
    pub fn draws(&self) -> f64 {
        self.draws
    }

    /// `log2 P`.
    pub fn log_p(&self) -> f64 {
        self.log_p
    }

    /// How images are packed.
    pub fn packing(&self) -> Packing {
        if self.shape.log_leaves == 0 { Packing::Spread } else { Packing::Compact(self.shape.log_leaves) }
    }

    /// How the scores of the batch lie that is planned for.
    pub fn scores(&self) -> ScoreLeaves {
        ScoreLeaves { log: self.shape.log_scores }
    }

    /// Noise of the rotations by which ciphertexts with several pixels of an image are unpacked before anything else happens.
    pub(super) fn rotations(&self) -> Noise {
        if self.shape.log_leaves == 0 {
            return Noise::even(0.0);
        }
        self.rotations_at(self.primes.len(), self.unpacking.mean_depth)
    }

    /// Noise of `depth` rotations one after the other at `level`.
    pub fn rotations_at(&self, level: usize, depth: f64) -> Noise {
        let layout = self.relin_layout();
        noise::rotations(
            self.shape.n,
            depth,
            layout.digits(level),
            layout.log_digit(level, self.shape.prime_bits),
            self.log_p,
        )
    }

    /// Noise of a key switch at `level`, its division not included.
    pub fn key_switch(&self, level: usize) -> Noise {
        let layout = self.relin_layout();
        noise::relinearise(
            self.shape.n,
            layout.digits(level),
            layout.log_digit(level, self.shape.prime_bits),
            self.log_p,
        )
    }

    /// How keys are cut into digits: whole primes, or parts of them.
    pub fn relin_layout(&self) -> RelinLayout {
        RelinLayout { level: self.primes.len(), digit_primes: self.shape.digit_primes, prime_parts: self.shape.parts }
    }
}
