//! Networks with several activations and higher degrees, planned and run encrypted at secure parameters.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cryptodl_client::{EncryptionKey, SecretKey, decrypt_slots_raw_do_not_return_to_server, encrypt};
use cryptodl_core::ckks::{EncryptionKind, Randomness};
use cryptodl_core::watch::{Progress, Watch};
use cryptodl_cpu::Cpu;
use cryptodl_network::{LayerOp, Network, Padding};

use crate::execution_plan::ExecutionPlan;
use crate::{Checkpoint, CheckpointError, Executor, Request, Rerandomisation, RunError, Thrift};
use cryptodl_plan::{Plan, PlanOptions, ScheduleKind, calibrate, plan};
use cryptodl_program::{SplitMix, Step, Tolerance, plain};
use cryptodl_test_networks::{batch_norm, conv, dense, graph, images, network, per_channel, polynomial, pool, rows};

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

/// Padded and strided convolutions over two channels, pooling after an activation, a batch-norm of its own, a dense layer.
fn deep_image(side: usize) -> Network {
    let mut g = SplitMix(4);
    let flat = 2 * (side / 4 + 1).pow(2);
    let ops = vec![
        conv(&mut g, [2, 2, 3], 1, 1),
        activation(2),
        pool(2),
        conv(&mut g, [3, 2, 3], 1, 1),
        activation(3),
        conv(&mut g, [2, 3, 2], 2, 1),
        LayerOp::Flatten,
        batch_norm(&mut g, flat),
        activation(2),
        dense(&mut g, 3, flat),
    ];
    network([2, side, side], ops)
}

/// Plans, encrypts, computes and decrypts; the noise on the images' scores must be as predicted.
fn check(degrees: &[usize], schedule: ScheduleKind, encryption: EncryptionKind) -> Plan {
    check_network(&deep(degrees), schedule, encryption)
}

fn check_network(network: &Network, schedule: ScheduleKind, encryption: EncryptionKind) -> Plan {
    let planned = plan(network, &PlanOptions { schedule, encryption, ..PlanOptions::default() }).unwrap();
    let program = &planned.program;
    let spec = program.client_spec().check().unwrap();
    let params = spec.params();
    let mut rng = Randomness::insecure_from_seed_for_tests(5, "deep");
    let secret = SecretKey::generate(params, &mut rng);
    let public = secret.public_key(&mut rng).unwrap();
    let keys = secret.eval_keys(&spec.evaluation_keys, &mut rng).unwrap();
    let key = match encryption {
        EncryptionKind::Secret => EncryptionKey::Secret(&secret),
        EncryptionKind::Public => EncryptionKey::Public(&public),
    };
    let images = images(IMAGES, network.input.shape, 8);
    let pixels = images.as_slice().unwrap();
    let input = encrypt(&spec, key, pixels, IMAGES, &mut rng, Watch::default()).unwrap();
    let executor = Executor::new(program, params, Cpu::new(params.basis().clone()), 4 << 30).unwrap();
    let (result, _) = executor
        .compute(&input, &keys, Rerandomisation::Fresh { key: &public, rng: &mut rng }, Watch::default())
        .unwrap();
    let slots = decrypt_slots_raw_do_not_return_to_server(params, &secret, &result, spec.output.scale).unwrap();
    let expected = plain(program, rows(&images));
    let squares = expected.indexed_iter().map(|((image, class), score)| {
        let difference = slots[0][class * params.n() + image] - score;
        difference * difference
    });
    let measured = (squares.sum::<f64>() / expected.len() as f64).sqrt().log2();
    let predicted = planned.report.noise.bits;
    assert!(
        (measured - predicted).abs() < 1.0,
        "{schedule:?} {encryption:?}: noise 2^{measured:.2}, predicted 2^{predicted:.2}\n{}",
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
        Step::Activation { activation, .. } => Some(activation.maintenance.iter().map(|each| each.drop).sum::<usize>()),
        Step::Linear { .. } | Step::Maintenance { .. } => None,
    });
    assert_eq!(drops.sum::<usize>(), 4);
}

#[test]
fn six_squares_switch_keys_when_that_is_cheaper() {
    let planned = check(&[2; 6], ScheduleKind::Auto, EncryptionKind::Secret);
    assert!(planned.program.content.relin().is_some(), "{}", planned.report);
}

