//! Networks that are graphs: random ones against loops that follow the definitions, as files and
//! back, and what is refused.

mod common;

use common::{Tensors, noise, oracle, parse};
use cryptodl_models::network::{
    CHANNEL_BINS, Calibration, Histogram, InputSpec, Inputs, LayerOp, LayerSpec, MAX_HELD_VALUES, MAX_OPERANDS,
    MAX_VALUES, Network, NetworkSpec, Padding, Shape, Source, SourceGains,
};
use cryptodl_models::{measure, plain, zoo};
use ndarray::{Array1, Array2, Array4, Axis};
use proptest::prelude::*;

// ---------------------------------------------------------------- random graphs

/// Choices taken one by one; zeros after the end.
struct Choices<'a>(std::slice::Iter<'a, u8>, Box<dyn Iterator<Item = f32>>);

impl Choices<'_> {
    /// Below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        usize::from(*self.0.next().unwrap_or(&0)) % bound
    }

    fn number(&mut self) -> f32 {
        self.1.next().unwrap()
    }

    fn vector(&mut self, len: usize) -> Array1<f32> {
        Array1::from_shape_simple_fn(len, || self.number())
    }
}

/// A layer on a value of this shape, and nothing but it.
fn layer_on(shape: Shape, choices: &mut Choices) -> LayerOp {
    match (choices.below(7), shape) {
        (0 | 1, Shape::Image { channels, height, width }) if channels <= 8 => {
            let divisors: Vec<usize> = (1..=channels).filter(|d| channels % d == 0).collect();
            let groups = divisors[choices.below(divisors.len())];
            let out = groups * (1 + choices.below(2));
            let padding =
                Padding { before: [choices.below(3), choices.below(2)], after: [choices.below(2), choices.below(3)] };
            let dilation = [1 + choices.below(2), 1 + choices.below(3)];
            let fits = |size: usize, axis: usize| {
                let room = size + padding.before[axis] + padding.after[axis];
                (1..=3).filter(|kernel| (kernel - 1) * dilation[axis] < room).max().unwrap()
            };
            let kernel = [1 + choices.below(fits(height, 0)), 1 + choices.below(fits(width, 1))];
            let seen = channels / groups;
            let scale = 1.0 / ((seen * kernel[0] * kernel[1]) as f32).sqrt();
            LayerOp::Conv2d {
                weight: Array4::from_shape_simple_fn((out, seen, kernel[0], kernel[1]), || choices.number() * scale),
                bias: (choices.below(2) == 0).then(|| choices.vector(out)),
                stride: [1 + choices.below(2), 1 + choices.below(2)],
                padding,
                dilation,
                groups,
            }
        }
        (2, Shape::Image { height, width, .. }) => {
            let kernel = [1 + choices.below(height.min(3)), 1 + choices.below(width.min(3))];
            let stride = [1 + choices.below(2), 1 + choices.below(2)];
            match choices.below(3) {
                0 => LayerOp::AvgPool2d { kernel, stride },
                1 => LayerOp::SumPool2d { kernel, stride },
                _ => LayerOp::GlobalAvgPool2d,
            }
        }
        (2, Shape::Flat(len)) => {
            let scale = 1.0 / (len as f32).sqrt();
            let out = 1 + choices.below(6);
            LayerOp::Dense {
                weight: Array2::from_shape_simple_fn((out, len), || choices.number() * scale),
                bias: (choices.below(2) == 0).then(|| choices.vector(out)),
            }
        }
        (3, _) => {
            let channels = shape.channels();
            let var = choices.vector(channels).mapv(|v| v.abs() + 0.5);
            let [gamma, beta, mean] = [0; 3].map(|_| choices.vector(channels));
            LayerOp::BatchNorm { gamma, beta, mean, var, eps: 1e-3 }
        }
        (4, _) => LayerOp::Flatten,
        (5, _) => [LayerOp::Identity, LayerOp::Dropout][choices.below(2)].clone(),
        _ => {
            let rows = if choices.below(2) == 0 { 1 } else { shape.channels() };
            let length = 2 + choices.below(3);
            let mut row = || (0..length).map(|_| f64::from(0.3 * choices.number()) + 1e-3).collect();
            LayerOp::Polynomial { coefficients: (0..rows).map(|_| row()).collect(), inputs: None }
        }
    }
}

