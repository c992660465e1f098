//! Random networks that are graphs: joins, fan-out, concatenation, groups, dilation, uneven padding, coefficients per channel.

use cryptodl_network::measure::measure;
use cryptodl_network::{InputSpec, Layer, LayerOp, Network, NetworkSpec, Padding, Source};
use cryptodl_plan::calibrate;
use cryptodl_program::SplitMix;
use ndarray::{Array1, Array2, Array4};

/// Most activations one after the other.
const DEPTH: usize = 3;
/// Images that calibrations are measured on.
const IMAGES: usize = 64;

/// What networks are drawn with.
struct Draw(SplitMix);

impl Draw {
    fn below(&mut self, count: usize) -> usize {
        (self.0.word() % count as u64) as usize
    }

    /// In [-1, 1).
    fn unit(&mut self) -> f32 {
        (self.0.word() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn convolution(&mut self, [out, input, kernel]: [usize; 3], groups: usize) -> LayerOp {
        let bound = 1.0 / ((input / groups * kernel * kernel) as f32).sqrt();
        let dilation = if kernel > 1 { 1 + self.below(2) } else { 1 };
        let around = (kernel - 1) * dilation;
        let before = [self.below(around + 1), self.below(around + 1)];
        LayerOp::Conv2d {
            weight: Array4::from_shape_simple_fn((out, input / groups, kernel, kernel), || self.unit() * bound),
            bias: Some(Array1::from_shape_simple_fn(out, || self.unit() * 0.3)),
            stride: [1, 1],
            // As large as before, from either side.
            padding: Padding { before, after: before.map(|before| around - before) },
            dilation: [dilation; 2],
            groups,
        }
    }

    /// One polynomial for all channels, or one for each, of signs that may differ.
    fn polynomial(&mut self, channels: usize) -> LayerOp {
        let degree = 2 + self.below(2);
        let (rows, signs) = if self.below(2) == 0 { (1, false) } else { (channels, self.below(2) == 0) };
        let row = |_: usize| {
            let mut row: Vec<f64> = (0..=degree).map(|i| f64::from(self.unit() * 0.3 / (i + 1) as f32)).collect();
            let leading = f64::from(0.1 + 0.1 * self.unit().abs());
            row[degree] = if signs && self.unit() < 0.0 { -leading } else { leading };
            row
        };
        LayerOp::Polynomial { coefficients: (0..rows).map(row).collect(), inputs: None }
    }

    fn normalisation(&mut self, channels: usize) -> LayerOp {
        let mut draw = |offset: f32| Array1::from_shape_simple_fn(channels, || offset + 0.3 * self.unit());
        LayerOp::BatchNorm { gamma: draw(1.0), beta: draw(0.0), mean: draw(0.0), var: draw(1.0), eps: 1e-5 }
    }
}

/// A value of the network that is being made.
#[derive(Clone, Copy)]
struct Value {
    source: Source,
    channels: usize,
    /// Activations before it.
    depth: usize,
    readers: usize,
}

/// A calibrated network on images of 6 x 6 pixels with values in [0, 1]. Equal seeds give equal networks.
pub fn random_graph(seed: u64) -> Network {
    let mut draw = Draw(SplitMix(seed));
    let channels = 1 + draw.below(2);
    let input = InputSpec { shape: [channels, 6, 6], range: [0.0, 1.0] };
    let mut layers: Vec<Layer> = Vec::new();
    let mut values = vec![Value { source: Source::Input, channels, depth: 0, readers: 0 }];
    let mut push = |values: &mut Vec<Value>, op: LayerOp, inputs: &[usize], channels: usize, depth: usize| {
        let sources = inputs.iter().map(|&value| values[value].source).collect();
        inputs.iter().for_each(|&value| values[value].readers += 1);
        layers.push(Layer::new(&format!("l{}", layers.len()), op, sources));
        values.push(Value { source: Source::Layer(layers.len() - 1), channels, depth, readers: 0 });
    };
    let stem = draw.convolution([4, channels, 3], 1);
    push(&mut values, stem, &[0], 4, 0);
    for _ in 0..8 + draw.below(5) {
        let at = 1 + draw.below(values.len() - 1);
        let Value { channels, depth, .. } = values[at];
        match draw.below(7) {
            0 | 1 => {
                let groups = if channels.is_multiple_of(2) { 1 + draw.below(2) } else { 1 };
                let kernel = 1 + 2 * draw.below(2);
                let op = draw.convolution([4, channels, kernel], groups);
                push(&mut values, op, &[at], 4, depth);
            }
            2 => {
                let op = draw.normalisation(channels);
                push(&mut values, op, &[at], channels, depth);
            }
            3 | 4 if depth < DEPTH => {
                let op = draw.polynomial(channels);
                push(&mut values, op, &[at], channels, depth + 1);
            }
            5 if channels <= 4 => {
                let other = 1 + draw.below(values.len() - 1);
                if values[other].channels <= 4 {
                    let depth = depth.max(values[other].depth);
                    let channels = channels + values[other].channels;
                    push(&mut values, LayerOp::Concat, &[at, other], channels, depth);
                }
            }
            _ => {
                let alike = |i: &usize| *i != at && values[*i].channels == channels;
                if let Some(other) = (1..values.len()).rfind(alike) {
                    let depth = depth.max(values[other].depth);
                    push(&mut values, LayerOp::Add, &[at, other], channels, depth);
                }
            }
        }
    }
    // Whatever nobody has read becomes part of the scores.
    let ends: Vec<usize> = (1..values.len()).filter(|&value| values[value].readers == 0).collect();
    let mut pooled = Vec::new();
    for end in ends {
        let Value { channels, depth, .. } = values[end];
        push(&mut values, LayerOp::GlobalAvgPool2d, &[end], channels, depth);
        pooled.push(values.len() - 1);
    }
    let features = pooled.iter().map(|&value| values[value].channels).sum();
    if pooled.len() > 1 {
        push(&mut values, LayerOp::Concat, &pooled, features, 0);
    }
    let last = values.len() - 1;
    push(&mut values, LayerOp::Flatten, &[last], features, 0);
    let bound = 1.0 / (features as f32).sqrt();
    let weight = Array2::from_shape_simple_fn((3, features), || draw.unit() * bound);
    let last = values.len() - 1;
    push(&mut values, LayerOp::Dense { weight, bias: None }, &[last], 3, 0);

    calibrated(NetworkSpec::new("graph", "a random graph", input, layers))
}

/// The network, calibrated on random images. Their scores are close to each other, so many labels may change.
pub(crate) fn calibrated(spec: NetworkSpec) -> Network {
    let spec = NetworkSpec { tolerance: Some(0.3), ..spec };
    let mut network = Network::new(spec).unwrap_or_else(|error| panic!("{error}"));
    let images = random_images(&network, IMAGES, 7);
    measure(&mut network, images.view());
    let rows = images.view().into_shape_with_order((IMAGES, images.len() / IMAGES)).expect("standard order");
    network.calibration = Some(calibrate(&network, rows).unwrap_or_else(|error| panic!("{error}")));
    network
}

/// Images for a network, in its range.
pub fn random_images(network: &Network, count: usize, seed: u64) -> Array4<f32> {
    let mut draw = Draw(SplitMix(seed));
    let [channels, height, width] = network.input.shape;
    let [low, high] = network.input.range.map(|bound| bound as f32);
    Array4::from_shape_simple_fn((count, channels, height, width), || low + draw.unit().abs() * (high - low))
}
