//! Computations that are killed and begun again.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{SMALL, command, digits, fail, json, succeed};

/// Three sets.
const IMAGES: usize = 9000;

/// Begins the command and kills it, as `kill -9` does, as soon as `file` is there.
fn killed_at(folder: &Path, arguments: &str, file: &str) {
    let mut process = command(folder, arguments).spawn().expect("started");
    let start = Instant::now();
    while !folder.join(file).exists() {
        assert!(process.try_wait().expect("a process").is_none(), "it ended before {file} was there");
        assert!(start.elapsed() < Duration::from_secs(600), "{file} is not there");
        sleep(Duration::from_millis(1));
    }
    process.kill().expect("killed");
    process.wait().expect("killed");
}

#[test]
fn a_killed_inference_goes_on_with_the_same_bytes() {
    let client = digits(IMAGES);
    let folder = client.path();
    succeed(folder, &format!("keygen --model {SMALL} --out keys"));
    let encrypt = "encrypt --secret keys/secret/secret.key --spec keys/public/client.spec --input digits.idx";
    for name in ["digits.ct", "other.ct"] {
        succeed(folder, &format!("{encrypt} --out {name}"));
    }
    let infer = format!("infer --model {SMALL} --eval-key keys/public/eval.key --deterministic --input digits.ct");
    succeed(folder, &format!("{infer} --out expected.ct"));
    let resumable = format!("{infer} --out scores.ct --checkpoint kept");
    for file in ["kept/request", "kept/set-0.result", "kept/set-1.result"] {
        killed_at(folder, &resumable, file);
        assert!(!folder.join("scores.ct").exists());
    }
    // What belongs to other images is not mixed in.
    let other = resumable.replace("digits.ct", "other.ct");
    assert!(fail(folder, &other, 1).contains("belongs to another computation"));

    let report = json(folder, &resumable);
    assert!(report["batches_kept"].as_u64().is_some_and(|kept| (2..=3).contains(&kept)), "{report}");
    assert!(
        fs::read(folder.join("scores.ct")).expect("written") == fs::read(folder.join("expected.ct")).expect("written")
    );
    assert!(!folder.join("kept").exists());
}

#[test]
fn a_killed_run_goes_on() {
    let client = digits(IMAGES);
    let folder = client.path();
    let run = format!("run --model {SMALL} --data digits.idx --labels labels.idx --checkpoint kept");
    killed_at(folder, &run, "kept/server/set-1.result");
    let secret = fs::read(folder.join("kept/client")).expect("written");
    assert_eq!(secret.len(), 64);
    let fewer = fail(folder, &format!("{run} --images 5000"), 1);
    assert!(fewer.contains("other images"), "{fewer}");

    let report = json(folder, &run);
    assert!(report["batches_kept"].as_u64().is_some_and(|kept| (2..=3).contains(&kept)), "{report}");
    assert!(report["agreement"].as_f64().is_some_and(|agreement| agreement >= 0.995), "{report}");
    assert!(!folder.join("kept").exists());
    assert!(fail(folder, &format!("{run} --repeat 2"), 2).contains("cannot be used with"));
}

/// A network whose maps go through bands, killed at ten moments that nobody chose.
#[test]
#[ignore = "takes minutes: tests/long.sh resume"]
fn ten_kills_at_random_moments() {
    let client = digits(100);
    let folder = client.path();
    succeed(folder, "plan --model mnist-1 --schedule layered --out layered.program");
    succeed(folder, "keygen --program layered.program --out keys");
    let key = "--secret keys/secret/secret.key --spec keys/public/client.spec";
    succeed(folder, &format!("encrypt {key} --input digits.idx --out digits.ct"));
    let infer = "infer --program layered.program --eval-key keys/public/eval.key --deterministic --input digits.ct \
                 --memory-budget 320MiB";
    let start = Instant::now();
    succeed(folder, &format!("{infer} --out expected.ct"));
    let whole = start.elapsed();
    let resumable = format!("{infer} --out scores.ct --checkpoint kept --checkpoint-every-step");
    let mut killed = 0;
    while killed < 10 {
        let moment = RandomState::new().hash_one(killed) % 1000;
        let mut process = command(folder, &resumable).spawn().expect("started");
        sleep(whole.mul_f64(moment as f64 / 4000.0));
        assert!(process.try_wait().expect("a process").is_none(), "it ended after {killed} kills");
        process.kill().expect("killed");
        process.wait().expect("killed");
        killed += 1;
        assert!(!folder.join("scores.ct").exists());
    }
    succeed(folder, &resumable);
    assert!(
        fs::read(folder.join("scores.ct")).expect("written") == fs::read(folder.join("expected.ct")).expect("written")
    );
}
