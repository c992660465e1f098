//! keygen, encrypt, infer and decrypt as separate processes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{SMALL, agreement, command, digits, fail, json, labels, names, succeed};

const SEED: &str = "--insecure-test-seed 7";

/// Client and server in folders of their own; only what may travel is copied. Returns the server's folder name.
fn classify(client: &Path, model: &str, planning: &str, key: &str, seed: &str) {
    let server = client.join("server");
    fs::create_dir(&server).expect("a folder for the server");
    succeed(&server, &format!("plan --model {model} {planning} --write-spec offered.spec"));
    fs::copy(server.join("offered.spec"), client.join("offered.spec")).expect("copied");

    succeed(client, &format!("keygen --spec offered.spec --out keys {seed}"));
    let folder = if key == "secret" { "secret" } else { "public" };
    let key = format!("--{key} keys/{folder}/{key}.key");
    succeed(client, &format!("encrypt {key} --spec keys/public/client.spec --input digits.idx --out digits.ct {seed}"));
    for (file, name) in
        [("digits.ct", "digits.ct"), ("keys/public/public.key", "public.key"), ("keys/public/eval.key", "eval.key")]
    {
        fs::copy(client.join(file), server.join(name)).expect("copied");
    }

    let files = "--eval-key eval.key --public public.key --input digits.ct --out scores.ct";
    succeed(&server, &format!("infer --model {model} {planning} {files} {seed}"));
    assert_eq!(names(&server), ["digits.ct", "eval.key", "offered.spec", "public.key", "scores.ct"]);
    fs::copy(server.join("scores.ct"), client.join("scores.ct")).expect("copied");
    succeed(
        client,
        "decrypt --secret keys/secret/secret.key --spec keys/public/client.spec --input scores.ct --out labels.csv",
    );
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
        for (file, field) in [("keys/public/eval.key", "eval_key"), ("keys/public/public.key", "public_key")] {
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
        .args(["-B", script, "keys/secret/secret.key", "keys/public/client.spec", "scores.ct"])
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

    // No result leaves without the flood, and a seed that repeats the flood is warned of.
    let infer =
        format!("infer --model {SMALL} {planning} --eval-key keys/public/eval.key --input digits.ct --out again.ct");
    let error = fail(folder, &format!("{infer} --deterministic"), 1);
    assert!(error.contains("--deterministic adds no flood") && error.contains("with --public instead"), "{error}");
    assert!(!folder.join("again.ct").exists());
    let seeded =
        command(folder, &format!("{infer} --public keys/public/public.key --json - {SEED}")).output().expect("starts");
    let warning = String::from_utf8_lossy(&seeded.stderr);
    assert!(warning.contains("two computations with one seed add the same flood"), "{warning}");
    let report: Value = serde_json::from_slice(&seeded.stdout).expect("JSON and nothing else");
    assert_eq!(report["circuit_privacy"], serde_json::json!({ "sets": 2, "bits": 30 }));
    for part in ["read", "prepare", "compute", "write"] {
        assert!(report["seconds"][part].as_f64().is_some_and(|seconds| seconds > 0.0), "{part}: {report}");
    }

    let error = fail(folder, &format!("plan --model {SMALL} --circuit-privacy 2"), 2);
    assert!(error.contains("two whole numbers are needed, sets and bits, such as 64,40"), "{error}");
    let error = fail(folder, &format!("plan --model {SMALL} --circuit-privacy 2,65"), 1);
    assert!(error.contains("the number of bits of circuit privacy is 65, but must be 1 to 64"), "{error}");
    assert!(error.contains("T of --circuit-privacy K,T sets it"), "{error}");
}

/// What the machine is asked to do it with never changes a bit.
#[test]
fn inference_without_masks_is_deterministic() {
    let client = digits(20);
    let folder = client.path();
    let encrypted = "encrypt --secret keys/secret/secret.key --spec keys/public/client.spec --input digits.idx";
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
        let infer = format!(
            "infer --model {SMALL} {planning} --eval-key keys/public/eval.key --input digits.ct --out scores.ct"
        );
        let mut results = variants.iter().map(|variant| {
            succeed(folder, &format!("{infer} --deterministic {variant}"));
            (variant, fs::read(folder.join("scores.ct")).expect("written"))
        });
        let (_, first) = results.next().expect("variants");
        results.for_each(|(variant, result)| assert!(result == first, "other bytes with {variant}"));

        // Masks are fresh each time, and change every byte but the header.
        let masked = || {
            succeed(folder, &format!("{infer} --public keys/public/public.key"));
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
        let files =
            format!("--secret keys/secret/secret.key --spec keys/public/client.spec --input digits.idx --out {name}");
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
    let error = fail(
        folder,
        "decrypt --secret other/secret/secret.key --spec offered.spec --input scores.ct --out other.csv",
        1,
    );
    assert!(error.contains("scores.ct") && error.contains("another key"), "{error}");
    assert!(!folder.join("other.csv").exists());
}

/// Only the owner can read the secret key, and it is not replaced by accident. What may be given away is in a folder of its
/// own.
#[test]
fn the_secret_key_is_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let keygen = format!("keygen --model {SMALL} --out keys");
    succeed(folder.path(), &keygen);
    let keys = folder.path().join("keys");
    let secret = keys.join("secret/secret.key");
    #[cfg(unix)]
    {
        assert_eq!(mode(&secret), 0o600);
        assert_eq!(mode(&keys.join("secret")), 0o700);
    }
    let before = fs::read(&secret).expect("written");
    let error = fail(folder.path(), &keygen, 1);
    assert!(error.contains("secret.key exists") && error.contains("--force"), "{error}");
    assert_eq!(fs::read(&secret).expect("still there"), before);
    // Neither is a spec that a server gave.
    fs::create_dir_all(folder.path().join("given/public")).expect("a folder");
    fs::write(folder.path().join("given/public/client.spec"), "a spec").expect("written");
    let error = fail(folder.path(), &keygen.replace("--out keys", "--out given"), 1);
    assert!(error.contains("client.spec exists") && error.contains("--force"), "{error}");
    succeed(folder.path(), &format!("{keygen} --force"));
    assert_ne!(fs::read(&secret).expect("new"), before);
    assert_eq!(names(&keys), ["public", "secret"]);
    assert_eq!(names(&keys.join("public")), ["client.spec", "eval.key", "public.key"]);
    assert_eq!(names(&keys.join("secret")), ["secret.key"]);
}

/// A folder that is there already is closed: who may write to it could replace the key.
#[test]
#[cfg(unix)]
fn others_are_kept_out_of_the_secret_folder() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let secret = folder.path().join("keys/secret");
    fs::create_dir_all(&secret).expect("a folder");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o777)).expect("a folder of ours");
    succeed(folder.path(), &format!("keygen --model {SMALL} --out keys"));
    assert_eq!((mode(&secret), mode(&secret.join("secret.key"))), (0o700, 0o600));
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).expect("written").permissions().mode() & 0o777
}

