//! Ranges, means of squares and histograms of a network's values on images: the part of a calibration that is about single layers.

use ndarray::{Array2, ArrayView1, ArrayView4, Axis};
use rayon::prelude::*;

use crate::histogram::Histogram;
use crate::layer::{Inputs, Layer, LayerOp};
use crate::limits::CHANNEL_BINS;
use crate::network::Network;
use crate::plain;
use crate::spec::OutputCalibration;

/// Bins of a histogram of all channels, or of margins.
const BINS: usize = 256;

/// Images that are followed together.
const CHUNK: usize = 32;

/// Sum of squares, count, smallest and largest of some values.
#[derive(Clone, Copy, Debug)]
struct Moments {
    squares: f64,
    count: usize,
    range: [f64; 2],
}

impl Moments {
    fn of(values: &Array2<f32>) -> Self {
        let start = Moments { squares: 0.0, count: values.len(), range: [f64::INFINITY, f64::NEG_INFINITY] };
        values.iter().fold(start, |m, &v| {
            let v = f64::from(v);
            Moments { squares: m.squares + v * v, count: m.count, range: [m.range[0].min(v), m.range[1].max(v)] }
        })
    }

    fn plus(self, other: Moments) -> Self {
        Moments {
            squares: self.squares + other.squares,
            count: self.count + other.count,
            range: united(self.range, other.range),
        }
    }

    fn range(&self) -> [f64; 2] {
        widened(self.range)
    }
}

/// A range, widened where all values are one.
fn widened([low, high]: [f64; 2]) -> [f64; 2] {
    if low < high { [low, high] } else { [low, low + 1e-6 * (1.0 + low.abs())] }
}

fn united(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0].min(b[0]), a[1].max(b[1])]
}

/// What is known of the image, or of a layer's output.
struct Seen {
    moments: Moments,
    /// Ranges of channels, where a layer that reads these values has coefficients per channel.
    channels: Vec<[f64; 2]>,
}

impl Seen {
    fn plus(self, other: Seen) -> Self {
        Seen {
            moments: self.moments.plus(other.moments),
            channels: self.channels.into_iter().zip(other.channels).map(|(a, b)| united(a, b)).collect(),
        }
    }
}

/// Measures on `images` what a description states of single layers, and of the scores: root mean
/// squares, ranges, histograms, margins. Where an activation has coefficients per channel, every
/// channel gets a histogram of its own. What the network stated before is replaced.
///
/// The margins of images that a network was trained on are larger than those of others, which makes predictions too good: give it
/// images that it has not seen, or has seen only deformed.
///
/// # Panics
/// If there are no images, or images of another shape than the network's input.
pub fn measure(net: &mut Network, images: ArrayView4<'_, f32>) {
    let (seen, margins) = see(net, images);
    let found = count_all(net, images, &seen);
    for (index, (layer, inputs)) in net.spec_mut().layers.iter_mut().zip(found).enumerate() {
        let operands = layer.inputs.iter().map(|source| seen[source.value()].moments);
        let all = operands.reduce(Moments::plus).expect("a layer has an operand");
        layer.input_rms = Some((all.squares / all.count as f64).sqrt().max(f64::MIN_POSITIVE));
        layer.output_range = Some(seen[index + 1].moments.range());
        if let LayerOp::Polynomial { inputs: stated, .. } = &mut layer.op {
            *stated = inputs;
        }
    }
    let mut histogram = empty([0.0, margins.iter().copied().fold(1e-6, f64::max)], BINS);
    margins.iter().for_each(|&margin| count(&mut histogram, margin));
    let scores = seen.last().expect("the input and every layer").moments.range();
    net.spec_mut().output = Some(OutputCalibration { range: scores, margins: histogram });
}

/// Measures on `images` only the histograms of single channels, where an activation has
/// coefficients per channel and states the range and histogram of its input. Nothing else changes.
///
/// # Panics
/// As [`measure`].
pub fn measure_channels(net: &mut Network, images: ArrayView4<'_, f32>) {
    let per_channel =
        |layer: &Layer| matches!(&layer.op, LayerOp::Polynomial { coefficients, .. } if coefficients.len() > 1);
    if !net.layers.iter().any(per_channel) {
        return;
    }
    let (seen, _) = see(net, images);
    let found = count_all(net, images, &seen);
    for (layer, found) in net.spec_mut().layers.iter_mut().zip(found) {
        if let (LayerOp::Polynomial { inputs: Some(stated), .. }, Some(found)) = (&mut layer.op, found) {
            stated.channels = found.channels;
        }
    }
}

