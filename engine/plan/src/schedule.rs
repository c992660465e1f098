//! A schedule, and what it does to levels, scales, values and noise.

use cryptodl_core::backend::{CiphertextShape, Maintenance};
use cryptodl_core::ckks::noise::{self, Noise};
use cryptodl_core::ckks::{EncryptionKind, HEADROOM, Scale};

use super::PlanError;
use super::lowered::{Factor, Lowered, RoundedWeights};
use super::normalise::ProductEstimates;
use super::privacy::Flood;
use super::quantise::{WEIGHT_BITS, rounding_gain};
use super::ring::Ring;
use super::scores::PackedScores;
use super::steps::{Step, StepKind, Steps};
use super::tolerance::Limits;
use super::worst::WorstGains;
use cryptodl_program::{Arrangement, PrivacyGoal};

/// Noise above this share of the calibrated values is no small disturbance any more: activations bend it, and its prediction
/// by derivatives fails.
pub const LINEAR_SHARE: f64 = 0.125;

/// The discrete shape of a schedule: how branches are factored, and what follows each product.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Structure {
    /// Per branch, how many base maps each factor merges.
    pub factors: Vec<Vec<usize>>,
    /// Per activation, what follows each product; their number tells the [`Arrangement`].
    pub maintenance: Vec<Vec<Maintenance>>,
    /// Per activation, whether that of its last product is deferred until after the next stage's
    /// maps: these act on any number of components, and where they leave fewer values, fewer are
    /// relinearised.
    pub deferred: Vec<bool>,
}

/// What is maintained of an activation's products.
#[derive(Clone, Debug)]
pub struct ActivationMaintenance {
    /// What follows each product at once.
    pub at_once: Vec<Maintenance>,
    /// What follows the last product after the next stage's maps, if that is deferred.
    pub deferred: Option<Maintenance>,
}

/// What is known of a ciphertext.
#[derive(Clone, Copy, Debug)]
pub struct Ciphertext {
    /// Chain limbs.
    pub level: usize,
    /// Components.
    pub components: usize,
    /// Scale.
    pub scale: Scale,
}

impl Ciphertext {
    /// The product of two: the one with more limbs drops its last ones without division, so that its scale stays.
    pub fn times(&self, other: &Ciphertext) -> Ciphertext {
        Ciphertext {
            level: self.level.min(other.level),
            components: self.components + other.components - 1,
            scale: self.scale.times(other.scale.value()),
        }
    }

    /// Does the maintenance and returns the noise that it adds, in units of the integers after it.
    fn maintain(&mut self, maintenance: Maintenance, ring: &Ring) -> Noise {
        let mut entered = Noise::even(0.0);
        let mut divisor = 1.0;
        for &q in ring.primes[self.level - maintenance.drop..self.level].iter().rev() {
            self.scale = self.scale.over(q);
            divisor *= f64::from(q);
        }
        if maintenance.relinearise {
            let key = ring.key_switch(self.level);
            entered = entered.plus(key.times(1.0 / divisor));
        }
        let CiphertextShape { level, components } =
            maintenance.result(CiphertextShape { level: self.level, components: self.components });
        (self.level, self.components) = (level, components);
        if maintenance.acts() {
            entered = entered.plus(noise::divide(ring.shape.n, self.components));
        }
        entered
    }
}

impl Structure {
    /// Whether any product is relinearised.
    pub fn relinearises(&self) -> bool {
        self.maintenance.iter().flatten().any(|maintenance| maintenance.relinearise)
    }

    /// What follows the products of an activation.
    pub fn activation(&self, activation: usize) -> ActivationMaintenance {
        let mut at_once = self.maintenance[activation].clone();
        let last = at_once.last_mut().filter(|_| self.deferred[activation]);
        let deferred = last.map(std::mem::take);
        ActivationMaintenance { at_once, deferred }
    }

    /// Maps, products and deferred maintenance: what a walk has states for.
    pub fn size(&self) -> usize {
        let (factors, products) = (self.factors.iter().map(Vec::len), self.maintenance.iter().map(Vec::len));
        factors.chain(products).sum::<usize>() + self.deferred.iter().filter(|&&deferred| deferred).count()
    }

    /// Primes dropped in all.
    pub fn drops(&self) -> usize {
        self.maintenance.iter().flatten().map(|maintenance| maintenance.drop).sum()
    }
}

