//! `import`: a file of another program becomes a model that runs.

use std::fs;
use std::path::{Path, PathBuf};

use cryptodl_network::plain;
use cryptodl_onnx::{ImportOptions, import};
use ndarray::Array4;

use crate::support::{fail, json, labels, square_png, succeed};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/onnx/tests/fixtures").join(name)
}

/// `count` different images of so many pixels of 8 bits, some of them dark.
fn pixels(count: usize, each: usize) -> Vec<u8> {
    let mut state = 1u32;
    let pixel = |index: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 24) as usize * (index / each % 32 + 1) / 32) as u8
    };
    (0..count * each).map(pixel).collect()
}

/// A .npy file.
fn npy(path: &Path, kind: &str, shape: &str, values: &[u8]) {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    let padded = format!("{header:<117}\n");
    let bytes = [b"\x93NUMPY\x01\x00\x76\x00", padded.as_bytes(), values].concat();
    fs::write(path, bytes).expect("a temporary file");
}

/// `count` images of 8 x 8 pixels of 8 bits, all different.
fn images(path: &Path, count: usize) {
    npy(path, "|u1", &format!("{count}, 8, 8"), &pixels(count, 64));
}

#[test]
fn an_exported_network_is_measured_planned_and_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    images(&folder.join("some.npy"), 1000);
    images(&folder.join("few.npy"), 20);
    let file = fixture("line.dynamo.onnx").display().to_string();
    let told = succeed(folder, &format!("import {file} --calibration some.npy --out own --name line --tolerance 20%"));
    for expected in ["made by pytorch", "degree 3", "depth 3", "wrote own/line.toml", "next: cryptodl run --model own"]
    {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let run = json(folder, "run --model own --data some.npy --images 64 --tolerance 20%");
    let agreement = run["agreement"].as_f64().expect("a share");
    assert!(agreement >= 0.75, "{agreement}");
    // A scale and a mean are the range of the pixels.
    let report = json(
        folder,
        &format!(
            "import {file} --calibration few.npy --out scaled --tolerance 20% --scale 0.0078431372549 --mean 1 --std 1"
        ),
    );
    assert_eq!((&report["images"], &report["model"]), (&20.into(), &"line.dynamo".into()));
    let description = fs::read_to_string(folder.join("scaled/line.dynamo.toml")).expect("written");
    let range = description.lines().find(|line| line.starts_with("range = [")).expect("a range");
    assert!(range.starts_with("range = [-1.0, 0.99999"), "{range}");
}

#[test]
fn what_cannot_be_imported_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    images(&folder.join("some.npy"), 20);
    let told =
        fail(folder, &format!("import {} --calibration some.npy --out own", fixture("relu.legacy.onnx").display()), 1);
    assert!(told.contains("(Relu)") && told.contains("polynomial activation"), "{told}");
    assert!(!folder.join("own").exists());
    // What is refused by the planner was seen all the same, and may be tried with other flags.
    let told = fail(
        folder,
        &format!(
            "import {} --calibration some.npy --out own --n 2048 --limbs 1",
            fixture("line.legacy.onnx").display()
        ),
        1,
    );
    assert!(told.contains("wrote own/line.legacy.toml") && told.contains("cannot be planned as it is"), "{told}");
    for (flags, expected) in
        [("--std 0", "--std"), ("--mean 1,2 --std 1,2,3", "one for each channel"), ("--shape 1,2", "--shape")]
    {
        let told = fail(folder, &format!("import x.onnx --calibration some.npy --out own {flags}"), 1);
        assert!(told.contains(expected), "{told}");
    }
    fs::create_dir(folder.join("empty")).expect("a folder");
    assert!(fail(folder, "plan --model empty", 1).contains("holds 0 descriptions"));
}