/// A network that these bytes decide: layers and joins of any values that are there, and at the end
/// one dense layer on all that nobody has read.
fn random_network(bytes: &[u8], seed: u64) -> Network {
    let mut choices = Choices(bytes.iter(), Box::new(noise(seed)));
    let input =
        InputSpec { shape: [1 + choices.below(4), 1 + choices.below(7), 1 + choices.below(7)], range: [-1.0, 1.0] };
    let [channels, height, width] = input.shape;
    let mut shapes = vec![Shape::Image { channels, height, width }];
    let mut layers: Vec<LayerSpec> = Vec::new();
    let source = |value: usize| if value == 0 { Source::Input } else { Source::Layer(value - 1) };
    let add = |op: LayerOp, values: Vec<usize>, shapes: &mut Vec<Shape>, layers: &mut Vec<LayerSpec>| {
        let name = format!("{}{}", op.kind(), layers.len());
        let inputs: Vec<Source> = values.iter().map(|&value| source(value)).collect();
        shapes.push(shape_of(&op, &values.iter().map(|&value| shapes[value]).collect::<Vec<_>>()));
        layers.push(LayerSpec::new(&name, op, inputs));
    };
    for _ in 0..choices.below(12) {
        let first = choices.below(shapes.len());
        let small = |value: usize| shapes[value].len() <= 2000;
        let join = if small(first) { choices.below(3) } else { 2 };
        let beside = |shape: Shape| match (shape, shapes[first], join) {
            (Shape::Image { height: a, width: b, .. }, Shape::Image { height: c, width: d, .. }, 1) => (a, b) == (c, d),
            (Shape::Flat(_), Shape::Flat(_), 1) => true,
            _ => shape == shapes[first],
        };
        let fitting: Vec<usize> =
            (0..shapes.len()).filter(|&value| beside(shapes[value]) && small(value) || value == first).collect();
        let others: Vec<usize> = (0..1 + choices.below(2)).map(|_| fitting[choices.below(fitting.len())]).collect();
        let op = match join {
            0 => LayerOp::Add,
            1 => LayerOp::Concat,
            _ => layer_on(shapes[first], &mut choices),
        };
        let values = if join == 2 { vec![first] } else { [vec![first], others].concat() };
        add(op, values, &mut shapes, &mut layers);
    }
    let read: Vec<Source> = layers.iter().flat_map(|layer| layer.inputs.clone()).collect();
    let mut ends: Vec<usize> = (0..shapes.len()).filter(|&value| !read.contains(&source(value))).collect();
    for end in &mut ends {
        if matches!(shapes[*end], Shape::Image { .. }) {
            add(LayerOp::Flatten, vec![*end], &mut shapes, &mut layers);
            *end = shapes.len() - 1;
        }
    }
    if ends.len() > 1 {
        add(LayerOp::Concat, ends, &mut shapes, &mut layers);
    }
    let len = shapes.last().unwrap().len();
    let scale = 1.0 / (len as f32).sqrt();
    let weight = Array2::from_shape_simple_fn((3, len), || choices.number() * scale);
    add(LayerOp::Dense { weight, bias: None }, vec![shapes.len() - 1], &mut shapes, &mut layers);
    let net = Network::new(NetworkSpec::new("random", "A random graph", input, layers)).unwrap();
    let found: Vec<Shape> = net.layers.iter().map(|layer| layer.output_shape).collect();
    assert_eq!(found, shapes[1..]);
    net
}

/// Shape of a layer's output, counted window by window.
fn shape_of(op: &LayerOp, operands: &[Shape]) -> Shape {
    let along = |size: usize, extent: usize, stride: usize| (0..).take_while(|i| i * stride + extent <= size).count();
    match (op, operands[0]) {
        (
            LayerOp::Conv2d { weight, stride, padding: Padding { before, after }, dilation, .. },
            Shape::Image { height, width, .. },
        ) => {
            let (channels, _, rows, columns) = weight.dim();
            let extent = |kernel: usize, dilation: usize| (kernel - 1) * dilation + 1;
            Shape::Image {
                channels,
                height: along(height + before[0] + after[0], extent(rows, dilation[0]), stride[0]),
                width: along(width + before[1] + after[1], extent(columns, dilation[1]), stride[1]),
            }
        }
        (
            LayerOp::AvgPool2d { kernel, stride } | LayerOp::SumPool2d { kernel, stride },
            Shape::Image { channels, height, width },
        ) => Shape::Image {
            channels,
            height: along(height, kernel[0], stride[0]),
            width: along(width, kernel[1], stride[1]),
        },
        (LayerOp::GlobalAvgPool2d, Shape::Image { channels, .. }) => Shape::Image { channels, height: 1, width: 1 },
        (LayerOp::Concat, Shape::Image { height, width, .. }) => {
            let channels = operands.iter().map(Shape::channels).sum();
            Shape::Image { channels, height, width }
        }
        (LayerOp::Concat, Shape::Flat(_)) => Shape::Flat(operands.iter().map(Shape::len).sum()),
        (LayerOp::Flatten, shape) => Shape::Flat(shape.len()),
        (LayerOp::Dense { weight, .. }, _) => Shape::Flat(weight.nrows()),
        (_, shape) => shape,
    }
}

