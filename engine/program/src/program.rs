//! The cryptographic Program: what client and server agree on to the last bit.

use std::ops::Range;

use cryptodl_core::backend::{CiphertextShape, Maintenance};
use cryptodl_core::ckks::{
    ClientSpec, EncryptionKind, EvalKeyLayout, InputLayout, OutputLayout, Params, ParamsSpec, RandomError, Randomness,
    RelinLayout, Scale,
};
use cryptodl_core::ring::Automorphism;

use crate::{ActivationStep, CircuitPrivacy, DiagonalMap, Geometry, QuantisedMap, Tolerance};

/// A planned network: a pure function of the model file and the planning flags.
#[derive(Clone, Debug)]
pub struct Program {
    /// Model name, for people; not part of the digest.
    pub model: String,
    /// Names of the steps, for people; not part of the digest.
    pub names: Vec<String>,
    /// Names of the classes, for people: one for each, or none; not part of the digest.
    pub class_names: Vec<String>,
    /// Everything that the digest covers.
    pub content: Content,
}

/// 32 bytes that enter the digest and nothing else. Clients see the digest, which is a hash of the weights: whoever guesses them
/// can confirm the guess. With a random salt, which stays with the Program, nobody can.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Salt(pub [u8; 32]);

impl Salt {
    /// A fresh one.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn random() -> Result<Self, RandomError> {
        Ok(Salt(Randomness::from_os()?.fresh_seed()?))
    }
}

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Salt::default() { "Salt(none)" } else { "Salt(hidden)" })
    }
}

/// The part of a [`Program`] that decides every bit of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// Makes digests of equal Programs differ; zero in most.
    pub salt: Salt,
    /// Ring, chain, special primes.
    pub params: ParamsSpec,
    /// Evaluation keys, at most one of each kind.
    pub evaluation_keys: Vec<EvalKeyLayout>,
    /// Who encrypts.
    pub encryption: EncryptionKind,
    /// The share of labels that may change.
    pub tolerance: Tolerance,
    /// Input.
    pub input: InputLayout,
    /// Steps in order.
    pub steps: Vec<Step>,
    /// Output.
    pub output: OutputLayout,
    /// How the computation's noise is hidden, if it is.
    pub circuit_privacy: Option<CircuitPrivacy>,
    /// How scores are packed, where the images may be packed compactly.
    pub score_packing: Option<ScorePacking>,
}

/// How the scores of few images become few ciphertexts, after the last step: they are relinearised, divided, multiplied by
/// monomials and added (docs/scheme.md, "Few scores").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScorePacking {
    /// Primes that are divided off.
    pub drop: usize,
}

impl Content {
    /// The relinearisation key, or none.
    pub fn relin(&self) -> Option<RelinLayout> {
        self.evaluation_keys.iter().find_map(|layout| layout.as_relin())
    }

    /// Layouts of the keys by which scores of so many components are relinearised to two: for `s^2`, `s^3` and so on. Those that
    /// are missing are left out.
    pub fn powers(&self, components: usize) -> Vec<EvalKeyLayout> {
        let layout = |power: u32| self.evaluation_keys.iter().find(|layout| layout.of_power() == power).copied();
        (2..components as u32).filter_map(layout).collect()
    }

    /// By how many leaves the automorphisms rotate that unpack compact inputs in dimension `n`, ascending, and the layouts of their
    /// keys, which serve at the input's level. These are steps as [`Leaves::stages`](cryptodl_core::ckks::Leaves::stages) takes them.
    pub fn rotations(&self, n: usize) -> Vec<(usize, EvalKeyLayout)> {
        let log = self.input.packing.log_leaves();
        let turn = Automorphism::power(n, 5, n >> log);
        let powers = std::iter::successors(Some(turn), |power| Some(power.then(turn)));
        let layout = |automorphism: Automorphism| {
            let serves = |layout: &&EvalKeyLayout| {
                layout.element() == automorphism.element() && layout.digits().level >= self.input.level
            };
            self.evaluation_keys.iter().find(serves).copied()
        };
        (1..1 << log).zip(powers).filter_map(|(step, power)| Some((step, layout(power)?))).collect()
    }
}

/// One step of a Program. Operands are tensors by their numbers: 0 is the input, `i + 1` the result
/// of step `i`.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A sum of integer linear maps. Operands with more limbs than others drop the last ones, and missing components are zero.
    Linear {
        /// At least one; all results have the same scale.
        terms: Vec<Term>,
        /// Integer-valued constants at this scale, added to the sum, one per channel.
        constants: Vec<f64>,
        /// Scale of the result.
        scale: Scale,
    },
    /// An activation polynomial.
    Activation {
        /// Tensor that it takes.
        operand: usize,
        /// The polynomial and what follows its products.
        activation: ActivationStep,
    },
    /// Maintenance of an activation's last product that was deferred until after the next linear
    /// maps.
    Maintenance {
        /// Tensor that it takes.
        operand: usize,
        /// Relinearisation, rescale, or both.
        maintenance: Maintenance,
        /// Scale of the result.
        scale: Scale,
    },
}

