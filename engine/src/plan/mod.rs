//! The depth-budget driver, first half: fold, normalise, quantise, schedule, report.
//!
//! A network is planned once into a [`Program`]; nothing here touches a ciphertext, and nothing depends on the machine.

mod arrangement;
mod cost;
mod error;
mod fold;
mod gains;
mod geometry;
mod lowered;
mod map;
mod normalise;
mod options;
mod program;
mod quantise;
mod report;
mod schedule;
mod search;
mod tolerance;
mod work;

pub use arrangement::Product;
pub use error::PlanError;
pub use geometry::Geometry;
pub use map::RealMap;
pub use options::{DEFAULT_BATCH, PlanOptions, ScheduleKind};
pub use program::{ActivationStep, Content, Polynomial, PreparedPolynomial, Program, Step};
pub use quantise::QuantisedMap;
pub use report::{BytesReport, LayerReport, ParamsReport, PlanReport};
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
    let (found, runners_up) = search::search(&network.name, &lowered, options)?;
    report::finish(network, &lowered, options, found, runners_up)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
