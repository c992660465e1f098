//! `import`: a file of another program becomes a model that runs.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::support::{fail, json, succeed};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/onnx/tests/fixtures").join(name)
}

/// `count` images of 8 x 8 pixels of 8 bits, all different.
fn images(path: &Path, count: usize) {
    let mut header = String::new();
    write!(header, "{{'descr': '|u1', 'fortran_order': False, 'shape': ({count}, 8, 8), }}").expect("a string");
    let padded = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(padded.bytes());
    let mut state = 1u32;
    bytes.extend((0..count * 64).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    }));
    std::fs::write(path, bytes).expect("a temporary file");
}

#[test]
fn an_exported_network_is_measured_planned_and_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    images(&folder.join("some.npy"), 1000);
    images(&folder.join("few.npy"), 20);
    let file = fixture("line.dynamo.onnx").display().to_string();
    let told = succeed(folder, &format!("import {file} --calibration some.npy --out own --name line --tolerance 20%"));
    for expected in ["made by pytorch", "degree 3", "depth 3", "wrote own/line.toml", "next: cryptodl run --model own"]
    {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let run = json(folder, "run --model own --data some.npy --images 64 --tolerance 20%");
    let agreement = run["agreement"].as_f64().expect("a share");
    assert!(agreement >= 0.75, "{agreement}");
    // A scale and a mean are the range of the pixels.
    let report = json(
        folder,
        &format!(
            "import {file} --calibration few.npy --out scaled --tolerance 20% --scale 0.0078431372549 --mean 1 --std 1"
        ),
    );
    assert_eq!((&report["images"], &report["model"]), (&20.into(), &"line.dynamo".into()));
    let description = std::fs::read_to_string(folder.join("scaled/line.dynamo.toml")).expect("written");
    let range = description.lines().find(|line| line.starts_with("range = [")).expect("a range");
    assert!(range.starts_with("range = [-1.0, 0.99999"), "{range}");
}

#[test]
fn what_cannot_be_imported_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    images(&folder.join("some.npy"), 20);
    let told =
        fail(folder, &format!("import {} --calibration some.npy --out own", fixture("relu.legacy.onnx").display()), 1);
    assert!(told.contains("(Relu)") && told.contains("polynomial activation"), "{told}");
    assert!(!folder.join("own").exists());
    // What is refused by the planner was seen all the same, and may be tried with other flags.
    let told = fail(
        folder,
        &format!(
            "import {} --calibration some.npy --out own --n 2048 --limbs 1",
            fixture("line.legacy.onnx").display()
        ),
        1,
    );
    assert!(told.contains("wrote own/line.legacy.toml") && told.contains("cannot be planned as it is"), "{told}");
    for (flags, expected) in
        [("--std 0", "--std"), ("--mean 1,2 --std 1,2,3", "one for each channel"), ("--shape 1,2", "--shape")]
    {
        let told = fail(folder, &format!("import x.onnx --calibration some.npy --out own {flags}"), 1);
        assert!(told.contains(expected), "{told}");
    }
    std::fs::create_dir(folder.join("empty")).expect("a folder");
    assert!(fail(folder, "plan --model empty", 1).contains("holds 0 descriptions"));
}
