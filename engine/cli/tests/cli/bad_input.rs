//! Damaged, foreign and hostile files: exit 1, the file named, nothing written.

use std::fs;
use std::path::Path;

use cryptodl_core::ckks::{Ciphertexts, ClientSpec, EvalKeyLayout, EvalKeys};
use cryptodl_core::wire::{
    Binding, CiphertextLayout, read_client_spec, write_ciphertexts, write_client_spec, write_eval_keys,
};
use tempfile::TempDir;

use crate::support::{SMALL, digits, fail, labels, names, pixels, png, succeed};

/// Every kind of file with the command that reads it.
const READERS: [(&str, &str); 6] = [
    ("public/client.spec", "encrypt --secret secret/secret.key --spec FILE --input digits.idx --out out.ct"),
    ("secret/secret.key", "encrypt --secret FILE --spec public/client.spec --input digits.idx --out out.ct"),
    ("public/public.key", "infer MODEL --eval-key public/eval.key --public FILE --input digits.ct --out out.ct"),
    ("public/eval.key", "infer MODEL --eval-key FILE --deterministic --input digits.ct --out out.ct"),
    ("digits.ct", "infer MODEL --eval-key public/eval.key --deterministic --input FILE --out out.ct"),
    ("scores.ct", "decrypt --secret secret/secret.key --spec public/client.spec --input FILE --out out.csv"),
];

/// A folder with a file of every kind.
fn every_kind(planning: &str) -> TempDir {
    let client = digits(2);
    let folder = client.path();
    succeed(folder, &format!("keygen {} --out .", model(planning)));
    succeed(folder, "encrypt --secret secret/secret.key --spec public/client.spec --input digits.idx --out digits.ct");
    let infer = "--eval-key public/eval.key --public public/public.key --input digits.ct --out scores.ct";
    succeed(folder, &format!("infer {} {infer}", model(planning)));
    client
}

fn model(planning: &str) -> String {
    format!("--model {SMALL} {planning}")
}

/// Runs the reader of `kind` on the file `bad`: it must name it, say `fragment`, and leave nothing.
fn refuse(folder: &Path, kind: &str, bad: &str, fragment: &str) {
    let (_, reader) = READERS.iter().find(|(file, _)| *file == kind).expect("a kind");
    let before = names(folder);
    let error = fail(folder, &reader.replace("FILE", bad).replace("MODEL", &model("")), 1);
    assert!(error.contains(bad) && error.contains(fragment), "{reader}: {fragment} in\n{error}");
    assert_eq!(names(folder), before, "{reader}");
}

#[test]
fn damaged_files_are_refused() {
    let client = every_kind("");
    let folder = client.path();
    for (kind, _) in READERS {
        let whole = fs::read(folder.join(kind)).expect("written");
        let flipped = |byte: usize| {
            let mut bytes = whole.clone();
            bytes[byte] ^= 0x10;
            bytes
        };
        let foreign = READERS.map(|(file, _)| file).into_iter().find(|&file| file != kind).expect("another kind");
        let longest = [&whole[..80], &u64::MAX.to_le_bytes(), &whole[88..]].concat();
        let cases = [
            ("empty", Vec::new(), "truncated"),
            ("header only", whole[..60].to_vec(), "truncated"),
            ("cut", whole[..whole.len() - 1].to_vec(), "truncated"),
            ("longer", [&whole[..], &[0]].concat(), "after the end"),
            ("magic", flipped(0), "not a CryptoDL file"),
            ("version", flipped(8), "format version"),
            ("kind", flipped(12), "kind is"),
            ("length", longest, "payload length"),
            // A field's own check may notice it before the checksum does.
            ("payload", flipped(whole.len() - 40), ""),
            ("checksum", flipped(whole.len() - 1), "checksum"),
            ("foreign", fs::read(folder.join(foreign)).expect("written"), "needed here is"),
        ];
        for (name, bytes, fragment) in cases {
            let bad = format!("{}.bad", name.replace(' ', "-"));
            fs::write(folder.join(&bad), bytes).expect("written");
            refuse(folder, kind, &bad, fragment);
            fs::remove_file(folder.join(&bad)).expect("removed");
        }
        refuse(folder, kind, "absent.file", "No such file");
    }
}

