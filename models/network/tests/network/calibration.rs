//! Calibration files.

use cryptodl_network::{Calibration, Network, SourceGains};

use crate::common::tiny::{TOML, tensors};
use crate::common::{parse, serialize};

#[test]
fn a_calibration_file_belongs_to_its_network_and_is_checked() {
    let toml = TOML.replace("weights =", "calibration = \"tiny.calibration.safetensors\"\nweights =");
    let weights = serialize(&tensors());
    let network = parse(TOML, &tensors()).unwrap();
    let gains = SourceGains { margin: vec![1.0, 2.0], score: vec![0.5, 0.0] };
    let calibration = Calibration {
        images: ndarray::Array2::from_elem((3, 144), 7),
        scores: ndarray::Array2::zeros((3, 3)),
        means: [("a".into(), vec![1.0f32].into()), ("b".into(), vec![2.0f32, 3.0].into())].into(),
        margins: vec![0.5, 1.5],
        gains: [("a".into(), gains)].into(),
        places: vec!["a".into(), "b".into()],
        growth: ndarray::arr2(&[[1.0, 2.0], [0.0, 1.0]]),
    };
    let read = |bytes: &[u8]| Network::parse("tiny.toml", &toml, &weights, Some(bytes));
    let bytes = calibration.to_bytes(&network);
    let net = read(&bytes).unwrap();
    assert_eq!(net.calibration.as_ref(), Some(&calibration));
    assert_eq!(bytes, calibration.to_bytes(&network), "equal calibrations give equal bytes");
    assert_ne!(
        net.digest(),
        read(&Calibration { margins: vec![0.5, 1.75], ..calibration.clone() }.to_bytes(&network)).unwrap().digest()
    );
    let refused = |bytes: &[u8], what: &str| {
        let error = read(bytes).expect_err(what).to_string();
        assert!(error.contains(what) && error.contains("measured again"), "{error}");
    };
    let mut others = tensors();
    others.get_mut("fc.bias").unwrap().1[0] += 0.5;
    refused(&calibration.to_bytes(&parse(TOML, &others).unwrap()), "measured on other weights or layers");
    refused(&Calibration { margins: vec![1.5, 0.5], ..calibration.clone() }.to_bytes(&network), "ascending");
    refused(
        &Calibration { growth: calibration.growth.mapv(|v| v - 1.0), ..calibration.clone() }.to_bytes(&network),
        "negative",
    );
    refused(
        &Calibration { scores: calibration.scores.mapv(|_| f32::NAN), ..calibration.clone() }.to_bytes(&network),
        "NaN",
    );
    (0..bytes.len()).step_by(7).for_each(|end| drop(read(&bytes[..end]).expect_err("cut short")));
    let missing = Network::parse("tiny.toml", &toml, &weights, None).unwrap_err().to_string();
    assert!(missing.contains("tiny.calibration.safetensors: the file is not there"), "{missing}");
}

/// What a calibration says is judged before it is held: a file of a hundred megabytes that says nothing once took sixteen times as
/// much.
#[test]
fn a_calibration_costs_no_more_than_one_that_was_measured() {
    let toml = TOML.replace("weights =", "calibration = \"tiny.calibration.safetensors\"\nweights =");
    let weights = serialize(&tensors());
    let network = parse(TOML, &tensors()).unwrap();
    let calibration = |images: usize, margins: usize| Calibration {
        images: ndarray::Array2::zeros((images, 144)),
        scores: ndarray::Array2::zeros((images, 3)),
        means: [("a".into(), vec![1.0f32].into())].into(),
        margins: vec![1.0; margins],
        gains: [("b".into(), SourceGains { margin: vec![1.0; margins], score: vec![1.0; margins] })].into(),
        places: vec!["a".into()],
        growth: ndarray::arr2(&[[1.0]]),
    };
    let good = calibration(256, 1000).to_bytes(&network);
    let read = |bytes: &[u8]| Network::parse("tiny.toml", &toml, &weights, Some(bytes));
    read(&good).expect("as many as are measured");
    let refused = |bytes: &[u8], what: &str| {
        let error = read(bytes).expect_err(what).to_string();
        assert!(error.contains(what) && error.contains("calibration file tiny") && error.len() < 3000, "{error}");
    };
    refused(&calibration(257, 1).to_bytes(&network), "257 images");
    refused(&calibration(1, 1001).to_bytes(&network), "1001 margins");
    let twice =
        Calibration { places: vec!["a".into(); 2], growth: ndarray::Array2::zeros((2, 2)), ..calibration(1, 1) };
    refused(&twice.to_bytes(&network), "two places named `a`");
    // The file with other text in its header.
    let changed = |from: &str, to: &str| {
        let (len, rest) = good.split_first_chunk().unwrap();
        let (header, values) = rest.split_at(u64::from_le_bytes(*len) as usize);
        let header = std::str::from_utf8(header).unwrap();
        assert!(header.contains(from), "{header}");
        let header = header.replacen(from, to, 1);
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), values].concat()
    };
    let sources = r#"\"sources\":[\"b\"]"#;
    refused(&changed(sources, r#"\"sources\":[\"b\",\"b\"]"#), "two sources named `b`");
    refused(&changed(sources, r#"\"sources\":[\"b\\nerror: c\"]"#), "`b\\u000aerror: c`, has control characters");
    let many = (0..5000).map(|i| format!(r#"\"{i}\""#)).collect::<Vec<_>>().join(",");
    refused(&changed(sources, &format!(r#"\"sources\":[{many}]"#)), "5000 sources");
    let empty = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let extra = |count: usize| (0..count).map(|i| format!(r#""x{i}":{empty},"#)).collect::<String>();
    let with_extra = |count: usize| changed("\"growth\":", &format!("{}\"growth\":", extra(count)));
    refused(&with_extra(30), "tensors that mean nothing: ");
    refused(&with_extra(30), " and 10 more");
    refused(&with_extra(20_000), "at most 1048576 are read");
}
