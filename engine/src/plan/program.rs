//! The cryptographic Program: what client and server agree on to the last bit.

use std::ops::Range;

use cryptodl_core::backend::{Horner, PatersonStockmeyer, ProductPlan};
use cryptodl_core::ckks::{
    ClientSpec, Digest, EncryptionKind, InputLayout, OutputLayout, Params, ParamsSpec, RelinLayout, Scale,
};
use cryptodl_core::ring::RnsBasis;
use serde::Serialize;

use super::arrangement::{Arrangement, Product};
use super::normalise::{Activation, Monic};
use super::{CircuitPrivacy, DiagonalMap, Geometry, QuantisedMap, Tolerance};

/// A planned network: a pure function of the model file and the planning flags.
#[derive(Clone, Debug, Serialize)]
pub struct Program {
    /// Model name, for people; not part of the digest.
    pub model: String,
    /// Names of the steps, for people; not part of the digest.
    pub names: Vec<String>,
    /// Everything that the digest covers.
    pub content: Content,
}

/// The part of a [`Program`] that decides every bit of a result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Content {
    /// Ring, chain, special primes.
    pub params: ParamsSpec,
    /// Relinearisation key, or none.
    pub relin: Option<RelinLayout>,
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
    /// How the computation's noise is hidden. Absent from the digest where it is not, so that such Programs keep theirs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit_privacy: Option<CircuitPrivacy>,
}

/// One step of a Program. Operands are values: 0 is the input, `i + 1` the result of step `i`.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
        /// Value that it takes.
        operand: usize,
        /// The polynomial and what follows its products.
        activation: ActivationStep,
    },
    /// What was planned after an activation's last product and waited for the linear maps after it.
    Reduction {
        /// Value that it takes.
        operand: usize,
        /// Relinearisation, rescale, or both.
        plan: ProductPlan,
        /// Scale of the result.
        scale: Scale,
    },
}

/// One map of a sum.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Term {
    /// Value that it takes.
    pub operand: usize,
    /// Weights.
    pub map: TermMap,
    /// Integer that the map's result is multiplied by, so that it has the scale of the sum; 1 for most.
    pub factor: f64,
}

/// What a term of a sum does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum TermMap {
    /// A convolution, dense layer or pool.
    Dense(QuantisedMap),
    /// A factor for each channel; only in sums of several terms.
    Diagonal(DiagonalMap),
}

/// A term in real numbers.
pub(crate) struct PlainMap {
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

    /// Of `[value][lane]`.
    pub fn apply(&self, values: &[f64], lanes: usize) -> Vec<f64> {
        self.geometry.apply(&self.weights, self.constants.as_deref(), values, lanes)
    }
}

impl Step {
    /// Values that it takes.
    pub fn operands(&self) -> Vec<usize> {
        match self {
            Step::Linear { terms, .. } => terms.iter().map(|term| term.operand).collect(),
            Step::Activation { operand, .. } | Step::Reduction { operand, .. } => vec![*operand],
        }
    }

    /// Whether it acts on each lane by itself, in one operand.
    fn is_slotwise(&self) -> bool {
        match self {
            Step::Linear { terms, .. } => matches!(&terms[..], [Term { map: TermMap::Dense(_), .. }]),
            Step::Activation { activation, .. } => activation.is_lazy(),
            Step::Reduction { .. } => false,
        }
    }
}

/// An activation of a Program: integers at the scales of the places where they are added.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ActivationStep {
    /// Whether the monic part is negated.
    pub negate: bool,
    /// Degree of the polynomial.
    pub degree: usize,
    /// The monic part, one for all channels, or one for each.
    pub channels: Vec<Polynomial>,
    /// Scale of the operand, then after each product.
    pub scales: Vec<Scale>,
    /// What follows each product.
    pub products: Vec<ProductPlan>,
}

