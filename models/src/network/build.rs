//! From a description and weights to a [`Network`]: every layer is checked against the shape that reaches it.

use std::collections::HashSet;

use toml::Table;

use super::calibration::Calibration;
use super::description::{Description, RawHistogram};
use super::fields::{Fields, checked_histogram, checked_name};
use super::tensors::Tensors;
use super::{InputSpec, Inputs, Layer, LayerOp, MAX_VALUES, MAX_WINDOW_VALUES, ModelError, Network, Problem, Shape};
use crate::text;

const KINDS: [&str; 9] =
    ["conv2d", "avg_pool2d", "sum_pool2d", "batch_norm", "polynomial", "flatten", "identity", "dropout", "dense"];
const MAX_COEFFICIENTS: usize = 64;

pub(super) fn network(
    file: &str,
    description: Description,
    toml: &str,
    weights: &[u8],
    calibration: Option<&[u8]>,
) -> Result<Network, ModelError> {
    let invalid = |place: &str| {
        let place = place.to_owned();
        move |problem| ModelError::Invalid { file: file.to_owned(), place, problem: Box::new(problem) }
    };
    let weight_file = format!("weight file {}", description.weights);
    let mut tensors = Tensors::parse(weights).map_err(invalid(&weight_file))?;
    let mut shape = input_shape(&description.input).map_err(invalid("[input]"))?;
    let mut names = HashSet::new();
    let mut layers = Vec::with_capacity(description.layers.len());
    for (index, table) in description.layers.into_iter().enumerate() {
        let mut place = format!("layer {}", index + 1);
        if let Some(name) = table.get("name").and_then(|name| name.as_str()) {
            place = format!("layer `{}`", text::name(name));
        }
        let layer = layer(table, shape, &mut tensors).map_err(invalid(&place))?;
        if !names.insert(layer.name.clone()) {
            return Err(invalid(&place)(Problem::DuplicateName));
        }
        shape = layer.output_shape;
        layers.push(layer);
    }
    if !matches!(shape, Shape::Flat(2..)) {
        return Err(invalid("[[layer]]")(Problem::NoLogits { output: shape }));
    }
    tensors.finish().map_err(invalid(&weight_file))?;
    let fingerprint = fingerprint(&description.input, &layers, weights);
    let calibrated = match (&description.calibration, calibration) {
        (None, _) => None,
        (Some(name), None) => {
            let problem = Problem::Calibration { message: "the file is not there".into() };
            return Err(invalid(&format!("calibration file {name}"))(problem));
        }
        (Some(name), Some(bytes)) => {
            let place = format!("calibration file {name}");
            Some(Calibration::parse(bytes, &fingerprint).map_err(invalid(&place))?)
        }
    };
    Ok(Network {
        name: description.name,
        title: description.title,
        dataset: description.dataset,
        input: description.input,
        weights: description.weights,
        accuracy: description.accuracy,
        layers,
        tolerance: description.tolerance,
        output: description.output,
        calibration: calibrated,
        fingerprint,
        digest: digest(toml.as_bytes(), weights, calibration),
    })
}

/// What a calibration belongs to: all that the network computes.
fn fingerprint(input: &InputSpec, layers: &[Layer], weights: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"cryptodl network v1");
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    };
    let mut numbers = |numbers: &[f64]| add(&numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    numbers(&input.shape.map(|size| size as f64));
    numbers(&input.range);
    for layer in layers {
        numbers(&[layer.output_shape.len() as f64]);
        match &layer.op {
            LayerOp::Conv2d { weight, stride, padding, .. } => {
                let (a, b, c, d) = weight.dim();
                numbers(&[a, b, c, d, stride[0], stride[1], padding[0], padding[1]].map(|size| size as f64));
            }
            LayerOp::AvgPool2d { kernel, stride } | LayerOp::SumPool2d { kernel, stride } => {
                numbers(&[kernel[0], kernel[1], stride[0], stride[1]].map(|size| size as f64));
            }
            LayerOp::BatchNorm { eps, .. } => numbers(&[*eps]),
            LayerOp::Polynomial { coefficients, .. } => numbers(coefficients),
            LayerOp::Flatten | LayerOp::Identity | LayerOp::Dropout | LayerOp::Dense { .. } => {}
        }
    }
    for layer in layers {
        add(layer.name.as_bytes());
        add(layer.op.kind().as_bytes());
    }
    add(weights);
    *hasher.finalize().as_bytes()
}

