//! Pass 4: the search for the cheapest schedule that keeps the labels.
//!
//! What a schedule costs depends only on its discrete shape: the factorisation of each branch, what
//! follows each product, ring and chain. So candidates are priced first and tried in the order of
//! their price; trying means looking for an input scale and weight sizes that keep headroom and
//! noise within bounds. The first that succeeds is the cheapest.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use cryptodl_core::ckks::{EncryptionKind, MAX_DIGIT_PRIMES, MAX_SPECIAL_PRIMES, SecurityLevel};
use cryptodl_core::ring::{MAX_DIMENSION, MAX_PARTS};
use cryptodl_core::watch::Watch;

use super::climb::{Attempt, LACKS, Tried, try_settings};
use super::lowered::Lowered;
use super::options::{LIMBS, PRIME_BITS, PlanOptions, ScheduleKind};
use super::ring::{Ring, RingShape};
use super::rings::Rings;
use super::schedule::{Structure, Walk};
use super::scores;
use super::steps::Steps;
use super::structures::{degrees, most_dropped, neighbours, structures, too_many};
use super::tolerance::Limits;
use super::work::{Counted, Switching};
use super::{PlanError, PlanRemedy};
use cryptodl_program::PrivacyGoal;

/// Feasible runners-up to report.
const RUNNERS_UP: usize = 3;
/// Candidates tried for runners-up once the best is found.
const RUNNER_UP_ATTEMPTS: usize = 200;

/// Work that a search may do, in units of about a nanosecond of one core. It is counted, not timed, so that a search ends at
/// the same place on every machine. The shipped networks take up to 37 % of it.
const MAX_WORK: u64 = 3 << 31;
/// Work of pricing a structure of so many steps on one ring.
fn pricing_work(steps: usize) -> u64 {
    16 * steps as u64
}

/// Work of counting what a structure of so many steps does, for one number of limbs.
fn counting_work(steps: usize) -> u64 {
    256 * steps as u64
}

/// Work of making a structure of so many steps.
fn making_work(steps: usize) -> u64 {
    64 * steps as u64
}

/// Work of following a structure of so many steps: a state for every step, to which every noise so far contributes.
/// Choosing a flood takes some times as much again.
pub(super) fn walking_work(steps: usize, privacy: Option<PrivacyGoal>) -> u64 {
    let steps = steps as u64;
    steps * (64 + steps) * if privacy.is_some() { 4 } else { 1 }
}

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
    /// Ring and chain.
    pub ring: RingShape,
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
    /// Which of the structures that are searched.
    structure: usize,
    ring: RingShape,
    price: f64,
}

/// What candidates have in common that differ in the size of their primes, in the dimension and in how scores are packed
/// alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    structure: usize,
    limbs: usize,
    special: usize,
    digit_primes: usize,
    parts: usize,
    /// Where special primes have a size of their own: larger primes in the chain leave less room for them.
    prime_bits: u32,
}

impl Candidate {
    /// What of a group's candidates has the most room compares as the largest.
    fn room(&self) -> (u32, Reverse<u32>) {
        (self.ring.prime_bits, Reverse(self.ring.log_scores))
    }

    fn group(&self) -> Group {
        let RingShape { limbs, special, digit_primes, parts, prime_bits, own_special, .. } = self.ring;
        let prime_bits = if own_special > 0 { prime_bits } else { 0 };
        Group { structure: self.structure, limbs, special, digit_primes, parts, prime_bits }
    }
}

/// Finds the cheapest feasible schedule, and what else there is.
///
/// # Errors
/// Bad pins, missing calibrations, or [`PlanError::DoesNotFit`] with what would help.
pub fn search(
    model: &str,
    network: &Lowered,
    options: &PlanOptions,
    budget: &mut Budget<'_>,
) -> Result<Outcome, Box<Refusal>> {
    options.check()?;
    let mut search = Search::new(model, network, options, budget);
    let outcome = search.find();
    budget.left = search.left;
    outcome
}