fn images(net: &Network, count: usize, seed: u64) -> Array4<f32> {
    let [channels, height, width] = net.input.shape;
    let values = noise(seed).take(count * channels * height * width).collect();
    Array4::from_shape_vec((count, channels, height, width), values).unwrap()
}

/// Every layer's values against the definition, from the values that the layer read.
fn assert_layers_agree(net: &Network, images: &Array4<f32>) {
    let mut seen: Vec<Array2<f32>> = Vec::new();
    plain::visit(net, images.view(), &mut |values| seen.push(values.clone()));
    assert_eq!(seen.len(), net.layers.len() + 1);
    assert_eq!(seen[0].iter().collect::<Vec<_>>(), images.iter().collect::<Vec<_>>());
    assert_eq!(seen.last().unwrap(), &plain::logits(net, images.view()));
    for (layer, output) in net.layers.iter().zip(&seen[1..]) {
        for image in 0..images.len_of(Axis(0)) {
            let operands: Vec<Vec<f64>> = layer
                .inputs
                .iter()
                .map(|source| seen[source.value()].row(image).iter().map(|&v| v.into()).collect())
                .collect();
            let largest = operands.iter().flatten().fold(1.0f64, |largest, v| largest.max(v.abs()));
            let degree = match &layer.op {
                LayerOp::Polynomial { coefficients, .. } => coefficients[0].len() as i32 - 1,
                _ => 1,
            };
            let expected = oracle::layer_output(layer, &operands.iter().map(Vec::as_slice).collect::<Vec<_>>());
            assert_eq!(expected.len(), output.ncols());
            for (&found, expected) in output.row(image).iter().zip(expected) {
                let error = (f64::from(found) - expected).abs();
                assert!(error <= 1e-5 * largest.powi(degree), "{}: {found} is not {expected}", layer.name);
            }
        }
    }
}

fn calibration() -> Calibration {
    Calibration {
        images: Array2::from_elem((1, 1), 7),
        scores: Array2::zeros((1, 3)),
        means: [("a".to_owned(), Array1::zeros(1))].into(),
        margins: vec![0.5],
        gains: [("a".to_owned(), SourceGains { margin: vec![1.0], score: vec![0.5] })].into(),
        places: vec!["a".into()],
        growth: Array2::ones((1, 1)),
    }
}

/// All but the digest, which covers the text of the description.
fn contents(net: &Network) -> String {
    format!("{:?}", Network { digest: [0; 32], ..net.clone() })
}

/// Written and read again.
fn reread(net: &Network) -> Network {
    let calibration = net.calibration.as_ref().map(|calibration| calibration.to_bytes(net));
    let name = calibration.is_some().then_some("random.calibration.safetensors");
    let text = net.description("Written by a test.", name);
    Network::parse("random.toml", &text, &net.weight_file(), calibration.as_deref())
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs_agree_with_the_definitions(bytes in prop::collection::vec(any::<u8>(), 0..160), seed in any::<u64>()) {
        let net = random_network(&bytes, seed);
        assert_layers_agree(&net, &images(&net, 3, seed ^ 1));
        // Every value but the last is released once, by its last reader.
        let mut released: Vec<usize> = Vec::new();
        for (index, sources) in net.released().iter().enumerate() {
            for source in sources {
                prop_assert!(net.layers[index].inputs.contains(source));
                prop_assert!(net.layers[index + 1..].iter().all(|layer| !layer.inputs.contains(source)));
                released.push(source.value());
            }
        }
        released.sort_unstable();
        prop_assert_eq!(released, (0..net.layers.len()).collect::<Vec<_>>());
    }

    #[test]
    fn random_graphs_are_written_and_read_again(bytes in prop::collection::vec(any::<u8>(), 0..160), seed in any::<u64>()) {
        let mut net = random_network(&bytes, seed);
        prop_assert_eq!(contents(&net), contents(&reread(&net)));
        let fingerprint = net.fingerprint;
        let images = images(&net, 40, seed ^ 2);
        measure::measure(&mut net, images.view());
        net.calibration = Some(calibration());
        let again = reread(&net);
        prop_assert_eq!(contents(&net), contents(&again));
        prop_assert_eq!(again.fingerprint, fingerprint);
        assert_measured(&again, &images);
    }
}

