//! Descriptions: what a good one says, and what every bad one is refused with.

mod common;

use common::{TOML, Tensors, parse, serialize, tensors};
use cryptodl_models::network::{DatasetId, Histogram, LayerOp, Network, Padding, Shape, Source};
use cryptodl_models::zoo;

#[test]
fn a_good_description_is_read_completely() {
    let net = parse(TOML, &tensors()).unwrap();
    assert_eq!((net.name.as_str(), net.dataset, net.classes()), ("tiny", Some(DatasetId::Mnist), 3));
    assert_eq!(net.accuracy.unwrap().share(), 0.75);
    let shapes: Vec<Shape> = net.layers.iter().map(|layer| layer.output_shape).collect();
    let image = |channels, height, width| Shape::Image { channels, height, width };
    assert_eq!(shapes[0], image(3, 5, 11));
    assert_eq!(shapes[3], image(3, 4, 5));
    assert_eq!(shapes[5], image(4, 3, 4));
    assert_eq!(shapes[6], image(4, 1, 4));
    assert_eq!(shapes[8], Shape::Flat(16));
    assert_eq!(net.layers[0].input_rms, Some(0.5));
    assert_eq!(net.layers[0].multiply_adds(), 3 * 5 * 11 * 12);
    assert_eq!(net.multiply_adds(), 3 * 5 * 11 * 12 + 4 * 3 * 4 * 12 + 3 * 16);
    let LayerOp::Conv2d { bias: None, stride: [1, 1], padding, dilation: [1, 1], groups: 1, .. } = &net.layers[5].op
    else {
        panic!("{:?}", net.layers[5].op)
    };
    assert_eq!(*padding, Padding::default());
    assert!(net.layers.iter().enumerate().all(|(index, layer)| layer.inputs == [Source::before(index)]));
}

#[test]
fn a_histogram_gives_centres_and_shares() {
    let histogram = Histogram { low: -2.0, high: 2.0, counts: vec![1, 0, 2, 1] };
    assert_eq!(histogram.centres().collect::<Vec<_>>(), [-1.5, -0.5, 0.5, 1.5]);
    assert_eq!(histogram.shares().collect::<Vec<_>>(), [(-1.5, 0.25), (-0.5, 0.0), (0.5, 0.5), (1.5, 0.25)]);
}

#[test]
fn the_digest_covers_description_and_weights() {
    let good = parse(TOML, &tensors()).unwrap().digest;
    assert_eq!(good, parse(TOML, &tensors()).unwrap().digest);
    assert_ne!(good, parse(&TOML.replace("correct = 3", "correct = 2"), &tensors()).unwrap().digest);
    let mut other = tensors();
    other.get_mut("fc.bias").unwrap().1[0] += 0.5;
    assert_ne!(good, parse(TOML, &other).unwrap().digest);
}