#[test]
fn higher_degrees_take_fewer_products_where_keys_are_switched() {
    let planned = check(&[4, 5], ScheduleKind::Layered, EncryptionKind::Secret);
    let products = planned.program.content.steps.iter().filter_map(|step| match step {
        Step::Activation { activation, .. } => Some((activation.degree, activation.maintenance.len())),
        Step::Linear { .. } | Step::Maintenance { .. } => None,
    });
    assert_eq!(products.collect::<Vec<_>>(), [(4, 2), (5, 3)]);
}

/// Runs `network` whole, as if it were large, and in little memory: always the same bits. The numbers of steps of the first two
/// and in the least memory.
fn check_bands(network: &Network, schedule: ScheduleKind) -> [usize; 3] {
    check_bands_of(network, PlanOptions { schedule, ..PlanOptions::default() })
}

/// The same with any options.
fn check_bands_of(network: &Network, options: PlanOptions) -> [usize; 3] {
    let program = plan(network, &options).unwrap().program;
    let spec = program.client_spec().check().unwrap();
    let params = spec.params();
    let mut rng = Randomness::insecure_from_seed_for_tests(6, "bands");
    let secret = SecretKey::generate(params, &mut rng);
    let keys = secret.eval_keys(&spec.evaluation_keys, &mut rng).unwrap();
    let images = images(3, network.input.shape, 8);
    let key = EncryptionKey::Secret(&secret);
    let input = encrypt(&spec, key, images.as_slice().unwrap(), 3, &mut rng, Watch::default()).unwrap();
    let run_above = |large, budget| {
        let executor = Executor::arranged(&program, params, Cpu::new(params.basis().clone()), budget, large)?;
        let steps = std::sync::atomic::AtomicUsize::new(0);
        let count = |progress: Progress| steps.store(progress.total, std::sync::atomic::Ordering::Relaxed);
        let (result, _) = executor.compute(&input, &keys, Rerandomisation::Omitted, Watch::new(&count))?;
        Ok::<_, crate::RunError>((result.sets, steps.into_inner()))
    };
    let run = |budget| run_above(u64::MAX, budget);
    let Err(crate::RunError::Budget { needed: least, .. }) = run(1) else { panic!("a budget of one byte") };
    let (whole, few) = run(1 << 40).unwrap();
    for budget in [5 * least / 4, 3 * least / 2, 2 * least] {
        assert_eq!(whole, run(budget).unwrap().0);
    }
    let in_little = ExecutionPlan::new(&program, params, least, u64::MAX).unwrap();
    let takes_all = matches!(network.layers[0].op, LayerOp::GlobalAvgPool2d);
    assert!(in_little.loads_input() || takes_all, "an input that is needed bit by bit");
    let (banded, many) = run(least).unwrap();
    assert_eq!(whole, banded);
    let (thrifty, some) = run_above(0, 1 << 40).unwrap();
    assert_eq!(whole, thrifty);
    [few, some, many]
}

#[test]
fn bands_give_the_same_bits_in_less_memory() {
    let [few, _, many] = check_bands(&deep_image(8), ScheduleKind::Layered);
    assert!(many > 4 * few, "{many} steps instead of {few}");
}

#[test]
fn bands_of_fused_maps_give_the_same_bits() {
    let [few, _, many] = check_bands(&deep_image(16), ScheduleKind::Auto);
    assert!(many > 2 * few, "{many} steps instead of {few}");
}

/// The first map has one position, and a skip takes the input position by position.
#[test]
fn bands_begin_with_a_pool_of_everything() {
    let mut g = SplitMix(12);
    let layers: Vec<(&str, LayerOp, &[&str])> = vec![
        ("pool", LayerOp::GlobalAvgPool2d, &["input"]),
        ("mean", LayerOp::Flatten, &["pool"]),
        ("gate", dense(&mut g, 3, 1), &["mean"]),
        ("conv", conv(&mut g, [1, 1, 3], 1, 1), &["input"]),
        ("skip", LayerOp::Add, &["conv", "input"]),
        ("act", polynomial(&[0.1, 0.5, 0.2]), &["skip"]),
        ("flat", LayerOp::Flatten, &["act"]),
        ("dense", dense(&mut g, 3, 64), &["flat"]),
        ("scores", LayerOp::Add, &["dense", "gate"]),
    ];
    let tolerance = Some(Tolerance::new(0.5).unwrap());
    let options = PlanOptions { tolerance, schedule: ScheduleKind::Layered, ..PlanOptions::default() };
    let [few, _, many] = check_bands_of(&graph([1, 8, 8], layers), options);
    assert!(many > few);
}

