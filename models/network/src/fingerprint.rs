//! Digests of a network: of what it computes, and of its files.

use crate::layer::{Layer, LayerOp, Padding, Shape, Source};
use crate::spec::InputSpec;

/// What a calibration belongs to: all that the network computes. Each layer comes with the shape of
/// its output.
///
/// What lines of plain layers do not have comes last, and only where a network has it, so that
/// calibrations of such lines keep their fingerprint.
pub(crate) fn fingerprint(input: &InputSpec, layers: &[Layer], outputs: &[Shape], weights: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"cryptodl network v1");
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    };
    let mut numbers = |numbers: &[f64]| add(&bytes(numbers));
    numbers(&input.shape.map(|size| size as f64));
    numbers(&input.range);
    for (layer, output) in layers.iter().zip(outputs) {
        numbers(&[output.len() as f64]);
        match &layer.op {
            LayerOp::Conv2d { weight, stride, padding: Padding { before, .. }, .. } => {
                let (a, b, c, d) = weight.dim();
                numbers(&[a, b, c, d, stride[0], stride[1], before[0], before[1]].map(|size| size as f64));
            }
            LayerOp::AvgPool2d { kernel, stride } | LayerOp::SumPool2d { kernel, stride } => {
                numbers(&[kernel[0], kernel[1], stride[0], stride[1]].map(|size| size as f64));
            }
            LayerOp::BatchNorm { eps, .. } => numbers(&[*eps]),
            LayerOp::Polynomial { coefficients, .. } => numbers(&coefficients.concat()),
            LayerOp::GlobalAvgPool2d
            | LayerOp::Add
            | LayerOp::Concat
            | LayerOp::Flatten
            | LayerOp::Identity
            | LayerOp::Dropout
            | LayerOp::Dense { .. } => {}
        }
    }
    for layer in layers {
        add(layer.name.as_bytes());
        add(layer.op.kind().as_bytes());
    }
    add(weights);
    if layers.iter().enumerate().any(|(index, layer)| is_new(index, layer)) {
        let more: Vec<f64> = layers.iter().flat_map(more).collect();
        add(&[b"cryptodl graph v1".as_slice(), &bytes(&more)].concat());
    }
    *hasher.finalize().as_bytes()
}

fn bytes(numbers: &[f64]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Whether the first part of the fingerprint leaves something of the layer out.
fn is_new(index: usize, layer: &Layer) -> bool {
    let own = match &layer.op {
        LayerOp::Conv2d { padding, dilation, groups, .. } => !padding.is_even() || *dilation != [1; 2] || *groups != 1,
        LayerOp::Polynomial { coefficients, .. } => coefficients.len() > 1,
        _ => false,
    };
    own || layer.inputs != [Source::before(index)]
}

/// Operands, geometry and rows of coefficients, each with its length where that may vary.
fn more(layer: &Layer) -> Vec<f64> {
    let mut sizes = vec![layer.inputs.len()];
    sizes.extend(layer.inputs.iter().map(|source| source.value()));
    match &layer.op {
        LayerOp::Conv2d { padding: Padding { after, .. }, dilation, groups, .. } => {
            sizes.extend([after[0], after[1], dilation[0], dilation[1], *groups]);
        }
        LayerOp::Polynomial { coefficients, .. } => sizes.push(coefficients.len()),
        _ => {}
    }
    sizes.into_iter().map(|size| size as f64).collect()
}

/// Over parts of a network, each preceded by its length.
pub(crate) fn digest(description: &[u8], weights: &[u8], calibration: Option<&[u8]>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in [description, weights].into_iter().chain(calibration) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}
