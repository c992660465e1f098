//! The scales of one structure on one ring: a climb from coarse weights to fine ones.

use std::ops::RangeInclusive;

use cryptodl_core::ckks::{EncryptionKind, noise};
use rayon::prelude::*;

use super::PlanError;
use super::lowered::{Factor, Lowered};
use super::options::{INPUT_LOG_SCALES, PRIVATE_INPUT_LOG_SCALES, PlanOptions, half_bit_steps};
use super::quantise::WEIGHT_BITS;
use super::ring::Ring;
use super::schedule::{Settings, Structure, Walk, walk};
use super::search::walking_work;
use super::steps::Steps;
use super::tolerance::Limits;
use super::worst::MARGIN;

/// Most bits of modulus that a refusal speaks of.
const LARGEST_LACK: f64 = 1000.0;

/// Work that one climb of an attempt may do, in the same units.
const MAX_CLIMB_WORK: u64 = 1 << 25;

/// The smallest step between sizes of weights, in bits.
const HALF_BIT: f64 = 0.5;

/// Added to the shortage of a candidate that lacks modulus, so that any that only has too much noise is nearer.
pub(super) const LACKS: f64 = 100.0;

/// What became of a candidate.
pub(super) enum Attempt {
    /// At these scales it fits.
    Fits(Box<Walk>),
    /// By how much it does not, and why.
    Fails { shortage: f64, reason: String },
}

/// An attempt, and the work that it took.
pub(super) struct Tried {
    pub(super) attempt: Attempt,
    pub(super) work: u64,
}

