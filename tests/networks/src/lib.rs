//! Small random networks with real calibrations, for tests.
#![forbid(unsafe_code)]

use cryptodl_network::measure::measure;
use cryptodl_network::{InputSpec, Layer, LayerOp, Network, NetworkSpec, Padding, Source};
use cryptodl_program::SplitMix;
use ndarray::{Array1, Array2, Array4, ArrayView2};

/// Images that calibrations are measured on.
const IMAGES: usize = 64;

/// Uniform in [-1, 1).
pub fn random(generator: &mut SplitMix) -> f32 {
    (2.0 * generator.unit() - 1.0) as f32
}

/// Images `[image][channel][row][column]` with values in [0, 1).
pub fn images(count: usize, shape: [usize; 3], seed: u64) -> Array4<f32> {
    let mut generator = SplitMix(seed);
    Array4::from_shape_simple_fn((count, shape[0], shape[1], shape[2]), || random(&mut generator).abs())
}

/// The same, `[image][pixel]`.
pub fn rows(images: &Array4<f32>) -> ArrayView2<'_, f32> {
    let count = images.shape()[0];
    images.view().into_shape_with_order((count, images.len() / count)).expect("standard order")
}

/// A convolution with random weights and biases, `[output channels, input channels, side of the kernel]`, one group.
pub fn conv(generator: &mut SplitMix, [out, input, k]: [usize; 3], stride: usize, padding: usize) -> LayerOp {
    let bound = 1.0 / ((input * k * k) as f32).sqrt();
    LayerOp::Conv2d {
        weight: Array4::from_shape_simple_fn((out, input, k, k), || random(generator) * bound),
        bias: Some(Array1::from_shape_simple_fn(out, || random(generator) * 0.5)),
        stride: [stride; 2],
        padding: Padding::even([padding; 2]),
        dilation: [1; 2],
        groups: 1,
    }
}

/// A dense layer with random weights and biases.
pub fn dense(generator: &mut SplitMix, out: usize, input: usize) -> LayerOp {
    let bound = 1.0 / (input as f32).sqrt();
    LayerOp::Dense {
        weight: Array2::from_shape_simple_fn((out, input), || random(generator) * bound),
        bias: Some(Array1::from_shape_simple_fn(out, || random(generator) * 0.5)),
    }
}

/// A batch-norm with random statistics.
pub fn batch_norm(generator: &mut SplitMix, channels: usize) -> LayerOp {
    let mut draw = |offset: f32| Array1::from_shape_simple_fn(channels, || offset + 0.5 * random(generator));
    LayerOp::BatchNorm { gamma: draw(1.0), beta: draw(0.0), mean: draw(0.0), var: draw(1.0), eps: 1e-5 }
}

/// Average pooling of squares that do not overlap.
pub fn pool(k: usize) -> LayerOp {
    LayerOp::AvgPool2d { kernel: [k; 2], stride: [k; 2] }
}

/// An activation, one for all channels; the constant term first.
pub fn polynomial(coefficients: &[f64]) -> LayerOp {
    LayerOp::Polynomial { coefficients: vec![coefficients.to_vec()], inputs: None }
}

/// A line of `ops`, calibrated on random images in [0, 1].
pub fn network(input: [usize; 3], ops: Vec<LayerOp>) -> Network {
    calibrated(uncalibrated(input, ops))
}

/// The same without calibration.
pub fn uncalibrated(input: [usize; 3], ops: Vec<LayerOp>) -> Network {
    let layer = |(i, op): (usize, LayerOp)| Layer::new(&format!("{}{i}", op.kind()), op, vec![Source::before(i)]);
    checked(input, ops.into_iter().enumerate().map(layer).collect())
}

/// A graph of named layers with their operands, of which `input` is the image, calibrated likewise.
pub fn graph(input: [usize; 3], layers: Vec<(&str, LayerOp, &[&str])>) -> Network {
    let names: Vec<&str> = layers.iter().map(|(name, ..)| *name).collect();
    let source = |name: &&str| match *name {
        "input" => Source::Input,
        name => Source::Layer(names.iter().position(|other| *other == name).expect("a layer of this name")),
    };
    let layer =
        |(name, op, inputs): (&str, LayerOp, &[&str])| Layer::new(name, op, inputs.iter().map(source).collect());
    calibrated(checked(input, layers.into_iter().map(layer).collect()))
}

fn checked(shape: [usize; 3], layers: Vec<Layer>) -> Network {
    let input = InputSpec { shape, range: [0.0, 1.0] };
    let spec = NetworkSpec::new("random", "a random network", input, layers);
    Network::new(spec).unwrap_or_else(|error| panic!("{error}"))
}

fn calibrated(mut network: Network) -> Network {
    let shape = network.input.shape;
    measure(&mut network, images(IMAGES, shape, 7).view());
    network
}

/// Coefficients `[channel]` of degree 2 or more that differ and keep values tame; signs of both kinds where `signs` says so.
pub fn per_channel(generator: &mut SplitMix, channels: usize, degree: usize, signs: bool) -> LayerOp {
    let row = |_: usize| {
        let mut row: Vec<f64> = (0..=degree).map(|i| f64::from(random(generator)) * 0.3 / (i + 1) as f64).collect();
        let leading = 0.1 + 0.1 * f64::from(random(generator)).abs();
        row[degree] = if signs && random(generator) < 0.0 { -leading } else { leading };
        row.into_iter().map(|c| f64::from(c as f32)).collect()
    };
    LayerOp::Polynomial { coefficients: (0..channels).map(row).collect(), inputs: None }
}
