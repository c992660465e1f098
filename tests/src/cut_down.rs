//! Shipped networks in small: fewer layers, channels and pixels, the weights as they are.

use cryptodl_network::{InputSpec, Layer, LayerOp, Network, NetworkSpec, Source};
use ndarray::{Array, Axis, Dimension, Slice};

use crate::graphs::calibrated;

/// The layers of `network` up to `last`, with the first `channels` channels of each, on images of
/// `side` x `side` pixels; then a dense layer with the first columns of the network's own.
///
/// # Panics
/// If the network is no line of layers, has no layer `last`, or more than one position is left of
/// its maps.
pub fn cut_down(network: &Network, last: &str, channels: usize, side: usize) -> Network {
    let end = network.layers.iter().position(|layer| layer.name == last).expect("a layer of that name");
    let mut images = network.input.shape[0];
    let mut layers: Vec<Layer> = Vec::new();
    for (i, layer) in network.layers[..=end].iter().enumerate() {
        let op = match layer.op.clone() {
            LayerOp::Conv2d { weight, bias, stride, padding, dilation, groups } => {
                let outputs = weight.dim().0.min(channels);
                let weight = first(&first(&weight, 0, outputs), 1, images);
                images = outputs;
                let bias = bias.map(|bias| first(&bias, 0, outputs));
                LayerOp::Conv2d { weight, bias, stride, padding, dilation, groups }
            }
            LayerOp::Polynomial { coefficients, .. } => {
                let rows = coefficients.len().min(channels);
                LayerOp::Polynomial { coefficients: coefficients[..rows].to_vec(), inputs: None }
            }
            op => op,
        };
        let source = i.checked_sub(1).map_or(Source::Input, Source::Layer);
        assert_eq!(layer.inputs, [source], "{}", layer.name);
        layers.push(Layer::new(&layer.name, op, vec![source]));
    }
    let dense = network.layers.iter().rev().find_map(|layer| match &layer.op {
        LayerOp::Dense { weight, .. } => Some(first(weight, 1, weight.ncols().min(channels))),
        _ => None,
    });
    let weight = dense.expect("a dense layer");
    layers.push(Layer::new("flatten", LayerOp::Flatten, vec![Source::Layer(end)]));
    layers.push(Layer::new("scores", LayerOp::Dense { weight, bias: None }, vec![Source::Layer(end + 1)]));
    let input = InputSpec { shape: [network.input.shape[0], side, side], range: network.input.range };
    calibrated(NetworkSpec::new("cut-down", "a shipped network in small", input, layers))
}

/// The first `count` places along an axis.
fn first<D: Dimension>(array: &Array<f32, D>, axis: usize, count: usize) -> Array<f32, D> {
    array.slice_axis(Axis(axis), Slice::from(..count)).to_owned()
}
