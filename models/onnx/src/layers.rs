//! The layers that were made so far.

use std::collections::HashSet;

use cryptodl_network::limits::{MAX_LAYERS, MAX_VALUES};
use cryptodl_network::{Layer, LayerOp, Padding, Shape, Source};
use ndarray::Array1;

use crate::error::Refusal;
use crate::node::Node;

pub(crate) struct Layers {
    pub(crate) all: Vec<Layer>,
    shapes: Vec<Shape>,
    input: Shape,
    names: HashSet<String>,
}

impl Layers {
    pub(crate) fn new(input: Shape) -> Self {
        Self { all: Vec::new(), shapes: Vec::new(), input, names: HashSet::from(["input".into()]) }
    }

    pub(crate) fn shape(&self, source: Source) -> Shape {
        match source {
            Source::Input => self.input,
            Source::Layer(at) => self.shapes[at],
        }
    }

    /// The size of the image that comes from there.
    pub(crate) fn image(&self, source: Source) -> Option<[usize; 3]> {
        match self.shape(source) {
            Shape::Image { channels, height, width } => Some([channels, height, width]),
            Shape::Flat(_) => None,
        }
    }

    /// Adds a layer whose operands fit it, under a name like `name`.
    pub(crate) fn push(&mut self, name: &str, op: LayerOp, inputs: Vec<Source>) -> Result<Source, Refusal> {
        if self.all.len() == MAX_LAYERS {
            return Err(format!("the network has more than {MAX_LAYERS} layers; at most so many are supported"));
        }
        let input = self.shape(inputs[0]);
        let shape = output(&op, input, inputs.iter().map(|&source| self.shape(source).len()).sum())?;
        if shape.len() > MAX_VALUES {
            return Err(format!("it leaves {shape}; at most {MAX_VALUES} values per image are supported"));
        }
        let name = self.unique(name);
        self.all.push(Layer::new(&name, op, inputs));
        self.shapes.push(shape);
        Ok(Source::Layer(self.all.len() - 1))
    }

    /// Gives a convolution or dense layer that has no bias this one; says whether it could.
    pub(crate) fn give_bias(&mut self, source: Source, values: &[f64]) -> bool {
        let Source::Layer(at) = source else { return false };
        match &mut self.all[at].op {
            LayerOp::Conv2d { bias: bias @ None, .. } | LayerOp::Dense { bias: bias @ None, .. } => {
                *bias = Some(values.iter().map(|&value| value as f32).collect::<Array1<f32>>());
                true
            }
            _ => false,
        }
    }

    fn unique(&mut self, name: &str) -> String {
        let allowed = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' };
        let clean: String = name.chars().map(allowed).collect();
        let clean = clean.trim_matches(['_', '.']);
        let start = &clean[clean.len().saturating_sub(56)..];
        let start = if start.is_empty() { "layer" } else { start };
        let mut found = start.to_owned();
        for number in 2.. {
            if self.names.insert(found.clone()) {
                break;
            }
            found = format!("{start}_{number}");
        }
        found
    }
}

/// A name for what a node computes: that of its weights, of the module that it is in, or its own.
pub(crate) fn name(node: Node<'_>, weights: Option<&str>) -> String {
    let weights = weights.and_then(|name| name.strip_suffix(".weight")).filter(|name| !name.contains("::"));
    let op = || node.op().to_lowercase();
    let name = weights.or(node.scope()).map(str::to_owned);
    name.unwrap_or_else(|| if node.name().is_empty() { op() } else { node.name().to_owned() })
}

/// Shape of the output; `total` is the number of values of all operands.
fn output(op: &LayerOp, input: Shape, total: usize) -> Result<Shape, Refusal> {
    let windows = |channels: usize, kernel: [usize; 2], stride: [usize; 2], padding: Padding, dilation: [usize; 2]| {
        let Shape::Image { height, width, .. } = input else { return Err("it needs an image".to_string()) };
        let along = |axis: usize, size: usize| {
            let extent = dilation[axis] * (kernel[axis] - 1) + 1;
            let room = (size + padding.before[axis] + padding.after[axis]).checked_sub(extent);
            room.map(|room| room / stride[axis] + 1).ok_or_else(|| {
                format!("its kernel of {} x {} is larger than its input of {input}", kernel[0], kernel[1])
            })
        };
        Ok(Shape::Image { channels, height: along(0, height)?, width: along(1, width)? })
    };
    match op {
        LayerOp::Conv2d { weight, stride, padding, dilation, .. } => {
            let (channels, _, rows, columns) = weight.dim();
            windows(channels, [rows, columns], *stride, *padding, *dilation)
        }
        LayerOp::AvgPool2d { kernel, stride } | LayerOp::SumPool2d { kernel, stride } => {
            windows(input.channels(), *kernel, *stride, Padding::default(), [1; 2])
        }
        LayerOp::GlobalAvgPool2d => Ok(Shape::Image { channels: input.channels(), height: 1, width: 1 }),
        LayerOp::Flatten => Ok(Shape::Flat(input.len())),
        LayerOp::Dense { weight, .. } => Ok(Shape::Flat(weight.nrows())),
        LayerOp::Concat => Ok(match input {
            Shape::Image { height, width, .. } => Shape::Image { channels: total / (height * width), height, width },
            Shape::Flat(_) => Shape::Flat(total),
        }),
        LayerOp::BatchNorm { .. }
        | LayerOp::Polynomial { .. }
        | LayerOp::Add
        | LayerOp::Identity
        | LayerOp::Dropout => Ok(input),
    }
}