/// A first pass over the images: what is known of the image and of every layer's output, and the
/// margins.
fn see(net: &Network, images: ArrayView4<'_, f32>) -> (Vec<Seen>, Vec<f64>) {
    assert!(images.len_of(Axis(0)) > 0, "images to measure on");
    let mut channels = vec![0; net.layers.len() + 1];
    for layer in &net.layers {
        if let LayerOp::Polynomial { coefficients, .. } = &layer.op
            && coefficients.len() > 1
        {
            channels[layer.inputs[0].value()] = coefficients.len();
        }
    }
    let see_chunk = |chunk: ArrayView4<'_, f32>| {
        let mut all = Vec::with_capacity(net.layers.len() + 1);
        let mut margins = Vec::new();
        plain::visit(net, chunk, &mut |values| {
            let channels = ranges_by_channel(values, channels[all.len()]);
            all.push(Seen { moments: Moments::of(values), channels });
            if all.len() > net.layers.len() {
                margins.extend(values.rows().into_iter().map(|row| margin(row).1));
            }
        });
        (all, margins)
    };
    // Sums are over chunks in their order, so that every machine finds the same.
    let per_chunk: Vec<(Vec<Seen>, Vec<f64>)> =
        images.axis_chunks_iter(Axis(0), CHUNK).into_par_iter().map(see_chunk).collect();
    let whole = per_chunk.into_iter().reduce(|(a, mut margins), (b, more)| {
        margins.extend(more);
        (a.into_iter().zip(b).map(|(a, b)| a.plus(b)).collect(), margins)
    });
    whole.expect("at least one chunk")
}

/// Ranges of so many channels, the equal parts of every row; none of no channels.
fn ranges_by_channel(values: &Array2<f32>, channels: usize) -> Vec<[f64; 2]> {
    let mut ranges = vec![[f64::INFINITY, f64::NEG_INFINITY]; channels];
    for_each_by_channel(values, &mut ranges, |range, value| *range = united(*range, [value; 2]));
    ranges
}

/// Shows every value with the entry of its channel.
fn for_each_by_channel<T>(values: &Array2<f32>, channels: &mut [T], mut show: impl FnMut(&mut T, f64)) {
    if channels.is_empty() {
        return;
    }
    let per_channel = values.ncols() / channels.len();
    for row in values.rows() {
        for (channel, part) in channels.iter_mut().zip(row.axis_chunks_iter(Axis(0), per_channel)) {
            part.iter().for_each(|&value| show(channel, value.into()));
        }
    }
}

/// A second pass over the images: range and histograms of the input of every activation, by layer.
fn count_all(net: &Network, images: ArrayView4<'_, f32>, seen: &[Seen]) -> Vec<Option<Inputs>> {
    let empty_inputs = |layer: &Layer| {
        let LayerOp::Polynomial { coefficients, .. } = &layer.op else { return None };
        let seen = &seen[layer.inputs[0].value()];
        let range = seen.moments.range();
        let channels = match coefficients.len() {
            1 => Vec::new(),
            _ => seen.channels.iter().map(|&range| empty(widened(range), CHANNEL_BINS)).collect(),
        };
        Some(Inputs { range, histogram: empty(range, BINS), channels })
    };
    // Activations by the values that they read.
    let mut readers = vec![Vec::new(); net.layers.len() + 1];
    for (index, layer) in net.layers.iter().enumerate() {
        if matches!(layer.op, LayerOp::Polynomial { .. }) {
            readers[layer.inputs[0].value()].push(index);
        }
    }
    let count_chunk = |chunk: ArrayView4<'_, f32>| {
        let mut all: Vec<Option<Inputs>> = net.layers.iter().map(empty_inputs).collect();
        let mut place = 0;
        plain::visit(net, chunk, &mut |values| {
            for &reader in &readers[place] {
                let inputs = all[reader].as_mut().expect("an activation");
                values.iter().for_each(|&value| count(&mut inputs.histogram, value.into()));
                for_each_by_channel(values, &mut inputs.channels, count);
            }
            place += 1;
        });
        all
    };
    let add = |sum: &mut Histogram, other: &Histogram| {
        sum.counts.iter_mut().zip(&other.counts).for_each(|(sum, other)| *sum += other);
    };
    let total =
        images.axis_chunks_iter(Axis(0), CHUNK).into_par_iter().map(count_chunk).reduce_with(|mut all, other| {
            for (sum, other) in all.iter_mut().zip(&other) {
                if let (Some(sum), Some(other)) = (sum, other) {
                    add(&mut sum.histogram, &other.histogram);
                    sum.channels.iter_mut().zip(&other.channels).for_each(|(sum, other)| add(sum, other));
                }
            }
            all
        });
    total.expect("at least one chunk")
}

fn empty(range: [f64; 2], bins: usize) -> Histogram {
    Histogram { low: range[0], high: range[1], counts: vec![0; bins] }
}

/// The class with the largest score and how far the second is below it.
pub fn margin(scores: ArrayView1<'_, f32>) -> (usize, f64) {
    let best = plain::argmax(scores);
    let others = scores.iter().enumerate().filter(|(class, _)| *class != best);
    let second = others.map(|(_, &score)| f64::from(score)).fold(f64::NEG_INFINITY, f64::max);
    (best, f64::from(scores[best]) - second)
}

fn count(histogram: &mut Histogram, value: f64) {
    let share = (value - histogram.low) / (histogram.high - histogram.low);
    let bin = (share * histogram.counts.len() as f64) as usize;
    let last = histogram.counts.len() - 1;
    histogram.counts[bin.min(last)] += 1;
}
