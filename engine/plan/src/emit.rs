//! Pass 5: from a schedule to a Program, and what is predicted of it.

use cryptodl_core::ckks::{EncryptionKind, EvalKeyLayout, InputLayout, Leaves, OutputLayout, Packing, ParamsSpec};
use cryptodl_network::Network;
use cryptodl_program::{ActivationStep, Content, PrivacyGoal, Program, Salt, Step, Term, TermMap};

use super::describe::{describe, maintenance_name};
use super::lowered::Lowered;
use super::normalise::DroppedTerms;
use super::prediction::{self, Prediction};
use super::privacy::CRYPTOGRAPHIC_BITS;
use super::quantise::{quantised, quantised_diagonal};
use super::report::{BytesReport, NoiseReport, ParamsReport, PlanNote, PrivacyReport, RunnerUpReport, SegmentReport};
use super::schedule::{Precision, WalkStep};
use super::search::{Found, Outcome};
use super::steps::{self, StepKind, Steps};
use super::work::{Counted, Switching, Work};
use super::{Plan, PlanError, PlanOptions, PlanReport};

/// What the search came to, for a report on the best: what nearly fits, then what fits and costs more.
pub(super) fn not_chosen(lowered: &Lowered, outcome: &Outcome) -> Vec<RunnerUpReport> {
    let beside_best = |price: f64| {
        let more = 100.0 * (price / outcome.best.price - 1.0);
        format!("would take {:.0} % {} time", more.abs(), if more < 0.0 { "less" } else { "more" })
    };
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

/// A plan whose steps are unchecked yet, and what a per-image calibration predicts of it, where
/// there is one.
pub(super) struct Judged {
    pub plan: Plan,
    pub prediction: Option<Prediction>,
}

/// Quantises along a schedule and reports it, with what a per-image calibration predicts.
pub(super) fn finish(
    network: &Network,
    lowered: &Lowered,
    options: &PlanOptions,
    found: &Found,
    runners_up: Vec<RunnerUpReport>,
) -> Result<Judged, PlanError> {
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
    let spec = program.client_spec().check()?;
    let params = spec.params();
    let plan = Steps::new(lowered, &found.structure);
    let packs = ring.shape.log_leaves > 0 && options.circuit_privacy.is_none();
    let counted = Counted::new(lowered, &plan, ring.primes.len(), Switching::of(ring), packs, 0.0);
    let public = options.encryption == EncryptionKind::Public;
    let computing = counted.price(ring, public, options.batch) + counted.result_price(ring, options.batch);
    let works = counted.steps(ring.shape.n);
    let steps: Vec<SegmentReport> = plan
        .0
        .iter()
        .zip(&walk.steps)
        .zip(&works)
        .zip(program.names.iter().zip(&program.content.steps))
        .map(|(((step, walked), work), (name, planned))| {
            report_step(lowered, step, walked, work, name, planned, ring.shape.n)
        })
        .collect();
    let segments = program.segments().into_iter().map(|segment| fuse(&steps[segment])).collect();
    let noise = NoiseReport::new(lowered, walk, prediction.as_ref());
    let circuit_privacy = walk.flood.map(|flood| {
        let goal = flood.privacy.goal;
        PrivacyReport {
            sets: goal.sets,
            bits: goal.bits,
            rho: goal.rho(ring.shape.n, lowered.scores()),
            log_distance: libm::log2(goal.distance()),
            noise_bits: libm::log2(flood.bound),
            flood_bits: libm::log2(flood.width),
            limbs: flood.result.level,
            components: flood.result.components,
        }
    });
    let input_bytes = 4 * (program.inputs() * 2 * ring.primes.len() * ring.shape.n) as u64;
    let peak_bytes = peak(&program, input_bytes, &steps);
    let report = PlanReport {
        model: network.name.clone(),
        program: program.digest().to_string(),
        schedule: found.describe(lowered),
        params: ParamsReport::of(params),
        batch: options.batch,
        slots: ring.shape.n,
        pixels_per_ciphertext: 1 << ring.shape.log_leaves,
        encryption: format!("{:?}", options.encryption).to_lowercase(),
        input_log_scale: walk.input.scale.log2(),
        segments,
        tolerance: lowered.tolerance.total(),
        noise,
        circuit_privacy,
        bytes: BytesReport::of(&spec, options.batch),
        predicted_seconds: computing * 1e-9,
        peak_bytes,
        runners_up,
        notes: notes(lowered, options.circuit_privacy),
    };
    Ok(Judged { plan: Plan { program, report }, prediction })
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
            StepKind::Activation(maintenance) => {
                let activation = stage.activation.as_ref().expect("a stage with an activation");
                let before = walk.tensor(step.operands[0]).scale;
                let scales = std::iter::once(before).chain(walked.product_scales.iter().copied()).collect();
                names.push(activation.name.clone());
                let channels: Vec<&[f64]> = activation.channels.iter().map(|channel| &channel.constants[..]).collect();
                let activation = ActivationStep::new(activation.negate, &channels, scales, maintenance.clone());
                steps.push(Step::Activation { operand: step.operands[0], activation });
            }
            StepKind::Maintenance(maintenance) => {
                names.push(maintenance_name(maintenance).into());
                steps.push(Step::Maintenance { operand: step.operands[0], maintenance: *maintenance, scale });
            }
        }
    }
    let output = walk.result();
    let layout = ring.relin_layout();
    // Packed scores have two components, whatever they had.
    let most = if walk.packed.is_some() { walk.output().components as u32 } else { 2 };
    let most = if found.structure.relinearises() { most.max(3) } else { most };
    let powers = (2..most).map(|power| EvalKeyLayout::power(power, layout));
    let leaves = Leaves { log: ring.shape.log_leaves };
    let automorphisms = ring.unpacking.steps.iter().map(|&step| leaves.rotation(ring.shape.n, step));
    let rotations = automorphisms.map(|automorphism| EvalKeyLayout::automorphism(automorphism.element(), layout));
    let content = Content {
        salt: Salt::default(),
        params: ParamsSpec {
            n: ring.shape.n,
            primes: ring.primes.clone(),
            special_primes: ring.special.clone(),
            security: options.security,
        },
        evaluation_keys: powers.chain(rotations).collect(),
        encryption: options.encryption,
        tolerance: lowered.tolerance,
        input: InputLayout {
            packing: ring.packing(),
            shape: network.input.shape,
            range: network.input.range,
            scale: walk.input.scale,
            level: walk.input.level,
        },
        steps,
        output: OutputLayout {
            packing: match walk.packed {
                Some(_) if ring.shape.log_scores > 0 => Packing::Compact(ring.shape.log_scores),
                _ => Packing::Spread,
            },
            classes: network.classes(),
            components: output.components,
            level: output.level,
            scale: output.scale,
            range: lowered.output.range,
            noise: walk.noise.rms,
        },
        circuit_privacy: walk.flood.map(|flood| flood.privacy),
        score_packing: walk.packed.map(|packed| packed.packing),
    };
    Program { model: network.name.clone(), names, class_names: network.class_names.clone(), content }
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

