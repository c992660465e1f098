//! All stages in the order of the benchmark's harness, on real images, in its folders.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use cryptodl_data::images::Pixels;
use cryptodl_data::{DatasetId, FetchOptions, Split, load};

/// In the harness's order, and whether it names the size. It skips what it does not find.
const STAGES: [(&str, bool); 7] = [
    ("client_key_generation", true),
    ("server_preprocess_model", false),
    ("client_preprocess_input", true),
    ("client_encode_encrypt_input", true),
    ("server_encrypted_compute", true),
    ("client_decrypt_decode", true),
    ("client_postprocess", true),
];

/// Runs all stages on the first `images` test images and returns the share of right labels.
fn accuracy(folder: &Path, number: usize, instance: &str, images: usize) -> f64 {
    let test = load(DatasetId::Mnist, Split::Test, &FetchOptions::default()).expect("MNIST can be fetched");
    let mut text = String::new();
    let Pixels::U8(pixels) = &test.images.pixels else { panic!("MNIST has bytes") };
    for image in pixels.chunks(784).take(images) {
        let pixels: Vec<String> = image.iter().map(|pixel| format!("{:.6}", f64::from(*pixel) / 255.0)).collect();
        writeln!(text, "{}", pixels.join(" ")).expect("a string takes everything");
    }
    let dataset = folder.join("datasets").join(instance).join("intermediate");
    fs::create_dir_all(&dataset).expect("a folder");
    fs::write(dataset.join("test_pixels.txt"), text).expect("written");

    let build = folder.join("submissions/mnist/build");
    for (stage, sized) in STAGES {
        let path = build.join(stage);
        assert!(path.is_file(), "{stage} is missing");
        let number = sized.then(|| number.to_string());
        let output = Command::new(path).args(number).current_dir(folder).output().expect("it starts");
        assert!(output.status.success(), "{stage} {instance}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let io = folder.join("io").join(instance);
    for measured in ["public_keys", "ciphertexts_upload", "ciphertexts_download"] {
        assert!(fs::read_dir(io.join(measured)).expect("a folder").next().is_some(), "{measured} is empty");
    }
    let steps = fs::read(io.join("server_reported_steps.json")).expect("written");
    let steps: serde_json::Value = serde_json::from_slice(&steps).expect("JSON");
    let steps = steps.as_object().expect("steps");
    assert!(steps.contains_key("Encrypted computation") && steps.values().all(|seconds| seconds.as_f64() > Some(0.0)));

    let labels = fs::read_to_string(io.join("encrypted_model_predictions.txt")).expect("written");
    let labels: Vec<u8> = labels.lines().map(|label| label.parse().expect("a label")).collect();
    assert_eq!(labels.len(), images, "{instance}");
    let right = labels.iter().zip(&test.labels).filter(|(label, truth)| label == truth).count();
    right as f64 / images as f64
}

fn installed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = env!("CARGO_BIN_EXE_cryptodl-neutral");
    let mut install = Command::new(program);
    install.args(["install", "submissions/mnist/build"]).current_dir(folder.path());
    assert!(install.status().expect("it starts").success());
    folder
}

#[test]
fn the_stages_classify_in_the_harness_order() {
    let folder = installed();
    for (number, instance, images) in [(0, "single", 1), (1, "small", 100), (2, "medium", 1000)] {
        let accuracy = accuracy(folder.path(), number, instance, images);
        assert!(accuracy >= 0.97, "{instance}: {accuracy}");
    }
    // Fewer labels than images would count as a better share of right ones.
    let pixels = folder.path().join("datasets/small/intermediate/test_pixels.txt");
    let text = fs::read_to_string(&pixels).expect("written");
    fs::write(&pixels, text.lines().take(99).map(|line| format!("{line}\n")).collect::<String>()).expect("written");
    let build = folder.path().join("submissions/mnist/build");
    let run =
        |stage: &str| Command::new(build.join(stage)).arg("1").current_dir(folder.path()).output().expect("it starts");
    let refused = STAGES[2..].iter().map(|(stage, _)| run(stage)).find(|output| !output.status.success());
    let error = String::from_utf8(refused.expect("refused").stderr).expect("text");
    assert!(error.contains("99") && error.contains("100"), "{error}");
}

#[test]
#[ignore = "encrypts 10,000 images: tests/long.sh neutral"]
fn the_large_size_too() {
    let folder = installed();
    let accuracy = accuracy(folder.path(), 3, "large", 10_000);
    assert!(accuracy >= 0.985, "{accuracy}");
}
