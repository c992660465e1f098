//! The depth-budget driver, first half: fold, normalise, quantise, schedule, report.
//!
//! A network is planned once into a [`Program`]; nothing here touches a ciphertext, and nothing depends on the machine.
//! docs/planner.md says how, with formulas and an example.
#![forbid(unsafe_code)]

mod calibrate;
mod climb;
mod cost;
mod describe;
mod emit;
mod error;
mod fold;
mod gains;
mod limits;
mod lowered;
mod map;
mod normalise;
mod options;
mod prediction;
mod privacy;
mod quantise;
mod remedy;
mod report;
mod ring;
mod rings;
mod schedule;
mod scores;
mod search;
mod steps;
mod structures;
mod tolerance;
mod unpacking;
mod work;
mod worst;

pub use calibrate::calibrate;
pub use cost::CostTable;
pub use error::PlanError;
pub use map::RealMap;
pub use options::{DEFAULT_BATCH, PackingKind, PlanOptions, SMALL_BATCH, ScheduleKind};
pub use remedy::{PlanChoice, PlanRemedy};
pub use report::{BytesReport, ParamsReport, PlanNote, PlanReport, PrivacyReport, SegmentReport};
pub use tolerance::changed_share;
pub use work::Work;

use cryptodl_core::watch::Watch;
use cryptodl_network::Network;
use cryptodl_program::{Program, ProgramError, Tolerance};

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
    plan_watched(network, options, Watch::default())
}

/// [`plan`], which `watch` can end early.
///
/// # Errors
/// As [`plan`]; [`PlanError::Cancelled`].
pub fn plan_watched(network: &Network, options: &PlanOptions, watch: Watch<'_>) -> Result<Plan, PlanError> {
    let mut lowered = lower(network, options)?;
    checked(settle(network, &mut lowered, options, watch)?.plan)
}

/// A plan whose Program can be executed, and read again where it is saved.
fn checked(plan: Plan) -> Result<Plan, PlanError> {
    match plan.program.check() {
        Ok(_) => Ok(plan),
        Err(ProgramError::Map { step, source }) => {
            Err(PlanError::Map { layer: plan.program.names[step].clone(), source })
        }
        Err(error) => Err(PlanError::Program(std::sync::Arc::new(error))),
    }
}

/// How far each search moves from the limits of the one before to those that would have been right for what it found. What is right for
/// coarse weights is too strict for finer ones, so the first steps go half the way: else the cheapest schedules that keep the
/// promise are passed over.
const STEPS: [f64; 7] = [0.5, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0];

/// By how much tolerances differ that a refused network is tried at, to tell which one it fits at.
const LADDER: f64 = 2.0;
/// A hint that is nearer than this to what was tried last is no progress.
const LEAST_STEP: f64 = 1.05;

/// What the searches for a plan came to. The plan is unchecked.
struct Settled {
    outcome: search::Outcome,
    plan: Plan,
}

/// The network as the search sees it.
fn lower(network: &Network, options: &PlanOptions) -> Result<lowered::Lowered, PlanError> {
    let lowered = lowered::Lowered::new(network, options.tolerance_of(network)?)?;
    if options.circuit_privacy.is_some() {
        limits::check_worst(&lowered.stages)?;
    }
    Ok(lowered)
}

/// Finds a plan that keeps the promise. A refusal names a tolerance at which there is one, if one was found.
fn settle(
    network: &Network,
    lowered: &mut lowered::Lowered,
    options: &PlanOptions,
    watch: Watch<'_>,
) -> Result<Settled, PlanError> {
    let mut budget = search::Budget::new(watch);
    let (error, mut hint) = match settle_at(network, lowered, options, &mut budget) {
        Ok(settled) => return with_large_digits(network, lowered, options, settled, &mut budget),
        Err(Unfit { error, fits_at }) if error.depends_on_tolerance() => (*error, fits_at),
        Err(Unfit { error, .. }) => return Err(*error),
    };
    // What is stated has been planned: first at what the refusal suggests, then ever more.
    let mut tolerance = lowered.tolerance;
    while !budget.is_spent() {
        let further = |hint: &Tolerance| tolerance.times(LEAST_STEP).is_some_and(|least| hint.total() >= least.total());
        let next = hint.take().filter(further).or_else(|| tolerance.times(LADDER));
        let Some(next) = next else { break };
        tolerance = next;
        lowered.allow(tolerance);
        match settle_at(network, lowered, options, &mut budget) {
            Ok(_) => return Err(error.fitting_at(tolerance)),
            Err(Unfit { fits_at, .. }) => hint = fits_at,
        }
    }
    Err(error)
}