/// A file of another Program names both Programs, as far as `plan` shows their digests, and the
/// flags that decide, and a key of other parameters names both of these.
#[test]
fn files_of_another_program_are_refused() {
    let (client, other) = (every_kind(""), every_kind("--n 8192"));
    let folder = client.path();
    let digests = |at: usize| {
        [folder, other.path()].map(|folder| {
            let file = fs::read(folder.join("public/client.spec")).expect("written");
            file[at..at + 8].iter().map(|b| format!("{b:02x}")).collect::<String>()
        })
    };
    // In headers.
    let (programs, params) = (digests(16), digests(48));
    for (kind, _) in READERS {
        fs::copy(other.path().join(kind), folder.join("other.file")).expect("copied");
        // With another spec it is the key that does not fit.
        if kind == "public/client.spec" {
            let files = "--secret secret/secret.key --spec other.file --input digits.idx --out out.ct";
            let error = fail(folder, &format!("encrypt {files}"), 1);
            assert!(error.contains("secret.key") && params.iter().all(|digest| error.contains(digest)), "{error}");
            continue;
        }
        if kind.ends_with(".key") {
            params.iter().for_each(|digest| refuse(folder, kind, "other.file", digest));
            continue;
        }
        let digests = &programs;
        for fragment in [&digests[0], &digests[1], "--schedule", "--security", "--encryption", "--batch"] {
            refuse(folder, kind, "other.file", fragment);
        }
    }
}

/// Where a Program changes and its parameters do not, as after retraining, the keys stay:
/// ciphertexts and results do not.
#[test]
fn keys_serve_every_program_of_their_parameters() {
    let client = every_kind("");
    let folder = client.path();
    let later = model("--tolerance 0.17%");
    succeed(folder, &format!("plan {later} --write-spec later.spec"));
    let [first, second] =
        ["public/client.spec", "later.spec"].map(|name| fs::read(folder.join(name)).expect("written"));
    assert_ne!(first[16..48], second[16..48], "another Program");
    assert_eq!(first[48..80], second[48..80], "the same parameters");
    let encrypt = "encrypt --secret secret/secret.key --spec later.spec --input digits.idx --out later.ct";
    succeed(folder, encrypt);
    let infer = format!("infer {later} --eval-key public/eval.key --public public/public.key --out later-scores.ct");
    succeed(folder, &format!("{infer} --input later.ct"));
    let decrypt = "decrypt --secret secret/secret.key --out labels.csv";
    succeed(folder, &format!("{decrypt} --spec later.spec --input later-scores.ct"));
    let truth = fs::read(folder.join("labels.idx")).expect("written");
    let truth: Vec<u32> = truth[8..].iter().map(|&label| label.into()).collect();
    assert_eq!(labels(&folder.join("labels.csv")), truth);

    for refused in [
        format!("{infer} --input digits.ct"),
        format!("{decrypt} --spec later.spec --input scores.ct"),
        format!("{decrypt} --spec public/client.spec --input later-scores.ct"),
    ] {
        let error = fail(folder, &refused, 1);
        assert!(
            error.contains("does not belong to mnist-1") && error.contains("made for Program"),
            "{refused}: {error}"
        );
        // The same digits as `plan` and `run` show.
        assert!(error.split(|c: char| !c.is_ascii_hexdigit()).all(|word| word.len() <= 16), "{error}");
    }
}

/// A Program that switches keys names the key that it needs, and the file that lacks it.
#[test]
fn a_missing_evaluation_key_is_named() {
    let client = every_kind("");
    let folder = client.path();
    let spec = read_client_spec(&fs::read(folder.join("public/client.spec")).expect("written")[..]).expect("a spec");
    let spec = spec.check().expect("checked");
    let params = spec.params();
    let mut file = Vec::new();
    write_eval_keys(&mut file, params, &EvalKeys::default()).expect("written");
    fs::write(folder.join("none.key"), file).expect("written");
    let needed = spec.relin().expect("this Program relinearises");
    let layout = EvalKeyLayout::Relinearisation(needed).to_string();
    refuse(folder, "public/eval.key", "none.key", &format!("needs {layout}, but there are no evaluation keys"));
}

/// A file of an older release says so.
#[test]
fn files_of_version_1_are_to_be_made_again() {
    let client = every_kind("");
    let folder = client.path();
    for (kind, _) in READERS {
        let mut file = fs::read(folder.join(kind)).expect("written");
        file[8] = 1;
        fs::write(folder.join("old.file"), file).expect("written");
        refuse(folder, kind, "old.file", "format version 1 comes from an older release");
        let error = fail(folder, "inspect old.file", 1);
        assert!(error.contains("make the file again"), "{error}");
    }
}

/// The spec names the key that encrypts.
#[test]
fn the_other_kind_of_key_is_refused() {
    let client = every_kind("");
    let files = "--public public/public.key --spec public/client.spec --input digits.idx --out out.ct";
    let error = fail(client.path(), &format!("encrypt {files}"), 1);
    assert!(error.contains("public/client.spec: images of this Program are encrypted with --secret"), "{error}");
    assert!(!client.path().join("out.ct").exists());
}

