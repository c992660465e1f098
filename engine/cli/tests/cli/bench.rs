//! `bench`: that it measures, checks and reports; not how fast anything is.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{SMALL, fail, json, names, succeed};

const QUICK: &str = "bench --quick --backend cpu --model";

/// A stand-in for the script that runs PyTorch: it answers `answers` requests, and writes down what it is asked.
fn pretend_pytorch(folder: &Path, answers: usize) {
    let script = format!(
        r#"
import json, sys
open("arguments", "w").write(" ".join(sys.argv[1:]))
peers = [{{"name": "fp32", "batch": 8, "accuracy": 0.5}}, {{"name": "other", "batch": 4, "accuracy": None}}]
print(json.dumps({{"torch": "0.0", "threads": 1, "peers": peers}}), flush=True)
for _ in range({answers}):
    line = sys.stdin.readline()
    if not line:
        break
    open("turns", "a").write(line)
    print(json.dumps({{"seconds": [[1000.0] * int(line), [3.0] * int(line)]}}), flush=True)
"#
    );
    fs::create_dir(folder.join("benches")).expect("a folder");
    fs::write(folder.join("benches/plaintext.py"), script).expect("written");
}

fn positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|value| value > 0.0 && value.is_finite())
}

#[test]
fn the_standard_report_has_kernels_models_papers_and_plots() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let report = json(folder.path(), &format!("{QUICK} {SMALL} --images 50 --markdown table.md --plots plots"));
    let table = fs::read_to_string(folder.path().join("table.md")).expect("written");

    let rows = report["rows"].as_array().expect("rows");
    for kernel in ["forward_ntt", "inverse_ntt", "linear", "relinearise", "unpack", "expand", "encrypt", "decrypt"] {
        let row = rows.iter().find(|row| row["kernel"] == kernel).unwrap_or_else(|| panic!("no {kernel}"));
        assert!(positive(&row["seconds"]) && positive(&row["copy_share"]), "{row}");
        assert!(table.contains(&format!("| {kernel} | ")), "{table}");
    }

    let models = report["models"].as_array().expect("models");
    for (model, schedule) in models.iter().zip(["auto", "layered"]) {
        let run = &model["run"];
        assert_eq!((&model["schedule"], &run["model"], &run["images"]), (&schedule.into(), &SMALL.into(), &50.into()));
        assert!(run["encrypted"]["accuracy"].as_f64().is_some_and(|accuracy| accuracy >= 0.95), "{run}");
        assert!(positive(&run["seconds"]["encrypt"]) && positive(&run["seconds"]["decrypt"]), "{run}");
        assert_eq!(run["compute_repetitions"].as_array().map(Vec::len), Some(1));
        let parts = model["parts"].as_array().expect("parts");
        let seconds = |of: &str| parts.iter().map(|part| part[of].as_f64().expect("seconds")).sum::<f64>();
        for name in ["unpack", "expand", "masks", "pack"] {
            let part = parts.iter().find(|part| part["name"] == name).unwrap_or_else(|| panic!("no {name}"));
            assert!(positive(&part["attainable_seconds"]) && positive(&part["bytes"]), "{part}");
        }
        // Layers multiply as often as the run says, and take as long.
        let layers = run["layers"].as_array().expect("layers");
        assert_eq!(parts.len(), layers.len() + 4);
        for (part, layer) in parts[2..].iter().zip(layers) {
            assert_eq!((&part["name"], &part["seconds"]), (&layer["name"], &layer["seconds"]));
            // In whole segments nothing is computed twice.
            assert_eq!(part["multiply_adds"], layer["residue_multiply_adds"]);
        }
        assert!((model["attainable_seconds"].as_f64().expect("seconds") - seconds("attainable_seconds")).abs() < 1e-9);
        assert!(positive(&model["roofline"]) && model["plaintext"].is_null(), "{model}");
        assert!(table.contains(&format!("| `{SMALL}`, {schedule} | 50 | ")), "{table}");
    }
    assert_eq!(models.len(), 2);
    assert!(table.contains("CryptoDL, 2017") && table.contains("336.7 MB"), "{table}");
    // That paper's other data set is in the list, but nothing here is comparable with it.
    assert!(report["published"].as_array().is_some_and(|all| all.iter().any(|row| row["dataset"] == "cifar10")));
    assert!(!table.contains("11686"), "{table}");

    let line = report["skipped"][0].as_str().expect("a line");
    assert!(line.starts_with("plaintext PyTorch: there is no benches/plaintext.py here"), "{line}");
    assert_eq!(report["skipped"].as_array().map(Vec::len), Some(1), "one line is enough");
    assert!(table.contains(&format!("Left out: {line}")), "{table}");

    let plots = folder.path().join("plots");
    let drawings = [format!("{SMALL}-auto.svg"), format!("{SMALL}-layered.svg"), "roofline.svg".into()];
    assert_eq!(names(&plots), drawings);
    for (drawing, text) in drawings.iter().zip(["compute", "compute", "linear"]) {
        let svg = fs::read_to_string(plots.join(drawing)).expect("written");
        assert!(svg.starts_with("<svg") && svg.contains(text), "{drawing}");
    }
    assert_eq!(names(folder.path()), ["plots", "table.md"]);

    // The same drawings from the report, which need no measurement.
    fs::write(folder.path().join("report.json"), report.to_string()).expect("written");
    let told = succeed(folder.path(), "bench --draw report.json --plots again");
    assert!(told.contains("wrote again/roofline.svg"), "{told}");
    for drawing in drawings {
        let [first, again] = ["plots", "again"].map(|plots| fs::read(folder.path().join(plots).join(&drawing)));
        assert!(first.expect("written") == again.expect("written"), "{drawing}");
    }
    fs::write(folder.path().join("other.json"), "{}").expect("written");
    let error = fail(folder.path(), "bench --draw other.json --plots again", 1);
    assert!(error.contains("not a report of `cryptodl bench --json`"), "{error}");
}

