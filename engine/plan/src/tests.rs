//! Each pass against exact expectations, and the whole planner on the shipped models.

use cryptodl_core::backend::{Maintenance, PADDING};
use cryptodl_core::ckks::{EncryptionKind, SecurityLevel};
use cryptodl_network::{LayerOp, Network, plain};
use cryptodl_zoo as zoo;
use ndarray::Array2;

use super::fold::fold;
use super::normalise::normalise;
use super::*;
use cryptodl_program::{Geometry, SplitMix, Step, Term, TermMap};
use cryptodl_test_networks::{batch_norm, conv, dense, images, network, polynomial, pool, rows, uncalibrated};

fn generator() -> SplitMix {
    SplitMix(1)
}

/// Runs the stages in f64 on the images, activations through their monic Horner form.
fn evaluate(stages: &[normalise::Stage], images: &ndarray::Array4<f32>) -> Array2<f64> {
    let batch = images.shape()[0];
    let mut values: Vec<f64> = rows(images).t().iter().map(|&v| v.into()).collect();
    for stage in stages {
        for map in &stage.branches[0].maps {
            values = map.geometry.apply(&map.weights, Some(&map.bias), &values, batch);
        }
        if let Some(activation) = &stage.activation {
            values.iter_mut().for_each(|z| *z = activation.channels[0].value(*z));
        }
    }
    Array2::from_shape_vec((values.len() / batch, batch), values).unwrap().reversed_axes()
}

/// The stage with one map.
fn with_map(stage: &normalise::Stage, map: RealMap) -> normalise::Stage {
    let branches = vec![fold::Branch { maps: vec![map], ..stage.branches[0] }];
    normalise::Stage { branches, ..stage.clone() }
}

fn largest_difference(a: &Array2<f64>, b: &Array2<f32>) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max)
}

#[test]
fn gather_pads_strides_and_orders_taps_by_channel_row_column() {
    let geometry = Geometry {
        kernel: [2, 2],
        stride: [2, 1],
        padding: [1, 0],
        padding_after: [1, 0],
        ..Geometry::pointwise([1, 2, 3], 1)
    };
    assert_eq!(geometry.output(), [1, 2, 2]);
    let p = PADDING;
    assert_eq!(geometry.gather(), [p, p, 0, 1, p, p, 1, 2, 3, 4, p, p, 4, 5, p, p]);
}

#[test]
fn folding_keeps_the_function_and_the_paper_shapes() {
    let net = zoo::load("mnist-1").unwrap();
    let stages = normalise(fold(&net).unwrap()).unwrap();
    let shapes: Vec<_> =
        stages.iter().flat_map(|s| &s.branches[0].maps).map(|m| (m.geometry.kernel, m.geometry.stride)).collect();
    assert_eq!(shapes, [([6, 6], [2, 2]), ([6, 6], [2, 2]), ([4, 4], [1, 1]), ([1, 1], [1, 1])]);
    let merged = stages[0].branches[0].maps[0].merge(&stages[0].branches[0].maps[1]);
    assert_eq!((merged.geometry.kernel, merged.geometry.stride), ([16, 16], [4, 4]));
    assert_eq!(merged.geometry.multiply_adds(), 204_800);
    let dense = stages[1].branches[0].maps[0].merge(&stages[1].branches[0].maps[1]);
    assert_eq!(dense.geometry.multiply_adds(), 8_000);

    let images = images(8, net.input.shape, 3);
    let expected = plain::logits(&net, images.view());
    assert!(largest_difference(&evaluate(&stages, &images), &expected) < 1e-3);
    let one_map_each = [with_map(&stages[0], merged), with_map(&stages[1], dense)];
    assert!(largest_difference(&evaluate(&one_map_each, &images), &expected) < 1e-3);
}

#[test]
fn a_padded_convolution_is_not_merged_and_borders_stay_right() {
    let mut g = generator();
    let ops = vec![
        conv(&mut g, [3, 1, 3], 1, 1),
        batch_norm(&mut g, 3),
        conv(&mut g, [2, 3, 3], 2, 1),
        polynomial(&[0.3, 0.5, 0.2]),
        conv(&mut g, [2, 2, 3], 1, 1),
        pool(2),
        LayerOp::Flatten,
        dense(&mut g, 3, 8),
    ];
    let net = network([1, 8, 8], ops);
    let stages = normalise(fold(&net).unwrap()).unwrap();
    let maps = &stages[0].branches[0].maps;
    assert_eq!(maps.len(), 2, "batch-norm went into the first convolution");
    assert!(!maps[0].merges_with(&maps[1]), "its constant would be wrong at the border");
    assert!(stages[1].branches[0].maps[0].merges_with(&stages[1].branches[0].maps[1]));
    let lowered = lowered::Lowered::new(&net, Tolerance::default()).unwrap();
    assert_eq!(lowered.factorisations(0), [[1, 1]]);
    assert_eq!(lowered.factorisations(1).len(), 2);

    let images = images(8, [1, 8, 8], 5);
    let expected = plain::logits(&net, images.view());
    assert!(largest_difference(&evaluate(&stages, &images), &expected) < 1e-5);
    // Pixel by pixel after the first activation, borders included.
    let mut seen = Vec::new();
    plain::visit(&net, images.view(), &mut |values| seen.push(values.clone()));
    let inner = &seen[4];
    assert!(largest_difference(&evaluate(&stages[..1], &images), inner) < 1e-5);
}