/// (text to replace, replacement, what the error says)
const BAD_TEXT: &[(&str, &str, &[&str])] = &[
    ("format = 1", "format = 2", &["tiny.toml: format: format 2 is not supported; this version reads format 1"]),
    ("format = 1", "format = ", &["tiny.toml: TOML parse error at line 2"]),
    ("title =", "titel =", &["tiny.toml", "unknown field `titel`"]),
    ("title =", "tolerance = 0.0\ntitle =", &["tolerance: `tolerance` is 0; expected a share of the labels"]),
    ("title =", "tolerance = 0.6\ntitle =", &["`tolerance` is 0.6"]),
    ("title =", "tolerance = 1e-10\ntitle =", &["`tolerance` is 0.0000000001; expected", "from 0.000000001 to 0.5"]),
    ("\"tiny.safetensors\"", "\"a\\nerror: b\"", &["weights `a\\u000aerror: b` must be the plain name"]),
    ("out_channels = 3", "out_channels = \"a\\nb\"", &["the string \"a\\nb\""]),
    ("title =", "calibration = \"../x\"\ntitle =", &["calibration `../x` must be the plain name of a file"]),
    ("\"Every kind of layer\"", "\"two\\nlines\"", &["title", "must be one line"]),
    ("name = \"tiny\"", "name = \"\"", &["name \"\" must be 1 to 64 letters"]),
    ("\"mnist\"", "\"imagenet\"", &["unknown data set `imagenet`; data sets are mnist, fashion-mnist, cifar10"]),
    ("\"tiny.safetensors\"", "\"../x\"", &["weights `../x` must be the plain name of a file"]),
    ("[2, 9, 8]", "[2, 0, 8]", &["[input]: field `shape` is 0; every dimension must be 1 to 65536"]),
    ("[2, 9, 8]", "[2, -9, 8]", &["field `shape` is -9"]),
    ("[2, 9, 8]", "[65536, 65536, 65536]", &["[input]: 65536 x 65536 x 65536 is too large; at most 262144 values"]),
    ("[2, 9, 8]", "[2, 9]", &["tiny.toml", "invalid length 2"]),
    ("range = [-1.0, 1.0]\n\n[acc", "range = [1.0, 1.0]\n\n[acc", &["[input]: `range` [1, 1] must be two finite"]),
    ("range = [-1.0, 1.0]\n\n[acc", "range = [nan, 1.0]\n\n[acc", &["`range` [NaN, 1]"]),
    ("correct = 3", "correct = 5", &["[accuracy]: 5 correct of 4 images is no accuracy"]),
    ("name = \"bn\"", "name = \"conv\"", &["layer `conv`"]),
    ("name = \"same\"", "name = \"drop\"", &["layer `drop`: another layer has this name"]),
    ("name = \"same\"\n", "", &["layer 5: field `name` is missing; it is a string"]),
    ("kind = \"identity\"", "kind = \"relu\"", &["layer `same`: unknown kind `relu`; kinds are conv2d, avg_pool2d"]),
    ("kind = \"identity\"\n", "", &["layer `same`: field `kind` is missing"]),
    ("out_channels = 3\n", "", &["layer `conv`: field `out_channels` is missing; it is an integer"]),
    (
        "out_channels = 3",
        "out_channels = \"three\"",
        &["field `out_channels` is the string \"three\"; expected an integer"],
    ),
    ("out_channels = 3", "out_channels = 0", &["field `out_channels` is 0; every dimension must be 1 to 65536"]),
    (
        "out_channels = 3",
        "out_channels = 4",
        &["layer `conv`: tensor `conv.weight` has shape [3, 2, 3, 2]; this layer needs [4, 2, 3, 2]"],
    ),
    (
        "kernel = [3, 2]",
        "kernel = [3]",
        &["layer `conv`: field `kernel` is an array of 1 items; expected two integers"],
    ),
    (
        "kernel = [3, 2]",
        "kernel = [13, 2]",
        &["layer `conv`: kernel 13 x 2 is larger than its input 2 x 9 x 8 with padding 1 x 2"],
    ),
    ("stride = [2, 1]", "stride = [0, 1]", &["field `stride` is 0; every dimension must be 1"]),
    ("padding = [1, 2]", "padding = [1, -2]", &["field `padding` is -2; every dimension must be 0 to 65536"]),
    ("padding = [1, 2]", "padding = [60000, 60000]", &["layer `conv`: 3 x 60004 x 120007 is too large"]),
    (
        "padding = [1, 2]",
        "dilations = [1, 2]",
        &["unknown field `dilations`; a conv2d layer has name, kind, inputs, input_rms, output_range, out_channels, \
             kernel, stride, padding, dilation, groups"],
    ),
    (
        "input_rms = 0.5",
        "input_rms = 0.0",
        &["layer `conv`: `input_rms` is 0; expected a finite number greater than zero"],
    ),
    ("input_rms = 0.5", "input_rms = inf", &["`input_rms` is inf"]),
    ("output_range = [-1.0, 1.0]", "output_range = [1.0, -1.0]", &["layer `conv`: `output_range` [1, -1]"]),
    ("output_range = [-1.0, 1.0]", "output_range = [1.0]", &["field `output_range` is an array of 1 items"]),
    ("eps = 1e-3", "eps = 0.0", &["layer `bn`: `eps` is 0"]),
    ("[0.1, 0.5, -0.25]", "[0.1]", &["layer `act`: `coefficients` [0.1] must be 2 to 64 finite numbers"]),
    ("[0.1, 0.5, -0.25]", "[0.1, 0.5, 0.0]", &["the last one not zero"]),
    ("[0.1, 0.5, -0.25]", "[0.1, nan]", &["`coefficients` [0.1, NaN]"]),
    ("range = [-2.0, 3.0]\n", "", &["layer `act`: field `range` is missing; it is two numbers [low, high]"]),
    ("counts = [1, 2, 3, 2]", "counts = []", &["layer `act`: `histogram` has 0 bins with 0 values"]),
    ("counts = [1, 2, 3, 2]", "counts = [0, 0]", &["`histogram` has 2 bins with 0 values"]),
    (
        "counts = [1, 2, 3, 2]",
        "counts = [1, -2]",
        &["field `histogram` is a table; expected a table with low, high and counts"],
    ),
    (
        "kind = \"flatten\"",
        "kind = \"identity\"",
        &["layer `fc`: a dense layer needs a vector but its input is 4 x 1 x 4; put a `flatten` layer before it"],
    ),
    (
        "kind = \"identity\"",
        "kind = \"flatten\"",
        &["layer `conv2`: a conv2d layer needs an image (channels x height x width) but its input is 60 values"],
    ),
    ("out_features = 3", "out_features = 1", &["tensor `fc.weight` has shape [3, 16]; this layer needs [1, 16]"]),
    ("counts = [0, 4]", "counts = [0, 0]", &["[output]: `margins` has 2 bins with 0 values"]),
    ("low = 0.0", "low = -1.0", &["[output]: `margins.low` is -1"]),
    ("range = [-4.0, 5.0]", "range = [-4.0, -4.0]", &["[output]: `range` [-4, -4]"]),
    ("range = [-4.0, 5.0]\n", "", &["tiny.toml", "missing field `range`"]),
];

