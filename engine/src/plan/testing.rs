//! Small random networks with real calibrations, for tests.

use cryptodl_models::measure::measure;
use cryptodl_models::network::{InputSpec, Layer, LayerOp, Network, Padding, Shape, Source};
use ndarray::{Array1, Array2, Array4, ArrayView2};

use super::SplitMix;

/// Images that calibrations are measured on.
const IMAGES: usize = 64;

/// Uniform in [-1, 1).
pub fn random(generator: &mut SplitMix) -> f32 {
    (2.0 * generator.unit() - 1.0) as f32
}

pub fn images(count: usize, shape: [usize; 3], seed: u64) -> Array4<f32> {
    let mut generator = SplitMix(seed);
    Array4::from_shape_simple_fn((count, shape[0], shape[1], shape[2]), || random(&mut generator).abs())
}

pub fn rows(images: &Array4<f32>) -> ArrayView2<'_, f32> {
    let count = images.shape()[0];
    images.view().into_shape_with_order((count, images.len() / count)).expect("standard order")
}

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

pub fn dense(generator: &mut SplitMix, out: usize, input: usize) -> LayerOp {
    let bound = 1.0 / (input as f32).sqrt();
    LayerOp::Dense {
        weight: Array2::from_shape_simple_fn((out, input), || random(generator) * bound),
        bias: Some(Array1::from_shape_simple_fn(out, || random(generator) * 0.5)),
    }
}

pub fn batch_norm(generator: &mut SplitMix, channels: usize) -> LayerOp {
    let mut draw = |offset: f32| Array1::from_shape_simple_fn(channels, || offset + 0.5 * random(generator));
    LayerOp::BatchNorm { gamma: draw(1.0), beta: draw(0.0), mean: draw(0.0), var: draw(1.0), eps: 1e-5 }
}

pub fn pool(k: usize) -> LayerOp {
    LayerOp::AvgPool2d { kernel: [k; 2], stride: [k; 2] }
}

pub fn polynomial(coefficients: &[f64]) -> LayerOp {
    LayerOp::Polynomial { coefficients: vec![coefficients.to_vec()], inputs: None }
}

/// A network of `ops`, calibrated on random images in [0, 1].
pub fn network(input: [usize; 3], ops: Vec<LayerOp>) -> Network {
    let [channels, height, width] = input;
    let mut shape = Shape::Image { channels, height, width };
    let mut layers = Vec::new();
    for (i, op) in ops.into_iter().enumerate() {
        let output_shape = output_shape(&op, shape);
        let name = format!("{}{i}", op.kind());
        let inputs = vec![Source::before(i)];
        layers.push(Layer { name, op, inputs, input_rms: None, output_range: None, input_shape: shape, output_shape });
        shape = output_shape;
    }
    let mut network = Network {
        name: "random".into(),
        title: "a random network".into(),
        dataset: None,
        input: InputSpec { shape: input, range: [0.0, 1.0] },
        weights: "random.safetensors".into(),
        accuracy: None,
        tolerance: None,
        layers,
        output: None,
        calibration: None,
        fingerprint: [0; 32],
        digest: [0; 32],
    };
    measure(&mut network, images(IMAGES, input, 7).view());
    network
}

fn output_shape(op: &LayerOp, shape: Shape) -> Shape {
    let windows = |out: usize, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]| {
        let Shape::Image { height, width, .. } = shape else { panic!("{shape} is no image") };
        Shape::Image {
            channels: out,
            height: (height + 2 * padding[0] - kernel[0]) / stride[0] + 1,
            width: (width + 2 * padding[1] - kernel[1]) / stride[1] + 1,
        }
    };
    match op {
        LayerOp::Conv2d { weight, stride, padding, .. } => {
            windows(weight.dim().0, [weight.dim().2, weight.dim().3], *stride, padding.before)
        }
        LayerOp::AvgPool2d { kernel, stride } | LayerOp::SumPool2d { kernel, stride } => {
            let Shape::Image { channels, .. } = shape else { panic!("{shape} is no image") };
            windows(channels, *kernel, *stride, [0, 0])
        }
        LayerOp::Dense { weight, .. } => Shape::Flat(weight.nrows()),
        LayerOp::Flatten => Shape::Flat(shape.len()),
        _ => shape,
    }
}