/// For every input scale that can work, climbs from the coarsest weights, each time refining the factor that lowers the noise
/// most, while the headroom lasts; keeps the best of all.
pub(super) fn try_settings(
    network: &Lowered,
    options: &PlanOptions,
    structure: &Structure,
    ring: &Ring,
    limits: Limits,
) -> Result<Tried, PlanError> {
    let factors: usize = structure.factors.iter().map(Vec::len).sum();
    let steps = Steps::new(network, structure);
    let by_number: Vec<&Factor> = steps.factors(network);
    let uniform = |input_log_scale: f64, bits: f64| {
        let mut weight_bits = vec![options.weight_bits.unwrap_or(bits); factors];
        // The last factor gives up to one bit away, so that the output scale becomes a power of two.
        if let (None, Some(last)) = (options.weight_bits, weight_bits.last_mut()) {
            *last = (bits + 1.0).min(*WEIGHT_BITS.end());
        }
        Settings { input_log_scale, weight_bits }
    };
    let follow =
        |settings: &Settings| walk(network, &steps, ring, settings, options.encryption, options.circuit_privacy);
    let strain = |walk: &Walk| walk.strain(&limits);
    let per_walk = walking_work(structure.size(), options.circuit_privacy);
    let climb = |Way { input_log_scale, mut stride }: Way| {
        // The finest weights bound the noise from below, the coarsest bound the headroom from above.
        let mut settings = uniform(input_log_scale, *WEIGHT_BITS.start());
        let mut current = follow(&settings)?;
        if current.headroom < 0.0 {
            return Ok(Climbed { climb: Climb::Lacks(-current.headroom), work: per_walk });
        }
        let least = strain(&follow(&uniform(input_log_scale, *WEIGHT_BITS.end()))?);
        let mut work = 2 * per_walk;
        if least > 1.0 {
            return Ok(Climbed { climb: Climb::Strained(least), work });
        }
        let mut best = (strain(&current), current.clone());
        loop {
            let mut step: Option<(f64, Settings, Walk)> = None;
            for i in (0..factors).filter(|_| options.weight_bits.is_none()) {
                let mut finer = settings.clone();
                let scale = |bits: f64| by_number[i].rounded(bits).scale;
                let bits = &mut finer.weight_bits[i];
                *bits += stride;
                // On a grid, the next size may be the same integers.
                while *bits < *WEIGHT_BITS.end() && scale(*bits) == scale(settings.weight_bits[i]) {
                    *bits += HALF_BIT;
                }
                if *bits > *WEIGHT_BITS.end() || scale(*bits) == scale(settings.weight_bits[i]) {
                    continue;
                }
                let walk = follow(&finer)?;
                work += per_walk;
                if walk.headroom >= 0.0 && step.as_ref().is_none_or(|(least, ..)| strain(&walk) < *least) {
                    step = Some((strain(&walk), finer, walk));
                }
            }
            let Some((strain, finer, walk)) = step.filter(|_| work <= MAX_CLIMB_WORK) else {
                if stride > HALF_BIT && work <= MAX_CLIMB_WORK {
                    stride = HALF_BIT;
                    continue;
                }
                return Ok(Climbed { climb: Climb::Reached(best.0, Box::new(best.1)), work });
            };
            (settings, current) = (finer, walk);
            if strain < best.0 {
                best = (strain, current.clone());
            }
        }
    };
    let pinned = options.input_log_scale.map(|pinned| pinned..=pinned);
    let scales = pinned.unwrap_or_else(|| input_log_scales(network, options, ring));
    // Larger scales lack more, so one look spares all of them.
    let lacks = -follow(&uniform(*scales.start(), *WEIGHT_BITS.start()))?.headroom;
    if lacks > 0.0 {
        return Ok(Tried { attempt: out_of_modulus(lacks), work: per_walk });
    }
    // By half bits only, and by whole bits as long as the headroom bears it: neither is always the better way up. Pinned weights
    // have no way up.
    let strides: &[f64] = if options.weight_bits.is_some() { &[HALF_BIT] } else { &[HALF_BIT, 1.0] };
    let ways: Vec<Way> = half_bit_steps(&scales)
        .flat_map(|input_log_scale| strides.iter().map(move |&stride| Way { input_log_scale, stride }))
        .collect();
    let climbs: Vec<Climbed> = ways.into_par_iter().map(climb).collect::<Result<_, PlanError>>()?;
    let work = climbs.iter().map(|climbed| climbed.work).sum();
    let mut lacking = 0.0;
    let mut least_strain = f64::INFINITY;
    let mut best: Option<(f64, Box<Walk>)> = None;
    for climbed in climbs {
        match climbed.climb {
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
    Ok(Tried { attempt, work })
}

fn out_of_modulus(lacking: f64) -> Attempt {
    // Scales that leave the range of a number lack more than can be said.
    let lacking = lacking.min(LARGEST_LACK);
    let more = if lacking == LARGEST_LACK { "at least " } else { "" };
    let reason = format!("lacks {more}{lacking:.1} bits of modulus even at the coarsest scales");
    Attempt::Fails { shortage: LACKS + lacking, reason }
}

/// `log2` of the input scales worth a try. Where noise is to be hidden, those at which a flood that
/// hides the noise of the fresh ciphertexts alone leaves the labels as they are, and what the rest
/// may need on top.
fn input_log_scales(network: &Lowered, options: &PlanOptions, ring: &Ring) -> RangeInclusive<f64> {
    const ON_TOP: f64 = 12.0;
    let Some(goal) = options.circuit_privacy else {
        return INPUT_LOG_SCALES;
    };
    let fresh = match options.encryption {
        EncryptionKind::Secret => noise::fresh_secret(ring.shape.n),
        EncryptionKind::Public => noise::fresh_public(ring.shape.n, ring.log_p()),
    };
    let hidden = fresh.worst * network.worst_gains().from(0) * MARGIN;
    let log_scale = goal.rho(ring.shape.n, network.scores()) + libm::log2(hidden / network.limits.encryption);
    let (least, most) = (*PRIVATE_INPUT_LOG_SCALES.start(), *PRIVATE_INPUT_LOG_SCALES.end());
    // Unlike `clamp`, `max` takes the least where the scale is not a number.
    let start = (libm::floor(2.0 * log_scale) / 2.0).max(least).min(most);
    start..=(start + ON_TOP).min(most)
}

/// One way up: from which input scale, and by how many bits of a weight at a time.
#[derive(Clone, Copy)]
struct Way {
    input_log_scale: f64,
    stride: f64,
}

/// What became of a climb, and the work that it took.
struct Climbed {
    climb: Climb,
    work: u64,
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