#[test]
fn batch_norm_and_pooling_after_an_activation_stand_alone() {
    let mut g = generator();
    let ops = vec![
        conv(&mut g, [2, 1, 3], 1, 0),
        polynomial(&[0.1, 0.4, 0.3]),
        pool(2),
        batch_norm(&mut g, 2),
        conv(&mut g, [3, 2, 2], 1, 0),
        LayerOp::Flatten,
        dense(&mut g, 3, 12),
    ];
    let net = network([1, 8, 8], ops);
    let stages = normalise(fold(&net).unwrap()).unwrap();
    assert_eq!(stages[1].branches[0].maps.iter().map(|m| m.geometry.groups).collect::<Vec<_>>(), [2, 1, 1]);
    let images = images(4, [1, 8, 8], 6);
    assert!(largest_difference(&evaluate(&stages, &images), &plain::logits(&net, images.view())) < 1e-5);
}

#[test]
fn batch_norm_of_flattened_features_has_a_factor_for_every_value() {
    let mut g = generator();
    let ops = vec![
        conv(&mut g, [2, 1, 3], 1, 0),
        LayerOp::Flatten,
        batch_norm(&mut g, 72),
        polynomial(&[0.1, 0.4, 0.3]),
        batch_norm(&mut g, 72),
        dense(&mut g, 3, 72),
        batch_norm(&mut g, 3),
    ];
    let net = network([1, 8, 8], ops);
    let stages = normalise(fold(&net).unwrap()).unwrap();
    assert_eq!(stages.iter().map(|stage| stage.branches[0].maps.len()).collect::<Vec<_>>(), [2, 2]);
    assert!(
        !stages[0].branches[0].maps[0].merges_with(&stages[0].branches[0].maps[1]),
        "planes and values are not one convolution"
    );
    assert_eq!(lowered::Lowered::new(&net, Tolerance::default()).unwrap().factorisations(1).len(), 2);
    let images = images(4, [1, 8, 8], 6);
    assert!(largest_difference(&evaluate(&stages, &images), &plain::logits(&net, images.view())) < 1e-5);
}

#[test]
fn maps_with_more_taps_than_the_kernels_sum_exactly_are_not_merged() {
    let mut g = generator();
    let side = 260;
    let ops = vec![pool(2), LayerOp::Flatten, dense(&mut g, 2, side * side / 4)];
    let lowered = lowered::Lowered::new(&network([1, side, side], ops), Tolerance::default()).unwrap();
    assert!(side * side > cryptodl_core::backend::MAX_TAPS);
    assert_eq!(lowered.factorisations(0), [[1, 1]]);
}

#[test]
fn activations_become_monic_and_depressed_where_the_range_allows() {
    let mut g = generator();
    let mut activation = |coefficients: &[f64]| {
        let ops = vec![conv(&mut g, [2, 1, 3], 1, 0), polynomial(coefficients), LayerOp::Flatten, dense(&mut g, 3, 72)];
        let net = network([1, 8, 8], ops);
        let stages = normalise(fold(&net).unwrap()).unwrap();
        let images = images(4, [1, 8, 8], 6);
        assert!(largest_difference(&evaluate(&stages, &images), &plain::logits(&net, images.view())) < 1e-4);
        stages[0].activation.clone().unwrap()
    };
    // A small quadratic term is removed by a shift; a large one stays.
    let depressed = activation(&[0.2, 0.5, 0.05, 0.4]);
    assert_eq!((depressed.degree(), depressed.channels[0].constants[0], depressed.negate), (3, 0.0, false));
    let shifted = activation(&[0.2, 0.5, 3.0, 0.4]);
    assert_ne!(shifted.channels[0].constants[0], 0.0);
    assert!(activation(&[0.2, 0.5, -0.4]).negate, "the sign is a step of its own");
    assert_eq!(activation(&[0.2, 0.5, 0.1, 0.2, 0.3]).degree(), 4);
    // A leading term that does nothing over the range goes, and is reported.
    let lowered = activation(&[0.2, 0.5, 0.3, 1e-9]);
    assert_eq!(lowered.degree(), 2);
    assert!(lowered.dropped.is_some_and(|dropped| dropped.count == 1 && dropped.error < 1e-6));
}