#[test]
fn bands_begin_with_an_activation_where_the_network_does() {
    let mut g = SplitMix(5);
    let ops = vec![
        activation(2),
        conv(&mut g, [4, 1, 3], 1, 1),
        activation(3),
        conv(&mut g, [2, 4, 3], 2, 0),
        LayerOp::Flatten,
        dense(&mut g, 3, 2 * 5 * 5),
    ];
    let network = network([1, 12, 12], ops);
    for schedule in [ScheduleKind::Layered, ScheduleKind::Auto] {
        check_bands(&network, schedule);
    }
}

#[test]
fn what_follows_a_product_may_wait_for_the_maps_after_it() {
    // Many values into few: relinearising after the dense layers is far cheaper.
    let mut g = SplitMix(9);
    let ops = vec![
        conv(&mut g, [8, 1, 3], 1, 1),
        activation(2),
        LayerOp::Flatten,
        dense(&mut g, 4, 8 * 36),
        activation(3),
        dense(&mut g, 4, 4),
        activation(2),
        dense(&mut g, 3, 4),
    ];
    let planned = check_network(&network([1, 6, 6], ops), ScheduleKind::Auto, EncryptionKind::Public);
    let steps = &planned.program.content.steps;
    assert!(steps.iter().any(|step| matches!(step, Step::Maintenance { .. })), "{}", planned.report);
}

#[test]
fn a_large_network_is_computed_in_bands_where_all_would_fit() {
    let mut g = SplitMix(6);
    let ops = vec![
        conv(&mut g, [4, 1, 3], 1, 1),
        activation(2),
        conv(&mut g, [4, 4, 3], 1, 1),
        activation(2),
        conv(&mut g, [4, 4, 3], 2, 1),
        LayerOp::Flatten,
        dense(&mut g, 3, 4 * 8 * 8),
    ];
    let [whole, large, least] = check_bands(&network([1, 16, 16], ops), ScheduleKind::Layered);
    assert!(whole < large && large < least, "{large} steps for a large network, {whole} for others, {least} at least");
}

/// Residual blocks with and without a convolution in the skip, a concatenation, groups, dilation, uneven padding, a global pool, and
/// coefficients per channel of both signs before padded layers and before joins.
fn residual(side: usize) -> Network {
    let mut g = SplitMix(11);
    let grouped = |g: &mut SplitMix| {
        let LayerOp::Conv2d { weight, bias, .. } = conv(g, [6, 3, 3], 1, 0) else { unreachable!() };
        let padding = Padding { before: [2, 1], after: [2, 3] };
        LayerOp::Conv2d { weight, bias, stride: [1, 1], padding, dilation: [2, 2], groups: 2 }
    };
    let mut network = graph(
        [2, side, side],
        vec![
            ("stem", conv(&mut g, [4, 2, 3], 1, 1), &["input"]),
            ("act0", per_channel(&mut g, 4, 2, true), &["stem"]),
            ("conv1", conv(&mut g, [4, 4, 3], 1, 1), &["act0"]),
            ("bn1", batch_norm(&mut g, 4), &["conv1"]),
            ("skip1", LayerOp::Add, &["bn1", "act0"]),
            ("act1", activation(2), &["skip1"]),
            ("conv2", conv(&mut g, [6, 4, 3], 2, 1), &["act1"]),
            ("short2", conv(&mut g, [6, 4, 1], 2, 0), &["act1"]),
            ("skip2", LayerOp::Add, &["conv2", "short2"]),
            ("act2", per_channel(&mut g, 6, 2, false), &["skip2"]),
            ("groups", grouped(&mut g), &["act2"]),
            ("cat", LayerOp::Concat, &["groups", "act2"]),
            ("mix", conv(&mut g, [4, 12, 1], 1, 0), &["cat"]),
            ("act3", per_channel(&mut g, 4, 3, true), &["mix"]),
            ("pool", LayerOp::GlobalAvgPool2d, &["act3"]),
            ("flat", LayerOp::Flatten, &["pool"]),
            ("scores", dense(&mut g, 3, 4), &["flat"]),
        ],
    );
    // Its weights are random, so its scores are close to each other.
    network = network.changed(|spec| spec.tolerance = Some(0.3)).unwrap();
    let images = images(IMAGES, network.input.shape, 7);
    network.calibration = Some(calibrate(&network, rows(&images)).unwrap());
    network
}

