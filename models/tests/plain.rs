//! Plaintext inference against loops that follow the definitions, and against PyTorch.

mod common;

use std::collections::HashMap;
use std::path::Path;

use common::{TOML, noise, oracle, parse, random_tensors, tensors};
use cryptodl_models::data::{self, FetchOptions, Split};
use cryptodl_models::images::{Pixels, RawImages};
use cryptodl_models::network::Network;
use cryptodl_models::{plain, zoo};
use ndarray::{Array2, Array4, Axis};

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

/// Logits that the recipe wrote, computed by PyTorch in f64.
fn reference(name: &str, key: &str) -> Vec<Vec<f64>> {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo");
    let mut paths = ["", "table-1"].map(|folder| zoo.join(folder).join(format!("{name}.reference.json"))).into_iter();
    let path = paths.find(|path| path.exists()).unwrap();
    let file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    serde_json::from_value(file[key].clone()).unwrap()
}

fn assert_close(found: &Array2<f32>, expected: &[Vec<f64>]) {
    assert_eq!(found.nrows(), expected.len());
    for (row, expected) in found.rows().into_iter().zip(expected) {
        for (&found, &expected) in row.iter().zip(expected) {
            assert!((f64::from(found) - expected).abs() < 1e-4, "{found} is not {expected}");
        }
    }
}

/// The rings of `models/train/cryptodl_train/export.py`.
fn rings() -> RawImages {
    let mut pixels = Vec::new();
    for i in 0..8i32 {
        for (y, x) in (0..28).flat_map(|y| (0..28).map(move |x| (y, x))) {
            let distance = (y - 13i32).pow(2) + (x - 10 - i).pow(2);
            let inside = ((2 + i).pow(2)..=(4 + i).pow(2)).contains(&distance);
            pixels.push(if inside { 255 } else { 0 });
        }
    }
    RawImages { pixels: Pixels::U8(pixels), count: 8, shape: [1, 28, 28] }
}

#[test]
fn shipped_models_agree_with_pytorch_on_drawn_images() {
    for name in zoo::names() {
        let net = zoo::load(name).unwrap();
        let images = rings().to_values(&net.input).unwrap();
        assert_close(&plain::logits(&net, images.view()), &reference(name, "rings"));
    }
}

fn correct(net: &Network, logits: &Array2<f32>, labels: &[u8]) -> u64 {
    assert_eq!(logits.nrows(), labels.len(), "{}", net.name);
    let pairs = logits.rows().into_iter().zip(labels);
    pairs.filter(|(row, label)| plain::argmax(*row) == usize::from(**label)).count() as u64
}

#[test]
#[ignore = "reads MNIST and Fashion-MNIST (fetched if absent): cargo test -p cryptodl-models -- --include-ignored"]
fn shipped_models_agree_with_pytorch_on_the_test_set() {
    let mut sets = HashMap::new();
    for name in zoo::names() {
        let net = zoo::load(name).unwrap();
        let id = net.dataset.unwrap();
        let test =
            sets.entry(id.name()).or_insert_with(|| data::load(id, Split::Test, &FetchOptions::default()).unwrap());
        let logits = plain::logits(&net, test.images.to_values(&net.input).unwrap().view());
        assert_close(&logits.slice(ndarray::s![..16, ..]).to_owned(), &reference(name, "test_images"));
        let claimed = net.accuracy.unwrap();
        assert_eq!(claimed.images, 10_000);
        assert!(claimed.correct.abs_diff(correct(&net, &logits, &test.labels)) <= 1, "{name}");
    }
}
