//! Pass 5: from a schedule to a Program, and what is predicted of it.

use std::fmt::Write as _;

use cryptodl_core::backend::ProductPlan;
use cryptodl_core::ckks::{EvalKeyLayout, InputLayout, OutputLayout, Packing, Params, ParamsSpec, SecurityLevel};
use cryptodl_core::wire::{CiphertextLayout, ciphertexts_len, eval_keys_len, public_key_len};
use cryptodl_models::network::Network;
use serde::Serialize;

use super::lowered::Lowered;
use super::prediction::{self, Prediction};
use super::privacy::CRYPTOGRAPHIC_BITS;
use super::quantise::{quantised, quantised_diagonal};
use super::schedule::{Precision, Ring, Structure, Walk, WalkStep};
use super::search::{Found, Outcome};
use super::steps::{self, StepKind, Steps};
use super::work::{self, Work};
use super::{Plan, PlanError, PlanOptions, changed_share};
use cryptodl_program::{ActivationStep, Content, PrivacyGoal, Program, Salt, Step, Term, TermMap};

/// What is predicted of a Program.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// Model name.
    pub model: String,
    /// Digest of the Program.
    pub program: String,
    /// The schedule: ring, how each linear run is factored, and what follows each product.
    pub schedule: String,
    /// Ring and chain.
    pub params: ParamsReport,
    /// Images that the schedule was optimised for.
    pub batch: usize,
    /// Slots of one ciphertext set.
    pub slots: usize,
    /// Who encrypts: `secret` or `public`.
    pub encryption: String,
    /// `log2` of the input scale.
    pub input_log_scale: f64,
    /// Segments in order; a fused segment is one entry.
    pub layers: Vec<LayerReport>,
    /// The share of labels that may change.
    pub tolerance: f64,
    /// Predicted noise of a logit: root mean square over slots, and at the worst slot; re-randomisation included.
    pub noise: NoiseReport,
    /// How the computation's noise is hidden from the client; none where it is not.
    pub circuit_privacy: Option<PrivacyReport>,
    /// Sizes in bytes for `batch` images.
    pub bytes: BytesReport,
    /// Predicted time on the cost table's machine (one core), in seconds.
    pub predicted_seconds: f64,
    /// Predicted peak of ciphertext memory while one set is computed, in bytes, without tiling.
    pub peak_bytes: u64,
    /// Schedules that were not chosen.
    pub runners_up: Vec<RunnerUpReport>,
    /// Leading terms that were dropped from activations.
    pub notes: Vec<String>,
}

/// Ring and chain of a Program.
#[derive(Clone, Debug, Serialize)]
pub struct ParamsReport {
    /// Ring dimension.
    pub n: usize,
    /// `log2 Q`.
    pub log_q: f64,
    /// `log2 P`.
    pub log_p: f64,
    /// `log2 (Q P)`.
    pub log_qp: f64,
    /// Largest `log2 (Q P)` at the enforced level.
    pub log_qp_limit: u32,
    /// Strongest level of the table that these parameters meet.
    pub security_bits: u32,
    /// Chain primes.
    pub limbs: usize,
    /// The chain.
    pub primes: Vec<u32>,
    /// Special primes.
    pub special_primes: Vec<u32>,
}

/// A segment: the state after it and the work in it.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Names of its steps, joined by ` > `.
    pub name: String,
    /// Chain limbs after it.
    pub limbs: usize,
    /// Components after it.
    pub components: usize,
    /// `log2` of the scale after it.
    pub log_scale: f64,
    /// Calibrated magnitude of its values.
    pub bound: f64,
    /// Least bits to spare within it.
    pub headroom_bits: f64,
    /// `log2` of the predicted noise (rms) in units of its values.
    pub noise_bits: f64,
    /// The same at the worst slot.
    pub noise_bits_worst: f64,
    /// Multiply-adds per image, as executed.
    pub multiply_adds: u64,
    /// Multiply-adds per image of the layers as published.
    pub multiply_adds_published: u64,
    /// Multiply-adds of a weight with a residue, per ciphertext set.
    pub residue_multiply_adds: u64,
    /// Transforms per ciphertext set.
    pub ntts: u64,
    /// Bytes of its result, per ciphertext set.
    pub bytes: u64,
    /// Size of its integer weights with sign: the largest is `2^(bits - 1) - 1`. Absent where there are none, and in a fused
    /// segment, whose steps have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<f64>,
    /// The steps of a fused segment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<LayerReport>,
}