/// Ranges and histograms are those of the values that a layer reads, channel by channel.
fn assert_measured(net: &Network, images: &Array4<f32>) {
    let mut seen: Vec<Array2<f32>> = Vec::new();
    plain::visit(net, images.view(), &mut |values| seen.push(values.clone()));
    for (index, layer) in net.layers.iter().enumerate() {
        let operands: Vec<f64> =
            layer.inputs.iter().flat_map(|source| seen[source.value()].iter().map(|&v| v.into())).collect();
        let rms = (operands.iter().map(|v| v * v).sum::<f64>() / operands.len() as f64).sqrt();
        let stated = layer.input_rms.unwrap();
        assert!((stated - rms).abs() <= 1e-9 * (1.0 + rms), "{}: {stated} is not {rms}", layer.name);
        let largest = seen[index + 1].iter().fold(f64::MIN, |largest, &v| largest.max(v.into()));
        assert!(layer.output_range.unwrap()[1] >= largest);
        let LayerOp::Polynomial { coefficients, inputs } = &layer.op else { continue };
        let inputs = inputs.as_ref().unwrap();
        assert_eq!(inputs.histogram.counts.iter().sum::<u64>(), operands.len() as u64);
        let channels = if coefficients.len() == 1 { 0 } else { coefficients.len() };
        assert_eq!(inputs.channels.len(), channels);
        let values = &seen[layer.inputs[0].value()];
        for (channel, histogram) in inputs.channels.iter().enumerate() {
            let per_channel = values.ncols() / channels;
            let own =
                values.slice_axis(Axis(1), ndarray::Slice::from(channel * per_channel..(channel + 1) * per_channel));
            let mut counts = [0u64; CHANNEL_BINS];
            let least = own.iter().fold(f64::MAX, |least, &v| least.min(v.into()));
            assert_eq!(histogram.low, least);
            for &v in own.iter() {
                let share = (f64::from(v) - histogram.low) / (histogram.high - histogram.low);
                assert!((0.0..=1.0).contains(&share));
                counts[((share * CHANNEL_BINS as f64) as usize).min(CHANNEL_BINS - 1)] += 1;
            }
            assert_eq!(histogram.counts, counts);
        }
    }
}

// ---------------------------------------------------------------- shipped networks

/// Calibrations belong to these fingerprints.
#[test]
fn fingerprints_of_shipped_networks_are_known() {
    for (name, expected) in [
        ("mnist-1", "148233675d541525c6606aa93c9129b19acc9a8c1ad8749ab9cffa157ab770ed"),
        ("mnist-2", "4c15014fc43cc2b7a9162e3776c939846246a4955b5c2e04accad1814c4cb587"),
        #[cfg(feature = "every-network")]
        ("cryptonets", "ebc536d025eeddf814cd591801d344973c7d3c4a505d094d9b14af2d84d88cf7"),
        #[cfg(feature = "every-network")]
        ("secureml", "8b7bb55ed62b7ef738347c7a7050e59ae7396c66e66e0f33bf8e32103cd3c90f"),
        #[cfg(feature = "every-network")]
        ("mnist-2-sigmoid", "f82011efb3e5e2d94a7555550d2326570bf024d3987e7585fdd840bb01d251fc"),
    ] {
        let net = zoo::load(name).unwrap();
        assert_eq!(net.fingerprint.map(|byte| format!("{byte:02x}")).concat(), expected, "{name}");
    }
}

/// A network made in memory has the weight file and the fingerprint of the same network from files.
#[test]
fn shipped_networks_made_in_memory_are_the_same() {
    for name in zoo::names() {
        let net = zoo::load(name).unwrap();
        assert_eq!(net.weight_file(), zoo::weights(name, &net).unwrap(), "{name}");
        let again = Network::new(spec_of(&net)).unwrap();
        assert_eq!(again.fingerprint, net.fingerprint, "{name}");
    }
}

