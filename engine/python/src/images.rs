//! Arrays of images, as they are in numpy's memory.

use ndarray::ArrayView4;
use numpy::{PyReadonlyArray4, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::errors;

/// A float32 array `[image, channel, row, column]` without gaps.
pub struct Images<'py>(PyReadonlyArray4<'py, f32>);

impl<'py> Images<'py> {
    /// Refuses any other array, and says what is needed.
    pub fn new(array: &Bound<'py, PyAny>, shape: [usize; 3]) -> PyResult<Self> {
        let [channels, height, width] = shape;
        let needed = format!("a numpy array of dtype float32 and shape [N, {channels}, {height}, {width}] is needed");
        let untyped: &Bound<'py, PyUntypedArray> =
            array.cast().map_err(|_| errors::input(format!("{needed}, not {}", array.get_type())))?;
        let typed = array.extract::<PyReadonlyArray4<'py, f32>>();
        match typed {
            Ok(found) if found.shape()[1..] == shape && found.shape()[0] > 0 => {
                if !found.is_c_contiguous() {
                    return Err(errors::input(format!(
                        "{needed}, contiguous in memory: use numpy.ascontiguousarray(x)"
                    )));
                }
                Ok(Images(found))
            }
            _ => {
                let found = format!("dtype {} and shape {:?}", untyped.dtype().str()?, untyped.shape());
                let last = untyped.ndim() == 4 && untyped.shape()[1..] == [height, width, channels];
                let advice = match (typed.is_ok(), last) {
                    (_, true) => ": channels come first here, use x.transpose(0, 3, 1, 2)",
                    (false, _) if untyped.ndim() == 4 => ": use x.astype(numpy.float32)",
                    _ => "",
                };
                Err(errors::input(format!("{needed}, not {found}{advice}")))
            }
        }
    }

    pub fn view(&self) -> ArrayView4<'_, f32> {
        self.0.as_array()
    }

    /// All values, image after image.
    pub fn values(&self) -> &[f32] {
        self.0.as_slice().expect("contiguous, as was checked")
    }
}
