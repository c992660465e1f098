//! Networks made in memory: refused by the same rules, and quickly where they are hostile.

use cryptodl_network::limits::{CHANNEL_BINS, MAX_HELD_VALUES, MAX_OPERANDS, MAX_VALUES};
use cryptodl_network::{Histogram, InputSpec, Inputs, Layer, LayerOp, Network, NetworkSpec, Source};
use ndarray::{Array1, Array2, Array4};

use crate::common::graph::{GRAPH, tensors};
use crate::common::{calibration, parse};

fn spec(shape: [usize; 3], layers: Vec<Layer>) -> NetworkSpec {
    NetworkSpec::new("memory", "Made in memory", InputSpec { shape, range: [0.0, 1.0] }, layers)
}

/// A network on images of two channels, four rows and five columns, and how to spoil it.
fn residual() -> NetworkSpec {
    let net = parse(GRAPH, &tensors()).unwrap();
    NetworkSpec { layers: net.layers.clone(), ..spec([2, 4, 5], Vec::new()) }
}

#[test]
fn bad_networks_in_memory_are_refused_by_the_same_rules() {
    type Spoil = fn(&mut NetworkSpec);
    let histogram = || Histogram { low: 0.0, high: 1.0, counts: vec![1; CHANNEL_BINS] };
    let table: &[(Spoil, &str)] = &[
        (|s| s.name = "two words".into(), "name: name \"two words\" must be"),
        (|s| s.weights = "../x".into(), "weights: weights `../x` must be the plain name"),
        (|s| s.title.clear(), "title: title \"\" must be one line"),
        (|s| s.tolerance = Some(f64::NAN), "tolerance: `tolerance` is NaN"),
        (|s| s.input.shape = [2, 0, 5], "[input]: field `shape` is 0"),
        (|s| s.input.shape = [usize::MAX; 3], "[input]: field `shape` is"),
        (|s| s.input.shape = [65536; 3], "[input]: 65536 x 65536 x 65536 is too large"),
        (|s| s.input.range = [1.0, 0.0], "[input]: `range` [1, 0]"),
        (|s| s.layers.clear(), "[[layer]]: 0 layers; a network has 1 to 512"),
        (|s| s.layers.truncate(6), "[[layer]]: the last layer's output is 6 x 1 x 1"),
        (|s| s.layers[3].name = "act".into(), "layer `act`: another layer has this name"),
        (|s| s.layers[3].name = "input".into(), "layer `input`: no layer may be called `input`"),
        (|s| s.layers[3].inputs = vec![Source::Layer(2), Source::Layer(3)], "layer `skip`: layer 4 is not before"),
        (|s| s.layers[3].inputs = vec![Source::Layer(usize::MAX - 1), Source::Input], "is not before this layer"),
        (
            |s| s.layers[3].inputs.clear(),
            "layer `skip`: a layer of kind add takes 2 to 64 operands, but `inputs` has 0",
        ),
        (|s| s.layers[2].inputs.push(Source::Input), "layer `wide`: a layer of kind conv2d takes one operand"),
        (|s| s.layers[1].input_rms = Some(0.0), "layer `act`: `input_rms` is 0"),
        (|s| s.layers[1].output_range = Some([0.0, f64::INFINITY]), "layer `act`: `output_range` [0, inf]"),
        (
            |s| match &mut s.layers[2].op {
                LayerOp::Conv2d { bias, .. } => *bias = Some(Array1::zeros(3)),
                _ => panic!(),
            },
            "layer `wide`: tensor `wide.bias` has shape [3]; this layer needs [4]",
        ),
        (
            |s| match &mut s.layers[2].op {
                LayerOp::Conv2d { weight, .. } => *weight = Array4::zeros((4, 4, 0, 3)),
                _ => panic!(),
            },
            "layer `wide`: field `kernel` is 0",
        ),
        (
            |s| match &mut s.layers[2].op {
                LayerOp::Conv2d { weight, .. } => *weight = Array4::zeros((0, 4, 2, 3)),
                _ => panic!(),
            },
            "layer `wide`: field `out_channels` is 0",
        ),
        (
            |s| match &mut s.layers[2].op {
                LayerOp::Conv2d { weight, .. } => weight[[1, 0, 0, 0]] = f32::NAN,
                _ => panic!(),
            },
            "layer `wide`: tensor `wide.weight` holds NaN at position 24",
        ),
        (
            |s| match &mut s.layers[2].op {
                LayerOp::Conv2d { stride, .. } => *stride = [1, 0],
                _ => panic!(),
            },
            "layer `wide`: field `stride` is 0",
        ),
        (
            |s| match &mut s.layers[2].op {
                LayerOp::Conv2d { padding, .. } => padding.after = [usize::MAX; 2],
                _ => panic!(),
            },
            "layer `wide`: field `padding` is",
        ),
        (
            |s| match &mut s.layers[7].op {
                LayerOp::Dense { weight, .. } => *weight = Array2::zeros((0, 6)),
                _ => panic!(),
            },
            "layer `fc`: field `out_features` is 0",
        ),
        (
            |s| s.layers[1].op = LayerOp::Polynomial { coefficients: vec![], inputs: None },
            "layer `act`: there are coefficients for 0 channels, but the input has 4",
        ),
        (
            |s| s.layers[1].op = LayerOp::Polynomial { coefficients: vec![vec![0.0, 1.0]; 2], inputs: None },
            "layer `act`: there are coefficients for 2 channels, but the input has 4; one row or one per channel",
        ),
        (
            |s| match &mut s.layers[1].op {
                LayerOp::Polynomial { coefficients, .. } => drop(coefficients[3].pop()),
                _ => panic!(),
            },
            "layer `act`: the coefficients of channel 3 are",
        ),
        (
            // Zero as f32.
            |s| s.layers[1].op = LayerOp::Polynomial { coefficients: vec![vec![0.0, 1e-300]; 4], inputs: None },
            "layer `act`: the coefficients of degree 1 are zero in every channel",
        ),
        (
            |s| s.layers[1].op = LayerOp::Polynomial { coefficients: vec![vec![0.0, 1e300]; 4], inputs: None },
            "layer `act`: the coefficients of channel 0 are [0.0, inf]",
        ),
    ];
    for (spoil, fragment) in table {
        let mut spec = residual();
        spoil(&mut spec);
        let error = Network::new(spec).expect_err(fragment).to_string();
        assert!(error.contains(fragment), "{error:?} lacks {fragment:?}");
    }
    Network::new(residual()).unwrap();
    for channels in [vec![histogram(); 3], vec![Histogram { counts: vec![1; 7], ..histogram() }; 4]] {
        let mut spec = residual();
        let LayerOp::Polynomial { inputs, .. } = &mut spec.layers[1].op else { panic!() };
        *inputs = Some(Inputs { range: [0.0, 1.0], histogram: histogram(), channels });
        let error = Network::new(spec).unwrap_err().to_string();
        assert!(error.contains("layer `act`: there are histograms of"), "{error}");
    }
}