#[test]
fn degrees_out_of_range_and_missing_calibrations_are_refused() {
    let mut g = generator();
    let build = |coefficients: &[f64], g: &mut SplitMix| {
        let ops = vec![conv(g, [1, 1, 3], 1, 0), polynomial(coefficients), LayerOp::Flatten, dense(g, 2, 36)];
        network([1, 8, 8], ops)
    };
    let refuse = |net: &Network| plan(net, &PlanOptions::default()).unwrap_err().to_string();
    assert!(refuse(&build(&[0.0, 1.0], &mut g)).contains("degree 1"));
    assert!(refuse(&build(&[1.0; 10], &mut g)).contains("degree 9"));
    let lacking = build(&[0.1, 1.0, 0.5], &mut g).changed(|spec| spec.layers[3].input_rms = None).unwrap();
    assert!(refuse(&lacking).contains("dense3 has no input_rms"));
    let ops = vec![conv(&mut g, [1, 1, 3], 1, 0), LayerOp::Flatten, polynomial(&[0.1, 1.0, 0.5])];
    assert!(refuse(&network([1, 8, 8], ops)).contains("ends with an activation"));
}

#[test]
fn quantised_weights_are_nearest() {
    let geometry = Geometry::pointwise([3, 1, 1], 1);
    let map = RealMap {
        name: "m".into(),
        geometry,
        weights: vec![1.0, -0.5, 0.24],
        bias: vec![0.75],
        input_rms: None,
        output_range: None,
        layer_multiply_adds: 3,
    };
    assert_eq!(quantise::grid(&map), Some(50.0));
    let scale = quantise::weight_scale(&map, None, 4.0);
    assert_eq!(scale, 7.0);
    let quantised = crate::quantise::quantised(&map, scale);
    assert_eq!(quantised.weights, [7, -4, 2]);
    // (-0.5 + 4/7)^2 + (0.24 - 2/7)^2
    let expected = (0.5f64 / 7.0).powi(2) + (2.0f64 / 7.0 - 0.24).powi(2);
    assert!((quantise::rounding_gain(&map, scale) - expected).abs() < 1e-12);
}

#[test]
fn weights_on_a_grid_are_not_rounded() {
    let map = |weights: Vec<f64>| RealMap {
        name: "m".into(),
        geometry: Geometry::pointwise([4, 1, 1], 1),
        weights,
        bias: vec![0.0],
        input_rms: None,
        output_range: None,
        layer_multiply_adds: 4,
    };
    // As a file in single precision has them.
    let integers = [15.0, -7.0, 0.0, 2.0];
    let on_grid = map(integers.iter().map(|w| f64::from((w * 0.012_345) as f32)).collect());
    assert_eq!(quantise::grid(&on_grid), Some(15.0));
    for (bits, times) in [(4.0, 1.0), (5.0, 1.0), (5.5, 1.0), (6.0, 2.0), (8.0, 8.0)] {
        let scale = quantise::weight_scale(&on_grid, Some(15.0), bits);
        let expected = integers.map(|w| (times * w) as i16);
        assert_eq!(crate::quantise::quantised(&on_grid, scale).weights, expected, "{bits} bits");
        assert!(quantise::rounding_gain(&on_grid, scale) < 1e-12, "{bits} bits");
    }
    // A constant kernel is on any grid.
    assert_eq!(quantise::grid(&map(vec![0.25; 4])), Some(1.0));
    assert_eq!(quantise::grid(&map(vec![1.0, 0.5, 0.3333, 0.251])), None);
    assert_eq!(quantise::grid(&map(vec![0.0; 4])), None);
}

#[test]
fn gains_of_linear_maps_are_row_norms() {
    let mut g = generator();
    let ops = vec![conv(&mut g, [2, 1, 3], 1, 0), LayerOp::Flatten, dense(&mut g, 3, 72)];
    let stages = normalise(fold(&network([1, 8, 8], ops)).unwrap()).unwrap();
    let gains = gains::Gains::measure(&stages, 32);
    let merged = stages[0].branches[0].maps[0].merge(&stages[0].branches[0].maps[1]);
    let exact = (merged.weights.iter().map(|w| w * w).sum::<f64>() / 3.0).sqrt();
    let measured = gains.between(0, gains.places().output());
    assert!((measured / exact).log2().abs() < 0.4, "{measured} against {exact}");
}

#[test]
fn changed_share_is_half_for_large_noise_and_zero_without() {
    let margins = cryptodl_network::Histogram { low: 0.0, high: 2.0, counts: vec![1, 1, 1, 1] };
    assert_eq!(changed_share(&margins, 0.0), 0.0);
    assert!((changed_share(&margins, 1e9) - 0.5).abs() < 1e-6);
    let sigma = tolerance::largest_noise(&margins, 0.01);
    assert!((changed_share(&margins, sigma) - 0.01).abs() < 1e-9);
}

