//! Why a network cannot be planned.

use cryptodl_core::ckks::{ParamsError, SpecError};
use cryptodl_program::Tolerance;

use super::{PlanChoice, PlanRemedy};

/// Planner errors; each says what would help.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlanError {
    /// No linear layer after the last activation.
    #[error("the network ends with an activation: its last layer must be linear (the label is the largest logit)")]
    EndsWithActivation,
    /// What was planned cannot be executed: a fault of the planner.
    #[error("the planner made a Program that is refused; please report it: {0}")]
    Program(std::sync::Arc<cryptodl_program::ProgramError>),
    /// Whoever watches has ended it.
    #[error(transparent)]
    Cancelled(#[from] cryptodl_core::watch::Cancelled),
    /// The model file's tolerance is none.
    #[error("the model file: {0}")]
    Tolerance(#[from] cryptodl_program::ToleranceError),
    /// An activation's degree is out of range.
    #[error(
        "activation {layer} has degree {degree} over its calibrated range: 2 to {} are allowed",
        cryptodl_program::MAX_DEGREE
    )]
    Degree {
        /// Layer name.
        layer: String,
        /// Effective degree.
        degree: usize,
    },
    /// The model file lacks a calibration.
    #[error(
        "layer {layer} has no {field}: the planner needs it to bound values and noise, and a calibration measures \
         everything that is missing on images"
    )]
    MissingCalibration {
        /// Layer name.
        layer: String,
        /// The missing entry.
        field: &'static str,
    },
    /// A channel whose activation has a lower degree than the others'.
    #[error(
        "activation {layer}: the leading coefficient of channel {channel} is zero, and all channels must have the same degree; train with leading coefficients that stay away from zero (for example within a factor of 4 of each other)"
    )]
    VanishingChannel {
        /// Layer name.
        layer: String,
        /// Which channel, from 0.
        channel: usize,
    },
    /// The per-image calibration is of another network, or of another version of the planner.
    #[error(
        "the calibration does not fit the network as this version folds it (at {place}): it must be measured again"
    )]
    StaleCalibration {
        /// Where it differs.
        place: String,
    },
    /// The network is too large to be planned.
    #[error(
        "the network is too large: {what} is {found}, and at most {limit} is supported. What would help: {}",
        PlanRemedy::all(.remedies)
    )]
    TooLarge {
        /// What is counted.
        what: String,
        /// How many there are, or how many there were when counting ended.
        found: u64,
        /// How many there may be.
        limit: u64,
        /// What may help.
        remedies: Vec<PlanRemedy>,
    },
    /// A number among the options is out of range.
    #[error("{choice} is {value}, but must be {allowed}")]
    OutOfRange {
        /// Which one.
        choice: PlanChoice,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// Nothing fits.
    #[error(
        "no schedule fits {model} at {security}-bit security with {} of the labels allowed to change: {nearest}. \
         What would help: {}",
        .tolerance.percent(),
        PlanRemedy::all(.remedies)
    )]
    DoesNotFit {
        /// Model name.
        model: String,
        /// Security level in bits.
        security: u32,
        /// The share of labels that may change.
        tolerance: Tolerance,
        /// What the nearest attempt lacked.
        nearest: String,
        /// What may help; first a tolerance at which it was planned, if one was found.
        remedies: Vec<PlanRemedy>,
    },
    /// Schedules that seem to fit keep changing too many labels.
    #[error(
        "no schedule found for {model} keeps as many labels as its calibration asks for. What would help: {}",
        PlanRemedy::all(.remedies)
    )]
    Unsettled {
        /// Model name.
        model: String,
        /// What may help; first a tolerance at which it was planned, if one was found.
        remedies: Vec<PlanRemedy>,
    },
    /// Parameters refused.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// A Program that its clients would refuse.
    #[error("no client would accept this network's client.spec: {0}")]
    Spec(#[from] SpecError),
    /// A map beyond the kernels' exactness bounds.
    #[error("layer {layer}: {source}")]
    Map {
        /// Layer name.
        layer: String,
        /// What the kernels refuse.
        source: cryptodl_core::backend::LinearMapError,
    },
}

impl PlanError {
    /// Whether another tolerance may help.
    pub(super) fn depends_on_tolerance(&self) -> bool {
        matches!(self, PlanError::DoesNotFit { .. } | PlanError::Unsettled { .. })
    }

    /// With a tolerance at which the network fits.
    pub(super) fn fitting_at(mut self, tolerance: Tolerance) -> Self {
        if let PlanError::DoesNotFit { remedies, .. } | PlanError::Unsettled { remedies, .. } = &mut self {
            remedies.retain(|remedy| *remedy != PlanRemedy::LargerTolerance);
            remedies.insert(0, PlanRemedy::Tolerance(tolerance));
        }
        self
    }

    /// What may help, the most promising first; nothing where the error itself says what is allowed.
    pub fn remedies(&self) -> &[PlanRemedy] {
        match self {
            PlanError::TooLarge { remedies, .. }
            | PlanError::DoesNotFit { remedies, .. }
            | PlanError::Unsettled { remedies, .. } => remedies,
            PlanError::StaleCalibration { .. } | PlanError::MissingCalibration { .. } => &[PlanRemedy::NewCalibration],
            _ => &[],
        }
    }
}
