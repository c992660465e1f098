//! `run`, `demo` and `plan`.

use serde_json::Value;

use crate::support::{SMALL, command, digits, fail, json, labels, succeed};

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} is a number in {value}"))
}

/// Accuracy, noise and sizes of a run are those promised, and what the plan predicts is what the run measures.
#[test]
fn a_run_is_as_accurate_and_as_large_as_planned() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = json(folder.path(), "run --model mnist-1 --images 300 --batch 300");
    let plan = json(folder.path(), "plan --model mnist-1 --batch 300");

    assert_eq!(run["model"], "mnist-1");
    assert_eq!(run["dataset"], "mnist-test");
    assert_eq!(run["backend"], "cpu");
    assert_eq!(run["program"], plan["program"]);
    assert_eq!(run["params"], plan["params"]);
    assert_eq!(run["bytes"], plan["bytes"]);
    assert_eq!(number(&run, "/images"), 300.0);
    assert!(number(&run, "/params/security_bits") >= 128.0);
    assert!(number(&run, "/params/n") <= 8192.0 && number(&run, "/params/limbs") <= 3.0);
    assert_eq!(run["batches"], 1);
    assert_eq!(run["slots"], run["params"]["n"]);

    for kind in ["encrypted", "plaintext", "quantised"] {
        let correct = number(&run, &format!("/{kind}/correct"));
        assert!(correct >= 291.0, "{kind}: {correct} of 300 correct");
        assert_eq!(number(&run, &format!("/{kind}/accuracy")), correct / 300.0);
    }
    assert!(number(&run, "/agreement") >= 0.99, "{}", run["agreement"]);
    assert!(number(&run, "/agreement_quantised") >= 0.99, "{}", run["agreement_quantised"]);

    let (predicted, measured) = (number(&run, "/noise/predicted_log2"), number(&run, "/noise/measured_log2"));
    assert!((predicted - measured).abs() < 1.0, "noise 2^{measured}, predicted 2^{predicted}");
    assert_eq!(number(&plan, "/noise/bits"), predicted);

    let layers = run["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), plan["layers"].as_array().expect("layers").len());
    for (measured, planned) in layers.iter().zip(plan["layers"].as_array().expect("layers")) {
        assert!(number(measured, "/seconds") > 0.0);
        for (field, value) in planned.as_object().expect("a layer") {
            assert_eq!(&measured[field], value, "{field}");
        }
    }

    for stage in ["prepare", "keygen", "encrypt", "compute", "decrypt"] {
        assert!(number(&run, &format!("/seconds/{stage}")) > 0.0, "{stage}");
    }
    let parts = ["key", "unpack", "expand", "rotate", "layers", "masks", "pack"];
    let parts: f64 = parts.iter().map(|part| number(&run, &format!("/compute_parts/{part}"))).sum();
    assert!((0.9..=1.0).contains(&(parts / number(&run, "/seconds/compute"))), "{}", run["compute_parts"]);
    assert!(number(&run, "/images_per_hour") > 0.0 && number(&run, "/images_per_second") > 0.0);
    assert!((1 << 20..4 << 30).contains(&(number(&run, "/peak_rss_bytes") as u64)));
}

/// Scores of few images share ciphertexts, and are measured where they lie.
#[test]
fn the_noise_of_few_images_is_measured() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for images in [1, 40] {
        let run = json(folder.path(), &format!("run --model mnist-1 --images {images} --batch 1"));
        assert_eq!(number(&run, "/encrypted/correct"), number(&run, "/plaintext/correct"));
        let (predicted, measured) = (number(&run, "/noise/predicted_log2"), number(&run, "/noise/measured_log2"));
        // Ten scores of one image say little of a root mean square.
        assert!((predicted - measured).abs() < 2.0, "{images} images: noise 2^{measured}, predicted 2^{predicted}");
    }
}

