//! A small residual network, as text and tensors that a test can spoil.

use super::{Tensors, random_tensors};

pub const GRAPH: &str = r#"
format = 1
name = "graph"
title = "A small residual network"
weights = "graph.safetensors"

[input]
shape = [2, 4, 5]
range = [-1.0, 1.0]

[[layer]]
name = "conv"
kind = "conv2d"
out_channels = 4
kernel = [3, 3]
padding = [1, 1, 1, 1]
groups = 2

[[layer]]
name = "act"
kind = "polynomial"

[[layer]]
name = "wide"
kind = "conv2d"
out_channels = 4
kernel = [2, 3]
padding = [0, 2, 1, 0]
dilation = [1, 1]

[[layer]]
name = "skip"
kind = "add"
inputs = ["wide", "act"]

[[layer]]
name = "both"
kind = "concat"
inputs = ["input", "skip"]

[[layer]]
name = "mean"
kind = "global_avg_pool2d"

[[layer]]
name = "flat"
kind = "flatten"

[[layer]]
name = "fc"
kind = "dense"
out_features = 3
"#;

pub fn tensors() -> Tensors {
    random_tensors([
        ("conv.weight", [4, 1, 3, 3].as_slice()),
        ("act.coefficients", &[4, 3]),
        ("wide.weight", &[4, 4, 2, 3]),
        ("wide.bias", &[4]),
        ("fc.weight", &[3, 6]),
    ])
}
