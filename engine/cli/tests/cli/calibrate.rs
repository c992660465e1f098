//! `calibrate`, and promises that are kept and broken.

use std::path::Path;

use serde_json::Value;

use crate::support::{command, digits, fail, json, mnist, succeed};

const DESCRIPTION: &str = include_str!("../../../../models/zoo/trained/mnist-1-square.toml");
const WEIGHTS: &[u8] = include_bytes!("../../../../models/zoo/trained/mnist-1-square.safetensors");

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} is a number in {value}"))
}

fn write(folder: &Path, description: &str) {
    std::fs::write(folder.join("own.toml"), description).expect("a temporary file");
    std::fs::write(folder.join("mnist-1-square.safetensors"), WEIGHTS).expect("a temporary file");
}

/// A description without anything that calibration measures.
fn bare() -> String {
    let (mut section, mut text) = (String::new(), String::new());
    for line in DESCRIPTION.lines() {
        if line.starts_with('[') {
            section = line.into();
        }
        let measured = ["[layer.histogram]", "[output]", "[output.margins]"].contains(&section.as_str())
            || ["input_rms", "output_range", "calibration"].iter().any(|field| line.starts_with(field))
            || (line.starts_with("range") && section != "[input]");
        if !measured {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[test]
fn a_bare_description_becomes_a_model_that_keeps_its_promise() {
    mnist();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    write(folder, &bare());
    let refused = fail(folder, "plan --model own.toml", 1);
    assert!(refused.contains("cryptodl calibrate"), "{refused}");
    let refused = fail(folder, "calibrate --model own.toml --data mnist --keep-ranges --out out", 1);
    assert!(refused.contains("--keep-ranges"), "{refused}");

    let told = succeed(folder, "calibrate --model own.toml --data mnist --images 600 --out out");
    assert!(told.contains("600 images followed one by one") && told.contains("256 stored"), "{told}");
    let model = "out/mnist-1-square.toml";
    let plan = json(folder, &format!("plan --model {model}"));
    assert_eq!((&plan["noise"]["calibrated"], number(&plan, "/tolerance")), (&true.into(), 0.0015));
    assert!(number(&plan, "/noise/changed") <= 0.0015);
    let run = json(folder, &format!("run --model {model} --images 400"));
    for what in ["", "_median", "_rounding"] {
        let [predicted, measured] =
            ["predicted", "measured"].map(|kind| number(&run, &format!("/noise/{kind}{what}_log2")));
        assert!((predicted - measured).abs() <= 0.5, "noise{what} 2^{measured}, predicted 2^{predicted}");
    }
    let changed = |share: f64| (400.0 * share).round();
    assert_eq!(changed(number(&run, "/labels_changed/measured")), changed(1.0 - number(&run, "/agreement")));
    assert_eq!(number(&run, "/labels_changed/predicted"), number(&plan, "/noise/changed"));

    // Other weights are not what was measured.
    let mut weights = WEIGHTS.to_vec();
    *weights.last_mut().expect("weights") ^= 1;
    std::fs::write(folder.join("out/mnist-1-square.safetensors"), weights).expect("a temporary file");
    let refused = fail(folder, &format!("plan --model {model}"), 1);
    assert!(refused.contains("measured on other weights"), "{refused}");
}

/// Margins that are not true let the planner choose far too much noise. Without the pins it would have no reason to: a schedule of
/// the same price has less.
#[test]
fn more_changed_labels_than_promised_is_a_warning() {
    mnist();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let (head, _) = DESCRIPTION.split_once("[output.margins]").expect("margins");
    let head = head.replace("calibration = \"mnist-1-square.calibration.safetensors\"\n", "");
    write(folder, &format!("{head}[output.margins]\nlow = 20.0\nhigh = 21.0\ncounts = [1]\n"));
    let output = command(folder, "run --model own.toml --images 2000 --prime-bits 21 --weight-bits 4 --json -")
        .output()
        .expect("the binary starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("warning") && told.contains("0.15% were promised"), "{told}");
    let run: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(number(&run, "/labels_changed/measured") > 0.01, "{}", run["labels_changed"]);
    let output = command(folder, "run --model mnist-1-square --images 400").output().expect("the binary starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!told.contains("warning"), "the shipped model keeps its promise: {told}");
}

#[test]
fn a_tolerance_is_a_percentage_and_decides_the_program() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    for bad in ["5", "0%", "51%", "x%", "1e-320%", "0.00000009%", "NaN%"] {
        let refused = fail(folder, &format!("plan --model mnist-1-square --tolerance {bad}"), 2);
        assert!(refused.contains("--tolerance"), "{bad}: {refused}");
    }
    let refused = fail(folder, "plan --model mnist-1-square --tolerance 0.0000001%", 1);
    assert!(refused.contains("with 0.0000001% of the labels allowed to change"), "{refused}");
    let plan = json(folder, "plan --model mnist-1-square --tolerance 2%");
    assert_eq!(number(&plan, "/tolerance"), 0.02);
    assert_ne!(plan["program"], json(folder, "plan --model mnist-1-square")["program"]);
    assert!(number(&plan, "/layers/0/steps/0/bits") >= 4.0);
}

/// The example of docs/networks.md, word for word, with weights of the shapes that its PyTorch
/// gives.
#[test]
fn the_documented_example_is_a_network() {
    let page = include_str!("../../../../docs/networks.md");
    let toml = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let client = digits(80);
    let folder = client.path();
    std::fs::write(folder.join("small.toml"), toml).expect("written");
    let tensors: [(&str, &[usize]); 8] = [
        ("bn1.bias", &[8]),
        ("bn1.running_mean", &[8]),
        ("bn1.running_var", &[8]),
        ("bn1.weight", &[8]),
        ("conv1.bias", &[8]),
        ("conv1.weight", &[8, 1, 5, 5]),
        ("fc.bias", &[10]),
        ("fc.weight", &[10, 1152]),
    ];
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in tensors {
        let start = data.len();
        // Anything will do that differs; variances are positive.
        let value =
            |i: usize| ((i * i * 37 + 11 * i) % 101) as f32 / 101.0 - if name.contains("var") { -0.1 } else { 0.5 };
        (0..shape.iter().product()).for_each(|i| data.extend(value(i).to_le_bytes()));
        let tensor = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(name.into(), tensor);
    }
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(folder.join("small.safetensors"), file).expect("written");
    let facts = json(folder, "inspect small.toml");
    assert_eq!((&facts["layers"][2]["kind"], &facts["classes"]), (&"polynomial".into(), &10.into()));
    succeed(folder, "calibrate --model small.toml --data digits.idx --images 80 --out calibrated");
    let plan = succeed(folder, "plan --model calibrated/small.toml --tolerance 40%");
    assert!(plan.contains("conv1+bn1") && plan.contains("tolerance 40.000 %"), "{plan}");

    // What cannot be computed is met with what can, and with that page.
    for (kind, advice) in [
        ("relu", "`cryptodl approx --function relu --method all"),
        ("max_pool2d", "train with `avg_pool2d` in its place"),
        ("softmax", "leave it out"),
        ("transformer", "docs/networks.md has every kind"),
    ] {
        std::fs::write(folder.join("small.toml"), toml.replace("kind = \"square\"", &format!("kind = \"{kind}\"")))
            .expect("written");
        let error = fail(folder, "plan --model small.toml", 1);
        assert!(error.contains(&format!("unknown kind `{kind}`")) && error.contains(advice), "{error}");
    }
    std::fs::write(folder.join("small.toml"), toml.replace("out_features = 10", "units = 10")).expect("written");
    assert!(fail(folder, "plan --model small.toml", 1).contains("docs/networks.md"));
}