/// What pixels mean to a network is recorded with it: pictures, bytes and numbers of the user's own are encrypted as
/// the exported network wants them, and results name the classes.
#[test]
fn images_of_ones_own_are_scaled_as_the_network_wants_them() {
    const COUNT: usize = 32;
    let names = ["T-shirt/top", "Hund, \"groß\"", "☃", "last"];
    for (file, channels, flags, mean, std) in [
        ("line.legacy.onnx", 1, "--scale 0.0078431372549 --mean 1 --std 0.2", [0.5; 3], [0.1; 3]),
        (
            "colour.dynamo.onnx",
            3,
            "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
            [0.485, 0.456, 0.406],
            [0.229, 0.224, 0.225],
        ),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path();
        let text = |name: &str| fs::read_to_string(folder.join(name)).expect("written");
        let classes = if channels == 1 { 4 } else { 3 };
        // As an editor on Windows leaves it.
        fs::write(folder.join("classes.txt"), format!("\u{feff}{}\r\n", names[..classes].join("\r\n")))
            .expect("a file");
        npy(&folder.join("some.npy"), "|u1", &format!("1000, {channels}, 8, 8"), &pixels(1000, channels * 64));
        let file = fixture(file);
        succeed(
            folder,
            &format!(
                "import {} --calibration some.npy --out own --name own --tolerance 5% --labels classes.txt {flags}",
                file.display()
            ),
        );

        // The same images in every form.
        let planes = pixels(1000 + COUNT, channels * 64).split_off(1000 * channels * 64);
        npy(&folder.join("bytes.npy"), "|u1", &format!("{COUNT}, {channels}, 8, 8"), &planes);
        let images: Vec<&[u8]> = planes.chunks(channels * 64).collect();
        let beside = |image: &&[u8]| (0..channels * 64).map(|v| image[v % channels * 64 + v / channels]).collect();
        let interleaved: Vec<Vec<u8>> = images.iter().map(beside).collect();
        npy(&folder.join("last.npy"), "|u1", &format!("{COUNT}, 8, 8, {channels}"), &interleaved.concat());
        fs::create_dir(folder.join("pictures")).expect("a folder");
        let colour = if channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb };
        for (i, image) in interleaved.iter().enumerate() {
            let path = folder.join("pictures").join(format!("{i:02}.png"));
            fs::write(path, square_png(8, colour, png::BitDepth::Eight, image)).expect("a file");
        }
        let normal = |v: usize| (f32::from(planes[v]) / 255.0 - mean[v / 64 % channels]) / std[v / 64 % channels];
        // Numbers are in the range of the network's input: from 0 to 1 where channels differ.
        let number = |v: usize| if channels == 1 { normal(v) } else { f32::from(planes[v]) / 255.0 };
        let numbers: Vec<u8> = (0..planes.len()).flat_map(|v| number(v).to_le_bytes()).collect();
        npy(&folder.join("numbers.npy"), "<f4", &format!("{COUNT}, {channels}, 8, 8"), &numbers);

        // What the exported network says of the images as PyTorch would normalise them.
        let network = import(&file, &ImportOptions::new("own")).expect("a network").network;
        let normal: Vec<f32> = (0..planes.len()).map(normal).collect();
        let scores = plain::logits(&network, Array4::from_shape_vec((COUNT, channels, 8, 8), normal).unwrap().view());
        let expected: Vec<u32> = scores.rows().into_iter().map(|row| plain::argmax(row) as u32).collect();
        assert!(expected.iter().any(|label| *label != expected[0]), "{expected:?}");

        succeed(folder, "keygen --model own --out keys");
        for input in ["bytes.npy", "last.npy", "numbers.npy", "pictures"] {
            let keys = "--secret keys/secret/secret.key --spec keys/public/client.spec";
            succeed(folder, &format!("encrypt {keys} --input {input} --out in.ct"));
            let infer = "--eval-key keys/public/eval.key --public keys/public/public.key --input in.ct --out out.ct";
            succeed(folder, &format!("infer --model own {infer}"));
            succeed(folder, &format!("decrypt {keys} --input out.ct --out labels.csv"));
            let found = labels(&folder.join("labels.csv"));
            let changed = found.iter().zip(&expected).filter(|(found, expected)| found != expected).count();
            assert!(changed <= 3, "{input}: {changed} of {COUNT} labels: {found:?} instead of {expected:?}");
            let first = found[0] as usize;
            let quoted = format!("0,{first},{}", names[first]);
            let field = if first == 1 { "0,1,\"Hund, \"\"groß\"\"\"" } else { &quoted };
            let csv = text("labels.csv");
            assert_eq!(csv.lines().take(2).collect::<Vec<_>>(), ["index,label,class", field]);
        }
        let keys = "--secret keys/secret/secret.key --spec keys/public/client.spec";
        let decrypt =
            |more: &str| succeed(folder, &format!("decrypt {keys} --input out.ct --names in.ct.names {more}"));
        decrypt("--out labels.json");
        let all: serde_json::Value = serde_json::from_str(&text("labels.json")).expect("JSON");
        let label = all["images"][5]["label"].as_u64().expect("a label") as usize;
        assert_eq!((&all["images"][5]["class"], &all["images"][5]["file"]), (&names[label].into(), &"05.png".into()));
        assert_eq!(all["class_names"][1], names[1]);
        decrypt("--out labels.txt");
        assert_eq!(text("labels.txt").lines().nth(5), Some(format!("{label}\t{}", names[label]).as_str()));
        decrypt("--out scores.csv --scores");
        assert!(text("scores.csv").starts_with("index,label,class,score_0,score_1,score_2,"), "{}", text("scores.csv"));

        // A saved Program has the names as well, and a run counts by them.
        succeed(folder, "plan --model own --out own.program");
        for file in ["own.program", "keys/public/client.spec", "own/own.toml"] {
            let facts = json(folder, &format!("inspect {file}"));
            assert_eq!(facts["class_names"].as_array().map(Vec::len), Some(classes), "{file}: {facts}");
        }
        let run = json(folder, "run --model own --data bytes.npy");
        let counted = |class: &serde_json::Value| class["encrypted"].as_u64().expect("a number");
        let by_class = run["classes"].as_array().expect("an array");
        assert_eq!(by_class.iter().map(counted).sum::<u64>(), COUNT as u64);
        assert_eq!((&by_class[1]["name"], &by_class[1]["truly"]), (&names[1].into(), &serde_json::Value::Null));
        let told = succeed(folder, "run --model own --data bytes.npy");
        assert!(told.contains("classes     label  name") && told.contains("Hund, \"groß\""), "{told}");
    }
}