/// Of several at once, one makes keys and the others find them.
#[test]
#[cfg(unix)]
fn keys_are_made_by_one_process_at_a_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    succeed(folder.path(), &format!("plan --model {SMALL} --write-spec offered.spec"));
    for out in ["a", "b", "c"] {
        let keygen = || command(folder.path(), &format!("keygen --spec offered.spec --out {out}"));
        let started = [(); 3].map(|()| keygen().stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("started"));
        let ended = started.map(|child| child.wait_with_output().expect("ended"));
        let failed: Vec<_> = ended.iter().filter(|output| !output.status.success()).collect();
        assert_eq!(failed.len(), 2, "{ended:?}");
        assert!(failed.iter().all(|output| String::from_utf8_lossy(&output.stderr).contains("exists: choose another")));
        assert_eq!(names(&folder.path().join(out).join("public")), ["client.spec", "eval.key", "public.key"]);
    }
}

/// Labels are what was encrypted: nobody else on the machine may read them.
#[test]
#[cfg(unix)]
fn decrypted_results_are_for_their_owner() {
    let client = digits(3);
    let folder = client.path();
    classify(folder, SMALL, "", "secret", "");
    assert_eq!(mode(&folder.join("labels.csv")), 0o600);
    succeed(folder, &format!("run --model {SMALL} --images 3 --out run.json"));
    assert_eq!(mode(&folder.join("run.json")), 0o600);
}

/// On a machine without a desktop session a graphics driver used to complain where nothing was wrong.
#[test]
fn success_prints_no_error() {
    let client = digits(3);
    let folder = client.path();
    classify(folder, SMALL, "", "secret", "");
    let server = folder.join("server");
    let files = "--eval-key eval.key --public public.key --input digits.ct --out scores.ct";
    let mut infer = command(&server, &format!("infer --model {SMALL} {files}"));
    let output = infer.env_remove("XDG_RUNTIME_DIR").output().expect("the binary starts");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
