use cryptodl_network::{LayerOp, Network, Padding, plain};
use ndarray::{Array4, Axis};

use super::{Graph, int, list, text};
use crate::{ImageLayout, ImportOptions, import_bytes};

fn kinds(network: &Network) -> Vec<&'static str> {
    network.layers.iter().map(|layer| layer.op.kind()).collect()
}

/// What the layers compute, and of what, whatever they are called.
fn operations(network: &Network) -> Vec<String> {
    network.layers.iter().map(|layer| format!("{:?} of {:?}", layer.op, layer.inputs)).collect()
}

fn images(network: &Network) -> Array4<f32> {
    let [c, h, w] = network.input.shape;
    Array4::from_shape_fn((3, c, h, w), |(i, c, y, x)| ((i * 31 + c * 17 + y * 5 + x * 3) % 23) as f32 / 23.0 - 0.4)
}

fn scores(network: &Network) -> Vec<f32> {
    plain::logits(network, images(network).view()).into_raw_vec_and_offset().0
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() <= 1e-4 * (1.0 + x.abs()))
}

/// conv, then the activation that `middle` writes from `h` to `a`, then a dense layer.
fn with_activation(middle: impl Fn(Graph) -> Graph) -> Graph {
    let start = Graph::new(&[0, 1, 6, 6]).weight("c.weight", &[2, 1, 3, 3]).weight("c.bias", &[2]).node(
        "Conv",
        "x c.weight c.bias",
        "h",
    );
    middle(start).weight("d.weight", &[3, 32]).node("Flatten", "a", "f").node_with(
        "Gemm",
        "f d.weight",
        "y",
        vec![int("transB", 1)],
    )
}

#[test]
fn every_spelling_of_a_polynomial_is_one_layer() {
    let constants = |graph: Graph| graph.scalar("k0", 0.5).scalar("k1", -1.25).scalar("k2", 0.375).scalar("two", 2.0);
    let spellings = [
        // k0 + k1 h + k2 h^2 with a product, a power, Horner's rule, a division, and a sum of three.
        with_activation(|g| {
            constants(g)
                .node("Mul", "h h", "s")
                .node("Mul", "k2 s", "p")
                .node("Mul", "h k1", "q")
                .node("Add", "p q", "r")
                .node("Add", "r k0", "a")
        }),
        with_activation(|g| {
            constants(g)
                .node("Pow", "h two", "s")
                .node("Mul", "s k2", "p")
                .node("Mul", "h k1", "q")
                .node("Sum", "p q k0", "a")
        }),
        with_activation(|g| {
            constants(g)
                .node("Mul", "h k2", "p")
                .node("Add", "p k1", "q")
                .node("Mul", "q h", "r")
                .node("Add", "r k0", "a")
        }),
        with_activation(|g| {
            constants(g)
                .scalar("third", 8.0 / 3.0)
                .node("Div", "h third", "p")
                .node("Neg", "p", "m")
                .node("Sub", "m k1", "n")
                .node("Neg", "n", "q")
                .node("Mul", "two k1", "t")
                .node("Add", "q t", "u")
                .node("Sub", "u t", "v")
                .node("Mul", "h v", "w")
                .node("Add", "k0 w", "a")
        }),
        // Channels last and back in the middle of it.
        with_activation(|g| {
            constants(g)
                .node_with("Transpose", "h", "t", vec![list("perm", &[0, 2, 3, 1])])
                .node("Mul", "t k2", "p")
                .node("Add", "p k1", "q")
                .node("Mul", "t q", "r")
                .node_with("Transpose", "r", "s", vec![list("perm", &[0, 3, 1, 2])])
                .node("Add", "s k0", "a")
        }),
    ];
    for graph in &spellings {
        let network = graph.network();
        assert_eq!(kinds(&network), ["conv2d", "polynomial", "flatten", "dense"]);
        let LayerOp::Polynomial { coefficients, .. } = &network.layers[1].op else { unreachable!() };
        assert_eq!(coefficients.len(), 1);
        for (found, expected) in coefficients[0].iter().zip([0.5, -1.25, 0.375]) {
            assert!((found - expected).abs() < 1e-6, "{coefficients:?}");
        }
    }
    assert_eq!(operations(&spellings[0].network()), operations(&spellings[1].network()));
    assert_eq!(operations(&spellings[0].network()), operations(&spellings[2].network()));
}

