//! What a network must be, whatever built it: every layer is checked against the shapes of its
//! operands.

use std::collections::HashMap;

use ndarray::{ArrayBase, Data, Dimension};

use crate::error::{Invalid, Problem};
use crate::fingerprint::{digest, fingerprint};
use crate::layer::{INPUT, Inputs, JOINS, Layer, LayerOp, Padding, Shape, Source};
use crate::limits::{
    CHANNEL_BINS, MAX_COEFFICIENTS, MAX_HELD_VALUES, MAX_LAYERS, MAX_OPERANDS, MAX_VALUES, MAX_WEIGHT_BYTES,
    MAX_WINDOW_VALUES, MIN_TOLERANCE,
};
use crate::network::{Network, released};
use crate::rules::{self, checked_class_names, checked_file_name, checked_histogram, checked_name, checked_range};
use crate::spec::{Accuracy, NetworkSpec};
use crate::tensors::weight_file;

impl Network {
    /// Checks a network and makes it. Its digests are those of the files that
    /// [`Network::description`] (without comment) and [`Network::weight_file`] give.
    ///
    /// Coefficients of single channels are rounded to f32, as the weight file holds them.
    ///
    /// # Errors
    /// Names the layer or section and what is wrong with it: what was found, and what is allowed.
    pub fn new(mut spec: NetworkSpec) -> Result<Self, Invalid> {
        let layers = std::mem::take(&mut spec.layers);
        let mut builder = Builder::new(spec, layers.len())?;
        for layer in layers {
            let name = layer.name.clone();
            builder.push(layer).map_err(|problem| Invalid::layer(&name, problem))?;
        }
        let weights = weight_file(builder.layers());
        if weights.len() as u64 > MAX_WEIGHT_BYTES {
            return Err(Invalid::new("weights".into(), Problem::WeightBytes { bytes: weights.len() }));
        }
        let network = builder.finish(&weights)?;
        let digest = digest(network.description("", None).as_bytes(), &weights, None);
        Ok(network.with_digest(digest))
    }

    /// Another network, of which something else is stated. It keeps the calibration of single
    /// images where it computes the same.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn changed(&self, change: impl FnOnce(&mut NetworkSpec)) -> Result<Self, Invalid> {
        let mut spec = NetworkSpec::clone(self);
        change(&mut spec);
        let mut network = Network::new(spec)?;
        if network.fingerprint() == self.fingerprint() {
            network.calibration = self.calibration.clone();
        }
        Ok(network)
    }
}

/// A network of which some layers are there and checked.
pub(crate) struct Builder {
    spec: NetworkSpec,
    /// Shapes of the outputs of the layers so far.
    shapes: Vec<Shape>,
    names: HashMap<String, usize>,
}

impl Builder {
    /// Checks all but the layers, of which `count` will come; `spec` has none yet.
    pub(crate) fn new(spec: NetworkSpec, count: usize) -> Result<Self, Invalid> {
        let at = |place: &str| {
            let place = place.to_owned();
            move |problem| Invalid::new(place, problem)
        };
        checked_name(&spec.name).map_err(at("name"))?;
        checked_file_name("weights", &spec.weights).map_err(at("weights"))?;
        if !(1..=200).contains(&spec.title.chars().count()) || spec.title.contains(char::is_control) {
            return Err(at("title")(Problem::Title { found: spec.title }));
        }
        checked_class_names(&spec.class_names).map_err(at("class_names"))?;
        if let Some(found) = spec.tolerance.filter(|share| !(MIN_TOLERANCE..=0.5).contains(share)) {
            let expected = "a share of the labels, from 0.000000001 to 0.5 (0.01 is one label in a hundred)";
            return Err(at("tolerance")(Problem::Number { field: "tolerance", found, expected }));
        }
        if let Some(Accuracy { correct, images }) = spec.accuracy
            && (images == 0 || correct > images)
        {
            return Err(at("[accuracy]")(Problem::Accuracy { correct, images }));
        }
        if let Some(output) = &spec.output {
            checked_range("range", output.range).map_err(at("[output]"))?;
            checked_histogram("margins", &output.margins).map_err(at("[output]"))?;
            if output.margins.low < 0.0 {
                let expected = "zero or more: a margin is the largest minus the second largest logit";
                let problem = Problem::Number { field: "margins.low", found: output.margins.low, expected };
                return Err(at("[output]")(problem));
            }
        }
        let input = Shape::of_image(spec.input.shape);
        let sizes = spec.input.shape.iter().try_for_each(|&size| dimension("shape", size, 1));
        sizes.and_then(|()| bounded(input)).map_err(at("[input]"))?;
        checked_range("range", spec.input.range).map_err(at("[input]"))?;
        if !(1..=MAX_LAYERS).contains(&count) {
            return Err(at("[[layer]]")(Problem::LayerCount { found: count }));
        }
        Ok(Self { spec, shapes: Vec::with_capacity(count), names: HashMap::new() })
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        &self.spec.layers
    }