#[test]
fn a_tolerance_is_a_share_and_explains_what_chance_does() {
    assert_eq!(Tolerance::default().percent(), "0.15%");
    assert!((Tolerance::default().encryption() - 0.001).abs() < 1e-15);
    for bad in [0.0, -0.1, 0.51, f64::NAN] {
        assert!(Tolerance::new(bad).unwrap_err().to_string().contains("a tolerance of"), "{bad}");
    }
    // 15 are expected of 10,000; the mean and twice the mean by Poisson's distribution.
    assert!(Tolerance::default().explains(15, 10_000) && Tolerance::default().explains(27, 10_000));
    assert!(!Tolerance::default().explains(54, 10_000) && !Tolerance::default().explains(30, 10_000));
    assert!(Tolerance::default().explains(1, 10) && !Tolerance::default().explains(3, 10));
}

/// With margins that are often small, so that noise matters.
fn unsure(net: Network) -> Network {
    let margins = cryptodl_network::Histogram { low: 0.0, high: 0.5, counts: vec![1; 256] };
    let range = net.output.as_ref().unwrap().range;
    net.changed(|spec| spec.output = Some(cryptodl_network::OutputCalibration { range, margins })).unwrap()
}

/// With the calibration that the network gets on random images.
fn calibrated(mut net: Network, seed: u64) -> Network {
    let images = images(400, net.input.shape, seed);
    net.calibration = Some(calibrate(&net, rows(&images)).unwrap());
    net
}

/// The network of the first user's report in small: squares without batch-norm, so that values are always positive.
fn squares() -> Network {
    let mut g = generator();
    let ops = vec![
        conv(&mut g, [4, 1, 3], 2, 0),
        polynomial(&[0.0, 0.0, 1.0]),
        conv(&mut g, [6, 4, 2], 1, 0),
        polynomial(&[0.0, 0.0, 1.0]),
        LayerOp::Flatten,
        dense(&mut g, 4, 24),
    ];
    network([1, 8, 8], ops)
}

#[test]
fn a_deep_network_drops_several_primes_at_once() {
    let mut g = generator();
    let hidden: Vec<LayerOp> = (0..6).flat_map(|_| [dense(&mut g, 8, 8), polynomial(&[0.2, 0.5, 0.2])]).collect();
    let ops = std::iter::once(LayerOp::Flatten).chain(hidden).chain([dense(&mut g, 3, 8)]).collect();
    let options = PlanOptions { weight_bits: Some(8.0), ..PlanOptions::default() };
    let plan = plan(&unsure(calibrated(network([1, 2, 4], ops), 5)), &options).unwrap();
    let drops = plan.program.content.steps.iter().flat_map(|step| match step {
        Step::Activation { activation, .. } => activation.maintenance.clone(),
        Step::Maintenance { maintenance, .. } => vec![*maintenance],
        Step::Linear { .. } => Vec::new(),
    });
    assert_eq!(drops.map(|maintenance| maintenance.drop).max(), Some(2), "{}", plan.report);
    // What is left for the scores is what their precision takes, and no modulus that nothing used.
    assert!(plan.program.content.output.level <= 2, "{}", plan.report);
}

#[test]
fn few_images_are_packed_as_is_cheaper() {
    let network = calibrated(squares(), 3);
    for (batch, is_compact) in [(1, true), (512, true), (SMALL_BATCH + 1, false), (DEFAULT_BATCH, false)] {
        let planned = |packing| {
            let options = PlanOptions { batch, packing, ..PlanOptions::default() };
            let Plan { program, report } = plan(&network, &options).unwrap();
            (program.digest(), report.bytes)
        };
        let (auto, compact, spread) =
            (planned(PackingKind::Auto), planned(PackingKind::Compact), planned(PackingKind::Spread));
        assert!(auto.0 == if is_compact { compact.0 } else { spread.0 }, "{batch} images");
        if is_compact {
            assert!(compact.1.upload < spread.1.upload, "{batch} images");
        }
    }
    // Packing compactly what leaves no room is spreading.
    let planned = |packing| {
        let options = PlanOptions { batch: 1 << 16, packing, ..PlanOptions::default() };
        plan(&network, &options).unwrap().program.digest()
    };
    assert_eq!(planned(PackingKind::Compact), planned(PackingKind::Spread));
}

#[test]
fn predicted_seconds_are_of_computing_alone() {
    let network = calibrated(squares(), 3);
    let planned = |options: &PlanOptions| plan(&network, options).unwrap();
    let few = PlanOptions { batch: 1, packing: PackingKind::Spread, ..PlanOptions::default() };
    let one = planned(&few);
    let params = &one.report.params;
    let prime_bits = Some(u32::BITS - params.primes[0].leading_zeros());
    let pinned = PlanOptions { batch: DEFAULT_BATCH, n: Some(params.n), limbs: Some(params.limbs), prime_bits, ..few };
    let many = planned(&pinned);
    assert_eq!(one.program.digest(), many.program.digest());
    let sets = DEFAULT_BATCH.div_ceil(params.n) as f64;
    assert!((many.report.predicted_seconds / (sets * one.report.predicted_seconds) - 1.0).abs() < 1e-9);
}