/// The numbers that remain to be chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `log2` of the input scale, a multiple of one half.
    pub input_log_scale: f64,
    /// Size of each factor's weights in bits with sign, in order; multiples of half a bit.
    pub weight_bits: Vec<f64>,
}

/// Predicted noise of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deviation {
    /// Root mean square over slots.
    pub rms: f64,
    /// Standard deviation at the slot where it is largest.
    pub worst: f64,
}

/// A product of an activation before the last one.
#[derive(Clone, Copy, Debug)]
struct InnerProduct {
    stage: usize,
    arrangement: Arrangement,
    index: usize,
}

/// A noise that enters somewhere.
#[derive(Clone, Debug)]
pub struct Source {
    /// Place whose values it reaches first.
    pub place: usize,
    /// Where it enters inside the activation before `place`, if it does so before the last product.
    product: Option<InnerProduct>,
    /// In units of the values where it enters.
    pub noise: Noise,
    /// What unit noise there is at `place`.
    pub gain: f64,
}

impl Source {
    /// Its name in calibrations.
    pub fn name(&self, network: &Lowered) -> String {
        match self.product {
            None => network.gains.places().names()[self.place].clone(),
            Some(InnerProduct { stage, arrangement, index }) => {
                let activation = network.stages[stage].activation.as_ref().expect("noise entered its products");
                activation.product_name(arrangement, index)
            }
        }
    }
}

/// State of the ciphertexts after a step.
#[derive(Clone, Debug)]
pub struct State {
    /// Chain limbs.
    pub level: usize,
    /// Components.
    pub components: usize,
    /// Scale.
    pub scale: Scale,
    /// Calibrated magnitude of the values.
    pub bound: f64,
    /// Predicted encryption noise in units of the value.
    pub noise: Deviation,
    /// Bits to spare before `HEADROOM` times the bound wraps, the least within the step.
    pub headroom: f64,
}

impl State {
    /// The ciphertexts in this state.
    fn ciphertext(&self) -> Ciphertext {
        Ciphertext { level: self.level, components: self.components, scale: self.scale }
    }

    /// The state with other ciphertexts.
    fn with_ciphertext(&self, u: Ciphertext) -> State {
        State { level: u.level, components: u.components, scale: u.scale, ..self.clone() }
    }
}

/// How a term of a linear step is quantised.
#[derive(Clone, Copy, Debug)]
pub struct Precision {
    /// Integers per unit of a weight.
    pub weight_scale: f64,
    /// Integer that the result is multiplied by.
    pub factor: f64,
    /// Output variance per unit mean square of the input from rounding.
    rounding_gain: f64,
}

/// What a walk knows of a step.
#[derive(Clone, Debug)]
pub struct WalkStep {
    /// The place of its result.
    pub place: usize,
    /// Of every term of a linear step.
    pub precisions: Vec<Precision>,
    /// After the step.
    pub after: State,
    /// Scale after each product of an activation, before the constant that follows it.
    pub product_scales: Vec<Scale>,
}

/// What a schedule does.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The fresh ciphertexts.
    pub input: State,
    /// Steps in order.
    pub steps: Vec<WalkStep>,
    /// Every noise, in the order of places.
    pub sources: Vec<Source>,
    /// Encryption noise of the result on a logit, re-randomisation and flood included.
    pub noise: Deviation,
    /// The flood, where the computation's noise is hidden.
    pub flood: Option<Flood>,
    /// How scores are packed, where images are packed compactly.
    pub packed: Option<PackedScores>,
    /// Standard deviation on a logit from rounding weights.
    pub rounding: f64,
    /// Least headroom anywhere, in bits.
    pub headroom: f64,
}

impl Walk {
    /// State after the last step.
    pub fn output(&self) -> &State {
        self.steps.last().map_or(&self.input, |step| &step.after)
    }

    /// The ciphertexts that the client gets.
    pub fn result(&self) -> Ciphertext {
        let packed = || self.packed.map_or_else(|| self.output().ciphertext(), |packed| packed.result);
        self.flood.map_or_else(packed, |flood| flood.result)
    }

    /// The states with their places.
    pub fn states(&self) -> impl Iterator<Item = (&State, usize)> {
        std::iter::once((&self.input, 0)).chain(self.steps.iter().map(|step| (&step.after, step.place)))
    }

    /// The state of a tensor: 0 is the input, `i + 1` the result of step `i`.
    pub fn tensor(&self, tensor: usize) -> &State {
        tensor.checked_sub(1).map_or(&self.input, |step| &self.steps[step].after)
    }