#[test]
fn pytorch_and_encrypted_computations_take_turns() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    pretend_pytorch(folder.path(), usize::from(u8::MAX));
    let report = json(folder.path(), &format!("{QUICK} {SMALL} --only models --images 9 --repeat 4 --threads 1"));
    assert_eq!(report["rows"], Value::Array(Vec::new()));
    for model in report["models"].as_array().expect("models") {
        let plaintext = &model["plaintext"];
        assert_eq!((&plaintext["torch"], &plaintext["peers"][0]["name"]), (&"0.0".into(), &"fp32".into()));
        assert_eq!(plaintext["peers"][0]["seconds"], 1000.0);
        assert_eq!(plaintext["peers"][1]["repetitions"].as_array().map(Vec::len), Some(4));
        let seconds = model["run"]["seconds"]["compute"].as_f64().expect("seconds");
        assert!(model["of_plaintext"].as_f64().is_some_and(|share| (share - seconds / 1000.0).abs() < 1e-12));
    }
    let read = |name| fs::read_to_string(folder.path().join(name)).expect("written");
    // Three at a time, for each of the two schedules.
    assert_eq!(read("turns"), "3\n1\n3\n1\n");
    assert!(read("arguments").starts_with(&format!("{SMALL} --images 9 --threads 1 --data ")), "{}", read("arguments"));
}

