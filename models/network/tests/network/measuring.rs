//! What is measured of layers.

use cryptodl_network::limits::CHANNEL_BINS;
use cryptodl_network::{Histogram, LayerOp, Network, measure, plain};
use ndarray::{Array2, Array4, Axis};

use crate::common::tiny::{TOML, tensors};
use crate::common::{noise, parse};

#[test]
fn a_histogram_gives_centres_and_shares() {
    let histogram = Histogram { low: -2.0, high: 2.0, counts: vec![1, 0, 2, 1] };
    assert_eq!(histogram.centres().collect::<Vec<_>>(), [-1.5, -0.5, 0.5, 1.5]);
    assert_eq!(histogram.shares().collect::<Vec<_>>(), [(-1.5, 0.25), (-0.5, 0.0), (0.5, 0.5), (1.5, 0.25)]);
}

#[test]
fn measuring_fills_what_is_missing() {
    let mut net = parse(TOML, &tensors()).unwrap();
    let shape = net.input.shape;
    let mut values = noise(3);
    let images = Array4::from_shape_simple_fn((70, shape[0], shape[1], shape[2]), || values.next().unwrap());
    measure::measure(&mut net, images.view());
    let squares = images.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
    assert!((net.layers[0].input_rms.unwrap() - (squares / images.len() as f64).sqrt()).abs() < 1e-9);
    let scores = plain::logits(&net, images.view());
    let output = net.output.as_ref().unwrap();
    let largest = scores.iter().fold(f32::MIN, |largest, &score| largest.max(score));
    assert_eq!(output.range[1], f64::from(largest));
    assert_eq!(output.margins.counts.iter().sum::<u64>(), 70);
    for (layer, before) in net.layers[1..].iter().zip(&net.layers) {
        assert!(layer.input_rms.is_some());
        if let LayerOp::Polynomial { inputs: Some(inputs), .. } = &layer.op {
            assert_eq!(Some(inputs.range), before.output_range);
            assert_eq!(inputs.histogram.counts.iter().sum::<u64>(), 70 * net.input_shape(layer).len() as u64);
        }
    }
}

/// Ranges and histograms are those of the values that a layer reads, channel by channel.
pub fn assert_measured(net: &Network, images: &Array4<f32>) {
    let mut seen: Vec<Array2<f32>> = Vec::new();
    plain::visit(net, images.view(), &mut |values| seen.push(values.clone()));
    for (index, layer) in net.layers.iter().enumerate() {
        let operands: Vec<f64> =
            layer.inputs.iter().flat_map(|source| seen[source.value()].iter().map(|&v| v.into())).collect();
        let rms = (operands.iter().map(|v| v * v).sum::<f64>() / operands.len() as f64).sqrt();
        let stated = layer.input_rms.unwrap();
        assert!((stated - rms).abs() <= 1e-9 * (1.0 + rms), "{}: {stated} is not {rms}", layer.name);
        let largest = seen[index + 1].iter().fold(f64::MIN, |largest, &v| largest.max(v.into()));
        assert!(layer.output_range.unwrap()[1] >= largest);
        let LayerOp::Polynomial { coefficients, inputs } = &layer.op else { continue };
        let inputs = inputs.as_ref().unwrap();
        assert_eq!(inputs.histogram.counts.iter().sum::<u64>(), operands.len() as u64);
        let channels = if coefficients.len() == 1 { 0 } else { coefficients.len() };
        assert_eq!(inputs.channels.len(), channels);
        let values = &seen[layer.inputs[0].value()];
        for (channel, histogram) in inputs.channels.iter().enumerate() {
            let per_channel = values.ncols() / channels;
            let own =
                values.slice_axis(Axis(1), ndarray::Slice::from(channel * per_channel..(channel + 1) * per_channel));
            let mut counts = [0u64; CHANNEL_BINS];
            let least = own.iter().fold(f64::MAX, |least, &v| least.min(v.into()));
            assert_eq!(histogram.low, least);
            for &v in own.iter() {
                let share = (f64::from(v) - histogram.low) / (histogram.high - histogram.low);
                assert!((0.0..=1.0).contains(&share));
                counts[((share * CHANNEL_BINS as f64) as usize).min(CHANNEL_BINS - 1)] += 1;
            }
            assert_eq!(histogram.counts, counts);
        }
    }
}