fn digest(description: &[u8], weights: &[u8], calibration: Option<&[u8]>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in [description, weights].into_iter().chain(calibration) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}

fn input_shape(input: &InputSpec) -> Result<Shape, Problem> {
    let [channels, height, width] = input.shape;
    bounded(Shape::Image { channels, height, width })
}

/// The shape itself if an image of it is small enough; dimensions are at most 2^16 (times 2^16 in a padded map), so
/// that the product is computed in 128 bits.
fn bounded(shape: Shape) -> Result<Shape, Problem> {
    let values = match shape {
        Shape::Image { channels, height, width } => channels as u128 * height as u128 * width as u128,
        Shape::Flat(len) => len as u128,
    };
    if values <= MAX_VALUES as u128 { Ok(shape) } else { Err(Problem::TooManyValues { shape }) }
}

fn layer(table: Table, input: Shape, tensors: &mut Tensors) -> Result<Layer, Problem> {
    let mut fields = Fields::new(table);
    let name = checked_name(fields.text("name")?)?;
    let kind = fields.text("kind")?;
    let input_rms = fields.optional("input_rms", "a number")?;
    if let Some(found) = input_rms.filter(|rms: &f64| !(rms.is_finite() && *rms > 0.0)) {
        return Err(Problem::Number { field: "input_rms", found, expected: "a finite number greater than zero" });
    }
    let output_range = fields.range("output_range")?;
    let (op, output_shape) = match kind.as_str() {
        "conv2d" => convolution(&mut fields, &name, input, tensors)?,
        "avg_pool2d" | "sum_pool2d" => pool(&mut fields, &kind, input)?,
        "batch_norm" => (batch_norm(&mut fields, &name, input, tensors)?, input),
        "polynomial" => (polynomial(&mut fields)?, input),
        "flatten" => (LayerOp::Flatten, Shape::Flat(input.len())),
        "identity" => (LayerOp::Identity, input),
        "dropout" => (LayerOp::Dropout, input),
        "dense" => dense(&mut fields, &name, input, tensors)?,
        _ => return Err(Problem::UnknownKind { kind, allowed: KINDS.join(", ") }),
    };
    fields.finish(&kind)?;
    Ok(Layer { name, op, input_rms, output_range, input_shape: input, output_shape })
}

fn convolution(
    fields: &mut Fields,
    name: &str,
    input: Shape,
    tensors: &mut Tensors,
) -> Result<(LayerOp, Shape), Problem> {
    let out_channels = fields.dimension("out_channels")?;
    let kernel = fields.kernel()?;
    let stride = fields.pair("stride", 1)?.unwrap_or([1, 1]);
    let padding = fields.pair("padding", 0)?.unwrap_or([0, 0]);
    let (in_channels, output) = windows("conv2d", input, kernel, stride, padding, Some(out_channels))?;
    check_windows(in_channels, kernel, out_channels, output)?;
    let weight = tensors.kernels(format!("{name}.weight"), [out_channels, in_channels, kernel[0], kernel[1]])?;
    let bias = tensors.optional_vector(format!("{name}.bias"), out_channels)?;
    Ok((LayerOp::Conv2d { weight, bias, stride, padding }, output))
}

fn pool(fields: &mut Fields, kind: &str, input: Shape) -> Result<(LayerOp, Shape), Problem> {
    let kernel = fields.kernel()?;
    let stride = fields.pair("stride", 1)?.unwrap_or(kernel);
    let (channels, output) = windows(kind, input, kernel, stride, [0, 0], None)?;
    check_windows(1, kernel, channels, output)?;
    let op = match kind {
        "avg_pool2d" => LayerOp::AvgPool2d { kernel, stride },
        _ => LayerOp::SumPool2d { kernel, stride },
    };
    Ok((op, output))
}