#[test]
fn coefficients_per_channel_are_found_in_any_layout() {
    let first = with_activation(|g| {
        g.floats("k", &[2, 1, 1], vec![0.5, 0.25])
            .node("Mul", "h h", "s")
            .node("Mul", "s k", "p")
            .node("Add", "p h", "a")
    });
    let last = with_activation(|g| {
        g.floats("k", &[2], vec![0.5, 0.25])
            .node_with("Transpose", "h", "t", vec![list("perm", &[0, 2, 3, 1])])
            .node("Mul", "t k", "p")
            .node("Mul", "p t", "s")
            .node("Add", "s t", "r")
            .node_with("Transpose", "r", "a", vec![list("perm", &[0, 3, 1, 2])])
    });
    let network = first.network();
    let LayerOp::Polynomial { coefficients, .. } = &network.layers[1].op else { panic!("{:?}", kinds(&network)) };
    assert_eq!(coefficients, &[vec![0.0, 1.0, 0.5], vec![0.0, 1.0, 0.25]]);
    assert_eq!(operations(&network), operations(&last.network()));
    // A constant for every position is no polynomial of a channel.
    let positions = with_activation(|g| g.weight("k", &[4, 4]).node("Mul", "h k", "s").node("Mul", "s h", "a"));
    assert!(positions.refused().contains("position to position"));
}

#[test]
fn a_bias_and_a_scale_are_no_part_of_a_square() {
    // MatMul and Add, as TensorFlow writes a dense layer, then a square.
    let tf = Graph::new(&[0, 4])
        .weight("w", &[4, 3])
        .weight("b", &[3])
        .weight("v", &[3, 2])
        .node("MatMul", "x w", "m")
        .node("Add", "m b", "h")
        .node("Mul", "h h", "a")
        .node("MatMul", "a v", "y");
    let network = tf.network();
    assert_eq!(kinds(&network), ["flatten", "dense", "polynomial", "dense"]);
    assert!(matches!(&network.layers[1].op, LayerOp::Dense { bias: Some(_), .. }));
    let LayerOp::Polynomial { coefficients, .. } = &network.layers[2].op else { unreachable!() };
    assert_eq!(coefficients, &[vec![0.0, 0.0, 1.0]]);
    // Batch-norm as Mul and Add, behind a layer with a bias.
    let scaled = Graph::new(&[0, 4])
        .weight("w", &[4, 3])
        .weight("b", &[3])
        .weight("g", &[3])
        .weight("v", &[3, 2])
        .scalar("two", 2.0)
        .node("Gemm", "x w b", "m")
        .node("Mul", "m g", "s")
        .node("Add", "s b", "h")
        .node("Pow", "h two", "a")
        .node("MatMul", "a v", "y");
    assert_eq!(kinds(&scaled.network()), ["flatten", "dense", "batch_norm", "polynomial", "dense"]);
}

#[test]
fn residuals_are_sums_and_equal_polynomials_are_computed_once() {
    let residual = Graph::new(&[0, 2, 5, 5])
        .weight("c", &[2, 2, 3, 3])
        .weight("d", &[50, 2])
        .node("Mul", "x x", "s")
        .node_with("Conv", "s c", "h", vec![list("pads", &[1, 1, 1, 1])])
        .node("Add", "h s", "r")
        .node("Flatten", "r", "f")
        .node("MatMul", "f d", "y");
    let network = residual.network();
    assert_eq!(kinds(&network), ["polynomial", "conv2d", "add", "flatten", "dense"]);
    assert_eq!(network.layers[2].inputs.len(), 2);
    let product = Graph::new(&[0, 2, 5, 5]).weight("c", &[2, 2, 1, 1]).node("Conv", "x c", "h").node("Mul", "h x", "y");
    assert!(product.refused().contains("multiplies two different computed values"));
}

#[test]
fn values_that_only_move_permute_weights() {
    // A flatten of channels last is the same network with permuted weights.
    let weights: Vec<f32> = (0..36).map(|i| i as f32 / 8.0 - 2.0).collect();
    let first = Graph::new(&[0, 2, 3, 3])
        .floats("w", &[18, 2], weights.clone())
        .node("Flatten", "x", "f")
        .node("MatMul", "f w", "y");
    let position = |c: usize, at: usize| c * 9 + at;
    let last: Vec<f32> = (0..9)
        .flat_map(|at| (0..2).map(move |c| position(c, at)))
        .flat_map(|from| weights[2 * from..][..2].to_vec())
        .collect();
    let last = Graph::new(&[0, 2, 3, 3])
        .floats("w", &[18, 2], last)
        .node_with("Transpose", "x", "t", vec![list("perm", &[0, 2, 3, 1])])
        .ints("to", &[-1, 18])
        .node("Reshape", "t to", "f")
        .node("MatMul", "f w", "y");
    assert_eq!(operations(&first.network()), operations(&last.network()));
}