/// Integer-valued numbers of a monic polynomial.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Polynomial {
    /// `c_(d-1), ..., c_0`: see [`Horner`].
    Horner(Vec<f64>),
    /// See [`PatersonStockmeyer`].
    PatersonStockmeyer {
        /// `w = z (z + shift)`.
        shift: f64,
        /// `c_0, c_1, ...`.
        constants: Vec<f64>,
        /// `b_1, b_2, ...`.
        multiples: Vec<f64>,
    },
}

/// The form of an activation that backends take.
#[derive(Clone, Debug)]
pub enum PreparedPolynomial {
    /// Horner's rule.
    Horner(Horner),
    /// Fewer products.
    PatersonStockmeyer(PatersonStockmeyer),
}

impl ActivationStep {
    /// Rounds a normalised activation whose operand and products have the given scales, `products.len() + 1` of them.
    pub(super) fn new(activation: &Activation, scales: Vec<Scale>, products: Vec<ProductPlan>) -> Self {
        let degree = activation.degree();
        let arrangement = Arrangement::with_products(degree, products.len());
        let polynomial = |channel: &Monic| match arrangement {
            Arrangement::Horner => {
                Polynomial::Horner(scales.iter().zip(&channel.constants).map(|(scale, &c)| scale.integer(c)).collect())
            }
            Arrangement::PatersonStockmeyer => {
                let form = channel.square_form();
                let odd = degree % 2 == 1;
                let places = std::iter::once(square_form_start(&scales, odd)).chain(scales[2..].iter().copied());
                let multiples = form.multiples.iter().enumerate();
                Polynomial::PatersonStockmeyer {
                    shift: scales[0].integer(form.shift),
                    constants: places.zip(&form.constants).map(|(scale, &c)| scale.integer(c)).collect(),
                    multiples: multiples.map(|(i, b)| libm::rint(b * multiple_scale(&scales, odd, i))).collect(),
                }
            }
        };
        let channels = activation.channels.iter().map(polynomial).collect();
        ActivationStep { negate: activation.negate, degree, channels, scales, products }
    }

    fn arrangement(&self) -> Arrangement {
        Arrangement::with_products(self.degree, self.products.len())
    }

    /// The form that backends take.
    pub fn prepare(&self, basis: &RnsBasis) -> PreparedPolynomial {
        // `[number][channel]`.
        let by_number = |of: fn(&Polynomial) -> Vec<f64>| -> Vec<f64> {
            let all: Vec<Vec<f64>> = self.channels.iter().map(of).collect();
            (0..all[0].len()).flat_map(|i| all.iter().map(move |numbers| numbers[i])).collect()
        };
        match self.arrangement() {
            Arrangement::Horner => {
                let constants = by_number(|polynomial| match polynomial {
                    Polynomial::Horner(constants) => constants.clone(),
                    Polynomial::PatersonStockmeyer { .. } => unreachable!("one arrangement for all channels"),
                });
                PreparedPolynomial::Horner(Horner::per_channel(basis, self.negate, self.channels.len(), &constants))
            }
            Arrangement::PatersonStockmeyer => {
                let parts: [fn(&Polynomial) -> Vec<f64>; 3] = [
                    |p| if let Polynomial::PatersonStockmeyer { shift, .. } = p { vec![*shift] } else { vec![] },
                    |p| {
                        if let Polynomial::PatersonStockmeyer { constants, .. } = p {
                            constants.clone()
                        } else {
                            vec![]
                        }
                    },
                    |p| {
                        if let Polynomial::PatersonStockmeyer { multiples, .. } = p {
                            multiples.clone()
                        } else {
                            vec![]
                        }
                    },
                ];
                let [shift, constants, multiples] = parts.map(by_number);
                let odd = self.degree % 2 == 1;
                let form = PatersonStockmeyer::per_channel(basis, self.negate, odd, &shift, &constants, &multiples);
                PreparedPolynomial::PatersonStockmeyer(form)
            }
        }
    }

    /// Whether no product is relinearised or rescaled, in Horner's arrangement: then the step is slot-wise.
    pub fn is_lazy(&self) -> bool {
        self.arrangement() == Arrangement::Horner && !self.products.iter().any(|plan| plan.acts())
    }

