//! Files that mean harm, or are damaged.

use std::time::{Duration, Instant};

use prost::Message;

use super::{Graph, floats, info, int, list};
use crate::limits::{MAX_BYTES, MAX_CONSTANT};
use crate::{ImportOptions, import, import_bytes};

fn chain(op: &str, count: usize) -> Graph {
    let mut graph = Graph::new(&[0, 2, 3, 3]);
    for i in 0..count {
        let (from, to) = (if i == 0 { "x".into() } else { format!("v{i}") }, format!("v{}", i + 1));
        graph = graph.node(op, &format!("{from} {from}"), &to);
    }
    graph
}

/// A graph of one node and what is wrong with it.
fn cases() -> Vec<(&'static str, Graph, &'static str)> {
    let image = || Graph::new(&[0, 2, 4, 4]);
    let vector = || Graph::new(&[0, 4]);
    let mut old = vector().weight("w", &[4, 2]).node("MatMul", "x w", "y");
    old.opset = 9;
    let mut new = old.clone();
    new.opset = 1000;
    let mut twice = vector().node("Neg", "x", "y");
    twice.graph.output.push(info("z", &[]));
    let mut inputs = vector().node("Add", "x z", "y");
    inputs.graph.input.push(info("z", &[1]));
    let mut foreign = vector().node("Neg", "x", "y");
    foreign.graph.node[0].domain = Some("com.evil".into());
    let mut nan = vector().floats("w", &[4, 2], vec![f32::NAN; 8]).node("MatMul", "x w", "y");
    nan.graph.node[0].name = None;
    vec![
        ("old operators", old, "opset"),
        ("unknown operators", new, "opset"),
        ("two outputs", twice, "2 outputs"),
        ("two inputs", inputs, "2 inputs"),
        ("another domain", foreign, "domain `com.evil`"),
        ("weights that are NaN", nan, "tensor `w`: it holds NaN"),
        (
            "weights that are infinite",
            vector().floats("w", &[4, 2], vec![f32::INFINITY; 8]).node("MatMul", "x w", "y"),
            "holds inf",
        ),
        ("a cycle", vector().node("Add", "x b", "a").node("Neg", "a", "b").node("Neg", "b", "y"), "circle"),
        ("nodes out of order", vector().node("Neg", "a", "y").node("Neg", "x", "a"), "must be sorted"),
        ("a name made twice", vector().node("Neg", "x", "a").node("Neg", "x", "a").node("Neg", "a", "y"), "made twice"),
        ("the input made again", vector().node("Neg", "x", "x").node("Neg", "x", "y"), "made twice"),
        ("no such value", vector().node("Add", "x ghost", "y"), "`ghost`"),
        ("an output of nothing", vector(), "no node makes the output"),
        ("a single score", vector().weight("w", &[4, 1]).node("MatMul", "x w", "y"), "at least 2 logits"),
        ("a constant as scores", vector().scalar("k", 1.0).node("Neg", "k", "y"), "does not depend"),
        ("everything cancels", vector().node("Sub", "x x", "y"), "everything cancels"),
        ("weights of another shape", image().weight("c", &[2, 3, 3, 3]).node("Conv", "x c", "y"), "2 channels"),
        (
            "weights without values",
            image().floats("c", &[0, 2, 3, 3], vec![]).node("Conv", "x c", "y"),
            "weights have shape",
        ),
        (
            "weights with fewer values",
            image().floats("c", &[2, 2, 3, 3], vec![1.0]).node("Conv", "x c", "y"),
            "has 1 values",
        ),
        (
            "weights of absurd size",
            image().floats("c", &[1 << 62, 1 << 62], vec![]).node("Conv", "x c", "y"),
            "too large",
        ),
        ("weights of negative size", image().floats("c", &[-1, 2, 3, 3], vec![]).node("Conv", "x c", "y"), "negative"),
        ("weights of many axes", image().floats("c", &[1; 40], vec![1.0]).node("Conv", "x c", "y"), "40 axes"),
        (
            "a bias of another shape",
            image().weight("c", &[2, 2, 3, 3]).weight("b", &[3]).node("Conv", "x c b", "y"),
            "must be [2]",
        ),
        (
            "a kernel larger than the image",
            image().weight("c", &[2, 2, 5, 5]).node("Conv", "x c", "y"),
            "larger than its input",
        ),
        (
            "a stride of zero",
            image().weight("c", &[2, 2, 3, 3]).node_with("Conv", "x c", "y", vec![list("strides", &[0, 1])]),
            "`strides`",
        ),
        (
            "an enormous dilation",
            image().weight("c", &[2, 2, 3, 3]).node_with("Conv", "x c", "y", vec![list("dilations", &[i64::MAX, 1])]),
            "`dilations`",
        ),
        (
            "enormous pads",
            image().weight("c", &[2, 2, 1, 1]).node_with("Conv", "x c", "y", vec![list("pads", &[65536; 4])]),
            "values per image",
        ),
        (
            "negative pads",
            image().weight("c", &[2, 2, 1, 1]).node_with("Conv", "x c", "y", vec![list("pads", &[-1; 4])]),
            "`pads`",
        ),
        (
            "no groups",
            image().weight("c", &[2, 2, 1, 1]).node_with("Conv", "x c", "y", vec![int("group", 0)]),
            "groups",
        ),
        (
            "many groups",
            image().weight("c", &[2, 2, 1, 1]).node_with("Conv", "x c", "y", vec![int("group", i64::MAX)]),
            "groups",
        ),
        (
            "a pad of everything",
            image().ints("p", &[0, 0, i64::MAX, 0, 0, 0, i64::MAX, 0]).node("Pad", "x p", "y"),
            "not supported",
        ),
        (
            "a crop of everything",
            image().ints("p", &[0, 0, -9, 0, 0, 0, 0, 0]).node("Pad", "x p", "y"),
            "not supported",
        ),
        (
            "a reshape to absurd sizes",
            image().ints("to", &[1 << 40, 1 << 40]).node("Reshape", "x to", "y"),
            "cannot have the shape",
        ),
        (
            "a reshape to nothing",
            image().ints("to", &[1, 0, -1]).node_with("Reshape", "x to", "y", vec![int("allowzero", 1)]),
            "cannot have the shape",
        ),
        ("an enormous expansion", image().ints("to", &[1, 2, 1 << 30, 4]).node("Expand", "x to", "y"), "do not fit"),
        ("an enormous repetition", vector().ints("r", &[1, 1 << 40]).node("Tile", "x r", "y"), "too large"),
        (
            "an enormous constant",
            vector().ints("s", &[1 << 30, 1 << 30]).node("ConstantOfShape", "s", "k").node("Add", "x k", "y"),
            "too large",
        ),
        (
            "an enormous range",
            vector()
                .scalar("a", 0.0)
                .scalar("b", 1e30)
                .scalar("c", 1.0)
                .node("Range", "a b c", "k")
                .node("Add", "x k", "y"),
            "too many",
        ),
        ("an axis that is not there", image().node_with("Split", "x", "y z", vec![int("axis", 9)]), "axis 9"),
        (
            "parts that are too many",
            image().node_with("Split", "x", "y z", vec![int("axis", 1), list("split", &[i64::MAX, i64::MAX])]),
            "add up",
        ),
        (
            "an index outside",
            image().ints("i", &[7]).node_with("Gather", "x i", "y", vec![int("axis", 1)]),
            "outside axis",
        ),
        ("an enormous exponent", vector().scalar("e", 1e9).node("Pow", "x e", "y"), "exponent"),
        ("a tower of squares", chain("Mul", 40).node("Neg", "v40", "y"), "degree 64"),
        ("a tower of sums", chain("Add", 2000).node("Neg", "v2000", "y"), "not finite"),
        ("a division by zero", vector().scalar("z", 0.0).node("Div", "x z", "y"), "not finite"),
        (
            "a division of constants by zero",
            vector().scalar("z", 0.0).node("Div", "z z", "k").node("Add", "x k", "y"),
            "NaN",
        ),
        (
            "integers that overflow",
            vector().ints("i", &[i64::MAX]).node("Mul", "i i", "k").node("Add", "x k", "y"),
            "overflow",
        ),
        (
            "statistics below zero",
            image()
                .weight("n", &[2])
                .floats("v", &[2], vec![-1.0; 2])
                .node("BatchNormalization", "x n n n v", "h")
                .node("Flatten", "h", "y"),
            "variances",
        ),
        ("a node without operands", image().node("Conv", "_", "y"), "not supported"),
        ("a control flow", vector().node("If", "x", "y"), "control flow"),
        (
            "an image of absurd size",
            Graph::new(&[0, 1 << 40, 1 << 40, 1 << 40]).node("Neg", "x", "y"),
            "values per image",
        ),
        ("a batch of absurd size", Graph::new(&[1 << 40, 4]).node("Neg", "x", "y"), "images"),
        ("an image of five axes", Graph::new(&[0, 1, 2, 3, 4]).node("Neg", "x", "y"), "5 axes"),
    ]
}

