//! IDX, the format of the MNIST files: `00 00 type dimensions`, big-endian u32 sizes, then the bytes.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::MultiGzDecoder;

use super::{MAX_BYTES, Pixels, RawImages, checked_len};

const UNSIGNED_BYTE: u8 = 0x08;

/// Images from the bytes of an IDX file of unsigned bytes, plain or gzip: N x H x W, or N x C x H x W.
///
/// # Errors
/// What was found and what is expected.
pub fn parse_images(bytes: &[u8]) -> Result<RawImages, String> {
    let bytes = unzip(bytes)?;
    let (sizes, data) = header(&bytes)?;
    let (count, shape) = match sizes[..] {
        [count, height, width] => (count, [1, height, width]),
        [count, channels, height, width] => (count, [channels, height, width]),
        _ => return Err(format!("IDX of {} dimensions; images have 3 (N x H x W) or 4 (N x C x H x W)", sizes.len())),
    };
    let len = checked_len(count, shape, 1)?;
    check_data(data, len)?;
    Ok(RawImages { pixels: Pixels::U8(data.to_vec()), count: count as usize, shape: shape.map(|size| size as usize) })
}

/// Labels from the bytes of an IDX file of unsigned bytes and one dimension, plain or gzip.
///
/// # Errors
/// What was found and what is expected.
pub fn parse_labels(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let bytes = unzip(bytes)?;
    let (sizes, data) = header(&bytes)?;
    let [count] = sizes[..] else {
        return Err(format!("IDX of {} dimensions; labels have 1", sizes.len()));
    };
    check_data(data, checked_len(count, [1, 1, 1], 1)?)?;
    Ok(data.to_vec())
}

fn unzip(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut plain = Vec::new();
    let read = MultiGzDecoder::new(bytes).take(MAX_BYTES + 1).read_to_end(&mut plain);
    read.map_err(|error| format!("damaged gzip data: {error}"))?;
    if plain.len() as u64 > MAX_BYTES {
        return Err(format!("expands to more than {MAX_BYTES} bytes, the most that is read at once"));
    }
    Ok(Cow::Owned(plain))
}

/// The sizes and the bytes after the header.
fn header(bytes: &[u8]) -> Result<(Vec<u64>, &[u8]), String> {
    let &[0, 0, kind, dimensions, ref rest @ ..] = bytes else {
        return Err("not an image file: expected IDX (plain or .gz), .npy or PNG".into());
    };
    if kind != UNSIGNED_BYTE {
        return Err(format!("IDX of type {kind:#04x}; only unsigned bytes (0x08) are read"));
    }
    let (sizes, _) = rest.as_chunks::<4>();
    let sizes = sizes.get(..usize::from(dimensions)).ok_or("truncated inside the IDX header")?;
    let sizes = sizes.iter().map(|&size| u64::from(u32::from_be_bytes(size))).collect();
    Ok((sizes, &rest[4 * usize::from(dimensions)..]))
}

fn check_data(data: &[u8], len: usize) -> Result<(), String> {
    if data.len() == len {
        return Ok(());
    }
    Err(format!("{} bytes follow the IDX header, which announces {len}; the file is damaged", data.len()))
}
