//! All 10,000 test images against the promises of the project, minutes long and meant for a release build on two free
//! cores: `cargo test --release -p cryptodl-cli --test full`.

use std::process::Command;

use serde_json::Value;

struct Limits {
    /// Seconds of `compute`.
    compute: f64,
    upload_per_8192: f64,
}

fn check(arguments: &str, limits: &Limits) {
    let arguments = format!("run --images 10000 --backend cpu --json - {arguments}");
    let output =
        Command::new(env!("CARGO_BIN_EXE_cryptodl")).args(arguments.split_whitespace()).output().expect("started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    println!("{arguments}\n{run:#}");
    let number = |path: &str| run.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} in {run}"));

    assert_eq!(number("/images"), 10000.0);
    assert!(number("/params/security_bits") >= 128.0);
    assert!((number("/encrypted/accuracy") - number("/plaintext/accuracy")).abs() <= 0.001, "accuracy");
    assert!(number("/agreement") >= 0.995, "agreement {}", number("/agreement"));
    assert!((number("/noise/predicted_log2") - number("/noise/measured_log2")).abs() <= 1.0, "noise {}", run["noise"]);
    assert!(number("/seconds/compute") <= limits.compute, "compute {}", number("/seconds/compute"));
    // Whole sets hold the fewest bytes per image.
    let sets = number("/batches") * number("/slots");
    assert!(number("/bytes/upload") / sets * 8192.0 <= limits.upload_per_8192, "upload {}", run["bytes"]);
    assert!(number("/bytes/eval_key") <= 4e6, "evaluation key {}", run["bytes"]);
    assert!(number("/peak_rss_bytes") <= f64::from(1 << 30) * 4.0, "memory {}", number("/peak_rss_bytes"));
}

#[test]
fn ten_thousand_images() {
    let any = f64::INFINITY;
    check("--model mnist-1", &Limits { compute: 8.0, upload_per_8192: 80e6 });
    check("--model mnist-1 --encryption public", &Limits { compute: 8.0, upload_per_8192: any });
    check("--model mnist-1 --schedule layered", &Limits { compute: 60.0, upload_per_8192: any });
}
