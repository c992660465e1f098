//! NumPy's `.npy`, little-endian and row-major. The header is Python's text form of a dictionary.

use super::{Pixels, RawImages, checked_len};

const MAX_HEADER: usize = 1 << 16;

/// Images from the bytes of a `.npy` file: N x H x W, N x C x H x W, or N x values where `shape` is known.
///
/// # Errors
/// What was found and what is expected.
pub fn parse(bytes: &[u8], shape: Option<[usize; 3]>) -> Result<RawImages, String> {
    let (header, data) = split(bytes)?;
    if field(header, "fortran_order")? != "False" {
        return Err("the array is in Fortran order; save it with numpy.ascontiguousarray".into());
    }
    let kind = field(header, "descr")?.trim_matches(['\'', '"']);
    let width = match kind {
        "|u1" => 1,
        "<f4" => 4,
        "<f8" => 8,
        _ => return Err(format!("array of type {kind}; only uint8, float32 and float64 (little-endian) are read")),
    };
    let sizes = sizes(field(header, "shape")?)?;
    let (count, shape) = match (&sizes[..], shape) {
        (&[count, height, width], _) => (count, [1, height, width]),
        (&[count, channels, height, width], _) => (count, [channels, height, width]),
        (&[count, len], Some(shape)) if len == shape.iter().product::<usize>() as u64 => {
            (count, shape.map(|size| size as u64))
        }
        (_, shape) => {
            let flat = shape.map_or("".into(), |s| format!(" or N x {}", s.iter().product::<usize>()));
            return Err(format!("array of shape {sizes:?}; images are N x H x W, N x C x H x W{flat}"));
        }
    };
    let len = checked_len(count, shape, width)?;
    if data.len() as u64 != len as u64 * width {
        return Err(format!("{} bytes follow the header, which announces {}", data.len(), len as u64 * width));
    }
    let pixels = match width {
        1 => Pixels::U8(data.to_vec()),
        4 => Pixels::F32(data.as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value)).collect()),
        _ => Pixels::F32(data.as_chunks::<8>().0.iter().map(|&value| f64::from_le_bytes(value) as f32).collect()),
    };
    Ok(RawImages { pixels, count: count as usize, shape: shape.map(|size| size as usize) })
}

/// The header's text and the array's bytes.
fn split(bytes: &[u8]) -> Result<(&str, &[u8]), String> {
    let truncated = || String::from("truncated inside the .npy header");
    let (&[major, _minor], rest) =
        bytes.get(6..).and_then(|rest| rest.split_first_chunk::<2>()).ok_or_else(truncated)?;
    let (len, rest) = match major {
        1 => rest.split_first_chunk::<2>().map(|(len, rest)| (u32::from(u16::from_le_bytes(*len)), rest)),
        2 | 3 => rest.split_first_chunk::<4>().map(|(len, rest)| (u32::from_le_bytes(*len), rest)),
        _ => return Err(format!(".npy version {major}; versions 1 to 3 are read")),
    }
    .ok_or_else(truncated)?;
    let len = len as usize;
    if len > MAX_HEADER {
        return Err(format!(".npy header of {len} bytes; at most {MAX_HEADER} are read"));
    }
    let (header, data) = rest.split_at_checked(len).ok_or_else(truncated)?;
    Ok((std::str::from_utf8(header).map_err(|_| "the .npy header is not text")?, data))
}

/// The text of one value of the dictionary; a tuple keeps its parentheses.
fn field<'a>(header: &'a str, name: &str) -> Result<&'a str, String> {
    let missing = || format!("the .npy header has no `{name}`");
    let start = [format!("'{name}'"), format!("\"{name}\"")];
    let rest = start.iter().find_map(|key| header.split_once(key.as_str())).ok_or_else(missing)?.1;
    let value = rest.trim_start().strip_prefix(':').ok_or_else(missing)?.trim_start();
    let end = match value.starts_with('(') {
        true => value.find(')').map(|end| end + 1),
        false => value.find([',', '}']),
    };
    Ok(value[..end.ok_or_else(missing)?].trim_end())
}

fn sizes(tuple: &str) -> Result<Vec<u64>, String> {
    let inner = tuple.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    let parts = inner.into_iter().flat_map(|text| text.split(',')).map(str::trim).filter(|part| !part.is_empty());
    let sizes: Result<Vec<u64>, _> = parts.take(8).map(str::parse).collect();
    sizes.map_err(|_| format!("shape {tuple} is not a tuple of sizes"))
}