/// Predicted noise on a logit.
#[derive(Clone, Debug, Serialize)]
pub struct NoiseReport {
    /// Whether the model file has a per-image calibration. Without it everything here rests on histograms of single layers, and noise
    /// may be four times as large.
    pub calibrated: bool,
    /// `log2` of the encryption noise, root mean square over images and slots but for the largest hundredth.
    pub bits: f64,
    /// The same of the image and slot in the middle, where the model file has a per-image calibration.
    pub bits_median: Option<f64>,
    /// The same at the worst slot.
    pub bits_worst: f64,
    /// `log2` of the deviation that rounding weights makes.
    pub rounding_bits: f64,
    /// Predicted share of labels changed by encryption noise alone.
    pub changed_by_encryption: f64,
    /// The same with weight rounding.
    pub changed: f64,
    /// The share that may change if predictions are as far off as they can be: `changed` with a per-image calibration.
    pub changed_at_most: f64,
}

/// A flood that hides the computation's noise.
#[derive(Clone, Debug, Serialize)]
pub struct PrivacyReport {
    /// Sets that may be computed for one client.
    pub sets: u32,
    /// Bits asked for, `T`.
    pub bits: u32,
    /// `RHO = log2(scores N sets) / 2 + T`: bits by which the flood is wider than the noise that it hides.
    pub rho: f64,
    /// `log2` of the statistical distance of all results together from what shows nothing but the scores.
    pub log_distance: f64,
    /// `log2` of the bound on the hidden noise of a score, for the worst image of the calibrated ranges.
    pub noise_bits: f64,
    /// `log2` of the flood's deviation on a score.
    pub flood_bits: f64,
    /// Chain limbs of the result, after the flood and the division that follows it.
    pub limbs: usize,
    /// Components of the result.
    pub components: usize,
}

/// File sizes in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct BytesReport {
    /// Evaluation key.
    pub eval_key: u64,
    /// Public key.
    pub public_key: u64,
    /// Encrypted images.
    pub upload: u64,
    /// Encrypted scores.
    pub download: u64,
    /// `upload` divided by the images.
    pub upload_per_image: f64,
}

impl BytesReport {
    /// Exact sizes for `images` images.
    pub fn of(program: &Program, params: &Params, images: usize) -> Self {
        let spec = program.client_spec();
        let upload = ciphertexts_len(params, &CiphertextLayout::input(&spec), images as u64);
        BytesReport {
            eval_key: eval_keys_len(params, &spec.evaluation_keys),
            public_key: public_key_len(params),
            upload,
            download: ciphertexts_len(params, &CiphertextLayout::result(&spec), images as u64),
            upload_per_image: upload as f64 / images as f64,
        }
    }
}

/// A schedule that was not chosen.
#[derive(Clone, Debug, Serialize)]
pub struct RunnerUpReport {
    /// What it does.
    pub schedule: String,
    /// Why it lost.
    pub reason: String,
}

/// How far predictions without a per-image calibration were off at most: two bits, for deep networks by encryption noise, for
/// squares without batch-norm by weight rounding.
const WIDER: f64 = 4.0;

impl NoiseReport {
    fn new(lowered: &Lowered, walk: &Walk, prediction: Option<&Prediction>) -> Self {
        let margins = &lowered.output.margins;
        let total = libm::hypot(walk.noise.worst, walk.rounding);
        let bits_worst = libm::log2(walk.noise.worst);
        match prediction {
            None => NoiseReport {
                calibrated: false,
                bits: libm::log2(walk.noise.rms),
                bits_median: None,
                bits_worst,
                rounding_bits: libm::log2(walk.rounding),
                changed_by_encryption: changed_share(margins, walk.noise.worst),
                changed: changed_share(margins, total),
                changed_at_most: changed_share(margins, WIDER * total),
            },
            Some(prediction) => NoiseReport {
                calibrated: true,
                bits: libm::log2(prediction.typical),
                bits_median: Some(libm::log2(prediction.median)),
                // The search's ratio of the worst slot to all of them does not depend on images.
                bits_worst: libm::log2(prediction.rms * walk.noise.worst / walk.noise.rms),
                rounding_bits: libm::log2(prediction.rounding),
                changed_by_encryption: prediction.encryption,
                changed: prediction.total,
                changed_at_most: prediction.total,
            },
        }
    }
}

