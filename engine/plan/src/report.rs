//! What is predicted of a Program, for people and machines.

use std::fmt::{self, Display, Formatter};

use cryptodl_core::ckks::{CheckedSpec, Params, SecurityLevel};
use cryptodl_core::wire::{CiphertextLayout, ciphertexts_len, eval_keys_len, public_key_len};
use serde::Serialize;

use super::changed_share;
use super::lowered::Lowered;
use super::prediction::Prediction;
use super::privacy::CRYPTOGRAPHIC_BITS;
use super::schedule::Walk;

/// What is predicted of a Program.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// Model name.
    pub model: String,
    /// Digest of the Program.
    pub program: String,
    /// The schedule: ring, how each branch is factored, and what follows each product.
    pub schedule: String,
    /// Ring and chain.
    pub params: ParamsReport,
    /// Images that the schedule was optimised for.
    pub batch: usize,
    /// Slots of one ciphertext set.
    pub slots: usize,
    /// Most pixels of an image in a ciphertext of the upload: 1 where images are spread.
    pub pixels_per_ciphertext: u32,
    /// Who encrypts: `secret` or `public`.
    pub encryption: String,
    /// `log2` of the input scale.
    pub input_log_scale: f64,
    /// Segments in order; a fused segment is one entry.
    #[serde(rename = "layers")]
    pub segments: Vec<SegmentReport>,
    /// The share of labels that may change.
    pub tolerance: f64,
    /// Predicted noise of a logit: root mean square over slots, and at the worst slot; re-randomisation included.
    pub noise: NoiseReport,
    /// How the computation's noise is hidden from the client; none where it is not.
    pub circuit_privacy: Option<PrivacyReport>,
    /// Sizes in bytes for `batch` images.
    pub bytes: BytesReport,
    /// Predicted time of computing on the cost table's machine (one core), in seconds. The search also weighs the bytes that
    /// are sent; their time is not in it.
    pub predicted_seconds: f64,
    /// Predicted peak of ciphertext memory while one set is computed, in bytes, without tiling.
    pub peak_bytes: u64,
    /// Schedules that were not chosen.
    pub runners_up: Vec<RunnerUpReport>,
    /// What else should be known.
    pub notes: Vec<PlanNote>,
}

/// Something that should be known of a plan. Serialised as its text.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanNote {
    /// Leading terms were dropped from an activation.
    DroppedTerms {
        /// Name of the activation.
        activation: String,
        /// How many.
        terms: usize,
        /// Largest error over the calibrated range.
        error: f64,
    },
    /// Circuit privacy of so few bits that it hides nothing in the sense of cryptography.
    WeakPrivacy {
        /// Bits asked for, `T`.
        bits: u32,
    },
}

impl Display for PlanNote {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            PlanNote::DroppedTerms { activation, terms, error } => {
                write!(
                    f,
                    "{activation}: {terms} leading term(s) dropped, error at most {error:.1e} over the calibrated range"
                )
            }
            PlanNote::WeakPrivacy { bits } => write!(
                f,
                "{bits} bits of circuit privacy are below {CRYPTOGRAPHIC_BITS}: this slows an attacker down, but hides \
                 nothing in the sense of cryptography"
            ),
        }
    }
}

impl Serialize for PlanNote {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Ring and chain of a Program.
#[derive(Clone, Debug, Serialize)]
pub struct ParamsReport {
    /// Ring dimension.
    pub n: usize,
    /// `log2 Q`.
    pub log_q: f64,
    /// `log2 P`.
    pub log_p: f64,
    /// `log2 (Q P)`.
    pub log_qp: f64,
    /// Largest `log2 (Q P)` at the enforced level.
    pub log_qp_limit: u32,
    /// Strongest level of the table that these parameters meet.
    pub security_bits: u32,
    /// Chain primes.
    pub limbs: usize,
    /// The chain.
    pub primes: Vec<u32>,
    /// Special primes.
    pub special_primes: Vec<u32>,
}

/// A segment, or a step of one: the state after it and the work in it.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentReport {
    /// Names of its steps, joined by ` > `.
    pub name: String,
    /// Chain limbs after it.
    pub limbs: usize,
    /// Components after it.
    pub components: usize,
    /// `log2` of the scale after it.
    pub log_scale: f64,
    /// Calibrated magnitude of its values.
    pub bound: f64,
    /// Least bits to spare within it.
    pub headroom_bits: f64,
    /// `log2` of the predicted noise (rms) in units of its values.
    pub noise_bits: f64,
    /// The same at the worst slot.
    pub noise_bits_worst: f64,
    /// Multiply-adds per image, as executed.
    pub multiply_adds: u64,
    /// Multiply-adds per image of the network's layers in it, before anything was merged.
    #[serde(rename = "multiply_adds_published")]
    pub layer_multiply_adds: u64,
    /// Multiply-adds of a weight with a residue, per ciphertext set.
    pub residue_multiply_adds: u64,
    /// Transforms per ciphertext set.
    pub ntts: u64,
    /// Bytes of its result, per ciphertext set.
    pub bytes: u64,
    /// Size of its integer weights with sign: the largest is `2^(bits - 1) - 1`. Absent where there are none, and in a fused
    /// segment, whose steps have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<f64>,
    /// The steps of a fused segment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<SegmentReport>,
}

