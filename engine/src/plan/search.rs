//! Pass 4: the search for the cheapest schedule that keeps the labels.
//!
//! What a schedule costs depends only on its discrete shape: the factorisation of each run, what follows each product, ring and
//! chain. So candidates are priced first and tried in the order of their price; trying means looking for an input
//! scale and weight sizes that keep headroom and noise within bounds. The first that succeeds is the cheapest.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::RangeInclusive;

use cryptodl_core::backend::ProductPlan;
use cryptodl_core::ckks::{EncryptionKind, MAX_COMPONENTS, MAX_SPECIAL_PRIMES, SecurityLevel, noise};
use rayon::prelude::*;

use super::arrangement::Arrangement;
use super::lowered::Lowered;
use super::options::{INPUT_HALF_BITS, LIMBS, PRIME_BITS, PRIVATE_INPUT_HALF_BITS, PlanOptions, ScheduleKind};
use super::quantise::WEIGHT_HALF_BITS;
use super::schedule::{Ring, Settings, Structure, Walk, walk};
use super::tolerance::Limits;
use super::worst::MARGIN;
use super::{PlanError, work};

/// Structures beyond this number are searched activation by activation instead of all together.
const MAX_STRUCTURES: usize = 2048;
/// Pairs of plans of neighbouring activations that are tried together.
const MAX_PAIRS: usize = 64;
/// Feasible runners-up to report.
const RUNNERS_UP: usize = 3;
/// Primes that a product may be divided by at once where noise is hidden.
const PRIVATE_DROP: usize = 4;
/// Candidates tried for runners-up once the best is found.
const RUNNER_UP_ATTEMPTS: usize = 200;

/// A schedule found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Discrete shape.
    pub structure: Structure,
    /// Ring and chain.
    pub ring: Ring,
    /// What it does.
    pub walk: Walk,
    /// Predicted price in nanoseconds of the fixed table.
    pub price: f64,
}

/// A schedule that does not fit.
#[derive(Clone, Debug)]
pub struct Miss {
    /// Discrete shape.
    pub structure: Structure,
    /// Ring dimension, prime size, limbs, special primes.
    pub ring: [usize; 4],
    /// Predicted price.
    pub price: f64,
    /// What it lacks.
    pub reason: String,
}

/// What a search comes to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The cheapest schedule that fits.
    pub best: Found,
    /// The next ones, each of another structure.
    pub runners_up: Vec<Found>,
    /// Those predicted to be cheaper, or as cheap, that nearly fit.
    pub misses: Vec<Miss>,
}

/// A candidate before it is tried.
#[derive(Clone, Debug)]
struct Candidate {
    structure: usize,
    n: usize,
    prime_bits: u32,
    limbs: usize,
    special: usize,
    price: f64,
}

impl Candidate {
    /// Structure, limbs and special primes.
    fn shape(&self) -> [usize; 3] {
        [self.structure, self.limbs, self.special]
    }

    /// Key of its ring.
    fn ring(&self) -> (usize, u32, usize, usize) {
        (self.n, self.prime_bits, self.limbs, self.special)
    }
}

/// Finds the cheapest feasible schedule, and what else there is.
///
/// # Errors
/// Bad pins, missing calibrations, or [`PlanError::DoesNotFit`] with what would help.
pub fn search(model: &str, network: &Lowered, options: &PlanOptions) -> Result<Outcome, Refusal> {
    options.check()?;
    let most_dropped = most_dropped(options);
    let mut all = structures(network, options.schedule, most_dropped);
    if options.schedule == ScheduleKind::Auto && too_many(network, most_dropped) {
        // Too many combinations to price: improve one or two neighbouring stages at a time from the best uniform schedule.
        let mut best = search_among(model, network, options, &all, Effort::Best)?.best;
        loop {
            all = neighbours(network, &best.structure, most_dropped);
            match search_among(model, network, options, &all, Effort::Below(best.price)) {
                Ok(next) => best = next.best,
                Err(Refusal { error: PlanError::DoesNotFit { .. }, .. }) => break,
                Err(error) => return Err(error),
            }
        }
    }
    search_among(model, network, options, &all, Effort::RunnersUp)
}

/// How far a search goes.
#[derive(Clone, Copy, PartialEq)]
enum Effort {
    /// To the cheapest that fits.
    Best,
    /// The same, among those below a price.
    Below(f64),
    /// Beyond the cheapest, for runners-up to report.
    RunnersUp,
}