#[test]
fn gains_are_derivatives_of_scores_and_margins() {
    let mut g = generator();
    let ops = vec![
        conv(&mut g, [3, 1, 3], 1, 1),
        batch_norm(&mut g, 3),
        polynomial(&[0.3, 0.5, 0.2, 0.1]),
        conv(&mut g, [2, 3, 3], 2, 1),
        polynomial(&[0.1, 0.4, 0.3]),
        LayerOp::Flatten,
        dense(&mut g, 4, 32),
    ];
    let net = network([1, 8, 8], ops);
    let one = images(1, [1, 8, 8], 5);
    let calibration = calibrate(&net, rows(&one)).unwrap();
    let stages = normalise(fold(&net).unwrap()).unwrap();
    let forward = |from: usize, values: &[f64]| {
        let mut values = values.to_vec();
        for stage in &stages[from..] {
            for map in &stage.branches[0].maps {
                values = map.geometry.apply(&map.weights, Some(&map.bias), &values, 1);
            }
            if let Some(activation) = &stage.activation {
                values.iter_mut().for_each(|z| *z = activation.channels[0].value(*z));
            }
        }
        values
    };
    let pixels: Vec<f64> = one.iter().map(|&v| v.into()).collect();
    let first = &stages[0];
    let z =
        first.branches[0].maps.iter().fold(pixels.clone(), |v, m| m.geometry.apply(&m.weights, Some(&m.bias), &v, 1));
    let activation = first.activation.as_ref().unwrap();
    let after: Vec<f64> = z.iter().map(|&z| activation.channels[0].value(z)).collect();
    let scores = forward(0, &pixels);
    let mut order: Vec<usize> = (0..4).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    assert!((f64::from(calibration.margins[0]) - (scores[order[0]] - scores[order[1]])).abs() < 1e-5);
    // By central differences, each change weighed.
    let check = |name: &str, from: usize, values: &[f64], weight: &dyn Fn(usize) -> f64| {
        let step = 1e-5;
        let (mut margin, mut score) = (0.0, 0.0);
        for i in 0..values.len() {
            let at = |step: f64| {
                let mut moved = values.to_vec();
                moved[i] += step * weight(i);
                forward(from, &moved)
            };
            let (up, down) = (at(step), at(-step));
            let slope: Vec<f64> = up.iter().zip(&down).map(|(a, b)| (a - b) / (2.0 * step)).collect();
            score += slope.iter().map(|s| s * s).sum::<f64>() / 4.0;
            margin += (slope[order[0]] - slope[order[1]]).powi(2);
        }
        let found = &calibration.gains[name];
        for (found, expected) in [(found.margin[0], margin), (found.score[0], score)] {
            assert!((f64::from(found) / expected.sqrt() - 1.0).abs() < 1e-4, "{name}: {found} and {}", expected.sqrt());
        }
    };
    check("/input", 0, &pixels, &|_| 1.0);
    check(&activation.name, 1, &after, &|_| 1.0);
    // The first of the cube's two products is multiplied by z once more.
    check(&format!("{}/horner/0", activation.name), 1, &after, &|i| z[i]);
    assert_eq!(calibration.gains[&stages[1].branches[0].maps.last().unwrap().name].score.len(), 1);
    let output = &calibration.gains[calibration.places.last().unwrap()];
    assert!((output.margin[0] - 2f32.sqrt()).abs() < 1e-6 && (output.score[0] - 1.0).abs() < 1e-6);
}

#[test]
fn rounding_is_measured_and_leaves_no_bias() {
    let options =
        PlanOptions { weight_bits: Some(4.0), tolerance: Some(Tolerance::new(0.5).unwrap()), ..PlanOptions::default() };
    let bias_and_rms = |net: &Network| {
        let plan = plan(net, &options).unwrap();
        let fresh = images(512, net.input.shape, 77);
        let errors =
            cryptodl_program::plain(&plan.program, rows(&fresh)) - plain::logits(net, fresh.view()).mapv(f64::from);
        let bias = errors.mean_axis(ndarray::Axis(0)).unwrap().mapv(|b| b * b).mean().unwrap().sqrt();
        (bias, errors.mapv(|e| e * e).mean().unwrap().sqrt(), plan.report.noise)
    };
    let (bias, rms, noise) = bias_and_rms(&squares());
    assert!(!noise.calibrated && noise.changed_at_most > noise.changed);
    // What the issue found: the errors of always positive values share a sign.
    assert!(bias > 0.5 * rms, "a bias of {bias} in {rms}");
    let (bias, corrected, noise) = bias_and_rms(&calibrated(squares(), 3));
    assert!(noise.calibrated && noise.changed_at_most == noise.changed);
    assert!(bias < 0.25 * corrected && corrected < 0.8 * rms, "a bias of {bias} in {corrected}, before {rms}");
    assert!((corrected.log2() - noise.rounding_bits).abs() < 0.5, "{corrected}, predicted 2^{}", noise.rounding_bits);
}