/// Predicted noise on a logit.
#[derive(Clone, Debug, Serialize)]
pub struct NoiseReport {
    /// Whether the model file has a per-image calibration. Without it everything here rests on histograms of single layers, and noise
    /// may be four times as large.
    pub calibrated: bool,
    /// `log2` of the encryption noise, root mean square over images and slots but for the largest hundredth.
    pub bits: f64,
    /// The same of the image and slot in the middle, where the model file has a per-image calibration.
    pub bits_median: Option<f64>,
    /// The same at the worst slot.
    pub bits_worst: f64,
    /// `log2` of the deviation that rounding weights makes.
    pub rounding_bits: f64,
    /// Predicted share of labels changed by encryption noise alone.
    pub changed_by_encryption: f64,
    /// The same with weight rounding.
    pub changed: f64,
    /// The share that may change if predictions are as far off as they can be: `changed` with a per-image calibration.
    pub changed_at_most: f64,
}

/// A flood that hides the computation's noise.
#[derive(Clone, Debug, Serialize)]
pub struct PrivacyReport {
    /// Sets that may be computed for one client.
    pub sets: u32,
    /// Bits asked for, `T`.
    pub bits: u32,
    /// `RHO = log2(scores N sets) / 2 + T`: bits by which the flood is wider than the noise that it hides.
    pub rho: f64,
    /// `log2` of the statistical distance of all results together from what shows nothing but the scores.
    pub log_distance: f64,
    /// `log2` of the bound on the hidden noise of a score, for the worst image of the calibrated ranges.
    pub noise_bits: f64,
    /// `log2` of the flood's deviation on a score.
    pub flood_bits: f64,
    /// Chain limbs of the result, after the flood and the division that follows it.
    pub limbs: usize,
    /// Components of the result.
    pub components: usize,
}

/// File sizes in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct BytesReport {
    /// Evaluation key.
    pub eval_key: u64,
    /// Public key.
    pub public_key: u64,
    /// Encrypted images.
    pub upload: u64,
    /// Encrypted scores.
    pub download: u64,
    /// `upload` divided by the images.
    pub upload_per_image: f64,
}

impl BytesReport {
    /// Exact sizes for `images` images.
    pub fn of(spec: &CheckedSpec, images: usize) -> Self {
        let params = spec.params();
        let upload = ciphertexts_len(params, &CiphertextLayout::input(spec), images as u64);
        BytesReport {
            eval_key: eval_keys_len(params, &spec.evaluation_keys),
            public_key: public_key_len(params),
            upload,
            download: ciphertexts_len(params, &CiphertextLayout::result(spec), images as u64),
            upload_per_image: upload as f64 / images as f64,
        }
    }
}

/// A schedule that was not chosen.
#[derive(Clone, Debug, Serialize)]
pub struct RunnerUpReport {
    /// What it does.
    pub schedule: String,
    /// Why it lost.
    pub reason: String,
}

/// How far predictions without a per-image calibration were off at most: two bits, for deep networks by encryption noise, for
/// squares without batch-norm by weight rounding.
const WIDER: f64 = 4.0;

impl NoiseReport {
    pub(super) fn new(lowered: &Lowered, walk: &Walk, prediction: Option<&Prediction>) -> Self {
        let margins = &lowered.output.margins;
        let total = libm::hypot(walk.noise.worst, walk.rounding);
        let bits_worst = libm::log2(walk.noise.worst);
        match prediction {
            None => NoiseReport {
                calibrated: false,
                bits: libm::log2(walk.noise.rms),
                bits_median: None,
                bits_worst,
                rounding_bits: libm::log2(walk.rounding),
                changed_by_encryption: changed_share(margins, walk.noise.worst),
                changed: changed_share(margins, total),
                changed_at_most: changed_share(margins, WIDER * total),
            },
            Some(prediction) => NoiseReport {
                calibrated: true,
                bits: libm::log2(prediction.typical),
                bits_median: Some(libm::log2(prediction.median)),
                // The search's ratio of the worst slot to all of them does not depend on images.
                bits_worst: libm::log2(prediction.rms * walk.noise.worst / walk.noise.rms),
                rounding_bits: libm::log2(prediction.rounding),
                changed_by_encryption: prediction.encryption,
                changed: prediction.total,
                changed_at_most: prediction.total,
            },
        }
    }
}

impl ParamsReport {
    /// Of checked parameters.
    pub fn of(params: &Params) -> Self {
        let spec = params.spec();
        ParamsReport {
            n: spec.n,
            log_q: params.log_q(params.chain_len()),
            log_p: params.log_p(),
            log_qp: params.log_qp(),
            log_qp_limit: spec.security.max_log_qp(spec.n),
            security_bits: SecurityLevel::of(spec.n, params.log_qp()).map_or(0, SecurityLevel::bits),
            limbs: params.chain_len(),
            primes: spec.primes.clone(),
            special_primes: spec.special_primes.clone(),
        }
    }
}