    /// The earlier layer of this name, or the image.
    pub(crate) fn source(&self, name: &str) -> Option<Source> {
        if name == INPUT { Some(Source::Input) } else { self.names.get(name).map(|&index| Source::Layer(index)) }
    }

    /// Shape of an operand of the next layer.
    pub(crate) fn shape(&self, source: Source) -> Result<Shape, Problem> {
        match source {
            Source::Input => Ok(Shape::of_image(self.spec.input.shape)),
            Source::Layer(index) => match self.shapes.get(index) {
                Some(shape) => Ok(*shape),
                None => Err(Problem::LaterOperand { operand: format!("layer {}", index + 1) }),
            },
        }
    }

    /// Checks and adds a layer.
    pub(crate) fn push(&mut self, mut layer: Layer) -> Result<(), Problem> {
        let Layer { name, op, inputs, input_rms, output_range } = &mut layer;
        checked_name(name)?;
        if name == INPUT {
            return Err(Problem::ReservedName);
        }
        if self.names.contains_key(name) {
            return Err(Problem::DuplicateName);
        }
        if let Some(found) = input_rms.filter(|rms| !(rms.is_finite() && *rms > 0.0)) {
            return Err(Problem::Number { field: "input_rms", found, expected: "a finite number greater than zero" });
        }
        output_range.map_or(Ok(()), |range| checked_range("output_range", range))?;
        let shapes = self.operands(op, inputs)?;
        let output = match op {
            LayerOp::Add => self.sum(inputs, &shapes)?,
            LayerOp::Concat => self.concatenation(inputs, &shapes)?,
            _ => output_shape(name, op, shapes[0])?,
        };
        self.names.insert(name.clone(), self.shapes.len());
        self.spec.layers.push(layer);
        self.shapes.push(output);
        Ok(())
    }

    /// Shapes of as many operands as a layer of this kind takes.
    fn operands(&self, op: &LayerOp, inputs: &[Source]) -> Result<Vec<Shape>, Problem> {
        operand_count(op.kind(), inputs.len())?;
        inputs.iter().map(|&source| self.shape(source)).collect()
    }

    fn sum(&self, inputs: &[Source], shapes: &[Shape]) -> Result<Shape, Problem> {
        match shapes.iter().position(|shape| *shape != shapes[0]) {
            None => Ok(shapes[0]),
            Some(other) => Err(self.mismatch("add", "the same shape", inputs, shapes, other)),
        }
    }

    fn concatenation(&self, inputs: &[Source], shapes: &[Shape]) -> Result<Shape, Problem> {
        let beside = |shape: &Shape| match (*shape, shapes[0]) {
            (Shape::Image { height, width, .. }, Shape::Image { height: h, width: w, .. }) => (height, width) == (h, w),
            (Shape::Flat(_), Shape::Flat(_)) => true,
            _ => false,
        };
        if let Some(other) = shapes.iter().position(|shape| !beside(shape)) {
            let rule = "images of the same height and width, or vectors";
            return Err(self.mismatch("concat", rule, inputs, shapes, other));
        }
        let sum = shapes.iter().map(Shape::channels).sum();
        bounded(match shapes[0] {
            Shape::Image { height, width, .. } => Shape::Image { channels: sum, height, width },
            Shape::Flat(_) => Shape::Flat(sum),
        })
    }