fn report_step(
    lowered: &Lowered,
    step: &steps::Step,
    walked: &WalkStep,
    work: &Work,
    name: &str,
    planned: &Step,
    n: usize,
) -> SegmentReport {
    let state = &walked.after;
    let values = match &step.kind {
        StepKind::Linear(terms) => terms[0].of(lowered).map.geometry.outputs(),
        StepKind::Activation(_) | StepKind::Maintenance(_) => lowered.stages[step.stage].values(),
    };
    SegmentReport {
        name: name.into(),
        limbs: state.level,
        components: state.components,
        log_scale: state.scale.log2(),
        bound: state.bound,
        headroom_bits: state.headroom,
        noise_bits: libm::log2(state.noise.rms),
        noise_bits_worst: libm::log2(state.noise.worst),
        multiply_adds: work.multiply_adds,
        layer_multiply_adds: work.layer_multiply_adds,
        residue_multiply_adds: work.residue_multiply_adds,
        ntts: work.ntts,
        bytes: 4 * (values * state.components * state.level * n) as u64,
        bits: weight_bits(planned),
        steps: Vec::new(),
    }
}

/// The most bytes of tensors that are alive at a time, where each is kept until its last reader is
/// done.
fn peak(program: &Program, input_bytes: u64, steps: &[SegmentReport]) -> u64 {
    let mut left: Vec<usize> = program.readers().iter().map(Vec::len).collect();
    let mut bytes = vec![input_bytes];
    let (mut alive, mut peak) = (input_bytes, input_bytes);
    for (step, report) in program.content.steps.iter().zip(steps) {
        bytes.push(report.bytes);
        alive += report.bytes;
        peak = peak.max(alive);
        for tensor in step.operands() {
            left[tensor] -= 1;
            if left[tensor] == 0 {
                alive -= bytes[tensor];
            }
        }
    }
    peak
}

fn fuse(steps: &[SegmentReport]) -> SegmentReport {
    let last = steps.last().expect("a segment has steps");
    let sum = |part: fn(&SegmentReport) -> u64| steps.iter().map(part).sum();
    SegmentReport {
        name: steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>().join(" > "),
        headroom_bits: steps.iter().map(|step| step.headroom_bits).fold(f64::INFINITY, f64::min),
        multiply_adds: sum(|step| step.multiply_adds),
        layer_multiply_adds: sum(|step| step.layer_multiply_adds),
        residue_multiply_adds: sum(|step| step.residue_multiply_adds),
        ntts: sum(|step| step.ntts),
        bits: if steps.len() > 1 { None } else { last.bits },
        steps: if steps.len() > 1 { steps.to_vec() } else { Vec::new() },
        ..last.clone()
    }
}

fn notes(lowered: &Lowered, privacy: Option<PrivacyGoal>) -> Vec<PlanNote> {
    let activations = lowered.stages.iter().filter_map(|stage| stage.activation.as_ref());
    let dropped = activations.filter_map(|activation| {
        let DroppedTerms { count, error } = activation.dropped?;
        Some(PlanNote::DroppedTerms { activation: activation.name.clone(), terms: count, error })
    });
    let weak = privacy.filter(|goal| goal.bits < CRYPTOGRAPHIC_BITS);
    let weak = weak.map(|goal| PlanNote::WeakPrivacy { bits: goal.bits });
    dropped.chain(weak).collect()
}
