//! Networks in f64, by loops that follow the definitions.

use cryptodl_network::{Layer, LayerOp, Network, Shape, plain};
use ndarray::{Array2, Array4, Axis};

/// The image, then the output of every layer.
pub fn values(net: &Network, image: Vec<f64>) -> Vec<Vec<f64>> {
    let mut values = vec![image];
    for (layer, output) in net.outputs() {
        let operands: Vec<&[f64]> = layer.inputs.iter().map(|source| values[source.value()].as_slice()).collect();
        values.push(layer_output(layer, net.input_shape(layer), output, &operands));
    }
    values
}

/// One image through one layer, whose first operand and output have these shapes.
fn layer_output(layer: &Layer, input: Shape, output: Shape, operands: &[&[f64]]) -> Vec<f64> {
    let x = operands[0];
    match &layer.op {
        LayerOp::Add => (0..x.len()).map(|i| operands.iter().map(|operand| operand[i]).sum()).collect(),
        LayerOp::Concat => operands.concat(),
        LayerOp::Flatten | LayerOp::Identity | LayerOp::Dropout => x.to_vec(),
        LayerOp::Polynomial { coefficients, .. } => {
            let value = |i: usize| {
                let channel = i / (x.len() / input.channels());
                power_sum(if coefficients.len() == 1 { &coefficients[0] } else { &coefficients[channel] }, x[i])
            };
            (0..x.len()).map(value).collect()
        }
        LayerOp::BatchNorm { gamma, beta, mean, var, eps } => {
            let value = |i: usize| {
                let channel = i / (x.len() / input.channels());
                let [gamma, beta, mean, var] = [gamma, beta, mean, var].map(|vector| f64::from(vector[channel]));
                (x[i] - mean) / (var + eps).sqrt() * gamma + beta
            };
            (0..x.len()).map(value).collect()
        }
        LayerOp::Dense { weight, bias } => {
            let bias = |o| bias.as_ref().map_or(0.0, |bias| f64::from(bias[o]));
            let row = |o| weight.row(o).iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>();
            (0..weight.nrows()).map(|o| row(o) + bias(o)).collect()
        }
        _ => windows(layer, input, output, x),
    }
}

fn power_sum(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().enumerate().map(|(k, c)| c * x.powi(k as i32)).sum()
}

/// A layer of windows on an image.
fn windows(layer: &Layer, input: Shape, output: Shape, x: &[f64]) -> Vec<f64> {
    let Shape::Image { channels, height, width } = input else { panic!("{} has a vector", layer.name) };
    let Shape::Image { channels: outputs, height: rows, width: columns } = output else {
        panic!("{} makes a vector", layer.name)
    };
    let at = |c: usize, y: isize, z: isize| {
        let inside = (0..height as isize).contains(&y) && (0..width as isize).contains(&z);
        if inside { x[(c * height + y as usize) * width + z as usize] } else { 0.0 }
    };
    let pool = |o: usize, y: usize, z: usize, kernel: &[usize; 2], stride: &[usize; 2]| {
        let mut sum = 0.0;
        for i in 0..kernel[0] {
            for j in 0..kernel[1] {
                sum += at(o, (y * stride[0] + i) as isize, (z * stride[1] + j) as isize);
            }
        }
        sum
    };
    let value = |o: usize, y: usize, z: usize| match &layer.op {
        LayerOp::Conv2d { weight, bias, stride, padding, dilation, groups } => {
            let (_, seen, kernel_rows, kernel_columns) = weight.dim();
            let group = o / (outputs / groups);
            assert_eq!(seen, channels / groups);
            let mut sum = bias.as_ref().map_or(0.0, |bias| f64::from(bias[o]));
            for c in 0..seen {
                for i in 0..kernel_rows {
                    for j in 0..kernel_columns {
                        let row = (y * stride[0] + i * dilation[0]) as isize - padding.before[0] as isize;
                        let column = (z * stride[1] + j * dilation[1]) as isize - padding.before[1] as isize;
                        sum += f64::from(weight[[o, c, i, j]]) * at(group * seen + c, row, column);
                    }
                }
            }
            sum
        }
        LayerOp::AvgPool2d { kernel, stride } => pool(o, y, z, kernel, stride) / (kernel[0] * kernel[1]) as f64,
        LayerOp::SumPool2d { kernel, stride } => pool(o, y, z, kernel, stride),
        LayerOp::GlobalAvgPool2d => {
            x[o * height * width..][..height * width].iter().sum::<f64>() / (height * width) as f64
        }
        other => panic!("a {} layer has no windows", other.kind()),
    };
    let positions = (0..outputs).flat_map(|o| (0..rows).flat_map(move |y| (0..columns).map(move |z| (o, y, z))));
    positions.map(|(o, y, z)| value(o, y, z)).collect()
}

/// Every layer's values against the definition, from the values that the layer read.
pub fn assert_layers_agree(net: &Network, images: &Array4<f32>) {
    let mut seen: Vec<Array2<f32>> = Vec::new();
    plain::visit(net, images.view(), &mut |values| seen.push(values.clone()));
    assert_eq!(seen.len(), net.layers.len() + 1);
    assert_eq!(seen[0].iter().collect::<Vec<_>>(), images.iter().collect::<Vec<_>>());
    assert_eq!(seen.last().unwrap(), &plain::logits(net, images.view()));
    for ((layer, shape), output) in net.outputs().zip(&seen[1..]) {
        for image in 0..images.len_of(Axis(0)) {
            let operands: Vec<Vec<f64>> = layer
                .inputs
                .iter()
                .map(|source| seen[source.value()].row(image).iter().map(|&v| v.into()).collect())
                .collect();
            let largest = operands.iter().flatten().fold(1.0f64, |largest, v| largest.max(v.abs()));
            let degree = match &layer.op {
                LayerOp::Polynomial { coefficients, .. } => coefficients[0].len() as i32 - 1,
                _ => 1,
            };
            let expected = layer_output(
                layer,
                net.input_shape(layer),
                shape,
                &operands.iter().map(Vec::as_slice).collect::<Vec<_>>(),
            );
            assert_eq!(expected.len(), output.ncols());
            for (&found, expected) in output.row(image).iter().zip(expected) {
                let error = (f64::from(found) - expected).abs();
                assert!(error <= 1e-5 * largest.powi(degree), "{}: {found} is not {expected}", layer.name);
            }
        }
    }
}
