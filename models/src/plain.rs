//! Inference in the clear, in f32: what every encrypted run is compared with.

use ndarray::{
    Array1, Array2, Array4, ArrayView1, ArrayView2, ArrayView3, ArrayView4, ArrayViewMut2, Axis, Zip,
    linalg::general_mat_mul,
};
use rayon::prelude::*;

use crate::network::{Layer, LayerOp, Network, Shape};

/// Images that one task carries through the network together.
const CHUNK: usize = 32;

/// The logits, one row per image, of images in the value range of the network's input.
///
/// `images` is N x channels x height x width; chunks of it run in parallel on the current rayon pool.
///
/// # Panics
/// If an image has another shape than the network's input ([`crate::images::RawImages::to_values`] checks that).
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
    let count = images.len_of(Axis(0));
    let start = images.to_shape((count, images.len() / count)).expect("an image is a row").into_owned();
    net.layers.iter().fold(start, apply)
}

/// Shows `visitor` the values of some images at the input and then after every layer, `[image][value]`; the last are the scores.
pub fn visit(net: &Network, images: ArrayView4<'_, f32>, visitor: &mut dyn FnMut(&Array2<f32>)) {
    let count = images.len_of(Axis(0));
    let mut values = images.to_shape((count, images.len() / count)).expect("an image is a row").into_owned();
    visitor(&values);
    for layer in &net.layers {
        values = apply(values, layer);
        visitor(&values);
    }
}

fn apply(mut values: Values, layer: &Layer) -> Values {
    match &layer.op {
        LayerOp::Conv2d { weight, bias, stride, padding } => {
            convolve(&values, layer.input_shape, layer.output_shape, weight, bias.as_ref(), *stride, *padding)
        }
        LayerOp::AvgPool2d { kernel, stride } => {
            let mut sums = pool(&values, layer.input_shape, layer.output_shape, *kernel, *stride);
            sums *= 1.0 / (kernel[0] * kernel[1]) as f32;
            sums
        }
        LayerOp::SumPool2d { kernel, stride } => pool(&values, layer.input_shape, layer.output_shape, *kernel, *stride),
        LayerOp::BatchNorm { gamma, beta, mean, var, eps } => {
            let per_channel = layer.input_shape.len() / gamma.len();
            for mut row in values.rows_mut() {
                for (c, mut channel) in row.axis_chunks_iter_mut(Axis(0), per_channel).enumerate() {
                    let scale = gamma[c] / (var[c] + *eps as f32).sqrt();
                    channel.mapv_inplace(|x| (x - mean[c]) * scale + beta[c]);
                }
            }
            values
        }
        LayerOp::Polynomial { coefficients, .. } => {
            values.mapv_inplace(|x| coefficients.iter().rev().fold(0.0, |y, &c| y * x + c as f32));
            values
        }
        LayerOp::Flatten | LayerOp::Identity | LayerOp::Dropout => values,
        LayerOp::Dense { weight, bias } => {
            let mut output = values.dot(&weight.t());
            if let Some(bias) = bias {
                output += bias;
            }
            output
        }
    }
}

fn image(values: ArrayView1<'_, f32>, shape: Shape) -> ArrayView3<'_, f32> {
    let Shape::Image { channels, height, width } = shape else { unreachable!("validated: this layer has an image") };
    values.into_shape_with_order((channels, height, width)).expect("a row is an image in standard order")
}

/// Image by image: windows become the columns of a matrix, which the weights multiply from the left.
fn convolve(
    values: &Values,
    input: Shape,
    output: Shape,
    weight: &Array4<f32>,
    bias: Option<&Array1<f32>>,
    stride: [usize; 2],
    padding: [usize; 2],
) -> Values {
    let Shape::Image { channels: maps, height, width } = output else { unreachable!("validated: maps come out") };
    let (_, in_channels, rows, columns) = weight.dim();
    let taps = in_channels * rows * columns;
    let weight = weight.to_shape((maps, taps)).expect("weights are in standard order");
    let mut windows = Array2::zeros((taps, height * width));
    let mut result = Array2::zeros((values.nrows(), output.len()));
    for (row, target) in values.rows().into_iter().zip(result.rows_mut()) {
        gather(image(row, input), [rows, columns], stride, padding, width, &mut windows.view_mut());
        let mut target = target.into_shape_with_order((maps, height * width)).expect("a row is an image");
        if let Some(bias) = bias {
            Zip::from(target.rows_mut()).and(bias).for_each(|mut map, &b| map.fill(b));
        }
        product(weight.view(), windows.view(), &mut target);
    }
    result
}

fn product(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, sum: &mut ArrayViewMut2<'_, f32>) {
    general_mat_mul(1.0, &a, &b, 1.0, sum);
}

/// Fills row (channel, i, j) of `windows` with what tap (i, j) sees at every output position; padding is zero.
fn gather(
    image: ArrayView3<'_, f32>,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    out_width: usize,
    windows: &mut ArrayViewMut2<'_, f32>,
) {
    let (_, height, width) = image.dim();
    for (tap, mut seen) in windows.rows_mut().into_iter().enumerate() {
        let (c, i, j) = (tap / (kernel[0] * kernel[1]), tap / kernel[1] % kernel[0], tap % kernel[1]);
        for (position, value) in seen.iter_mut().enumerate() {
            let y = (position / out_width * stride[0] + i).wrapping_sub(padding[0]);
            let x = (position % out_width * stride[1] + j).wrapping_sub(padding[1]);
            *value = if y < height && x < width { image[[c, y, x]] } else { 0.0 };
        }
    }
}

/// Sums over windows.
fn pool(values: &Values, input: Shape, output: Shape, kernel: [usize; 2], stride: [usize; 2]) -> Values {
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
