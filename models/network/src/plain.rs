//! Inference in the clear, in f32: what every encrypted run is compared with.
//!
//! Values are released after their last reader, so that memory follows from what a network keeps at
//! once ([`MAX_HELD_VALUES`](crate::limits::MAX_HELD_VALUES)), not from its depth.

use std::borrow::Cow;

use ndarray::{
    Array1, Array2, Array4, ArrayView1, ArrayView2, ArrayView3, ArrayView4, ArrayViewMut1, ArrayViewMut2, Axis, Slice,
    Zip, linalg::general_mat_mul,
};
use rayon::prelude::*;

use crate::layer::{LayerOp, Padding, Shape, Source};
use crate::network::Network;

/// Images that one task carries through the network together.
const CHUNK: usize = 32;

/// The logits, one row per image, of images in the value range of the network's input.
///
/// `images` is N x channels x height x width; chunks of it run in parallel on the current rayon pool.
///
/// # Panics
/// If an image has another shape than the network's input.
pub fn logits(net: &Network, images: ArrayView4<'_, f32>) -> Array2<f32> {
    assert_eq!(&images.shape()[1..], net.input.shape, "images must have the shape of the network's input");
    let mut logits = Array2::zeros((images.len_of(Axis(0)), net.classes()));
    logits
        .axis_chunks_iter_mut(Axis(0), CHUNK)
        .into_par_iter()
        .zip(images.axis_chunks_iter(Axis(0), CHUNK))
        .for_each(|(mut rows, chunk)| rows.assign(&forward(net, chunk)));
    logits
}

/// Index of the largest value; the first of equal ones.
pub fn argmax(row: ArrayView1<'_, f32>) -> usize {
    row.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, &v)| if v > best.1 { (i, v) } else { best }).0
}

/// Values between two layers: images x values per image, row-major, in channel, row, column order.
type Values = Array2<f32>;

fn forward(net: &Network, images: ArrayView4<'_, f32>) -> Values {
    follow(net, images, &mut |_| {})
}

/// Shows `visitor` the values of some images at the input and then after every layer, in the order
/// of the layers, `[image][value]`; the last are the scores.
pub fn visit(net: &Network, images: ArrayView4<'_, f32>, visitor: &mut dyn FnMut(&Array2<f32>)) {
    follow(net, images, visitor);
}

/// The scores; `visitor` sees what [`visit`] says.
fn follow(net: &Network, images: ArrayView4<'_, f32>, visitor: &mut dyn FnMut(&Array2<f32>)) -> Values {
    let count = images.len_of(Axis(0));
    let start = images.to_shape((count, images.len() / count)).expect("an image is a row").into_owned();
    visitor(&start);
    // The image, then the output of every layer, as long as a later layer reads it.
    let mut held: Vec<Option<Values>> = vec![Some(start)];
    for ((layer, output), released) in net.outputs().zip(net.released()) {
        let first = layer.inputs[0];
        let shapes = Shapes { input: net.input_shape(layer), output };
        let values = if layer.inputs.len() == 1 && released.contains(&first) {
            let input = held[first.value()].take().expect("kept for this layer");
            apply(&layer.op, shapes, vec![Cow::Owned(input)])
        } else {
            let operand = |source: &Source| Cow::Borrowed(held[source.value()].as_ref().expect("kept for this layer"));
            apply(&layer.op, shapes, layer.inputs.iter().map(operand).collect())
        };
        released.iter().for_each(|source| held[source.value()] = None);
        visitor(&values);
        held.push(Some(values));
    }
    held.pop().flatten().expect("the last layer's output")
}

/// Shapes of the values of a layer.
#[derive(Clone, Copy)]
struct Shapes {
    /// Of the first operand.
    input: Shape,
    output: Shape,
}

/// What a layer makes of its operands.
fn apply(op: &LayerOp, shapes: Shapes, operands: Vec<Cow<'_, Values>>) -> Values {
    match op {
        LayerOp::Add => {
            let mut operands = operands.into_iter();
            let first = operands.next().expect("validated: it has operands").into_owned();
            operands.fold(first, |sum, operand| sum + &*operand)
        }
        LayerOp::Concat => {
            // A row holds channel after channel, so channels behind each other are rows behind each
            // other.
            let mut joined = Array2::zeros((operands[0].nrows(), shapes.output.len()));
            let mut start = 0;
            for operand in &operands {
                let end = start + operand.ncols();
                joined.slice_axis_mut(Axis(1), Slice::from(start..end)).assign(operand);
                start = end;
            }
            joined
        }
        _ => apply_to_one(op, shapes, operands.into_iter().next().expect("validated: it has an operand")),
    }
}

fn apply_to_one(op: &LayerOp, shapes: Shapes, input: Cow<'_, Values>) -> Values {
    match op {
        LayerOp::Conv2d { weight, bias, stride, padding, dilation, groups } => {
            let windows = Windows { stride: *stride, padding: *padding, dilation: *dilation };
            convolve(&input, shapes, weight, bias.as_ref(), windows, *groups)
        }
        LayerOp::AvgPool2d { kernel, stride } => mean(&input, shapes, *kernel, *stride),
        LayerOp::SumPool2d { kernel, stride } => pool(&input, shapes, *kernel, *stride),
        LayerOp::GlobalAvgPool2d => {
            let Shape::Image { height, width, .. } = shapes.input else {
                unreachable!("validated: this layer has an image")
            };
            mean(&input, shapes, [height, width], [1; 2])
        }
        LayerOp::BatchNorm { gamma, beta, mean, var, eps } => by_channel(input, gamma.len(), |c, mut channel| {
            let scale = gamma[c] / (var[c] + *eps as f32).sqrt();
            channel.mapv_inplace(|x| (x - mean[c]) * scale + beta[c]);
        }),
        LayerOp::Polynomial { coefficients, .. } => by_channel(input, coefficients.len(), |c, mut channel| {
            let row = &coefficients[c];
            channel.mapv_inplace(|x| row.iter().rev().fold(0.0, |y, &c| y * x + c as f32));
        }),
        LayerOp::Flatten | LayerOp::Identity | LayerOp::Dropout => input.into_owned(),
        LayerOp::Dense { weight, bias } => {
            let mut output = input.dot(&weight.t());
            if let Some(bias) = bias {
                output += bias;
            }
            output
        }
        LayerOp::Add | LayerOp::Concat => unreachable!("layers of several operands are applied apart"),
    }
}

