//! Pass 1: a network becomes runs of real linear maps between activations.
//!
//! Batch-norm goes into the linear map before it, pooling into the convolution before it; flatten, dropout and identity vanish.

use cryptodl_models::network::{Histogram, Layer, LayerOp, Network, Shape, Source};

use super::limits::{Merging, Weights};
use super::{Geometry, PlanError, RealMap};

/// A polynomial activation as the model file states it.
#[derive(Clone, Debug)]
pub struct RawActivation {
    /// Layer name.
    pub name: String,
    /// Constant term first.
    pub coefficients: Vec<f64>,
    /// Calibrated range of its input.
    pub range: [f64; 2],
    /// Distribution of its input.
    pub histogram: Histogram,
}

/// A run of linear maps, then an activation (none after the last run).
#[derive(Clone, Debug)]
pub struct FoldedStage {
    /// At least one map.
    pub run: Vec<RealMap>,
    /// What follows.
    pub activation: Option<RawActivation>,
}

/// Folds `network`.
///
/// # Errors
/// A network that ends with an activation, or has too many weights.
pub fn fold(network: &Network) -> Result<Vec<FoldedStage>, PlanError> {
    let mut stages = Vec::new();
    let mut run: Vec<RealMap> = Vec::new();
    let mut weights = Weights::default();
    let mut merging = Merging::default();
    for (index, layer) in network.layers.iter().enumerate() {
        let unsupported = |what| PlanError::Unsupported { layer: layer.name.clone(), what };
        if layer.inputs != [Source::before(index)] {
            return Err(unsupported("operands other than the layer before"));
        }
        match &layer.op {
            LayerOp::Flatten | LayerOp::Identity | LayerOp::Dropout => {}
            LayerOp::Polynomial { coefficients, inputs } => {
                if run.is_empty() {
                    run.push(per_channel(layer, &[1.0], &[0.0], &mut weights)?);
                }
                let [coefficients] = &coefficients[..] else {
                    return Err(unsupported("coefficients per channel"));
                };
                let inputs = inputs.as_ref().ok_or_else(|| PlanError::MissingCalibration {
                    layer: layer.name.clone(),
                    field: "range and histogram of its input",
                })?;
                let activation = RawActivation {
                    name: layer.name.clone(),
                    coefficients: coefficients.clone(),
                    range: inputs.range,
                    histogram: inputs.histogram.clone(),
                };
                stages.push(FoldedStage { run: std::mem::take(&mut run), activation: Some(activation) });
            }
            LayerOp::BatchNorm { gamma, beta, mean, var, eps } => {
                let factor: Vec<f64> =
                    gamma.iter().zip(var).map(|(&g, &v)| f64::from(g) / (f64::from(v) + eps).sqrt()).collect();
                let terms = beta.iter().zip(mean).zip(&factor);
                let shift: Vec<f64> = terms.map(|((&b, &m), f)| f64::from(b) - f64::from(m) * f).collect();
                // After a flatten it may have a factor for every value, not for every channel: then it is a map of its own.
                match run.pop_if(|before| before.geometry.channels == factor.len()) {
                    Some(before) => {
                        let mut map = before.then_affine(&factor, &shift);
                        rename(&mut map, layer);
                        run.push(map);
                    }
                    None => run.push(per_channel(layer, &factor, &shift, &mut weights)?),
                }
            }
            LayerOp::AvgPool2d { kernel, stride } => {
                let weight = 1.0 / (kernel[0] * kernel[1]) as f64;
                push_pool(&mut run, pool(layer, *kernel, *stride, weight, &mut weights)?, &mut merging);
            }
            LayerOp::SumPool2d { kernel, stride } => {
                push_pool(&mut run, pool(layer, *kernel, *stride, 1.0, &mut weights)?, &mut merging);
            }
            LayerOp::GlobalAvgPool2d => {
                let [_, height, width] = planes(&layer.input_shape);
                let weight = 1.0 / (height * width) as f64;
                push_pool(&mut run, pool(layer, [height, width], [1, 1], weight, &mut weights)?, &mut merging);
            }
            LayerOp::Add | LayerOp::Concat => return Err(unsupported("several operands")),
            LayerOp::Conv2d { weight, bias, stride, padding, dilation, groups } => {
                if !padding.is_even() || *dilation != [1; 2] || *groups != 1 {
                    return Err(unsupported("groups, dilation or uneven padding"));
                }
                let (channels, _, rows, columns) = weight.dim();
                let geometry = Geometry {
                    input: planes(&layer.input_shape),
                    channels,
                    kernel: [rows, columns],
                    stride: *stride,
                    padding: padding.before,
                    groups: 1,
                };
                weights.add(&layer.name, &geometry)?;
                run.push(weighted(layer, geometry, weight.iter(), bias.as_ref().map(|b| b.iter())));
            }
            LayerOp::Dense { weight, bias } => {
                // The previous map's planes, not the flattened vector: a dense layer is a convolution with a kernel as large as its input.
                let flat = planes(&layer.input_shape);
                let input = run.last().map(|map| map.geometry.output()).unwrap_or_else(|| last_output(&stages, flat));
                let geometry = Geometry {
                    input,
                    channels: weight.nrows(),
                    kernel: [input[1], input[2]],
                    stride: [1, 1],
                    padding: [0, 0],
                    groups: 1,
                };
                weights.add(&layer.name, &geometry)?;
                run.push(weighted(layer, geometry, weight.iter(), bias.as_ref().map(|b| b.iter())));
            }
        }
    }
    if run.is_empty() {
        return Err(PlanError::EndsWithActivation);
    }
    stages.push(FoldedStage { run, activation: None });
    Ok(stages)
}

