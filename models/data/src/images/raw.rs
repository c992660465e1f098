//! Images in memory, and the values that a network sees.

use cryptodl_network::InputSpec;
use ndarray::Array4;

use super::error::ImageError;

/// Images as they were stored, one after the other in channel, row, column order.
#[derive(Debug, Clone, PartialEq)]
pub struct RawImages {
    /// All pixels; `count * shape[0] * shape[1] * shape[2]` of them.
    pub pixels: Pixels,
    /// Number of images; at least one.
    pub count: usize,
    /// Channels, height, width; none is zero.
    pub shape: [usize; 3],
}

/// Pixels of 8 bits, or values.
#[derive(Debug, Clone, PartialEq)]
pub enum Pixels {
    /// 0 is the lower and 255 the upper end of the network's input range.
    U8(Vec<u8>),
    /// Values in the network's input range.
    F32(Vec<f32>),
}

impl RawImages {
    /// The values that the network sees, N x channels x height x width, each in `input.range`.
    ///
    /// # Errors
    /// [`ImageError::Shape`] if the images have another shape than the input, [`ImageError::Value`] for the first
    /// value that is not a number or outside the range (by more than f32 rounding).
    ///
    /// # Panics
    /// If the number of pixels is not `count` times the shape; that of everything that is read from files is.
    pub fn to_values(&self, input: &InputSpec) -> Result<Array4<f32>, ImageError> {
        let mut values = room(self.count, self.shape)?;
        self.append_values(input, &mut values)?;
        Ok(stack(values, self.count, input))
    }

    /// The same after other `values`, which have room for them.
    pub(super) fn append_values(&self, input: &InputSpec, values: &mut Vec<f32>) -> Result<(), ImageError> {
        if self.shape != input.shape {
            return Err(ImageError::Shape { expected: input.shape, actual: self.shape });
        }
        let [low, high] = input.range;
        match &self.pixels {
            Pixels::U8(pixels) => {
                let table: Vec<f32> = (0..=255).map(|p| (low + f64::from(p) / 255.0 * (high - low)) as f32).collect();
                values.extend(pixels.iter().map(|&pixel| table[usize::from(pixel)]));
            }
            Pixels::F32(pixels) => {
                let slack = (high - low) * 1e-6;
                let inside = |value: f32| (low - slack..=high + slack).contains(&f64::from(value));
                if let Some(index) = pixels.iter().position(|&value| !inside(value)) {
                    let [_, height, width] = self.shape;
                    let len = self.shape.iter().product::<usize>();
                    let place = [index % len / (height * width), index / width % height, index % width];
                    return Err(ImageError::Value {
                        image: index / len,
                        place,
                        value: pixels[index],
                        range: input.range,
                    });
                }
                values.extend_from_slice(pixels);
            }
        }
        Ok(())
    }
}

/// An empty vector with room for the values of `count` images.
pub(super) fn room(count: usize, shape: [usize; 3]) -> Result<Vec<f32>, ImageError> {
    let mut values = Vec::new();
    let len = shape.iter().try_fold(count, |len, &size| len.checked_mul(size));
    match len.map(|len| values.try_reserve_exact(len)) {
        Some(Ok(())) => Ok(values),
        _ => Err(ImageError::Memory { count }),
    }
}

pub(super) fn stack(values: Vec<f32>, count: usize, input: &InputSpec) -> Array4<f32> {
    let [channels, height, width] = input.shape;
    Array4::from_shape_vec((count, channels, height, width), values).expect("the number of pixels is count times shape")
}
