//! Plaintext inference against loops that follow the definitions.

use cryptodl_network::{InputSpec, Layer, LayerOp, Network, NetworkSpec, Source, plain};
use ndarray::{Array1, Array2, Array4, Axis};

use crate::common::tiny::{TOML, tensors};
use crate::common::{images, noise, oracle, parse};

#[test]
fn every_layer_kind_agrees_with_its_definition() {
    let net = parse(TOML, &tensors()).unwrap();
    assert_agrees_with_definition(&net, &images(&net, 70, 99)); // more than two chunks
}

/// Two activations, the second of degree 8, and batch-norm of vectors: more than the shipped convolutional networks have.
#[test]
fn layers_on_vectors_agree_with_their_definition() {
    let mut numbers = noise(5);
    let mut vector = |len: usize| Array1::from_shape_simple_fn(len, || numbers.next().unwrap());
    let eighth = vec![0.1, 0.5, 0.2, 0.05, -0.03, 0.02, 0.01, -0.003, 0.001];
    let mut ops = vec![LayerOp::Flatten];
    for (inputs, coefficients) in [(12, vec![0.0, 0.5, 0.25]), (5, eighth)] {
        let weight = vector(5 * inputs).into_shape_with_order((5, inputs)).unwrap();
        let var = vector(5).mapv(|v| v.abs() + 0.5);
        let [gamma, beta, mean] = [0; 3].map(|_| vector(5));
        ops.push(LayerOp::Dense { weight, bias: None });
        ops.push(LayerOp::BatchNorm { gamma, beta, mean, var, eps: 1e-5 });
        ops.push(LayerOp::Polynomial { coefficients: vec![coefficients], inputs: None });
    }
    ops.push(LayerOp::Dense { weight: Array2::from_shape_vec((2, 5), vector(10).to_vec()).unwrap(), bias: None });
    let layer = |(i, op): (usize, LayerOp)| Layer::new(&format!("l{i}"), op, vec![Source::before(i)]);
    let layers = ops.into_iter().enumerate().map(layer).collect();
    let input = InputSpec { shape: [1, 3, 4], range: [0.0, 1.0] };
    let net = Network::new(NetworkSpec::new("flat", "Layers on vectors", input, layers)).unwrap();
    assert_agrees_with_definition(&net, &images(&net, 40, 7));
}

fn assert_agrees_with_definition(net: &Network, images: &Array4<f32>) {
    let logits = plain::logits(net, images.view());
    assert_eq!(logits.dim(), (images.len_of(Axis(0)), net.classes()));
    for (image, row) in images.outer_iter().zip(logits.rows()) {
        let start: Vec<f64> = image.iter().map(|&x| f64::from(x)).collect();
        let values = oracle::values(net, start);
        for (&found, expected) in row.iter().zip(values.last().unwrap()) {
            assert!((f64::from(found) - expected).abs() < 1e-5, "{found} is not {expected}");
        }
    }
}

#[test]
fn argmax_takes_the_first_of_equal_values() {
    let rows = ndarray::array![[1.0, 3.0, 3.0], [-2.0, -3.0, -1.0]];
    assert_eq!(rows.rows().into_iter().map(plain::argmax).collect::<Vec<_>>(), [1, 2]);
}