impl ParamsReport {
    /// Of checked parameters.
    pub fn of(params: &Params) -> Self {
        let spec = params.spec();
        ParamsReport {
            n: spec.n,
            log_q: params.log_q(params.chain_len()),
            log_p: params.log_p(),
            log_qp: params.log_qp(),
            log_qp_limit: spec.security.max_log_qp(spec.n),
            security_bits: SecurityLevel::of(spec.n, params.log_qp()).map_or(0, SecurityLevel::bits),
            limbs: params.chain_len(),
            primes: spec.primes.clone(),
            special_primes: spec.special_primes.clone(),
        }
    }
}

/// What the search came to, for a report on the best: what nearly fits, then what fits and costs more.
pub(super) fn not_chosen(lowered: &Lowered, outcome: &Outcome) -> Vec<RunnerUpReport> {
    let beside_best = |price: f64| format!("{:+.0} % predicted time", 100.0 * (price / outcome.best.price - 1.0));
    let misses = outcome.misses.iter().map(|miss| RunnerUpReport {
        schedule: describe(lowered, &miss.structure, miss.ring),
        reason: format!("{}, but {}", beside_best(miss.price), miss.reason),
    });
    let fitting = outcome
        .runners_up
        .iter()
        .map(|found| RunnerUpReport { schedule: found.describe(lowered), reason: beside_best(found.price) });
    misses.chain(fitting).collect()
}

/// Quantises along a schedule and reports it, with what a per-image calibration predicts.
pub(super) fn finish(
    network: &Network,
    lowered: &Lowered,
    options: &PlanOptions,
    found: &Found,
    runners_up: Vec<RunnerUpReport>,
) -> Result<(Plan, Option<Prediction>), PlanError> {
    let (walk, ring) = (&found.walk, &found.ring);
    let mut program = build(network, lowered, options, found);
    let prediction = match &network.calibration {
        None => None,
        Some(calibration) => {
            let errors = prediction::correct(lowered, calibration, walk, &mut program)?;
            Some(Prediction::new(lowered, calibration, walk, &errors)?)
        }
    };
    if let Some(prediction) = &prediction {
        program.content.output.noise = prediction.rms;
    }
    let params = program.client_spec().check()?;
    for (step, name) in program.content.steps.iter().zip(&program.names) {
        let Step::Linear { terms, .. } = step else { continue };
        for term in terms {
            if let TermMap::Dense(map) = &term.map {
                map.prepare(params.basis(), &[]).map_err(|source| PlanError::Map { layer: name.clone(), source })?;
            }
        }
    }
    let plan = Steps::new(lowered, &found.structure);
    let works = work::steps(lowered, &plan, ring);
    let steps: Vec<LayerReport> = plan
        .0
        .iter()
        .zip(&walk.steps)
        .zip(&works)
        .zip(program.names.iter().zip(&program.content.steps))
        .map(|(((step, walked), work), (name, planned))| layer(lowered, step, walked, work, name, planned, ring.n))
        .collect();
    let layers = program.segments().into_iter().map(|segment| fuse(&steps[segment])).collect();
    let noise = NoiseReport::new(lowered, walk, prediction.as_ref());
    let circuit_privacy = walk.flood.map(|flood| {
        let goal = flood.privacy.goal;
        PrivacyReport {
            sets: goal.sets,
            bits: goal.bits,
            rho: goal.rho(ring.n, lowered.scores()),
            log_distance: libm::log2(goal.distance()),
            noise_bits: libm::log2(flood.bound),
            flood_bits: libm::log2(flood.width),
            limbs: flood.result.level,
            components: flood.result.components,
        }
    });
    let input_bytes = 4 * (program.inputs() * 2 * ring.primes.len() * ring.n) as u64;
    let peak_bytes = peak(&program, input_bytes, &steps);
    let report = PlanReport {
        model: network.name.clone(),
        program: program.digest().to_string(),
        schedule: found.describe(lowered),
        params: ParamsReport::of(&params),
        batch: options.batch,
        slots: ring.n,
        encryption: format!("{:?}", options.encryption).to_lowercase(),
        input_log_scale: walk.input.scale.log2(),
        layers,
        tolerance: lowered.tolerance.total(),
        noise,
        circuit_privacy,
        bytes: BytesReport::of(&program, &params, options.batch),
        predicted_seconds: found.price * 1e-9,
        peak_bytes,
        runners_up,
        notes: notes(lowered, options.circuit_privacy),
    };
    Ok((Plan { program, report }, prediction))
}