#[test]
fn a_refusal_states_the_tolerance_at_which_the_network_fits() {
    for net in [unsure(squares()), unsure(calibrated(squares(), 3))] {
        let coarse = PlanOptions { weight_bits: Some(4.0), ..PlanOptions::default() };
        let error = plan(&net, &coarse).unwrap_err();
        let message = error.to_string();
        let (_, rest) = message.split_once("a tolerance of ").unwrap_or_else(|| panic!("{message}"));
        let percent: f64 = rest.split_once('%').unwrap().0.parse().unwrap();
        assert!(percent > 0.15 && message.contains("0.15%"), "{message}");
        assert!(error.remedies().contains(&PlanRemedy::Training), "{message}");
        let tolerance = Tolerance::new(percent / 100.0).unwrap();
        let plan = plan(&net, &PlanOptions { tolerance: Some(tolerance), ..coarse }).unwrap();
        assert!(plan.report.noise.changed <= tolerance.total() && plan.report.tolerance == tolerance.total());
        assert_eq!(plan.program.content.tolerance, tolerance);
        // The model's own tolerance counts where none is asked for.
        let own = net.changed(|spec| spec.tolerance = Some(percent / 100.0)).unwrap();
        assert_eq!(super::plan(&own, &coarse).unwrap().program.digest(), plan.program.digest());
    }
}

/// Pins and tolerances at which shipped networks do not fit. What a refusal states has been planned.
#[test]
fn stated_tolerances_fit() {
    let pinned = |n, prime_bits| PlanOptions { n, prime_bits, ..PlanOptions::default() };
    let strict = |share| PlanOptions { tolerance: Some(Tolerance::new(share).unwrap()), ..PlanOptions::default() };
    let cases =
        [("secureml", strict(1e-9)), ("secureml", strict(0.00033)), ("chabanne-light", pinned(Some(2048), None))];
    let mut stated = 0;
    for (model, options) in cases {
        let network = zoo::load(model).unwrap();
        let Err(PlanError::DoesNotFit { remedies, .. } | PlanError::Unsettled { remedies, .. }) =
            plan(&network, &options)
        else {
            continue;
        };
        let [PlanRemedy::Tolerance(tolerance), ..] = &remedies[..] else {
            panic!("{model} with {options:?}: {remedies:?}")
        };
        // As it is shown, and can be typed.
        let percent = tolerance.percent();
        let share = percent.trim_end_matches('%').parse::<f64>().unwrap() / 100.0;
        let there = PlanOptions { tolerance: Some(Tolerance::new(share).unwrap()), ..options };
        assert!(plan(&network, &there).is_ok(), "{model} does not fit at {percent}");
        stated += 1;
    }
    assert!(stated > 1, "{stated} of the cases were refused");
}

#[test]
fn a_schedule_that_changes_too_many_labels_is_searched_again() {
    let mut net = unsure(calibrated(squares(), 3));
    let first = plan(&net, &PlanOptions::default());
    let calibration = net.calibration.as_mut().unwrap();
    calibration.gains.values_mut().for_each(|gains| gains.margin.iter_mut().for_each(|gain| *gain *= 16.0));
    let noisier = plan(&net, &PlanOptions::default()).unwrap();
    assert!(noisier.report.noise.changed_by_encryption <= 0.001 && noisier.report.noise.changed <= 0.0015);
    let log_q = |plan: &Plan| plan.report.params.log_q;
    assert!(log_q(&noisier) > log_q(&first.unwrap()), "wider primes where gains are larger");
}

fn planned(model: &str, options: PlanOptions) -> Plan {
    plan(&zoo::load(model).unwrap(), &options).unwrap()
}

#[test]
fn one_activation_fuses_with_its_maps_and_only_scores_are_maintained() {
    for (model, key, components) in [("mnist-1", false, 4), ("mnist-1-square", true, 2)] {
        let plan = planned(model, PlanOptions::default());
        let (report, content) = (&plan.report, &plan.program.content);
        assert!(report.params.n <= 8192 && report.params.limbs <= 3, "{report}");
        assert!(report.params.security_bits >= 128);
        assert_eq!((content.relin().is_some(), content.output.components), (key, components));
        assert_eq!(report.params.special_primes.is_empty(), !key);
        assert_eq!(plan.program.segments().len(), 2, "one fused slot-wise segment, and what is left for its result");
        let [network, scores] = &report.segments[..] else { panic!("{report}") };
        assert_eq!((network.ntts, network.multiply_adds), (0, 212_800));
        assert_eq!(network.layer_multiply_adds, 288_000 + 1_600_000 + 204_800 + 2_560);
        assert!(scores.ntts <= 10 * 4 * 4 && scores.multiply_adds == 0, "{report}");
        assert!(report.noise.changed_by_encryption <= 0.001 && report.noise.changed <= 0.0015);
        assert!(report.segments.iter().all(|segment| segment.headroom_bits >= 0.0));
        assert!(network.steps.iter().filter_map(|step| step.bits).all(|bits| (4.0..=8.0).contains(&bits)));
        assert_eq!(network.steps.iter().filter(|step| step.bits.is_some()).count(), 2, "every map says its bits");
        let dropped = report.params.primes[scores.limbs..network.limbs].iter().map(|&q| f64::from(q).log2());
        let scale = content.output.scale.log2() + dropped.sum::<f64>();
        assert!(
            (scale - scale.round()).abs() < 1e-9,
            "but for known primes a power of two: it tells nothing of the weights"
        );
        assert!(!report.runners_up.is_empty());
    }
}

