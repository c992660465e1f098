//! Wrong usage: exit 2, with what is allowed.

use std::path::Path;

use crate::support::{fail, succeed};

#[test]
fn wrong_usage_exits_with_2() {
    let files = "--eval-key e --input i --out o";
    let infer = format!("infer --model mnist-1 {files}");
    for (arguments, fragment) in [
        ("", "Usage"),
        ("classify", "unrecognized subcommand"),
        ("run", "--model"),
        ("run --model mnist-1 --images many", "invalid value"),
        ("run --model mnist-1 --schedule eager", "[possible values: auto, layered]"),
        ("run --model mnist-1 --security 100", "[possible values: 128, 192, 256]"),
        ("run --model mnist-1 --kernels avx1024", "possible values"),
        ("run --model mnist-1 --memory-budget lots", "2GiB"),
        ("run --model mnist-1 --backend tpu", "[possible values: auto, cpu, gpu]"),
        ("run --model mnist-1 --repeat 0", "invalid value"),
        ("verify --kernels reference", "possible values"),
        ("run --model mnist-1 --input-scale-bits 13.4", "multiple of 0.5"),
        ("run --model mnist-1 --threads 0", "invalid value"),
        (&infer, "--public"),
        (&format!("{infer} --public p --deterministic"), "cannot be used with"),
        ("encrypt --spec s --input i --out o", "--secret"),
        ("encrypt --secret s --public p --spec s --input i --out o", "cannot be used with"),
        ("decrypt --secret s --spec s --input i --out labels.doc", ".csv, .json, .npy or .txt"),
        ("keygen --out keys", "<--spec <FILE>|--model <MODEL>|--program <FILE>>"),
        ("keygen --spec s --model mnist-1 --out keys", "cannot be used with"),
        ("keygen --spec s --schedule layered --out keys", "cannot be used with"),
        ("serve", "--program"),
        ("serve --model mnist-1", "--state"),
        ("serve --new-token alice", "--tokens"),
        ("serve --model mnist-1 --state s --tls-cert c", "--tls-key"),
        ("serve --model mnist-1 --state s --listen here", "invalid value"),
        ("query --model mnist-1 --keys keys", "--server"),
        ("query --server http://localhost --model mnist-1 --keys keys --input i", "--out"),
        ("query --server http://localhost --model mnist-1 --keys keys --data cifar100", "invalid value"),
        ("data", "fetch"),
        ("approx --degree 2 --interval=-1,1", "--function"),
        ("approx --function relu --interval=-1,1", "--degree"),
        ("approx --function relu --degree 2", "--interval"),
        ("approx --function relu6 --degree 2 --interval=-1,1", "[possible values: relu, sigmoid"),
        ("approx --function relu --degree 2 --interval=-1,1 --method lagrange", "minimax"),
        ("approx --function relu --degree two --interval=-1,1", "invalid value"),
        ("approx --function relu --degree 2 --error 0.1 --interval=-1,1", "cannot be used with"),
        ("approx --function relu --samples f.csv --degree 2 --interval=-1,1", "cannot be used with"),
        ("approx --function relu --degree 2 --interval=-1;1", "such as -5,5"),
        ("approx --function relu --degree 2 --interval=-1,1 --plot relu.png", ".svg"),
    ] {
        let error = fail(Path::new("."), arguments, 2);
        assert!(error.contains(fragment), "{arguments}: {fragment} in\n{error}");
    }
}

/// What is printed of an error is bounded, and its beginning and its end are there.
#[test]
fn long_errors_lose_their_middle() {
    let error = fail(Path::new("."), &format!("plan --model {}", "x".repeat(50_000)), 1);
    assert!(
        error.starts_with("error: unknown model `xxx") && error.ends_with("of the folder that holds it\n"),
        "{error}"
    );
    assert!(error.len() < 2100 && error.contains(" characters ...] "), "{error}");
}

/// Help teaches by example, and shows no test flags.
#[test]
fn every_command_has_an_example() {
    for command in [
        "demo",
        "run",
        "plan",
        "keygen",
        "encrypt",
        "infer",
        "decrypt",
        "inspect",
        "calibrate",
        "data",
        "data fetch",
        "data path",
        "models",
        "approx",
        "devices",
        "verify",
        "bench",
    ] {
        let help = succeed(Path::new("."), &format!("{command} --help"));
        assert!(help.contains("Example") && help.contains(command), "{help}");
        assert!(!help.contains("insecure"), "{help}");
        // Commands to copy are not broken, and what every command has comes after its own flags.
        let widest = help.lines().map(|line| line.chars().count()).max();
        assert!(widest.is_some_and(|columns| columns <= 100), "{widest:?} columns in\n{help}");
        let own = help.lines().filter(|line| line.trim_start().starts_with("--")).find(|line| !line.contains("--help"));
        assert!(own.is_none_or(|line| !line.contains("--threads") || command.starts_with("data")), "{help}");
    }
}

/// Names that are nearly right are met with the right one, and not with a list.
#[test]
fn slips_are_met_with_a_suggestion() {
    let error = fail(Path::new("."), "plan --model mnist1", 1);
    assert!(
        error.contains("unknown model `mnist1`; did you mean `mnist-1`?") && !error.contains("secureml"),
        "{error}"
    );
    let error = fail(Path::new("."), "run --model Fashion1", 1);
    assert!(error.contains("did you mean `fashion-1`?"), "{error}");
    let error = fail(Path::new("."), "plan --model resnet", 1);
    assert!(error.contains("Shipped models are mnist-1, mnist-1-square"), "{error}");
    let error = fail(Path::new("."), "run --model mnist-1 --schedul auto", 2);
    assert!(error.contains("a similar argument exists: '--schedule'"), "{error}");
}