/// The cheapest schedule of the structures in `outcome` with larger digits, if it is cheaper than the best there.
///
/// Digits have one prime more than there are special primes. What such digits leave of noise is divided by the prime that a
/// rescale drops at the same time. Where they fit, smaller ones fit too, so they only serve a plan that is made.
///
/// # Errors
/// If the search is ended.
pub fn with_large_digits(
    model: &str,
    network: &Lowered,
    options: &PlanOptions,
    outcome: &Outcome,
    budget: &mut Budget<'_>,
) -> Result<Option<Outcome>, PlanError> {
    let mut search = Search { large_digits: true, ..Search::new(model, network, options, budget) };
    let old = std::iter::once(&outcome.best).chain(&outcome.runners_up);
    let structures: Vec<Structure> = old.clone().map(|found| found.structure.clone()).collect();
    let found = search.among(&structures, Effort::Below(outcome.best.price));
    budget.left = search.left;
    match found {
        Ok(Outcome { best, .. }) => {
            let others = old.filter(|found| found.structure != best.structure);
            let runners_up = others.take(RUNNERS_UP).cloned().collect();
            Ok(Some(Outcome { best, runners_up, misses: outcome.misses.clone() }))
        }
        Err(refusal) if refusal.nothing_fits() => Ok(None),
        Err(refusal) => Err(refusal.error),
    }
}

/// What the searches for one plan may spend together, and who may end them.
pub struct Budget<'a> {
    left: u64,
    watch: Watch<'a>,
}

impl<'a> Budget<'a> {
    /// All of it.
    pub fn new(watch: Watch<'a>) -> Self {
        Budget { left: MAX_WORK, watch }
    }

    /// Whether nothing is left.
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }
}

/// A search and what it has left to spend.
struct Search<'a> {
    model: &'a str,
    network: &'a Lowered,
    options: &'a PlanOptions,
    rings: Rings,
    /// What remains of [`MAX_WORK`]; the search goes no further at zero.
    left: u64,
    /// Whether digits are searched that have one prime more than there are special primes.
    large_digits: bool,
    watch: Watch<'a>,
}

impl<'a> Search<'a> {
    fn new(model: &'a str, network: &'a Lowered, options: &'a PlanOptions, budget: &Budget<'a>) -> Self {
        let rings = Rings::of_inputs(network.inputs);
        Search { model, network, options, rings, left: budget.left, large_digits: false, watch: budget.watch }
    }

    fn find(&mut self) -> Result<Outcome, Box<Refusal>> {
        let network = self.network;
        let most_dropped = most_dropped(self.options);
        let all = structures(network, self.options.schedule, most_dropped);
        if self.options.schedule != ScheduleKind::Auto || !too_many(network, most_dropped) {
            return self.among(&all, Effort::RunnersUp);
        }
        // Too many combinations to price: improve one or two neighbouring stages at a time from the best uniform schedule.
        let mut best = self.among(&all, Effort::Best)?.best;
        loop {
            let near = neighbours(network, &best.structure, most_dropped);
            let made: u64 = near.iter().map(|structure| making_work(structure.size())).sum();
            self.left = self.left.saturating_sub(made);
            match self.among(&near, Effort::Below(best.price)) {
                Ok(next) => best = next.best,
                Err(refusal) if refusal.nothing_fits() => match self.among(&near, Effort::RunnersUp) {
                    Err(refusal) if refusal.nothing_fits() && self.left == 0 => {
                        return Ok(Outcome { best, runners_up: Vec::new(), misses: Vec::new() });
                    }
                    outcome => return outcome,
                },
                Err(error) => return Err(error),
            }
        }
    }
}

/// Why a search found nothing.
#[derive(Debug)]
pub struct Refusal {
    /// What to tell the user.
    pub error: PlanError,
    /// A schedule that fits but for noise on the labels.
    pub bearable: Option<Found>,
}

impl Refusal {
    fn nothing_fits(&self) -> bool {
        matches!(self.error, PlanError::DoesNotFit { .. })
    }
}

impl From<PlanError> for Box<Refusal> {
    fn from(error: PlanError) -> Self {
        Box::new(Refusal { error, bearable: None })
    }
}

/// The attempt that failed by least.
struct Nearest {
    shortage: f64,
    reason: String,
    candidate: Candidate,
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

impl Search<'_> {
    /// Whether to go on.
    fn check(&self) -> Result<(), PlanError> {
        Ok(self.watch.check()?)
    }