#[test]
fn layered_relinearises_and_rescales_every_product() {
    let options = PlanOptions { schedule: ScheduleKind::Layered, ..PlanOptions::default() };
    let plan = planned("mnist-1", options);
    let content = &plan.program.content;
    let linear = content.steps.iter().filter(|step| matches!(step, Step::Linear { .. })).count();
    assert_eq!(linear, 4, "nothing merged but pooling and batch-norm");
    let maintenance = content.steps.iter().find_map(|step| match step {
        Step::Activation { activation, .. } => Some(activation.maintenance.clone()),
        Step::Linear { .. } | Step::Maintenance { .. } => None,
    });
    assert_eq!(maintenance, Some(vec![Maintenance { relinearise: true, drop: 1 }; 2]));
    assert_eq!((content.output.components, content.output.level), (2, content.params.primes.len() - 2));
    assert!(content.relin().is_some());
    assert_eq!(plan.report.segments.iter().map(|segment| segment.multiply_adds).sum::<u64>(), 887_040);
}

#[test]
fn flags_change_the_program_and_equal_flags_do_not() {
    let base = planned("mnist-1", PlanOptions::default());
    assert_eq!(base.program.digest(), planned("mnist-1", PlanOptions::default()).program.digest());
    let public = planned("mnist-1", PlanOptions { encryption: EncryptionKind::Public, ..PlanOptions::default() });
    assert_ne!(base.program.digest(), public.program.digest());
    assert_eq!(public.report.params.special_primes.len(), 1);
    assert!(public.program.content.input.scale.log2() >= 17.2, "public-key noise needs a larger scale");
    let strong = planned("mnist-1", PlanOptions { security: SecurityLevel::Bits256, ..PlanOptions::default() });
    assert_eq!(strong.report.params.security_bits, 256);
    let pinned = PlanOptions { n: Some(8192), limbs: Some(3), prime_bits: Some(30), ..PlanOptions::default() };
    let pinned = planned("mnist-1", pinned).report.params;
    assert_eq!((pinned.n, pinned.limbs, pinned.log_q.ceil()), (8192, 3, 90.0));
    let bits = PlanOptions { weight_bits: Some(5.0), ..PlanOptions::default() };
    let bits = planned("mnist-1-square", bits);
    for step in &bits.program.content.steps {
        if let Step::Linear { terms, .. } = step
            && let [Term { map: TermMap::Dense(map), .. }] = &terms[..]
        {
            assert!(map.weights.iter().all(|w| w.abs() <= 15));
        }
    }
}

#[test]
fn what_does_not_fit_says_what_would_help() {
    let net = zoo::load("mnist-1").unwrap();
    let refuse = |options: PlanOptions| plan(&net, &options).unwrap_err().to_string();
    let message = refuse(PlanOptions { limbs: Some(1), ..PlanOptions::default() });
    let pins = "What would help: fewer pinned choices (the number of primes in the chain)";
    assert!(message.contains(pins), "{message}");
    let message = refuse(PlanOptions { n: Some(3000), ..PlanOptions::default() });
    assert!(message.contains("the ring dimension is 3000, but must be a power of two"), "{message}");
    let message = refuse(PlanOptions { weight_bits: Some(9.0), ..PlanOptions::default() });
    assert!(message.contains("the size of the weights in bits is 9, but must be 4 to 8"), "{message}");
    let message = refuse(PlanOptions { limbs: Some(41), ..PlanOptions::default() });
    assert!(message.contains("the number of primes in the chain is 41, but must be 1 to 40"), "{message}");
}

#[test]
fn plain_mode_follows_the_float_network_and_simulation_adds_the_predicted_noise() {
    let net = zoo::load("mnist-1").unwrap();
    let plan = planned("mnist-1", PlanOptions { weight_bits: Some(8.0), n: Some(8192), ..PlanOptions::default() });
    let images = images(64, net.input.shape, 9);
    let float = plain::logits(&net, images.view());
    let quantised = cryptodl_program::plain(&plan.program, rows(&images));
    // Random images are far from digits; only closeness on the scale of the scores is asked.
    let scale = float.iter().fold(0.0f32, |max, v| max.max(v.abs()));
    assert!(largest_difference(&quantised, &float) < 0.1 * f64::from(scale));
    let noisy = cryptodl_program::simulate(&plan.program, rows(&images), 4);
    let rms = ((&noisy - &quantised).mapv(|d| d * d).mean().unwrap()).sqrt();
    assert!((rms / plan.program.content.output.noise).log2().abs() < 0.2);
}