fn spec_of(net: &Network) -> NetworkSpec {
    let layers = net.layers.iter().cloned().map(|layer| LayerSpec {
        input_rms: layer.input_rms,
        output_range: layer.output_range,
        ..LayerSpec::new(&layer.name, layer.op, layer.inputs)
    });
    NetworkSpec::new(&net.name, &net.title, net.input, layers.collect())
}

// ---------------------------------------------------------------- files

const GRAPH: &str = r#"
format = 1
name = "graph"
title = "A small residual network"
weights = "graph.safetensors"

[input]
shape = [2, 4, 5]
range = [-1.0, 1.0]

[[layer]]
name = "conv"
kind = "conv2d"
out_channels = 4
kernel = [3, 3]
padding = [1, 1, 1, 1]
groups = 2

[[layer]]
name = "act"
kind = "polynomial"

[[layer]]
name = "wide"
kind = "conv2d"
out_channels = 4
kernel = [2, 3]
padding = [0, 2, 1, 0]
dilation = [1, 1]

[[layer]]
name = "skip"
kind = "add"
inputs = ["wide", "act"]

[[layer]]
name = "both"
kind = "concat"
inputs = ["input", "skip"]

[[layer]]
name = "mean"
kind = "global_avg_pool2d"

[[layer]]
name = "flat"
kind = "flatten"

[[layer]]
name = "fc"
kind = "dense"
out_features = 3
"#;

fn tensors() -> Tensors {
    common::random_tensors([
        ("conv.weight", [4, 1, 3, 3].as_slice()),
        ("act.coefficients", &[4, 3]),
        ("wide.weight", &[4, 4, 2, 3]),
        ("wide.bias", &[4]),
        ("fc.weight", &[3, 6]),
    ])
}

#[test]
fn a_description_of_a_graph_is_read_completely() {
    let net = parse(GRAPH, &tensors()).unwrap();
    let image = |channels| Shape::Image { channels, height: 4, width: 5 };
    assert_eq!(net.layers[0].output_shape, image(4));
    assert_eq!(net.layers[0].multiply_adds(), 4 * 20 * 9);
    assert_eq!(net.layers[3].inputs, [Source::Layer(2), Source::Layer(1)]);
    assert_eq!(net.layers[4].inputs, [Source::Input, Source::Layer(3)]);
    assert_eq!((net.layers[4].output_shape, net.shape(Source::Layer(4))), (image(6), image(6)));
    assert_eq!((net.shape(Source::Input), net.source_name(Source::Input)), (image(2), "input"));
    assert_eq!(net.source_name(Source::Layer(3)), "skip");
    assert_eq!(net.layers[5].output_shape, Shape::Image { channels: 6, height: 1, width: 1 });
    let LayerOp::Polynomial { coefficients, .. } = &net.layers[1].op else { panic!() };
    let expected: Vec<f64> = tensors()["act.coefficients"].1.iter().map(|&c| c.into()).collect();
    assert_eq!((coefficients.len(), coefficients.concat()), (4, expected));
    let LayerOp::Conv2d { padding, .. } = &net.layers[2].op else { panic!() };
    assert_eq!(*padding, Padding { before: [0, 2], after: [1, 0] });
    assert_layers_agree(&net, &images(&net, 5, 3));

    // One number stands for both directions, two for the same padding on opposite sides.
    let same = GRAPH.replace("dilation = [1, 1]", "dilation = 1").replace("padding = [1, 1, 1, 1]", "padding = [1, 1]");
    assert_eq!(contents(&parse(&same, &tensors()).unwrap()), contents(&net));
}

/// The example of docs/networks.md is a network.
#[test]
fn the_documented_example_is_read() {
    let document = include_str!("../../docs/networks.md");
    let text = document.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let tensors = common::random_tensors([
        ("conv1.weight", [8, 1, 3, 3].as_slice()),
        ("conv1.bias", &[8]),
        ("act1.coefficients", &[8, 3]),
        ("conv2.weight", &[8, 1, 3, 3]),
        ("fc.weight", &[10, 8]),
    ]);
    let net = parse(text, &tensors).unwrap();
    assert_eq!((net.classes(), net.layers[0].output_shape.len()), (10, 8 * 14 * 14));
    assert_layers_agree(&net, &images(&net, 2, 4));
}