#[test]
fn hostile_graphs_are_refused_quickly_and_say_why() {
    let all = cases();
    assert!(all.len() >= 50);
    let mut wrong = Vec::new();
    for (what, graph, expected) in all {
        let start = Instant::now();
        let error = graph.import().err().map_or("accepted".into(), |error| error.to_string());
        let proper = error.contains(expected) && error.len() < 1000 && !error.contains(char::is_control);
        if !proper || start.elapsed() > Duration::from_secs(10) {
            wrong.push(format!("{what}: {error} ({:?})", start.elapsed()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_cut_off_anywhere_is_an_error_or_a_smaller_network() {
    let whole = Graph::new(&[0, 4]).weight("w", &[4, 3]).node("MatMul", "x w", "h").node("Mul", "h h", "y").bytes();
    for end in 0..whole.len() {
        let _ = import_bytes(&whole[..end], &ImportOptions::new("test"));
    }
    // Every single byte changed.
    for at in 0..whole.len() {
        for flip in [1, 0x40, 0xff] {
            let mut changed = whole.clone();
            changed[at] ^= flip;
            let _ = import_bytes(&changed, &ImportOptions::new("test"));
        }
    }
    assert!(import_bytes(&[], &ImportOptions::new("test")).unwrap_err().to_string().contains("no graph"));
}

#[test]
fn nested_graphs_take_no_stack() {
    // An attribute with a graph with a node with an attribute ..., 200,000 deep.
    let mut nested = Vec::new();
    for depth in 0..200_000 {
        let tag = [0x32, 0x2a, 0x0a][depth % 3];
        let mut outer = vec![tag];
        prost::encoding::encode_varint(nested.len() as u64, &mut outer);
        if outer.len() + nested.len() > 1 << 18 {
            break;
        }
        outer.extend(nested);
        nested = outer;
    }
    let mut model = vec![0x3a];
    prost::encoding::encode_varint(nested.len() as u64, &mut model);
    model.extend(nested);
    assert!(import_bytes(&model, &ImportOptions::new("test")).is_err());
}

#[test]
fn work_on_constants_is_bounded() {
    // Each of many nodes looks at a large constant.
    let mut graph = Graph::new(&[0, 4]).ints("shape", &[MAX_CONSTANT as i64]).node("ConstantOfShape", "shape", "k0");
    for i in 0..1000 {
        graph = graph.node("Neg", &format!("k{i}"), &format!("k{}", i + 1));
    }
    let start = Instant::now();
    let error = graph.node("Add", "x k1000", "y").refused();
    assert!(error.contains("too large"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // And of many transpositions.
    let mut graph = Graph::new(&[0, 64, 64, 64]);
    for i in 0..10_000 {
        let (from, to) = (if i == 0 { "x".into() } else { format!("t{i}") }, format!("t{}", i + 1));
        graph = graph.node_with("Transpose", &from, &to, vec![list("perm", &[0, 2, 3, 1])]);
    }
    let start = Instant::now();
    assert!(graph.node("Flatten", "t10000", "y").refused().contains("too large"));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

fn external(location: &str, offset: &str, length: &str) -> Vec<u8> {
    use crate::proto::StringStringEntryProto as Entry;
    let mut graph = Graph::new(&[0, 4]).node("MatMul", "x w", "y");
    let mut tensor = floats("w", &[4, 2], vec![]);
    tensor.data_location = Some(1);
    for (key, value) in [("location", location), ("offset", offset), ("length", length)] {
        if !value.is_empty() {
            tensor.external_data.push(Entry { key: Some(key.into()), value: Some(value.into()) });
        }
    }
    graph.graph.initializer.push(tensor);
    graph.bytes()
}

#[test]
fn external_data_is_read_from_the_models_folder_only() {
    let root = std::env::temp_dir().join(format!("cryptodl-onnx-{}", std::process::id()));
    let folder = root.join("model");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    let data: Vec<u8> = (0..16).flat_map(|i| (i as f32).to_le_bytes()).collect();
    for path in [root.join("secret"), folder.join("weights"), folder.join("sub/weights")] {
        std::fs::write(path, &data).unwrap();
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(root.join("secret"), folder.join("link")).unwrap();
        std::os::unix::fs::symlink("weights", folder.join("inside")).unwrap();
    }
    let path = folder.join("model.onnx");
    let load = |location: &str, offset: &str, length: &str| {
        std::fs::write(&path, external(location, offset, length)).unwrap();
        import(&path, &ImportOptions::new("test")).map(|imported| imported.network).map_err(|error| error.to_string())
    };
    assert!(load("weights", "", "").is_ok());
    assert!(load("./sub/weights", "4", "32").is_ok());
    let secret = root.join("secret").display().to_string();
    let mut outside =
        vec!["../secret", "sub/../../secret", "/etc/passwd", &secret, "..\\secret", "", "C:secret", "wei\0ghts"];
    if cfg!(unix) {
        assert!(load("inside", "", "").is_ok());
        outside.push("link");
    }
    for location in outside {
        let error = load(location, "", "").unwrap_err();
        assert!(error.contains("not in the model's folder") || error.contains("no location"), "{location}: {error}");
    }
    for (location, offset, length, expected) in [
        ("weights", "40", "", "cut off"),
        ("weights", "18446744073709551615", "", "cut off"),
        ("weights", "-1", "", "no number"),
        ("weights", "", "31", "shape takes 32"),
        ("sub", "", "", "no plain file"),
        ("ghost", "", "", "cannot be read"),
    ] {
        let error = load(location, offset, length).unwrap_err();
        assert!(error.contains(expected), "{location}: {error}");
    }
    let bytes = external("weights", "", "");
    assert!(
        import_bytes(&bytes, &ImportOptions::new("test")).unwrap_err().to_string().contains("give the file itself")
    );
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let bytes = vec![0; MAX_BYTES as usize + 1];
    assert!(import_bytes(&bytes, &ImportOptions::new("test")).unwrap_err().to_string().contains("larger than"));
    // A graph cannot be larger than what holds it.
    let claimed = crate::proto::ModelProto::default().encode_to_vec();
    assert!(
        import_bytes(&[&claimed[..], &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x7f]].concat(), &ImportOptions::new("test"))
            .is_err()
    );
}
