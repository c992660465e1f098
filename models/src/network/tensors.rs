//! Checked access to the tensors of a safetensors file.

use std::collections::BTreeSet;

use ndarray::{Array, Array1, Array2, Array4, Dimension};
use safetensors::{Dtype, SafeTensors};

use super::error::Problem;
use crate::text;

/// Largest header of a safetensors file that is read, in bytes: it has room for several thousand tensors. What a header says
/// takes twenty times its size to hold.
pub const MAX_HEADER_BYTES: u64 = 1 << 20;

/// The tensors of a safetensors file.
///
/// # Errors
/// A file that is not one, or whose header is too large.
pub(super) fn open(bytes: &[u8]) -> Result<SafeTensors<'_>, String> {
    match bytes.first_chunk().map(|&len| u64::from_le_bytes(len)) {
        Some(len) if len > MAX_HEADER_BYTES => {
            Err(format!("its header has {len} bytes; at most {MAX_HEADER_BYTES} are read"))
        }
        _ => SafeTensors::deserialize(bytes).map_err(|error| text::message(&error)),
    }
}

/// The weight file; remembers which tensors were taken.
pub(super) struct Tensors<'a> {
    file: SafeTensors<'a>,
    unused: BTreeSet<String>,
}

impl<'a> Tensors<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        let file = open(bytes).map_err(|message| Problem::Weights { message })?;
        let unused = file.names().into_iter().map(String::from).collect();
        Ok(Self { file, unused })
    }

    pub(super) fn vector(&mut self, name: String, len: usize) -> Result<Array1<f32>, Problem> {
        self.array(name, [len])
    }

    pub(super) fn optional_vector(&mut self, name: String, len: usize) -> Result<Option<Array1<f32>>, Problem> {
        if self.unused.contains(&name) { self.vector(name, len).map(Some) } else { Ok(None) }
    }

    pub(super) fn matrix(&mut self, name: String, shape: [usize; 2]) -> Result<Array2<f32>, Problem> {
        self.array(name, shape)
    }

    pub(super) fn kernels(&mut self, name: String, shape: [usize; 4]) -> Result<Array4<f32>, Problem> {
        self.array(name, shape)
    }

    /// The tensor `name` as finite f32 values of exactly this shape; nothing is allocated before the shape is checked.
    fn array<D: Dimension, const K: usize>(&mut self, name: String, shape: [usize; K]) -> Result<Array<f32, D>, Problem>
    where
        [usize; K]: ndarray::IntoDimension<Dim = D>,
    {
        let Ok(view) = self.file.tensor(&name) else {
            let mut held = self.file.names();
            held.sort_unstable();
            let held = text::names(held.into_iter());
            return Err(Problem::MissingTensor { tensor: name, expected: shape.to_vec(), held });
        };
        if view.dtype() != Dtype::F32 {
            return Err(Problem::TensorType { tensor: name, actual: format!("{:?}", view.dtype()) });
        }
        if view.shape() != shape {
            return Err(Problem::TensorShape { tensor: name, expected: shape.to_vec(), actual: view.shape().to_vec() });
        }
        let values: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(Problem::TensorValue { tensor: name, index, value: values[index], expected: "finite numbers" });
        }
        self.unused.remove(&name);
        Ok(Array::from_shape_vec(shape, values).expect("the file's shape was compared with the wanted one"))
    }

    /// Refuses tensors that no layer took.
    pub(super) fn finish(self) -> Result<(), Problem> {
        if self.unused.is_empty() {
            return Ok(());
        }
        Err(Problem::UnusedTensors { names: text::names(self.unused.iter().map(String::as_str)) })
    }
}
