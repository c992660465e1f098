//! The shipped networks: those of the recipes, and what PyTorch computes.

use std::collections::HashMap;
use std::path::Path;

use cryptodl_data::images::{Pixels, RawImages};
use cryptodl_data::{self as data, FetchOptions, Split};
use cryptodl_network::{DatasetId, LayerOp, Network, NetworkSpec, plain};
use cryptodl_zoo as zoo;
use ndarray::Array2;

/// Each shipped model is the one whose results the recipe wrote.
#[test]
fn shipped_models_are_those_of_the_recipes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../train/results.json");
    let results: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for name in zoo::names() {
        let (net, result) = (zoo::load(name).unwrap(), &results[name]);
        let shape = if net.dataset == Some(DatasetId::Cifar10) { [3, 32, 32] } else { [1, 28, 28] };
        assert_eq!((net.name.as_str(), net.input.shape, net.classes()), (*name, shape, 10));
        assert_eq!(result["title"], net.title, "{name}");
        assert_eq!(result["dataset"], net.dataset.unwrap().name(), "{name}");
        assert_eq!(result["correct"], net.accuracy.unwrap().correct, "{name}");
        assert_eq!(result["multiply_adds"], net.multiply_adds(), "{name}");
        let mut activation_values = 0;
        for layer in &net.layers {
            assert!(layer.input_rms.is_some() && layer.output_range.is_some(), "{name}: {}", layer.name);
            if matches!(layer.op, LayerOp::Polynomial { .. }) {
                activation_values += net.input_shape(layer).len();
            }
        }
        assert_eq!(result["activation_values"], activation_values, "{name}");
    }
}

/// Calibrations belong to these fingerprints.
#[test]
fn fingerprints_of_shipped_networks_are_known() {
    for (name, expected) in [
        ("mnist-1", "148233675d541525c6606aa93c9129b19acc9a8c1ad8749ab9cffa157ab770ed"),
        ("mnist-2", "4c15014fc43cc2b7a9162e3776c939846246a4955b5c2e04accad1814c4cb587"),
        #[cfg(feature = "every-network")]
        ("cryptonets", "ebc536d025eeddf814cd591801d344973c7d3c4a505d094d9b14af2d84d88cf7"),
        #[cfg(feature = "every-network")]
        ("secureml", "8b7bb55ed62b7ef738347c7a7050e59ae7396c66e66e0f33bf8e32103cd3c90f"),
        #[cfg(feature = "every-network")]
        ("mnist-2-sigmoid", "f82011efb3e5e2d94a7555550d2326570bf024d3987e7585fdd840bb01d251fc"),
    ] {
        let net = zoo::load(name).unwrap();
        assert_eq!(net.fingerprint().map(|byte| format!("{byte:02x}")).concat(), expected, "{name}");
    }
}

/// A network made in memory has the weight file and the fingerprint of the same network from files.
#[test]
fn shipped_networks_made_in_memory_are_the_same() {
    for name in zoo::names() {
        let net = zoo::load(name).unwrap();
        let file = zoo::weights(name, &net).unwrap();
        if file.windows(13).any(|part| part == b".weight_scale") {
            continue; // integers with a scale: in memory they are the numbers that they stand for
        }
        assert_eq!(net.weight_file(), file, "{name}");
        let again = Network::new(NetworkSpec::clone(&net)).unwrap();
        assert_eq!(again.fingerprint(), net.fingerprint(), "{name}");
    }
}

/// Logits that the recipe wrote, computed by PyTorch in f64.
fn reference(name: &str, key: &str) -> Vec<Vec<f64>> {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("trained");
    let mut paths = ["", "table-1"].map(|folder| zoo.join(folder).join(format!("{name}.reference.json"))).into_iter();
    let path = paths.find(|path| path.exists()).unwrap();
    let file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    serde_json::from_value(file[key].clone()).unwrap()
}

fn assert_close(found: &Array2<f32>, expected: &[Vec<f64>]) {
    assert_eq!(found.nrows(), expected.len());
    for (row, expected) in found.rows().into_iter().zip(expected) {
        for (&found, &expected) in row.iter().zip(expected) {
            // Polynomials of polynomials grow without bound on images that are none of their kind, as rings are.
            let allowed = 1e-4 * expected.abs().max(1.0);
            assert!((f64::from(found) - expected).abs() < allowed, "{found} is not {expected}");
        }
    }
}

/// The rings of `models/train/cryptodl_train/export.py`.
fn rings(shape: [usize; 3]) -> RawImages {
    let [channels, height, width] = shape.map(|size| size as i32);
    let mut pixels = Vec::new();
    for (i, _) in (0..8i32).flat_map(|i| (0..channels).map(move |channel| (i, channel))) {
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let distance = (y - 13i32).pow(2) + (x - 10 - i).pow(2);
            let inside = ((2 + i).pow(2)..=(4 + i).pow(2)).contains(&distance);
            pixels.push(if inside { 255 } else { 0 });
        }
    }
    RawImages { pixels: Pixels::U8(pixels), count: 8, shape }
}

#[test]
fn shipped_models_agree_with_pytorch_on_drawn_images() {
    for name in zoo::names() {
        let net = zoo::load(name).unwrap();
        let images = rings(net.input.shape).to_values(&net.input).unwrap();
        assert_close(&plain::logits(&net, images.view()), &reference(name, "rings"));
    }
}

fn correct(net: &Network, logits: &Array2<f32>, labels: &[u8]) -> u64 {
    assert_eq!(logits.nrows(), labels.len(), "{}", net.name);
    let pairs = logits.rows().into_iter().zip(labels);
    pairs.filter(|(row, label)| plain::argmax(*row) == usize::from(**label)).count() as u64
}

#[test]
#[ignore = "reads MNIST, Fashion-MNIST and CIFAR-10 (fetched if absent): cargo test -p cryptodl-zoo -- --include-ignored"]
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