fn search_among(
    model: &str,
    network: &Lowered,
    options: &PlanOptions,
    structures: &[Structure],
    effort: Effort,
) -> Result<Outcome, Refusal> {
    let mut rings: BTreeMap<(usize, u32, usize, usize), Option<Ring>> = BTreeMap::new();
    let mut candidates = Vec::new();
    for (index, structure) in structures.iter().enumerate() {
        candidates.extend(candidates_of(network, options, structure, index, &mut rings));
    }
    if let Effort::Below(price) = effort {
        candidates.retain(|candidate| candidate.price < price);
    }
    candidates.sort_by(|a, b| a.price.total_cmp(&b.price).then(a.n.cmp(&b.n)));
    let mut found: Vec<Found> = Vec::new();
    let mut cheaper: BTreeMap<usize, (f64, Miss)> = BTreeMap::new();
    let mut nearest: Option<Nearest> = None;
    // The largest primes of each structure and length: where they fail, smaller ones need not be tried.
    let mut roomiest: BTreeMap<[usize; 3], &Candidate> = BTreeMap::new();
    for candidate in &candidates {
        let room = roomiest.entry(candidate.shape()).or_insert(candidate);
        if candidate.prime_bits > room.prime_bits {
            *room = candidate;
        }
    }
    let mut hopeless: BTreeMap<[usize; 3], bool> = BTreeMap::new();
    let mut attempts_after_best = 0;
    let attempt = |candidate: &Candidate| {
        let ring = rings[&candidate.ring()].as_ref().expect("candidates have rings");
        try_settings(network, options, &structures[candidate.structure], ring, network.limits)
    };
    for candidate in &candidates {
        let structure = &structures[candidate.structure];
        let seen = found.iter().any(|found| found.structure == *structure);
        if seen || hopeless.get(&candidate.shape()) == Some(&true) {
            continue;
        }
        let mut tried = candidate;
        let mut result = None;
        if let Entry::Vacant(entry) = hopeless.entry(candidate.shape()) {
            let room = roomiest[&candidate.shape()];
            let attempt = attempt(room)?;
            let fails = matches!(attempt, Attempt::Fails { .. });
            entry.insert(fails);
            if fails || room.prime_bits == candidate.prime_bits {
                (tried, result) = (room, Some(attempt));
            }
        }
        let result = result.map_or_else(|| attempt(tried), Ok)?;
        match result {
            Attempt::Fits(walk) => {
                let ring = rings[&tried.ring()].clone().expect("candidates have rings");
                found.push(Found { structure: structure.clone(), ring, walk: *walk, price: tried.price });
            }
            Attempt::Fails { shortage, reason } if found.is_empty() => {
                let ring = [tried.n, tried.prime_bits as usize, tried.limbs, tried.special];
                let miss = |reason| Miss { structure: structure.clone(), ring, price: tried.price, reason };
                if nearest.as_ref().is_none_or(|nearest| shortage < nearest.shortage) {
                    let reason = describe_ring(tried) + &reason;
                    nearest = Some(Nearest { shortage, reason, candidate: tried.clone() });
                }
                let least = cheaper.entry(tried.structure).or_insert_with(|| (f64::INFINITY, miss(String::new())));
                if shortage < least.0 {
                    *least = (shortage, miss(reason));
                }
            }
            Attempt::Fails { .. } => {}
        }
        if effort != Effort::RunnersUp && !found.is_empty() {
            break;
        }
        attempts_after_best += usize::from(!found.is_empty());
        if found.len() == 1 + RUNNERS_UP || attempts_after_best > RUNNER_UP_ATTEMPTS {
            break;
        }
    }
    if found.is_empty() {
        let bearable = |nearest: &Nearest| {
            let ring = rings[&nearest.candidate.ring()].as_ref().expect("candidates have rings");
            let structure = &structures[nearest.candidate.structure];
            let walk = bearable_walk(network, options, structure, ring)?;
            let found =
                |walk| Found { structure: structure.clone(), ring: ring.clone(), walk, price: nearest.candidate.price };
            Ok::<_, PlanError>(walk.map(found))
        };
        let bearable = nearest.as_ref().map(bearable).transpose()?.flatten();
        let error = does_not_fit(model, network, options, nearest.map(|nearest| nearest.reason));
        return Err(Refusal { error, bearable });
    }
    let best = found.remove(0);
    let mut misses: Vec<(f64, Miss)> = cheaper.into_values().collect();
    misses.sort_by(|a, b| a.0.total_cmp(&b.0));
    let misses = misses.into_iter().take(RUNNERS_UP).map(|(_, miss)| miss).collect();
    Ok(Outcome { best, runners_up: found, misses })
}

