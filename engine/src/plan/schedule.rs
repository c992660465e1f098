//! A schedule, and what it does to levels, scales, values and noise.

use cryptodl_core::backend::ProductPlan;
use cryptodl_core::ckks::noise::{self, Noise};
use cryptodl_core::ckks::{EncryptionKind, HEADROOM, RelinLayout, Scale};

use super::PlanError;
use super::arrangement::Arrangement;
use super::cost::draws;
use super::lowered::{Factor, Lowered};
use super::normalise::ProductEstimates;
use super::privacy::{Flood, PrivacyGoal};
use super::tolerance::Limits;
use super::worst::WorstGains;

/// Noise above this share of the calibrated values is no small disturbance any more: activations bend it, and its prediction
/// by derivatives fails.
pub const LINEAR_SHARE: f64 = 0.125;

/// The discrete shape of a schedule: how runs are factored, and what follows each product.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Structure {
    /// Per stage, how many base maps each factor merges.
    pub factors: Vec<Vec<usize>>,
    /// Per activation, what follows each product; their number tells the [`Arrangement`].
    pub products: Vec<Vec<ProductPlan>>,
    /// Per activation, whether what follows its last product waits until after the next stage's maps: these act on any number of
    /// components, and where they leave fewer values, fewer are relinearised.
    pub deferred: Vec<bool>,
}

/// A ciphertext within an activation.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// Chain limbs.
    pub level: usize,
    /// Components.
    pub components: usize,
    /// Scale.
    pub scale: Scale,
}

impl Operand {
    /// The product of two: the one with more limbs drops its last ones without division, so that its scale stays.
    pub fn times(&self, other: &Operand) -> Operand {
        Operand {
            level: self.level.min(other.level),
            components: self.components + other.components - 1,
            scale: self.scale.times(other.scale.value()),
        }
    }

    /// Does what is planned after a product and returns the noise that it adds, in units of the integers after it.
    fn reduce(&mut self, plan: ProductPlan, ring: &Ring) -> Noise {
        let mut entered = Noise::even(0.0);
        let mut divisor = 1.0;
        for &q in ring.primes[self.level - plan.drop..self.level].iter().rev() {
            self.scale = self.scale.over(q);
            divisor *= f64::from(q);
        }
        if plan.relinearize {
            let layout = ring.relin_layout(ring.primes.len());
            let log_digit = layout.digit_primes as f64 * f64::from(ring.prime_bits);
            let key = noise::relinearise(ring.n, layout.digits(self.level), log_digit, ring.log_p());
            entered = entered.plus(key.times(1.0 / divisor));
        }
        (self.level, self.components) = plan.result(self.level, self.components);
        if plan.acts() {
            entered = entered.plus(noise::divide(ring.n, self.components));
        }
        entered
    }
}

impl Structure {
    /// Whether any product is relinearised.
    pub fn relinearizes(&self) -> bool {
        self.products.iter().flatten().any(|plan| plan.relinearize)
    }

    /// What follows the products of an activation at once, and what waits.
    pub fn plans(&self, activation: usize) -> (Vec<ProductPlan>, Option<ProductPlan>) {
        let mut plans = self.products[activation].clone();
        let last = plans.last_mut().filter(|_| self.deferred[activation]);
        let waiting = last.map(std::mem::take);
        (plans, waiting)
    }

    /// Maps, products and what waits: what a walk has states for.
    pub fn steps(&self) -> usize {
        let (factors, products) = (self.factors.iter().map(Vec::len), self.products.iter().map(Vec::len));
        factors.chain(products).sum::<usize>() + self.deferred.iter().filter(|&&waits| waits).count()
    }

    /// Primes dropped in all.
    pub fn drops(&self) -> usize {
        self.products.iter().flatten().map(|plan| plan.drop).sum()
    }
}

/// Ring and modulus chain of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Ring {
    /// Dimension.
    pub n: usize,
    /// Size of the primes in bits.
    pub prime_bits: u32,
    /// The chain.
    pub primes: Vec<u32>,
    /// Special primes.
    pub special: Vec<u32>,
    /// `log2` of the product of the first primes of the chain, by their number.
    log_q: Vec<f64>,
    /// `log2 P`.
    log_p: f64,
    /// Sum of [`draws`] over the chain.
    draws: f64,
}