/// `count` convolutions of one tap, which all merge, then an activation and a dense layer.
fn mergeable(count: usize) -> Network {
    let mut g = generator();
    let convs = (0..count).map(|_| conv(&mut g, [2, 2, 1], 1, 0)).collect::<Vec<_>>();
    let rest = [polynomial(&[0.1, 0.4, 0.3]), LayerOp::Flatten, dense(&mut g, 3, 32)];
    network([2, 4, 4], convs.into_iter().chain(rest).collect())
}

#[test]
fn long_branches_are_planned_without_listing_their_factorisations() {
    for (count, ways) in [(12, 1 << 11), (40, 1 << 39), (80, usize::MAX)] {
        let net = mergeable(count);
        let lowered = lowered::Lowered::new(&net, Tolerance::default()).unwrap();
        assert_eq!(lowered.count_factorisations(0), ways);
        assert_eq!(lowered.cheapest_factorisation(0), [count]);
        let plan = plan(&net, &PlanOptions::default());
        if count <= 40 {
            let plan = plan.unwrap();
            assert!(plan.report.schedule.contains(&format!("; merge {count};")), "{}", plan.report.schedule);
        }
    }
}

#[test]
fn counted_and_cheapest_factorisations_are_those_of_the_list() {
    let all_of = |lowered: &lowered::Lowered| {
        for branch in 0..lowered.branches.len() {
            let all = lowered.factorisations(branch);
            assert_eq!(lowered.count_factorisations(branch), all.len());
            let price = |counts: &[usize]| -> u64 {
                let firsts = counts.iter().scan(0, |first, count| Some(std::mem::replace(first, *first + count)));
                let factors = firsts.zip(counts).map(|(first, &count)| lowered.factor(branch, first, count).unwrap());
                factors.map(|factor| factor.map.geometry.multiply_adds()).sum()
            };
            let cheapest = all.iter().min_by_key(|counts| price(counts)).unwrap();
            assert_eq!(&lowered.cheapest_factorisation(branch), cheapest);
        }
    };
    for model in ["mnist-1", "mnist-best", "chabanne-light"] {
        all_of(&lowered::Lowered::new(&zoo::load(model).unwrap(), Tolerance::default()).unwrap());
    }
    // 2048 ways: those near one are merged at a boundary or cut at one.
    let lowered = lowered::Lowered::new(&mergeable(12), Tolerance::default()).unwrap();
    all_of(&lowered);
    let near = lowered.factorisations_near(0, &[5, 7]);
    assert_eq!(near.len(), 4 + 6 + 1);
    assert!(near.iter().all(|counts| counts.iter().sum::<usize>() == 12) && near.contains(&vec![12]));
}

#[test]
fn calibrations_of_more_images_than_are_measured_are_refused() {
    let mut net = zoo::load("mnist-1-square").unwrap();
    let calibration = net.calibration.as_mut().unwrap();
    let (images, scores) = (calibration.images.clone(), calibration.scores.clone());
    calibration.images.append(ndarray::Axis(0), images.view()).unwrap();
    calibration.scores.append(ndarray::Axis(0), scores.view()).unwrap();
    let message = plan(&net, &PlanOptions::default()).unwrap_err().to_string();
    assert!(message.contains("images stored in its calibration is 512, and at most 256"), "{message}");
}

#[test]
fn networks_too_large_to_be_planned_are_refused_with_what_would_help() {
    let refuse = |net: &Network| plan(net, &PlanOptions::default()).unwrap_err().to_string();
    let mut g = generator();
    let mut ops = vec![conv(&mut g, [1, 1, 1], 1, 0)];
    ops.extend((0..14).map(|_| polynomial(&[0.1, 0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.3])));
    ops.extend([LayerOp::Flatten, dense(&mut g, 2, 4)]);
    let message = refuse(&network([1, 2, 2], ops));
    assert!(message.contains("multiplications of ciphertexts is 42, and at most 40 is supported"), "{message}");

    // Noise from each of many places goes through all that follow.
    let mut ops: Vec<LayerOp> = (0..506).map(|_| conv(&mut g, [1, 1, 1], 1, 0)).collect();
    ops.extend([LayerOp::Flatten, dense(&mut g, 2, 88 * 88)]);
    let net = uncalibrated([1, 88, 88], ops);
    let message = refuse(&net);
    assert!(message.contains("multiply-adds for estimating noise is"), "{message}");
    assert!(message.contains("What would help: fewer layers; fewer channels; smaller images"), "{message}");
}
