//! Images of every format, and images that are refused.

use std::fs;

use crate::support::{SMALL, command, digits, fail, json, labels, names, pixels, png, png_of, succeed};

const IMAGE: usize = 784;

/// A .npy file of version 1.0.
fn npy(kind: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat()
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
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
    assert!(encrypt("nothing").contains("holds no .png, .jpg or .jpeg files"));

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

/// Pictures as people have them: 16 bits, palettes, colours, an alpha channel that hides nothing,
/// JPEG. Results name their files, and what is left out or converted is said.
#[test]
fn pictures_of_every_kind_are_classified_under_their_names() {
    let client = digits(6);
    let folder = client.path();
    let all = pixels(folder);
    let digit = |i: usize| &all[IMAGE * i..][..IMAGE];
    let each =
        |i: usize, as_stored: &dyn Fn(u8) -> Vec<u8>| digit(i).iter().flat_map(|&p| as_stored(p)).collect::<Vec<u8>>();
    let (eight, sixteen) = (png::BitDepth::Eight, png::BitDepth::Sixteen);
    let mut jpeg = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 95);
    encoder.encode(digit(5), 28, 28, jpeg_encoder::ColorType::Luma).expect("28 x 28 pixels");
    fs::create_dir(folder.join("in")).expect("a folder");
    for (name, file) in [
        ("0.png", png(digit(0))),
        ("1.png", png_of(png::ColorType::Grayscale, sixteen, &each(1, &|p| vec![p, p]))),
        ("10.png", png_of(png::ColorType::GrayscaleAlpha, eight, &each(2, &|p| vec![p, 255]))),
        ("2, \"two\".png", png_of(png::ColorType::Rgb, eight, &each(3, &|p| vec![p, p, p]))),
        ("3.png", png_of(png::ColorType::Rgba, eight, &each(4, &|p| vec![p, p, p, 255]))),
        ("4.jpeg", jpeg),
        ("notes.txt", b"no image".to_vec()),
    ] {
        fs::write(folder.join("in").join(name), file).expect("written");
    }
    let run = command(folder, &format!("run --model {SMALL} --data in --out run.csv")).output().expect("starts");
    let notes = String::from_utf8_lossy(&run.stderr);
    assert!(notes.contains("left out: notes.txt"), "{notes}");
    let expected =
        "index,label,file\n0,7,0.png\n1,2,1.png\n2,1,10.png\n3,0,\"2, \"\"two\"\".png\"\n4,4,3.png\n5,1,4.jpeg\n";
    let text = |name: &str| fs::read_to_string(folder.join(name)).expect("written");
    assert_eq!(text("run.csv"), expected);
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(said.contains(&format!("wrote run.csv, {} bytes", expected.len())), "{said}");

    // The same in stages: the names stay with the client.
    let said = succeed(folder, &format!("keygen --model {SMALL} --out keys"));
    for part in [
        "wrote keys/secret/secret.key",
        "yours alone",
        "wrote keys/public/client.spec",
        "give keys/public to the server",
    ] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    let keys = "--secret keys/secret/secret.key --spec keys/public/client.spec";
    let said = json(folder, &format!("encrypt {keys} --input in --out in.ct"));
    assert_eq!((&said["images"], &said["files"][1]["path"]), (&6.into(), &"in.ct.names".into()));
    assert_eq!(said["files"][0]["bytes"], fs::metadata(folder.join("in.ct")).expect("written").len());
    assert!(said["seconds"]["read"].as_f64().is_some() && said["seconds"]["write"].as_f64().is_some(), "{said}");
    let infer = "--eval-key keys/public/eval.key --public keys/public/public.key --input in.ct --out out.ct";
    assert!(succeed(folder, &format!("infer --model {SMALL} {infer}")).contains("wrote out.ct, "));
    let said = succeed(folder, &format!("decrypt {keys} --input out.ct --names in.ct.names --out labels.csv"));
    assert!(said.contains("6 labels decrypted") && said.contains("wrote labels.csv"), "{said}");
    assert_eq!(text("labels.csv"), expected);
    succeed(folder, &format!("decrypt {keys} --input out.ct --names in.ct.names --out labels.json --scores"));
    let labels: serde_json::Value = serde_json::from_str(&text("labels.json")).expect("JSON");
    assert_eq!((&labels["images"][5]["file"], &labels["images"][5]["label"]), (&"4.jpeg".into(), &1.into()));
    succeed(folder, &format!("decrypt {keys} --input out.ct --out labels.txt"));
    assert_eq!(text("labels.txt"), "7\n2\n1\n0\n4\n1\n");
    #[cfg(unix)]
    {
        assert_eq!(succeed(folder, &format!("decrypt {keys} --input out.ct --out -")), "7\n2\n1\n0\n4\n1\n");
        let error = fail(folder, &format!("decrypt {keys} --input out.ct --out - --json -"), 1);
        assert!(error.contains("cannot share standard output"), "{error}");
    }
    let error = fail(folder, &format!("decrypt {keys} --input out.ct --scores --out again.txt"), 1);
    assert!(error.contains("no place for --scores"), "{error}");
    fs::write(folder.join("few.names"), "a\nb\n").expect("written");
    let error = fail(folder, &format!("decrypt {keys} --input out.ct --names few.names --out again.csv"), 1);
    assert!(error.contains("few.names has 2 names, but there are 6 results"), "{error}");
    assert!(!names(folder).iter().any(|name| name.starts_with("again")));
}
