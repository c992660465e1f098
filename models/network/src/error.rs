//! Errors of networks.

use thiserror::Error;

use crate::dataset::UnknownDataset;
use crate::layer::{INPUT, Padding, Shape};
use crate::limits::{
    CHANNEL_BINS, MAX_CLASS_NAME_BYTES, MAX_CLASS_NAMES_BYTES, MAX_DIMENSION, MAX_HELD_VALUES, MAX_LAYERS,
    MAX_OPERANDS, MAX_VALUES, MAX_WEIGHT_BYTES, MAX_WINDOW_VALUES,
};
use crate::text;

/// Why files are no network.
#[derive(Debug, Error)]
pub enum ModelError {
    /// A file is larger than this program reads.
    #[error("{file} is larger than {limit} bytes, the most that is read of such a file")]
    TooLarge {
        /// The file.
        file: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The description is not well-formed TOML or a section has the wrong fields.
    #[error("{file}: {message}")]
    Syntax {
        /// The description.
        file: String,
        /// Place and cause.
        message: String,
    },
    /// A section or layer is wrong.
    #[error("{file}: {invalid}")]
    Invalid {
        /// The description.
        file: String,
        /// Where, and what.
        invalid: Invalid,
    },
}

/// What is wrong with a network, and where.
#[derive(Debug, Error)]
#[error("{place}: {problem}")]
pub struct Invalid {
    /// The layer or section.
    pub place: String,
    /// What is wrong with it.
    pub problem: Box<Problem>,
}

impl Invalid {
    pub(crate) fn new(place: String, problem: Problem) -> Self {
        Self { place, problem: Box::new(problem) }
    }

