//! The cryptographic Program: what client and server agree on to the last bit.

use cryptodl_core::backend::{Horner, ProductPlan};
use cryptodl_core::ckks::{
    ClientSpec, Digest, EncryptionKind, InputLayout, OutputLayout, Params, ParamsSpec, RelinLayout, Scale,
};
use cryptodl_core::ring::RnsBasis;
use serde::Serialize;

use super::QuantisedMap;

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
    /// Input.
    pub input: InputLayout,
    /// Steps in order.
    pub steps: Vec<Step>,
    /// Output.
    pub output: OutputLayout,
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
}

/// An activation of a Program: integers at the scales of the places where they are added.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ActivationStep {
    /// Whether the monic part is negated.
    pub negate: bool,
    /// Integer-valued `c_(d-1), ..., c_0`.
    pub constants: Vec<f64>,
    /// Scale at each place: before the first product, then after each.
    pub scales: Vec<Scale>,
    /// What follows each product.
    pub products: Vec<ProductPlan>,
}

impl ActivationStep {
    /// The form that backends take.
    pub fn prepare(&self, basis: &RnsBasis) -> Horner {
        Horner::new(basis, self.negate, &self.constants)
    }

    /// Whether no product is relinearised or rescaled, so that the step is slot-wise.
    pub fn is_lazy(&self) -> bool {
        self.products.iter().all(|plan| *plan == ProductPlan::default())
    }

    /// Real value of the activation at `z`.
    pub fn evaluate(&self, z: f64) -> f64 {
        let real = |i: usize| self.constants[i] / self.scales[i].value();
        let mut u = z + real(0);
        for step in 1..self.constants.len() {
            u *= z;
            if self.negate && step + 1 == self.constants.len() {
                u = -u;
            }
            u += real(step);
        }
        u
    }
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