#[test]
fn residual_networks_compute_what_is_predicted() {
    let network = residual(6);
    for (schedule, encryption) in
        [(ScheduleKind::Auto, EncryptionKind::Secret), (ScheduleKind::Layered, EncryptionKind::Public)]
    {
        let planned = check_network(&network, schedule, encryption);
        let joins = planned.program.content.steps.iter().filter(|step| match step {
            Step::Linear { terms, .. } => terms.len() > 1,
            Step::Activation { .. } | Step::Maintenance { .. } => false,
        });
        assert_eq!(joins.count(), 3, "{}", planned.report);
        // The plan says what the float network says, up to rounding.
        let images = images(IMAGES, [2, 6, 6], 8);
        let float = cryptodl_network::plain::logits(&network, images.view());
        let found = plain(&planned.program, rows(&images));
        let squares = found.iter().zip(&float).map(|(a, &b)| (a - f64::from(b)).powi(2)).sum::<f64>();
        let measured = (squares / found.len() as f64).sqrt().log2();
        assert!((measured - planned.report.noise.rounding_bits).abs() < 1.5, "2^{measured:.2}\n{}", planned.report);
    }
}

#[test]
fn residual_networks_have_the_same_bits_in_bands() {
    let [few, _, many] = check_bands(&residual(8), ScheduleKind::Auto);
    assert!(many > 2 * few, "{many} steps instead of {few}");
}

