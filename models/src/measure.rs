//! Ranges, means of squares and histograms of a network's values on images: the part of a calibration that is about single layers.

use ndarray::{Array2, ArrayView1, ArrayView4, Axis};
use rayon::prelude::*;

use crate::network::{Histogram, Inputs, LayerOp, Network, OutputCalibration};
use crate::plain;

/// Bins of every histogram.
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
            range: [self.range[0].min(other.range[0]), self.range[1].max(other.range[1])],
        }
    }

    /// The range, widened where all values are one.
    fn range(&self) -> [f64; 2] {
        let [low, high] = self.range;
        if low < high { [low, high] } else { [low, low + 1e-6 * (1.0 + low.abs())] }
    }
}

/// Measures on `images` what a description states of single layers, and of the scores: root mean squares, ranges, histograms,
/// margins. What the network stated before is replaced.
///
/// The margins of images that a network was trained on are larger than those of others, which makes predictions too good: give it
/// images that it has not seen, or has seen only deformed.
///
/// # Panics
/// If there are no images, or images of another shape than the network's input.
pub fn measure(net: &mut Network, images: ArrayView4<'_, f32>) {
    assert!(images.len_of(Axis(0)) > 0, "images to measure on");
    // Sums are over chunks in their order, so that every machine finds the same.
    let chunks: Vec<ArrayView4<'_, f32>> = images.axis_chunks_iter(Axis(0), CHUNK).collect();
    let moments = |chunk: &ArrayView4<'_, f32>| {
        let mut all = Vec::with_capacity(net.layers.len() + 1);
        let mut margins = Vec::new();
        plain::visit(net, *chunk, &mut |values| {
            all.push(Moments::of(values));
            if all.len() > net.layers.len() {
                margins.extend(values.rows().into_iter().map(|row| margin(row).1));
            }
        });
        (all, margins)
    };
    let per_chunk: Vec<(Vec<Moments>, Vec<f64>)> = chunks.par_iter().map(moments).collect();
    let (moments, margins) = per_chunk
        .into_iter()
        .reduce(|(a, margins), (b, more)| {
            (a.into_iter().zip(b).map(|(a, b)| a.plus(b)).collect(), [margins, more].concat())
        })
        .expect("at least one chunk");
    for (layer, around) in net.layers.iter_mut().zip(moments.windows(2)) {
        let rms = (around[0].squares / around[0].count as f64).sqrt();
        layer.input_rms = Some(rms.max(f64::MIN_POSITIVE));
        layer.output_range = Some(around[1].range());
    }
    let scores = moments.last().expect("the input and every layer").range();
    let empty = |range: [f64; 2]| Histogram { low: range[0], high: range[1], counts: vec![0; BINS] };
    let histograms = |chunk: &ArrayView4<'_, f32>| {
        let mut all: Vec<Option<Histogram>> = Vec::with_capacity(net.layers.len());
        let mut place = 0;
        plain::visit(net, *chunk, &mut |values| {
            match net.layers.get(place).map(|layer| &layer.op) {
                Some(LayerOp::Polynomial { .. }) => {
                    let mut histogram = empty(moments[place].range());
                    values.iter().for_each(|&v| count(&mut histogram, v.into()));
                    all.push(Some(histogram));
                }
                Some(_) => all.push(None),
                None => {}
            }
            place += 1;
        });
        all
    };
    let per_chunk: Vec<Vec<Option<Histogram>>> = chunks.par_iter().map(histograms).collect();
    let add = |sum: &mut Histogram, other: &Histogram| {
        sum.counts.iter_mut().zip(&other.counts).for_each(|(sum, other)| *sum += other);
    };
    let histograms = per_chunk
        .into_iter()
        .reduce(|mut all, other| {
            all.iter_mut().zip(&other).for_each(|(sum, other)| {
                if let (Some(sum), Some(other)) = (sum, other) {
                    add(sum, other);
                }
            });
            all
        })
        .expect("at least one chunk");
    for ((layer, histogram), moments) in net.layers.iter_mut().zip(histograms).zip(&moments) {
        if let (LayerOp::Polynomial { inputs, .. }, Some(histogram)) = (&mut layer.op, histogram) {
            *inputs = Some(Inputs { range: moments.range(), histogram });
        }
    }
    let mut histogram = empty([0.0, margins.iter().copied().fold(1e-6, f64::max)]);
    margins.iter().for_each(|&margin| count(&mut histogram, margin));
    net.output = Some(OutputCalibration { range: scores, margins: histogram });
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