/// Changes the values of each image in `channels` equal parts: (index of the part, its values).
fn by_channel(values: Cow<'_, Values>, channels: usize, change: impl Fn(usize, ArrayViewMut1<'_, f32>)) -> Values {
    let mut values = values.into_owned();
    let per_channel = values.ncols() / channels;
    for mut row in values.rows_mut() {
        row.axis_chunks_iter_mut(Axis(0), per_channel).enumerate().for_each(|(c, channel)| change(c, channel));
    }
    values
}

fn mean(values: &Values, shapes: Shapes, kernel: [usize; 2], stride: [usize; 2]) -> Values {
    let mut sums = pool(values, shapes, kernel, stride);
    sums *= 1.0 / (kernel[0] * kernel[1]) as f32;
    sums
}

fn image(values: ArrayView1<'_, f32>, shape: Shape) -> ArrayView3<'_, f32> {
    let Shape::Image { channels, height, width } = shape else { unreachable!("validated: this layer has an image") };
    values.into_shape_with_order((channels, height, width)).expect("a row is an image in standard order")
}

/// How windows lie on an image: rows, columns.
#[derive(Clone, Copy)]
struct Windows {
    stride: [usize; 2],
    padding: Padding,
    dilation: [usize; 2],
}

/// Image by image and group by group: windows become the columns of a matrix, which the weights
/// multiply from the left.
fn convolve(
    values: &Values,
    Shapes { input, output }: Shapes,
    weight: &Array4<f32>,
    bias: Option<&Array1<f32>>,
    windows: Windows,
    groups: usize,
) -> Values {
    let Shape::Image { channels: maps, height, width } = output else { unreachable!("validated: maps come out") };
    let (_, seen, rows, columns) = weight.dim();
    let taps = seen * rows * columns;
    let weight = weight.to_shape((maps, taps)).expect("as many values");
    let mut gathered = Array2::zeros((taps, height * width));
    let mut result = Array2::zeros((values.nrows(), output.len()));
    for (row, target) in values.rows().into_iter().zip(result.rows_mut()) {
        let image = image(row, input);
        let mut target = target.into_shape_with_order((maps, height * width)).expect("a row is an image");
        if let Some(bias) = bias {
            Zip::from(target.rows_mut()).and(bias).for_each(|mut map, &b| map.fill(b));
        }
        let (weights, targets) =
            (weight.axis_chunks_iter(Axis(0), maps / groups), target.axis_chunks_iter_mut(Axis(0), maps / groups));
        for (group, (weight, mut target)) in weights.zip(targets).enumerate() {
            let part = image.slice_axis(Axis(0), Slice::from(group * seen..(group + 1) * seen));
            gather(part, [rows, columns], windows, width, &mut gathered.view_mut());
            product(weight, gathered.view(), &mut target);
        }
    }
    result
}

fn product(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, sum: &mut ArrayViewMut2<'_, f32>) {
    general_mat_mul(1.0, &a, &b, 1.0, sum);
}

/// Fills row (channel, i, j) of `gathered` with what tap (i, j) sees at every output position;
/// padding is zero.
fn gather(
    image: ArrayView3<'_, f32>,
    kernel: [usize; 2],
    windows: Windows,
    out_width: usize,
    gathered: &mut ArrayViewMut2<'_, f32>,
) {
    let (_, height, width) = image.dim();
    let Windows { stride, padding: Padding { before: [top, left], .. }, dilation } = windows;
    for (tap, mut seen) in gathered.rows_mut().into_iter().enumerate() {
        let (c, i, j) = (tap / (kernel[0] * kernel[1]), tap / kernel[1] % kernel[0], tap % kernel[1]);
        for (position, value) in seen.iter_mut().enumerate() {
            let y = (position / out_width * stride[0] + i * dilation[0]).wrapping_sub(top);
            let x = (position % out_width * stride[1] + j * dilation[1]).wrapping_sub(left);
            *value = if y < height && x < width { image[[c, y, x]] } else { 0.0 };
        }
    }
}

/// Sums over windows.
fn pool(values: &Values, Shapes { input, output }: Shapes, kernel: [usize; 2], stride: [usize; 2]) -> Values {
    let Shape::Image { height, width, .. } = output else { unreachable!("validated: maps come out") };
    let mut result = Array2::zeros((values.nrows(), output.len()));
    for (row, mut target) in values.rows().into_iter().zip(result.rows_mut()) {
        let image = image(row, input);
        for (index, sum) in target.iter_mut().enumerate() {
            let (c, y, x) = (index / (height * width), index / width % height * stride[0], index % width * stride[1]);
            for i in 0..kernel[0] {
                for j in 0..kernel[1] {
                    *sum += image[[c, y + i, x + j]];
                }
            }
        }
    }
    result
}
