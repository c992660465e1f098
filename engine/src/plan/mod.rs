//! The depth-budget driver, first half: fold, normalise, quantise, schedule, report.
//!
//! A network is planned once into a [`Program`]; nothing here touches a ciphertext, and nothing depends on the machine.

mod arrangement;
mod cost;
mod error;
mod fold;
mod gains;
mod geometry;
mod limits;
mod lowered;
mod map;
mod normalise;
mod options;
mod privacy;
mod program;
mod quantise;
mod report;
mod schedule;
mod search;
mod tolerance;
mod work;
mod worst;

pub use arrangement::Product;
pub use cost::CostTable;
pub use error::PlanError;
pub use geometry::Geometry;
pub use map::RealMap;
pub use options::{DEFAULT_BATCH, PlanOptions, ScheduleKind};
pub use privacy::{CircuitPrivacy, PrivacyGoal};
pub use program::{ActivationStep, Content, Polynomial, PreparedPolynomial, Program, Step};
pub use quantise::QuantisedMap;
pub use report::{BytesReport, LayerReport, ParamsReport, PlanReport, PrivacyReport};
pub use tolerance::changed_share;
pub use work::Work;

pub(crate) use gains::SplitMix;

use cryptodl_models::network::Network;

/// A Program with what was predicted of it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is executed.
    pub program: Program,
    /// What is predicted.
    pub report: PlanReport,
}

/// Plans `network`: a pure function of the network and the options.
///
/// # Errors
/// [`PlanError`]: bad pins, missing calibrations, or a budget that does not fit, with what would help.
pub fn plan(network: &Network, options: &PlanOptions) -> Result<Plan, PlanError> {
    let lowered = lowered::Lowered::new(network)?;
    let outcome = search::search(&network.name, &lowered, options)?;
    report::finish(network, &lowered, options, &outcome.best, report::not_chosen(&lowered, &outcome))
}

/// The plan of `network`, and after it those of the runners-up that fit, in the order of their predicted time: for measuring
/// whether the chosen one is indeed the fastest.
///
/// # Errors
/// As [`plan`].
pub fn alternatives(network: &Network, options: &PlanOptions) -> Result<Vec<Plan>, PlanError> {
    let lowered = lowered::Lowered::new(network)?;
    let outcome = search::search(&network.name, &lowered, options)?;
    let all = std::iter::once(&outcome.best).chain(&outcome.runners_up);
    all.map(|found| report::finish(network, &lowered, options, found, Vec::new())).collect()
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