#[test]
fn bad_text_is_refused_with_its_place_and_cause() {
    for &(from, to, fragments) in BAD_TEXT {
        assert!(TOML.contains(from), "the example has no {from:?}");
        let error = parse(&TOML.replacen(from, to, 1), &tensors()).expect_err(to).to_string();
        for fragment in fragments {
            assert!(error.contains(fragment), "{from:?} -> {to:?}: {error:?} lacks {fragment:?}");
        }
    }
}

type Spoil = (fn(&mut Tensors), &'static str);

#[test]
fn bad_weights_are_refused_with_the_tensor() {
    let table: &[Spoil] = &[
        (
            |t| drop(t.remove("bn.running_mean")),
            "layer `bn`: tensor `bn.running_mean` of shape [3] is not in the weight file; it holds: bn.bias, bn.running_var",
        ),
        (
            |t| drop(t.insert("fc.bais".into(), (vec![3], vec![0.0; 3]))),
            "weight file tiny.safetensors: no layer uses the tensors fc.bais",
        ),
        (
            |t| drop(t.insert("fc.bias".into(), (vec![4], vec![0.0; 4]))),
            "layer `fc`: tensor `fc.bias` has shape [4]; this layer needs [3]",
        ),
        (
            |t| t.get_mut("conv2.weight").unwrap().1[5] = f32::NAN,
            "layer `conv2`: tensor `conv2.weight` holds NaN at position 5; expected finite numbers",
        ),
        (|t| t.get_mut("fc.bias").unwrap().1[1] = f32::INFINITY, "tensor `fc.bias` holds inf at position 1"),
        (
            |t| t.get_mut("bn.running_var").unwrap().1[2] = -1.0,
            "layer `bn`: tensor `bn.running_var` holds -1 at position 2; expected variances of zero or more",
        ),
    ];
    for (spoil, fragment) in table {
        let mut spoilt = tensors();
        spoil(&mut spoilt);
        let error = parse(TOML, &spoilt).expect_err(fragment).to_string();
        assert!(error.contains(fragment), "{error:?} lacks {fragment:?}");
    }
}

#[test]
fn damaged_weight_files_are_refused() {
    let good = serialize(&tensors());
    let refused = |bytes: &[u8]| {
        let error = Network::parse("tiny.toml", TOML, bytes, None).expect_err("damaged").to_string();
        assert!(error.contains("weight file tiny.safetensors: not a valid safetensors file"), "{error}");
    };
    (0..good.len()).step_by(7).for_each(|len| refused(&good[..len]));
    refused(&[&u64::MAX.to_le_bytes()[..], &good[8..]].concat());
}

#[test]
fn networks_without_layers_or_logits_are_refused() {
    let (head, rest) = TOML.split_once("[[layer]]").unwrap();
    let tail = &rest[rest.find("[output]").unwrap()..];
    let error = parse(&format!("{head}{tail}"), &Tensors::new()).unwrap_err().to_string();
    assert!(error.contains("[[layer]]: 0 layers; a network has 1 to 512"), "{error}");
    let lone = format!("{head}[[layer]]\nname = \"a\"\nkind = \"identity\"\n{tail}");
    let error = parse(&lone, &Tensors::new()).unwrap_err().to_string();
    assert!(error.contains("the last layer's output is 2 x 9 x 8; a network must end in a vector"), "{error}");
}

#[test]
fn files_are_read_and_named_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.toml");
    let load = || zoo::load(path.to_str().unwrap());
    assert!(load().unwrap_err().to_string().contains("cannot read"));
    std::fs::write(&path, TOML).unwrap();
    assert!(load().unwrap_err().to_string().contains("tiny.safetensors"));
    let weights = serialize(&tensors());
    std::fs::write(folder.path().join("tiny.safetensors"), &weights).unwrap();
    assert_eq!(load().unwrap().digest, Network::parse("other", TOML, &weights, None).unwrap().digest);
    std::fs::write(&path, [0xff; 4]).unwrap();
    assert!(load().unwrap_err().to_string().contains("tiny.toml: not UTF-8 text"));
    std::fs::write(&path, " ".repeat((1 << 20) + 1)).unwrap();
    assert!(load().unwrap_err().to_string().contains("larger than 1048576 bytes"));
}

