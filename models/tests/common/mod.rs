//! A tiny network that uses every kind of layer, as text and tensors that a test can spoil.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod oracle;

use std::collections::BTreeMap;

use cryptodl_models::network::{ModelError, Network};
use safetensors::{Dtype, tensor::TensorView};

pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub const TOML: &str = r#"
format = 1
name = "tiny"
title = "Every kind of layer"
dataset = "mnist"
weights = "tiny.safetensors"

[input]
shape = [2, 9, 8]
range = [-1.0, 1.0]

[accuracy]
correct = 3
images = 4

[[layer]]
name = "conv"
kind = "conv2d"
out_channels = 3
kernel = [3, 2]
stride = [2, 1]
padding = [1, 2]
input_rms = 0.5
output_range = [-1.0, 1.0]

[[layer]]
name = "bn"
kind = "batch_norm"
eps = 1e-3

[[layer]]
name = "act"
kind = "polynomial"
coefficients = [0.1, 0.5, -0.25]
range = [-2.0, 3.0]

[layer.histogram]
low = -2.0
high = 3.0
counts = [1, 2, 3, 2]

[[layer]]
name = "mean"
kind = "avg_pool2d"
kernel = [2, 2]
stride = [1, 2]

[[layer]]
name = "same"
kind = "identity"

[[layer]]
name = "conv2"
kind = "conv2d"
out_channels = 4
kernel = [2, 2]

[[layer]]
name = "sum"
kind = "sum_pool2d"
kernel = [2, 1]

[[layer]]
name = "drop"
kind = "dropout"

[[layer]]
name = "flat"
kind = "flatten"

[[layer]]
name = "fc"
kind = "dense"
out_features = 3
input_rms = 0.25

[output]
range = [-4.0, 5.0]

[output.margins]
low = 0.0
high = 6.0
counts = [0, 4]
"#;

/// Pseudo-random numbers in [-1, 1).
pub fn noise(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

pub fn tensors() -> Tensors {
    random_tensors([
        ("conv.weight", [3, 2, 3, 2].as_slice()),
        ("conv.bias", &[3]),
        ("bn.weight", &[3]),
        ("bn.bias", &[3]),
        ("bn.running_mean", &[3]),
        ("bn.running_var", &[3]),
        ("conv2.weight", &[4, 3, 2, 2]),
        ("fc.weight", &[3, 16]),
        ("fc.bias", &[3]),
    ])
}

/// Tensors of these names and shapes, in [-1, 1); variances in [0.5, 1.5).
pub fn random_tensors<'a>(shapes: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> Tensors {
    let named = shapes.into_iter().zip(1..).map(|((name, shape), seed)| {
        let variance = name.ends_with("running_var");
        let values = noise(seed).map(|value| if variance { value.abs() + 0.5 } else { value });
        (name.to_owned(), (shape.to_vec(), values.take(shape.iter().product()).collect()))
    });
    named.collect()
}

pub fn serialize(tensors: &Tensors) -> Vec<u8> {
    let raw: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = raw.iter().map(|(name, shape, bytes)| {
        (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("a whole tensor"))
    });
    safetensors::serialize(views, None).expect("valid tensors")
}

pub fn parse(toml: &str, tensors: &Tensors) -> Result<Network, ModelError> {
    Network::parse("tiny.toml", toml, &serialize(tensors), None)
}