/// Whole files with right checksums, written by an enemy.
#[test]
fn hostile_residues_are_refused() {
    let client = every_kind("");
    let folder = client.path();
    let spec = read_client_spec(&fs::read(folder.join("public/client.spec")).expect("written")[..]).expect("a spec");
    let spec = spec.check().expect("checked");
    let params = spec.params();
    let binding = Binding { program: spec.program, params };
    for (kind, layout) in
        [("digits.ct", CiphertextLayout::input(&spec)), ("scores.ct", CiphertextLayout::result(&spec))]
    {
        let CiphertextLayout { level, values, components, seeded, .. } = layout;
        let seed = seeded.then_some([1; 32]);
        let mut hostile = Ciphertexts {
            level,
            values,
            components,
            leaves: Default::default(),
            first_set: 0,
            seed,
            images: 1,
            sets: Vec::new(),
        };
        hostile.sets.push(vec![0xff; hostile.set_bytes(params)]);
        let mut bytes = Vec::new();
        write_ciphertexts(&mut bytes, &binding, &layout, &hostile).expect("written");
        fs::write(folder.join("hostile.ct"), bytes).expect("written");
        refuse(folder, kind, "hostile.ct", "not below its prime");
    }
}

#[test]
fn hostile_specs_are_refused() {
    let client = every_kind("");
    let folder = client.path();
    let spec = read_client_spec(&fs::read(folder.join("public/client.spec")).expect("written")[..]).expect("a spec");
    type Change = fn(&mut ClientSpec);
    let cases: [(&str, Change); 8] = [
        ("params.n", |spec| spec.params.n = 512),
        ("not 128-bit secure", |spec| spec.params.n = 1024),
        ("prime", |spec| spec.params.primes[0] += 2),
        ("prime", |spec| spec.params.primes[1] = spec.params.primes[0]),
        ("chain is empty", |spec| spec.params.primes.clear()),
        ("input.shape", |spec| spec.input.shape = [64, 4096, 4096]),
        ("output.classes", |spec| spec.output.classes = usize::MAX),
        ("input.range", |spec| spec.input.range = [1.0, 0.0]),
    ];
    for (fragment, change) in cases {
        let mut hostile = spec.clone();
        change(&mut hostile);
        let mut bytes = Vec::new();
        write_client_spec(&mut bytes, &hostile).expect("written");
        fs::write(folder.join("hostile.spec"), bytes).expect("written");
        refuse(folder, "public/client.spec", "hostile.spec", fragment);
        let error = fail(folder, "keygen --spec hostile.spec --out other", 1);
        assert!(error.contains("hostile.spec") && error.contains(fragment), "{fragment} in\n{error}");
        assert!(!folder.join("other").exists());
    }
}

#[test]
fn places_that_cannot_be_written() {
    let client = every_kind("");
    let folder = client.path();
    let writers = [
        format!("infer {} --eval-key public/eval.key --deterministic --input digits.ct --out OUT", model("")),
        "encrypt --secret secret/secret.key --spec public/client.spec --input digits.idx --out OUT".into(),
        "decrypt --secret secret/secret.key --spec public/client.spec --input scores.ct --out OUT.csv".into(),
        format!("plan {} --write-spec OUT", model("")),
        format!("plan {} --json OUT", model("")),
    ];
    #[cfg(target_os = "linux")]
    for name in ["full", "full.csv"] {
        std::os::unix::fs::symlink("/dev/full", folder.join(name)).expect("a link to a full device");
    }
    fs::create_dir(folder.join("taken")).expect("a folder");
    fs::create_dir(folder.join("taken.csv")).expect("a folder");
    let before = names(folder);
    for writer in writers {
        for out in [
            "absent/out",
            "taken",
            #[cfg(target_os = "linux")]
            "full",
        ] {
            let error = fail(folder, &writer.replace("OUT", out), 1);
            assert!(error.contains("cannot write"), "{writer} to {out}:\n{error}");
        }
    }
    let error = fail(folder, "keygen --spec public/client.spec --out digits.idx/keys", 1);
    assert!(error.contains("digits.idx/keys"), "{error}");
    assert_eq!(names(folder), before);
}