/// Refuses too many values in all windows of an output channel, each of which sees `seen` input channels.
fn check_windows(seen: usize, kernel: [usize; 2], out_channels: usize, output: Shape) -> Result<(), Problem> {
    let taps = [seen, kernel[0], kernel[1]].iter().map(|&size| size as u128).product();
    let positions = output.len() as u128 / out_channels as u128;
    if taps * positions > MAX_WINDOW_VALUES { Err(Problem::Windows { taps, positions }) } else { Ok(()) }
}

/// Input channels, and the shape of what a sliding window produces; `out_channels` defaults to the input's.
fn windows(
    kind: &str,
    input: Shape,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    out_channels: Option<usize>,
) -> Result<(usize, Shape), Problem> {
    let Shape::Image { channels, height, width } = input else {
        return Err(Problem::NeedsImage { kind: kind.into(), input });
    };
    let positions = |size: usize, axis: usize| {
        (size + 2 * padding[axis]).checked_sub(kernel[axis]).map(|room| room / stride[axis] + 1)
    };
    let (Some(rows), Some(columns)) = (positions(height, 0), positions(width, 1)) else {
        return Err(Problem::KernelTooLarge { kernel, padding, input });
    };
    let output = Shape::Image { channels: out_channels.unwrap_or(channels), height: rows, width: columns };
    Ok((channels, bounded(output)?))
}

fn batch_norm(fields: &mut Fields, name: &str, input: Shape, tensors: &mut Tensors) -> Result<LayerOp, Problem> {
    let eps: f64 = fields.optional("eps", "a number")?.unwrap_or(1e-5);
    if !(eps.is_finite() && eps > 0.0) {
        return Err(Problem::Number { field: "eps", found: eps, expected: "a finite number greater than zero" });
    }
    let len = match input {
        Shape::Image { channels, .. } => channels,
        Shape::Flat(len) => len,
    };
    let mut vector = |part: &str| tensors.vector(format!("{name}.{part}"), len);
    let (gamma, beta) = (vector("weight")?, vector("bias")?);
    let (mean, var) = (vector("running_mean")?, vector("running_var")?);
    if let Some((index, &value)) = var.iter().enumerate().find(|(_, value)| **value < 0.0) {
        let tensor = format!("{name}.running_var");
        return Err(Problem::TensorValue { tensor, index, value, expected: "variances of zero or more" });
    }
    Ok(LayerOp::BatchNorm { gamma, beta, mean, var, eps })
}

fn polynomial(fields: &mut Fields) -> Result<LayerOp, Problem> {
    let coefficients: Vec<f64> = fields.required("coefficients", "numbers, constant term first")?;
    let proper = (2..=MAX_COEFFICIENTS).contains(&coefficients.len())
        && coefficients.iter().all(|c| c.is_finite())
        && coefficients.last() != Some(&0.0);
    if !proper {
        return Err(Problem::Coefficients { found: coefficients });
    }
    let range = fields.range("range")?;
    let histogram: Option<RawHistogram> = fields.optional("histogram", "a table with low, high and counts")?;
    let histogram = histogram.map(|histogram| checked_histogram("histogram", histogram.into())).transpose()?;
    let inputs = match (range, histogram) {
        (Some(range), Some(histogram)) => Some(Inputs { range, histogram }),
        (None, None) => None,
        (None, Some(_)) => {
            return Err(Problem::MissingField { field: "range", expected: "two numbers [low, high]" });
        }
        (Some(_), None) => {
            let expected = "a table with low, high and counts";
            return Err(Problem::MissingField { field: "histogram", expected });
        }
    };
    Ok(LayerOp::Polynomial { coefficients, inputs })
}

fn dense(fields: &mut Fields, name: &str, input: Shape, tensors: &mut Tensors) -> Result<(LayerOp, Shape), Problem> {
    let out_features = fields.dimension("out_features")?;
    let Shape::Flat(in_features) = input else {
        return Err(Problem::NeedsFlat { input });
    };
    let weight = tensors.matrix(format!("{name}.weight"), [out_features, in_features])?;
    let bias = tensors.optional_vector(format!("{name}.bias"), out_features)?;
    Ok((LayerOp::Dense { weight, bias }, Shape::Flat(out_features)))
}
