//! Descriptions of lines of layers: what a good one says, and what every bad one is refused with.

use cryptodl_network::{DatasetId, LayerOp, Network, Padding, Shape, Source};
use safetensors::{Dtype, tensor::TensorView};

use crate::common::tiny::{TOML, tensors};
use crate::common::{Tensors, assert_refused, contents, parse, serialize};

#[test]
fn a_good_description_is_read_completely() {
    let net = parse(TOML, &tensors()).unwrap();
    assert_eq!((net.name.as_str(), net.dataset, net.classes()), ("tiny", Some(DatasetId::Mnist), 3));
    assert_eq!(net.accuracy.unwrap().share(), 0.75);
    let shapes: Vec<Shape> = net.outputs().map(|(_, shape)| shape).collect();
    let image = |channels, height, width| Shape::Image { channels, height, width };
    assert_eq!(shapes[0], image(3, 5, 11));
    assert_eq!(shapes[3], image(3, 4, 5));
    assert_eq!(shapes[5], image(4, 3, 4));
    assert_eq!(shapes[6], image(4, 1, 4));
    assert_eq!(shapes[8], Shape::Flat(16));
    assert_eq!(net.layers[0].input_rms, Some(0.5));
    assert_eq!(net.layers[0].op.multiply_adds(shapes[0].len()), 3 * 5 * 11 * 12);
    assert_eq!(net.multiply_adds(), 3 * 5 * 11 * 12 + 4 * 3 * 4 * 12 + 3 * 16);
    let LayerOp::Conv2d { bias: None, stride: [1, 1], padding, dilation: [1, 1], groups: 1, .. } = &net.layers[5].op
    else {
        panic!("{:?}", net.layers[5].op)
    };
    assert_eq!(*padding, Padding::default());
    assert!(net.layers.iter().enumerate().all(|(index, layer)| layer.inputs == [Source::before(index)]));
}

/// Names of classes are read and written as they are, and belong to no calibration.
#[test]
fn classes_have_names() {
    let names = r#"class_names = ["T-shirt/top", "Größe \"3\" \\ ☃", "2"]"#;
    let named = parse(&TOML.replacen("title =", &format!("{names}\ntitle ="), 1), &tensors()).unwrap();
    assert_eq!(named.class_names, ["T-shirt/top", "Größe \"3\" \\ ☃", "2"]);
    let plain = parse(TOML, &tensors()).unwrap();
    assert_eq!((plain.class_names.len(), plain.fingerprint()), (0, named.fingerprint()));
    let again = parse(&named.description("again", None), &tensors()).unwrap();
    assert_eq!(again.class_names, named.class_names);
    let long = format!("class_names = [\"{}\", \"b\", \"c\"]\ntitle =", "x".repeat(201));
    let error = parse(&TOML.replacen("title =", &long, 1), &tensors()).unwrap_err().to_string();
    assert!(error.contains("of class 0 must have 1 to 200 bytes"), "{error}");
}

#[test]
fn the_digest_covers_description_and_weights() {
    let good = parse(TOML, &tensors()).unwrap().digest();
    assert_eq!(good, parse(TOML, &tensors()).unwrap().digest());
    assert_ne!(good, parse(&TOML.replace("correct = 3", "correct = 2"), &tensors()).unwrap().digest());
    let mut other = tensors();
    other.get_mut("fc.bias").unwrap().1[0] += 0.5;
    assert_ne!(good, parse(TOML, &other).unwrap().digest());
}

/// A weight file may hold integers and what 1 stands for.
#[test]
fn weights_can_be_integers_with_a_scale() {
    let mut tensors = tensors();
    let integers: Vec<i8> = (0..tensors["conv2.weight"].1.len()).map(|i| (11 * i % 255) as u8 as i8).collect();
    let scale = 0.012_345_679_f32;
    tensors.get_mut("conv2.weight").unwrap().1 = integers.iter().map(|&i| f32::from(i) * scale).collect();
    let expected = parse(TOML, &tensors).unwrap();
    let file = |with_scale: bool| {
        let mut raw: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = (tensors.iter())
            .map(|(name, (shape, values))| {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                (name.clone(), Dtype::F32, shape.clone(), bytes)
            })
            .collect();
        let weight = raw.iter_mut().find(|tensor| tensor.0 == "conv2.weight").unwrap();
        (weight.1, weight.3) = (Dtype::I8, integers.iter().map(|&i| i as u8).collect());
        if with_scale {
            raw.push(("conv2.weight_scale".into(), Dtype::F32, vec![1], scale.to_le_bytes().into()));
        }
        let views = raw.iter().map(|(name, kind, shape, bytes)| {
            (name, TensorView::new(*kind, shape.clone(), bytes).expect("a whole tensor"))
        });
        safetensors::serialize(views, None).expect("valid tensors")
    };
    let network = Network::parse("tiny.toml", TOML, &file(true), None).unwrap();
    assert_eq!(network.weight_file(), expected.weight_file());
    let error = Network::parse("tiny.toml", TOML, &file(false), None).unwrap_err().to_string();
    assert!(error.contains("has type I8; F32 is read, and I8 where `conv2.weight_scale` says"), "{error}");
}

/// (text to replace, replacement, what the error says)
const BAD_TEXT: &[(&str, &str, &[&str])] = &[
    ("format = 1", "format = 2", &["tiny.toml: format: format 2 is not supported; this version reads format 1"]),
    ("format = 1", "format = ", &["tiny.toml: TOML parse error at line 2"]),
    ("title =", "titel =", &["tiny.toml", "unknown field `titel`"]),
    (
        "title =",
        "class_names = [\"a\", \"b\"]\ntitle =",
        &["class_names: 2 names, but the network has 3 outputs; give one name for each"],
    ),
    ("title =", "class_names = [\"a\", \"b\", 3]\ntitle =", &["tiny.toml: TOML parse error at line 4"]),
    (
        "title =",
        "class_names = [\"a\", \"\", \"b\"]\ntitle =",
        &["class_names: the name \"\" of class 1 must have 1 to 200"],
    ),
    ("title =", "class_names = [\"a\\u001b[2J\", \"c\", \"b\"]\ntitle =", &["the name \"a\\u001b[2J\" of class 0"]),
    ("title =", "class_names = [\"a\\u202e\", \"c\", \"b\"]\ntitle =", &["the name \"a\\u202e\" of class 0"]),
    ("title =", "class_names = [\"a\", \"c\", \"=1\"]\ntitle =", &["class 2 must", "spreadsheets take for a formula"]),
    ("title =", "class_names = [\"a\", \"c \", \"b\"]\ntitle =", &["of class 1 must", "no space at either end"]),
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
    assert_refused(TOML, &tensors(), BAD_TEXT);
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
fn calibration_may_be_missing_and_a_network_writes_its_description() {
    let whole = parse(TOML, &tensors()).unwrap();
    let text = whole.description("Written by a test.", None);
    let again = parse(&text, &tensors()).unwrap();
    assert_eq!(contents(&whole), contents(&again), "{text}");

    let (layers, _) = TOML.split_once("[output]").unwrap();
    let act = layers.find("[layer.histogram]").unwrap();
    let next = act + layers[act..].find("[[layer]]").unwrap();
    let bare = format!("{}{}", &layers[..act], &layers[next..]).replace("range = [-2.0, 3.0]\n", "");
    let bare = parse(&bare, &tensors()).unwrap();
    assert!(bare.output.is_none() && bare.fingerprint() == whole.fingerprint());
    assert!(bare.layers.iter().any(|layer| matches!(layer.op, LayerOp::Polynomial { inputs: None, .. })));
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