    /// How far the noise is above what the labels bear, or above what leaves the linearised prediction true, as a ratio of
    /// variances: feasible at most 1.
    pub fn strain(&self, limits: &Limits) -> f64 {
        let square = |x: f64| x * x;
        let corrections = limits.corrections;
        let encryption = square(corrections.encryption * self.noise.worst);
        let total = encryption + square(corrections.rounding * self.rounding);
        let labels = (encryption / (limits.encryption * limits.encryption)).max(total / (limits.total * limits.total));
        let crowding = |state: &State| corrections.crowding * state.noise.worst / (LINEAR_SHARE * state.bound);
        let states = std::iter::once(&self.input).chain(self.steps.iter().map(|step| &step.after));
        states.map(|state| square(crowding(state))).fold(labels, f64::max)
    }
}

/// Noises that have entered so far, in units of the value at the place where they entered.
struct Sources<'a> {
    network: &'a Lowered,
    entered: Vec<Source>,
    /// Where noise is to be hidden.
    worst: Option<WorstImage<'a>>,
}

/// What noise becomes in the scores for the worst image.
struct WorstImage<'a> {
    gains: &'a WorstGains,
    /// Of what has reached the scores.
    sum_of_squares: f64,
}

impl Sources<'_> {
    fn enter(&mut self, place: usize, noise: Noise) {
        self.enter_within(Source { place, product: None, noise, gain: 1.0 }, 1.0);
    }

    /// Noise that is multiplied before it is at its place: by its gain in the root mean square, by `most` at most.
    fn enter_within(&mut self, source: Source, most: f64) {
        if let Some(WorstImage { gains, sum_of_squares }) = &mut self.worst {
            let reached = source.noise.worst * most * gains.from(source.place);
            *sum_of_squares += reached * reached;
        }
        self.entered.push(source);
    }

    fn at(&self, place: usize) -> Deviation {
        let mut power = Deviation { rms: 0.0, worst: 0.0 };
        for Source { place: from, noise, gain, .. } in &self.entered {
            let gain = gain * self.network.gains.between(*from, place);
            power.rms += (gain * noise.rms) * (gain * noise.rms);
            power.worst += (gain * noise.worst) * (gain * noise.worst);
        }
        Deviation { rms: power.rms.sqrt(), worst: power.worst.sqrt() }
    }
}