    /// Searches among `structures`.
    fn among(&mut self, structures: &[Structure], effort: Effort) -> Result<Outcome, Box<Refusal>> {
        let below = if let Effort::Below(price) = effort { price } else { f64::INFINITY };
        let mut candidates = Vec::new();
        for (index, structure) in structures.iter().enumerate() {
            self.check()?;
            if self.left == 0 {
                break;
            }
            self.price(structure, index, below, &mut candidates);
        }
        candidates.sort_by(|a, b| a.price.total_cmp(&b.price).then(a.ring.n.cmp(&b.ring.n)));
        let mut found: Vec<Found> = Vec::new();
        let mut cheaper: BTreeMap<usize, (f64, Miss)> = BTreeMap::new();
        let mut nearest: Option<Nearest> = None;
        // The largest primes of each structure and length, with a ciphertext for every score: where they fail, smaller ones and sums of
        // scores need not be tried.
        let mut roomiest: BTreeMap<Group, &Candidate> = BTreeMap::new();
        for candidate in &candidates {
            let room = roomiest.entry(candidate.group()).or_insert(candidate);
            if candidate.room() > room.room() {
                *room = candidate;
            }
        }
        let mut hopeless: BTreeMap<Group, bool> = BTreeMap::new();
        let mut attempts_after_best = 0;
        for candidate in &candidates {
            self.check()?;
            if self.left == 0 {
                break;
            }
            let structure = &structures[candidate.structure];
            let seen = found.iter().any(|found| found.structure == *structure);
            if seen || hopeless.get(&candidate.group()) == Some(&true) {
                continue;
            }
            let mut tried = candidate;
            let mut result = None;
            if let Entry::Vacant(entry) = hopeless.entry(candidate.group()) {
                let room = roomiest[&candidate.group()];
                let attempt = self.attempt(structure, room, self.network.limits)?;
                let fails = matches!(attempt, Attempt::Fails { .. });
                entry.insert(fails);
                if fails || room.room() == candidate.room() {
                    (tried, result) = (room, Some(attempt));
                }
            }
            let result = result.map_or_else(|| self.attempt(structure, tried, self.network.limits), Ok)?;
            match result {
                Attempt::Fits(walk) => {
                    let ring = self.rings.of(tried.ring).clone();
                    found.push(Found { structure: structure.clone(), ring, walk: *walk, price: tried.price });
                }
                Attempt::Fails { shortage, reason } if found.is_empty() => {
                    let ring = tried.ring;
                    let miss = |reason| Miss { structure: structure.clone(), ring, price: tried.price, reason };
                    if nearest.as_ref().is_none_or(|nearest| shortage < nearest.shortage) {
                        let reason = describe_ring(tried.ring) + &reason;
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
            let bearable = match &nearest {
                // A search for something cheaper has found what bears the noise.
                Some(Nearest { candidate, .. }) if below.is_infinite() => {
                    self.bearable(&structures[candidate.structure], candidate)?
                }
                _ => None,
            };
            let error = self.does_not_fit(nearest.map(|nearest| nearest.reason));
            return Err(Box::new(Refusal { error, bearable }));
        }
        let best = found.remove(0);
        let mut misses: Vec<(f64, Miss)> = cheaper.into_values().collect();
        misses.sort_by(|a, b| a.0.total_cmp(&b.0));
        let misses = misses.into_iter().take(RUNNERS_UP).map(|(_, miss)| miss).collect();
        Ok(Outcome { best, runners_up: found, misses })
    }

    /// The candidate at scales that fit but for its noise on the labels; nothing where it fails for another reason.
    fn bearable(&mut self, structure: &Structure, candidate: &Candidate) -> Result<Option<Found>, PlanError> {
        let mut limits = self.network.limits;
        // Each round takes the noise that the one before it could not avoid. More rounds are needed only where the scales that
        // the headroom bears change on the way.
        for _ in 0..4 {
            match self.attempt(structure, candidate, limits)? {
                Attempt::Fits(walk) => {
                    let ring = self.rings.of(candidate.ring).clone();
                    return Ok(Some(Found { structure: structure.clone(), ring, walk: *walk, price: candidate.price }));
                }
                Attempt::Fails { shortage, .. } if shortage < LACKS => {
                    // A little more, so that rounding does not refuse it again.
                    limits = limits.times(libm::exp2(shortage) * 1.001);
                }
                Attempt::Fails { .. } => return Ok(None),
            }
        }
        Ok(None)
    }

    fn does_not_fit(&self, nearest: Option<String>) -> PlanError {
        let options = self.options;
        let pinned = options.pinned();
        let mut remedies = Vec::new();
        if !pinned.is_empty() {
            remedies.push(PlanRemedy::FewerPins(pinned));
        }
        if options.schedule == ScheduleKind::Layered {
            remedies.push(PlanRemedy::AutoSchedule);
        }
        let degrees = degrees(self.network);
        if degrees.iter().any(|&degree| degree > 2) {
            remedies.push(PlanRemedy::LowerDegree);
        }
        if degrees.len() > 1 {
            remedies.push(PlanRemedy::FewerActivations);
        }
        remedies.push(PlanRemedy::Training);
        if options.n.is_some() {
            remedies.push(PlanRemedy::LargerRing);
        }
        if options.security > SecurityLevel::Bits128 {
            remedies.push(PlanRemedy::LowerSecurity);
        }
        if options.circuit_privacy.is_some() {
            remedies.push(PlanRemedy::LessPrivacy);
        }
        let none = match options.n {
            Some(n) => format!(
                "N = {n} allows {} bits of modulus at this level, less than the pins and the schedule need",
                options.security.max_log_qp(n)
            ),
            None => "no ring dimension up to 65536 allows the number and size of primes that it needs".into(),
        };
        let mut nearest = nearest.unwrap_or(none);
        if self.left == 0 {
            nearest += " (the network has so many possible schedules that not all were tried; fewer layers would help)";
        }
        PlanError::DoesNotFit {
            model: self.model.into(),
            security: options.security.bits(),
            tolerance: self.network.tolerance,
            nearest,
            remedies,
        }
    }

    /// Adds ring and chain choices of a structure whose price is less than `below`.
    fn price(&mut self, structure: &Structure, index: usize, below: f64, candidates: &mut Vec<Candidate>) {
        let options = self.options;
        let public = options.encryption == EncryptionKind::Public;
        // Public-key encryption divides by a special prime; key switching takes several. Images that are packed compactly take
        // key switches, and whether they are depends on the dimension.
        let inputs = self.network.inputs;
        let compact = options.packings(MAX_DIMENSION, inputs).iter().any(|&log_leaves| log_leaves > 0);
        let private = options.circuit_privacy.is_some();
        let (least, switches) = (usize::from(public), structure.relinearises());
        let special = if switches { 1 } else { least }..=if switches || compact { MAX_SPECIAL_PRIMES } else { least };
        let more = usize::from(self.large_digits && switches);
        let whole = special.map(|special| Switching {
            special,
            digit_primes: (special + more).min(MAX_DIGIT_PRIMES),
            parts: 1,
        });
        let steps = structure.size();
        let plan = Steps::new(self.network, structure);
        let pinned = |pin: Option<usize>, value: usize| pin.is_none_or(|pin| pin == value);
        // One special prime may be all that the modulus has room for, and of a size of its own; then each prime of the chain is cut
        // into several digits.
        let parts = (2..=MAX_PARTS).filter(|_| compact).map(|parts| Switching { special: 1, digit_primes: 1, parts });
        let smallest =
            |log_qp: u32| (11..=16).map(|log_n| 1 << log_n).find(|&n| options.security.max_log_qp(n) >= log_qp);
        for switching in whole.chain(parts) {
            // More limbs only cost more, so sizes that have become too dear need not be priced again.
            let mut sizes: Vec<u32> =
                PRIME_BITS.filter(|&bits| options.prime_bits.is_none_or(|pin| pin == bits)).collect();
            for limbs in (structure.drops() + 1..=*LIMBS.end()).filter(|&limbs| pinned(options.limbs, limbs)) {
                if switching.parts > 1 {
                    // It serves where a special prime like those of the chain would take a larger ring.
                    let (chain, parts) = (limbs as u32, switching.parts as u32);
                    sizes.retain(|&bits| smallest(bits * chain + bits.div_ceil(parts)).is_some());
                    let serves = |&bits: &u32| {
                        let ring = smallest(bits * chain + bits.div_ceil(parts));
                        ring < smallest(bits * (chain + 1)).or(Some(usize::MAX))
                    };
                    if sizes.is_empty() {
                        break;
                    }
                    if !sizes.iter().any(serves) {
                        continue;
                    }
                }
                let counted =
                    Counted::new(self.network, &plan, limbs, switching, compact && !private, options.byte_price());
                self.left = self.left.saturating_sub(counting_work(steps));
                sizes.retain(|&prime_bits| {
                    let Switching { special, digit_primes, parts } = switching;
                    let digit_bits = prime_bits.div_ceil(parts as u32);
                    let special_bits = if parts == 1 { prime_bits } else { digit_bits };
                    let log_qp = prime_bits * limbs as u32 + special_bits * special as u32;
                    let secure = |n: &usize| options.security.max_log_qp(*n) >= log_qp;
                    let smallest = |log_qp| smallest(log_qp).filter(|_| options.n.is_none());
                    let Some(n) = options.n.filter(secure).or(smallest(log_qp)) else {
                        return false;
                    };
                    let whole = prime_bits * (limbs as u32 + 1);
                    if parts > 1 && options.security.max_log_qp(n) >= whole {
                        return true;
                    }
                    let security = options.security;
                    let Some(own_special) = self.rings.own_special(n, prime_bits, limbs, switching, security) else {
                        return true;
                    };
                    let mut keeps = false;
                    for log_leaves in options.packings(n, inputs) {
                        let serves = if switches || log_leaves > 0 { special > 0 } else { special == least };
                        if !serves || (parts > 1 && log_leaves == 0) {
                            keeps = true;
                            continue;
                        }
                        let packs = log_leaves > 0 && !private;
                        let room = (n >> log_leaves) / options.batch;
                        let together = if packs { scores::together(self.network.scores(), room) } else { 0..=0 };
                        let mut rest = None;
                        self.left = self.left.saturating_sub(pricing_work(steps));
                        for log_scores in together {
                            let shape = RingShape {
                                n,
                                prime_bits,
                                limbs,
                                special,
                                digit_primes,
                                parts,
                                own_special,
                                log_leaves,
                                log_scores,
                                unpacking: 0,
                            };
                            let Some(unpacking) = self.rings.cheapest_unpacking(shape, &counted) else {
                                keeps = true;
                                break;
                            };
                            let shape = RingShape { unpacking, ..shape };
                            let ring = self.rings.get(shape).expect("the same primes");
                            let rest = *rest.get_or_insert_with(|| counted.price(ring, public, options.batch));
                            let price = rest + counted.result_price(ring, options.batch);
                            if price < below {
                                candidates.push(Candidate { structure: index, ring: shape, price });
                            }
                            keeps |= price < below;
                        }
                    }
                    keeps
                });
                if sizes.is_empty() {
                    break;
                }
            }
        }
    }

    /// Looks for scales at which a candidate fits and its noise is within `limits`.
    fn attempt(&mut self, structure: &Structure, candidate: &Candidate, limits: Limits) -> Result<Attempt, PlanError> {
        let ring = self.rings.of(candidate.ring);
        let Tried { attempt, work } = try_settings(self.network, self.options, structure, ring, limits)?;
        self.left = self.left.saturating_sub(work);
        Ok(attempt)
    }
}

fn describe_ring(ring: RingShape) -> String {
    let RingShape { n, prime_bits, limbs, .. } = ring;
    format!("the nearest attempt (N = {n}, {limbs} x {prime_bits} bits{}) ", ring.switching())
}

#[cfg(test)]
mod tests {
    use cryptodl_zoo as zoo;

    use super::*;

    #[test]
    fn shipped_networks_take_less_than_half_of_the_allowed_work() {
        // Those whose search takes most.
        for model in ["mnist-2", "mnist-best"] {
            let network = zoo::load(model).unwrap();
            let options = PlanOptions::default();
            let network = Lowered::new(&network, options.tolerance_of(&network).unwrap()).unwrap();
            let mut search = Search::new(model, &network, &options, &Budget::new(Watch::default()));
            search.find().unwrap();
            let share = 1.0 - search.left as f64 / MAX_WORK as f64;
            assert!(share < 0.5, "{model}: {share}");
        }
    }
}
