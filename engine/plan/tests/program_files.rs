//! Program files: one encoding for each Program, and nothing else is accepted.

#[path = "../../../fuzz/src/program.rs"]
mod bodies;

use std::sync::LazyLock;

use cryptodl_core::wire::{HEADER_LEN, TRAILER_LEN, WireError, identify};
use cryptodl_network::{LayerOp, Network};
use cryptodl_plan::{PlanOptions, ScheduleKind, plan};
use cryptodl_program::{PrivacyGoal, Program, ProgramError, Salt, SplitMix, Step, TermMap, Tolerance, plain};
use cryptodl_test_networks::{conv, dense, graph, images, network, per_channel, polynomial, rows};
use cryptodl_zoo as zoo;
use proptest::prelude::*;

/// A skip, a concatenation and coefficients per channel.
fn branches() -> Network {
    let mut g = SplitMix(5);
    graph(
        [1, 6, 6],
        vec![
            ("a", conv(&mut g, [2, 1, 3], 1, 1), &["input"]),
            ("act", per_channel(&mut g, 2, 2, true), &["a"]),
            ("b", conv(&mut g, [2, 2, 3], 1, 1), &["act"]),
            ("sum", LayerOp::Add, &["b", "act"]),
            ("act2", polynomial(&[0.1, 0.5, 0.2]), &["sum"]),
            ("flat", LayerOp::Flatten, &["act2"]),
            ("out", dense(&mut g, 3, 72), &["flat"]),
        ],
    )
}

static PROGRAMS: LazyLock<Vec<Program>> = LazyLock::new(|| {
    let planned = |network: &Network, options: PlanOptions| plan(network, &options).expect("it fits").program;
    let shipped = zoo::load("mnist-1-square").expect("a shipped network");
    let private = PlanOptions { circuit_privacy: Some(PrivacyGoal { sets: 3, bits: 20 }), ..PlanOptions::default() };
    let mut g = SplitMix(9);
    let quintic = network(
        [1, 4, 4],
        vec![
            conv(&mut g, [2, 1, 3], 1, 0),
            polynomial(&[0.1, 0.4, 0.2, 0.1, 0.05, 0.04]),
            LayerOp::Flatten,
            dense(&mut g, 3, 8),
        ],
    );
    let layered = PlanOptions { schedule: ScheduleKind::Layered, ..PlanOptions::default() };
    let mut all = vec![
        planned(&shipped, PlanOptions::default()),
        planned(&shipped, private),
        planned(&branches(), PlanOptions::default()),
        planned(&quintic, layered),
        planned(&shipped, PlanOptions { batch: 4, ..PlanOptions::default() }),
    ];
    let mut salted = all[0].clone();
    salted.content.salt = Salt([7; 32]);
    all.push(salted);
    all
});

fn file(program: &Program) -> Vec<u8> {
    let mut file = Vec::new();
    program.write(&mut file).expect("memory takes all");
    file
}

fn payload(file: &[u8]) -> &[u8] {
    &file[HEADER_LEN..file.len() - TRAILER_LEN]
}

/// Written by the program and by what the fuzz body says from docs/format.md; the same Program is read, and the digest tells them
/// apart.
#[test]
fn programs_come_back() {
    let programs = &*PROGRAMS;
    let joins = |step: &Step| matches!(step, Step::Linear { terms, .. } if terms.len() > 1);
    let diagonal = |step: &Step| matches!(step, Step::Linear { terms, .. } if terms.iter().any(|term| matches!(term.map, TermMap::Diagonal(_))));
    let some = |what: &dyn Fn(&Step) -> bool| programs.iter().any(|program| program.content.steps.iter().any(what));
    assert!(some(&joins) && some(&diagonal) && some(&|step| matches!(step, Step::Activation { .. })));
    for program in programs {
        let file = file(program);
        assert!(file == bodies::sealed(payload(&file)), "as docs/format.md says");
        identify(&file[..]).expect("a whole file");
        let read = Program::read(&file[..]).expect("a Program");
        assert_eq!(read.content_bytes(), program.content_bytes());
        assert_eq!((read.digest(), &read.model, &read.names), (program.digest(), &program.model, &program.names));
        assert_eq!(read.content, program.content);
        let [c, h, w] = program.content.input.shape;
        let images = images(2, [c, h, w], 3);
        assert_eq!(plain(&read, rows(&images)), plain(program, rows(&images)));
    }
    for (i, a) in programs.iter().enumerate() {
        assert!(programs[i + 1..].iter().all(|b| a.digest() != b.digest()));
    }
    let mut renamed = programs[0].clone();
    renamed.names[0].push('x');
    renamed.class_names = (0..renamed.content.output.classes).map(|class| format!("class {class}")).collect();
    assert_eq!(renamed.digest(), programs[0].digest(), "names are for people");
    let read = Program::read(&file(&renamed)[..]).expect("a Program");
    assert_eq!((&read.names, &read.class_names), (&renamed.names, &renamed.class_names));
    assert_eq!(read.client_spec().class_names, renamed.class_names);
}

#[test]
fn cut_and_damaged_files_are_refused() {
    let file = file(&PROGRAMS[2]);
    for len in (0..file.len()).step_by(37) {
        Program::read(&file[..len]).unwrap_err();
        // A payload that ends early, with a right checksum.
        let cut = &payload(&file)[..len.min(payload(&file).len() - 1)];
        Program::read(&bodies::sealed(cut)[..]).unwrap_err();
    }
    for at in (0..file.len()).step_by(11) {
        let mut damaged = file.clone();
        damaged[at] ^= 1 << (at % 8);
        Program::read(&damaged[..]).unwrap_err();
    }
    let longer = [payload(&file), &[0]].concat();
    let error = Program::read(&bodies::sealed(&longer)[..]).unwrap_err();
    assert!(matches!(&error, ProgramError::Malformed(what) if what.contains("follow its end")), "{error}");
}

