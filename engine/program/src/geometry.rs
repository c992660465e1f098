//! Where the taps of a convolution lie; dense layers and pooling are convolutions too.

use cryptodl_core::backend::PADDING;

/// Shape of a linear map between stacks of feature maps, as a cross-correlation with zero padding. A dense layer has a kernel as
/// large as its input; pooling has as many groups as channels. Values are in channel, row, column order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Channels, rows, columns of the input.
    pub input: [usize; 3],
    /// Output channels.
    pub channels: usize,
    /// Rows, columns of the kernel.
    pub kernel: [usize; 2],
    /// Rows, columns between positions.
    pub stride: [usize; 2],
    /// Zero rows above, columns to the left.
    pub padding: [usize; 2],
    /// Zero rows below, columns to the right.
    pub padding_after: [usize; 2],
    /// Rows, columns between taps.
    pub dilation: [usize; 2],
    /// Groups of channels that do not mix.
    pub groups: usize,
}

impl Geometry {
    /// A map of each channel by itself, position by position.
    pub fn diagonal(input: [usize; 3]) -> Self {
        Geometry { groups: input[0], ..Geometry::pointwise(input, input[0]) }
    }

    /// A map of all channels, position by position.
    pub fn pointwise(input: [usize; 3], channels: usize) -> Self {
        let once = [1, 1];
        let none = [0, 0];
        Geometry {
            input,
            channels,
            kernel: once,
            stride: once,
            padding: none,
            padding_after: none,
            dilation: once,
            groups: 1,
        }
    }

    /// Whether every output is an input times a factor.
    pub fn is_diagonal(&self) -> bool {
        *self == Geometry::diagonal(self.input)
    }

    /// Whether it sees zeros outside its input.
    pub fn pads(&self) -> bool {
        self.padding != [0, 0] || self.padding_after != [0, 0]
    }

    /// Rows or columns that the taps of one position span.
    pub fn extent(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilation[axis] + 1
    }

    /// Channels, rows, columns of the output.
    pub fn output(&self) -> [usize; 3] {
        let padded = |axis: usize| self.input[axis + 1] + self.padding[axis] + self.padding_after[axis];
        let along = |axis: usize| (padded(axis) - self.extent(axis)) / self.stride[axis] + 1;
        [self.channels, along(0), along(1)]
    }

    /// Number of input values.
    pub fn inputs(&self) -> usize {
        self.input.iter().product()
    }

    /// Number of output values.
    pub fn outputs(&self) -> usize {
        self.output().iter().product()
    }

    /// Output positions per channel.
    pub fn positions(&self) -> usize {
        self.outputs() / self.channels
    }

    /// Input channels that one output channel sees.
    pub fn group_channels(&self) -> usize {
        self.input[0] / self.groups
    }

    /// Products per output value.
    pub fn taps(&self) -> usize {
        self.group_channels() * self.kernel[0] * self.kernel[1]
    }

    /// Weights of all output channels.
    pub fn weights(&self) -> u64 {
        self.channels as u64 * self.taps() as u64
    }

    /// Input values that all positions of all groups take, counted as often as they are taken.
    pub fn gathered(&self) -> usize {
        self.groups * self.taps() * self.positions()
    }

    /// Multiply-adds per image.
    pub fn multiply_adds(&self) -> u64 {
        self.outputs() as u64 * self.taps() as u64
    }

    /// Distance between the input values of neighbouring groups.
    pub fn group_stride(&self) -> usize {
        self.group_channels() * self.input[1] * self.input[2]
    }

    /// Input index of every tap of group 0 at every position, `[position][tap]`, taps in channel, row, column order;
    /// [`PADDING`] outside the image.
    pub fn gather(&self) -> Vec<u32> {
        let [_, height, width] = self.input;
        let [_, rows, columns] = self.output();
        let mut indices = Vec::with_capacity(self.positions() * self.taps());
        let inside = |at: usize, limit: usize, padding: usize| at.checked_sub(padding).filter(|&at| at < limit);
        for (y, x) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))) {
            for channel in 0..self.group_channels() {
                for (dy, dx) in (0..self.kernel[0]).flat_map(|dy| (0..self.kernel[1]).map(move |dx| (dy, dx))) {
                    let row = inside(y * self.stride[0] + dy * self.dilation[0], height, self.padding[0]);
                    let column = inside(x * self.stride[1] + dx * self.dilation[1], width, self.padding[1]);
                    let index = row.zip(column).map(|(row, column)| (channel * height + row) * width + column);
                    indices.push(index.map_or(PADDING, |index| index as u32));
                }
            }
        }
        indices
    }

    /// Applies the transpose of real weights `[channel][tap]` to `y`, `[output value][batch]`: what
    /// derivatives by the outputs say of derivatives by the inputs. The result is
    /// `[input value][batch]`.
    pub fn apply_transposed(&self, weights: &[f64], y: &[f64], batch: usize) -> Vec<f64> {
        assert_eq!(y.len(), self.outputs() * batch, "output values");
        let (taps, positions) = (self.taps(), self.positions());
        let gather = self.gather();
        let mut x = vec![0.0; self.inputs() * batch];
        for (row, y) in y.chunks_exact(positions * batch).enumerate() {
            let shift = row / (self.channels / self.groups) * self.group_stride();
            let weights = &weights[row * taps..][..taps];
            for (gather, y) in gather.chunks_exact(taps).zip(y.chunks_exact(batch)) {
                for (&w, &index) in weights.iter().zip(gather) {
                    if index != PADDING && w != 0.0 {
                        let x = &mut x[(index as usize + shift) * batch..][..batch];
                        x.iter_mut().zip(y).for_each(|(sum, y)| *sum += w * y);
                    }
                }
            }
        }
        x
    }

    /// Applies real weights `[channel][tap]` and an optional constant per channel to `x`,
    /// `[value][batch]`. The result is `[value][batch]`. Sums run in tap order, so every machine
    /// returns the same bits.
    pub fn apply(&self, weights: &[f64], constants: Option<&[f64]>, x: &[f64], batch: usize) -> Vec<f64> {
        assert_eq!(x.len(), self.inputs() * batch, "input values");
        let (taps, positions) = (self.taps(), self.positions());
        let gather = self.gather();
        let mut out = vec![0.0; self.outputs() * batch];
        for (row, out) in out.chunks_exact_mut(positions * batch).enumerate() {
            let shift = row / (self.channels / self.groups) * self.group_stride();
            let weights = &weights[row * taps..][..taps];
            for (gather, out) in gather.chunks_exact(taps).zip(out.chunks_exact_mut(batch)) {
                out.fill(constants.map_or(0.0, |constants| constants[row]));
                for (&w, &index) in weights.iter().zip(gather) {
                    if index != PADDING && w != 0.0 {
                        let x = &x[(index as usize + shift) * batch..][..batch];
                        out.iter_mut().zip(x).for_each(|(sum, x)| *sum += w * x);
                    }
                }
            }
        }
        out
    }
}
