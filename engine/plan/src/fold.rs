//! Pass 1: a network becomes stages, each a sum of branches of real linear maps and then an
//! activation.
//!
//! Batch-norm goes into the linear map before it, pooling into the convolution before it; flatten,
//! dropout and identity vanish. A join is the sum of a stage's branches. Concatenation needs no
//! step: what is linear in the whole is a sum over the parts, and an activation takes each part by
//! itself.

use cryptodl_network::{Histogram, Layer, LayerOp, Network, Shape, Source};

use super::limits::{Merging, Weights};
use super::{PlanError, RealMap};
use cryptodl_program::Geometry;

/// A polynomial activation as the model file states it.
#[derive(Clone, Debug)]
pub struct RawActivation {
    /// Layer name.
    pub name: String,
    /// One row for all channels, or one for each; constant term first.
    pub coefficients: Vec<Vec<f64>>,
    /// Calibrated range of its input.
    pub range: [f64; 2],
    /// Distribution of its input.
    pub histogram: Histogram,
    /// The same for each channel, where coefficients are per channel and this is known.
    pub channels: Vec<Histogram>,
}

/// A variable and the linear maps that it goes through before it is added to others.
#[derive(Clone, Debug)]
pub struct Branch {
    /// 0 is the network's input, `i + 1` what stage `i` leaves.
    pub variable: usize,
    /// At least one.
    pub maps: Vec<RealMap>,
}

/// A sum of branches, then an activation (none after the last stage, and none where several later
/// stages take the sum itself).
#[derive(Clone, Debug)]
pub struct FoldedStage {
    /// Name of the layer whose output the sum is.
    pub name: String,
    /// At least one.
    pub branches: Vec<Branch>,
    /// Smallest and largest value of the sum, where the model file states it.
    pub range: Option<[f64; 2]>,
    /// What follows.
    pub activation: Option<RawActivation>,
}

/// Folds `network`.
///
/// # Errors
/// A network that ends with an activation, or has too many weights.
pub fn fold(network: &Network) -> Result<Vec<FoldedStage>, PlanError> {
    let mut readers = vec![0usize; network.layers.len()];
    for source in network.layers.iter().flat_map(|layer| &layer.inputs) {
        if let Source::Layer(at) = source {
            readers[*at] += 1;
        }
    }
    let mut folder = Folder { network, stages: Vec::new(), weights: Weights::default(), merging: Merging::default() };
    let mut outputs: Vec<Parts> = Vec::with_capacity(network.layers.len());
    for (index, (layer, output)) in network.outputs().enumerate() {
        let operands = layer.inputs.iter().map(|source| match source {
            Source::Input => folder.input(),
            Source::Layer(at) => outputs[*at].clone(),
        });
        let operands: Vec<Parts> = operands.collect();
        let mut parts = folder.layer(layer, output, operands)?;
        if readers[index] > 1 {
            for part in &mut parts.0 {
                folder.materialise(part);
            }
        }
        outputs.push(parts);
    }
    let mut last = outputs.pop().map(|parts| folder.whole(parts)).transpose()?.ok_or(PlanError::EndsWithActivation)?;
    if last.terms.iter().any(|term| term.maps.is_empty()) && last.terms.len() == 1 {
        return Err(PlanError::EndsWithActivation);
    }
    folder.stage(&mut last, None);
    Ok(folder.stages)
}

/// What a layer leaves, in parts that follow each other along the channels.
#[derive(Clone)]
struct Parts(Vec<Part>);

/// A sum of terms.
#[derive(Clone)]
struct Part {
    name: String,
    terms: Vec<Term>,
    /// Channels, rows, columns.
    shape: [usize; 3],
    /// Calibrated range and root mean square.
    range: Option<[f64; 2]>,
    rms: Option<f64>,
}

/// A variable and what it goes through; nothing is the variable itself.
#[derive(Clone)]
struct Term {
    variable: usize,
    maps: Vec<RealMap>,
}

impl Part {
    fn variable(name: &str, variable: usize, shape: [usize; 3]) -> Self {
        Part { name: name.into(), terms: vec![Term { variable, maps: Vec::new() }], shape, range: None, rms: None }
    }

    fn values(&self) -> usize {
        self.shape.iter().product()
    }