/// The plan with larger digits, where that is cheaper and keeps the promise as well.
fn with_large_digits(
    network: &Network,
    lowered: &lowered::Lowered,
    options: &PlanOptions,
    settled: Settled,
    budget: &mut search::Budget<'_>,
) -> Result<Settled, PlanError> {
    let found = search::with_large_digits(&network.name, lowered, options, &settled.outcome, budget)?;
    let Some(outcome) = found else { return Ok(settled) };
    let not_chosen = emit::not_chosen(lowered, &outcome);
    let emit::Judged { plan, prediction } = emit::finish(network, lowered, options, &outcome.best, not_chosen)?;
    let keeps = prediction.is_none_or(|prediction| prediction.keeps(lowered.tolerance));
    Ok(if keeps { Settled { outcome, plan } } else { settled })
}

/// Why a network does not fit, and a tolerance at which it may.
struct Unfit {
    error: Box<PlanError>,
    fits_at: Option<Tolerance>,
}

impl From<PlanError> for Unfit {
    fn from(error: PlanError) -> Self {
        Unfit { error: Box::new(error), fits_at: None }
    }
}

/// Searches, judges what is found by the per-image calibration where there is one, and searches again where it changes too many
/// labels or where the search refuses what would keep them.
fn settle_at(
    network: &Network,
    lowered: &mut lowered::Lowered,
    options: &PlanOptions,
    budget: &mut search::Budget<'_>,
) -> Result<Settled, Unfit> {
    let limits = lowered.limits;
    let mut needed: Option<Tolerance> = None;
    // What keeps the promise although a search refused it.
    let mut kept: Option<Settled> = None;
    let mut refused = false;
    for share in STEPS {
        let (best, outcome) = match search::search(&network.name, lowered, options, budget) {
            Ok(outcome) => (outcome.best.clone(), Ok(outcome)),
            Err(refusal) => match *refusal {
                search::Refusal { error, bearable: Some(found) } => (found, Err(error)),
                search::Refusal { error, bearable: None } => {
                    return kept.ok_or(Unfit { error: Box::new(error), fits_at: needed });
                }
            },
        };
        let not_chosen = outcome.as_ref().map_or(Vec::new(), |outcome| emit::not_chosen(lowered, outcome));
        let emit::Judged { plan, prediction } = emit::finish(network, lowered, options, &best, not_chosen)?;
        let noise = &plan.report.noise;
        let fits_at = Tolerance::at_least(noise.changed_by_encryption, noise.changed);
        let Some(prediction) = prediction else {
            return match outcome {
                Ok(outcome) => Ok(Settled { outcome, plan }),
                Err(error) => Err(Unfit { error: Box::new(error), fits_at }),
            };
        };
        let keeps = prediction.keeps(lowered.tolerance);
        if !keeps && prediction.crowding <= 1.0 {
            needed = needed.into_iter().chain(fits_at).reduce(Tolerance::min);
        }
        let share = match outcome {
            Ok(outcome) if keeps => return Ok(Settled { outcome, plan }),
            Ok(_) => share,
            Err(error) => {
                if keeps && kept.is_none() {
                    let outcome = search::Outcome { best: best.clone(), runners_up: Vec::new(), misses: Vec::new() };
                    kept = Some(Settled { outcome, plan });
                }
                // Told once by how much it is wrong, the search has the last word.
                if refused {
                    return kept.ok_or(Unfit { error: Box::new(error), fits_at: needed });
                }
                refused = true;
                1.0
            }
        };
        lowered.limits = prediction.correct(limits, lowered.limits, share, &lowered.output.margins, &best.walk);
    }
    let remedies = vec![PlanRemedy::LargerTolerance, PlanRemedy::Training];
    let error = PlanError::Unsettled { model: network.name.clone(), remedies };
    kept.ok_or(Unfit { error: Box::new(error), fits_at: needed })
}

/// The plan of `network`, and after it those of the runners-up that fit, in the order of their predicted time: for measuring
/// whether the chosen one is indeed the fastest.
///
/// # Errors
/// As [`plan`].
pub fn alternatives(network: &Network, options: &PlanOptions) -> Result<Vec<Plan>, PlanError> {
    let mut lowered = lower(network, options)?;
    let settled = settle(network, &mut lowered, options, Watch::default())?;
    let finish = |found| emit::finish(network, &lowered, options, found, Vec::new()).map(|judged| judged.plan);
    let runners_up = settled.outcome.runners_up.iter().map(finish);
    std::iter::once(Ok(settled.plan)).chain(runners_up).map(|plan| checked(plan?)).collect()
}

#[cfg(test)]
mod tests;
