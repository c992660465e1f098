//! Activations with coefficients per channel: their tensors, and the histograms of their inputs.

use cryptodl_network::limits::CHANNEL_BINS;
use cryptodl_network::{Network, measure};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::common::graph::{GRAPH, tensors};
use crate::common::{calibration, images, noise, parse};
use crate::measuring::assert_measured;

#[test]
fn bad_coefficients_of_channels_are_refused() {
    let refused = |shape: &[usize], change: fn(&mut [f32]), fragment: &str| {
        let mut tensors = tensors();
        let mut values: Vec<f32> = noise(5).take(shape.iter().product()).collect();
        change(&mut values);
        tensors.insert("act.coefficients".into(), (shape.to_vec(), values));
        let error = parse(GRAPH, &tensors).expect_err(fragment).to_string();
        assert!(error.contains("layer `act`") && error.contains(fragment), "{error:?} lacks {fragment:?}");
    };
    for shape in [&[3, 3][..], &[12], &[4, 65], &[4, 1], &[4, 0]] {
        let fragment = format!(
            "tensor `act.coefficients` has shape {shape:?}; this layer needs 4 rows, one per channel, of 2 to 64 numbers"
        );
        refused(shape, |_| (), &fragment);
    }
    refused(&[4, 3], |values| values[7] = f32::NAN, "the coefficients of channel 2 are");
    let last = |values: &mut [f32]| values.iter_mut().skip(2).step_by(3).for_each(|c| *c = 0.0);
    refused(&[4, 3], last, "the coefficients of degree 2 are zero in every channel; leave them out");

    // A channel may have a lower degree than others.
    let mut tensors = tensors();
    tensors.get_mut("act.coefficients").unwrap().1[5] = 0.0;
    parse(GRAPH, &tensors).unwrap();
    tensors.remove("act.coefficients");
    let error = parse(GRAPH, &tensors).unwrap_err().to_string();
    assert!(error.contains("layer `act`: field `coefficients` is missing; it is numbers"), "{error}");
}

#[test]
fn histograms_of_channels_are_in_the_calibration_file_and_checked() {
    let mut net = parse(GRAPH, &tensors()).unwrap();
    let images = images(&net, 40, 9);
    measure::measure(&mut net, images.view());
    let text = net.description("Written by a test.", Some("c.safetensors"));
    let read = |bytes: &[u8]| Network::parse("graph.toml", &text, &net.weight_file(), Some(bytes));
    let good = calibration().to_bytes(&net);
    assert_eq!(good, calibration().to_bytes(&net));
    let again = read(&good).unwrap();
    assert_eq!(format!("{:?}", again.layers), format!("{:?}", net.layers));
    assert_measured(&again, &images);

    // Without histograms the network is read, and they can be measured alone.
    let bare = net.description("Written by a test.", None);
    let bare = Network::parse("graph.toml", &bare, &net.weight_file(), None).unwrap();
    let mut without = read(&calibration().to_bytes(&bare)).unwrap();
    assert_ne!(format!("{:?}", without.layers), format!("{:?}", again.layers));
    measure::measure_channels(&mut without, images.view());
    assert_eq!(format!("{:?}", without.layers), format!("{:?}", again.layers));

    let refused = |bytes: &[u8], fragment: &str| {
        let error = read(bytes).expect_err(fragment).to_string();
        assert!(error.contains(fragment) && error.contains("measured again"), "{error:?} lacks {fragment:?}");
    };
    // Lower and upper end of each channel; then 64 counts of each.
    let ends = |change: &dyn Fn(&mut Rows<2>)| with_tensor(&good, "histograms/act/ranges", change);
    let counts = |change: &dyn Fn(&mut Rows<CHANNEL_BINS>)| with_tensor(&good, "histograms/act/counts", change);
    refused(&ends(&|ends| ends.truncate(3)), "tensor `histograms/act/ranges` is F64 of shape [3, 2]");
    refused(&ends(&|ends| ends[2][1] = f64::NAN.to_le_bytes()), "channel 2 before layer `act`");
    refused(&ends(&|ends| ends[1][1] = ends[1][0]), "channel 1 before layer `act`");
    refused(&counts(&|counts| counts[3] = [[0; 8]; CHANNEL_BINS]), "64 bins with 0 values");
    refused(&counts(&|counts| counts[3] = [[0xff; 8]; CHANNEL_BINS]), "a histogram needs");
    let named = String::from_utf8_lossy(&good).contains(r#"\"histograms\":[\"act\"]"#);
    assert!(named, "the header names the layer");
    let other = |name: &str| {
        let (from, to) = (br#"\"histograms\":[\"act\"]"#.as_slice(), format!(r#"\"histograms\":[\"{name}\"]"#));
        let at = good.windows(from.len()).position(|window| window == from).unwrap();
        [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat()
    };
    refused(&other("acx"), "it has histograms before `acx`, which is no layer");
    (0..good.len()).step_by(61).for_each(|end| drop(read(&good[..end]).expect_err("cut short")));

    let stateless = GRAPH.replace("weights =", "calibration = \"c.safetensors\"\nweights =");
    let error = Network::parse("graph.toml", &stateless, &net.weight_file(), Some(&good)).unwrap_err().to_string();
    assert!(
        error.contains("before layer `act`, which has no coefficients per channel or states no histogram"),
        "{error}"
    );
}

/// Rows of 8-byte numbers.
type Rows<const COLUMNS: usize> = Vec<[[u8; 8]; COLUMNS]>;

/// A safetensors file in which one tensor of rows of 8-byte numbers is another.
fn with_tensor<const COLUMNS: usize>(file: &[u8], name: &str, change: &dyn Fn(&mut Rows<COLUMNS>)) -> Vec<u8> {
    let (_, metadata) = SafeTensors::read_metadata(file).unwrap();
    let tensors = SafeTensors::deserialize(file).unwrap();
    let found = tensors.tensor(name).unwrap();
    let mut rows = found.data().as_chunks().0.as_chunks().0.to_vec();
    change(&mut rows);
    let other = TensorView::new(found.dtype(), vec![rows.len(), COLUMNS], rows.as_flattened().as_flattened()).unwrap();
    let views = tensors.iter().map(|(held, view)| (held, if held == name { other.clone() } else { view }));
    safetensors::serialize(views, metadata.metadata().clone()).unwrap()
}