/// One map of a sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// Tensor that it takes.
    pub operand: usize,
    /// Weights.
    pub map: TermMap,
    /// Integer that the map's result is multiplied by, so that it has the scale of the sum; 1 for most.
    pub factor: f64,
}

/// What a term of a sum does.
#[derive(Clone, Debug, PartialEq)]
pub enum TermMap {
    /// A convolution, dense layer or pool.
    Dense(QuantisedMap),
    /// A factor for each channel; only in sums of several terms.
    Diagonal(DiagonalMap),
}

/// A term in real numbers.
pub struct PlainMap {
    geometry: Geometry,
    weights: Vec<f64>,
    constants: Option<Vec<f64>>,
}

impl PlainMap {
    /// The maps of a step; the first adds the constants.
    pub fn of(step: &Step) -> Vec<PlainMap> {
        let Step::Linear { terms, constants, scale } = step else { return Vec::new() };
        let plain = |(i, term): (usize, &Term)| {
            let (geometry, weights) = match &term.map {
                TermMap::Dense(map) => (map.geometry.clone(), map.real_weights()),
                TermMap::Diagonal(map) => {
                    (Geometry::diagonal(map.shape), map.factors.iter().map(|&f| f / map.weight_scale).collect())
                }
            };
            let constants = (i == 0).then(|| constants.iter().map(|&c| c / scale.value()).collect());
            PlainMap { geometry, weights, constants }
        };
        terms.iter().enumerate().map(plain).collect()
    }

    /// Of `[value][batch]`.
    pub fn apply(&self, values: &[f64], batch: usize) -> Vec<f64> {
        self.geometry.apply(&self.weights, self.constants.as_deref(), values, batch)
    }
}

impl Step {
    /// Tensors that it takes.
    pub fn operands(&self) -> Vec<usize> {
        match self {
            Step::Linear { terms, .. } => terms.iter().map(|term| term.operand).collect(),
            Step::Activation { operand, .. } | Step::Maintenance { operand, .. } => vec![*operand],
        }
    }

    /// Whether it acts on each lane by itself, in one operand.
    fn is_slotwise(&self) -> bool {
        match self {
            Step::Linear { terms, .. } => matches!(&terms[..], [Term { map: TermMap::Dense(_), .. }]),
            Step::Activation { activation, .. } => activation.is_lazy(),
            Step::Maintenance { .. } => false,
        }
    }
}

impl Program {
    /// The checked parameters.
    ///
    /// # Errors
    /// Never for a Program that the planner made.
    pub fn params(&self) -> Result<Params, cryptodl_core::ckks::ParamsError> {
        self.content.params.clone().build()
    }

    /// What a client must know.
    pub fn client_spec(&self) -> ClientSpec {
        let content = self.content.clone();
        ClientSpec {
            model: self.model.clone(),
            class_names: self.class_names.clone(),
            program: self.digest(),
            params: content.params,
            evaluation_keys: content.evaluation_keys,
            encryption: content.encryption,
            input: content.input,
            output: content.output,
        }
    }

    /// Chain limbs and components of every tensor's ciphertexts. Operands of a sum that have more
    /// limbs drop the last ones, and missing components are zero.
    pub fn ciphertext_shapes(&self) -> Vec<CiphertextShape> {
        let mut shapes = vec![CiphertextShape { level: self.content.input.level, components: 2 }];
        for step in &self.content.steps {
            let operands = step.operands().into_iter().map(|tensor| shapes[tensor]);
            let operand = operands.reduce(CiphertextShape::joined).expect("a step has an operand");
            shapes.push(match step {
                Step::Linear { .. } => operand,
                Step::Activation { activation, .. } => activation.trace(operand).result,
                Step::Maintenance { maintenance, .. } => maintenance.result(operand),
            });
        }
        shapes
    }

    /// By tensor, the steps that take it.
    pub fn readers(&self) -> Vec<Vec<usize>> {
        let mut readers = vec![Vec::new(); self.content.steps.len() + 1];
        for (i, step) in self.content.steps.iter().enumerate() {
            step.operands().into_iter().for_each(|tensor| readers[tensor].push(i));
        }
        readers
    }

    /// Steps that are executed together: slot-wise steps of which each only takes the result of the
    /// one before are fused, any other step stands alone.
    pub fn segments(&self) -> Vec<Range<usize>> {
        let (steps, readers) = (&self.content.steps, self.readers());
        let fuses = |i: usize| {
            let follows = steps[i].operands() == [i] && readers[i].len() == 1;
            i > 0 && follows && steps[i].is_slotwise() && steps[i - 1].is_slotwise()
        };
        let mut segments: Vec<Range<usize>> = Vec::new();
        for i in 0..steps.len() {
            match segments.last_mut() {
                Some(last) if fuses(i) => last.end = i + 1,
                _ => segments.push(i..i + 1),
            }
        }
        segments
    }

    /// Number of input values per image.
    pub fn inputs(&self) -> usize {
        self.content.input.shape.iter().product()
    }
}