    pub(crate) fn layer(name: &str, problem: Problem) -> Self {
        Self::new(format!("layer `{name}`"), problem)
    }
}

/// What is wrong with a layer or section of a network.
#[derive(Debug, Error)]
pub enum Problem {
    /// A field that must be there is not.
    #[error("field `{field}` is missing; it is {expected}")]
    MissingField {
        /// The field.
        field: &'static str,
        /// Its type.
        expected: &'static str,
    },
    /// A field has the wrong type.
    #[error("field `{field}` is {found}; expected {expected}")]
    FieldType {
        /// The field.
        field: &'static str,
        /// The value found.
        found: String,
        /// Its type.
        expected: &'static str,
    },
    /// A field that this kind of layer does not have.
    #[error("unknown field `{}`; a {kind} layer has {allowed}", text::name(field))]
    UnknownField {
        /// The field.
        field: String,
        /// Kind of the layer.
        kind: String,
        /// The fields that it may have.
        allowed: String,
    },
    /// A kind of layer that does not exist.
    #[error("unknown kind `{}`; kinds are {allowed}", text::name(kind))]
    UnknownKind {
        /// What was found.
        kind: String,
        /// All kinds.
        allowed: String,
    },
    /// Another layer has the same name.
    #[error("another layer has this name; names must be unique, they name the tensors")]
    DuplicateName,
    /// The name that stands for the image.
    #[error("no layer may be called `{INPUT}`, which stands for the image among the operands of a layer")]
    ReservedName,
    /// A layer with more or fewer operands than its kind has.
    #[error(
        "a layer of kind {kind} takes {}, but `inputs` has {found}",
        if *joins { format!("2 to {MAX_OPERANDS} operands") } else { "one operand".into() }
    )]
    Operands {
        /// Kind of the layer.
        kind: String,
        /// Number of operands.
        found: usize,
        /// Whether this kind takes several.
        joins: bool,
    },
    /// An operand that is no layer.
    #[error(
        "there is no layer `{operand}`; an operand is `{INPUT}` (the image) or an earlier layer, such as {earlier}"
    )]
    UnknownOperand {
        /// What was asked for.
        operand: String,
        /// Some layers before.
        earlier: String,
    },
    /// An operand that is the layer itself or a later one.
    #[error(
        "{operand} is not before this layer; an operand is `{INPUT}` (the image) or an earlier layer, so sort the layers"
    )]
    LaterOperand {
        /// The layer.
        operand: String,
    },
    /// Operands that cannot be joined.
    #[error(
        "the operands of a layer of kind {kind} must be {rule}, but `{}` is {} and `{}` is {}",
        operands[0].0, operands[0].1, operands[1].0, operands[1].1
    )]
    OperandShapes {
        /// Kind of the layer.
        kind: &'static str,
        /// What the operands must be.
        rule: &'static str,
        /// Names and shapes of the first operand and of one that does not fit it.
        operands: Box<[(String, Shape); 2]>,
    },
    /// A layer whose output nobody reads.
    #[error(
        "no layer uses its output, and it is not the last layer; remove it, or name it in the `inputs` of a later one"
    )]
    UnusedLayer,
    /// Too many values wait for later layers.
    #[error(
        "{held} values per image must be kept here for this layer and later ones; at most {MAX_HELD_VALUES} are supported"
    )]
    TooManyHeld {
        /// Values of this layer's operands, of its output, and of outputs that later layers read.
        held: usize,
    },
    /// A number of groups that does not divide the channels.
    #[error("`groups` is {groups}; it must divide the {in_channels} input and the {out_channels} output channels")]
    Groups {
        /// Number of groups.
        groups: usize,
        /// Input channels.
        in_channels: usize,
        /// Output channels.
        out_channels: usize,
    },
    /// A name that is empty, long or holds other characters than letters, digits, `.`, `_` and `-`.
    #[error("name \"{}\" must be 1 to 64 letters, digits, `.`, `_` or `-`", text::name(found))]
    Name {
        /// What was found.
        found: String,
    },
    /// A title that is empty, long or holds control characters.
    #[error("title \"{}\" must be one line of 1 to 200 characters", text::name(found))]
    Title {
        /// What was found.
        found: String,
    },
    /// A name of a class that is empty, long, or of several lines, or that a spreadsheet takes for a formula.
    #[error(
        "the name \"{}\" of class {class} must have 1 to {MAX_CLASS_NAME_BYTES} bytes without control characters and marks of \
         direction, no space at either end, and not start with =, +, - or @, which spreadsheets take for a formula",
        text::name(found)
    )]
    ClassName {
        /// Index of the class, from 0.
        class: usize,
        /// What was found.
        found: String,
    },
    /// Names of classes that take too much room.
    #[error("names of {bytes} bytes in all; at most {MAX_CLASS_NAMES_BYTES} are allowed")]
    ClassNamesBytes {
        /// Of all names.
        bytes: usize,
    },
    /// More or fewer names than classes.
    #[error("{found} names, but the network has {classes} outputs; give one name for each of them, or none")]
    ClassNameCount {
        /// Number of names.
        found: usize,
        /// Number of scores.
        classes: usize,
    },
    /// Unsupported version.
    #[error("format {found} is not supported; this version reads format 1")]
    Format {
        /// What was found.
        found: i64,
    },
    /// A file is not named by a plain name.
    #[error(
        "{field} `{}` must be the plain name of a file beside the description, of at most 200 bytes",
        text::name(found)
    )]
    FileName {
        /// The field.
        field: &'static str,
        /// What was found.
        found: String,
    },
    /// No layers, or too many.
    #[error("{found} layers; a network has 1 to {MAX_LAYERS}")]
    LayerCount {
        /// Number of layers.
        found: usize,
    },
    /// A dimension of zero or of absurd size.
    #[error("field `{field}` is {found}; every dimension must be {least} to {MAX_DIMENSION}")]
    Dimension {
        /// The field.
        field: &'static str,
        /// What was found.
        found: i64,
        /// Smallest value allowed.
        least: usize,
    },
    /// Too many values between two layers.
    #[error("{shape} is too large; at most {MAX_VALUES} values per image are supported")]
    TooManyValues {
        /// The shape.
        shape: Shape,
    },
    /// A convolution or pool whose windows together hold too many values.
    #[error(
        "{taps} weights per output at {positions} positions are too many; their product may be {MAX_WINDOW_VALUES}"
    )]
    Windows {
        /// Weights per output value.
        taps: u128,
        /// Output positions.
        positions: u128,
    },
    /// The layer needs an image and gets a vector.
    #[error(
        "a {kind} layer needs an image (channels x height x width) but its input is {input}; put it before `flatten`"
    )]
    NeedsImage {
        /// Kind of the layer.
        kind: String,
        /// Its input.
        input: Shape,
    },
    /// The layer needs a vector and gets an image.
    #[error("a dense layer needs a vector but its input is {input}; put a `flatten` layer before it")]
    NeedsFlat {
        /// Its input.
        input: Shape,
    },
    /// A kernel or window is larger than its input.
    #[error(
        "kernel {} x {}{} is larger than its input {input} with padding {padding}",
        kernel[0], kernel[1],
        if *dilation == [1; 2] { String::new() } else { format!(" with dilation {} x {}", dilation[0], dilation[1]) }
    )]
    KernelTooLarge {
        /// Rows, columns.
        kernel: [usize; 2],
        /// Rows, columns from one tap to the next.
        dilation: [usize; 2],
        /// Around the input.
        padding: Padding,
        /// The input.
        input: Shape,
    },
    /// The network does not end in a vector of logits.
    #[error("the last layer's output is {output}; a network must end in a vector of at least 2 logits (a dense layer)")]
    NoLogits {
        /// Output of the last layer.
        output: Shape,
    },
    /// A range that is empty, reversed or not finite.
    #[error("`{field}` [{}, {}] must be two finite numbers, the lower one first", found[0], found[1])]
    Range {
        /// The field.
        field: &'static str,
        /// What was found.
        found: [f64; 2],
    },
    /// A number outside its domain.
    #[error("`{field}` is {found}; expected {expected}")]
    Number {
        /// The field.
        field: &'static str,
        /// What was found.
        found: f64,
        /// What is allowed.
        expected: &'static str,
    },
    /// Coefficients that are no polynomial.
    #[error(
        "`coefficients` {} must be 2 to 64 finite numbers, constant term first, the last one not zero",
        numbers(found)
    )]
    Coefficients {
        /// What was found.
        found: Vec<f64>,
    },
    /// Neither one row of coefficients nor one per channel.
    #[error(
        "there are coefficients for {rows} channels, but the input has {channels}; one row or one per channel is allowed"
    )]
    CoefficientRows {
        /// Rows of coefficients.
        rows: usize,
        /// Channels of the input.
        channels: usize,
    },
    /// A tensor that does not hold coefficients of each channel.
    #[error(
        "tensor `{tensor}` has shape {actual:?}; this layer needs {channels} rows, one per channel, of 2 to 64 numbers"
    )]
    CoefficientShape {
        /// Its name.
        tensor: String,
        /// Channels of the input.
        channels: usize,
        /// The shape in the file.
        actual: Vec<usize>,
    },
    /// Coefficients of a channel that are no polynomial.
    #[error(
        "the coefficients of channel {channel} are {found:?}; each channel has 2 to 64 finite f32 numbers, constant term first, \
         and all channels have as many ({length} in the first one)"
    )]
    ChannelCoefficients {
        /// The channel, from 0.
        channel: usize,
        /// Number of coefficients of the first channel.
        length: usize,
        /// What was found.
        found: Vec<f64>,
    },
    /// Coefficients per channel of a lower degree than they say.
    #[error("the coefficients of degree {degree} are zero in every channel; leave them out")]
    NoDegree {
        /// The degree.
        degree: usize,
    },
    /// Histograms of channels that do not fit their activation.
    #[error(
        "there are histograms of {found} channels beside coefficients in {rows} rows; where there are several rows, \
         each has a histogram of {CHANNEL_BINS} bins or none has one"
    )]
    ChannelHistograms {
        /// Histograms.
        found: usize,
        /// Rows of coefficients.
        rows: usize,
    },
    /// A histogram without counts, or with too many.
    #[error("`{field}` has {bins} bins with {total} values; a histogram needs 1 to 65536 bins and 1 to 2^53 values")]
    Histogram {
        /// The field.
        field: &'static str,
        /// Number of bins.
        bins: usize,
        /// Sum of the counts.
        total: u128,
    },
    /// Accuracy that is no share.
    #[error("{correct} correct of {images} images is no accuracy")]
    Accuracy {
        /// Images labelled correctly.
        correct: u64,
        /// All images.
        images: u64,
    },
    /// A data set that does not exist.
    #[error("{0}")]
    Dataset(#[from] UnknownDataset),
    /// More weights than are read.
    #[error("the weights take {bytes} bytes; at most {MAX_WEIGHT_BYTES} are supported")]
    WeightBytes {
        /// Length of the weight file.
        bytes: usize,
    },
    /// The weights are not safetensors.
    #[error("not a valid safetensors file: {message}")]
    Weights {
        /// What the parser says.
        message: String,
    },
    /// A tensor that the layer needs is not in the weight file.
    #[error("tensor `{tensor}` of shape {expected:?} is not in the weight file; it holds: {held}")]
    MissingTensor {
        /// Its name.
        tensor: String,
        /// Its shape.
        expected: Vec<usize>,
        /// All tensors of the file.
        held: String,
    },
    /// A tensor has another shape than the layer.
    #[error("tensor `{tensor}` has shape {}; this layer needs {expected:?}", numbers(actual))]
    TensorShape {
        /// Its name.
        tensor: String,
        /// The shape that the layer needs.
        expected: Vec<usize>,
        /// The shape in the file.
        actual: Vec<usize>,
    },
    /// A tensor is neither f32 nor integers with a scale.
    #[error(
        "tensor `{tensor}` has type {actual}; F32 is read, and I8 where `{scale}` says what 1 stands for: convert the \
         weights"
    )]
    TensorType {
        /// Its name.
        tensor: String,
        /// The name that its scale would have.
        scale: String,
        /// The type in the file.
        actual: String,
    },
    /// A tensor holds NaN, an infinity or (as a variance) a negative number.
    #[error("tensor `{tensor}` holds {value} at position {index}; expected {expected}")]
    TensorValue {
        /// Its name.
        tensor: String,
        /// Position in row-major order.
        index: usize,
        /// The value.
        value: f32,
        /// What is allowed.
        expected: &'static str,
    },
    /// A calibration that cannot be used.
    #[error("{message}; the calibration must be measured again")]
    Calibration {
        /// What is wrong.
        message: String,
    },
    /// Tensors that no layer uses: a misspelt name would otherwise silently drop a bias.
    #[error("no layer uses the tensors {names}; remove them or name the layers after them")]
    UnusedTensors {
        /// Their names.
        names: String,
    },
}

/// A list from a file, or what it is where it is long.
pub(crate) fn numbers<T: std::fmt::Debug>(list: &[T]) -> String {
    if list.len() <= 64 { format!("{list:?}") } else { format!("(an array of {} numbers)", list.len()) }
}