fn build(network: &Network, lowered: &Lowered, options: &PlanOptions, found: &Found) -> Program {
    let (walk, ring) = (&found.walk, &found.ring);
    let plan = Steps::new(lowered, &found.structure);
    let mut steps = Vec::new();
    let mut names = Vec::new();
    for (step, walked) in plan.0.iter().zip(&walk.steps) {
        let scale = walked.after.scale;
        let stage = &lowered.stages[step.stage];
        match &step.kind {
            StepKind::Linear(terms) => {
                let joins = terms.len() > 1;
                let each = terms.iter().zip(&step.operands).zip(&walked.precisions);
                let maps = || terms.iter().map(|term| &term.of(lowered).map);
                let quantised = each.map(|((term, &operand), &Precision { weight_scale, factor, .. })| {
                    let map = &term.of(lowered).map;
                    let map = match joins && map.geometry.is_diagonal() {
                        true => TermMap::Diagonal(quantised_diagonal(map, weight_scale)),
                        false => TermMap::Dense(quantised(map, weight_scale)),
                    };
                    Term { operand, map, factor }
                });
                let mut bias = vec![0.0; maps().map(|map| map.bias.len()).max().unwrap_or(0)];
                maps().for_each(|map| bias.iter_mut().zip(&map.bias).for_each(|(sum, b)| *sum += b));
                let constants = bias.into_iter().map(|b| scale.integer(b)).collect();
                steps.push(Step::Linear { terms: quantised.collect(), constants, scale });
                let parts: Vec<&str> = terms.iter().map(|term| term.of(lowered).map.name.as_str()).collect();
                names.push(parts.join(" + "));
            }
            StepKind::Activation(products) => {
                let activation = stage.activation.as_ref().expect("a stage with an activation");
                let before = walk.value(step.operands[0]).scale;
                let scales = std::iter::once(before).chain(walked.product_scales.iter().copied()).collect();
                names.push(activation.name.clone());
                let channels: Vec<&[f64]> = activation.channels.iter().map(|channel| &channel.constants[..]).collect();
                let activation = ActivationStep::new(activation.negate, &channels, scales, products.clone());
                steps.push(Step::Activation { operand: step.operands[0], activation });
            }
            StepKind::Reduction(plan) => {
                names.push(plan_name(plan).into());
                steps.push(Step::Reduction { operand: step.operands[0], plan: *plan, scale });
            }
        }
    }
    let output = walk.result();
    let relin = found.structure.relinearizes().then(|| ring.relin_layout(ring.primes.len()));
    let content = Content {
        salt: Salt::default(),
        params: ParamsSpec {
            n: ring.n,
            primes: ring.primes.clone(),
            special_primes: ring.special.clone(),
            security: options.security,
        },
        evaluation_keys: relin.map(EvalKeyLayout::Relinearisation).into_iter().collect(),
        encryption: options.encryption,
        tolerance: lowered.tolerance,
        input: InputLayout {
            packing: Packing::Spread,
            shape: network.input.shape,
            range: network.input.range,
            scale: walk.input.scale,
            level: walk.input.level,
        },
        steps,
        output: OutputLayout {
            classes: network.classes(),
            components: output.components,
            level: output.level,
            scale: output.scale,
            range: lowered.output.range,
            noise: walk.noise.rms,
        },
        circuit_privacy: walk.flood.map(|flood| flood.privacy),
    };
    Program { model: network.name.clone(), names, content }
}

/// Bits with sign of the largest weight of a sum of maps; none where there are factors of any size only.
fn weight_bits(step: &Step) -> Option<f64> {
    let Step::Linear { terms, .. } = step else { return None };
    let largest = terms.iter().filter_map(|term| match &term.map {
        TermMap::Dense(map) => map.weights.iter().map(|w| w.unsigned_abs()).max(),
        TermMap::Diagonal(_) => None,
    });
    largest.max().map(|largest| 1.0 + libm::log2(1.0 + f64::from(largest)))
}