/// Whatever changes what the network computes changes its fingerprint, and nothing else does.
#[test]
fn the_fingerprint_covers_the_graph() {
    let fingerprint = |text: &str| parse(text, &tensors()).unwrap().fingerprint;
    let known = fingerprint(GRAPH);
    assert_eq!(known, fingerprint(&GRAPH.replace("A small", "Another")));
    for (from, to) in [
        ("[\"wide\", \"act\"]", "[\"act\", \"wide\"]"),
        ("[\"wide\", \"act\"]", "[\"wide\", \"act\", \"act\"]"),
        ("padding = [0, 2, 1, 0]", "padding = [1, 2, 0, 0]"),
        ("padding = [0, 2, 1, 0]", "padding = [0, 0, 1, 2]"),
        ("padding = [0, 2, 1, 0]\ndilation = [1, 1]", "padding = [0, 2, 2, 0]\ndilation = [2, 1]"),
        ("kind = \"global_avg_pool2d\"", "kind = \"avg_pool2d\"\nkernel = [4, 5]"),
    ] {
        assert!(GRAPH.contains(from), "{from}");
        assert_ne!(known, fingerprint(&GRAPH.replace(from, to)), "{to}");
    }
    // The same numbers as one row of a line of layers and as rows of channels.
    let line = |rows: Vec<Vec<f64>>| {
        let weight = Array2::from_shape_fn((2, 2), |(i, j)| (i + j) as f32);
        let layers = vec![
            LayerSpec::new("flat", LayerOp::Flatten, vec![Source::Input]),
            LayerSpec::new("act", LayerOp::Polynomial { coefficients: rows, inputs: None }, vec![Source::Layer(0)]),
            LayerSpec::new("fc", LayerOp::Dense { weight, bias: None }, vec![Source::Layer(1)]),
        ];
        Network::new(spec([2, 1, 1], layers)).unwrap().fingerprint
    };
    assert_ne!(line(vec![vec![0.5, 1.0, 0.5, 1.0]]), line(vec![vec![0.5, 1.0], vec![0.5, 1.0]]));
}

/// (text to replace, replacement, what the error says)
const BAD_TEXT: &[(&str, &str, &str)] = &[
    (
        "name = \"mean\"",
        "name = \"input\"",
        "layer `input`: no layer may be called `input`, which stands for the image",
    ),
    (
        "[\"wide\", \"act\"]",
        "[\"wide\", \"acts\"]",
        "layer `skip`: there is no layer `acts`; an operand is `input` (the image) or an earlier layer, such as wide, act",
    ),
    ("[\"wide\", \"act\"]", "[\"wide\", \"skip\"]", "layer `skip`: layer `skip` is not before this layer"),
    ("[\"wide\", \"act\"]", "[\"wide\", \"both\"]", "layer `skip`: layer `both` is not before this layer"),
    (
        "[\"wide\", \"act\"]",
        "[\"wide\"]",
        "layer `skip`: a layer of kind add takes 2 to 64 operands, but `inputs` has 1",
    ),
    ("[\"wide\", \"act\"]", "[]", "takes 2 to 64 operands, but `inputs` has 0"),
    ("inputs = [\"wide\", \"act\"]", "", "layer `skip`: field `inputs` is missing; it is names of layers"),
    ("[\"wide\", \"act\"]", "\"wide\"", "field `inputs` is the string \"wide\"; expected names of layers"),
    ("[\"wide\", \"act\"]", "[\"wide\", 3]", "field `inputs` is an array of 2 items; expected names of layers"),
    (
        "kind = \"flatten\"",
        "kind = \"flatten\"\ninputs = [\"mean\", \"both\"]",
        "layer `flat`: a layer of kind flatten takes one operand, but `inputs` has 2",
    ),
    (
        "[\"wide\", \"act\"]",
        "[\"wide\", \"input\"]",
        "layer `skip`: the operands of a layer of kind add must be the same shape, but `wide` is 4 x 4 x 5 and \
         `input` is 2 x 4 x 5",
    ),
    (
        "padding = [0, 2, 1, 0]",
        "padding = [0, 2, 1, 1]",
        "layer `skip`: the operands of a layer of kind add must be the same shape, but `wide` is 4 x 4 x 6 and \
         `act` is 4 x 4 x 5",
    ),
    (
        "kind = \"global_avg_pool2d\"",
        "kind = \"identity\"\n[[layer]]\nname = \"early\"\nkind = \"flatten\"\n[[layer]]\nname = \"mixed\"\n\
         kind = \"concat\"\ninputs = [\"mean\", \"early\"]",
        "layer `mixed`: the operands of a layer of kind concat must be images of the same height and width, or vectors, \
         but `mean` is 6 x 4 x 5 and `early` is 120 values",
    ),
    (
        "name = \"fc\"\nkind = \"dense\"",
        "name = \"idle\"\nkind = \"identity\"\n[[layer]]\nname = \"fc\"\nkind = \"dense\"\ninputs = [\"flat\"]",
        "layer `idle`: no layer uses its output, and it is not the last layer",
    ),
    (
        "kind = \"flatten\"",
        "kind = \"flatten\"\n[[layer]]\nname = \"late\"\nkind = \"global_avg_pool2d\"",
        "layer `late`: a global_avg_pool2d layer needs an image",
    ),
    ("groups = 2", "groups = 3", "layer `conv`: `groups` is 3; it must divide the 2 input and the 4 output channels"),
    ("groups = 2", "groups = 0", "field `groups` is 0; every dimension must be 1 to 65536"),
    ("groups = 2", "groups = 1", "tensor `conv.weight` has shape [4, 1, 3, 3]; this layer needs [4, 2, 3, 3]"),
    ("padding = [0, 2, 1, 0]", "padding = [0, 2, 1]", "field `padding` is an array of 3 items; expected two integers"),
    ("padding = [0, 2, 1, 0]", "padding = [0, 2, 1, -1]", "field `padding` is -1; every dimension must be 0 to 65536"),
    ("dilation = [1, 1]", "dilation = 0", "field `dilation` is 0; every dimension must be 1"),
    ("dilation = [1, 1]", "dilation = [1, 65537]", "field `dilation` is 65537"),
    ("dilation = [1, 1]", "dilation = \"2\"", "field `dilation` is the string \"2\"; expected an integer or two"),
    (
        "dilation = [1, 1]",
        "dilation = [65536, 1]",
        "layer `wide`: kernel 2 x 3 with dilation 65536 x 1 is larger than its input 4 x 4 x 5 with padding \
         [top 0, left 2, bottom 1, right 0]",
    ),
    (
        "padding = [0, 2, 1, 0]",
        "padding = [0, 65536, 0, 65536]",
        "layer `wide`: 4 x 3 x 131075 is too large; at most 262144 values",
    ),
    (
        "name = \"act\"\nkind = \"polynomial\"",
        "name = \"act\"\nkind = \"polynomial\"\ncoefficients = [0.0, 1.0, 2.0]",
        "no layer uses the tensors act.coefficients",
    ),
];

