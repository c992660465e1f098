//! keygen, encrypt, infer and decrypt as separate processes.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{SMALL, agreement, digits, fail, json, labels, names, succeed};

const SEED: &str = "--insecure-test-seed 7";

/// Client and server in folders of their own; only what may travel is copied. Returns the server's folder name.
fn classify(client: &Path, model: &str, planning: &str, key: &str, seed: &str) {
    let server = client.join("server");
    fs::create_dir(&server).expect("a folder for the server");
    succeed(&server, &format!("plan --model {model} {planning} --write-spec offered.spec"));
    fs::copy(server.join("offered.spec"), client.join("offered.spec")).expect("copied");

    succeed(client, &format!("keygen --spec offered.spec --out keys {seed}"));
    let key = format!("--{key} keys/{key}.key");
    succeed(client, &format!("encrypt {key} --spec keys/client.spec --input digits.idx --out digits.ct {seed}"));
    for (file, name) in [("digits.ct", "digits.ct"), ("keys/public.key", "public.key"), ("keys/eval.key", "eval.key")] {
        fs::copy(client.join(file), server.join(name)).expect("copied");
    }

    let files = "--eval-key eval.key --public public.key --input digits.ct --out scores.ct";
    succeed(&server, &format!("infer --model {model} {planning} {files} {seed}"));
    assert_eq!(names(&server), ["digits.ct", "eval.key", "offered.spec", "public.key", "scores.ct"]);
    fs::copy(server.join("scores.ct"), client.join("scores.ct")).expect("copied");
    succeed(client, "decrypt --secret keys/secret.key --spec keys/client.spec --input scores.ct --out labels.csv");
}

/// Both ways of encryption agree with plaintext, and with `run` label for label under the same test seed.
#[test]
fn staged_commands_agree_with_run() {
    for (kind, planning) in [("secret", ""), ("public", "--encryption public")] {
        let client = digits(300);
        let folder = client.path();
        classify(folder, "mnist-1", planning, kind, SEED);
        let run = json(folder, &format!("run --model mnist-1 {planning} --images 300 --out run.csv {SEED}"));
        let agreement = run["agreement"].as_f64().expect("a number");
        assert!(agreement >= 0.99, "{kind}: {agreement}");
        assert_eq!(
            fs::read_to_string(folder.join("labels.csv")).expect("written"),
            fs::read_to_string(folder.join("run.csv")).expect("written"),
            "{kind}"
        );
        for (file, field) in [("keys/eval.key", "eval_key"), ("keys/public.key", "public_key")] {
            assert_eq!(fs::metadata(folder.join(file)).expect("a file").len(), run["bytes"][field], "{file}");
        }
        for (file, field) in [("digits.ct", "upload"), ("scores.ct", "download")] {
            assert_eq!(fs::metadata(folder.join(file)).expect("a file").len(), run["bytes"][field], "{file}");
        }
    }
}

/// The same with real randomness, an evaluation key, and an outside program that decrypts by docs/format.md.
#[test]
fn a_layered_program_and_an_outside_decryptor() {
    let client = digits(300);
    let folder = client.path();
    classify(folder, SMALL, "--schedule layered", "secret", "");
    let mine = labels(&folder.join("labels.csv"));
    let truth = fs::read(folder.join("labels.idx")).expect("labels");
    let truth: Vec<u32> = truth[8..].iter().map(|&label| label.into()).collect();
    assert!(agreement(&mine, &truth) >= 0.96);

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/outside/decrypt.py");
    let outside = Command::new("python3")
        .args(["-B", script, "keys/secret.key", "keys/client.spec", "scores.ct"])
        .current_dir(folder)
        .output()
        .expect("python3 is needed for this test");
    assert!(outside.status.success(), "{}", String::from_utf8_lossy(&outside.stderr));
    fs::write(folder.join("outside.csv"), outside.stdout).expect("written");
    assert_eq!(labels(&folder.join("outside.csv")), mine);
}

