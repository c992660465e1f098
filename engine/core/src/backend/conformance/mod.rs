//! The conformance suite: whether a backend returns the same bits as another.
//!
//! [`compare`] runs every operation of [`Backend`] on two backends over the same
//! [`RnsBasis`](crate::ring::RnsBasis), with random and with extreme inputs, and stops at the first residue that differs.
//! The judge is usually the reference of `cryptodl-cpu`, which takes the second-tier steps from their default composition,
//! so that fused kernels are compared with what they must equal.

mod call;
mod cases;
mod random;
mod suite;

use std::fmt;

use super::{Backend, BackendError, Shape};
use crate::ring::{RingError, ntt_primes};
use random::Random;
use suite::Suite;

/// Limbs of the basis that the suite needs: a chain of four and two special primes.
pub const LIMBS: usize = CHAIN + SPECIAL;
/// Primes of the chain.
pub const CHAIN: usize = 4;
/// Special primes.
pub const SPECIAL: usize = 2;

/// What was compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The operation, as reports name it.
    pub operation: &'static str,
    /// What is special about the inputs.
    pub case: String,
    /// Shape of the operand.
    pub shape: Shape,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Check { operation, case, shape } = self;
        let Shape { limbs, values, components, lanes } = shape;
        write!(f, "{operation}, {case}, on limbs {limbs:?} x {values} values x {components} components x {lanes} lanes")
    }
}

/// Where two results differ first, in tensor order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a tensor.
    Residue {
        /// Position in the result's list of limbs.
        limb: usize,
        /// Value.
        value: usize,
        /// Component.
        component: usize,
        /// Lane.
        lane: usize,
    },
    /// In packed bytes.
    Byte(usize),
    /// In a yes (1) or no (0).
    Answer,
    /// In the number of residues or bytes.
    Length,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Residue { limb, value, component, lane } => {
                write!(f, "limb {limb}, value {value}, component {component}, lane {lane}")
            }
            Place::Byte(index) => write!(f, "byte {index}"),
            Place::Answer => write!(f, "the answer"),
            Place::Length => write!(f, "the length"),
        }
    }
}

/// A comparison that did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {cause}")]
pub struct Failure {
    /// What was compared.
    pub check: Box<Check>,
    /// Why it did not pass.
    pub cause: Cause,
}

/// Why a comparison did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The results differ.
    #[error("{place} is {actual}, expected {expected}")]
    Difference {
        /// The first difference.
        place: Place,
        /// The reference's result there.
        expected: u64,
        /// The candidate's result there.
        actual: u64,
    },
    /// The result has another shape.
    #[error("the result has shape {actual:?}, expected {expected:?}")]
    Shape {
        /// Shape of the reference's result.
        expected: Shape,
        /// Shape of the candidate's result.
        actual: Shape,
    },
    /// A backend could not do it.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Primes fit for [`compare`] in dimension `n`: a chain of [`CHAIN`], of which one is small, and [`SPECIAL`] special ones.
///
/// # Errors
/// `n` is no supported dimension.
pub fn primes(n: usize) -> Result<(Vec<u32>, Vec<u32>), RingError> {
    let large = ntt_primes(n, 30, LIMBS - 1)?;
    // Any size that has a prime; the least keeps other bit lengths and byte counts honest.
    let small = (14..30).find_map(|bits| ntt_primes(n, bits, 1).ok()).expect("30 bits have primes")[0];
    let (special, chain) = large.split_at(SPECIAL);
    let mut chain = chain.to_vec();
    chain.insert(1, small);
    Ok((chain, special.to_vec()))
}

/// Compares all operations of `candidate` with those of `reference` and calls `progress` after each check that passed.
/// Inputs follow from `seed` alone.
///
/// # Errors
/// The first [`Failure`].
///
/// # Panics
/// If the two backends have different bases, or fewer than [`LIMBS`] limbs.
pub fn compare<R: Backend, C: Backend>(
    reference: &R,
    candidate: &C,
    seed: u64,
    progress: &mut dyn FnMut(&Check),
) -> Result<Vec<Check>, Failure> {
    let (ours, theirs) = (reference.basis(), candidate.basis());
    assert_eq!((ours.n(), ours.primes()), (theirs.n(), theirs.primes()), "the bases of the backends");
    assert!(ours.len() >= LIMBS, "{} limbs, the suite needs {LIMBS}", ours.len());
    let mut suite = Suite { reference, candidate, random: Random(seed), progress, passed: Vec::new() };
    suite.memory()?;
    suite.wire()?;
    suite.arithmetic()?;
    suite.joins()?;
    suite.products()?;
    suite.linear_maps()?;
    suite.slotwise_runs()?;
    suite.transforms()?;
    suite.conversions()?;
    suite.key_switches()?;
    suite.automorphisms()?;
    suite.activations()?;
    Ok(suite.passed)
}