/// The attempt that failed by least.
struct Nearest {
    shortage: f64,
    reason: String,
    candidate: Candidate,
}

/// Why a search found nothing.
#[derive(Debug)]
pub struct Refusal {
    /// What to tell the user.
    pub error: PlanError,
    /// A schedule that fits but for noise on the labels.
    pub bearable: Option<Found>,
}

impl From<PlanError> for Refusal {
    fn from(error: PlanError) -> Self {
        Refusal { error, bearable: None }
    }
}

/// What the candidate does where its noise is too much for the labels; nothing where it fails for another reason.
fn bearable_walk(
    network: &Lowered,
    options: &PlanOptions,
    structure: &Structure,
    ring: &Ring,
) -> Result<Option<Walk>, PlanError> {
    let mut limits = network.limits;
    // Each round takes the noise that the one before it could not avoid. More rounds are needed only where the scales that the
    // headroom bears change on the way.
    for _ in 0..4 {
        match try_settings(network, options, structure, ring, limits)? {
            Attempt::Fits(walk) => return Ok(Some(*walk)),
            Attempt::Fails { shortage, .. } if shortage < LACKS => {
                // A little more, so that rounding does not refuse it again.
                limits = limits.times(libm::exp2(shortage) * 1.001);
            }
            Attempt::Fails { .. } => return Ok(None),
        }
    }
    Ok(None)
}

fn describe_ring(candidate: &Candidate) -> String {
    let Candidate { n, prime_bits, limbs, special, .. } = candidate;
    format!("the nearest attempt (N = {n}, {limbs} x {prime_bits} bits + {special} special) ")
}

fn does_not_fit(model: &str, network: &Lowered, options: &PlanOptions, nearest: Option<String>) -> PlanError {
    let pinned = [options.n.is_some(), options.limbs.is_some(), options.prime_bits.is_some()].contains(&true)
        || options.weight_half_bits.is_some()
        || options.input_half_bits.is_some();
    let mut help = Vec::new();
    if pinned {
        help.push("fewer pinned choices (--n, --limbs, --prime-bits, --weight-bits, --input-scale-bits)");
    }
    if options.schedule == ScheduleKind::Layered {
        help.push("--schedule auto");
    }
    let degrees = degrees(network);
    if degrees.iter().any(|&degree| degree > 2) {
        help.push("activations of lower degree");
    }
    if degrees.len() > 1 {
        help.push("fewer activations");
    }
    help.push(
        "training with larger margins and with weights that are rounded to few bits (docs/calibration.md says how)",
    );
    if options.n.is_some() {
        help.push("a larger --n");
    }
    if options.security > SecurityLevel::Bits128 {
        help.push("a lower --security");
    }
    if options.circuit_privacy.is_some() {
        help.push("fewer sets or bits of --circuit-privacy");
    }
    let none = match options.n {
        Some(n) => format!(
            "N = {n} allows {} bits of modulus at this level, less than the pins and the schedule need",
            options.security.max_log_qp(n)
        ),
        None => "no ring dimension up to 65536 allows the number and size of primes that it needs".into(),
    };
    PlanError::DoesNotFit {
        model: model.into(),
        security: options.security.bits(),
        tolerance: network.tolerance.percent(),
        nearest: nearest.unwrap_or(none),
        fits_at: None,
        help: help.join("; "),
    }
}

