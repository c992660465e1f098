//! The cryptographic Program: what client and server agree on to the last bit.

use cryptodl_core::backend::{Horner, PatersonStockmeyer, ProductPlan};
use cryptodl_core::ckks::{
    ClientSpec, Digest, EncryptionKind, InputLayout, OutputLayout, Params, ParamsSpec, RelinLayout, Scale,
};
use cryptodl_core::ring::RnsBasis;
use serde::Serialize;

use super::arrangement::{Arrangement, Product};
use super::normalise::Activation;
use super::{CircuitPrivacy, QuantisedMap, Tolerance};

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

/// One step of a Program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Step {
    /// An integer linear map.
    Linear {
        /// Weights and constants.
        map: QuantisedMap,
        /// Scale of the result.
        scale: Scale,
    },
    /// An activation polynomial.
    Activation(ActivationStep),
    /// What was planned after an activation's last product and waited for the linear maps after it.
    Reduction {
        /// Relinearisation, rescale, or both.
        plan: ProductPlan,
        /// Scale of the result.
        scale: Scale,
    },
}

/// An activation of a Program: integers at the scales of the places where they are added.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ActivationStep {
    /// Whether the monic part is negated.
    pub negate: bool,
    /// The monic part.
    pub polynomial: Polynomial,
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
        /// Whether the degree is odd.
        odd: bool,
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
        let polynomial = match Arrangement::with_products(degree, products.len()) {
            Arrangement::Horner => Polynomial::Horner(
                scales.iter().zip(&activation.constants).map(|(scale, &c)| scale.integer(c)).collect(),
            ),
            Arrangement::PatersonStockmeyer => {
                let form = activation.square_form();
                let odd = degree % 2 == 1;
                let places = std::iter::once(square_form_start(&scales, odd)).chain(scales[2..].iter().copied());
                let multiples = form.multiples.iter().enumerate();
                Polynomial::PatersonStockmeyer {
                    odd,
                    shift: scales[0].integer(form.shift),
                    constants: places.zip(&form.constants).map(|(scale, &c)| scale.integer(c)).collect(),
                    multiples: multiples.map(|(i, b)| libm::rint(b * multiple_scale(&scales, odd, i))).collect(),
                }
            }
        };
        ActivationStep { negate: activation.negate, polynomial, scales, products }
    }

    /// The form that backends take.
    pub fn prepare(&self, basis: &RnsBasis) -> PreparedPolynomial {
        match &self.polynomial {
            Polynomial::Horner(constants) => PreparedPolynomial::Horner(Horner::new(basis, self.negate, constants)),
            Polynomial::PatersonStockmeyer { odd, shift, constants, multiples } => {
                let prepared = PatersonStockmeyer::new(basis, self.negate, *odd, *shift, constants, multiples);
                PreparedPolynomial::PatersonStockmeyer(prepared)
            }
        }
    }

    /// Whether no product is relinearised or rescaled, in Horner's arrangement: then the step is slot-wise.
    pub fn is_lazy(&self) -> bool {
        matches!(self.polynomial, Polynomial::Horner(_)) && !self.products.iter().any(|plan| plan.acts())
    }

    /// Degree.
    pub fn degree(&self) -> usize {
        match &self.polynomial {
            Polynomial::Horner(constants) => constants.len(),
            Polynomial::PatersonStockmeyer { odd, multiples, .. } => 2 * multiples.len() + if *odd { 1 } else { 2 },
        }
    }

    /// The products on ciphertexts of `level` limbs and `components` components, and limbs and components of the result.
    pub fn trace(&self, level: usize, components: usize) -> (Vec<Product>, (usize, usize)) {
        let arrangement = Arrangement::with_products(self.degree(), self.products.len());
        arrangement.trace(self.degree(), &self.products, level, components)
    }

    /// Real value of the activation at `z`.
    pub fn evaluate(&self, z: f64) -> f64 {
        let real = |number: f64, scale: Scale| number / scale.value();
        let last = self.products.len() - 1;
        match &self.polynomial {
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
            Polynomial::PatersonStockmeyer { odd, shift, constants, multiples } => {
                let w = z * (z + real(*shift, self.scales[0]));
                let mut u = if *odd { z } else { w } + real(constants[0], square_form_start(&self.scales, *odd));
                for (i, (b, &c)) in multiples.iter().zip(&constants[1..]).enumerate() {
                    u = u * w + b / multiple_scale(&self.scales, *odd, i) * z;
                    if self.negate && i + 1 == last {
                        u = -u;
                    }
                    u += real(c, self.scales[i + 2]);
                }
                u
            }
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
    /// BLAKE3 of `"cryptodl program v1"` and the content in postcard encoding.
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"cryptodl program v1");
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

    /// Runs of steps that are executed together: slot-wise steps are fused, an activation that relinearises or rescales stands
    /// alone.
    pub fn segments(&self) -> Vec<std::ops::Range<usize>> {
        let slotwise = |step: &Step| match step {
            Step::Linear { .. } => true,
            Step::Activation(activation) => activation.is_lazy(),
            Step::Reduction { .. } => false,
        };
        let runs = self.content.steps.chunk_by(|a, b| slotwise(a) && slotwise(b));
        let ranges = runs.scan(0, |start, run| {
            let range = *start..*start + run.len();
            *start = range.end;
            Some(range)
        });
        ranges.collect()
    }

    /// Number of input values per image.
    pub fn inputs(&self) -> usize {
        self.content.input.shape.iter().product()
    }
}
