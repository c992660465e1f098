//! The binary on a GPU adapter, hardware or software.
//!
//! Without an adapter these tests show as ignored; with `CRYPTODL_REQUIRE_ADAPTER=1` they fail instead.

#[allow(dead_code)] // The tests without an adapter use the rest.
mod support;

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;

use support::{SMALL, digits, fail, failure, json, labels, succeed};

type Test = fn(&Value);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let required = std::env::var_os("CRYPTODL_REQUIRE_ADAPTER").is_some_and(|value| value == "1");
    let adapter = adapter();
    let ignored = adapter.is_none() && !required;
    let tests: [(&str, Test); 10] = [
        ("devices_describe_the_adapter", devices),
        ("every_kernel_is_compiled_and_timed", compilation),
        ("inference_gives_the_bytes_of_the_cpu", inference),
        ("a_run_prints_no_error_without_a_desktop", quiet),
        ("a_run_says_where_it_was_computed", run),
        ("verify_compares_with_the_reference", verify),
        ("kernels_are_measured_against_ceilings", bench),
        ("an_adapter_that_is_not_there", unknown_adapters),
        ("flags_that_contradict_each_other", contradictions),
        ("software_is_never_taken_unasked", software),
    ];
    let trial = |(name, test): (&'static str, Test)| {
        let adapter = adapter.clone();
        let run = move || {
            test(&adapter.ok_or("no usable adapter: install mesa-vulkan-drivers, or a GPU's driver")?);
            Ok::<(), Failed>(())
        };
        Trial::test(name, run).with_ignored_flag(ignored)
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit_code()
}

fn here() -> &'static Path {
    Path::new(".")
}

/// The first adapter that is usable.
fn adapter() -> Option<Value> {
    let report = json(here(), "devices");
    report["adapters"].as_array().expect("a list").iter().find(|adapter| adapter["usable"] == true).cloned()
}

/// `--adapter` with its index.
fn flag(adapter: &Value) -> String {
    format!("--adapter {}", adapter["index"])
}

fn devices(adapter: &Value) {
    let text = succeed(here(), "devices");
    for field in ["name", "backend", "driver"] {
        let value = adapter[field].as_str().expect("text");
        assert!(!value.is_empty() && text.contains(value), "{field} in\n{text}");
    }
    // Which of the kernels is measured anew each time.
    assert!(text.contains("kernels   wgsl"), "{text}");
    assert!(adapter["kernels"].as_str().is_some_and(|kernels| kernels.starts_with("wgsl")), "{adapter}");
    assert!(text.contains("--backend auto takes"), "{text}");
    assert!(["hardware", "software"].contains(&adapter["kind"].as_str().expect("text")));
    for limit in ["page_bytes", "workgroup_bytes", "workgroup_size", "groups", "storage_buffers"] {
        assert!(adapter["limits"][limit].as_u64().is_some_and(|limit| limit > 0), "{limit} in {adapter}");
    }
    assert!(adapter["features"]["int64"].is_boolean() && adapter["features"]["timestamps"].is_boolean());
    assert!(adapter["reason"].is_null());
}