fn last_output(stages: &[FoldedStage], otherwise: [usize; 3]) -> [usize; 3] {
    stages.last().and_then(|stage| stage.run.last()).map_or(otherwise, |map| map.geometry.output())
}

fn planes(shape: &Shape) -> [usize; 3] {
    match *shape {
        Shape::Image { channels, height, width } => [channels, height, width],
        Shape::Flat(len) => [len, 1, 1],
    }
}

fn rename(map: &mut RealMap, layer: &Layer) {
    map.name = format!("{}+{}", map.name, layer.name);
    map.output_range = layer.output_range;
}

fn weighted<'a>(
    layer: &Layer,
    geometry: Geometry,
    weights: impl Iterator<Item = &'a f32>,
    bias: Option<impl Iterator<Item = &'a f32>>,
) -> RealMap {
    RealMap {
        name: layer.name.clone(),
        weights: weights.map(|&w| w.into()).collect(),
        bias: bias.map_or_else(|| vec![0.0; geometry.channels], |bias| bias.map(|&b| b.into()).collect()),
        geometry,
        input_rms: layer.input_rms,
        output_range: layer.output_range,
        published: layer.multiply_adds(),
    }
}

/// A map of each channel by itself; one factor may stand for all channels.
fn per_channel(layer: &Layer, factor: &[f64], shift: &[f64], weights: &mut Weights) -> Result<RealMap, PlanError> {
    let input = planes(&layer.input_shape);
    let all = |values: &[f64]| (0..input[0]).map(|c| values[c % values.len()]).collect();
    let geometry =
        Geometry { input, channels: input[0], kernel: [1, 1], stride: [1, 1], padding: [0, 0], groups: input[0] };
    weights.add(&layer.name, &geometry)?;
    Ok(RealMap {
        name: layer.name.clone(),
        geometry,
        weights: all(factor),
        bias: all(shift),
        input_rms: layer.input_rms,
        output_range: layer.output_range,
        published: 0,
    })
}

fn pool(
    layer: &Layer,
    kernel: [usize; 2],
    stride: [usize; 2],
    weight: f64,
    weights: &mut Weights,
) -> Result<RealMap, PlanError> {
    let input = planes(&layer.input_shape);
    let geometry = Geometry { input, channels: input[0], kernel, stride, padding: [0, 0], groups: input[0] };
    weights.add(&layer.name, &geometry)?;
    Ok(RealMap {
        name: layer.name.clone(),
        weights: vec![weight; geometry.channels * geometry.taps()],
        bias: vec![0.0; geometry.channels],
        geometry,
        input_rms: layer.input_rms,
        output_range: layer.output_range,
        published: 0,
    })
}

/// Pooling after a convolution is folded into it, unless it is too large for that; after an activation it stays a map of its own.
fn push_pool(run: &mut Vec<RealMap>, pool: RealMap, merging: &mut Merging) {
    match run.pop_if(|before| merging.allows(before, &pool)) {
        Some(before) => run.push(before.merge(&pool)),
        None => run.push(pool),
    }
}
