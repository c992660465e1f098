//! The scales of one structure on one ring: a climb from coarse weights to fine ones.

use std::ops::RangeInclusive;

use cryptodl_core::ckks::{EncryptionKind, noise};
use rayon::prelude::*;

use super::PlanError;
use super::lowered::Lowered;
use super::options::{INPUT_HALF_BITS, PRIVATE_INPUT_HALF_BITS, PlanOptions};
use super::quantise::WEIGHT_HALF_BITS;
use super::schedule::{Ring, Settings, Structure, Walk, walk};
use super::search::walking_work;
use super::steps::Steps;
use super::tolerance::Limits;
use super::worst::MARGIN;

/// Most bits of modulus that a refusal speaks of.
const LARGEST_LACK: f64 = 1000.0;

/// Work that one climb of an attempt may do, in the same units.
const MAX_CLIMB_WORK: u64 = 1 << 25;

/// Added to the shortage of a candidate that lacks modulus, so that any that only has too much noise is nearer.
pub(super) const LACKS: f64 = 100.0;

/// What became of a candidate.
pub(super) enum Attempt {
    /// At these scales it fits.
    Fits(Box<Walk>),
    /// By how much it does not, and why.
    Fails { shortage: f64, reason: String },
}

/// For every input scale that can work, climbs from the coarsest weights, each time refining the factor that lowers the noise
/// most, while the headroom lasts; keeps the best of all. Also returns the work that it took.
pub(super) fn try_settings(
    network: &Lowered,
    options: &PlanOptions,
    structure: &Structure,
    ring: &Ring,
    limits: Limits,
) -> Result<(Attempt, u64), PlanError> {
    let factors: usize = structure.factors.iter().map(Vec::len).sum();
    let steps = Steps::new(network, structure);
    let uniform = |input_half_bits: u32, half_bits: u32| {
        let mut weight_half_bits = vec![options.weight_half_bits.unwrap_or(half_bits); factors];
        // The last factor gives up to one bit away, so that the output scale becomes a power of two.
        if let (None, Some(last)) = (options.weight_half_bits, weight_half_bits.last_mut()) {
            *last = (half_bits + 2).min(*WEIGHT_HALF_BITS.end());
        }
        Settings { input_half_bits, weight_half_bits }
    };
    let follow =
        |settings: &Settings| walk(network, &steps, ring, settings, options.encryption, options.circuit_privacy);
    let strain = |walk: &Walk| walk.strain(&limits);
    let per_walk = walking_work(structure.size(), options.circuit_privacy);
    // What became of a climb, and what it took.
    let climb = |(input_half_bits, mut stride): (u32, u32)| {
        // The finest weights bound the noise from below, the coarsest bound the headroom from above.
        let mut settings = uniform(input_half_bits, *WEIGHT_HALF_BITS.start());
        let mut current = follow(&settings)?;
        if current.headroom < 0.0 {
            return Ok((Climb::Lacks(-current.headroom), per_walk));
        }
        let least = strain(&follow(&uniform(input_half_bits, *WEIGHT_HALF_BITS.end()))?);
        let mut work = 2 * per_walk;
        if least > 1.0 {
            return Ok((Climb::Strained(least), work));
        }
        let mut best = (strain(&current), current.clone());
        loop {
            let mut step: Option<(f64, Settings, Walk)> = None;
            for i in (0..factors).filter(|_| options.weight_half_bits.is_none()) {
                let mut finer = settings.clone();
                finer.weight_half_bits[i] += stride;
                if finer.weight_half_bits[i] > *WEIGHT_HALF_BITS.end() {
                    continue;
                }
                let walk = follow(&finer)?;
                work += per_walk;
                if walk.headroom >= 0.0 && step.as_ref().is_none_or(|(least, ..)| strain(&walk) < *least) {
                    step = Some((strain(&walk), finer, walk));
                }
            }
            let Some((strain, finer, walk)) = step.filter(|_| work <= MAX_CLIMB_WORK) else {
                if stride > 1 && work <= MAX_CLIMB_WORK {
                    stride -= 1;
                    continue;
                }
                return Ok((Climb::Reached(best.0, Box::new(best.1)), work));
            };
            (settings, current) = (finer, walk);
            if strain < best.0 {
                best = (strain, current.clone());
            }
        }
    };
    let scales = options.input_half_bits.map_or_else(|| input_scales(network, options, ring), |pinned| pinned..=pinned);
    // Larger scales lack more, so one look spares all of them.
    let lacks = -follow(&uniform(*scales.start(), *WEIGHT_HALF_BITS.start()))?.headroom;
    if lacks > 0.0 {
        return Ok((out_of_modulus(lacks), per_walk));
    }
    // By half bits only, and by whole bits as long as the headroom bears it: neither is always the better way up. Pinned weights
    // have no way up.
    let strides = if options.weight_half_bits.is_some() { 1..=1 } else { 1..=2 };
    let ways: Vec<(u32, u32)> = scales.flat_map(|scale| strides.clone().map(move |stride| (scale, stride))).collect();
    let climbs: Vec<(Climb, u64)> = ways.into_par_iter().map(climb).collect::<Result<_, PlanError>>()?;
    let work = climbs.iter().map(|(_, work)| work).sum();
    let mut lacking = 0.0;
    let mut least_strain = f64::INFINITY;
    let mut best: Option<(f64, Box<Walk>)> = None;
    for (climb, _) in climbs {
        match climb {
            // Larger scales lack more.
            Climb::Lacks(bits) => {
                lacking = bits;
                break;
            }
            Climb::Strained(strain) => least_strain = least_strain.min(strain),
            Climb::Reached(strain, walk) => {
                if best.as_ref().is_none_or(|(least, _)| strain < *least) {
                    best = Some((strain, walk));
                }
            }
        }
    }
    let attempt = match best {
        Some((strain, walk)) if strain <= 1.0 => Attempt::Fits(walk),
        None if least_strain.is_infinite() => out_of_modulus(lacking),
        _ => {
            let shortage = 0.5 * libm::log2(best.map_or(least_strain, |(strain, _)| strain));
            let excess = if shortage < 0.05 { "slightly".into() } else { format!("{shortage:.1} bits") };
            let reason = format!("has {excess} too much noise for the labels at the scales that fit");
            Attempt::Fails { shortage, reason }
        }
    };
    Ok((attempt, work))
}

