//! Body of the fuzz target of `cryptodl_network`; `models/network/tests/fuzz_bodies.rs` runs it on stable Rust.

use cryptodl_network::{InputSpec, Layer, LayerOp, Network, NetworkSpec, Padding, Source, plain};

const TOML: &str = include_str!("../../models/zoo/trained/mnist-1-square.toml");
const WEIGHTS: &[u8] = include_bytes!("../../models/zoo/trained/mnist-1-square.safetensors");
const CALIBRATION: &[u8] = include_bytes!("../../models/zoo/trained/mnist-1-square.calibration.safetensors");

/// A network with every kind of join, whose weights are the tensors of [`graph`].
const GRAPH: &str = r#"
format = 1
name = "graph"
title = "Fuzzed"
weights = "w"
input = { shape = [2, 3, 3], range = [0.0, 1.0] }
[[layer]]
name = "conv"
kind = "conv2d"
out_channels = 4
kernel = [2, 2]
padding = [0, 1, 1, 2]
dilation = [1, 2]
groups = 2
[[layer]]
name = "act"
kind = "polynomial"
[[layer]]
name = "sum"
kind = "add"
inputs = ["act", "conv"]
[[layer]]
name = "both"
kind = "concat"
inputs = ["sum", "act", "sum"]
[[layer]]
name = "mean"
kind = "global_avg_pool2d"
[[layer]]
name = "flat"
kind = "flatten"
inputs = ["mean"]
"#;

/// Description and weight file of a small graph.
pub fn graph() -> (&'static str, Vec<u8>) {
    let weight = ndarray::Array4::from_elem((4, 1, 2, 2), 0.5);
    let op = LayerOp::Conv2d {
        weight,
        bias: None,
        stride: [1; 2],
        padding: Padding { before: [0, 1], after: [1, 2] },
        dilation: [1, 2],
        groups: 2,
    };
    let act = LayerOp::Polynomial { coefficients: vec![vec![0.0, 0.5, 0.25]; 4], inputs: None };
    let layers = vec![
        Layer::new("conv", op, vec![Source::Input]),
        Layer::new("act", act, vec![Source::Layer(0)]),
        Layer::new("flat", LayerOp::Flatten, vec![Source::Layer(1)]),
    ];
    let input = InputSpec { shape: [2, 3, 3], range: [0.0, 1.0] };
    let network = Network::new(NetworkSpec::new("graph", "Fuzzed", input, layers)).expect("a good network");
    (GRAPH, network.weight_file())
}

/// A network's description, its weights and its calibration.
pub fn network(data: &[u8]) {
    let _ = Network::parse("fuzz", TOML, data, Some(CALIBRATION));
    let (graph, graph_weights) = graph();
    let _ = Network::parse("fuzz", graph, data, None);
    if let Ok(toml) = std::str::from_utf8(data) {
        let _ = Network::parse("fuzz", toml, WEIGHTS, None);
        if let Ok(network) = Network::parse("fuzz", toml, &graph_weights, None) {
            // What was read is written and read again, and can be computed.
            let text = network.description("fuzz", None);
            let again = Network::parse("fuzz", &text, &graph_weights, None).expect("written by this program");
            assert_eq!(again.fingerprint(), network.fingerprint());
            let [channels, height, width] = network.input.shape;
            let scores = plain::logits(&network, ndarray::Array4::zeros((1, channels, height, width)).view());
            assert_eq!(scores.dim(), (1, network.classes()));
        }
    }
    let _ = Network::parse("fuzz", TOML, WEIGHTS, Some(data));
}
