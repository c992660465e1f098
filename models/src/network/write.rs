//! A description as text, from a network.

use std::fmt::Write;

use super::{Histogram, LayerOp, Network};

impl Network {
    /// The description of this network with all that is known of it. Read again with the same weights, it gives the same network.
    ///
    /// `comment` is the first line, `calibration` the plain name of the calibration file beside it.
    pub fn description(&self, comment: &str, calibration: Option<&str>) -> String {
        let mut text = format!("# {comment}\nformat = 1\n");
        text.push_str(&format!("name = {}\ntitle = {}\n", quoted(&self.name), quoted(&self.title)));
        if let Some(dataset) = self.dataset {
            put(&mut text, "dataset", quoted(&dataset.to_string()));
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
        for layer in &self.layers {
            text.push_str("\n[[layer]]\n");
            put(&mut text, "name", quoted(&layer.name));
            put(&mut text, "kind", quoted(layer.op.kind()));
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
        LayerOp::Conv2d { weight, stride, padding, .. } => {
            let (channels, _, rows, columns) = weight.dim();
            put(text, "out_channels", channels.to_string());
            put(text, "kernel", format!("{:?}", [rows, columns]));
            put(text, "stride", format!("{stride:?}"));
            put(text, "padding", format!("{padding:?}"));
        }
        LayerOp::AvgPool2d { kernel, stride } | LayerOp::SumPool2d { kernel, stride } => {
            put(text, "kernel", format!("{kernel:?}"));
            put(text, "stride", format!("{stride:?}"));
        }
        LayerOp::BatchNorm { eps, .. } => put(text, "eps", number(*eps)),
        LayerOp::Polynomial { coefficients, inputs } => {
            put(text, "coefficients", numbers(coefficients));
            if let Some(inputs) = inputs {
                put(text, "range", numbers(&inputs.range));
            }
        }
        LayerOp::Dense { weight, .. } => put(text, "out_features", weight.nrows().to_string()),
        LayerOp::Flatten | LayerOp::Identity | LayerOp::Dropout => {}
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

/// Names and titles hold no control characters, so only quotes and backslashes need care.
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
