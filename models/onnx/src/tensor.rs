//! Constants: what a graph computes without its input.

use std::rc::Rc;

use crate::error::Refusal;
use crate::external::Folder;
use crate::limits::{MAX_AXES, MAX_CONSTANT};
use crate::proto::TensorProto;

/// A constant with its values in row-major order. Numbers with a fraction are 64 bits wide,
/// whatever they are in the file; booleans are integers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Data,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Real(Rc<[f64]>),
    Integer(Rc<[i64]>),
}

impl Data {
    pub(crate) fn len(&self) -> usize {
        match self {
            Data::Real(values) => values.len(),
            Data::Integer(values) => values.len(),
        }
    }
}

impl Tensor {
    pub(crate) fn real(shape: Vec<usize>, values: Vec<f64>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Self { shape, data: Data::Real(values.into()) }
    }

    pub(crate) fn integers(shape: Vec<usize>, values: Vec<i64>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Self { shape, data: Data::Integer(values.into()) }
    }

    /// A row of integers, as shapes are.
    pub(crate) fn row(values: Vec<i64>) -> Self {
        Self::integers(vec![values.len()], values)
    }

    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }

    /// The values as numbers with a fraction.
    pub(crate) fn reals(&self) -> Rc<[f64]> {
        match &self.data {
            Data::Real(values) => Rc::clone(values),
            Data::Integer(values) => values.iter().map(|&value| value as f64).collect(),
        }
    }

    /// The values as integers, of a tensor of integers with at most one axis.
    pub(crate) fn whole(&self, what: &str) -> Result<Rc<[i64]>, Refusal> {
        match &self.data {
            Data::Integer(values) if self.shape.len() <= 1 => Ok(Rc::clone(values)),
            Data::Integer(_) => Err(format!("{what} has shape {:?}; it must be a list", self.shape)),
            Data::Real(_) => Err(format!("{what} must be integers")),
        }
    }

    /// The values at `picks`, in a new shape.
    pub(crate) fn picked(&self, shape: Vec<usize>, picks: &[u32]) -> Self {
        let data = match &self.data {
            Data::Real(values) => Data::Real(picks.iter().map(|&at| values[at as usize]).collect()),
            Data::Integer(values) => Data::Integer(picks.iter().map(|&at| values[at as usize]).collect()),
        };
        Self { shape, data }
    }

    /// The same values in another shape of as many.
    pub(crate) fn reshaped(&self, shape: Vec<usize>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), self.len());
        Self { shape, data: self.data.clone() }
    }

    /// Reads a tensor of the file.
    ///
    /// # Errors
    /// A type that is not read, sizes that do not fit each other or are too large, values that are
    /// not finite, external data that cannot be read.
    pub(crate) fn read(proto: &TensorProto, folder: &Folder) -> Result<Self, Refusal> {
        let shape = sizes(&proto.dims)?;
        let count = count(&shape)?;
        let kind = Kind::of(proto.data_type.unwrap_or_default())?;
        let external = match proto.data_location.unwrap_or_default() {
            0 => None,
            1 => Some(folder.read(&proto.external_data, count * kind.bytes())?),
            other => return Err(format!("its data is at location {other}; 0 (in the file) and 1 (external) exist")),
        };
        let raw = external.as_deref().or(proto.raw_data.as_deref());
        let data = match raw {
            Some(bytes) if bytes.len() == count * kind.bytes() => kind.decode(bytes),
            Some(bytes) => {
                return Err(format!(
                    "it has {} bytes of data, but its shape {shape:?} takes {}",
                    bytes.len(),
                    count * kind.bytes()
                ));
            }
            None => kind.listed(proto),
        };
        if data.len() != count {
            return Err(format!("it has {} values, but its shape {shape:?} takes {count}", data.len()));
        }
        if let Data::Real(values) = &data
            && let Some(at) = values.iter().position(|value| !value.is_finite())
        {
            return Err(format!("it holds {} at position {at}; expected finite numbers", values[at]));
        }
        Ok(Self { shape, data })
    }
}

