//! Why a network cannot be planned.

use cryptodl_core::ckks::{ParamsError, SpecError};

/// Planner errors; each says what would help.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlanError {
    /// No linear layer after the last activation.
    #[error("the network ends with an activation: its last layer must be linear (the label is the largest logit)")]
    EndsWithActivation,
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
        "layer {layer} has no {field} in the model file: the planner needs it to bound values and noise; `cryptodl calibrate` measures everything that is missing on images"
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
        "the calibration file does not fit the network as this version folds it (at {place}): measure it again with `cryptodl calibrate`"
    )]
    StaleCalibration {
        /// Where it differs.
        place: String,
    },
    /// The network is too large to be planned.
    #[error("the network is too large: {what} is {found}, and at most {limit} is supported. What would help: {help}")]
    TooLarge {
        /// What is counted.
        what: String,
        /// How many there are, or how many there were when counting ended.
        found: u64,
        /// How many there may be.
        limit: u64,
        /// What to change.
        help: &'static str,
    },
    /// A pinned choice is out of range.
    #[error("{what} = {value} is not allowed: {allowed}")]
    Pin {
        /// The flag.
        what: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// Nothing fits.
    #[error(
        "no schedule fits {model} at {security}-bit security with {tolerance} of the labels allowed to change: {nearest}. What would help: {}{help}",
        .fits_at.as_ref().map(|tolerance| format!("--tolerance {tolerance}, at which it fits; ")).unwrap_or_default()
    )]
    DoesNotFit {
        /// Model name.
        model: String,
        /// Security level in bits.
        security: u32,
        /// Labels that may change, as a percentage.
        tolerance: String,
        /// What the nearest attempt lacked.
        nearest: String,
        /// A tolerance at which it was planned, if one was found.
        fits_at: Option<String>,
        /// What to change.
        help: String,
    },
    /// Schedules that seem to fit keep changing too many labels.
    #[error(
        "no schedule found for {model} keeps as many labels as its calibration asks for{}: allow more to change with --tolerance, or see `cryptodl calibrate --help` for training",
        .fits_at.as_ref().map(|tolerance| format!(" (--tolerance {tolerance} would do)")).unwrap_or_default()
    )]
    Unsettled {
        /// Model name.
        model: String,
        /// A tolerance at which it was planned, if one was found.
        fits_at: Option<String>,
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
    pub(super) fn fitting_at(mut self, tolerance: super::Tolerance) -> Self {
        if let PlanError::DoesNotFit { fits_at, .. } | PlanError::Unsettled { fits_at, .. } = &mut self {
            *fits_at = Some(tolerance.percent());
        }
        self
    }
}
