//! Networks that tests read, make, measure and spoil.

pub mod graph;
pub mod oracle;
pub mod random;
pub mod tiny;

use std::collections::BTreeMap;

use cryptodl_network::{Calibration, ModelError, Network, NetworkSpec, SourceGains};
use ndarray::{Array1, Array2, Array4};
use safetensors::{Dtype, tensor::TensorView};

pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Pseudo-random numbers in [-1, 1).
pub fn noise(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

/// Tensors of these names and shapes, in [-1, 1); variances in [0.5, 1.5).
pub fn random_tensors<'a>(shapes: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> Tensors {
    let named = shapes.into_iter().zip(1..).map(|((name, shape), seed)| {
        let variance = name.ends_with("running_var");
        let values = noise(seed).map(|value| if variance { value.abs() + 0.5 } else { value });
        (name.to_owned(), (shape.to_vec(), values.take(shape.iter().product()).collect()))
    });
    named.collect()
}

pub fn serialize(tensors: &Tensors) -> Vec<u8> {
    let raw: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = raw.iter().map(|(name, shape, bytes)| {
        (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("a whole tensor"))
    });
    safetensors::serialize(views, None).expect("valid tensors")
}

/// The network of a description and tensors.
pub fn parse(toml: &str, tensors: &Tensors) -> Result<Network, ModelError> {
    Network::parse("tiny.toml", toml, &serialize(tensors), None)
}

/// Refuses replacements of an example's text: (text to replace, replacement, what the error says).
pub fn assert_refused(example: &str, tensors: &Tensors, table: &[(&str, &str, &[&str])]) {
    for &(from, to, fragments) in table {
        assert!(example.contains(from), "the example has no {from:?}");
        let error = parse(&example.replacen(from, to, 1), tensors).expect_err(to).to_string();
        for fragment in fragments {
            assert!(error.contains(fragment), "{from:?} -> {to:?}: {error:?} lacks {fragment:?}");
        }
    }
}

/// Random images of a network.
pub fn images(net: &Network, count: usize, seed: u64) -> Array4<f32> {
    let [channels, height, width] = net.input.shape;
    let values = noise(seed).take(count * channels * height * width).collect();
    Array4::from_shape_vec((count, channels, height, width), values).unwrap()
}

/// The smallest calibration of single images.
pub fn calibration() -> Calibration {
    Calibration {
        images: Array2::from_elem((1, 1), 7),
        scores: Array2::zeros((1, 3)),
        means: [("a".to_owned(), Array1::zeros(1))].into(),
        margins: vec![0.5],
        gains: [("a".to_owned(), SourceGains { margin: vec![1.0], score: vec![0.5] })].into(),
        places: vec!["a".into()],
        growth: Array2::ones((1, 1)),
    }
}

/// All but the digest, which covers the text of the description.
pub fn contents(net: &Network) -> String {
    format!("{:?}", (NetworkSpec::clone(net), net.fingerprint(), &net.calibration))
}

/// Written and read again.
pub fn reread(net: &Network) -> Network {
    let calibration = net.calibration.as_ref().map(|calibration| calibration.to_bytes(net));
    let name = calibration.is_some().then_some("random.calibration.safetensors");
    let text = net.description("Written by a test.", name);
    Network::parse("random.toml", &text, &net.weight_file(), calibration.as_deref())
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
}