/// Each variant that the adapter can run, by itself; and what was measured to choose among them.
fn compilation(adapter: &Value) {
    let report = json(here(), "devices --compile 1024 --compile-timeout 100");
    let device = &report["adapters"][adapter["index"].as_u64().expect("an index") as usize];
    let compiled = device["compiled"].as_array().expect("a list");
    let of = |kernel: &str| compiled.iter().filter(|one| one["kernel"] == kernel).count();
    let int64 = adapter["features"]["int64"] == true;
    // Linear maps have three shapes of workgroups, two ways to sum and one or two to multiply.
    assert_eq!(["copy", "multiply", "linear"].map(of), if int64 { [1, 2, 12] } else { [1, 1, 6] }, "{device}");
    assert!(compiled.iter().all(|one| one["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0)), "{device}");
    let titles: std::collections::HashSet<_> = compiled.iter().map(|one| one["title"].as_str()).collect();
    assert_eq!(titles.len(), compiled.len(), "{device}");

    let trials = device["trials"].as_array().expect("a list");
    for work in ["products", "transforms", "sums"] {
        let of_work: Vec<_> = trials.iter().filter(|trial| trial["work"] == work).collect();
        // Without 64-bit integers there is one way to multiply, and nothing to measure.
        assert_eq!(of_work.len(), if int64 || work == "sums" { 2 } else { 0 }, "{work} in {device}");
        let chosen: Vec<_> = of_work.iter().filter(|trial| trial["chosen"] == true).collect();
        assert!(
            chosen.iter().all(|best| of_work.iter().all(|trial| trial["seconds"].as_f64() >= best["seconds"].as_f64()))
        );
        assert_eq!(chosen.len(), usize::from(!of_work.is_empty()));
    }
    for (wrong, why) in [("--compile 1000", "a power of two from 1024 to 65536"), ("--compile-timeout 0", "1..")] {
        let words = fail(here(), &format!("devices {wrong}"), 2);
        assert!(words.contains(why), "{words}");
    }
}

/// Same input file, same keys, same bytes; with key switching and without, and for one set and two.
fn inference(adapter: &Value) {
    let seed = "--insecure-test-seed 3";
    // The smallest ring has no room for key switching.
    for (schedule, planning, images) in [("auto", "--n 2048", 2049), ("layered", "--schedule layered", 20)] {
        let folder = digits(images);
        let folder = folder.path();
        succeed(folder, &format!("keygen --model {SMALL} {planning} --out {schedule} {seed}"));
        let keys = format!("--secret {schedule}/secret/secret.key --spec {schedule}/public/client.spec");
        succeed(folder, &format!("encrypt {keys} --input digits.idx --out digits.ct {seed}"));
        let infer = format!(
            "infer --model {SMALL} {planning} --eval-key {schedule}/public/eval.key --deterministic --input digits.ct --out"
        );
        succeed(folder, &format!("{infer} cpu.ct --backend cpu"));
        let report = json(folder, &format!("{infer} gpu.ct --backend gpu {}", flag(adapter)));
        assert_eq!(report["backend"], "gpu");
        assert_eq!(report["batches"], if schedule == "auto" { 2 } else { 1 });
        let transfers = &report["compute_parts"]["transfers"];
        for direction in ["uploaded_bytes", "downloaded_bytes", "upload_seconds", "download_seconds"] {
            assert!(transfers[direction].as_f64().is_some_and(|number| number > 0.0), "{direction} in {report}");
        }
        let [cpu, gpu] = ["cpu.ct", "gpu.ct"].map(|file| std::fs::read(folder.join(file)).expect("written"));
        assert!(cpu == gpu, "{schedule}: the result files differ");
    }
}

/// On a machine without a desktop session the driver has nothing to complain of.
fn quiet(adapter: &Value) {
    let mut command = support::command(here(), &format!("run --model {SMALL} --images 1 {}", flag(adapter)));
    let output = command.env_remove("XDG_RUNTIME_DIR").output().expect("the binary starts");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// The report names backend, adapter and kernels, with and without --backend.
fn run(adapter: &Value) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let flag = flag(adapter);
    let report = json(folder.path(), &format!("run --model {SMALL} --images 100 {flag} --out labels.csv"));
    assert_eq!(report["backend"], "gpu");
    let device = report["device"].as_str().expect("text");
    for field in ["name", "backend", "driver"] {
        assert!(device.contains(adapter[field].as_str().expect("text")), "{field} in {device}");
    }
    assert!(report["kernels"].as_str().is_some_and(|kernels| kernels.starts_with("wgsl")), "{}", report["kernels"]);
    assert!(report["encrypted"]["accuracy"].as_f64().is_some_and(|accuracy| accuracy >= 0.95));
    assert_eq!(labels(&folder.path().join("labels.csv")).len(), 100);
}

fn verify(adapter: &Value) {
    let flag = flag(adapter);
    let report = json(here(), &format!("verify {flag} --n 1024 --kernels 16bit-integer"));
    assert_eq!((&report["backend"], &report["passed"]), (&"gpu".into(), &true.into()));
    assert_eq!(report["passes"].as_array().map(Vec::len), Some(1), "{report}");
    let operations = report["passes"][0]["operations"].as_object().expect("counts");
    for operation in ["linear", "multiply", "forward_ntt", "inverse_ntt", "relinearise", "expand", "pack", "slotwise"] {
        assert!(operations[operation].as_u64().is_some_and(|count| count > 0), "{operation} in {report}");
    }
    let sum: u64 = operations.values().filter_map(Value::as_u64).sum();
    assert_eq!(report["comparisons"], sum);
    assert!(report["seed"].is_u64());

    let error = fail(here(), &format!("verify {flag} --n 1000"), 1);
    assert!(error.contains("1000"), "{error}");
    let error = fail(here(), &format!("verify {flag} --kernels portable"), 1);
    assert!(error.contains("--kernels portable"), "{error}");
}

/// Works, says what was measured, and gives shares that are none of nothing; not how fast.
fn bench(adapter: &Value) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let arguments = format!("bench {} --quick --images 20 --model {SMALL} --markdown table.md", flag(adapter));
    let report = json(folder.path(), &arguments);
    assert_eq!(report["backend"], "gpu");
    for ceiling in ["copy", "multiply_add", "linear"] {
        assert!(report["ceilings"][ceiling]["per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{ceiling}");
    }
    let rows = report["rows"].as_array().expect("rows");
    let table = std::fs::read_to_string(folder.path().join("table.md")).expect("written");
    for kernel in ["forward_ntt", "inverse_ntt", "linear", "relinearise", "unpack", "expand", "encrypt", "decrypt"] {
        let row = rows.iter().find(|row| row["kernel"] == kernel).unwrap_or_else(|| panic!("no {kernel}"));
        assert!(row["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{row}");
        // The client is the host's: the device's copies are no measure for it.
        let of_client = ["encrypt", "decrypt"].contains(&kernel);
        assert_eq!(row["copy_share"].as_f64().is_some_and(|share| share > 0.0), !of_client, "{row}");
        assert_eq!(row["arithmetic_share"].is_null(), kernel != "linear", "{row}");
        assert!(table.contains(&format!("| {kernel} | ")), "{table}");
    }
    for (model, schedule) in report["models"].as_array().expect("models").iter().zip(["auto", "layered"]) {
        assert_eq!((&model["schedule"], &model["run"]["backend"]), (&schedule.into(), &"gpu".into()));
        assert!(model["run"]["encrypted"]["accuracy"].as_f64().is_some_and(|accuracy| accuracy >= 0.95), "{model}");
        assert!(model["roofline"].as_f64().is_some_and(|share| share > 0.0), "{model}");
    }
}

fn unknown_adapters(adapter: &Value) {
    let run = format!("run --model {SMALL} --images 1 --adapter");
    let name = adapter["name"].as_str().expect("text");
    for wanted in ["no-such-adapter", "1000"] {
        let error = fail(here(), &format!("{run} {wanted}"), 1);
        assert!(error.contains(wanted) && error.contains("there are") && error.contains(name), "{error}");
    }
}

fn contradictions(adapter: &Value) {
    let (run, flag) = (format!("run --model {SMALL} --images 1"), flag(adapter));
    let error = fail(here(), &format!("{run} --backend cpu {flag}"), 1);
    assert!(error.contains("--adapter names a GPU"), "{error}");
    let error = fail(here(), &format!("{run} --kernels portable {flag}"), 1);
    assert!(error.contains("--kernels names kernels of the CPU"), "{error}");
    let error = fail(here(), &format!("{run} --memory-budget 1MiB {flag}"), 1);
    assert!(error.contains("--memory-budget"), "{error}");
}

/// What a machine without a GPU says: the Vulkan loader is shown software drivers, or none.
fn software(adapter: &Value) {
    if adapter["kind"] != "software" {
        return;
    }
    let error = fail(here(), &format!("run --model {SMALL} --images 1 --backend gpu"), 1);
    assert!(error.contains("no hardware GPU") && error.contains("--adapter"), "{error}");
    assert!(error.contains(adapter["name"].as_str().expect("text")), "{error}");
    let report = json(here(), &format!("run --model {SMALL} --images 1"));
    assert_eq!(report["backend"], "cpu");
    assert_eq!(json(here(), "devices")["auto"], Value::Null);
    #[cfg(target_os = "linux")]
    {
        let run = format!("run --model {SMALL} --images 1");
        let blind = |arguments: &str| with_drivers(arguments, "/nonexistent");
        let none = blind("devices").output().expect("the binary starts");
        assert!(none.status.success());
        assert!(String::from_utf8_lossy(&none.stdout).contains("no GPU adapter was found"), "{none:?}");
        let error = failure(blind(&format!("{run} --backend gpu")), 1);
        assert!(error.contains("no GPU adapter was found") && error.contains("--backend cpu"), "{error}");

        // The same driver twice is two adapters of one name.
        let driver = Path::new("/usr/share/vulkan/icd.d/lvp_icd.x86_64.json");
        if driver.exists() {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let copy = folder.path().join("again.json");
            std::fs::copy(driver, &copy).expect("copied");
            let drivers = format!("{}:{}", driver.display(), copy.display());
            let error = failure(with_drivers(&format!("{run} --adapter LLVMpipe"), &drivers), 1);
            assert!(error.contains("several adapters match \"LLVMpipe\""), "{error}");
            assert!(error.contains("0: llvmpipe") && error.contains("1: llvmpipe"), "{error}");
        }
    }
}

/// The binary where the Vulkan loader sees only `drivers`.
#[cfg(target_os = "linux")]
fn with_drivers(arguments: &str, drivers: &str) -> std::process::Command {
    let mut command = support::command(here(), arguments);
    command.env("VK_DRIVER_FILES", drivers).env("VK_ICD_FILENAMES", drivers);
    command
}
