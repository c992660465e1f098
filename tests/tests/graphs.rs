//! Random graphs three ways: encrypted, plain and predicted; and in bands with the same bits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cryptodl_core::ckks::EncryptionKind;
use cryptodl_core::watch::Watch;
use cryptodl_cpu::Cpu;
use cryptodl_network::plain;
use cryptodl_plan::{PlanOptions, ScheduleKind, plan};
use cryptodl_program::Step;
use cryptodl_run::{Executor, Rerandomisation, RunError};
use cryptodl_test_backends::{Counts, Metered};
use cryptodl_tests::{Client, execute, random_graph, random_images, scores, typical_bits};

const IMAGES: usize = 64;
const BUDGET: u64 = 8 << 30;

/// Noise and rounding are as predicted, work is as counted, and bands change no bit. Returns the number of joins.
fn check(seed: u64) -> usize {
    let network = random_graph(seed);
    let schedule = if seed.is_multiple_of(2) { ScheduleKind::Auto } else { ScheduleKind::Layered };
    let encryption = if seed.is_multiple_of(3) { EncryptionKind::Public } else { EncryptionKind::Secret };
    let plan = plan(&network, &PlanOptions { schedule, encryption, ..PlanOptions::default() }).unwrap();
    let (program, report) = (&plan.program, &plan.report);
    let images = random_images(&network, IMAGES, 8);
    let rows = images.view().into_shape_with_order((IMAGES, images.len() / IMAGES)).unwrap();
    let client = Client::new(program, 3);
    let input = client.encrypt(rows);
    let counts = Arc::new(Counts::default());
    let cpu = || Cpu::new(client.params().basis().clone());
    let (result, _) = execute(program, &client, Metered::new(cpu(), counts.clone()), &input, true, BUDGET);

    let slots = client.slots(&result);
    let plain_scores = scores(program, rows, slots.nrows());
    let (measured, _) = typical_bits(&slots, &plain_scores, IMAGES);
    let predicted = report.noise.bits;
    assert!((measured - predicted).abs() < 1.0, "seed {seed}: noise 2^{measured:.2}, not 2^{predicted:.2}\n{report}");
    let float = plain::logits(&network, images.view());
    let squares = plain_scores.iter().zip(&float).map(|(a, &b)| (a - f64::from(b)).powi(2)).sum::<f64>();
    let (rounding, predicted) = ((squares / float.len() as f64).sqrt().log2(), report.noise.rounding_bits);
    assert!(
        (rounding - predicted).abs() < 1.5,
        "seed {seed}: rounding 2^{rounding:.2}, not 2^{predicted:.2}\n{report}"
    );
    let work = |of: fn(&cryptodl_plan::SegmentReport) -> u64| report.segments.iter().map(of).sum::<u64>();
    assert_eq!(counts.multiply_adds.load(Ordering::Relaxed), work(|layer| layer.residue_multiply_adds), "seed {seed}");
    assert_eq!(counts.ntts.load(Ordering::Relaxed), work(|layer| layer.ntts), "seed {seed}");

    let run = |budget: u64| {
        let executor = Executor::new(program, client.params(), cpu(), budget)?;
        executor
            .compute(&input, &client.keys, Rerandomisation::Omitted, Watch::default())
            .map(|(result, _)| result.sets)
    };
    let Err(RunError::Budget { needed: least, .. }) = run(1) else { panic!("a budget of one byte") };
    let whole = run(BUDGET).unwrap();
    for budget in [least, 3 * least / 2] {
        assert!(run(budget).unwrap() == whole, "seed {seed}: other bits within {budget} bytes");
    }
    let joins = |step: &&Step| matches!(step, Step::Linear { terms, .. } if terms.len() > 1);
    program.content.steps.iter().filter(joins).count()
}

#[test]
fn graphs_compute_what_is_predicted() {
    let joins: usize = (1..=4).map(check).sum();
    assert!(joins > 4, "{joins} joins");
}

/// Many more, for a release: minutes.
#[test]
#[ignore = "takes minutes"]
fn many_graphs_compute_what_is_predicted() {
    assert!((5..=60).map(check).sum::<usize>() > 60);
}