    fn mismatch(
        &self,
        kind: &'static str,
        rule: &'static str,
        inputs: &[Source],
        shapes: &[Shape],
        other: usize,
    ) -> Problem {
        let named = |index: usize| {
            let name = match inputs[index] {
                Source::Input => INPUT,
                Source::Layer(layer) => &self.layers()[layer].name,
            };
            (name.to_owned(), shapes[index])
        };
        Problem::OperandShapes { kind, rule, operands: Box::new([named(0), named(other)]) }
    }

    /// The network of all layers, if it ends in scores, every layer is used, and no more values
    /// wait for later layers than are allowed. `weights` is its weight file.
    pub(crate) fn finish(self, weights: &[u8]) -> Result<Network, Invalid> {
        let Self { spec, shapes, .. } = self;
        let layers = &spec.layers;
        let (last, output) = match shapes.last() {
            Some(&output) => (layers.len() - 1, output),
            None => return Err(Invalid::new("[[layer]]".into(), Problem::LayerCount { found: 0 })),
        };
        if !matches!(output, Shape::Flat(2..)) {
            return Err(Invalid::new("[[layer]]".into(), Problem::NoLogits { output }));
        }
        let (names, classes) = (spec.class_names.len(), output.len());
        if names != 0 && names != classes {
            return Err(Invalid::new("class_names".into(), Problem::ClassNameCount { found: names, classes }));
        }
        let released = released(layers);
        let mut used = vec![false; layers.len() + 1];
        released.iter().flatten().for_each(|source| used[source.value()] = true);
        if let Some(unused) = (0..last).find(|&index| !used[index + 1]) {
            return Err(Invalid::layer(&layers[unused].name, Problem::UnusedLayer));
        }
        let input = Shape::of_image(spec.input.shape);
        let length = |source: &Source| match *source {
            Source::Input => input.len(),
            Source::Layer(index) => shapes[index].len(),
        };
        let mut held = input.len();
        for ((layer, output), released) in layers.iter().zip(&shapes).zip(&released) {
            held += output.len();
            if held > MAX_HELD_VALUES {
                return Err(Invalid::layer(&layer.name, Problem::TooManyHeld { held }));
            }
            held -= released.iter().map(length).sum::<usize>();
        }
        let fingerprint = fingerprint(&spec.input, layers, &shapes, weights);
        Ok(Network::checked(spec, shapes, fingerprint))
    }
}

/// Checks that a layer of this kind takes so many operands.
pub(crate) fn operand_count(kind: &str, found: usize) -> Result<(), Problem> {
    let joins = JOINS.contains(&kind);
    let allowed = if joins { 2..=MAX_OPERANDS } else { 1..=1 };
    if allowed.contains(&found) { Ok(()) } else { Err(Problem::Operands { kind: kind.into(), found, joins }) }
}

/// Checks a layer of one operand; gives the shape of its output.
fn output_shape(name: &str, op: &mut LayerOp, input: Shape) -> Result<Shape, Problem> {
    let kind = op.kind();
    match op {
        LayerOp::Conv2d { weight, bias, stride, padding, dilation, groups } => {
            let (out_channels, _, rows, columns) = weight.dim();
            let windows = Windows { kernel: [rows, columns], stride: *stride, padding: *padding, dilation: *dilation };
            let (expected, output) = windows.convolution(input, out_channels, *groups)?;
            tensor(name, "weight", weight, &expected)?;
            bias.as_ref().map_or(Ok(()), |bias| tensor(name, "bias", bias, &[out_channels]))?;
            Ok(output)
        }
        LayerOp::AvgPool2d { kernel, stride } | LayerOp::SumPool2d { kernel, stride } => {
            Windows { kernel: *kernel, stride: *stride, padding: Padding::default(), dilation: [1; 2] }
                .pool(kind, input)
        }
        LayerOp::GlobalAvgPool2d => {
            let (channels, _) = image(kind, input)?;
            Ok(Shape::Image { channels, height: 1, width: 1 })
        }
        LayerOp::BatchNorm { gamma, beta, mean, var, eps } => {
            if !(eps.is_finite() && *eps > 0.0) {
                let expected = "a finite number greater than zero";
                return Err(Problem::Number { field: "eps", found: *eps, expected });
            }
            let parts = [("weight", &*gamma), ("bias", beta), ("running_mean", mean), ("running_var", &*var)];
            parts.into_iter().try_for_each(|(part, vector)| tensor(name, part, vector, &[input.channels()]))?;
            if let Some((index, &value)) = var.iter().enumerate().find(|(_, value)| **value < 0.0) {
                let tensor = format!("{name}.running_var");
                return Err(Problem::TensorValue { tensor, index, value, expected: "variances of zero or more" });
            }
            Ok(input)
        }
        LayerOp::Polynomial { coefficients, inputs } => {
            polynomial(coefficients, input)?;
            inputs.as_ref().map_or(Ok(()), |inputs| calibrated(inputs, coefficients.len()))?;
            Ok(input)
        }
        LayerOp::Flatten => Ok(Shape::Flat(input.len())),
        LayerOp::Identity | LayerOp::Dropout => Ok(input),
        LayerOp::Dense { weight, bias } => {
            let out_features = weight.nrows();
            tensor(name, "weight", weight, &dense(input, out_features)?)?;
            bias.as_ref().map_or(Ok(()), |bias| tensor(name, "bias", bias, &[out_features]))?;
            Ok(Shape::Flat(out_features))
        }
        LayerOp::Add | LayerOp::Concat => unreachable!("layers of several operands are checked apart"),
    }
}

