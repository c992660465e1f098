//! NumPy's `.npy`, little-endian and row-major. The header is Python's text form of a dictionary.

use std::io::Read;

use cryptodl_network::text;

use super::array::{Format, Layout, Source, read_up_to};
use super::raw::RawImages;

const MAX_HEADER: usize = 1 << 16;

/// Images from the bytes of a `.npy` file: N x H x W, N x C x H x W, or where `shape` is known also N x values, and N x H x W x C
/// if that is no other shape.
///
/// # Errors
/// What was found and what is expected.
pub fn parse(bytes: &[u8], shape: Option<[usize; 3]>) -> Result<RawImages, String> {
    open(bytes, shape)?.all()
}

/// Reads the header; images follow.
pub(super) fn open<R: Read>(mut file: R, shape: Option<[usize; 3]>) -> Result<Source<R>, String> {
    let header = header(&mut file)?;
    if field(&header, "fortran_order")? != "False" {
        return Err("the array is in Fortran order; save it with numpy.ascontiguousarray".into());
    }
    let kind = field(&header, "descr")?.trim_matches(['\'', '"']);
    let format = match kind {
        "|u1" => Format::U8,
        "<f4" => Format::F32,
        "<f8" => Format::F64,
        _ => {
            let kind = text::name(kind);
            return Err(format!("array of type {kind}; only uint8, float32 and float64 (little-endian) are read"));
        }
    };
    let sizes = sizes(field(&header, "shape")?)?;
    let known = shape.map(|shape| shape.map(|size| size as u64));
    let mut channels_last = false;
    let (count, shape) = match (&sizes[..], shape) {
        (&[count, height, width], _) => (count, [1, height, width]),
        (&[count, height, width, channels], _)
            if known == Some([channels, height, width]) && known != Some([height, width, channels]) =>
        {
            channels_last = true;
            (count, [channels, height, width])
        }
        (&[count, channels, height, width], _) => (count, [channels, height, width]),
        (&[count, len], Some(shape)) if len == shape.iter().product::<usize>() as u64 => {
            (count, shape.map(|size| size as u64))
        }
        (_, shape) => {
            let flat = shape.map_or("".into(), |s| format!(" or N x {}", s.iter().product::<usize>()));
            return Err(format!("array of shape {sizes:?}; images are N x H x W, N x C x H x W{flat}"));
        }
    };
    Source::new(file, Layout { count, shape, channels_last, format }, "header")
}

/// The header's text.
fn header(file: &mut impl Read) -> Result<String, String> {
    let mut fill = |out: &mut [u8]| match read_up_to(file, out)? {
        read if read == out.len() => Ok(()),
        _ => Err(String::from("truncated inside the .npy header")),
    };
    // Six bytes of magic, which brought us here, and the version.
    let mut start = [0; 8];
    fill(&mut start)?;
    let mut len = [0; 4];
    match start[6] {
        1 => fill(&mut len[..2])?,
        2 | 3 => fill(&mut len)?,
        major => return Err(format!(".npy version {major}; versions 1 to 3 are read")),
    }
    let len = u32::from_le_bytes(len) as usize;
    if len > MAX_HEADER {
        return Err(format!(".npy header of {len} bytes; at most {MAX_HEADER} are read"));
    }
    let mut header = vec![0; len];
    fill(&mut header)?;
    String::from_utf8(header).map_err(|_| "the .npy header is not text".into())
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
    sizes.map_err(|_| format!("shape {} is not a tuple of sizes", text::name(tuple)))
}