/// Follows the `steps` of a structure on `ring` with `settings` through the network.
///
/// # Errors
/// A missing calibration.
pub fn walk(
    network: &Lowered,
    plan: &Steps,
    ring: &Ring,
    settings: &Settings,
    encryption: EncryptionKind,
    privacy: Option<PrivacyGoal>,
) -> Result<Walk, PlanError> {
    let fresh = match encryption {
        EncryptionKind::Secret => noise::fresh_secret(ring.shape.n),
        EncryptionKind::Public => noise::fresh_public(ring.shape.n, ring.log_p()),
    };
    let scale = Scale::from_log2(settings.input_log_scale);
    let worst = privacy.map(|_| WorstImage { gains: network.worst_gains(), sum_of_squares: 0.0 });
    let mut sources = Sources { network, entered: Vec::new(), worst };
    let output = network.gains.places().output();
    sources.enter(0, fresh.plus(ring.rotations()).times(1.0 / scale.value()));
    let mut input = State {
        level: ring.primes.len(),
        components: 2,
        scale,
        bound: network.input_bound,
        noise: sources.at(0),
        headroom: 0.0,
    };
    input.headroom = headroom(ring, input.level, scale, input.bound);
    let mut walk = Walk {
        headroom: input.headroom,
        noise: input.noise,
        input,
        steps: Vec::with_capacity(plan.0.len()),
        sources: Vec::new(),
        flood: None,
        packed: None,
        rounding: 0.0,
    };
    let mut rounding = 0.0f64;
    for step in &plan.0 {
        let place = step.place;
        let (mut precisions, mut product_scales) = (Vec::new(), Vec::new());
        let after = match &step.kind {
            StepKind::Linear(terms) => {
                let operands: Vec<&State> = step.operands.iter().map(|&tensor| walk.tensor(tensor)).collect();
                let level = operands.iter().map(|state| state.level).min().expect("a step has an operand");
                let components = operands.iter().map(|state| state.components).max().expect("a step has an operand");
                let joined: Vec<Joined<'_>> = terms
                    .iter()
                    .zip(&operands)
                    .map(|(term, state)| Joined {
                        scale: state.scale,
                        factor: term.of(network),
                        bits: settings.weight_bits[term.factor],
                    })
                    .collect();
                let SumScale { scale, precisions: found } = match &joined[..] {
                    [one] => single_scale(one, step.makes_scores),
                    several => joint_scale(several, step.makes_scores),
                };
                for ((term, Joined { factor, .. }), precision) in terms.iter().zip(&joined).zip(&found) {
                    let rms = calibrated(&factor.map.name, factor.map.input_rms, "input_rms")?;
                    let gain = rms * network.gains.between(term.place, output);
                    rounding += precision.rounding_gain * gain * gain;
                }
                precisions = found;
                let range = match &joined[..] {
                    [one] => calibrated(&one.factor.map.name, one.factor.map.output_range, "output_range")?,
                    _ => {
                        let stage = &network.stages[step.stage];
                        calibrated(&stage.name, stage.range, "output_range")?
                    }
                };
                let bound = range[0].abs().max(range[1].abs());
                let headroom = headroom(ring, level, scale, bound);
                State { level, components, scale, bound, noise: sources.at(place), headroom }
            }
            StepKind::Maintenance(maintenance) => {
                let before = walk.tensor(step.operands[0]);
                let mut u = before.ciphertext();
                let entered = u.maintain(*maintenance, ring);
                sources.enter(place, entered.times(1.0 / u.scale.value()));
                let headroom = headroom(ring, u.level, u.scale, before.bound);
                State { noise: sources.at(place), headroom, ..before.with_ciphertext(u) }
            }
            StepKind::Activation(maintenance) => {
                let before = walk.tensor(step.operands[0]);
                let activated = activate(network, step, maintenance, ring, before, &mut sources);
                product_scales = activated.product_scales;
                activated.after
            }
        };
        walk.headroom = walk.headroom.min(after.headroom);
        walk.steps.push(WalkStep { place, precisions, after, product_scales });
    }
    let state = walk.output().clone();
    if ring.shape.log_leaves > 0 && privacy.is_none() {
        let packed = PackedScores::plan(ring, state.ciphertext(), network.scores(), state.bound);
        walk.headroom = walk.headroom.min(packed.headroom);
        sources.enter(output, packed.noise);
        sources.entered.iter_mut().for_each(|source| source.noise = source.noise.times(packed.factor));
        walk.packed = Some(packed);
    }
    let result = walk.result();
    let rerandomisation = noise::rerandomise(ring.shape.n, result.components).times(1.0 / result.scale.value());
    sources.enter(output, rerandomisation);
    if let (Some(goal), Some(WorstImage { sum_of_squares, .. })) = (privacy, &sources.worst) {
        let hidden = sum_of_squares.sqrt();
        walk.flood = Flood::plan(goal, ring, state.ciphertext(), network.scores(), state.bound, hidden);
        // Where no flood is wide enough, the noise is beyond anything.
        let noise = walk.flood.as_ref().map_or(Noise::even(f64::INFINITY), |flood| flood.noise);
        sources.entered.push(Source { place: output, product: None, noise, gain: 1.0 });
        walk.headroom = walk.flood.as_ref().map_or(walk.headroom, |flood| walk.headroom.min(flood.headroom));
    }
    walk.noise = sources.at(output);
    walk.sources = sources.entered;
    walk.rounding = rounding.sqrt();
    Ok(walk)
}

fn calibrated<T>(layer: &str, value: Option<T>, field: &'static str) -> Result<T, PlanError> {
    value.ok_or_else(|| PlanError::MissingCalibration { layer: layer.into(), field })
}

/// A term of a linear step.
struct Joined<'a> {
    /// Scale of its operand.
    scale: Scale,
    factor: &'a Factor,
    /// Size of its weights.
    bits: f64,
}

/// Scale of a sum of terms, and how each of them is brought there.
struct SumScale {
    scale: Scale,
    /// By term.
    precisions: Vec<Precision>,
}