/// The axes of a shape.
pub(crate) fn sizes(dims: &[i64]) -> Result<Vec<usize>, Refusal> {
    if dims.len() > MAX_AXES {
        return Err(format!("it has {} axes; at most {MAX_AXES} are supported", dims.len()));
    }
    let size = |&dim: &i64| usize::try_from(dim).map_err(|_| format!("its shape {dims:?} has a negative size"));
    dims.iter().map(size).collect()
}

/// Sizes of parts of an axis, however many.
pub(crate) fn sizes_of_parts(list: &[i64]) -> Result<Vec<usize>, Refusal> {
    let size = |&size: &i64| usize::try_from(size).map_err(|_| "a part has a negative size".to_string());
    list.iter().map(size).collect()
}

/// Number of values of a shape, if it is not too large.
pub(crate) fn count(shape: &[usize]) -> Result<usize, Refusal> {
    let product = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    // An axis of a tensor without values may be as large as it says.
    product
        .filter(|&count| count <= MAX_CONSTANT && shape.iter().all(|&size| size <= MAX_CONSTANT))
        .ok_or_else(|| format!("a tensor of shape {shape:?} is too large; at most {MAX_CONSTANT} values are supported"))
}

/// Types of values that are read.
#[derive(Clone, Copy)]
enum Kind {
    F32,
    F64,
    F16,
    Bf16,
    U8,
    I8,
    U16,
    I16,
    I32,
    U32,
    I64,
    U64,
}

impl Kind {
    fn of(code: i32) -> Result<Self, Refusal> {
        Ok(match code {
            1 => Kind::F32,
            // Booleans are bytes.
            2 | 9 => Kind::U8,
            3 => Kind::I8,
            4 => Kind::U16,
            5 => Kind::I16,
            6 => Kind::I32,
            7 => Kind::I64,
            10 => Kind::F16,
            11 => Kind::F64,
            12 => Kind::U32,
            13 => Kind::U64,
            16 => Kind::Bf16,
            other => {
                return Err(format!(
                    "its data type {other} is not read; floating point numbers of 16, 32 and 64 bits, integers and booleans are"
                ));
            }
        })
    }

    fn bytes(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 => 1,
            Kind::F16 | Kind::Bf16 | Kind::U16 | Kind::I16 => 2,
            Kind::F32 | Kind::I32 | Kind::U32 => 4,
            Kind::F64 | Kind::I64 | Kind::U64 => 8,
        }
    }

    /// Of little-endian bytes.
    fn decode(self, bytes: &[u8]) -> Data {
        fn all<const B: usize, T>(bytes: &[u8], value: impl Fn([u8; B]) -> T) -> Rc<[T]> {
            bytes.as_chunks::<B>().0.iter().map(|&bytes| value(bytes)).collect()
        }
        match self {
            Kind::F32 => Data::Real(all(bytes, |b| f32::from_le_bytes(b).into())),
            Kind::F64 => Data::Real(all(bytes, f64::from_le_bytes)),
            Kind::F16 => Data::Real(all(bytes, |b| half(u16::from_le_bytes(b)))),
            Kind::Bf16 => Data::Real(all(bytes, |b| bfloat(u16::from_le_bytes(b)))),
            Kind::U8 => Data::Integer(all(bytes, |b| u8::from_le_bytes(b).into())),
            Kind::I8 => Data::Integer(all(bytes, |b| i8::from_le_bytes(b).into())),
            Kind::U16 => Data::Integer(all(bytes, |b| u16::from_le_bytes(b).into())),
            Kind::I16 => Data::Integer(all(bytes, |b| i16::from_le_bytes(b).into())),
            Kind::I32 => Data::Integer(all(bytes, |b| i32::from_le_bytes(b).into())),
            Kind::U32 => Data::Integer(all(bytes, |b| u32::from_le_bytes(b).into())),
            Kind::I64 => Data::Integer(all(bytes, i64::from_le_bytes)),
            Kind::U64 => Data::Integer(all(bytes, |b| u64::from_le_bytes(b).try_into().unwrap_or(i64::MAX))),
        }
    }

    /// Of the lists of numbers of a message; which one depends on the type.
    fn listed(self, proto: &TensorProto) -> Data {
        match self {
            Kind::F32 => Data::Real(proto.float_data.iter().map(|&value| value.into()).collect()),
            Kind::F64 => Data::Real(proto.double_data.as_slice().into()),
            Kind::F16 => Data::Real(proto.int32_data.iter().map(|&bits| half(bits as u16)).collect()),
            Kind::Bf16 => Data::Real(proto.int32_data.iter().map(|&bits| bfloat(bits as u16)).collect()),
            Kind::I64 => Data::Integer(proto.int64_data.as_slice().into()),
            Kind::U32 | Kind::U64 => {
                Data::Integer(proto.uint64_data.iter().map(|&value| value.try_into().unwrap_or(i64::MAX)).collect())
            }
            Kind::U8 | Kind::I8 | Kind::U16 | Kind::I16 | Kind::I32 => {
                Data::Integer(proto.int32_data.iter().map(|&value| value.into()).collect())
            }
        }
    }
}