impl Ring {
    /// A ring over `primes` of `prime_bits` bits, descending: `special` special primes first, then the chain.
    pub fn new(n: usize, prime_bits: u32, primes: &[u32], special: usize) -> Self {
        let (special_primes, primes) = primes.split_at(special);
        let sums = |primes: &[u32]| {
            let sum = primes.iter().scan(0.0, |sum, &q| {
                *sum += libm::log2(q.into());
                Some(*sum)
            });
            std::iter::once(0.0).chain(sum).collect::<Vec<f64>>()
        };
        let (log_q, log_p) = (sums(primes), sums(special_primes)[special]);
        let draws = primes.iter().map(|&q| draws(q)).sum();
        Ring { n, prime_bits, primes: primes.to_vec(), special: special_primes.to_vec(), log_q, log_p, draws }
    }

    /// `log2 Q` of the first `level` primes.
    pub fn log_q(&self, level: usize) -> f64 {
        self.log_q[level]
    }

    /// How often one residue modulo each prime of the chain is drawn, in all.
    pub fn draws(&self) -> f64 {
        self.draws
    }

    /// `log2 P`.
    pub fn log_p(&self) -> f64 {
        self.log_p
    }

    /// The relinearisation key's layout for a structure: digits as large as `P`.
    pub fn relin_layout(&self, level: usize) -> RelinLayout {
        RelinLayout { level, digit_primes: self.special.len() }
    }
}

/// The numbers that remain to be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `2 log2` of the input scale.
    pub input_half_bits: u32,
    /// Half bits of each factor's weights, in order.
    pub weight_half_bits: Vec<u32>,
}

/// Predicted noise of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deviation {
    /// Root mean square over slots.
    pub rms: f64,
    /// Standard deviation at the slot where it is largest.
    pub worst: f64,
}

/// A noise that enters somewhere.
#[derive(Clone, Debug)]
pub struct Source {
    /// Place whose values it reaches first.
    pub place: usize,
    /// Where it enters inside the activation before `place`: the stage, and a product before the last.
    product: Option<(usize, Arrangement, usize)>,
    /// In units of the values where it enters.
    pub noise: Noise,
    /// What unit noise there is at `place`.
    pub gain: f64,
}

impl Source {
    /// Its name in calibrations.
    pub fn name(&self, network: &Lowered) -> String {
        match self.product {
            None => network.gains.names()[self.place].clone(),
            Some((stage, arrangement, product)) => {
                let activation = network.stages[stage].activation.as_ref().expect("noise entered its products");
                activation.product_name(arrangement, product)
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
    fn operand(&self) -> Operand {
        Operand { level: self.level, components: self.components, scale: self.scale }
    }

    /// The state with other ciphertexts.
    fn with_operand(&self, u: Operand) -> State {
        State { level: u.level, components: u.components, scale: u.scale, ..self.clone() }
    }
}

/// What a step of a walk is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepKind {
    /// A factor of the stage's run.
    Factor {
        /// First base map.
        first: usize,
        /// Number of base maps.
        count: usize,
    },
    /// The stage's activation.
    Activation,
    /// What waited until after the stage's maps.
    Reduction(ProductPlan),
}

/// A step of a walk: the state after it.
#[derive(Clone, Debug)]
pub struct WalkStep {
    /// Stage.
    pub stage: usize,
    /// What it is.
    pub kind: StepKind,
    /// Weight scale of a factor, 1 for an activation.
    pub weight_scale: f64,
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
    pub fn result(&self) -> Operand {
        self.flood.map_or_else(|| self.output().operand(), |flood| flood.result)
    }

    /// The states with their places.
    pub fn states<'a>(&'a self, network: &'a Lowered) -> impl Iterator<Item = (&'a State, usize)> {
        let place = |step: &'a WalkStep| match step.kind {
            StepKind::Factor { first, count } => network.gains.after_map(step.stage, first + count),
            StepKind::Activation => network.gains.after_activation(step.stage),
            StepKind::Reduction(_) => network.gains.after_map(step.stage, network.stages[step.stage].run.len()),
        };
        let steps = self.steps.iter().map(move |step| (&step.after, place(step)));
        std::iter::once((&self.input, network.gains.input())).chain(steps)
    }

