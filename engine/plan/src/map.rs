//! Real-valued linear maps: what layers become before they are quantised.

use cryptodl_program::Geometry;

/// A linear layer, or several merged into one, with real weights and the calibration that came with it.
#[derive(Clone, Debug, PartialEq)]
pub struct RealMap {
    /// Names of the layers it stands for, joined by `+`.
    pub name: String,
    /// Shape.
    pub geometry: Geometry,
    /// `[channel][tap]`.
    pub weights: Vec<f64>,
    /// One per output channel.
    pub bias: Vec<f64>,
    /// Root mean square of the input values, where the model file states it.
    pub input_rms: Option<f64>,
    /// Smallest and largest output on the training images, where the model file states it.
    pub output_range: Option<[f64; 2]>,
    /// Multiply-adds per image of the layers themselves, before anything was merged.
    pub layer_multiply_adds: u64,
}

impl RealMap {
    /// Largest magnitude of a weight.
    pub fn max_weight(&self) -> f64 {
        self.weights.iter().fold(0.0, |max, w| max.max(w.abs()))
    }

    /// Multiplication of each channel by a factor, and an added constant. `input` is channels, rows, columns.
    pub fn diagonal(name: String, input: [usize; 3], factor: Vec<f64>, shift: Vec<f64>) -> Self {
        RealMap {
            name,
            geometry: Geometry::diagonal(input),
            weights: factor,
            bias: shift,
            input_rms: None,
            output_range: None,
            layer_multiply_adds: 0,
        }
    }

    /// The map after `x -> factor[channel] x`.
    pub fn after_factors(mut self, factor: &[f64]) -> Self {
        let (taps, group) = (self.geometry.taps(), self.geometry.group_channels());
        let per_channel = taps / group;
        let rows_per_group = self.geometry.channels / self.geometry.groups;
        for (row, weights) in self.weights.chunks_exact_mut(taps).enumerate() {
            let first = row / rows_per_group * group;
            for (weights, factor) in weights.chunks_exact_mut(per_channel).zip(&factor[first..]) {
                weights.iter_mut().for_each(|w| *w *= factor);
            }
        }
        self
    }

    /// The map followed by `y -> factor[channel] y + shift[channel]`.
    pub fn then_affine(mut self, factor: &[f64], shift: &[f64]) -> Self {
        let taps = self.geometry.taps();
        for (row, factor) in self.weights.chunks_exact_mut(taps).zip(factor) {
            row.iter_mut().for_each(|w| *w *= factor);
        }
        for (bias, (&factor, &shift)) in self.bias.iter_mut().zip(factor.iter().zip(shift)) {
            *bias = *bias * factor + shift;
        }
        self
    }

    /// Whether `self` and then `next` is one convolution: `next` must see the planes that `self` makes (not their flattened
    /// values), and must not pad, for its padding would stand for zeros of `self`'s output, bias included. Taps apart from each
    /// other would leave holes.
    pub fn merges_with(&self, next: &RealMap) -> bool {
        let dense = |map: &RealMap| map.geometry.dilation == [1, 1];
        !next.geometry.pads() && next.geometry.input == self.geometry.output() && dense(self) && dense(next)
    }

    /// Shape of `self` followed by `next`: kernels add up as `k + (k' - 1) s`, strides multiply.
    pub fn merged_geometry(&self, next: &RealMap) -> Geometry {
        let (a, b) = (&self.geometry, &next.geometry);
        let axis = |i: usize| a.kernel[i] + (b.kernel[i] - 1) * a.stride[i];
        let depthwise = |g: &Geometry| g.groups == g.channels && g.groups == g.input[0];
        Geometry {
            input: a.input,
            channels: b.channels,
            kernel: [axis(0), axis(1)],
            stride: [a.stride[0] * b.stride[0], a.stride[1] * b.stride[1]],
            padding: a.padding,
            padding_after: a.padding_after,
            dilation: [1, 1],
            groups: if depthwise(a) && depthwise(b) { b.channels } else { 1 },
        }
    }

    /// `self` followed by `next` as one map.
    ///
    /// # Panics
    /// Unless [`Self::merges_with`] `next`.
    pub fn merge(&self, next: &RealMap) -> RealMap {
        assert!(self.merges_with(next), "{} does not merge with {}", self.name, next.name);
        let geometry = self.merged_geometry(next);
        let (a, b) = (&self.geometry, &next.geometry);
        let [height, width] = geometry.kernel;
        let mut weights = vec![0.0; geometry.channels * geometry.taps()];
        let mut bias = next.bias.clone();
        let (a_rows, b_rows) = (a.channels / a.groups, b.channels / b.groups);
        // What lies side by side in both kernels: all taps where the kernel stays as it is, else a line of it.
        let line = if geometry.kernel == a.kernel { a.taps() } else { a.kernel[1] };
        for (o, bias) in bias.iter_mut().enumerate() {
            for tap in 0..b.taps() {
                let w = next.weights[o * b.taps() + tap];
                if w == 0.0 {
                    continue;
                }
                let (middle, at) = (tap / (b.kernel[0] * b.kernel[1]), tap % (b.kernel[0] * b.kernel[1]));
                let middle = middle + o / b_rows * b.group_channels();
                let (y, x) = (at / b.kernel[1] * a.stride[0], at % b.kernel[1] * a.stride[1]);
                *bias += w * self.bias[middle];
                let first_channel = middle / a_rows * a.group_channels();
                for (row, line) in self.weights[middle * a.taps()..][..a.taps()].chunks_exact(line).enumerate() {
                    let (channel, dy) = (first_channel + row / a.kernel[0], row % a.kernel[0]);
                    let channel = o * geometry.group_channels() + channel % geometry.group_channels();
                    let start = (channel * height + y + dy) * width + x;
                    weights[start..].iter_mut().zip(line).for_each(|(sum, v)| *sum += w * v);
                }
            }
        }
        RealMap {
            name: format!("{}+{}", self.name, next.name),
            geometry,
            weights,
            bias,
            input_rms: self.input_rms,
            output_range: next.output_range,
            layer_multiply_adds: self.layer_multiply_adds + next.layer_multiply_adds,
        }
    }
}