/// How windows lie on an image: rows, columns.
pub(crate) struct Windows {
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) padding: Padding,
    pub(crate) dilation: [usize; 2],
}

impl Windows {
    /// Shapes of the weights and of the output of a convolution.
    pub(crate) fn convolution(
        &self,
        input: Shape,
        out_channels: usize,
        groups: usize,
    ) -> Result<([usize; 4], Shape), Problem> {
        dimension("out_channels", out_channels, 1)?;
        dimension("groups", groups, 1)?;
        let (channels, size) = image("conv2d", input)?;
        let [height, width] = self.positions(input, size)?;
        let output = bounded(Shape::Image { channels: out_channels, height, width })?;
        if !channels.is_multiple_of(groups) || !out_channels.is_multiple_of(groups) {
            return Err(Problem::Groups { groups, in_channels: channels, out_channels });
        }
        let seen = channels / groups;
        self.bounded(seen, height * width)?;
        Ok(([out_channels, seen, self.kernel[0], self.kernel[1]], output))
    }

    /// Shape of the output of a pool.
    pub(crate) fn pool(&self, kind: &str, input: Shape) -> Result<Shape, Problem> {
        let (channels, size) = image(kind, input)?;
        let [height, width] = self.positions(input, size)?;
        let output = bounded(Shape::Image { channels, height, width })?;
        self.bounded(1, height * width)?;
        Ok(output)
    }

    /// Rows and columns of windows on the image `input`, of `size` rows and columns.
    fn positions(&self, input: Shape, size: [usize; 2]) -> Result<[usize; 2], Problem> {
        let Windows { kernel, stride, padding, dilation } = *self;
        for axis in 0..2 {
            dimension("kernel", kernel[axis], 1)?;
            dimension("stride", stride[axis], 1)?;
            dimension("dilation", dilation[axis], 1)?;
            dimension("padding", padding.before[axis], 0)?;
            dimension("padding", padding.after[axis], 0)?;
        }
        // In 64 bits, where products of two dimensions have room on every machine.
        let along = |axis: usize| {
            let extent = dilation[axis] as u64 * (kernel[axis] as u64 - 1) + 1;
            let room = (size[axis] + padding.before[axis] + padding.after[axis]) as u64;
            room.checked_sub(extent).map(|room| (room / stride[axis] as u64 + 1) as usize)
        };
        match (along(0), along(1)) {
            (Some(rows), Some(columns)) => Ok([rows, columns]),
            _ => Err(Problem::KernelTooLarge { kernel, dilation, padding, input }),
        }
    }

    /// Refuses too many values in all windows of an output channel, each of which sees `seen` input
    /// channels.
    fn bounded(&self, seen: usize, positions: usize) -> Result<(), Problem> {
        let taps = [seen, self.kernel[0], self.kernel[1]].iter().map(|&size| size as u128).product();
        let positions = positions as u128;
        if taps * positions > MAX_WINDOW_VALUES { Err(Problem::Windows { taps, positions }) } else { Ok(()) }
    }
}