fn in_memory(shape: [usize; 3], layers: Vec<(LayerOp, Vec<Source>)>) -> Result<Network, String> {
    let layers = layers.into_iter().enumerate();
    let layers = layers.map(|(index, (op, inputs))| Layer::new(&format!("l{index}"), op, inputs)).collect();
    Network::new(spec(shape, layers)).map_err(|error| error.to_string())
}

#[test]
fn hostile_graphs_are_refused_quickly() {
    let started = std::time::Instant::now();
    let refused = |result: Result<Network, String>, fragment: &str| {
        let error = result.expect_err(fragment);
        assert!(error.contains(fragment), "{error:?} lacks {fragment:?}");
    };
    // A thousand operands.
    let names = vec!["\"act\""; 1000].join(", ");
    let text = GRAPH.replace("\"wide\", \"act\"", &names);
    refused(
        parse(&text, &tensors()).map_err(|error| error.to_string()),
        "takes 2 to 64 operands, but `inputs` has 1000",
    );
    let most = vec![Source::Input; MAX_OPERANDS];
    // As many channels as are allowed, and one more.
    let concat = |channels: usize| {
        let inputs = vec![Source::Input; 4];
        let pool = vec![(LayerOp::Concat, inputs), (LayerOp::GlobalAvgPool2d, vec![Source::Layer(0)])];
        in_memory([channels, 64, 64], [pool, vec![(LayerOp::Flatten, vec![Source::Layer(1)])]].concat())
    };
    assert_eq!(16 * 4 * 64 * 64, MAX_VALUES);
    assert_eq!(concat(16).unwrap().classes(), 64);
    refused(concat(17), "l0`: 68 x 64 x 64 is too large; at most 262144 values");
    refused(
        in_memory([64, 64, 64], vec![(LayerOp::Concat, most)]),
        "l0`: 4096 x 64 x 64 is too large; at most 262144 values",
    );
    // Values that wait for the end: each is as large as is allowed, and so many at once are not.
    let waiting = |count: usize| {
        let mut layers: Vec<(LayerOp, Vec<Source>)> =
            (0..count).map(|index| (LayerOp::Identity, vec![Source::before(index)])).collect();
        layers.push((LayerOp::Add, (0..count).map(Source::Layer).collect()));
        layers.push((LayerOp::GlobalAvgPool2d, vec![Source::Layer(count)]));
        layers.push((LayerOp::Flatten, vec![Source::Layer(count + 1)]));
        in_memory([64, 64, 64], layers)
    };
    let room = MAX_HELD_VALUES / MAX_VALUES;
    waiting(room - 1).unwrap();
    refused(waiting(room), "values per image must be kept here for this layer and later ones; at most 4194304");
    assert!(started.elapsed().as_secs() < 20);
}

/// A calibration stays with a network of which only statements change, and no longer.
#[test]
fn a_changed_network_is_checked_again_and_keeps_its_calibration_where_it_computes_the_same() {
    let mut net = Network::new(residual()).unwrap();
    net.calibration = Some(calibration());
    let other = net.changed(|spec| spec.tolerance = Some(0.3)).unwrap();
    assert_eq!((other.fingerprint(), &other.calibration), (net.fingerprint(), &net.calibration));
    assert_ne!(other.digest(), net.digest());
    let other = net.changed(|spec| spec.input.range = [0.0, 2.0]).unwrap();
    assert!(other.fingerprint() != net.fingerprint() && other.calibration.is_none());
    assert!(net.changed(|spec| spec.tolerance = Some(2.0)).unwrap_err().to_string().contains("tolerance"));
}