    fn is_variable(&self) -> bool {
        matches!(&self.terms[..], [Term { maps, .. }] if maps.is_empty())
    }
}

struct Folder<'a> {
    network: &'a Network,
    stages: Vec<FoldedStage>,
    weights: Weights,
    merging: Merging,
}

impl Folder<'_> {
    fn input(&self) -> Parts {
        Parts(vec![Part::variable("input", 0, self.network.input.shape)])
    }

    fn layer(&mut self, layer: &Layer, output: Shape, mut operands: Vec<Parts>) -> Result<Parts, PlanError> {
        let rms = self.rms_after(layer);
        let mut parts = match &layer.op {
            LayerOp::Add => return self.add(layer, operands),
            LayerOp::Concat => return Ok(Parts(operands.into_iter().flat_map(|operand| operand.0).collect())),
            _ => operands.swap_remove(0),
        };
        match &layer.op {
            LayerOp::Add | LayerOp::Concat => unreachable!("returned above"),
            LayerOp::Flatten | LayerOp::Identity | LayerOp::Dropout => {
                // The image itself has no planes that a map made.
                if let [part] = &mut parts.0[..]
                    && part.is_variable()
                    && part.terms[0].variable == 0
                {
                    part.shape = planes(&output);
                }
            }
            LayerOp::Polynomial { coefficients, inputs } => {
                let inputs = inputs.as_ref().ok_or_else(|| PlanError::MissingCalibration {
                    layer: layer.name.clone(),
                    field: "range and histogram of its input",
                })?;
                let (mut first, count) = (0, parts.0.len());
                for (i, part) in parts.0.iter_mut().enumerate() {
                    // Of flattened values, each is a channel.
                    let shape = match (count, self.network.input_shape(layer)) {
                        (1, input) => planes(&input),
                        (_, Shape::Flat(_)) => [part.values(), 1, 1],
                        (_, Shape::Image { .. }) => part.shape,
                    };
                    if (count == 1 && part.is_variable()) || coefficients.len() > 1 {
                        self.reshape(part, layer, shape)?;
                    }
                    let channels = first..first + part.shape[0];
                    first = channels.end;
                    let name = if count == 1 { layer.name.clone() } else { format!("{}[{i}]", layer.name) };
                    let of_part = |len: usize| if len > 1 { channels.clone() } else { 0..len };
                    let activation = RawActivation {
                        name: name.clone(),
                        coefficients: coefficients[of_part(coefficients.len())].to_vec(),
                        range: inputs.range,
                        histogram: inputs.histogram.clone(),
                        channels: inputs.channels.get(channels.clone()).unwrap_or_default().to_vec(),
                    };
                    self.complete_before(part, layer)?;
                    self.stage(part, Some(activation));
                    part.name = name;
                }
            }
            LayerOp::BatchNorm { gamma, beta, mean, var, eps } => {
                let factor: Vec<f64> =
                    gamma.iter().zip(var).map(|(&g, &v)| f64::from(g) / (f64::from(v) + eps).sqrt()).collect();
                let terms = beta.iter().zip(mean).zip(&factor);
                let shift: Vec<f64> = terms.map(|((&b, &m), f)| f64::from(b) - f64::from(m) * f).collect();
                let flat = planes(&self.network.input_shape(layer));
                let mut first = 0;
                for part in &mut parts.0 {
                    // After a flatten it may have a factor for every value, not for every channel.
                    let channels = if flat[1..] == [1, 1] { part.values() } else { part.shape[0] };
                    let (factor, shift) = (&factor[first..first + channels], &shift[first..first + channels]);
                    first += channels;
                    for (i, term) in part.terms.iter_mut().enumerate() {
                        // A sum is shifted once.
                        let none = vec![0.0; channels];
                        let shift = if i == 0 { shift } else { &none };
                        match term.maps.pop_if(|before| before.geometry.channels == factor.len()) {
                            Some(before) => {
                                let mut map = before.then_affine(factor, shift);
                                rename(&mut map, layer);
                                term.maps.push(map);
                            }
                            None => {
                                let input = if channels == part.shape[0] { part.shape } else { [channels, 1, 1] };
                                term.maps.push(self.diagonal(layer, input, factor, shift)?);
                                part.shape = input;
                            }
                        }
                    }
                    (part.name, part.range) = (layer.name.clone(), layer.output_range);
                }
            }
            LayerOp::AvgPool2d { kernel, stride } => {
                self.pool(layer, &mut parts, *kernel, *stride, 1.0 / (kernel[0] * kernel[1]) as f64)?;
            }
            LayerOp::SumPool2d { kernel, stride } => self.pool(layer, &mut parts, *kernel, *stride, 1.0)?,
            LayerOp::GlobalAvgPool2d => {
                let [_, height, width] = planes(&self.network.input_shape(layer));
                self.pool(layer, &mut parts, [height, width], [1, 1], 1.0 / (height * width) as f64)?;
            }
            LayerOp::Conv2d { weight, bias, stride, padding, dilation, groups } => {
                let (channels, inputs, rows, columns) = weight.dim();
                if *groups > 1 {
                    parts = Parts(vec![self.whole(parts)?]);
                }
                let geometry = |input: [usize; 3]| Geometry {
                    input,
                    channels,
                    kernel: [rows, columns],
                    stride: *stride,
                    padding: padding.before,
                    padding_after: padding.after,
                    dilation: *dilation,
                    groups: *groups,
                };
                let weights = weight.iter().map(|&w| f64::from(w)).collect();
                let bias = bias.as_ref().map(|bias| bias.iter().map(|&b| f64::from(b)).collect());
                let inputs = inputs * rows * columns;
                parts = self.weighted(layer, parts, geometry, weights, bias, inputs, rows * columns)?;
            }
            LayerOp::Dense { weight, bias } => {
                // The planes before the flatten: a dense layer is a convolution with a kernel as large as its input.
                let geometry = |input: [usize; 3]| Geometry {
                    kernel: [input[1], input[2]],
                    ..Geometry::pointwise(input, weight.nrows())
                };
                let weights = weight.iter().map(|&w| f64::from(w)).collect();
                let bias = bias.as_ref().map(|bias| bias.iter().map(|&b| f64::from(b)).collect());
                parts = self.weighted(layer, parts, geometry, weights, bias, weight.ncols(), 1)?;
            }
        }
        if let [part] = &mut parts.0[..] {
            part.rms = rms;
        }
        Ok(parts)
    }

    /// Root mean square of what a layer leaves, as a layer that takes it states.
    fn rms_after(&self, layer: &Layer) -> Option<f64> {
        let at = self.network.layers.iter().position(|other| std::ptr::eq(other, layer))?;
        let takes = |reader: &&Layer| reader.inputs.contains(&Source::Layer(at));
        let readers = || self.network.layers.iter().filter(takes);
        // What a join states is of all its operands together.
        let alone = readers().filter(|reader| reader.inputs.len() == 1).find_map(|reader| reader.input_rms);
        alone.or_else(|| readers().find_map(|reader| reader.input_rms))
    }

    /// A sum of what is there already.
    fn add(&mut self, layer: &Layer, operands: Vec<Parts>) -> Result<Parts, PlanError> {
        let shapes = |parts: &Parts| parts.0.iter().map(|part| part.shape).collect::<Vec<_>>();
        let alike = operands.windows(2).all(|pair| shapes(&pair[0]) == shapes(&pair[1]));
        let mut sum: Option<Parts> = None;
        for operand in operands {
            let operand = match alike {
                true => operand,
                // Flattened values may come from other planes than those that they meet.
                false => {
                    let mut whole = self.whole(operand)?;
                    self.reshape(&mut whole, layer, planes(&self.network.input_shape(layer)))?;
                    Parts(vec![whole])
                }
            };
            sum = Some(match sum {
                None => operand,
                Some(mut sum) => {
                    for (sum, part) in sum.0.iter_mut().zip(operand.0) {
                        self.complete(sum, layer)?;
                        let mut part = part;
                        self.complete(&mut part, layer)?;
                        sum.terms.extend(part.terms);
                    }
                    sum
                }
            });
        }
        let mut sum = sum.expect("a sum has operands");
        let rms = self.rms_after(layer);
        for part in &mut sum.0 {
            (part.name, part.range, part.rms) = (layer.name.clone(), layer.output_range, rms);
        }
        Ok(sum)
    }

    /// The same values as other channels, rows and columns.
    fn reshape(&mut self, part: &mut Part, layer: &Layer, shape: [usize; 3]) -> Result<(), PlanError> {
        if part.shape != shape {
            part.shape = shape;
            for term in part.terms.iter_mut().filter(|term| !term.maps.is_empty()) {
                let ones = vec![1.0; shape[0]];
                term.maps.push(self.diagonal(layer, shape, &ones, &vec![0.0; shape[0]])?);
            }
        }
        Ok(())
    }

    /// Gives every bare variable of a sum a map of ones.
    fn complete(&mut self, part: &mut Part, layer: &Layer) -> Result<(), PlanError> {
        let (shape, rms, range) = (part.shape, part.rms, part.range);
        for term in part.terms.iter_mut().filter(|term| term.maps.is_empty()) {
            let mut map = self.diagonal(layer, shape, &vec![1.0; shape[0]], &vec![0.0; shape[0]])?;
            map.name = format!("{}({})", layer.name, part.name);
            map.input_rms = rms.or_else(|| range.map(magnitude)).or(layer.input_rms);
            map.output_range = range;
            term.maps.push(map);
        }
        Ok(())
    }

    /// The same before an activation, whose layer knows the values.
    fn complete_before(&mut self, part: &mut Part, layer: &Layer) -> Result<(), PlanError> {
        let shape = part.shape;
        for term in part.terms.iter_mut().filter(|term| term.maps.is_empty()) {
            term.maps.push(self.diagonal(layer, shape, &vec![1.0; shape[0]], &vec![0.0; shape[0]])?);
        }
        Ok(())
    }

    /// Ends a stage; the part becomes its variable.
    fn stage(&mut self, part: &mut Part, activation: Option<RawActivation>) {
        let terms = std::mem::take(&mut part.terms);
        let shape = terms[0].maps.last().map_or(part.shape, |map| map.geometry.output());
        let branches = terms.into_iter().map(|Term { variable, maps }| Branch { variable, maps }).collect();
        self.stages.push(FoldedStage { name: part.name.clone(), branches, range: part.range, activation });
        let (range, rms) = (part.range, part.rms);
        *part = Part { range, rms, ..Part::variable(&part.name, self.stages.len(), shape) };
    }

    /// Makes a variable of what several layers take, so that it is computed once.
    fn materialise(&mut self, part: &mut Part) {
        if !part.is_variable() {
            self.stage(part, None);
        }
    }

    /// One part of a value that may have several: a sum of the parts, each moved to its channels.
    fn whole(&mut self, mut parts: Parts) -> Result<Part, PlanError> {
        if parts.0.len() == 1 {
            return Ok(parts.0.remove(0));
        }
        if parts.0.windows(2).any(|pair| pair[0].shape[1..] != pair[1].shape[1..]) {
            // Flattened values of different planes.
            parts.0.iter_mut().for_each(|part| part.shape = [part.values(), 1, 1]);
        }
        let channels: usize = parts.0.iter().map(|part| part.shape[0]).sum();
        let (mut terms, mut first) = (Vec::new(), 0);
        let [_, height, width] = parts.0[0].shape;
        let name = parts.0.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join("&");
        for part in &mut parts.0 {
            if part.terms.len() > 1 {
                self.materialise(part);
            }
            let Term { variable, mut maps } = part.terms.remove(0);
            let geometry = Geometry::pointwise(part.shape, channels);
            self.weights.add(&part.name, &geometry)?;
            let mut map = RealMap {
                name: format!("{name}({})", part.name),
                weights: vec![0.0; channels * part.shape[0]],
                bias: vec![0.0; channels],
                geometry,
                input_rms: part.rms.or_else(|| part.range.map(magnitude)),
                output_range: part.range,
                layer_multiply_adds: 0,
            };
            (0..part.shape[0]).for_each(|c| map.weights[(first + c) * part.shape[0] + c] = 1.0);
            first += part.shape[0];
            maps.push(map);
            terms.push(Term { variable, maps });
        }
        let hull = |a: [f64; 2], b: [f64; 2]| [a[0].min(b[0]), a[1].max(b[1])];
        let ranges: Option<Vec<[f64; 2]>> = parts.0.iter().map(|part| part.range).collect();
        let range = ranges.and_then(|ranges| ranges.into_iter().reduce(hull));
        Ok(Part { name, terms, shape: [channels, height, width], range, rms: None })
    }

    fn pool(
        &mut self,
        layer: &Layer,
        parts: &mut Parts,
        kernel: [usize; 2],
        stride: [usize; 2],
        weight: f64,
    ) -> Result<(), PlanError> {
        for part in &mut parts.0 {
            let geometry = Geometry { kernel, stride, ..Geometry::diagonal(part.shape) };
            for term in &mut part.terms {
                self.weights.add(&layer.name, &geometry)?;
                let pool = RealMap {
                    name: layer.name.clone(),
                    weights: vec![weight; geometry.channels * geometry.taps()],
                    bias: vec![0.0; geometry.channels],
                    geometry: geometry.clone(),
                    input_rms: layer.input_rms,
                    output_range: layer.output_range,
                    layer_multiply_adds: 0,
                };
                push_pool(&mut term.maps, pool, &mut self.merging);
            }
            part.shape = geometry.output();
            (part.name, part.range) = (layer.name.clone(), layer.output_range);
        }
        Ok(())
    }

    /// A convolution or dense layer, whose `[channel][tap]` weights see `per_channel` taps of each input channel (of each value, for a
    /// dense layer): a sum over the parts.
    #[expect(clippy::too_many_arguments, reason = "what two kinds of layers differ in")]
    fn weighted(
        &mut self,
        layer: &Layer,
        parts: Parts,
        geometry: impl Fn([usize; 3]) -> Geometry,
        weights: Vec<f64>,
        bias: Option<Vec<f64>>,
        taps: usize,
        per_channel: usize,
    ) -> Result<Parts, PlanError> {
        let (mut terms, mut first, count) = (Vec::new(), 0, parts.0.len());
        let mut shape = [0; 3];
        for (i, mut part) in parts.0.into_iter().enumerate() {
            if part.terms.len() > 1 {
                self.materialise(&mut part);
            }
            let geometry = geometry(part.shape);
            self.weights.add(&layer.name, &geometry)?;
            let len = geometry.taps();
            debug_assert!(count == 1 || len.is_multiple_of(per_channel), "whole channels");
            let weights = weights.chunks_exact(taps).flat_map(|row| &row[first..first + len]).copied().collect();
            first += len;
            let channels = geometry.channels;
            shape = geometry.output();
            let Term { variable, mut maps } = part.terms.remove(0);
            maps.push(RealMap {
                name: if count == 1 { layer.name.clone() } else { format!("{}({})", layer.name, part.name) },
                geometry,
                weights,
                bias: bias.clone().filter(|_| i == 0).unwrap_or_else(|| vec![0.0; channels]),
                input_rms: layer.input_rms,
                output_range: layer.output_range,
                layer_multiply_adds: if i == 0 { layer.op.multiply_adds(shape.iter().product()) } else { 0 },
            });
            terms.push(Term { variable, maps });
        }
        let range = layer.output_range;
        Ok(Parts(vec![Part { name: layer.name.clone(), terms, shape, range, rms: None }]))
    }

    /// A map of each channel by itself.
    fn diagonal(
        &mut self,
        layer: &Layer,
        input: [usize; 3],
        factor: &[f64],
        shift: &[f64],
    ) -> Result<RealMap, PlanError> {
        let map = RealMap::diagonal(layer.name.clone(), input, factor.to_vec(), shift.to_vec());
        self.weights.add(&layer.name, &map.geometry)?;
        Ok(RealMap { input_rms: layer.input_rms, output_range: layer.output_range, ..map })
    }
}

fn magnitude(range: [f64; 2]) -> f64 {
    range[0].abs().max(range[1].abs())
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

/// Pooling after a convolution is folded into it, unless it is too large for that; after an activation it stays a map of its own.
fn push_pool(maps: &mut Vec<RealMap>, pool: RealMap, merging: &mut Merging) {
    match maps.pop_if(|before| before.merges_with(&pool) && merging.allows(before, &pool)) {
        Some(before) => maps.push(before.merge(&pool)),
        None => maps.push(pool),
    }
}