#[test]
fn what_cannot_be_planned_or_computed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (arguments, fragments) in [
        ("plan --model mnist-9", ["mnist-9", "did you mean `mnist-"]),
        ("run --model absent.toml", ["absent.toml", "No such file"]),
        ("plan --model mnist-1 --n 3000", ["the ring dimension is 3000, but must be a power of two", "--n sets it"]),
        (
            "plan --model mnist-1 --input-scale-bits 99",
            ["scale in bits is 99, but must be 8 to 30", "--input-scale-bits sets it"],
        ),
        ("plan --model mnist-1 --n 2048", ["no schedule fits mnist-1 at 128-bit security", "help"]),
        ("plan --model mnist-1 --n 4096 --limbs 8", ["no schedule fits", "--limbs"]),
        ("run --model mnist-1 --images 10 --memory-budget 1MiB", ["1048576 bytes is too small", "--memory-budget"]),
    ] {
        let error = fail(folder.path(), arguments, 1);
        assert!(fragments.iter().all(|fragment| error.contains(fragment)), "{arguments}: {fragments:?} in\n{error}");
    }
    assert!(names(folder.path()).is_empty());
}

#[test]
fn an_output_never_replaces_an_input_or_another_output() {
    let client = digits(3);
    let folder = client.path();
    succeed(folder, &format!("keygen --model {SMALL} --out keys"));
    let secret = fs::read(folder.join("keys/secret/secret.key")).expect("written");
    let encrypt = "encrypt --secret keys/secret/secret.key --spec keys/public/client.spec --input digits.idx --out";
    for arguments in [
        format!("{encrypt} keys/secret/secret.key"),
        format!("{encrypt} keys/../digits.idx"),
        format!("plan --model {SMALL} --json twice --write-spec twice"),
        format!("run --model {SMALL} --images 3 --json labels.json --out labels.json"),
    ] {
        let error = fail(folder, &arguments, 1);
        assert!(error.contains("named twice"), "{arguments}: {error}");
    }
    assert_eq!(fs::read(folder.join("keys/secret/secret.key")).expect("still there"), secret);
    assert_eq!(names(folder), ["digits.idx", "keys", "labels.idx"]);

    // Neither is an image of a folder, nor what `run`, `plan` and `calibrate` read.
    fs::create_dir(folder.join("good")).expect("a folder");
    fs::write(folder.join("good/0.png"), png(&pixels(folder)[..784])).expect("written");
    let good = names(&folder.join("good"));
    let keys = "--secret keys/secret/secret.key --spec keys/public/client.spec";
    for out in ["good/0.png", "good/1.png", "./keys/../good/0.JPG"] {
        let error = fail(folder, &format!("encrypt {keys} --input good --out {out}"), 1);
        assert!(error.contains("lies in the folder good, whose images are read"), "{out}: {error}");
    }
    assert_eq!(names(&folder.join("good")), good);
    let zoo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/zoo/trained/mnist-1-square");
    fs::create_dir(folder.join("model")).expect("a folder");
    for end in ["toml", "safetensors", "calibration.safetensors"] {
        fs::copy(format!("{zoo}.{end}"), folder.join(format!("model/mnist-1-square.{end}"))).expect("copied");
    }
    fs::copy(folder.join("digits.idx"), folder.join("digits.npy")).expect("copied");
    let before = |name: &str| fs::read(folder.join("model").join(name)).expect("a file");
    let all =
        ["mnist-1-square.toml", "mnist-1-square.safetensors", "mnist-1-square.calibration.safetensors"].map(before);
    for arguments in [
        "plan --model model/mnist-1-square.toml --out model/mnist-1-square.safetensors",
        "plan --model model/mnist-1-square.toml --write-spec model/mnist-1-square.calibration.safetensors",
        "plan --model model/mnist-1-square.toml --json model/mnist-1-square.toml",
        "run --model model/mnist-1-square.toml --data digits.npy --out digits.npy",
        "calibrate --model model/mnist-1-square.toml --data digits.idx --out model",
    ] {
        let error = fail(folder, arguments, 1);
        assert!(error.contains("named twice"), "{arguments}: {error}");
    }
    let after = |name: &str| fs::read(folder.join("model").join(name)).expect("a file");
    assert!(
        all == ["mnist-1-square.toml", "mnist-1-square.safetensors", "mnist-1-square.calibration.safetensors"]
            .map(after)
    );
    // What is no image may lie beside images.
    succeed(folder, &format!("encrypt {keys} --input good --out good/digits.ct"));
    assert_eq!(names(&folder.join("good")), ["0.png", "digits.ct", "digits.ct.names"]);
    // Keys are not replaced one by one either.
    fs::remove_file(folder.join("keys/secret/secret.key")).expect("removed");
    let error = fail(folder, &format!("keygen --model {SMALL} --out keys"), 1);
    assert!(error.contains("public.key exists"), "{error}");
}