/// A Program with circuit privacy: scales beyond what a double holds, a flood, and fewer limbs in the result.
#[test]
fn circuit_privacy_keeps_the_labels() {
    let client = digits(300);
    let folder = client.path();
    let planning = "--circuit-privacy 2,30";
    classify(folder, SMALL, planning, "secret", "");
    let truth = fs::read(folder.join("labels.idx")).expect("labels");
    let truth: Vec<u32> = truth[8..].iter().map(|&label| label.into()).collect();
    assert!(agreement(&labels(&folder.join("labels.csv")), &truth) >= 0.96);
    let plan = json(folder, &format!("plan --model {SMALL} {planning}"));
    assert_eq!((&plan["circuit_privacy"]["sets"], &plan["circuit_privacy"]["bits"]), (&2.into(), &30.into()));
    assert!(plan["input_log_scale"].as_f64().expect("a number") > 52.0);
    assert!(json(folder, &format!("plan --model {SMALL}"))["circuit_privacy"].is_null(), "off by default");
    let error = fail(folder, &format!("plan --model {SMALL} --circuit-privacy 2"), 2);
    assert!(error.contains("two whole numbers are needed, sets and bits, such as 64,40"), "{error}");
    let error = fail(folder, &format!("plan --model {SMALL} --circuit-privacy 2,65"), 1);
    assert!(error.contains("--circuit-privacy T = 65 is not allowed: 1 to 64"), "{error}");
}

/// What the machine is asked to do it with never changes a bit.
#[test]
fn inference_without_masks_is_deterministic() {
    let client = digits(20);
    let folder = client.path();
    let encrypted = "encrypt --secret keys/secret.key --spec keys/client.spec --input digits.idx";
    for (planning, variants) in [
        (
            "",
            &[
                "",
                "",
                "--threads 1",
                "--memory-budget 64MiB",
                "--kernels reference",
                "--backend cpu --kernels portable",
            ][..],
        ),
        ("--schedule layered", &["", "--memory-budget 200MiB --threads 1"]),
    ] {
        succeed(folder, &format!("keygen --model {SMALL} {planning} --out keys --force"));
        succeed(folder, &format!("{encrypted} --out digits.ct"));
        let infer =
            format!("infer --model {SMALL} {planning} --eval-key keys/eval.key --input digits.ct --out scores.ct");
        let mut results = variants.iter().map(|variant| {
            succeed(folder, &format!("{infer} --deterministic {variant}"));
            (variant, fs::read(folder.join("scores.ct")).expect("written"))
        });
        let (_, first) = results.next().expect("variants");
        results.for_each(|(variant, result)| assert!(result == first, "other bytes with {variant}"));

        // Masks are fresh each time, and change every byte but the header.
        let masked = || {
            succeed(folder, &format!("{infer} --public keys/public.key"));
            fs::read(folder.join("scores.ct")).expect("written")
        };
        assert!(masked() != masked());
        let same = masked().iter().zip(&first).skip(148).filter(|(a, b)| a == b).count();
        assert!(same < first.len() / 50, "{same} of {} bytes are not masked", first.len());
    }
}

/// Equal images look different, and each encryption is new.
#[test]
fn ciphertexts_are_fresh() {
    let client = digits(3);
    let folder = client.path();
    succeed(folder, &format!("keygen --model {SMALL} --out keys"));
    let encrypted = |name: &str| {
        let files = format!("--secret keys/secret.key --spec keys/client.spec --input digits.idx --out {name}");
        succeed(folder, &format!("encrypt {files}"));
        fs::read(folder.join(name)).expect("written")
    };
    let (a, b) = (encrypted("a.ct"), encrypted("b.ct"));
    assert_eq!(a.len(), b.len());
    let same = a.iter().zip(&b).skip(148).filter(|(a, b)| a == b).count();
    assert!(same < a.len() / 50, "{same} of {} bytes are equal", a.len());
}

/// A result for another key is no result.
#[test]
fn another_key_decrypts_nothing() {
    let client = digits(40);
    let folder = client.path();
    classify(folder, SMALL, "", "secret", "");
    succeed(folder, "keygen --spec offered.spec --out other");
    let error =
        fail(folder, "decrypt --secret other/secret.key --spec offered.spec --input scores.ct --out other.csv", 1);
    assert!(error.contains("scores.ct") && error.contains("another key"), "{error}");
    assert!(!folder.join("other.csv").exists());
}

/// Only the owner can read the secret key, and it is not replaced by accident.
#[test]
fn the_secret_key_is_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let keygen = format!("keygen --model {SMALL} --out keys");
    succeed(folder.path(), &keygen);
    let secret = folder.path().join("keys/secret.key");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&secret).expect("written").permissions().mode() & 0o777, 0o600);
    }
    let before = fs::read(&secret).expect("written");
    let error = fail(folder.path(), &keygen, 1);
    assert!(error.contains("secret.key exists") && error.contains("--force"), "{error}");
    assert_eq!(fs::read(&secret).expect("still there"), before);
    succeed(folder.path(), &format!("{keygen} --force"));
    assert_ne!(fs::read(&secret).expect("new"), before);
    assert_eq!(names(&folder.path().join("keys")), ["client.spec", "eval.key", "public.key", "secret.key"]);
}