/// Ring and chain choices of a structure, with their prices.
fn candidates_of(
    network: &Lowered,
    options: &PlanOptions,
    structure: &Structure,
    index: usize,
    rings: &mut BTreeMap<(usize, u32, usize, usize), Option<Ring>>,
) -> Vec<Candidate> {
    let public = options.encryption == EncryptionKind::Public;
    let special = match (structure.relinearizes(), public) {
        (true, _) => 1..=MAX_SPECIAL_PRIMES,
        (false, true) => 1..=1,
        (false, false) => 0..=0,
    };
    let mut candidates = Vec::new();
    for special in special {
        for limbs in structure.drops() + 1..=*LIMBS.end() {
            for prime_bits in PRIME_BITS {
                let fits = |pin: Option<usize>, value: usize| pin.is_none_or(|pin| pin == value);
                if !fits(options.limbs, limbs) || !fits(options.prime_bits.map(|b| b as usize), prime_bits as usize) {
                    continue;
                }
                let log_qp = prime_bits * (limbs + special) as u32;
                let secure = |n: &usize| options.security.max_log_qp(*n) >= log_qp;
                let smallest = (11..=16).map(|log_n| 1 << log_n).find(secure);
                let Some(n) = options.n.filter(secure).or(smallest.filter(|_| options.n.is_none())) else {
                    continue;
                };
                let ring = rings
                    .entry((n, prime_bits, limbs, special))
                    .or_insert_with(|| Ring::new(n, prime_bits, limbs, special).ok());
                if let Some(ring) = ring {
                    let price = work::price(network, structure, ring, public, options.batch);
                    candidates.push(Candidate { structure: index, n, prime_bits, limbs, special, price });
                }
            }
        }
    }
    candidates
}

/// Added to the shortage of a candidate that lacks modulus, so that any that only has too much noise is nearer.
const LACKS: f64 = 100.0;

enum Attempt {
    Fits(Box<Walk>),
    Fails { shortage: f64, reason: String },
}

