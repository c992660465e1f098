//! A checked network.

use std::ops::Deref;

use crate::calibration::Calibration;
use crate::layer::{INPUT, Layer, Shape, Source};
use crate::spec::NetworkSpec;

/// A trained network that was checked completely, by the same rules whatever it was made of.
///
/// It reads like the [`NetworkSpec`] that was checked (through `Deref`), and nothing can change
/// that: whoever holds a network holds one whose layers fit each other and are all used, whose
/// weights have the right shapes and are finite, whose ranges are not empty, and whose sizes are
/// within [`limits`](crate::limits). To change a network, change a copy of its specification and
/// make a new one.
#[derive(Debug, Clone)]
pub struct Network {
    spec: NetworkSpec,
    /// Shapes of the outputs of the layers.
    shapes: Vec<Shape>,
    fingerprint: [u8; 32],
    digest: [u8; 32],
    /// Calibration of single images.
    pub calibration: Option<Calibration>,
}

impl Deref for Network {
    type Target = NetworkSpec;

    fn deref(&self) -> &NetworkSpec {
        &self.spec
    }
}

impl Network {
    /// Of parts that were checked.
    pub(crate) fn checked(spec: NetworkSpec, shapes: Vec<Shape>, fingerprint: [u8; 32]) -> Self {
        Self { spec, shapes, fingerprint, digest: [0; 32], calibration: None }
    }

    pub(crate) fn with_digest(self, digest: [u8; 32]) -> Self {
        Self { digest, ..self }
    }

    /// For those who fill in what was measured.
    pub(crate) fn spec_mut(&mut self) -> &mut NetworkSpec {
        &mut self.spec
    }

    /// BLAKE3 over the weight file and all that the layers compute: what a [`Calibration`] belongs
    /// to.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// BLAKE3 over the description, the weights and the calibration file if there is one, each
    /// preceded by its length as a little-endian u64.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Number of logits; at least two.
    pub fn classes(&self) -> usize {
        self.shapes.last().map_or(0, Shape::len)
    }

    /// Shape of the values that come from `source`.
    pub fn shape(&self, source: Source) -> Shape {
        match source {
            Source::Input => Shape::of_image(self.input.shape),
            Source::Layer(index) => self.shapes[index],
        }
    }

    /// Shape of the first operand of a layer of this network.
    pub fn input_shape(&self, layer: &Layer) -> Shape {
        self.shape(layer.inputs[0])
    }

    /// Every layer with the shape of its output.
    pub fn outputs(&self) -> impl Iterator<Item = (&Layer, Shape)> {
        self.layers.iter().zip(self.shapes.iter().copied())
    }

    /// Name of `source` as in a description: a layer's, or `input` for the image.
    pub fn source_name(&self, source: Source) -> &str {
        match source {
            Source::Input => INPUT,
            Source::Layer(index) => &self.layers[index].name,
        }
    }

    /// For each layer, those of its operands that no later layer reads, each once.
    pub fn released(&self) -> Vec<Vec<Source>> {
        released(&self.layers)
    }

    /// Multiply-adds per image of all layers as described, before any folding.
    pub fn multiply_adds(&self) -> u64 {
        self.outputs().map(|(layer, output)| layer.op.multiply_adds(output.len())).sum()
    }
}

/// For each layer, the operands that no later layer reads, each once.
pub(crate) fn released(layers: &[Layer]) -> Vec<Vec<Source>> {
    let mut released = vec![Vec::new(); layers.len()];
    let mut read = vec![false; layers.len() + 1];
    for (index, layer) in layers.iter().enumerate().rev() {
        for &source in &layer.inputs {
            if !std::mem::replace(&mut read[source.value()], true) {
                released[index].push(source);
            }
        }
    }
    released
}