/// Channels, and rows and columns.
fn image(kind: &str, input: Shape) -> Result<(usize, [usize; 2]), Problem> {
    match input {
        Shape::Image { channels, height, width } => Ok((channels, [height, width])),
        Shape::Flat(_) => Err(Problem::NeedsImage { kind: kind.into(), input }),
    }
}

/// Shape of a dense layer's weights.
pub(crate) fn dense(input: Shape, out_features: usize) -> Result<[usize; 2], Problem> {
    dimension("out_features", out_features, 1)?;
    match input {
        Shape::Flat(in_features) => Ok([out_features, in_features]),
        Shape::Image { .. } => Err(Problem::NeedsFlat { input }),
    }
}

/// Checks coefficients and rounds those of single channels to f32, as the weight file holds them.
fn polynomial(coefficients: &mut [Vec<f64>], input: Shape) -> Result<(), Problem> {
    let (rows, channels) = (coefficients.len(), input.channels());
    if rows != 1 && rows != channels {
        return Err(Problem::CoefficientRows { rows, channels });
    }
    if rows > 1 {
        coefficients.iter_mut().flatten().for_each(|c| *c = f64::from(*c as f32));
    }
    let length = coefficients[0].len();
    let proper = |row: &Vec<f64>| {
        row.len() == length && (2..=MAX_COEFFICIENTS).contains(&length) && row.iter().all(|c| c.is_finite())
    };
    if let Some(channel) = coefficients.iter().position(|row| !proper(row)) {
        let found = coefficients[channel].clone();
        return Err(if rows > 1 {
            Problem::ChannelCoefficients { channel, length, found }
        } else {
            Problem::Coefficients { found }
        });
    }
    match coefficients.iter().all(|row| row[length - 1] == 0.0) {
        false => Ok(()),
        true if rows > 1 => Err(Problem::NoDegree { degree: length - 1 }),
        true => Err(Problem::Coefficients { found: coefficients[0].clone() }),
    }
}

/// Checks what is stated of an activation's inputs; its coefficients have so many rows.
fn calibrated(inputs: &Inputs, rows: usize) -> Result<(), Problem> {
    checked_range("range", inputs.range)?;
    checked_histogram("histogram", &inputs.histogram)?;
    let channels = inputs.channels.len();
    if channels == 0 {
        return Ok(());
    }
    let bins = inputs.channels.iter().all(|histogram| histogram.counts.len() == CHANNEL_BINS);
    if rows == 1 || channels != rows || !bins {
        return Err(Problem::ChannelHistograms { found: channels, rows });
    }
    inputs.channels.iter().try_for_each(|histogram| checked_histogram("histogram of a channel", histogram))
}

/// Checks that a tensor of a layer has this shape, without any empty axis, and finite values.
fn tensor<S: Data<Elem = f32>, D: Dimension>(
    layer: &str,
    part: &str,
    values: &ArrayBase<S, D>,
    expected: &[usize],
) -> Result<(), Problem> {
    let tensor = format!("{layer}.{part}");
    if values.shape() != expected {
        return Err(Problem::TensorShape { tensor, expected: expected.to_vec(), actual: values.shape().to_vec() });
    }
    match values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        None => Ok(()),
        Some((index, &value)) => Err(Problem::TensorValue { tensor, index, value, expected: "finite numbers" }),
    }
}

fn dimension(field: &'static str, size: usize, least: usize) -> Result<(), Problem> {
    rules::dimension(field, size.try_into().unwrap_or(i64::MAX), least).map(drop)
}

/// The shape itself if an image of it is small enough; its product is computed in 128 bits.
fn bounded(shape: Shape) -> Result<Shape, Problem> {
    let values = match shape {
        Shape::Image { channels, height, width } => channels as u128 * height as u128 * width as u128,
        Shape::Flat(len) => len as u128,
    };
    if values <= MAX_VALUES as u128 { Ok(shape) } else { Err(Problem::TooManyValues { shape }) }
}