fn out_of_modulus(lacking: f64) -> Attempt {
    // Scales that leave the range of a number lack more than can be said.
    let lacking = lacking.min(LARGEST_LACK);
    let more = if lacking == LARGEST_LACK { "at least " } else { "" };
    let reason = format!("lacks {more}{lacking:.1} bits of modulus even at the coarsest scales");
    Attempt::Fails { shortage: LACKS + lacking, reason }
}

/// Input scales worth a try, as `2 log2`. Where noise is to be hidden, those at which a flood that hides the noise of the fresh
/// ciphertexts alone leaves the labels as they are, and what the rest may need on top.
fn input_scales(network: &Lowered, options: &PlanOptions, ring: &Ring) -> RangeInclusive<u32> {
    const ON_TOP: u32 = 24;
    let Some(goal) = options.circuit_privacy else {
        return INPUT_HALF_BITS;
    };
    let fresh = match options.encryption {
        EncryptionKind::Secret => noise::fresh_secret(ring.n),
        EncryptionKind::Public => noise::fresh_public(ring.n, ring.log_p()),
    };
    let hidden = fresh.worst * network.worst_gains().from(0) * MARGIN;
    let log_scale = goal.rho(ring.n, network.scores()) + libm::log2(hidden / network.limits.encryption);
    let (least, most) = (*PRIVATE_INPUT_HALF_BITS.start(), *PRIVATE_INPUT_HALF_BITS.end());
    let start = libm::floor(2.0 * log_scale).clamp(f64::from(least), f64::from(most)) as u32;
    start..=(start + ON_TOP).min(most)
}

/// What became of one input scale.
enum Climb {
    /// Not even the coarsest weights leave headroom; the bits that lack.
    Lacks(f64),
    /// Not even the finest weights are precise enough; their strain.
    Strained(f64),
    /// The best strain on the way up, and its walk.
    Reached(f64, Box<Walk>),
}