    /// The products on ciphertexts of `level` limbs and `components` components, and limbs and components of the result.
    pub fn trace(&self, level: usize, components: usize) -> (Vec<Product>, (usize, usize)) {
        self.arrangement().trace(self.degree, &self.products, level, components)
    }

    /// Real value of the activation at `z`, the `index`-th of `values` values.
    pub fn evaluate(&self, z: f64, index: usize, values: usize) -> f64 {
        let real = |number: f64, scale: Scale| number / scale.value();
        let last = self.products.len() - 1;
        match &self.channels[index / (values / self.channels.len())] {
            Polynomial::Horner(constants) => {
                let mut u = z + real(constants[0], self.scales[0]);
                for (i, (&c, &scale)) in constants.iter().zip(&self.scales).skip(1).enumerate() {
                    u *= z;
                    if self.negate && i == last {
                        u = -u;
                    }
                    u += real(c, scale);
                }
                u
            }
            Polynomial::PatersonStockmeyer { shift, constants, multiples } => {
                let odd = self.degree % 2 == 1;
                let w = z * (z + real(*shift, self.scales[0]));
                let mut u = if odd { z } else { w } + real(constants[0], square_form_start(&self.scales, odd));
                for (i, (b, &c)) in multiples.iter().zip(&constants[1..]).enumerate() {
                    u = u * w + b / multiple_scale(&self.scales, odd, i) * z;
                    if self.negate && i + 1 == last {
                        u = -u;
                    }
                    u += real(c, self.scales[i + 2]);
                }
                u
            }
        }
    }

    /// The same of every value in `[value][lane]`.
    pub(crate) fn apply(&self, values: &mut [f64], lanes: usize) {
        let count = values.len() / lanes;
        for (index, row) in values.chunks_exact_mut(lanes).enumerate() {
            row.iter_mut().for_each(|z| *z = self.evaluate(*z, index, count));
        }
    }
}

/// Scale of the first `u` in Paterson and Stockmeyer's arrangement: that of `z` or of `w`.
fn square_form_start(scales: &[Scale], odd: bool) -> Scale {
    scales[usize::from(!odd)]
}

/// What turns the real multiple of the i-th step (from 0) into an integer: the scale of its product `u w` over that of `z`.
fn multiple_scale(scales: &[Scale], odd: bool, i: usize) -> f64 {
    let u = if i == 0 { square_form_start(scales, odd) } else { scales[i + 1] };
    u.value() * scales[1].value() / scales[0].value()
}

impl Program {
    /// BLAKE3 of `"cryptodl program v2"` and the content in postcard encoding.
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"cryptodl program v2");
        hasher.update(&postcard::to_stdvec(&self.content).expect("plain data always encodes"));
        Digest(hasher.finalize().into())
    }

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
            program: self.digest(),
            params: content.params,
            relin: content.relin,
            encryption: content.encryption,
            input: content.input,
            output: content.output,
        }
    }

    /// Chain limbs and components of every value. Operands of a sum that have more limbs drop the last ones, and missing components
    /// are zero.
    pub fn extents(&self) -> Vec<(usize, usize)> {
        let mut extents = vec![(self.content.input.level, 2)];
        for step in &self.content.steps {
            let operands = step.operands().into_iter().map(|value| extents[value]);
            let (level, components) =
                operands.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).expect("a step has an operand");
            extents.push(match step {
                Step::Linear { .. } => (level, components),
                Step::Activation { activation, .. } => activation.trace(level, components).1,
                Step::Reduction { plan, .. } => plan.result(level, components),
            });
        }
        extents
    }

    /// By value, the steps that take it.
    pub fn readers(&self) -> Vec<Vec<usize>> {
        let mut readers = vec![Vec::new(); self.content.steps.len() + 1];
        for (i, step) in self.content.steps.iter().enumerate() {
            step.operands().into_iter().for_each(|value| readers[value].push(i));
        }
        readers
    }

    /// Runs of steps that are executed together: slot-wise steps that only take each other's results are fused, any other step stands
    /// alone.
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
