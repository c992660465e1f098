//! The steps of a Program, prepared for a backend.

use cryptodl_core::backend::{Horner, LinearMap, Maintenance, SlotwiseOp};
use cryptodl_core::ring::RnsBasis;

use cryptodl_program::{ActivationStep, PreparedPolynomial, Step, Term, TermMap};

/// One step, prepared for a backend.
pub enum Op {
    /// A linear map of one operand.
    Linear(LinearMap),
    /// A sum of linear maps.
    Join(Join),
    /// An activation that acts on each lane by itself.
    Lazy(Horner),
    /// One that relinearises or rescales.
    Switched(PreparedPolynomial, ActivationStep),
    /// A relinearisation, a rescale, or both, of their own.
    Maintenance(Maintenance),
}

/// A sum of linear maps and constants.
pub struct Join {
    /// At least one.
    pub terms: Vec<JoinTerm>,
    constants: PerChannel,
}

/// One term of a sum.
pub enum JoinTerm {
    /// A map that the kernels take, and the integer that its result is multiplied by.
    Dense(LinearMap, PerChannel),
    /// A factor for each channel, and output positions of each.
    Diagonal(PerChannel, usize),
}

/// An integer for each channel, or one for all.
pub struct PerChannel {
    channels: usize,
    /// `[limb of the basis][channel]`, canonical.
    residues: Vec<u32>,
}

impl PerChannel {
    fn new(numbers: &[f64], basis: &RnsBasis) -> Self {
        let of_limb = |limb: usize| numbers.iter().map(move |&c| basis.modulus(limb).reduce_integer_f64(c));
        PerChannel { channels: numbers.len(), residues: (0..basis.len()).flat_map(of_limb).collect() }
    }

    /// Residues for some limbs of the basis, `[limb][channel]`.
    pub fn of_limbs(&self, limbs: &[usize]) -> Vec<u32> {
        limbs.iter().flat_map(|&limb| &self.residues[limb * self.channels..][..self.channels]).copied().collect()
    }
}

impl Join {
    fn new(terms: &[Term], constants: &[f64], basis: &RnsBasis) -> Self {
        let term = |term: &Term| match &term.map {
            // The check of a Program prepares every map once to see that it is within bounds.
            TermMap::Dense(map) => {
                let map = map.prepare(basis, &[]).expect("a checked map");
                JoinTerm::Dense(map, PerChannel::new(&[term.factor], basis))
            }
            TermMap::Diagonal(map) => {
                JoinTerm::Diagonal(PerChannel::new(&map.factors, basis), map.shape[1] * map.shape[2])
            }
        };
        Join { terms: terms.iter().map(term).collect(), constants: PerChannel::new(constants, basis) }
    }

    /// Constants for some limbs of the basis, `[limb][channel]`, if any is not zero.
    pub fn constants(&self, limbs: &[usize]) -> Option<Vec<u32>> {
        self.constants.residues.iter().any(|&c| c != 0).then(|| self.constants.of_limbs(limbs))
    }

    /// Output positions of each channel.
    fn positions(&self) -> usize {
        match &self.terms[0] {
            JoinTerm::Dense(map, _) => map.positions(),
            JoinTerm::Diagonal(_, positions) => *positions,
        }
    }
}

impl Op {
    /// Prepares a step.
    pub fn new(step: &Step, basis: &RnsBasis) -> Self {
        match step {
            Step::Linear { terms, constants, .. } => match &terms[..] {
                // The check of a Program prepares every map once to see that it is within bounds.
                [Term { map: TermMap::Dense(map), .. }] => {
                    Op::Linear(map.prepare(basis, constants).expect("a checked map"))
                }
                terms => Op::Join(Join::new(terms, constants, basis)),
            },
            Step::Activation { activation, .. } => match activation.prepare(basis) {
                PreparedPolynomial::Horner(polynomial) if activation.is_lazy() => Op::Lazy(polynomial),
                polynomial => Op::Switched(polynomial, activation.clone()),
            },
            Step::Maintenance { maintenance, .. } => Op::Maintenance(*maintenance),
        }
    }

    /// Number of output values, of so many of the first operand.
    pub fn outputs(&self, values: usize) -> usize {
        match self {
            Op::Linear(map) => map.outputs(),
            Op::Join(join) => join.constants.channels * join.positions(),
            Op::Lazy(_) | Op::Switched(..) | Op::Maintenance(_) => values,
        }
    }

    /// The form for a fused segment.
    pub fn slotwise(&self) -> SlotwiseOp<'_> {
        match self {
            Op::Linear(map) => SlotwiseOp::Linear(map),
            Op::Lazy(polynomial) => SlotwiseOp::Polynomial(polynomial),
            Op::Join(_) | Op::Switched(..) | Op::Maintenance(_) => {
                unreachable!("a segment is slot-wise ops or one other op")
            }
        }
    }

    /// Its map, if it has one operand and is one.
    pub fn map(&self) -> Option<&LinearMap> {
        if let Op::Linear(map) = self { Some(map) } else { None }
    }

    /// Output positions of each channel, if it decides them.
    pub fn positions(&self) -> Option<usize> {
        match self {
            Op::Linear(map) => Some(map.positions()),
            Op::Join(join) => Some(join.positions()),
            Op::Lazy(_) | Op::Switched(..) | Op::Maintenance(_) => None,
        }
    }

    /// Multiply-adds per lane of one component in one limb.
    pub fn multiply_adds(&self) -> u64 {
        match self {
            Op::Linear(map) => map.multiply_adds(),
            Op::Join(join) => {
                let dense = |term: &JoinTerm| if let JoinTerm::Dense(map, _) = term { map.multiply_adds() } else { 0 };
                join.terms.iter().map(dense).sum()
            }
            Op::Lazy(_) | Op::Switched(..) | Op::Maintenance(_) => 0,
        }
    }
}