#[test]
fn names_of_classes_are_refused_with_the_file_and_the_class() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    images(&folder.join("some.npy"), 20);
    let file = fixture("line.legacy.onnx").display().to_string();
    for (bytes, expected) in [
        (&b"a\nb\nc\n"[..], "3 names, but the network has 4 outputs"),
        (b"a\nb\nc\nd\ne\n", "5 names"),
        (b"a\n\nc\nd\n", "of class 1 must have 1 to 200 bytes"),
        (b"a\nb\nc\n=HYPERLINK(1)\n", "of class 3 must"),
        (b"a\nb\x1b[2J\nc\nd\n", "\"b\\u001b[2J\" of class 1"),
        ("a\nb\u{202e}\nc\nd\n".as_bytes(), "\"b\\u202e\" of class 1"),
        (b"a\n\xff\nc\nd\n", "is not UTF-8"),
        (&[b'x'; 1 << 18], "has more than 196608 bytes"),
        (&[b'x'; 1 << 17], "names of 131072 bytes in all"),
    ] {
        fs::write(folder.join("classes.txt"), bytes).expect("a file");
        let told = fail(folder, &format!("import {file} --calibration some.npy --out own --labels classes.txt"), 1);
        assert!(told.contains("classes.txt") && told.contains(expected), "{expected}: {told}");
        assert!(!folder.join("own").exists());
    }
    fs::create_dir(folder.join("own")).expect("a folder");
    fs::write(folder.join("own/line.legacy.toml"), "a\nb\nc\nd\n").expect("a file");
    let told =
        fail(folder, &format!("import {file} --calibration some.npy --out own --labels own/line.legacy.toml"), 1);
    assert!(told.contains("own/line.legacy.toml"), "{told}");
}

/// The same network through both exporters of PyTorch and through TensorFlow, calibrated on the same images: the same
/// Program to the last bit.
#[test]
fn every_exporter_gives_the_same_program() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    for (name, [channels, side], exporters) in [
        ("line", [1, 8], &["legacy", "dynamo", "tensorflow"][..]),
        ("residual", [2, 6], &["legacy", "dynamo", "tensorflow"]),
        ("spelled", [2, 7], &["legacy", "dynamo"]),
    ] {
        let values = pixels(1000, channels * side * side);
        npy(&folder.join("some.npy"), "|u1", &format!("1000, {channels}, {side}, {side}"), &values);
        let program = |exporter: &&str| {
            let file = fixture(&format!("{name}.{exporter}.onnx"));
            let flags = "--calibration some.npy --out own --tolerance 5%";
            json(folder, &format!("import {} --name {name} {flags}", file.display()))["plan"]["program"].clone()
        };
        let programs: Vec<serde_json::Value> = exporters.iter().map(program).collect();
        assert!(programs.iter().all(|program| program.is_string() && *program == programs[0]), "{name}: {programs:?}");
    }
}