#[test]
fn parts_of_images_become_convolutions_with_ones() {
    // Channels 1 and 2, rows 1 and 3, columns 2 to 4; then all again by indices.
    let sliced = Graph::new(&[0, 3, 4, 5])
        .ints("starts", &[1, 1, 2])
        .ints("ends", &[3, 4, 5])
        .ints("axes", &[1, 2, 3])
        .ints("steps", &[1, 2, 1])
        .weight("c", &[2, 2, 2, 2])
        .node("Slice", "x starts ends axes steps", "s")
        .node("Conv", "s c", "h")
        .node("Flatten", "h", "y");
    let network = sliced.network();
    assert_eq!(kinds(&network), ["conv2d", "conv2d", "flatten"]);
    let all = images(&network);
    let part = all.select(Axis(1), &[1, 2]).select(Axis(2), &[1, 3]).select(Axis(3), &[2, 3, 4]);
    let plain_conv = Graph::new(&[0, 2, 2, 3])
        .weight("c", &[2, 2, 2, 2])
        .node("Conv", "x c", "h")
        .node("Flatten", "h", "y")
        .network();
    let expected = plain::logits(&plain_conv, part.view());
    assert!(near(&scores(&network), expected.as_slice().unwrap()));
    let gathered = Graph::new(&[0, 3, 4, 5])
        .ints("channels", &[2, 0])
        .weight("d", &[40, 2])
        .node_with("Gather", "x channels", "g", vec![int("axis", 1)])
        .node("Flatten", "g", "f")
        .node("MatMul", "f d", "y");
    assert_eq!(kinds(&gathered.network()), ["flatten", "dense"]);
}

#[test]
fn split_and_concat_of_one_value_move_channels_only() {
    let shuffled = Graph::new(&[0, 4, 3, 3])
        .weight("c", &[2, 4, 3, 3])
        .node_with("Split", "x", "a b", vec![int("axis", 1)])
        .node_with("Concat", "b a", "s", vec![int("axis", 1)])
        .node("Conv", "s c", "h")
        .node("Flatten", "h", "y");
    let network = shuffled.network();
    assert_eq!(kinds(&network), ["conv2d", "conv2d", "flatten"]);
    let plain_conv = Graph::new(&[0, 4, 3, 3])
        .weight("c", &[2, 4, 3, 3])
        .node("Conv", "x c", "h")
        .node("Flatten", "h", "y")
        .network();
    let order = images(&network).select(Axis(1), &[2, 3, 0, 1]);
    assert!(near(&scores(&network), plain::logits(&plain_conv, order.view()).as_slice().unwrap()));
    // Of different values it is a layer.
    let joined = Graph::new(&[0, 1, 3, 3])
        .weight("c", &[2, 1, 1, 1])
        .weight("d", &[27, 2])
        .node("Conv", "x c", "h")
        .node_with("Concat", "x h", "j", vec![int("axis", 1)])
        .node("Flatten", "j", "f")
        .node("MatMul", "f d", "y");
    assert_eq!(kinds(&joined.network()), ["conv2d", "concat", "flatten", "dense"]);
}

#[test]
fn padding_goes_into_the_convolution_or_pool_behind_it() {
    let padded = Graph::new(&[0, 1, 4, 4])
        .ints("pads", &[0, 0, 1, 2, 0, 0, 0, 1])
        .weight("c", &[2, 1, 3, 3])
        .node("Pad", "x pads", "p")
        .node_with("Conv", "p c", "h", vec![list("pads", &[1, 0, 0, 0])])
        .node("Flatten", "h", "y");
    let network = padded.network();
    assert_eq!(kinds(&network), ["conv2d", "flatten"]);
    let LayerOp::Conv2d { padding, .. } = &network.layers[0].op else { unreachable!() };
    assert_eq!(*padding, Padding { before: [2, 2], after: [0, 1] });
    let pool =
        |attributes| Graph::new(&[0, 2, 4, 4]).node_with("AveragePool", "x", "h", attributes).node("Flatten", "h", "y");
    let window = || vec![list("kernel_shape", &[2, 2]), list("strides", &[2, 2]), list("pads", &[1, 1, 1, 1])];
    assert!(pool(window()).refused().contains("count_include_pad=True"));
    let counted = pool([window(), vec![int("count_include_pad", 1)]].concat()).network();
    let LayerOp::Conv2d { groups: 2, .. } = &counted.layers[0].op else { panic!("{:?}", kinds(&counted)) };
    let first = images(&counted)[[0, 0, 0, 0]];
    assert!((scores(&counted)[0] - first / 4.0).abs() < 1e-6);
    let same =
        pool(vec![list("kernel_shape", &[2, 2]), text("auto_pad", "SAME_UPPER"), list("strides", &[2, 2])]).network();
    assert_eq!(kinds(&same), ["avg_pool2d", "flatten"]);
}