#[test]
fn bad_graphs_are_refused_with_their_place_and_cause() {
    for &(from, to, fragment) in BAD_TEXT {
        assert!(GRAPH.contains(from), "the example has no {from:?}");
        let error = parse(&GRAPH.replacen(from, to, 1), &tensors()).expect_err(to).to_string();
        assert!(error.contains(fragment), "{from:?} -> {to:?}: {error:?} lacks {fragment:?}");
    }
}

#[test]
fn bad_coefficients_of_channels_are_refused() {
    let refused = |shape: &[usize], change: fn(&mut [f32]), fragment: &str| {
        let mut tensors = tensors();
        let mut values: Vec<f32> = noise(5).take(shape.iter().product()).collect();
        change(&mut values);
        tensors.insert("act.coefficients".into(), (shape.to_vec(), values));
        let error = parse(GRAPH, &tensors).expect_err(fragment).to_string();
        assert!(error.contains("layer `act`") && error.contains(fragment), "{error:?} lacks {fragment:?}");
    };
    for shape in [&[3, 3][..], &[12], &[4, 65], &[4, 1], &[4, 0]] {
        let fragment = format!(
            "tensor `act.coefficients` has shape {shape:?}; this layer needs 4 rows, one per channel, of 2 to 64 numbers"
        );
        refused(shape, |_| (), &fragment);
    }
    refused(&[4, 3], |values| values[7] = f32::NAN, "the coefficients of channel 2 are");
    let last = |values: &mut [f32]| values.iter_mut().skip(2).step_by(3).for_each(|c| *c = 0.0);
    refused(&[4, 3], last, "the coefficients of degree 2 are zero in every channel; leave them out");

    // A channel may have a lower degree than others.
    let mut tensors = tensors();
    tensors.get_mut("act.coefficients").unwrap().1[5] = 0.0;
    parse(GRAPH, &tensors).unwrap();
    tensors.remove("act.coefficients");
    let error = parse(GRAPH, &tensors).unwrap_err().to_string();
    assert!(error.contains("layer `act`: field `coefficients` is missing; it is numbers"), "{error}");
}

