//! Descriptions of graphs: what a good one says, what its fingerprint covers, and what every bad one is refused with.

use cryptodl_network::{InputSpec, Layer, LayerOp, Network, NetworkSpec, Padding, Shape, Source};
use ndarray::Array2;

use crate::common::graph::{GRAPH, tensors};
use crate::common::oracle::assert_layers_agree;
use crate::common::{assert_refused, contents, images, parse};

#[test]
fn a_description_of_a_graph_is_read_completely() {
    let net = parse(GRAPH, &tensors()).unwrap();
    let shape = |index| net.shape(Source::Layer(index));
    let image = |channels| Shape::Image { channels, height: 4, width: 5 };
    assert_eq!(shape(0), image(4));
    assert_eq!(net.layers[0].op.multiply_adds(shape(0).len()), 4 * 20 * 9);
    assert_eq!(net.layers[3].inputs, [Source::Layer(2), Source::Layer(1)]);
    assert_eq!(net.layers[4].inputs, [Source::Input, Source::Layer(3)]);
    assert_eq!((shape(4), net.input_shape(&net.layers[4])), (image(6), image(2)));
    assert_eq!((net.shape(Source::Input), net.source_name(Source::Input)), (image(2), "input"));
    assert_eq!(net.source_name(Source::Layer(3)), "skip");
    assert_eq!(shape(5), Shape::Image { channels: 6, height: 1, width: 1 });
    let LayerOp::Polynomial { coefficients, .. } = &net.layers[1].op else { panic!() };
    let expected: Vec<f64> = tensors()["act.coefficients"].1.iter().map(|&c| c.into()).collect();
    assert_eq!((coefficients.len(), coefficients.concat()), (4, expected));
    let LayerOp::Conv2d { padding, .. } = &net.layers[2].op else { panic!() };
    assert_eq!(*padding, Padding { before: [0, 2], after: [1, 0] });
    assert_layers_agree(&net, &images(&net, 5, 3));

    // One number stands for both directions, two for the same padding on opposite sides.
    let same = GRAPH.replace("dilation = [1, 1]", "dilation = 1").replace("padding = [1, 1, 1, 1]", "padding = [1, 1]");
    assert_eq!(contents(&parse(&same, &tensors()).unwrap()), contents(&net));
}

/// Whatever changes what the network computes changes its fingerprint, and nothing else does.
#[test]
fn the_fingerprint_covers_the_graph() {
    let fingerprint = |text: &str| parse(text, &tensors()).unwrap().fingerprint();
    let known = fingerprint(GRAPH);
    assert_eq!(known, fingerprint(&GRAPH.replace("A small", "Another")));
    for (from, to) in [
        ("[\"wide\", \"act\"]", "[\"act\", \"wide\"]"),
        ("[\"wide\", \"act\"]", "[\"wide\", \"act\", \"act\"]"),
        ("padding = [0, 2, 1, 0]", "padding = [1, 2, 0, 0]"),
        ("padding = [0, 2, 1, 0]", "padding = [0, 0, 1, 2]"),
        ("padding = [0, 2, 1, 0]\ndilation = [1, 1]", "padding = [0, 2, 2, 0]\ndilation = [2, 1]"),
        ("kind = \"global_avg_pool2d\"", "kind = \"avg_pool2d\"\nkernel = [4, 5]"),
    ] {
        assert!(GRAPH.contains(from), "{from}");
        assert_ne!(known, fingerprint(&GRAPH.replace(from, to)), "{to}");
    }
    // The same numbers as one row of a line of layers and as rows of channels.
    let line = |rows: Vec<Vec<f64>>| {
        let weight = Array2::from_shape_fn((2, 2), |(i, j)| (i + j) as f32);
        let layers = vec![
            Layer::new("flat", LayerOp::Flatten, vec![Source::Input]),
            Layer::new("act", LayerOp::Polynomial { coefficients: rows, inputs: None }, vec![Source::Layer(0)]),
            Layer::new("fc", LayerOp::Dense { weight, bias: None }, vec![Source::Layer(1)]),
        ];
        let input = InputSpec { shape: [2, 1, 1], range: [0.0, 1.0] };
        Network::new(NetworkSpec::new("line", "A line", input, layers)).unwrap().fingerprint()
    };
    assert_ne!(line(vec![vec![0.5, 1.0, 0.5, 1.0]]), line(vec![vec![0.5, 1.0], vec![0.5, 1.0]]));
}