/// Of a sum of several terms (docs/planner.md, "Joins").
///
/// Each term's weights have the size that the settings give them, or more: the largest scale that this makes is that of the sum.
/// Factors of diagonal maps may be integers of any size, and the result of another map is multiplied by an integer where its
/// largest weight does not reach. Both are exact and cost headroom, but no level.
fn joint_scale(terms: &[Joined<'_>], makes_scores: bool) -> SumScale {
    let is_diagonal = |term: &Joined<'_>| term.factor.map.geometry.is_diagonal();
    let larger = |a: Scale, b: Scale| if b > a { b } else { a };
    let top = terms.iter().map(|term| term.scale).fold(terms[0].scale, larger);
    let is_exact = |term: &Joined<'_>| {
        let factor = top.value() / term.scale.value();
        is_diagonal(term) && term.factor.map.weights.iter().all(|w| (w * factor).fract() == 0.0)
    };
    let sized = |term: &Joined<'_>| term.scale.times(term.factor.rounded(term.bits).scale);
    let mut scale = match terms.iter().all(is_exact) {
        true => top,
        false => terms.iter().map(sized).fold(top, larger),
    };
    if makes_scores {
        // As in `single_scale`, but upwards, so that no weight is smaller than it was to be.
        let power = scale.floor_power_of_two();
        scale = if power == scale { scale } else { power.times(2.0) };
    }
    let precision = |term: &Joined<'_>| {
        let whole = scale.value() / term.scale.value();
        if is_diagonal(term) {
            let rounding_gain = rounding_gain(&term.factor.map, whole);
            return Precision { weight_scale: whole, factor: 1.0, rounding_gain };
        }
        let finest = term.factor.rounded(*WEIGHT_BITS.end()).scale;
        let factor = libm::ceil(whole / finest).max(1.0);
        let weight_scale = whole / factor;
        Precision { weight_scale, factor, rounding_gain: term.factor.rounding_gain(weight_scale) }
    };
    SumScale { scale, precisions: terms.iter().map(precision).collect() }
}

/// Of a single term. The network's last factor lowers its weight scale so that the
/// output scale is an exact power of two, before primes of the chain are divided off: it then tells the client nothing of the largest weight.
fn single_scale(term: &Joined<'_>, makes_scores: bool) -> SumScale {
    let RoundedWeights { scale: weight_scale, rounding_gain } = term.factor.rounded(term.bits);
    let output = term.scale.times(weight_scale);
    if !makes_scores {
        return SumScale { scale: output, precisions: vec![Precision { weight_scale, factor: 1.0, rounding_gain }] };
    }
    let power = output.floor_power_of_two();
    let lowered = power.value() / term.scale.value();
    let ratio = weight_scale / lowered;
    // Off the grid, where there is one.
    let rounding_gain =
        if term.factor.on_grid { term.factor.rounding_gain(lowered) } else { rounding_gain * ratio * ratio };
    SumScale { scale: power, precisions: vec![Precision { weight_scale: lowered, factor: 1.0, rounding_gain }] }
}

/// What an activation leaves.
struct Activated {
    after: State,
    /// Scale after each product, before the constant that follows it.
    product_scales: Vec<Scale>,
}

fn activate(
    network: &Lowered,
    step: &Step,
    maintenance: &[Maintenance],
    ring: &Ring,
    before: &State,
    sources: &mut Sources<'_>,
) -> Activated {
    let Step { stage, place, .. } = *step;
    let activation = network.stages[stage].activation.as_ref().expect("a stage with an activation");
    let degree = activation.degree();
    let arrangement = Arrangement::with_products(degree, maintenance.len());
    let ProductEstimates { bounds, gains, peaks } = activation.estimates(arrangement);
    let mut least = f64::INFINITY;
    let mut product_scales = Vec::new();
    let result = arrangement.follow(degree, before.ciphertext(), |i, a: &Ciphertext, b: &Ciphertext| {
        let mut u = a.times(b);
        least = least.min(headroom(ring, u.level, u.scale, bounds[i]));
        let entered = u.maintain(maintenance[i], ring);
        // The last product's noise is that of the activation's value.
        let product = (i + 1 < maintenance.len()).then_some(InnerProduct { stage, arrangement, index: i });
        let noise = entered.times(1.0 / u.scale.value());
        sources.enter_within(Source { place, product, noise, gain: gains[i] }, peaks[i]);
        least = least.min(headroom(ring, u.level, u.scale, bounds[i]));
        product_scales.push(u.scale);
        u
    });
    let bound = *bounds.last().expect("an activation has products");
    let after = State { bound, noise: sources.at(place), headroom: least, ..before.with_ciphertext(result) };
    Activated { after, product_scales }
}

/// Bits between `HEADROOM` times the bound and a wrap at `level`.
pub fn headroom(ring: &Ring, level: usize, scale: Scale, bound: f64) -> f64 {
    ring.log_q(level) - 1.0 - scale.log2() - libm::log2(HEADROOM * bound)
}
