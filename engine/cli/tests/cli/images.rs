//! Images of every format, and images that are refused.

use std::fs;
use std::path::Path;

use crate::support::{SMALL, digits, fail, labels, succeed};

const IMAGE: usize = 784;

/// A .npy file of version 1.0.
fn npy(kind: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat()
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// The first images of a folder made by [`digits`].
fn pixels(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("digits.idx")).expect("digits")[16..].to_vec()
}

/// IDX, .npy of bytes and of floats: the same images give the same labels, and every result format holds them.
#[test]
fn formats_mean_the_same_images() {
    let client = digits(4);
    let folder = client.path();
    let pixels = pixels(folder);
    fs::write(folder.join("bytes.npy"), npy("|u1", "(4, 28, 28)", &pixels)).expect("written");
    let values = floats(pixels.iter().map(|&pixel| f32::from(pixel) / 255.0));
    fs::write(folder.join("floats.npy"), npy("<f4", "(4, 784)", &values)).expect("written");

    succeed(folder, &format!("keygen --model {SMALL} --out keys"));
    for input in ["digits.idx", "bytes.npy", "floats.npy"] {
        let keys = "--secret keys/secret/secret.key --spec keys/public/client.spec";
        succeed(folder, &format!("encrypt {keys} --input {input} --out digits.ct"));
        let infer = "--eval-key keys/public/eval.key --public keys/public/public.key --input digits.ct --out scores.ct";
        succeed(folder, &format!("infer --model {SMALL} {infer}"));
        for out in [
            "labels.csv",
            "labels.json",
            "labels.npy",
            "scores.csv --scores",
            "scores.json --scores",
            "scores.npy --scores",
        ] {
            succeed(folder, &format!("decrypt {keys} --input scores.ct --out {out}"));
        }
        assert_eq!(labels(&folder.join("labels.csv")), [7, 2, 1, 0], "{input}");
        let array = |name: &str| fs::read(folder.join(name)).expect("written");
        let scores = array("scores.npy");
        assert!(scores.starts_with(b"\x93NUMPY") && scores.len() % 64 == 4 * 10 * 4 % 64, "{}", scores.len());
        assert!(array("labels.npy").ends_with(&[7, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]));
        let text = |name: &str| fs::read_to_string(folder.join(name)).expect("written");
        assert_eq!(text("labels.csv"), "index,label\n0,7\n1,2\n2,1\n3,0\n", "scores are asked for");
        assert!(
            text("scores.csv").starts_with("index,label,score_0,") && text("scores.json").contains("\"score_unit\":")
        );
        assert!(!text("labels.json").contains("score"));
    }
}

#[test]
fn unfit_images_are_refused() {
    let client = digits(2);
    let folder = client.path();
    succeed(folder, &format!("keygen --model {SMALL} --out keys"));
    let good = floats(pixels(folder).iter().map(|&pixel| f32::from(pixel) / 255.0));
    let with = |value: f32| {
        let mut values = good.clone();
        values[4 * (IMAGE + 30)..][..4].copy_from_slice(&value.to_le_bytes());
        npy("<f4", "(2, 28, 28)", &values)
    };
    let idx = |sizes: [u32; 3], len: usize| {
        [&[0, 0, 8, 3], sizes.map(u32::to_be_bytes).as_flattened(), &vec![0; len][..]].concat()
    };
    let cases = [
        ("size.idx", idx([1, 27, 28], 27 * 28), "1 x 27 x 28"),
        ("none.idx", idx([0, 28, 28], 0), "no images"),
        ("short.idx", idx([2, 28, 28], IMAGE), "damaged"),
        ("huge.idx", idx([u32::MAX; 3], 0), "at most"),
        ("type.npy", npy("<c8", "(1, 28, 28)", &vec![0; 8 * IMAGE]), "c8"),
        ("escape.npy", npy("<\u{1b}[2J\u{202e}", "(1, 28, 28)", &vec![0; IMAGE]), "<\\u001b[2J\\u202e"),
        ("line.npy", npy("a\nerror: fake line", "(1, 28, 28)", &vec![0; IMAGE]), "a\\u000aerror: fake line"),
        ("nan.npy", with(f32::NAN), "image 1: the value at channel 0, row 1, column 2 is NaN"),
        ("infinite.npy", with(f32::INFINITY), "is inf"),
        ("range.npy", with(1.5), "is 1.5, outside"),
        ("negative.npy", with(-0.25), "is -0.25, outside"),
        ("text.txt", b"these are no pixels".to_vec(), "not an image file"),
        ("empty.png", Vec::new(), "not an image file"),
    ];
    let encrypt = |input: &str| {
        let files =
            format!("--secret keys/secret/secret.key --spec keys/public/client.spec --input {input} --out out.ct");
        let error = fail(folder, &format!("encrypt {files}"), 1);
        assert!(error.contains(input), "{input} in\n{error}");
        assert!(!folder.join("out.ct").exists());
        error
    };
    for (name, bytes, fragment) in cases {
        fs::write(folder.join(name), bytes).expect("written");
        let error = encrypt(name);
        assert!(error.contains(fragment), "{name}: {fragment} in\n{error}");
    }
    assert!(encrypt("absent.idx").contains("No such file"));
    fs::create_dir(folder.join("nothing")).expect("a folder");
    assert!(encrypt("nothing").contains("png"));

    for (arguments, fragment) in [
        ("--images 0", "at least one"),
        ("--images 10001", "mnist-test has 10000 images"),
        ("--data size.idx", "size.idx"),
        ("--data no-such-set", "mnist, fashion-mnist, cifar10"),
    ] {
        let error = fail(folder, &format!("run --model {SMALL} {arguments} --json -"), 1);
        assert!(error.contains(fragment), "{arguments}: {fragment} in\n{error}");
    }
}
