//! Why a network cannot be planned.

use cryptodl_core::ckks::{ParamsError, SpecError};

/// Planner errors; each says what would help.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlanError {
    /// No linear layer after the last activation.
    #[error("the network ends with an activation: its last layer must be linear (the label is the largest logit)")]
    EndsWithActivation,
    /// An activation's degree is out of range.
    #[error(
        "activation {layer} has degree {degree} over its calibrated range: 2 to {} are allowed",
        super::normalise::MAX_DEGREE
    )]
    Degree {
        /// Layer name.
        layer: String,
        /// Effective degree.
        degree: usize,
    },
    /// The model file lacks a calibration.
    #[error(
        "layer {layer} has no {field} in the model file: the planner needs it to bound values and noise; export it with the training recipe"
    )]
    MissingCalibration {
        /// Layer name.
        layer: String,
        /// The missing entry.
        field: &'static str,
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
    #[error("no schedule fits {model} at {security}-bit security: {nearest}. What would help: {help}")]
    DoesNotFit {
        /// Model name.
        model: String,
        /// Security level in bits.
        security: u32,
        /// What the nearest attempt lacked.
        nearest: String,
        /// What to change.
        help: String,
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