/// Each shipped model is the one whose results the recipe wrote.
#[test]
fn shipped_models_are_those_of_the_recipes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/train/results.json");
    let results: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for name in zoo::names() {
        let (net, result) = (zoo::load(name).unwrap(), &results[name]);
        assert_eq!((net.name.as_str(), net.input.shape, net.classes()), (*name, [1, 28, 28], 10));
        assert_eq!(result["title"], net.title, "{name}");
        assert_eq!(result["dataset"], net.dataset.unwrap().name(), "{name}");
        assert_eq!(result["correct"], net.accuracy.unwrap().correct, "{name}");
        assert_eq!(result["multiply_adds"], net.multiply_adds(), "{name}");
        let mut activation_values = 0;
        for layer in &net.layers {
            assert!(layer.input_rms.is_some() && layer.output_range.is_some(), "{name}: {}", layer.name);
            if matches!(layer.op, LayerOp::Polynomial { .. }) {
                activation_values += layer.input_shape.len();
            }
        }
        assert_eq!(result["activation_values"], activation_values, "{name}");
    }
}

#[test]
fn an_unknown_model_lists_the_shipped_ones() {
    let error = zoo::load("mnist-9").unwrap_err().to_string();
    assert!(error.contains("unknown model `mnist-9`; shipped models: mnist-1, mnist-1-square"), "{error}");
}

#[test]
fn calibration_may_be_missing_and_a_network_writes_its_description() {
    let whole = parse(TOML, &tensors()).unwrap();
    let text = whole.description("Written by a test.", None);
    let again = parse(&text, &tensors()).unwrap();
    let strip = |net: Network| format!("{:?}", Network { digest: [0; 32], ..net });
    assert_eq!(strip(whole.clone()), strip(again), "{text}");

    let (layers, _) = TOML.split_once("[output]").unwrap();
    let act = layers.find("[layer.histogram]").unwrap();
    let next = act + layers[act..].find("[[layer]]").unwrap();
    let bare = format!("{}{}", &layers[..act], &layers[next..]).replace("range = [-2.0, 3.0]\n", "");
    let bare = parse(&bare, &tensors()).unwrap();
    assert!(bare.output.is_none() && bare.fingerprint == whole.fingerprint);
    assert!(bare.layers.iter().any(|layer| matches!(layer.op, LayerOp::Polynomial { inputs: None, .. })));
}