fn layer(
    lowered: &Lowered,
    step: &steps::Step,
    walked: &WalkStep,
    work: &Work,
    name: &str,
    planned: &Step,
    n: usize,
) -> LayerReport {
    let state = &walked.after;
    let values = match &step.kind {
        StepKind::Linear(terms) => terms[0].of(lowered).map.geometry.outputs(),
        StepKind::Activation(_) | StepKind::Reduction(_) => lowered.stages[step.stage].values(),
    };
    LayerReport {
        name: name.into(),
        limbs: state.level,
        components: state.components,
        log_scale: state.scale.log2(),
        bound: state.bound,
        headroom_bits: state.headroom,
        noise_bits: libm::log2(state.noise.rms),
        noise_bits_worst: libm::log2(state.noise.worst),
        multiply_adds: work.multiply_adds,
        multiply_adds_published: work.published,
        residue_multiply_adds: work.residue_multiply_adds,
        ntts: work.ntts,
        bytes: 4 * (values * state.components * state.level * n) as u64,
        bits: weight_bits(planned),
        steps: Vec::new(),
    }
}

/// The most bytes of values that are alive at a time, where each is kept until its last reader is done.
fn peak(program: &Program, input_bytes: u64, steps: &[LayerReport]) -> u64 {
    let mut left: Vec<usize> = program.readers().iter().map(Vec::len).collect();
    let mut bytes = vec![input_bytes];
    let (mut alive, mut peak) = (input_bytes, input_bytes);
    for (step, report) in program.content.steps.iter().zip(steps) {
        bytes.push(report.bytes);
        alive += report.bytes;
        peak = peak.max(alive);
        for value in step.operands() {
            left[value] -= 1;
            if left[value] == 0 {
                alive -= bytes[value];
            }
        }
    }
    peak
}

fn fuse(steps: &[LayerReport]) -> LayerReport {
    let last = steps.last().expect("a segment has steps");
    let sum = |part: fn(&LayerReport) -> u64| steps.iter().map(part).sum();
    LayerReport {
        name: steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>().join(" > "),
        headroom_bits: steps.iter().map(|step| step.headroom_bits).fold(f64::INFINITY, f64::min),
        multiply_adds: sum(|step| step.multiply_adds),
        multiply_adds_published: sum(|step| step.multiply_adds_published),
        residue_multiply_adds: sum(|step| step.residue_multiply_adds),
        ntts: sum(|step| step.ntts),
        bits: if steps.len() > 1 { None } else { last.bits },
        steps: if steps.len() > 1 { steps.to_vec() } else { Vec::new() },
        ..last.clone()
    }
}

fn notes(lowered: &Lowered, privacy: Option<PrivacyGoal>) -> Vec<String> {
    let activations = lowered.stages.iter().filter_map(|stage| stage.activation.as_ref());
    let lowered = activations.filter_map(|activation| activation.lowered.map(|lowered| (activation, lowered)));
    let lowered = lowered.map(|(activation, (terms, error))| {
        format!(
            "{}: {terms} leading term(s) dropped, error at most {error:.1e} over the calibrated range",
            activation.name
        )
    });
    let weak = privacy.filter(|goal| goal.bits < CRYPTOGRAPHIC_BITS).map(|goal| {
        format!(
            "--circuit-privacy T = {} is below {CRYPTOGRAPHIC_BITS}: this slows an attacker down, but hides nothing in the \
             sense of cryptography",
            goal.bits
        )
    });
    lowered.chain(weak).collect()
}

fn plan_name(plan: &ProductPlan) -> &'static str {
    match (plan.relinearize, plan.drop) {
        (false, 0) => "lazy",
        (false, _) => "rescale",
        (true, 0) => "relinearise",
        (true, _) => "relinearise+rescale",
    }
}

impl Found {
    fn describe(&self, lowered: &Lowered) -> String {
        let Ring { n, prime_bits, primes, special, .. } = &self.ring;
        describe(lowered, &self.structure, [*n, *prime_bits as usize, primes.len(), special.len()])
    }
}

fn describe(lowered: &Lowered, structure: &Structure, [n, bits, limbs, special]: [usize; 4]) -> String {
    let mut schedule = format!("N = {n}, {limbs} x {bits} bits");
    if special > 0 {
        let _ = write!(schedule, " + {special} special");
    }
    let mut products = structure.products.iter();
    let mut deferred = structure.deferred.iter();
    let mut factors = structure.factors.iter();
    for stage in &lowered.stages {
        let runs: Vec<String> =
            factors.by_ref().take(stage.operands.len()).map(|counts| format!("{counts:?}")).collect();
        let _ = write!(schedule, "; {}", runs.join(" + "));
        if stage.activation.is_some() {
            let plans = products.next().map_or(&[][..], Vec::as_slice);
            let names = plans.iter().map(plan_name);
            let _ = write!(schedule, " {}", names.collect::<Vec<_>>().join(", "));
            if deferred.next() == Some(&true) {
                schedule.push_str(" after");
            }
        }
    }
    schedule
}

