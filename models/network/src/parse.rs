//! From a description, weights and a calibration to a [`Network`].

use std::collections::HashSet;

use toml::Table;

use crate::calibration::Calibration;
use crate::check::{Builder, Windows, dense, operand_count};
use crate::description::{Description, RawHistogram};
use crate::error::{Invalid, ModelError, Problem};
use crate::fields::Fields;
use crate::fingerprint::digest;
use crate::layer::{Inputs, JOINS, Layer, LayerOp, Padding, Shape, Source};
use crate::network::Network;
use crate::rules::checked_name;
use crate::tensors::Tensors;
use crate::text;

const KINDS: [&str; 13] = [
    "conv2d",
    "avg_pool2d",
    "sum_pool2d",
    "global_avg_pool2d",
    "batch_norm",
    "polynomial",
    "square",
    "add",
    "concat",
    "flatten",
    "identity",
    "dropout",
    "dense",
];

impl Network {
    /// Checks a description, the bytes of its weight file, and those of its calibration file if it names one; `source_name`
    /// appears in errors. A calibration that it does not name is left out.
    ///
    /// # Errors
    /// Names the file, the layer or section and the field, with what was found and what is allowed.
    pub fn parse(
        source_name: &str,
        toml: &str,
        weights: &[u8],
        calibration: Option<&[u8]>,
    ) -> Result<Self, ModelError> {
        Description::parse(source_name, toml)?.network(weights, calibration)
    }
}

impl Description<'_> {
    /// The network of this description and of the bytes of the files that it names.
    ///
    /// # Errors
    /// As [`Network::parse`].
    pub fn network(self, weights: &[u8], calibration: Option<&[u8]>) -> Result<Network, ModelError> {
        let file = self.file;
        checked(self, weights, calibration).map_err(|invalid| ModelError::Invalid { file: file.to_owned(), invalid })
    }
}

fn checked(description: Description<'_>, weights: &[u8], calibration: Option<&[u8]>) -> Result<Network, Invalid> {
    let calibration = calibration.filter(|_| description.calibration.is_some());
    let invalid = |place: String| move |problem| Invalid::new(place, problem);
    let weight_file = format!("weight file {}", description.spec.weights);
    let mut builder = Builder::new(description.spec, description.layers.len())?;
    let mut tensors = Tensors::parse(weights).map_err(invalid(weight_file.clone()))?;
    let name = |table: &Table| table.get("name").and_then(|name| name.as_str()).map(String::from);
    let names: HashSet<String> = description.layers.iter().filter_map(name).collect();
    for (index, table) in description.layers.into_iter().enumerate() {
        let place = match name(&table) {
            Some(name) => format!("layer `{}`", text::name(&name)),
            None => format!("layer {}", index + 1),
        };
        let layer = layer(table, &builder, &names, &mut tensors);
        layer.and_then(|layer| builder.push(layer)).map_err(invalid(place))?;
    }
    let digest = digest(description.text.as_bytes(), weights, calibration);
    let mut network = builder.finish(weights)?.with_digest(digest);
    tensors.finish().map_err(invalid(weight_file))?;
    if let Some(name) = description.calibration {
        let missing = || Problem::Calibration { message: "the file is not there".into() };
        let parsed = calibration.ok_or_else(missing).and_then(|bytes| Calibration::parse(bytes, &mut network));
        network.calibration = Some(parsed.map_err(invalid(format!("calibration file {name}")))?);
    }
    Ok(network)
}

fn layer(table: Table, builder: &Builder, names: &HashSet<String>, tensors: &mut Tensors) -> Result<Layer, Problem> {
    let mut fields = Fields::new(table);
    let name = fields.text("name")?;
    checked_name(&name)?;
    let kind = fields.text("kind")?;
    if !KINDS.contains(&kind.as_str()) {
        return Err(Problem::UnknownKind { kind, allowed: KINDS.join(", ") });
    }
    let input_rms = fields.optional("input_rms", "a number")?;
    let output_range = fields.range("output_range")?;
    let inputs = operands(&mut fields, &kind, builder, names)?;
    operand_count(&kind, inputs.len())?;
    // What a weight must look like follows from the operand, so its shape is needed first.
    let input = builder.shape(inputs[0])?;
    let op = match kind.as_str() {
        "conv2d" => convolution(&mut fields, &name, input, tensors)?,
        "avg_pool2d" | "sum_pool2d" => pool(&mut fields, &kind)?,
        "global_avg_pool2d" => LayerOp::GlobalAvgPool2d,
        "batch_norm" => batch_norm(&mut fields, &name, input, tensors)?,
        "polynomial" => {
            let coefficients = coefficients(&mut fields, &name, input, tensors)?;
            LayerOp::Polynomial { coefficients, inputs: activation_inputs(&mut fields)? }
        }
        "square" => {
            LayerOp::Polynomial { coefficients: vec![SQUARE.to_vec()], inputs: activation_inputs(&mut fields)? }
        }
        "add" => LayerOp::Add,
        "concat" => LayerOp::Concat,
        "flatten" => LayerOp::Flatten,
        "identity" => LayerOp::Identity,
        "dropout" => LayerOp::Dropout,
        _ => {
            let out_features = fields.dimension("out_features")?;
            let weight = tensors.matrix(format!("{name}.weight"), dense(input, out_features)?)?;
            LayerOp::Dense { weight, bias: tensors.optional_vector(format!("{name}.bias"), out_features)? }
        }
    };
    fields.finish(&kind)?;
    Ok(Layer { name, op, inputs, input_rms, output_range })
}

