//! A network as files: its description as text, its weights as safetensors.

use std::fmt::Write;

use crate::histogram::Histogram;
use crate::layer::{JOINS, LayerOp, Padding, Source};
use crate::network::Network;
use crate::tensors::weight_file;

impl Network {
    /// The weight file of this network. Read with [`Network::description`], it gives the same
    /// network.
    pub fn weight_file(&self) -> Vec<u8> {
        weight_file(&self.layers)
    }

    /// The description of this network with all that is known of it, but for what is in a
    /// calibration file ([`Calibration::to_bytes`](crate::Calibration::to_bytes)). Read again with
    /// the same weights and calibration, it gives the same network.
    ///
    /// `comment` is the first line, `calibration` the plain name of the calibration file beside it.
    pub fn description(&self, comment: &str, calibration: Option<&str>) -> String {
        let mut text = format!("# {comment}\nformat = 1\n");
        text.push_str(&format!("name = {}\ntitle = {}\n", quoted(&self.name), quoted(&self.title)));
        if let Some(dataset) = self.dataset {
            put(&mut text, "dataset", quoted(&dataset.to_string()));
        }
        if !self.class_names.is_empty() {
            let lines: String = self.class_names.iter().map(|name| format!("  {},\n", quoted(name))).collect();
            put(&mut text, "class_names", format!("[\n{lines}]"));
        }
        put(&mut text, "weights", quoted(&self.weights));
        if let Some(calibration) = calibration {
            put(&mut text, "calibration", quoted(calibration));
        }
        if let Some(tolerance) = self.tolerance {
            put(&mut text, "tolerance", number(tolerance));
        }
        text.push_str("\n[input]\n");
        put(&mut text, "shape", format!("{:?}", self.input.shape));
        put(&mut text, "range", numbers(&self.input.range));
        if let Some(accuracy) = self.accuracy {
            text.push_str("\n[accuracy]\n");
            put(&mut text, "correct", accuracy.correct.to_string());
            put(&mut text, "images", accuracy.images.to_string());
        }
        for (index, layer) in self.layers.iter().enumerate() {
            text.push_str("\n[[layer]]\n");
            put(&mut text, "name", quoted(&layer.name));
            put(&mut text, "kind", quoted(layer.op.kind()));
            if JOINS.contains(&layer.op.kind()) || layer.inputs != [Source::before(index)] {
                let operands: Vec<String> =
                    layer.inputs.iter().map(|&source| quoted(self.source_name(source))).collect();
                put(&mut text, "inputs", format!("[{}]", operands.join(", ")));
            }
            fields(&mut text, &layer.op);
            if let Some(rms) = layer.input_rms {
                put(&mut text, "input_rms", number(rms));
            }
            if let Some(range) = layer.output_range {
                put(&mut text, "output_range", numbers(&range));
            }
            if let LayerOp::Polynomial { inputs: Some(inputs), .. } = &layer.op {
                text.push_str("\n[layer.histogram]\n");
                histogram(&mut text, &inputs.histogram);
            }
        }
        if let Some(output) = &self.output {
            text.push_str("\n[output]\n");
            put(&mut text, "range", numbers(&output.range));
            text.push_str("\n[output.margins]\n");
            histogram(&mut text, &output.margins);
        }
        text
    }
}

fn fields(text: &mut String, op: &LayerOp) {
    match op {
        LayerOp::Conv2d { weight, stride, padding, dilation, groups, .. } => {
            let (channels, _, rows, columns) = weight.dim();
            put(text, "out_channels", channels.to_string());
            put(text, "kernel", format!("{:?}", [rows, columns]));
            put(text, "stride", format!("{stride:?}"));
            let Padding { before, after } = *padding;
            match padding.is_even() {
                true => put(text, "padding", format!("{before:?}")),
                false => put(text, "padding", format!("{:?}", [before, after].concat())),
            }
            if *dilation != [1; 2] {
                put(text, "dilation", format!("{dilation:?}"));
            }
            if *groups != 1 {
                put(text, "groups", groups.to_string());
            }
        }
        LayerOp::AvgPool2d { kernel, stride } | LayerOp::SumPool2d { kernel, stride } => {
            put(text, "kernel", format!("{kernel:?}"));
            put(text, "stride", format!("{stride:?}"));
        }
        LayerOp::BatchNorm { eps, .. } => put(text, "eps", number(*eps)),
        LayerOp::Polynomial { coefficients, inputs } => {
            // Coefficients per channel are in the weight file.
            if let [row] = &coefficients[..] {
                put(text, "coefficients", numbers(row));
            }
            if let Some(inputs) = inputs {
                put(text, "range", numbers(&inputs.range));
            }
        }
        LayerOp::Dense { weight, .. } => put(text, "out_features", weight.nrows().to_string()),
        LayerOp::GlobalAvgPool2d
        | LayerOp::Add
        | LayerOp::Concat
        | LayerOp::Flatten
        | LayerOp::Identity
        | LayerOp::Dropout => {}
    }
}

fn put(text: &mut String, field: &str, value: String) {
    let _ = writeln!(text, "{field} = {value}");
}

/// The shortest decimal that reads back as the same number; TOML wants a point or an exponent.
fn number(value: f64) -> String {
    format!("{value:?}")
}

fn numbers(values: &[f64]) -> String {
    format!("{values:?}")
}

/// Names, titles and names of classes hold no control characters, so only quotes and backslashes need care.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn histogram(text: &mut String, histogram: &Histogram) {
    put(text, "low", number(histogram.low));
    put(text, "high", number(histogram.high));
    text.push_str("counts = [\n");
    for row in histogram.counts.chunks(16) {
        let row: Vec<String> = row.iter().map(u64::to_string).collect();
        let _ = writeln!(text, "  {},", row.join(", "));
    }
    text.push_str("]\n");
}