/// Two sets whose computation is ended after every number of steps: what goes on from the checkpoint
/// gives the same bytes and computes nothing twice.
#[test]
fn what_was_ended_goes_on_from_its_checkpoint() {
    let program = plan(&deep_image(8), &PlanOptions::default()).unwrap().program;
    let spec = program.client_spec().check().unwrap();
    let params = spec.params();
    let mut rng = Randomness::insecure_from_seed_for_tests(7, "checkpoint");
    let secret = SecretKey::generate(params, &mut rng);
    let keys = secret.eval_keys(&spec.evaluation_keys, &mut rng).unwrap();
    let count = params.n() + 1;
    let images = images(count, [2, 8, 8], 8);
    let mut encrypted = || {
        let key = EncryptionKey::Secret(&secret);
        encrypt(&spec, key, images.as_slice().unwrap(), count, &mut rng, Watch::default()).unwrap()
    };
    let (input, other) = (encrypted(), encrypted());
    let backend = Cpu::new(params.basis().clone());
    let Err(RunError::Budget { needed, .. }) = Executor::new(&program, params, backend.clone(), 1) else {
        panic!("a budget of one byte");
    };
    let executor = Executor::new(&program, params, backend, needed).unwrap();
    let expanded = executor.expand_keys(&keys).unwrap();
    let info = input.info();
    let request = Request::new(spec.program, &info, (&keys).into(), false);
    let open = |folder: &Path, request, least_rest| {
        Checkpoint::open(folder, request, Thrift { least_rest, most_share: f64::INFINITY })
    };

    // Ended after so many steps; the results, and how many steps were computed.
    let run = |input: &cryptodl_core::ckks::Ciphertexts, checkpoint: Option<&Checkpoint>, steps: usize| {
        let (computed, cancel, first) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicUsize::new(usize::MAX));
        let progress = |Progress { done, .. }: Progress| {
            first.fetch_min(done, Ordering::Relaxed);
            cancel.store(computed.fetch_add(1, Ordering::Relaxed) + 1 >= steps, Ordering::Relaxed);
        };
        let watch = Watch::new(&progress).with_cancel(&cancel);
        let mut computation = executor.begin(&info, &expanded, Rerandomisation::Omitted, watch).unwrap();
        checkpoint.into_iter().for_each(|checkpoint| computation.resume(checkpoint));
        let mut sets = Vec::new();
        for set in &input.sets {
            sets.extend(computation.push(set)?);
        }
        let (last, report) = computation.finish()?;
        sets.extend(last);
        Ok::<_, RunError>((sets, computed.into_inner(), report.sets_kept))
    };
    let (expected, all, _) = run(&input, None, usize::MAX).unwrap();
    assert!(all > 10, "{all} steps");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for steps in [2, all / 2, all - 2] {
        let checkpoint = open(path, request, Duration::ZERO).unwrap();
        assert!(matches!(run(&input, Some(&checkpoint), steps), Err(RunError::Cancelled(_))));
        assert!(matches!(open(path, request, Duration::ZERO), Err(CheckpointError::InUse(_))));
        drop(checkpoint);
        let checkpoint = open(path, request, Duration::ZERO).unwrap();
        let (sets, rest, kept) = run(&input, Some(&checkpoint), usize::MAX).unwrap();
        assert!(sets == expected);
        assert_eq!(kept, usize::from(steps >= all / 2), "{steps} of {all}");
        // A set whose result is there is told as one step. Before some steps nobody asks whether to go on.
        assert!((all - steps - 2..=all - steps).contains(&(rest - kept)), "{rest} after {steps} of {all}");
        checkpoint.remove().unwrap();
        assert!(!path.exists());
    }

    // Other images, other masks, a folder of something else: refused. A damaged state: computed anew.
    let left = |steps: usize| {
        let checkpoint = open(path, request, Duration::ZERO).unwrap();
        assert!(matches!(run(&input, Some(&checkpoint), steps), Err(RunError::Cancelled(_))));
        checkpoint
    };
    let checkpoint = left(all / 4);
    assert!(matches!(run(&other, Some(&checkpoint), all), Err(RunError::Checkpoint(CheckpointError::Other(_)))));
    drop(checkpoint);
    let masked = Request::new(spec.program, &info, (&keys).into(), true);
    assert!(matches!(open(path, masked, Duration::ZERO), Err(CheckpointError::Other(_))));
    let state = path.join("set-0.state");
    let mut bytes = fs::read(&state).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&state, &bytes).unwrap();
    fs::write(path.join("unfinished-set-0.result"), "half").unwrap();
    let checkpoint = open(path, request, Duration::ZERO).unwrap();
    assert_eq!(fs::read_dir(path).unwrap().count(), 2);
    assert_eq!(run(&input, Some(&checkpoint), usize::MAX).unwrap(), (expected.clone(), all, 0));
    drop(checkpoint);
    fs::write(path.join("letter.txt"), "mine").unwrap();
    assert!(matches!(open(path, request, Duration::ZERO), Err(CheckpointError::Occupied(_))));
    fs::remove_file(path.join("letter.txt")).unwrap();
    open(path, request, Duration::ZERO).unwrap().remove().unwrap();

    // States are kept only where much is left to do.
    let checkpoint = open(path, request, Duration::from_secs(3600)).unwrap();
    assert!(matches!(run(&input, Some(&checkpoint), all / 2 + 2), Err(RunError::Cancelled(_))));
    let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["request", "set-0.result"]);
    checkpoint.remove().unwrap();

    // A folder that is made when it is due: never, where little is left to do.
    let when_due =
        |least_rest| Checkpoint::open_when_due(path, request, Thrift { least_rest, most_share: 0.0 }).unwrap();
    let checkpoint = when_due(Duration::from_secs(3600));
    assert_eq!(run(&input, Some(&checkpoint), usize::MAX).unwrap(), (expected.clone(), all, 0));
    assert!(matches!(run(&input, Some(&checkpoint), all / 4), Err(RunError::Cancelled(_))));
    checkpoint.remove().unwrap();
    assert!(!path.exists());
    // What is ended leaves its state, also where nothing was kept on the way because it would take too large a share of the time.
    for steps in [3, all / 4, all / 2 - 3] {
        let checkpoint = when_due(Duration::ZERO);
        assert!(matches!(run(&input, Some(&checkpoint), steps), Err(RunError::Cancelled(_))));
        assert!(path.join("set-0.state").exists(), "{steps}");
        drop(checkpoint);
        let checkpoint = when_due(Duration::ZERO);
        let (sets, rest, kept) = run(&input, Some(&checkpoint), usize::MAX).unwrap();
        assert!(sets == expected && kept == 0);
        assert!((all - steps - 2..=all - steps).contains(&rest), "{rest} after {steps} of {all}");
        checkpoint.remove().unwrap();
        assert!(!path.exists());
    }
}