#[test]
fn means_over_space_are_one_layer_however_they_are_written() {
    let tail = |graph: Graph| graph.weight("d", &[2, 3]).node("Flatten", "m", "f").node("MatMul", "f d", "y");
    let global = tail(Graph::new(&[0, 2, 4, 5]).node("GlobalAveragePool", "x", "m"));
    let reduced = tail(Graph::new(&[0, 2, 4, 5]).ints("axes", &[-1, -2]).node("ReduceMean", "x axes", "m"));
    let last =
        tail(Graph::new(&[0, 2, 4, 5]).node_with("Transpose", "x", "t", vec![list("perm", &[0, 2, 3, 1])]).node_with(
            "ReduceMean",
            "t",
            "m",
            vec![list("axes", &[1, 2]), int("keepdims", 0)],
        ));
    for graph in [&reduced, &last] {
        assert!(near(&scores(&graph.network()), &scores(&global.network())));
        assert_eq!(kinds(&graph.network()), ["global_avg_pool2d", "flatten", "dense"]);
    }
    let channels =
        Graph::new(&[0, 2, 4, 5]).node_with("ReduceMean", "x", "m", vec![list("axes", &[1])]).node("Flatten", "m", "y");
    assert!(channels.refused().contains("over channels"));
}

#[test]
fn shape_arithmetic_is_computed_while_reading() {
    // x.view(x.size(0), -1), as the legacy exporter writes it.
    let graph = Graph::new(&[0, 2, 3, 3])
        .weight("d", &[18, 2])
        .ints("zero", &[0])
        .ints("minus", &[-1])
        .node("Shape", "x", "s")
        .node_with("Gather", "s zero", "n", vec![int("axis", 0)])
        .node_with("Concat", "n minus", "to", vec![int("axis", 0)])
        .node("Reshape", "x to", "f")
        .node("MatMul", "f d", "y");
    let imported = graph.import().unwrap();
    assert_eq!(kinds(&imported.network), ["flatten", "dense"]);
    assert_eq!((imported.seen.nodes, imported.seen.depth), (5, 0));
    // The same with a batch of 5 that the exporter fixed.
    let fixed = Graph::new(&[5, 2, 3, 3])
        .weight("d", &[18, 2])
        .ints("to", &[5, 18])
        .node("Reshape", "x to", "f")
        .node("MatMul", "f d", "y");
    assert_eq!(operations(&fixed.network()), operations(&imported.network));
    let mixing = Graph::new(&[5, 2, 3, 3])
        .weight("d", &[45, 2])
        .ints("to", &[2, 45])
        .node("Reshape", "x to", "f")
        .node("MatMul", "f d", "y");
    assert!(mixing.refused().contains("mixes images"));
}

#[test]
fn the_last_softmax_is_left_out_and_said() {
    let graph = Graph::new(&[0, 4]).weight("w", &[4, 3]).node("MatMul", "x w", "h").node("LogSoftmax", "h", "y");
    let imported = graph.import().unwrap();
    assert_eq!(kinds(&imported.network), ["flatten", "dense"]);
    assert!(imported.seen.notes.iter().any(|note| note.contains("LogSoftmax, is left out")));
    let inside = Graph::new(&[0, 4]).weight("w", &[4, 3]).node("Softmax", "x", "h").node("MatMul", "h w", "y");
    assert!(inside.refused().contains("not the last operator"));
}

#[test]
fn batch_norm_keeps_its_statistics() {
    let graph = |dims: &[i64]| {
        Graph::new(dims)
            .floats("n.weight", &[2], vec![0.5, 2.0])
            .weight("n.bias", &[2])
            .weight("mean", &[2])
            .floats("var", &[2], vec![1.0, 0.25])
            .node("BatchNormalization", "x n.weight n.bias mean var", "h")
            .node("Flatten", "h", "y")
    };
    let network = graph(&[0, 2, 3, 3]).network();
    let LayerOp::BatchNorm { gamma, eps, .. } = &network.layers[0].op else { unreachable!() };
    assert_eq!((gamma.to_vec(), *eps, network.layers[0].name.as_str()), (vec![0.5, 2.0], 1e-5, "n"));
    assert_eq!(kinds(&network), ["batch_norm", "flatten"]);
}