/// (text to replace, replacement, what the error says)
const BAD_TEXT: &[(&str, &str, &[&str])] = &[
    (
        "name = \"mean\"",
        "name = \"input\"",
        &["layer `input`: no layer may be called `input`, which stands for the image"],
    ),
    (
        "[\"wide\", \"act\"]",
        "[\"wide\", \"acts\"]",
        &[
            "layer `skip`: there is no layer `acts`; an operand is `input` (the image) or an earlier layer, such as wide, act",
        ],
    ),
    ("[\"wide\", \"act\"]", "[\"wide\", \"skip\"]", &["layer `skip`: layer `skip` is not before this layer"]),
    ("[\"wide\", \"act\"]", "[\"wide\", \"both\"]", &["layer `skip`: layer `both` is not before this layer"]),
    (
        "[\"wide\", \"act\"]",
        "[\"wide\"]",
        &["layer `skip`: a layer of kind add takes 2 to 64 operands, but `inputs` has 1"],
    ),
    ("[\"wide\", \"act\"]", "[]", &["takes 2 to 64 operands, but `inputs` has 0"]),
    ("inputs = [\"wide\", \"act\"]", "", &["layer `skip`: field `inputs` is missing; it is names of layers"]),
    ("[\"wide\", \"act\"]", "\"wide\"", &["field `inputs` is the string \"wide\"; expected names of layers"]),
    ("[\"wide\", \"act\"]", "[\"wide\", 3]", &["field `inputs` is an array of 2 items; expected names of layers"]),
    (
        "kind = \"flatten\"",
        "kind = \"flatten\"\ninputs = [\"mean\", \"both\"]",
        &["layer `flat`: a layer of kind flatten takes one operand, but `inputs` has 2"],
    ),
    (
        "[\"wide\", \"act\"]",
        "[\"wide\", \"input\"]",
        &["layer `skip`: the operands of a layer of kind add must be the same shape, but `wide` is 4 x 4 x 5 and \
         `input` is 2 x 4 x 5"],
    ),
    (
        "padding = [0, 2, 1, 0]",
        "padding = [0, 2, 1, 1]",
        &["layer `skip`: the operands of a layer of kind add must be the same shape, but `wide` is 4 x 4 x 6 and \
         `act` is 4 x 4 x 5"],
    ),
    (
        "kind = \"global_avg_pool2d\"",
        "kind = \"identity\"\n[[layer]]\nname = \"early\"\nkind = \"flatten\"\n[[layer]]\nname = \"mixed\"\n\
         kind = \"concat\"\ninputs = [\"mean\", \"early\"]",
        &[
            "layer `mixed`: the operands of a layer of kind concat must be images of the same height and width, or vectors, \
         but `mean` is 6 x 4 x 5 and `early` is 120 values",
        ],
    ),
    (
        "name = \"fc\"\nkind = \"dense\"",
        "name = \"idle\"\nkind = \"identity\"\n[[layer]]\nname = \"fc\"\nkind = \"dense\"\ninputs = [\"flat\"]",
        &["layer `idle`: no layer uses its output, and it is not the last layer"],
    ),
    (
        "kind = \"flatten\"",
        "kind = \"flatten\"\n[[layer]]\nname = \"late\"\nkind = \"global_avg_pool2d\"",
        &["layer `late`: a global_avg_pool2d layer needs an image"],
    ),
    (
        "groups = 2",
        "groups = 3",
        &["layer `conv`: `groups` is 3; it must divide the 2 input and the 4 output channels"],
    ),
    ("groups = 2", "groups = 0", &["field `groups` is 0; every dimension must be 1 to 65536"]),
    ("groups = 2", "groups = 1", &["tensor `conv.weight` has shape [4, 1, 3, 3]; this layer needs [4, 2, 3, 3]"]),
    (
        "padding = [0, 2, 1, 0]",
        "padding = [0, 2, 1]",
        &["field `padding` is an array of 3 items; expected two integers"],
    ),
    (
        "padding = [0, 2, 1, 0]",
        "padding = [0, 2, 1, -1]",
        &["field `padding` is -1; every dimension must be 0 to 65536"],
    ),
    ("dilation = [1, 1]", "dilation = 0", &["field `dilation` is 0; every dimension must be 1"]),
    ("dilation = [1, 1]", "dilation = [1, 65537]", &["field `dilation` is 65537"]),
    ("dilation = [1, 1]", "dilation = \"2\"", &["field `dilation` is the string \"2\"; expected an integer or two"]),
    (
        "dilation = [1, 1]",
        "dilation = [65536, 1]",
        &["layer `wide`: kernel 2 x 3 with dilation 65536 x 1 is larger than its input 4 x 4 x 5 with padding \
         [top 0, left 2, bottom 1, right 0]"],
    ),
    (
        "padding = [0, 2, 1, 0]",
        "padding = [0, 65536, 0, 65536]",
        &["layer `wide`: 4 x 3 x 131075 is too large; at most 262144 values"],
    ),
    (
        "name = \"act\"\nkind = \"polynomial\"",
        "name = \"act\"\nkind = \"polynomial\"\ncoefficients = [0.0, 1.0, 2.0]",
        &["no layer uses the tensors act.coefficients"],
    ),
];

#[test]
fn bad_graphs_are_refused_with_their_place_and_cause() {
    assert_refused(GRAPH, &tensors(), BAD_TEXT);
}