impl std::fmt::Display for PlanReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let p = &self.params;
        writeln!(f, "Program {} of {}", &self.program[..16], self.model)?;
        writeln!(
            f,
            "ring        N = {}, {} primes of log2 Q = {:.1} bits, P = {:.1}; log2 QP = {:.1}, at most {} at the level asked for: {}-bit security",
            p.n, p.limbs, p.log_q, p.log_p, p.log_qp, p.log_qp_limit, p.security_bits
        )?;
        writeln!(f, "chain       {:?}, special {:?}", p.primes, p.special_primes)?;
        writeln!(
            f,
            "input       scale 2^{:.1}, {} key encryption, {} images per set, optimised for {}",
            self.input_log_scale, self.encryption, self.slots, self.batch
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "{:<28} {:>5} {:>5} {:>5} {:>8} {:>9} {:>8} {:>8} {:>8} {:>12} {:>12} {:>9} {:>10}",
            "step",
            "bits",
            "limbs",
            "comps",
            "scale",
            "values",
            "spare",
            "noise",
            "worst",
            "multiply-add",
            "published",
            "NTTs",
            "MiB"
        )?;
        for segment in &self.layers {
            if segment.steps.len() > 1 {
                writeln!(f, "one fused segment of {} steps:", segment.steps.len())?;
            }
            for row in if segment.steps.is_empty() { std::slice::from_ref(segment) } else { &segment.steps } {
                writeln!(
                    f,
                    "{:<28} {:>5} {:>5} {:>5} {:>8} {:>9.3} {:>6.1} b {:>8} {:>8} {:>12} {:>12} {:>9} {:>10.1}",
                    row.name,
                    row.bits.map_or(String::new(), |bits| format!("{bits:.1}")),
                    row.limbs,
                    row.components,
                    format!("2^{:.1}", row.log_scale),
                    row.bound,
                    row.headroom_bits,
                    format!("2^{:.1}", row.noise_bits),
                    format!("2^{:.1}", row.noise_bits_worst),
                    row.multiply_adds,
                    row.multiply_adds_published,
                    row.ntts,
                    row.bytes as f64 / f64::from(1 << 20)
                )?;
            }
        }
        let n = &self.noise;
        writeln!(f)?;
        writeln!(
            f,
            "noise       2^{:.2} rms on a score{}, 2^{:.2} at the worst slot, weight rounding 2^{:.2}",
            n.bits,
            n.bits_median.map_or(String::new(), |bits| format!(", 2^{bits:.2} for the median image")),
            n.bits_worst,
            n.rounding_bits
        )?;
        writeln!(
            f,
            "labels      predicted to change: {:.3} % by encryption, {:.3} % with weight rounding; tolerance {:.3} %",
            100.0 * n.changed_by_encryption,
            100.0 * n.changed,
            100.0 * self.tolerance
        )?;
        if !n.calibrated {
            writeln!(
                f,
                "            up to {:.3} %: the model file has no per-image calibration (`cryptodl calibrate` measures it)",
                100.0 * n.changed_at_most
            )?;
        }
        if let Some(p) = &self.circuit_privacy {
            writeln!(
                f,
                "privacy     {} sets within 2^{:.0} of the scores alone: a flood of 2^{:.2} on a score, 2^{:.1} times what it hides at most",
                p.sets, p.log_distance, p.flood_bits, p.rho
            )?;
            writeln!(f, "            the result is divided to {} limbs of {} components", p.limbs, p.components)?;
        }
        let b = &self.bytes;
        writeln!(
            f,
            "sizes       upload {:.1} MB ({:.0} bytes per image), download {:.2} MB, evaluation key {} bytes, public key {} bytes",
            b.upload as f64 / 1e6,
            b.upload_per_image,
            b.download as f64 / 1e6,
            b.eval_key,
            b.public_key
        )?;
        writeln!(
            f,
            "cost        {:.3} s on the cost table's core for {} images; ciphertexts of one set take up to {:.0} MiB untiled",
            self.predicted_seconds,
            self.batch,
            self.peak_bytes as f64 / f64::from(1 << 20)
        )?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note        {note}"))?;
        writeln!(f, "not chosen")?;
        self.runners_up.iter().try_for_each(|runner| writeln!(f, "  {}: {}", runner.schedule, runner.reason))
    }
}
