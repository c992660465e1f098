//! Networks with several activations and higher degrees, planned and run encrypted at secure parameters.

use cryptodl_client::{EncryptionKey, SecretKey, decrypt_slots_raw_do_not_return_to_server, encrypt};
use cryptodl_core::ckks::{EncryptionKind, Randomness};
use cryptodl_cpu::Cpu;
use cryptodl_models::network::{LayerOp, Network};

use crate::plan::testing::{conv, dense, images, network, polynomial, pool, rows};
use crate::plan::{Plan, PlanOptions, ScheduleKind, SplitMix, Step, plan};
use crate::run::{Executor, Masks, plain};

const IMAGES: usize = 64;

/// A polynomial of the given degree with tame values.
fn activation(degree: usize) -> LayerOp {
    let coefficients: Vec<f64> = (0..=degree).map(|i| 0.4 / (i + 1) as f64).collect();
    polynomial(&coefficients)
}

/// A padded convolution, pooling, then dense layers, with an activation of each degree between them.
fn deep(degrees: &[usize]) -> Network {
    let mut g = SplitMix(3);
    let mut ops = vec![conv(&mut g, [2, 1, 3], 1, 1), activation(degrees[0]), pool(2), LayerOp::Flatten];
    let mut width = 2 * 3 * 3;
    for &degree in &degrees[1..] {
        ops.extend([dense(&mut g, 6, width), activation(degree)]);
        width = 6;
    }
    ops.push(dense(&mut g, 3, width));
    network([1, 6, 6], ops)
}

/// Plans, encrypts, computes and decrypts; the noise on the images' scores must be as predicted.
fn check(degrees: &[usize], schedule: ScheduleKind, encryption: EncryptionKind) -> Plan {
    let network = deep(degrees);
    let planned = plan(&network, &PlanOptions { schedule, encryption, ..PlanOptions::default() }).unwrap();
    let program = &planned.program;
    let spec = program.client_spec();
    let params = spec.check().unwrap();
    let mut rng = Randomness::insecure_from_seed_for_tests(5, "deep");
    let secret = SecretKey::generate(&params, &mut rng);
    let public = secret.public_key(&mut rng).unwrap();
    let relin = spec.relin.map(|layout| secret.relin_key(layout, &mut rng).unwrap());
    let key = match encryption {
        EncryptionKind::Secret => EncryptionKey::Secret(&secret),
        EncryptionKind::Public => EncryptionKey::Public(&public),
    };
    let images = images(IMAGES, [1, 6, 6], 8);
    let pixels = images.as_slice().unwrap();
    let input = encrypt(&spec, &params, key, pixels, IMAGES, &mut rng, &|_, _| {}).unwrap();
    let executor = Executor::new(program, &params, Cpu::new(params.basis().clone()), 4 << 30).unwrap();
    let (result, _) = executor.compute(&input, relin.as_ref(), Masks::Fresh(&public, &mut rng), &|_| {}).unwrap();
    let slots = decrypt_slots_raw_do_not_return_to_server(&params, &secret, &result, spec.output.scale).unwrap();
    let expected = plain(program, rows(&images));
    let squares = expected.indexed_iter().map(|((image, class), score)| {
        let difference = slots[0][class * params.n() + image] - score;
        difference * difference
    });
    let measured = (squares.sum::<f64>() / expected.len() as f64).sqrt().log2();
    let predicted = planned.report.noise.bits;
    assert!(
        (measured - predicted).abs() < 1.0,
        "{degrees:?} {schedule:?} {encryption:?}: noise 2^{measured:.2}, predicted 2^{predicted:.2}\n{}",
        planned.report
    );
    planned
}

#[test]
fn degree_four_and_eight() {
    check(&[4], ScheduleKind::Auto, EncryptionKind::Secret);
    check(&[8], ScheduleKind::Auto, EncryptionKind::Secret);
}

#[test]
fn three_squares_under_a_public_key() {
    check(&[2, 2, 2], ScheduleKind::Auto, EncryptionKind::Public);
}

#[test]
fn two_cubics_layer_by_layer() {
    let planned = check(&[3, 3], ScheduleKind::Layered, EncryptionKind::Secret);
    let drops = planned.program.content.steps.iter().filter_map(|step| match step {
        Step::Activation(step) => Some(step.products.iter().map(|plan| plan.drop).sum::<usize>()),
        Step::Linear { .. } => None,
    });
    assert_eq!(drops.sum::<usize>(), 4);
}

#[test]
fn six_squares_switch_keys_when_that_is_cheaper() {
    let planned = check(&[2; 6], ScheduleKind::Auto, EncryptionKind::Secret);
    assert!(planned.program.content.relin.is_some(), "{}", planned.report);
}
