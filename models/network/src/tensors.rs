//! Tensors of a safetensors file: read by name and shape, and written.

use std::collections::BTreeSet;

use ndarray::{Array, Array1, Array2, Array4, ArrayBase, Data, Dimension};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::error::Problem;
use crate::layer::{Layer, LayerOp};
use crate::limits::{MAX_COEFFICIENTS, MAX_HEADER_BYTES};
use crate::text;

/// The tensors of a safetensors file.
///
/// # Errors
/// A file that is not one, or whose header is too large.
pub(crate) fn open(bytes: &[u8]) -> Result<SafeTensors<'_>, String> {
    match bytes.first_chunk().map(|&len| u64::from_le_bytes(len)) {
        Some(len) if len > MAX_HEADER_BYTES => {
            Err(format!("its header has {len} bytes; at most {MAX_HEADER_BYTES} are read"))
        }
        _ => SafeTensors::deserialize(bytes).map_err(|error| text::message(&error)),
    }
}

/// The weight file; remembers which tensors were taken.
pub(crate) struct Tensors<'a> {
    file: SafeTensors<'a>,
    unused: BTreeSet<String>,
}

impl<'a> Tensors<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        let file = open(bytes).map_err(|message| Problem::Weights { message })?;
        let unused = file.names().into_iter().map(String::from).collect();
        Ok(Self { file, unused })
    }

    pub(crate) fn vector(&mut self, name: String, len: usize) -> Result<Array1<f32>, Problem> {
        self.array(name, [len])
    }

    pub(crate) fn optional_vector(&mut self, name: String, len: usize) -> Result<Option<Array1<f32>>, Problem> {
        if self.holds(&name) { self.vector(name, len).map(Some) } else { Ok(None) }
    }

    pub(crate) fn holds(&self, name: &str) -> bool {
        self.unused.contains(name)
    }

    /// Coefficients of so many channels, a row for each.
    pub(crate) fn coefficients(&mut self, tensor: String, channels: usize) -> Result<Array2<f32>, Problem> {
        let actual = self.file.tensor(&tensor).map(|view| view.shape().to_vec()).unwrap_or_default();
        match actual[..] {
            [rows, columns] if rows == channels && (2..=MAX_COEFFICIENTS).contains(&columns) => {
                self.array(tensor, [rows, columns])
            }
            _ => Err(Problem::CoefficientShape { tensor, channels, actual }),
        }
    }

    pub(crate) fn matrix(&mut self, name: String, shape: [usize; 2]) -> Result<Array2<f32>, Problem> {
        self.array(name, shape)
    }

    pub(crate) fn kernels(&mut self, name: String, shape: [usize; 4]) -> Result<Array4<f32>, Problem> {
        self.array(name, shape)
    }

    /// The tensor `name` as values of exactly this shape: f32, or integers of 8 bits beside their
    /// scale. Nothing is allocated before the shape is checked.
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
        let scale = scale_of(&name);
        let integers = view.dtype() == Dtype::I8 && self.holds(&scale);
        if view.dtype() != Dtype::F32 && !integers {
            return Err(Problem::TensorType { tensor: name, actual: format!("{:?}", view.dtype()), scale });
        }
        if view.shape() != shape {
            return Err(Problem::TensorShape { tensor: name, expected: shape.to_vec(), actual: view.shape().to_vec() });
        }
        let values: Vec<f32> = if integers {
            let scale = self.vector(scale, 1)?[0];
            view.data().iter().map(|&byte| f32::from(byte as i8) * scale).collect()
        } else {
            view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
        };
        self.unused.remove(&name);
        Ok(Array::from_shape_vec(shape, values).expect("the file's shape was compared with the wanted one"))
    }

    /// Refuses tensors that no layer took.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        if self.unused.is_empty() {
            return Ok(());
        }
        Err(Problem::UnusedTensors { names: text::names(self.unused.iter().map(String::as_str)) })
    }
}

/// The tensor that says what 1 stands for in the tensor `name` of integers.
fn scale_of(name: &str) -> String {
    format!("{name}_scale")
}

/// The weight file of some layers. Equal layers give equal bytes.
pub(crate) fn weight_file(layers: &[Layer]) -> Vec<u8> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for layer in layers {
        let mut add = |part: &str, tensor: (Vec<usize>, Vec<u8>)| {
            tensors.push((format!("{}.{part}", layer.name), tensor.0, tensor.1));
        };
        let bias = match &layer.op {
            LayerOp::Conv2d { weight, bias, .. } => {
                add("weight", contents(weight));
                bias.as_ref()
            }
            LayerOp::Dense { weight, bias } => {
                add("weight", contents(weight));
                bias.as_ref()
            }
            LayerOp::BatchNorm { gamma, beta, mean, var, .. } => {
                add("weight", contents(gamma));
                add("running_mean", contents(mean));
                add("running_var", contents(var));
                Some(beta)
            }
            LayerOp::Polynomial { coefficients, .. } if coefficients.len() > 1 => {
                let values = coefficients.iter().flatten().flat_map(|&c| (c as f32).to_le_bytes()).collect();
                add("coefficients", (vec![coefficients.len(), coefficients[0].len()], values));
                None
            }
            _ => None,
        };
        bias.into_iter().for_each(|bias| add("bias", contents(bias)));
    }
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("shapes fit the values"))
    });
    safetensors::serialize(views, None).expect("valid tensors")
}

/// Shape and values in row-major order.
fn contents<S: Data<Elem = f32>, D: Dimension>(values: &ArrayBase<S, D>) -> (Vec<usize>, Vec<u8>) {
    (values.shape().to_vec(), values.iter().flat_map(|value| value.to_le_bytes()).collect())
}