    /// How far the noise is above what the labels bear, or above what leaves the linearised prediction true, as a ratio of
    /// variances: feasible at most 1.
    pub fn strain(&self, limits: &Limits) -> f64 {
        let square = |x: f64| x * x;
        let [by_encryption, by_rounding, before_activations] = limits.corrections;
        let encryption = square(by_encryption * self.noise.worst);
        let total = encryption + square(by_rounding * self.rounding);
        let labels = (encryption / (limits.encryption * limits.encryption)).max(total / (limits.total * limits.total));
        let crowding = |state: &State| before_activations * state.noise.worst / (LINEAR_SHARE * state.bound);
        let states = std::iter::once(&self.input).chain(self.steps.iter().map(|step| &step.after));
        states.map(|state| square(crowding(state))).fold(labels, f64::max)
    }
}

/// Noises that have entered so far, in units of the value at the place where they entered.
struct Sources<'a> {
    network: &'a Lowered,
    entered: Vec<Source>,
    /// Where noise is to be hidden: bounds on the gains, and the sum of squares of what reaches the scores for the worst image.
    worst: Option<(&'a WorstGains, f64)>,
}

impl Sources<'_> {
    fn enter(&mut self, place: usize, noise: Noise) {
        self.enter_within(Source { place, product: None, noise, gain: 1.0 }, 1.0);
    }

    /// Noise that is multiplied before it is at its place: by its gain in the root mean square, by `most` at most.
    fn enter_within(&mut self, source: Source, most: f64) {
        if let Some((gains, sum)) = &mut self.worst {
            let reached = source.noise.worst * most * gains.from(source.place);
            *sum += reached * reached;
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

/// Follows `structure` on `ring` with `settings` through the network.
///
/// # Errors
/// A missing calibration.
pub fn walk(
    network: &Lowered,
    structure: &Structure,
    ring: &Ring,
    settings: &Settings,
    encryption: EncryptionKind,
    privacy: Option<PrivacyGoal>,
) -> Result<Walk, PlanError> {
    let fresh = match encryption {
        EncryptionKind::Secret => noise::fresh_secret(ring.n),
        EncryptionKind::Public => noise::fresh_public(ring.n, ring.log_p()),
    };
    let scale = Scale::from_half_bits(settings.input_half_bits);
    let worst = privacy.map(|_| (network.worst_gains(), 0.0));
    let mut sources = Sources { network, entered: Vec::new(), worst };
    sources.enter(network.gains.input(), fresh.times(1.0 / scale.value()));
    let mut state = State {
        level: ring.primes.len(),
        components: 2,
        scale,
        bound: network.input_bound,
        noise: sources.at(network.gains.input()),
        headroom: 0.0,
    };
    state.headroom = headroom(ring, state.level, scale, state.bound);
    let input = state.clone();
    let mut steps = Vec::new();
    let mut rounding = 0.0f64;
    let mut half_bits = settings.weight_half_bits.iter();
    let last_stage = network.stages.len() - 1;
    let mut activations = 0;
    let mut waiting: Option<ProductPlan> = None;
    for (stage, counts) in structure.factors.iter().enumerate() {
        let mut first = 0;
        for &count in counts {
            let factor = network.factor(stage, first, count).expect("structures use factors that exist");
            let is_last = stage == last_stage && first + count == network.stages[stage].run.len();
            let half_bits = *half_bits.next().expect("half bits for every factor");
            let (weight_scale, rounding_gain, scale) = factor_scale(factor, half_bits, state.scale, is_last);
            let place = network.gains.after_map(stage, first + count);
            let rms = calibrated(factor, factor.map.input_rms, "input_rms")?;
            let gain = rms * network.gains.between(place, network.gains.output());
            rounding += rounding_gain * gain * gain;
            let [low, high] = calibrated(factor, factor.map.output_range, "output_range")?;
            let bound = low.abs().max(high.abs());
            let headroom = headroom(ring, state.level, scale, bound);
            state = State { scale, bound, noise: sources.at(place), headroom, ..state };
            let kind = StepKind::Factor { first, count };
            steps.push(WalkStep { stage, kind, weight_scale, after: state.clone(), product_scales: Vec::new() });
            first += count;
        }
        if let Some(plan) = waiting.take() {
            let place = network.gains.after_map(stage, first);
            let mut u = state.operand();
            let entered = u.reduce(plan, ring);
            sources.enter(place, entered.times(1.0 / u.scale.value()));
            let headroom = headroom(ring, u.level, u.scale, state.bound);
            state = State { noise: sources.at(place), headroom, ..state.with_operand(u) };
            let kind = StepKind::Reduction(plan);
            steps.push(WalkStep { stage, kind, weight_scale: 1.0, after: state.clone(), product_scales: Vec::new() });
        }
        if network.stages[stage].activation.is_some() {
            let (plans, later) = structure.plans(activations);
            activations += 1;
            waiting = later;
            let (after, product_scales) = activate(network, stage, &plans, ring, &state, &mut sources);
            state = after;
            let kind = StepKind::Activation;
            steps.push(WalkStep { stage, kind, weight_scale: 1.0, after: state.clone(), product_scales });
        }
    }
    let masks = noise::rerandomise(ring.n, state.components).times(1.0 / state.scale.value());
    sources.enter(network.gains.output(), masks);
    let mut headroom = steps.iter().map(|step| step.after.headroom).fold(input.headroom, f64::min);
    let mut flood = None;
    if let (Some(goal), Some((_, sum))) = (privacy, sources.worst) {
        flood = Flood::plan(goal, ring, state.operand(), network.scores(), state.bound, sum.sqrt());
        // Where no flood is wide enough, the noise is beyond anything.
        let noise = flood.as_ref().map_or(Noise::even(f64::INFINITY), |flood| flood.noise);
        sources.entered.push(Source { place: network.gains.output(), product: None, noise, gain: 1.0 });
        headroom = flood.as_ref().map_or(headroom, |flood| headroom.min(flood.headroom));
    }
    let noise = sources.at(network.gains.output());
    Ok(Walk { input, steps, sources: sources.entered, noise, flood, rounding: rounding.sqrt(), headroom })
}

fn calibrated<T>(factor: &Factor, value: Option<T>, field: &'static str) -> Result<T, PlanError> {
    value.ok_or_else(|| PlanError::MissingCalibration { layer: factor.map.name.clone(), field })
}

/// Weight scale, rounding gain and output scale of a factor. The network's last factor lowers its weight scale so that the
/// output scale is an exact power of two, before primes of the chain are divided off: it then tells the client nothing of the largest weight.
fn factor_scale(factor: &Factor, half_bits: u32, input: Scale, is_last: bool) -> (f64, f64, Scale) {
    let (weight_scale, rounding_gain) = factor.precision(half_bits);
    let output = input.times(weight_scale);
    if !is_last {
        return (weight_scale, rounding_gain, output);
    }
    let power = output.floor_power_of_two();
    let lowered = power.value() / input.value();
    let ratio = weight_scale / lowered;
    (lowered, rounding_gain * ratio * ratio, power)
}

fn activate(
    network: &Lowered,
    stage: usize,
    products: &[ProductPlan],
    ring: &Ring,
    before: &State,
    sources: &mut Sources<'_>,
) -> (State, Vec<Scale>) {
    let activation = network.stages[stage].activation.as_ref().expect("a stage with an activation");
    let place = network.gains.after_activation(stage);
    let degree = activation.degree();
    let arrangement = Arrangement::with_products(degree, products.len());
    let ProductEstimates { bounds, gains, peaks } = activation.estimates(arrangement);
    let mut least = f64::INFINITY;
    let mut scales = Vec::new();
    let result = arrangement.follow(degree, before.operand(), |i, a: &Operand, b: &Operand| {
        let mut u = a.times(b);
        least = least.min(headroom(ring, u.level, u.scale, bounds[i]));
        let entered = u.reduce(products[i], ring);
        // The last product's noise is that of the activation's value.
        let product = (i + 1 < products.len()).then_some((stage, arrangement, i));
        let noise = entered.times(1.0 / u.scale.value());
        sources.enter_within(Source { place, product, noise, gain: gains[i] }, peaks[i]);
        least = least.min(headroom(ring, u.level, u.scale, bounds[i]));
        scales.push(u.scale);
        u
    });
    let bound = *bounds.last().expect("an activation has products");
    (State { bound, noise: sources.at(place), headroom: least, ..before.with_operand(result) }, scales)
}

/// Bits between `HEADROOM` times the bound and a wrap at `level`.
pub fn headroom(ring: &Ring, level: usize, scale: Scale, bound: f64) -> f64 {
    ring.log_q(level) - 1.0 - scale.log2() - libm::log2(HEADROOM * bound)
}