/// Every product relinearised and rescaled, with an evaluation key.
#[test]
fn the_layered_schedule_works_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let arguments = format!("run --model {SMALL} --schedule layered --images 300");
    let run = json(folder.path(), &arguments);
    assert!(number(&run, "/bytes/eval_key") > 1000.0);
    assert!(number(&run, "/layers/1/ntts") > 0.0);
    assert!(number(&run, "/agreement_quantised") >= 0.98, "{}", run["agreement_quantised"]);
    assert!(number(&run, "/encrypted/accuracy") >= 0.96, "{}", run["encrypted"]);
    let noise = number(&run, "/noise/predicted_log2") - number(&run, "/noise/measured_log2");
    assert!(noise.abs() < 1.0, "{}", run["noise"]);
}

/// The median of several computations is reported.
#[test]
fn a_computation_can_be_repeated() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = json(folder.path(), &format!("run --model {SMALL} --images 10 --repeat 3"));
    let all = run["compute_repetitions"].as_array().expect("a list");
    let mut all: Vec<f64> = all.iter().filter_map(Value::as_f64).collect();
    all.sort_by(f64::total_cmp);
    assert_eq!((all.len(), all[1]), (3, number(&run, "/seconds/compute")));
}

/// The CPU against the reference, bit for bit.
#[test]
fn verify_checks_the_cpu() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let report = json(folder.path(), "verify --backend cpu --n 1024 --seed 5");
    assert_eq!((&report["backend"], &report["seed"], &report["passed"]), (&"cpu".into(), &5.into(), &true.into()));
    assert_eq!(report["passes"][0]["kernels"], "portable");
    assert!(number(&report, "/passes/0/operations/linear") > 10.0, "{report}");
    let text = succeed(folder.path(), "verify --backend cpu --n 1024 --seed 5");
    assert!(text.contains("seed 5") && text.contains("all equal bit for bit"), "{text}");
}

/// More images than slots are several ciphertext sets, and the padding of the last one is not reported.
#[test]
fn a_batch_may_be_larger_than_a_ciphertext() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = json(folder.path(), &format!("run --model {SMALL} --n 2048 --images 2050 --out labels.csv"));
    assert_eq!(run["batches"], 2);
    assert_eq!(labels(&folder.path().join("labels.csv")).len(), 2050);
    assert!(number(&run, "/agreement") >= 0.985, "{}", run["agreement"]);
}

/// The user's own images: no labels, no accuracy.
#[test]
fn own_images_need_no_labels() {
    let folder = digits(5);
    let run = json(folder.path(), &format!("run --model {SMALL} --data digits.idx --out labels.json"));
    assert_eq!(run["dataset"], "digits.idx");
    assert_eq!(run["images"], 5);
    assert!(run["encrypted"]["accuracy"].is_null() && run["plaintext"]["correct"].is_null());
    let labels = std::fs::read(folder.path().join("labels.json")).expect("written");
    let labels: Value = serde_json::from_slice(&labels).expect("JSON");
    assert_eq!(labels["images"][0]["label"], 7);
    assert_eq!(labels["images"][0]["out_of_range"], false);

    let text = succeed(folder.path(), &format!("run --model {SMALL} --data digits.idx --labels labels.idx"));
    assert!(text.contains("accuracy    100.00 % encrypted"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let error = fail(folder.path(), &format!("run --model {SMALL} --data mnist --labels labels.idx"), 1);
    assert!(error.contains("10000 images, but 5 labels"), "{error}");
}

/// The first command of the README.
#[test]
fn the_demo_needs_no_arguments() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = succeed(folder.path(), "demo");
    for part in ["8192 images", "compute", "upload", "% encrypted", "% in plaintext", "encrypted 7, true 7"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

/// A reader that goes away early is no failure.
#[test]
#[cfg(unix)]
fn a_closed_pipe_is_no_failure() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child =
        command(folder.path(), "plan --model mnist-1").stdout(std::process::Stdio::piped()).spawn().expect("started");
    drop(child.stdout.take());
    assert!(child.wait().expect("ended").success());
}