#[test]
fn images_with_channels_last_are_recognised() {
    let graph = |layout| {
        let graph = Graph::new(&[0, 4, 5, 2])
            .weight("c", &[3, 2, 2, 2])
            .scalar("k", 0.5)
            .node("Mul", "x k", "h")
            .node_with("Transpose", "h", "t", vec![list("perm", &[0, 3, 1, 2])])
            .node("Conv", "t c", "v")
            .node("Flatten", "v", "y");
        import_bytes(&graph.bytes(), &ImportOptions { layout, ..ImportOptions::new("test") })
    };
    assert_eq!(graph(None).unwrap().network.input.shape, [2, 4, 5]);
    assert_eq!(graph(Some(ImageLayout::ChannelsLast)).unwrap().network.input.shape, [2, 4, 5]);
    assert!(graph(Some(ImageLayout::ChannelsFirst)).unwrap_err().to_string().contains("another order"));
}

#[test]
fn vectors_and_open_sizes_need_a_shape() {
    let open = Graph::new(&[0, 1, 0, 0])
        .weight("c", &[2, 1, 3, 3])
        .node("Conv", "x c", "h")
        .node("GlobalAveragePool", "h", "g")
        .node("Flatten", "g", "y");
    assert!(open.refused().contains("leaves the size of its images open (? x 1 x ? x ?)"));
    let options = ImportOptions { shape: Some([1, 6, 7]), ..ImportOptions::new("test") };
    assert_eq!(import_bytes(&open.bytes(), &options).unwrap().network.input.shape, [1, 6, 7]);
    let vector = Graph::new(&[0, 6]).weight("w", &[6, 2]).node("MatMul", "x w", "y");
    assert_eq!(vector.network().input.shape, [1, 1, 6]);
    let options = ImportOptions { shape: Some([1, 2, 3]), ..ImportOptions::new("test") };
    assert_eq!(import_bytes(&vector.bytes(), &options).unwrap().network.input.shape, [1, 2, 3]);
    let options = ImportOptions { shape: Some([1, 2, 2]), ..ImportOptions::new("test") };
    assert!(import_bytes(&vector.bytes(), &options).is_err());
}

#[test]
fn convolutions_of_series_are_convolutions_of_one_row() {
    let series = Graph::new(&[0, 2, 9])
        .weight("c", &[3, 2, 4])
        .weight("d", &[12, 2])
        .node_with("Conv", "x c", "h", vec![list("strides", &[2]), list("pads", &[1, 1])])
        .node("Flatten", "h", "f")
        .node("MatMul", "f d", "y");
    let network = series.network();
    assert_eq!((network.input.shape, kinds(&network)), ([2, 1, 9], vec!["conv2d", "flatten", "dense"]));
}

#[test]
fn pixels_of_every_channel_have_their_own_range() {
    let graph = Graph::new(&[0, 2, 3, 3]).weight("c", &[2, 2, 3, 3]).node("Conv", "x c", "h").node("Flatten", "h", "y");
    let with = |pixels: &[[f64; 2]]| {
        import_bytes(&graph.bytes(), &ImportOptions { pixels: pixels.to_vec(), ..ImportOptions::new("test") })
            .map(|imported| imported.network)
            .map_err(|error| error.to_string())
    };
    let same = with(&[[-1.0, 2.0], [-1.0, 2.0]]).unwrap();
    assert_eq!((same.input.range, kinds(&same)), ([-1.0, 2.0], vec!["conv2d", "flatten"]));
    let own = with(&[[-1.0, 2.0], [0.5, 1.5]]).unwrap();
    assert_eq!((own.input.range, kinds(&own)), ([0.0, 1.0], vec!["batch_norm", "conv2d", "flatten"]));
    let mut normalised = images(&own);
    normalised.index_axis_mut(Axis(1), 0).mapv_inplace(|p| 3.0 * p - 1.0);
    normalised.index_axis_mut(Axis(1), 1).mapv_inplace(|p| p + 0.5);
    assert!(near(&scores(&own), plain::logits(&same, normalised.view()).as_slice().unwrap()));
    assert!(with(&[[0.0, 1.0]; 3]).unwrap_err().contains("3 channels"));
    assert!(with(&[[1.0, 1.0]]).unwrap_err().contains("more than the pixel 0"));
}