/// For every input scale that can work, climbs from the coarsest weights, each time refining the factor that lowers the noise
/// most, while the headroom lasts; keeps the best of all.
fn try_settings(
    network: &Lowered,
    options: &PlanOptions,
    structure: &Structure,
    ring: &Ring,
    limits: Limits,
) -> Result<Attempt, PlanError> {
    let factors: usize = structure.factors.iter().map(Vec::len).sum();
    let uniform = |input_half_bits: u32, half_bits: u32| {
        let mut weight_half_bits = vec![options.weight_half_bits.unwrap_or(half_bits); factors];
        // The last factor gives up to one bit away, so that the output scale becomes a power of two.
        if let (None, Some(last)) = (options.weight_half_bits, weight_half_bits.last_mut()) {
            *last = (half_bits + 2).min(*WEIGHT_HALF_BITS.end());
        }
        Settings { input_half_bits, weight_half_bits }
    };
    let follow =
        |settings: &Settings| walk(network, structure, ring, settings, options.encryption, options.circuit_privacy);
    let strain = |walk: &Walk| walk.strain(&limits);
    let climb = |(input_half_bits, mut stride): (u32, u32)| {
        // The finest weights bound the noise from below, the coarsest bound the headroom from above.
        let mut settings = uniform(input_half_bits, *WEIGHT_HALF_BITS.start());
        let mut current = follow(&settings)?;
        if current.headroom < 0.0 {
            return Ok(Climb::Lacks(-current.headroom));
        }
        let least = strain(&follow(&uniform(input_half_bits, *WEIGHT_HALF_BITS.end()))?);
        if least > 1.0 {
            return Ok(Climb::Strained(least));
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
                if walk.headroom >= 0.0 && step.as_ref().is_none_or(|(least, ..)| strain(&walk) < *least) {
                    step = Some((strain(&walk), finer, walk));
                }
            }
            let Some((strain, finer, walk)) = step else {
                if stride > 1 {
                    stride -= 1;
                    continue;
                }
                return Ok(Climb::Reached(best.0, Box::new(best.1)));
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
        return Ok(out_of_modulus(lacks));
    }
    // By half bits only, and by whole bits as long as the headroom bears it: neither is always the better way up. Pinned weights
    // have no way up.
    let strides = if options.weight_half_bits.is_some() { 1..=1 } else { 1..=2 };
    let ways: Vec<(u32, u32)> = scales.flat_map(|scale| strides.clone().map(move |stride| (scale, stride))).collect();
    let climbs: Vec<Climb> = ways.into_par_iter().map(climb).collect::<Result<_, PlanError>>()?;
    let mut lacking = 0.0;
    let mut least_strain = f64::INFINITY;
    let mut best: Option<(f64, Box<Walk>)> = None;
    for climb in climbs {
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
    match best {
        Some((strain, walk)) if strain <= 1.0 => Ok(Attempt::Fits(walk)),
        None if least_strain.is_infinite() => Ok(out_of_modulus(lacking)),
        _ => {
            let shortage = 0.5 * libm::log2(best.map_or(least_strain, |(strain, _)| strain));
            let reason = format!("has {shortage:.1} bits too much noise for the labels at the scales that fit");
            Ok(Attempt::Fails { shortage, reason })
        }
    }
}

fn out_of_modulus(lacking: f64) -> Attempt {
    let reason = format!("lacks {lacking:.1} bits of modulus even at the coarsest scales");
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
    let hidden = fresh.worst * network.worst_gains().from(network.gains.input()) * MARGIN;
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

/// Primes that a product may be divided by at once.
fn most_dropped(options: &PlanOptions) -> usize {
    // Scales that leave room for a flood are several primes large.
    if options.circuit_privacy.is_some() { PRIVATE_DROP } else { 1 }
}

/// What may follow one product.
fn product_plans(most_dropped: usize) -> Vec<ProductPlan> {
    let plans = |relinearize| (0..=most_dropped).map(move |drop| ProductPlan { relinearize, drop });
    plans(false).chain(plans(true)).collect()
}

/// What may follow the products of an activation. Horner's rule with more products than the other arrangement is worth its while
/// only where it stays slot-wise.
fn activation_plans(degree: usize, most_dropped: usize) -> Vec<Vec<ProductPlan>> {
    let all = |arrangement: Arrangement| combinations(vec![product_plans(most_dropped); arrangement.products(degree)]);
    match Arrangement::of_degree(degree) {
        [only] => all(*only),
        [horner, rest @ ..] => {
            let lazy = vec![ProductPlan::default(); horner.products(degree)];
            std::iter::once(lazy).chain(rest.iter().flat_map(|&arrangement| all(arrangement))).collect()
        }
        [] => unreachable!("every degree has an arrangement"),
    }
}

/// What follows the products of an activation, and whether the last of it waits until after the next maps.
type Choice = (Vec<ProductPlan>, bool);

fn activation_choices(degree: usize, most_dropped: usize) -> Vec<Choice> {
    let acts = |plans: &Vec<ProductPlan>| plans.last().is_some_and(|plan| plan.acts());
    waits(activation_plans(degree, most_dropped).into_iter(), acts).collect()
}

/// Each plan at once, and again waiting where there is something to wait.
fn waits<P: Clone>(plans: impl Iterator<Item = P>, acts: impl Fn(&P) -> bool) -> impl Iterator<Item = (P, bool)> {
    plans.flat_map(move |plan| {
        let later = acts(&plan).then(|| (plan.clone(), true));
        std::iter::once((plan, false)).chain(later)
    })
}

/// Whether relinearisations take three components and no step carries too many.
fn consistent(degrees: &[usize], structure: &Structure) -> bool {
    let (mut level, mut components) = (structure.drops() + 1, 2);
    degrees.iter().zip(&structure.products).all(|(&degree, plans)| {
        let arrangement = Arrangement::with_products(degree, plans.len());
        let (products, result) = arrangement.trace(degree, plans, level, components);
        (level, components) = result;
        products.iter().zip(plans).all(|(product, plan)| {
            product.components() <= MAX_COMPONENTS && (!plan.relinearize || product.components() == 3)
        })
    })
}

fn degrees(network: &Lowered) -> Vec<usize> {
    network.stages.iter().filter_map(|stage| stage.activation.as_ref()).map(|a| a.degree()).collect()
}

fn too_many(network: &Lowered, most_dropped: usize) -> bool {
    let factorisations = (0..network.stages.len()).map(|stage| network.factorisations(stage).len());
    let plans = degrees(network).into_iter().map(|degree| activation_choices(degree, most_dropped).len());
    factorisations.chain(plans).try_fold(1usize, |product, n| product.checked_mul(n)).is_none_or(|n| n > MAX_STRUCTURES)
}

/// The structures to start from.
fn structures(network: &Lowered, kind: ScheduleKind, most_dropped: usize) -> Vec<Structure> {
    let finest: Vec<Vec<usize>> = network.stages.iter().map(|stage| vec![1; stage.run.len()]).collect();
    let degrees = degrees(network);
    // In the arrangement with the fewest products.
    let fewest = |degree| Arrangement::of_degree(degree).iter().map(|a| a.products(degree)).min().unwrap_or(0);
    let uniform = |plan: ProductPlan| degrees.iter().map(|&degree| vec![plan; fewest(degree)]).collect::<Vec<_>>();
    let relinearised = ProductPlan { relinearize: true, drop: 1 };
    if kind == ScheduleKind::Layered {
        let deferred = vec![false; degrees.len()];
        return vec![Structure { factors: finest, products: uniform(relinearised), deferred }];
    }
    let factorisations: Vec<_> = (0..network.stages.len()).map(|stage| network.factorisations(stage)).collect();
    let all = if too_many(network, most_dropped) {
        let cheapest = |stage: usize| {
            let price = |counts: &Vec<usize>| -> u64 {
                let firsts = counts.iter().scan(0, |first, count| Some(std::mem::replace(first, *first + count)));
                firsts
                    .zip(counts)
                    .filter_map(|(first, &count)| network.factor(stage, first, count))
                    .map(|factor| factor.map.geometry.multiply_adds())
                    .sum()
            };
            factorisations[stage].iter().min_by_key(|counts| price(counts)).cloned().expect("the finest is there")
        };
        let factors: Vec<_> = (0..network.stages.len()).map(cheapest).collect();
        let structure = |products, deferred| Structure {
            factors: factors.clone(),
            products,
            deferred: vec![deferred; degrees.len()],
        };
        let plans = waits(product_plans(most_dropped).into_iter(), |plan| plan.acts());
        let even = plans.map(|(plan, deferred)| structure(uniform(plan), deferred));
        // Several primes at once are a coarse step, so the products share quarters of a prime as evenly as they go.
        let shared = |quarters: usize| {
            let mut ends = (0..).map(|product| product * quarters / 4);
            let mut before = ends.next().unwrap_or(0);
            let mut next = || {
                let end = ends.next().unwrap_or(before);
                ProductPlan { relinearize: true, drop: end - std::mem::replace(&mut before, end) }
            };
            degrees.iter().map(|&degree| (0..fewest(degree)).map(|_| next()).collect()).collect()
        };
        let quarters = (5..4 * most_dropped).filter(|quarters| !quarters.is_multiple_of(4));
        even.chain(quarters.map(|quarters| structure(shared(quarters), true))).collect::<Vec<_>>()
    } else {
        let choices = combinations(degrees.iter().map(|&degree| activation_choices(degree, most_dropped)).collect());
        let factors = combinations(factorisations);
        let pair = |factors: &Vec<Vec<usize>>| {
            let factors = factors.clone();
            let structure = move |choices: &Vec<Choice>| {
                let (products, deferred) = choices.iter().cloned().unzip();
                Structure { factors: factors.clone(), products, deferred }
            };
            choices.iter().map(structure).collect::<Vec<_>>()
        };
        factors.iter().flat_map(pair).collect::<Vec<_>>()
    };
    all.into_iter().filter(|structure| consistent(&degrees, structure)).collect()
}

/// Structures that differ from `structure` in one stage, or in the activations of two neighbouring stages.
fn neighbours(network: &Lowered, structure: &Structure, most_dropped: usize) -> Vec<Structure> {
    let mut all = vec![structure.clone()];
    for stage in 0..network.stages.len() {
        for counts in network.factorisations(stage) {
            let mut next = structure.clone();
            next.factors[stage] = counts;
            all.push(next);
        }
    }
    let degrees = degrees(network);
    let plans: Vec<_> = degrees.iter().map(|&degree| activation_choices(degree, most_dropped)).collect();
    for (i, first) in plans.iter().enumerate() {
        let second = plans.get(i + 1).map_or(&[][..], Vec::as_slice);
        for plan in first {
            let with = |mut structure: Structure, i: usize, (plans, deferred): &Choice| {
                structure.products[i].clone_from(plans);
                structure.deferred[i] = *deferred;
                structure
            };
            let next = with(structure.clone(), i, plan);
            // Both at once only where that is few.
            let pairs = if first.len() * second.len() <= MAX_PAIRS { second } else { &[] };
            for other in pairs {
                all.push(with(next.clone(), i + 1, other));
            }
            all.push(next);
        }
    }
    all.retain(|structure| consistent(&degrees, structure));
    let mut distinct: Vec<Structure> = Vec::new();
    for structure in all {
        if !distinct.contains(&structure) {
            distinct.push(structure);
        }
    }
    distinct
}

/// Every way to take one element of each list.
fn combinations<T: Clone>(lists: Vec<Vec<T>>) -> Vec<Vec<T>> {
    lists.into_iter().fold(vec![Vec::new()], |prefixes, list| {
        let extend = |prefix: &Vec<T>| {
            let prefix = prefix.clone();
            list.iter().map(move |item| [&prefix[..], std::slice::from_ref(item)].concat()).collect::<Vec<_>>()
        };
        prefixes.iter().flat_map(extend).collect()
    })
}
