//! Random graphs.

use cryptodl_network::{InputSpec, Layer, LayerOp, Network, NetworkSpec, Padding, Shape, Source};
use ndarray::{Array1, Array2, Array4};

use super::noise;

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
pub fn random_network(bytes: &[u8], seed: u64) -> Network {
    let mut choices = Choices(bytes.iter(), Box::new(noise(seed)));
    let input =
        InputSpec { shape: [1 + choices.below(4), 1 + choices.below(7), 1 + choices.below(7)], range: [-1.0, 1.0] };
    let [channels, height, width] = input.shape;
    let mut shapes = vec![Shape::Image { channels, height, width }];
    let mut layers: Vec<Layer> = Vec::new();
    let source = |value: usize| if value == 0 { Source::Input } else { Source::Layer(value - 1) };
    let add = |op: LayerOp, values: Vec<usize>, shapes: &mut Vec<Shape>, layers: &mut Vec<Layer>| {
        let name = format!("{}{}", op.kind(), layers.len());
        let inputs: Vec<Source> = values.iter().map(|&value| source(value)).collect();
        shapes.push(shape_of(&op, &values.iter().map(|&value| shapes[value]).collect::<Vec<_>>()));
        layers.push(Layer::new(&name, op, inputs));
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
    let found: Vec<Shape> = net.outputs().map(|(_, shape)| shape).collect();
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