/// The layers that `inputs` names; the layer before, or the image, where the field is missing.
fn operands(
    fields: &mut Fields,
    kind: &str,
    builder: &Builder,
    names: &HashSet<String>,
) -> Result<Vec<Source>, Problem> {
    let (field, expected) = ("inputs", "names of layers");
    let operands: Vec<String> = match fields.optional(field, expected)? {
        Some(operands) => operands,
        None if JOINS.contains(&kind) => return Err(Problem::MissingField { field, expected }),
        None => return Ok(vec![Source::before(builder.layers().len())]),
    };
    let found = |operand: String| match builder.source(&operand) {
        Some(source) => Ok(source),
        None if names.contains(&operand) => {
            Err(Problem::LaterOperand { operand: format!("layer `{}`", text::name(&operand)) })
        }
        None => {
            let earlier: Vec<&str> = builder.layers().iter().rev().take(8).map(|layer| layer.name.as_str()).collect();
            Err(Problem::UnknownOperand { operand: text::name(&operand), earlier: earlier.join(", ") })
        }
    };
    operands.into_iter().map(found).collect()
}

fn convolution(fields: &mut Fields, name: &str, input: Shape, tensors: &mut Tensors) -> Result<LayerOp, Problem> {
    let out_channels = fields.dimension("out_channels")?;
    let kernel = fields.kernel()?;
    let stride = fields.pair("stride", 1)?.unwrap_or([1, 1]);
    let padding: Padding = fields.padding()?;
    let dilation = fields.one_or_two("dilation")?.unwrap_or([1, 1]);
    let groups = fields.optional_dimension("groups")?.unwrap_or(1);
    let (shape, _) = Windows { kernel, stride, padding, dilation }.convolution(input, out_channels, groups)?;
    let weight = tensors.kernels(format!("{name}.weight"), shape)?;
    let bias = tensors.optional_vector(format!("{name}.bias"), out_channels)?;
    Ok(LayerOp::Conv2d { weight, bias, stride, padding, dilation, groups })
}

fn pool(fields: &mut Fields, kind: &str) -> Result<LayerOp, Problem> {
    let kernel = fields.kernel()?;
    let stride = fields.pair("stride", 1)?.unwrap_or(kernel);
    Ok(match kind {
        "avg_pool2d" => LayerOp::AvgPool2d { kernel, stride },
        _ => LayerOp::SumPool2d { kernel, stride },
    })
}

fn batch_norm(fields: &mut Fields, name: &str, input: Shape, tensors: &mut Tensors) -> Result<LayerOp, Problem> {
    let eps: f64 = fields.optional("eps", "a number")?.unwrap_or(1e-5);
    let mut vector = |part: &str| tensors.vector(format!("{name}.{part}"), input.channels());
    let (gamma, beta) = (vector("weight")?, vector("bias")?);
    let (mean, var) = (vector("running_mean")?, vector("running_var")?);
    Ok(LayerOp::BatchNorm { gamma, beta, mean, var, eps })
}

/// The polynomial of the kind `square`.
const SQUARE: [f64; 3] = [0.0, 0.0, 1.0];

/// Of a polynomial, `[channel][degree]`, one row where all channels have the same.
fn coefficients(
    fields: &mut Fields,
    name: &str,
    input: Shape,
    tensors: &mut Tensors,
) -> Result<Vec<Vec<f64>>, Problem> {
    let (tensor, channels) = (format!("{name}.coefficients"), input.channels());
    let expected = "numbers, constant term first; where several channels have coefficients of their own, \
                    they are the tensor NAME.coefficients of the weight file";
    match fields.optional("coefficients", expected)? {
        Some(row) => Ok(vec![row]),
        // One row is for all channels and belongs into the description, also where there is one
        // channel.
        None if channels > 1 && tensors.holds(&tensor) => {
            let rows = tensors.coefficients(tensor, channels)?;
            Ok(rows.rows().into_iter().map(|row| row.iter().map(|&c| c.into()).collect()).collect())
        }
        None => Err(Problem::MissingField { field: "coefficients", expected }),
    }
}

/// What was measured of an activation's inputs, if anything was.
fn activation_inputs(fields: &mut Fields) -> Result<Option<Inputs>, Problem> {
    let range = fields.range("range")?;
    let histogram: Option<RawHistogram> = fields.optional("histogram", "a table with low, high and counts")?;
    match (range, histogram) {
        // Histograms of channels are in the calibration file.
        (Some(range), Some(histogram)) => Ok(Some(Inputs { range, histogram: histogram.into(), channels: Vec::new() })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Problem::MissingField { field: "range", expected: "two numbers [low, high]" }),
        (Some(_), None) => {
            Err(Problem::MissingField { field: "histogram", expected: "a table with low, high and counts" })
        }
    }
}