#[test]
fn measuring_fills_what_is_missing() {
    let mut net = parse(TOML, &tensors()).unwrap();
    let shape = net.input.shape;
    let mut values = common::noise(3);
    let images = ndarray::Array4::from_shape_simple_fn((70, shape[0], shape[1], shape[2]), || values.next().unwrap());
    cryptodl_models::measure::measure(&mut net, images.view());
    let squares = images.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
    assert!((net.layers[0].input_rms.unwrap() - (squares / images.len() as f64).sqrt()).abs() < 1e-9);
    let scores = cryptodl_models::plain::logits(&net, images.view());
    let output = net.output.as_ref().unwrap();
    let largest = scores.iter().fold(f32::MIN, |largest, &score| largest.max(score));
    assert_eq!(output.range[1], f64::from(largest));
    assert_eq!(output.margins.counts.iter().sum::<u64>(), 70);
    for (layer, before) in net.layers[1..].iter().zip(&net.layers) {
        assert!(layer.input_rms.is_some());
        if let LayerOp::Polynomial { inputs: Some(inputs), .. } = &layer.op {
            assert_eq!(Some(inputs.range), before.output_range);
            assert_eq!(inputs.histogram.counts.iter().sum::<u64>(), 70 * layer.input_shape.len() as u64);
        }
    }
}

#[test]
fn a_calibration_file_belongs_to_its_network_and_is_checked() {
    use cryptodl_models::network::{Calibration, SourceGains};
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
        net.digest,
        read(&Calibration { margins: vec![0.5, 1.75], ..calibration.clone() }.to_bytes(&network)).unwrap().digest
    );
    let refused = |bytes: &[u8], what: &str| {
        let error = read(bytes).expect_err(what).to_string();
        assert!(error.contains(what) && error.contains("measured again"), "{error}");
    };
    refused(
        &calibration.to_bytes(&Network { fingerprint: [1; 32], ..network.clone() }),
        "measured on other weights or layers",
    );
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
    use cryptodl_models::network::{Calibration, SourceGains};
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

/// Errors quote what strangers wrote in one line, and not all of it.
#[test]
fn long_and_forged_texts_are_quoted_in_part() {
    let long = "x".repeat(900_000);
    let said = |toml: &str, tensors: &Tensors| {
        let error = parse(toml, tensors).unwrap_err().to_string();
        assert!(error.len() < 1500 && !error.contains('\n'), "{} bytes: {error:.2000}", error.len());
        error
    };
    let changed = |from: &str, to: &str| said(&TOML.replacen(from, to, 1), &tensors());
    for (from, to) in [
        ("name = \"tiny\"", format!("name = \"{long}\"")),
        ("title = \"Every", format!("title = \"{long}")),
        ("\"mnist\"", format!("\"{long}\"")),
        ("\"tiny.safetensors\"", format!("\"{long}\"")),
        ("title =", format!("{long} = 1\ntitle =")),
        ("title =", format!("{long}\ntitle =")),
        ("title =", format!("\"\"\"{long}\ntitle =")),
        ("name = \"conv\"", format!("name = \"{long}\"")),
        ("stride =", format!("{long} = 1\nstride =")),
        ("stride =", format!("inputs = [\"{long}\"]\nstride =")),
        ("stride =", "\"a\\nerror: b\" = 1\nstride =".into()),
        ("kind = \"identity\"", format!("kind = \"{long}\"")),
        ("kind = \"identity\"", "kind = \"a\\nerror: b\"".into()),
        ("[0.1, 0.5, -0.25]", format!("[{}]", "1.5, ".repeat(150_000))),
        ("format = 1", "format = \"a\\nerror: b\"".into()),
    ] {
        changed(from, &to);
    }
    assert!(changed("title =", "titel =").contains("TOML parse error at line 4, column 1: unknown field `titel`"));

    let mut spoilt = tensors();
    spoilt.extend((0..10_000).map(|i| (format!("{i:06}\nerror: fake"), (vec![0], Vec::new()))));
    let error = said(TOML, &spoilt);
    assert!(error.contains("no layer uses the tensors 000000\\u000aerror: fake, ") && error.contains(" and 9980 more"));
    let weight = spoilt.remove("fc.weight").unwrap();
    assert!(said(TOML, &spoilt).contains("tensor `fc.weight` of shape [3, 16] is not in the weight file"));
    let mut many_axes = tensors();
    many_axes.insert("fc.bias".into(), (vec![1; 100_000], vec![0.0]));
    assert!(said(TOML, &many_axes).contains("has shape (an array of 100000 numbers)"));
    spoilt.insert("fc.weight".into(), weight);
    spoilt.extend((0..10_000).map(|i| (format!("{i:06}{}", "y".repeat(100)), (vec![0], Vec::new()))));
    assert!(said(TOML, &spoilt).contains("at most 1048576 are read"));
}
