//! Layers: what they compute, of what, and the shapes of their values.

use std::fmt;

use ndarray::{Array1, Array2, Array4};

use crate::histogram::Histogram;

/// The operand name that stands for the image.
pub(crate) const INPUT: &str = "input";

/// Kinds of layers that take several operands.
pub(crate) const JOINS: [&str; 2] = ["add", "concat"];

/// Where a layer takes an operand from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The image.
    Input,
    /// The output of an earlier layer, by its index.
    Layer(usize),
}

impl Source {
    /// The operand of a layer in a line of layers: the layer before `index`, or the image.
    pub fn before(index: usize) -> Self {
        index.checked_sub(1).map_or(Source::Input, Source::Layer)
    }

    /// Place among the values of a network: 0 is the image, `i + 1` the output of layer `i`.
    pub fn value(self) -> usize {
        match self {
            Source::Input => 0,
            Source::Layer(index) => index + 1,
        }
    }
}

/// One layer with its calibration. The shapes of its values follow from its operands, and
/// [`Network::shape`](crate::Network::shape) says them.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Name, unique in its network: 1 to 64 letters, digits, `.`, `_` or `-`, and not `input`,
    /// which stands for the image.
    pub name: String,
    /// What the layer computes.
    pub op: LayerOp,
    /// Its operands, the image or earlier layers: one, or two and more for [`LayerOp::Add`] and
    /// [`LayerOp::Concat`].
    pub inputs: Vec<Source>,
    /// Root mean square of the values of all its operands together; greater than zero.
    pub input_rms: Option<f64>,
    /// Smallest and largest value of its output.
    pub output_range: Option<[f64; 2]>,
}

impl Layer {
    /// A layer without calibration.
    pub fn new(name: &str, op: LayerOp, inputs: Vec<Source>) -> Self {
        Self { name: name.into(), op, inputs, input_rms: None, output_range: None }
    }
}

/// Shape of the values of one image between two layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A stack of maps.
    Image {
        /// Number of maps.
        channels: usize,
        /// Rows of a map.
        height: usize,
        /// Columns of a map.
        width: usize,
    },
    /// A vector; a flattened image is in channel, row, column order.
    Flat(usize),
}

impl Shape {
    /// A stack of maps: channels, height, width.
    pub fn of_image([channels, height, width]: [usize; 3]) -> Self {
        Shape::Image { channels, height, width }
    }

    /// Number of values.
    #[expect(clippy::len_without_is_empty, reason = "a validated shape is never empty")]
    pub fn len(&self) -> usize {
        match *self {
            Shape::Image { channels, height, width } => channels * height * width,
            Shape::Flat(len) => len,
        }
    }

    /// Number of maps; every value of a vector is a channel of its own.
    pub fn channels(&self) -> usize {
        match *self {
            Shape::Image { channels, .. } => channels,
            Shape::Flat(len) => len,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Image { channels, height, width } => write!(f, "{channels} x {height} x {width}"),
            Shape::Flat(len) => write!(f, "{len} values"),
        }
    }
}

/// Rows and columns of zeros around an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// Rows above, columns to the left.
    pub before: [usize; 2],
    /// Rows below, columns to the right.
    pub after: [usize; 2],
}

impl Padding {
    /// The same number of rows above as below, and of columns to the left as to the right.
    pub fn even(around: [usize; 2]) -> Self {
        Self { before: around, after: around }
    }

    /// Whether there are as many rows above as below, and as many columns left as right.
    pub fn is_even(&self) -> bool {
        self.before == self.after
    }
}

impl fmt::Display for Padding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Padding { before: [top, left], after: [bottom, right] } = self;
        match self.is_even() {
            true => write!(f, "{top} x {left}"),
            false => write!(f, "[top {top}, left {left}, bottom {bottom}, right {right}]"),
        }
    }
}

