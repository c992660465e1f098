//! A tiny network that uses every kind of layer of a line, as text and tensors that a test can spoil.

use super::{Tensors, random_tensors};

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