/// What contradicts itself is refused with its step, whatever the checksum says.
#[test]
fn contradictions_are_refused() {
    type Change = fn(&mut Program);
    let changes: [(&str, Change); 12] = [
        ("it takes tensor 9", |p| change_operand(p, 9)),
        ("nothing takes tensor", |p| {
            let step = p.content.steps[1].clone();
            let name = p.names[1].clone();
            p.content.steps.insert(2, step);
            p.names.insert(2, name);
        }),
        ("0 steps", |p| {
            p.content.steps.clear();
            p.names.clear();
        }),
        ("values, components and limbs", |p| p.content.output.components += 1),
        ("output.classes", |p| p.content.output.classes = 0),
        ("none, or one for each", |p| p.class_names = vec!["cat".into()]),
        ("class_names", |p| p.class_names = vec!["=1".into(); p.content.output.classes]),
        ("integers", |p| change_constant(p, 0.5)),
        ("polynomials for", |p| change_activation(p, |a| a.channels.resize(5, a.channels[0].clone()))),
        ("limbs are dropped", |p| change_activation(p, |a| a.maintenance[0].drop = 40)),
        ("relinearises", |p| {
            p.content.evaluation_keys.clear();
            change_activation(p, |a| a.maintenance[0].relinearise = true);
        }),
        ("constants for", |p| {
            if let Step::Linear { constants, .. } = &mut p.content.steps[0] {
                constants.pop();
            }
        }),
    ];
    for (expected, change) in changes {
        let mut program = PROGRAMS[2].clone();
        change(&mut program);
        let error = Program::read(&file(&program)[..]).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

fn change_operand(program: &mut Program, tensor: usize) {
    if let Step::Linear { terms, .. } = &mut program.content.steps[0] {
        terms[0].operand = tensor;
    }
}

fn change_constant(program: &mut Program, constant: f64) {
    if let Step::Linear { constants, .. } = &mut program.content.steps[0] {
        constants[0] = constant;
    }
}

fn change_activation(program: &mut Program, change: impl Fn(&mut cryptodl_program::ActivationStep)) {
    for step in &mut program.content.steps {
        if let Step::Activation { activation, .. } = step {
            change(activation);
        }
    }
}

#[test]
fn files_of_other_kinds_are_refused() {
    let mut spec = Vec::new();
    cryptodl_core::wire::write_client_spec(&mut spec, &PROGRAMS[0].client_spec()).expect("memory takes all");
    let error = Program::read(&spec[..]).unwrap_err();
    assert!(matches!(error, ProgramError::Wire(WireError::Kind { .. })), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Words of a real Program replaced by others.
    #[test]
    fn mutated_programs_are_refused_or_followed(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![0u32..8, any::<u32>()]), 1..4),
    ) {
        static PAYLOAD: LazyLock<Vec<u8>> = LazyLock::new(|| payload(&file(&PROGRAMS[2])).into());
        let mut mutated = PAYLOAD.clone();
        for (at, word) in changes {
            let at = at.index(mutated.len() / 4) * 4;
            mutated[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        bodies::read_program(&mutated);
    }

    #[test]
    fn arbitrary_bytes_are_refused(data in prop::collection::vec(any::<u8>(), 0..400)) {
        bodies::read_program(&data);
    }
}

/// Flattened values meet those of other planes: every value keeps its own coefficients, and the Program can be executed.
#[test]
fn flattened_values_of_other_planes_meet() {
    let mut g = SplitMix(6);
    let wide = |g: &mut SplitMix| (conv(g, [4, 1, 3], 1, 0), dense(g, 12, 15));
    let (a, b) = wide(&mut g);
    let added = graph(
        [1, 3, 5],
        vec![
            ("conv", a, &["input"]),
            ("act", polynomial(&[0.1, 0.5, 0.2]), &["conv"]),
            ("flat", LayerOp::Flatten, &["act"]),
            ("image", LayerOp::Flatten, &["input"]),
            ("dense", b, &["image"]),
            ("sum", LayerOp::Add, &["flat", "dense"]),
            ("act2", per_channel(&mut g, 12, 2, false), &["sum"]),
            ("out", dense(&mut g, 3, 12), &["act2"]),
        ],
    );
    let (a, b) = (conv(&mut g, [4, 1, 3], 1, 0), dense(&mut g, 5, 15));
    let joined = graph(
        [1, 3, 5],
        vec![
            ("conv", a, &["input"]),
            ("flat", LayerOp::Flatten, &["conv"]),
            ("image", LayerOp::Flatten, &["input"]),
            ("dense", b, &["image"]),
            ("both", LayerOp::Concat, &["flat", "dense"]),
            ("act", per_channel(&mut g, 17, 2, false), &["both"]),
            ("out", dense(&mut g, 3, 17), &["act"]),
        ],
    );
    for network in [added, joined] {
        let options = PlanOptions { tolerance: Some(Tolerance::new(0.5).unwrap()), ..PlanOptions::default() };
        let program = plan(&network, &options).expect("it fits").program;
        let images = images(8, [1, 3, 5], 3);
        let expected = cryptodl_network::plain::logits(&network, images.view());
        let found = plain(&program, rows(&images));
        let largest = expected.iter().fold(0.0f64, |largest, score| largest.max(f64::from(score.abs())));
        let error = found.iter().zip(&expected).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
        assert!(error < 0.1 * largest, "{error} of {largest}");
    }
}
