//! What may help where a network cannot be planned.

use std::fmt::{self, Display, Formatter};

use super::Tolerance;

/// A number among the planner's options that must lie in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlanChoice {
    /// [`PlanOptions::batch`](super::PlanOptions::batch).
    Batch,
    /// [`PlanOptions::n`](super::PlanOptions::n).
    RingDimension,
    /// [`PlanOptions::limbs`](super::PlanOptions::limbs).
    Limbs,
    /// [`PlanOptions::prime_bits`](super::PlanOptions::prime_bits).
    PrimeBits,
    /// [`PlanOptions::weight_bits`](super::PlanOptions::weight_bits).
    WeightBits,
    /// [`PlanOptions::input_log_scale`](super::PlanOptions::input_log_scale).
    InputScaleBits,
    /// The sets of [`PlanOptions::circuit_privacy`](super::PlanOptions::circuit_privacy).
    PrivacySets,
    /// The bits of [`PlanOptions::circuit_privacy`](super::PlanOptions::circuit_privacy).
    PrivacyBits,
}

impl Display for PlanChoice {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PlanChoice::Batch => "the number of images to optimise for",
            PlanChoice::RingDimension => "the ring dimension",
            PlanChoice::Limbs => "the number of primes in the chain",
            PlanChoice::PrimeBits => "the size of the primes in bits",
            PlanChoice::WeightBits => "the size of the weights in bits",
            PlanChoice::InputScaleBits => "the size of the input's scale in bits",
            PlanChoice::PrivacySets => "the number of sets of circuit privacy",
            PlanChoice::PrivacyBits => "the number of bits of circuit privacy",
        })
    }
}

/// What may help where a network cannot be planned: another option, or another network.
#[derive(Debug, Clone, PartialEq)]
pub enum PlanRemedy {
    /// A larger tolerance at which the network was planned.
    Tolerance(Tolerance),
    /// A larger tolerance, which may be enough.
    LargerTolerance,
    /// Leaving choices to the planner that are pinned.
    FewerPins(Vec<PlanChoice>),
    /// A schedule that is not layer by layer.
    AutoSchedule,
    /// Activations of lower degree.
    LowerDegree,
    /// Fewer activations.
    FewerActivations,
    /// Weights that were trained for it.
    Training,
    /// A ring dimension above the pinned one.
    LargerRing,
    /// A lower security level than the one asked for.
    LowerSecurity,
    /// Circuit privacy of fewer sets or bits.
    LessPrivacy,
    /// No circuit privacy.
    NoPrivacy,
    /// Fewer layers.
    FewerLayers,
    /// Fewer layers between two activations.
    FewerLayersBetweenActivations,
    /// Fewer channels.
    FewerChannels,
    /// Smaller images.
    SmallerImages,
    /// Smaller kernels of convolutions.
    SmallerKernels,
    /// Smaller pooling windows.
    SmallerPools,
    /// A calibration that this version measured.
    NewCalibration,
}

impl PlanRemedy {
    /// `remedies` in one sentence's end.
    pub(super) fn all(remedies: &[PlanRemedy]) -> String {
        remedies.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

impl Display for PlanRemedy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PlanRemedy::Tolerance(tolerance) => {
                return write!(f, "a tolerance of {}, at which it fits", tolerance.percent());
            }
            PlanRemedy::FewerPins(pins) => {
                let pins: Vec<String> = pins.iter().map(ToString::to_string).collect();
                return write!(f, "fewer pinned choices ({})", pins.join(", "));
            }
            PlanRemedy::LargerTolerance => "a larger tolerance",
            PlanRemedy::AutoSchedule => "the automatic schedule instead of the layered one",
            PlanRemedy::LowerDegree => "activations of lower degree",
            PlanRemedy::FewerActivations => "fewer activations",
            PlanRemedy::Training => "training with larger margins and with weights that are rounded to few bits",
            PlanRemedy::LargerRing => "a larger ring dimension",
            PlanRemedy::LowerSecurity => "a lower security level",
            PlanRemedy::LessPrivacy => "fewer sets or bits of circuit privacy",
            PlanRemedy::NoPrivacy => "no circuit privacy",
            PlanRemedy::FewerLayers => "fewer layers",
            PlanRemedy::FewerLayersBetweenActivations => "fewer layers between activations",
            PlanRemedy::FewerChannels => "fewer channels",
            PlanRemedy::SmallerImages => "smaller images",
            PlanRemedy::SmallerKernels => "smaller kernels",
            PlanRemedy::SmallerPools => "smaller pools",
            PlanRemedy::NewCalibration => "a calibration that this version measured",
        })
    }
}