/// Whatever is missing for PyTorch, and whenever, the rest is measured, and one line says why.
#[test]
fn without_pytorch_the_report_says_why() {
    for (answers, python, said) in [
        (9, "no-such-python", "cannot start no-such-python"),
        (0, "python3", "PyTorch has ended"),
        (1, "python3", "PyTorch has ended"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        pretend_pytorch(folder.path(), answers);
        let report =
            json(folder.path(), &format!("{QUICK} {SMALL} --only models --images 1 --repeat 4 --python {python}"));
        let skipped = report["skipped"].as_array().expect("a list");
        assert!(skipped.len() == 1 && skipped[0].as_str().is_some_and(|line| line.contains(said)), "{skipped:?}");
        assert_eq!(report["models"].as_array().map(Vec::len), Some(2));
        assert!(report["models"][1]["plaintext"].is_null(), "{report}");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(folder.path().join("benches")).expect("a folder");
    fs::write(folder.path().join("benches/plaintext.py"), "import a_package_that_nobody_has\n").expect("written");
    let report = json(folder.path(), &format!("{QUICK} {SMALL} --only models --images 1"));
    let line = report["skipped"][0].as_str().expect("a line");
    assert!(line.contains("a_package_that_nobody_has") && line.contains("--python"), "{line}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let here = Path::new(".");
    for (arguments, said) in [
        ("--kernels reference", "--kernels reference"),
        ("--only models --images 0", "--images 0"),
        ("--only models --images 10001", "has 10000 images"),
        ("--only kernels --images 9", "which --only kernels leaves out"),
        ("--only kernels --repeat 2", "which --only kernels leaves out"),
        ("--only kernels --python python3", "which --only kernels leaves out"),
        ("--only kernels --memory-budget 4GiB", "which --only kernels leaves out"),
        ("--model no-such-model", "no-such-model"),
    ] {
        let error = fail(here, &format!("bench --quick --backend cpu {arguments}"), 1);
        assert!(error.contains(said), "{arguments}: {error}");
    }
    assert!(fail(here, "bench --only everything", 2).contains("kernels, models"));
}

#[test]
fn a_calibration_prices_every_operation() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let report = json(folder.path(), "bench --calibrate --quick --markdown table.md");
    let table = fs::read_to_string(folder.path().join("table.md")).expect("written");
    assert!(fail(folder.path(), "bench --calibrate --backend gpu", 1).contains("one core of the CPU"));
    for operation in [
        "multiply_add_plane",
        "map_read",
        "map_write",
        "pack",
        "expand",
        "mask",
        "multiply",
        "ntt_layer",
        "convert",
        "stream",
    ] {
        assert!(positive(&report["measured"][operation]), "{operation}: {report}");
        assert!(positive(&report["shipped"][operation]), "{operation}: {report}");
    }
    assert_eq!((&report["threads"], &report["measured"]["byte"]), (&1.into(), &report["shipped"]["byte"]));
    assert_eq!(table.matches("\n| ").count(), 11, "{table}");
}

#[test]
fn alternatives_are_predicted_and_measured_the_chosen_one_first() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let here = folder.path();
    let report = json(here, &format!("bench --alternatives --quick --backend cpu --model {SMALL} --markdown table.md"));
    let plan = json(here, &format!("plan --model {SMALL}"));
    let model = &report["models"][0];
    let schedules = model["schedules"].as_array().expect("schedules");
    assert!(schedules.len() > 1, "{model}");
    assert_eq!((&schedules[0]["run"]["program"], &schedules[0]["schedule"]), (&plan["program"], &plan["schedule"]));
    assert!(model["chosen_by_fastest"].as_f64().is_some_and(|ratio| ratio >= 1.0), "{model}");
    let predicted = |i: usize| schedules[i]["predicted_seconds"].as_f64().expect("seconds");
    let table = fs::read_to_string(here.join("table.md")).expect("written");
    for (i, schedule) in schedules.iter().enumerate() {
        assert!(predicted(i) >= predicted(0), "{model}");
        assert!(schedule["run"]["encrypted"]["accuracy"].as_f64().is_some_and(|a| a >= 0.95), "{schedule}");
        assert!(table.contains(schedule["schedule"].as_str().expect("text")), "{table}");
        assert!(schedules[..i].iter().all(|other| other["run"]["program"] != schedule["run"]["program"]), "{model}");
    }
    assert!(fail(here, "bench --alternatives --calibrate", 2).contains("cannot be used with"));
}