/// A number of IEEE 754's binary16.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// The upper half of an f32.
fn bfloat(bits: u16) -> f64 {
    f32::from_bits(u32::from(bits) << 16).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proto(data_type: i32, dims: &[i64], raw: &[u8]) -> TensorProto {
        TensorProto {
            data_type: Some(data_type),
            dims: dims.to_vec(),
            raw_data: Some(raw.to_vec()),
            ..TensorProto::default()
        }
    }

    fn read(proto: &TensorProto) -> Result<Tensor, Refusal> {
        Tensor::read(proto, &Folder::none())
    }

    #[test]
    fn every_width_is_read() {
        let reals = |data_type, raw: &[u8]| read(&proto(data_type, &[2], raw)).unwrap().reals().to_vec();
        assert_eq!(reals(1, &[0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0]), [1.5, -2.0]);
        assert_eq!(reals(10, &[0x00, 0x3e, 0x01, 0x80]), [1.5, -(2f64.powi(-24))]);
        assert_eq!(reals(16, &[0xc0, 0x3f, 0x00, 0xc0]), [1.5, -2.0]);
        assert_eq!(reals(3, &[0xff, 0x02]), [-1.0, 2.0]);
        assert_eq!(reals(7, &[5, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]), [5.0, -1.0]);
        let listed = TensorProto { data_type: Some(10), dims: vec![1], int32_data: vec![0x3e00], ..Default::default() };
        assert_eq!(read(&listed).unwrap().reals()[0], 1.5);
    }

    #[test]
    fn sizes_and_values_are_checked() {
        let refused = |proto: &TensorProto| read(proto).unwrap_err();
        assert!(refused(&proto(1, &[3], &[0; 8])).contains("takes 12"));
        assert!(refused(&proto(1, &[-1], &[])).contains("negative"));
        assert!(refused(&proto(1, &[1 << 40, 1 << 40], &[])).contains("too large"));
        assert!(refused(&proto(1, &[0; 9], &[])).contains("9 axes"));
        assert!(refused(&proto(8, &[1], &[])).contains("data type 8"));
        assert!(refused(&proto(1, &[1], &f32::NAN.to_le_bytes())).contains("NaN at position 0"));
        assert!(refused(&proto(10, &[1], &0x7c00u16.to_le_bytes())).contains("inf at position 0"));
        let short = TensorProto { data_type: Some(1), dims: vec![2], float_data: vec![1.0], ..Default::default() };
        assert!(refused(&short).contains("has 1 values"));
    }
}