#[test]
fn histograms_of_channels_are_in_the_calibration_file_and_checked() {
    let mut net = parse(GRAPH, &tensors()).unwrap();
    let images = images(&net, 40, 9);
    measure::measure(&mut net, images.view());
    let text = net.description("Written by a test.", Some("c.safetensors"));
    let read = |bytes: &[u8]| Network::parse("graph.toml", &text, &net.weight_file(), Some(bytes));
    let good = calibration().to_bytes(&net);
    assert_eq!(good, calibration().to_bytes(&net));
    let again = read(&good).unwrap();
    assert_eq!(format!("{:?}", again.layers), format!("{:?}", net.layers));
    assert_measured(&again, &images);

    // Without histograms the network is read, and they can be measured alone.
    let bare = |change: &dyn Fn(&mut Inputs)| {
        let mut net = net.clone();
        let LayerOp::Polynomial { inputs: Some(inputs), .. } = &mut net.layers[1].op else { panic!() };
        change(inputs);
        net
    };
    let mut without = read(&calibration().to_bytes(&bare(&|inputs| inputs.channels.clear()))).unwrap();
    assert_ne!(format!("{:?}", without.layers), format!("{:?}", again.layers));
    measure::measure_channels(&mut without, images.view());
    assert_eq!(format!("{:?}", without.layers), format!("{:?}", again.layers));

    let refused = |bytes: &[u8], fragment: &str| {
        let error = read(bytes).expect_err(fragment).to_string();
        assert!(error.contains(fragment) && error.contains("measured again"), "{error:?} lacks {fragment:?}");
    };
    let changed = |change: &dyn Fn(&mut Inputs)| calibration().to_bytes(&bare(change));
    refused(&changed(&|inputs| drop(inputs.channels.pop())), "tensor `histograms/act/ranges` is F64 of shape [3, 2]");
    refused(&changed(&|inputs| inputs.channels[2].high = f64::NAN), "channel 2 before layer `act`");
    refused(&changed(&|inputs| inputs.channels[1].high = inputs.channels[1].low), "channel 1 before layer `act`");
    refused(&changed(&|inputs| inputs.channels[3].counts = vec![0; CHANNEL_BINS]), "64 bins with 0 values");
    refused(&changed(&|inputs| inputs.channels[3].counts = vec![u64::MAX; CHANNEL_BINS]), "a histogram needs");
    let named = String::from_utf8_lossy(&good).contains(r#"\"histograms\":[\"act\"]"#);
    assert!(named, "the header names the layer");
    let other = |name: &str| {
        let (from, to) = (br#"\"histograms\":[\"act\"]"#.as_slice(), format!(r#"\"histograms\":[\"{name}\"]"#));
        let at = good.windows(from.len()).position(|window| window == from).unwrap();
        [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat()
    };
    refused(&other("acx"), "it has histograms before `acx`, which is no layer");
    (0..good.len()).step_by(61).for_each(|end| drop(read(&good[..end]).expect_err("cut short")));

    let stateless = GRAPH.replace("weights =", "calibration = \"c.safetensors\"\nweights =");
    let error = Network::parse("graph.toml", &stateless, &net.weight_file(), Some(&good)).unwrap_err().to_string();
    assert!(
        error.contains("before layer `act`, which has no coefficients per channel or states no histogram"),
        "{error}"
    );
}

// ---------------------------------------------------------------- networks made in memory

fn spec(shape: [usize; 3], layers: Vec<LayerSpec>) -> NetworkSpec {
    NetworkSpec::new("memory", "Made in memory", InputSpec { shape, range: [0.0, 1.0] }, layers)
}

/// A network on images of two channels, four rows and five columns, and how to spoil it.
fn residual() -> NetworkSpec {
    let net = parse(GRAPH, &tensors()).unwrap();
    NetworkSpec { layers: spec_of(&net).layers, ..spec([2, 4, 5], Vec::new()) }
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

// ---------------------------------------------------------------- hostile files

fn in_memory(shape: [usize; 3], layers: Vec<(LayerOp, Vec<Source>)>) -> Result<Network, String> {
    let layers = layers.into_iter().enumerate();
    let layers = layers.map(|(index, (op, inputs))| LayerSpec::new(&format!("l{index}"), op, inputs)).collect();
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