/// What a layer computes.
#[derive(Debug, Clone)]
pub enum LayerOp {
    /// Cross-correlation with zero padding, as in PyTorch.
    ///
    /// Input and output channels are split into `groups` equal parts in their order, and an output
    /// channel sees only the input channels of its own part. Depth-wise convolutions have as many
    /// groups as input channels.
    Conv2d {
        /// Output channels, input channels of a group, kernel rows, kernel columns.
        weight: Array4<f32>,
        /// One per output channel.
        bias: Option<Array1<f32>>,
        /// Rows, columns.
        stride: [usize; 2],
        /// Zeros around the image.
        padding: Padding,
        /// Rows, columns from one tap of the kernel to the next; 1 where taps are neighbours.
        dilation: [usize; 2],
        /// Divides the numbers of input and of output channels.
        groups: usize,
    },
    /// Mean over windows.
    AvgPool2d {
        /// Rows, columns of a window.
        kernel: [usize; 2],
        /// Rows, columns between windows.
        stride: [usize; 2],
    },
    /// Sum over windows.
    SumPool2d {
        /// Rows, columns of a window.
        kernel: [usize; 2],
        /// Rows, columns between windows.
        stride: [usize; 2],
    },
    /// Mean over all positions of each channel; an image of one position comes out.
    GlobalAvgPool2d,
    /// `(x - mean) / sqrt(var + eps) * gamma + beta`, per channel (per value on a flat input).
    BatchNorm {
        /// Scale.
        gamma: Array1<f32>,
        /// Shift.
        beta: Array1<f32>,
        /// Running mean.
        mean: Array1<f32>,
        /// Running variance; not negative.
        var: Array1<f32>,
        /// Added to the variance; greater than zero.
        eps: f64,
    },
    /// A polynomial of every value: `c[0] + c[1] x + c[2] x^2 + ...`.
    Polynomial {
        /// One row for all channels, or one row per channel (per value on a flat input).
        ///
        /// A row has its constant term first and at least two coefficients. All rows have the same
        /// length, and the last coefficient is not zero in at least one of them. Rows per channel
        /// hold f32 numbers, since they lie in the weight file.
        coefficients: Vec<Vec<f64>>,
        /// What is known of its input values.
        inputs: Option<Inputs>,
    },
    /// Sum of operands of equal shapes.
    Add,
    /// Operands one after the other: images of equal height and width along their channels, or
    /// vectors.
    Concat,
    /// Image to vector in channel, row, column order.
    Flatten,
    /// Its input.
    Identity,
    /// Its input (active in training only).
    Dropout,
    /// Matrix product.
    Dense {
        /// Output features, input features.
        weight: Array2<f32>,
        /// One per output feature.
        bias: Option<Array1<f32>>,
    },
}

impl LayerOp {
    /// The `kind` of this layer in a description.
    pub fn kind(&self) -> &'static str {
        match self {
            LayerOp::Conv2d { .. } => "conv2d",
            LayerOp::AvgPool2d { .. } => "avg_pool2d",
            LayerOp::SumPool2d { .. } => "sum_pool2d",
            LayerOp::GlobalAvgPool2d => "global_avg_pool2d",
            LayerOp::BatchNorm { .. } => "batch_norm",
            LayerOp::Polynomial { .. } => "polynomial",
            LayerOp::Add => "add",
            LayerOp::Concat => "concat",
            LayerOp::Flatten => "flatten",
            LayerOp::Identity => "identity",
            LayerOp::Dropout => "dropout",
            LayerOp::Dense { .. } => "dense",
        }
    }

    /// Multiply-adds per image of a convolution or dense layer that leaves so many values.
    /// It is zero for every other layer, as is usual.
    pub fn multiply_adds(&self, outputs: usize) -> u64 {
        let per_output = match self {
            LayerOp::Conv2d { weight, .. } => weight.len() / weight.dim().0,
            LayerOp::Dense { weight, .. } => weight.ncols(),
            _ => 0,
        };
        outputs as u64 * per_output as u64
    }
}

/// Calibration of an activation's input values.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    /// Smallest and largest value.
    pub range: [f64; 2],
    /// Distribution over `range`, of all channels together.
    pub histogram: Histogram,
    /// Distribution of each channel, over its own range, in [`CHANNEL_BINS`](crate::limits::CHANNEL_BINS)
    /// bins. There is one per channel where coefficients are per channel and this was measured,
    /// else none.
    pub channels: Vec<Histogram>,
}
