//! Plaintext inference against loops that follow the definitions.

use cryptodl_network::{Network, plain};
use ndarray::{Array4, Axis};

use crate::common::tiny::{TOML, tensors};
use crate::common::{noise, oracle, parse, random_tensors};

#[test]
fn every_layer_kind_agrees_with_its_definition() {
    let net = parse(TOML, &tensors()).unwrap();
    let count = 70; // more than two chunks
    let images = Array4::from_shape_vec((count, 2, 9, 8), noise(99).take(count * 144).collect()).unwrap();
    assert_agrees_with_definition(&net, &images);
}

/// Two activations, the second of degree 8, and batch-norm of vectors: more than the shipped convolutional networks have.
#[test]
fn layers_on_vectors_agree_with_their_definition() {
    const HEAD: &str = r#"
format = 1
name = "flat"
title = "Layers on vectors"
weights = "flat.safetensors"

[input]
shape = [1, 3, 4]
range = [0.0, 1.0]

[[layer]]
name = "flatten"
kind = "flatten"
"#;
    const TAIL: &str = r#"
[output]
range = [-4.0, 5.0]

[output.margins]
low = 0.0
high = 6.0
counts = [0, 4]
"#;
    let hidden = |index: usize, coefficients: &str| {
        format!(
            "[[layer]]\nname = \"fc{index}\"\nkind = \"dense\"\nout_features = 5\n\
             [[layer]]\nname = \"bn{index}\"\nkind = \"batch_norm\"\n\
             [[layer]]\nname = \"act{index}\"\nkind = \"polynomial\"\ncoefficients = {coefficients}\n\
             range = [-2.0, 2.0]\nhistogram = {{ low = -2.0, high = 2.0, counts = [1, 1] }}\n"
        )
    };
    let last = "[[layer]]\nname = \"last\"\nkind = \"dense\"\nout_features = 2\n";
    let eighth = "[0.1, 0.5, 0.2, 0.05, -0.03, 0.02, 0.01, -0.003, 0.001]";
    let toml = [HEAD, &hidden(1, "[0.0, 0.5, 0.25]"), &hidden(2, eighth), last, TAIL].concat();
    let vectors = ["weight", "bias", "running_mean", "running_var"];
    let norms: Vec<String> = ["bn1", "bn2"].iter().flat_map(|bn| vectors.map(|part| format!("{bn}.{part}"))).collect();
    let weights = [("fc1.weight", [5, 12].as_slice()), ("fc2.weight", &[5, 5]), ("last.weight", &[2, 5])];
    let tensors = random_tensors(weights.into_iter().chain(norms.iter().map(|name| (name.as_str(), [5].as_slice()))));
    let net = parse(&toml, &tensors).unwrap();
    let images = Array4::from_shape_vec((40, 1, 3, 4), noise(7).take(40 * 12).collect()).unwrap();
    assert_agrees_with_definition(&net, &images);
}

fn assert_agrees_with_definition(net: &Network, images: &Array4<f32>) {
    let logits = plain::logits(net, images.view());
    assert_eq!(logits.dim(), (images.len_of(Axis(0)), net.classes()));
    for (image, row) in images.outer_iter().zip(logits.rows()) {
        let start: Vec<f64> = image.iter().map(|&x| f64::from(x)).collect();
        let values = oracle::values(net, start);
        for (&found, expected) in row.iter().zip(values.last().unwrap()) {
            assert!((f64::from(found) - expected).abs() < 1e-5, "{found} is not {expected}");
        }
    }
}

#[test]
fn argmax_takes_the_first_of_equal_values() {
    let rows = ndarray::array![[1.0, 3.0, 3.0], [-2.0, -3.0, -1.0]];
    assert_eq!(rows.rows().into_iter().map(plain::argmax).collect::<Vec<_>>(), [1, 2]);
}
