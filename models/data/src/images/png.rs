//! PNG images, gray or RGB.

use std::io::{BufRead, Cursor, Seek};

use cryptodl_network::text;
use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use super::array::{Format, Layout};
use super::raw::{Pixels, RawImages};

/// Bytes that a file may have, and that its decoder may take, for other things than pixels.
const OVERHEAD: u64 = 1 << 20;

/// One image from the bytes of an 8-bit gray or RGB PNG file.
///
/// # Errors
/// What was found and what is expected.
pub fn parse(bytes: &[u8]) -> Result<RawImages, String> {
    let (pixels, shape) = decode(bytes)?;
    Ok(RawImages { pixels: Pixels::U8(pixels), count: 1, shape })
}

/// Pixels in channel, row, column order, and the shape.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Vec<u8>, [usize; 3]), String> {
    let (mut decoder, shape) = header(Cursor::new(bytes))?;
    let pixels: usize = shape.iter().product();
    if bytes.len() as u64 > largest_file(shape) {
        return Err(format!(
            "PNG of more than {} bytes for {pixels} pixels; save it without other data",
            largest_file(shape)
        ));
    }
    match end(bytes) {
        Some(end) if end < bytes.len() => {
            return Err(format!("{} bytes follow the end of the PNG; the file is damaged", bytes.len() - end));
        }
        Some(_) => {}
        None => return Err("damaged PNG: it has no end".into()),
    }
    // The lines of a frame and what expands of it; not the buffer that it is written to.
    decoder.set_limits(Limits { bytes: pixels.saturating_mul(4).saturating_add(OVERHEAD as usize) });
    let mut reader = decoder.read_info().map_err(damaged)?;
    if reader.info().trns.is_some() {
        return Err(TRANSPARENT.into());
    }
    let mut interleaved = vec![0; pixels];
    reader.next_frame(&mut interleaved).map_err(damaged)?;
    let planes = (0..shape[0]).flat_map(|c| interleaved.iter().skip(c).step_by(shape[0]).copied()).collect();
    Ok((planes, shape))
}

const TRANSPARENT: &str = "PNG with transparency; save it without an alpha channel";

fn damaged(error: png::DecodingError) -> String {
    format!("damaged PNG: {}", text::message(&error))
}

/// Bytes of the largest file that is read: twice what pixels take that do not compress, and what is not pixels.
pub(super) fn largest_file(shape: [usize; 3]) -> u64 {
    2 * shape.iter().product::<usize>() as u64 + OVERHEAD
}

/// Where the last chunk ends: after the signature come chunks of length, name, data and checksum.
fn end(bytes: &[u8]) -> Option<usize> {
    let mut at = 8;
    loop {
        let (len, rest) = bytes.get(at..)?.split_first_chunk()?;
        let name: &[u8; 4] = rest.first_chunk()?;
        at = at.checked_add(12 + u32::from_be_bytes(*len) as usize)?;
        if name == b"IEND" {
            return Some(at).filter(|&end| end <= bytes.len());
        }
    }
}

/// Reads the header, and says what the pixels will be: channels, height, width. Profiles and texts, which can be compressed
/// and expand to any size, will not be.
pub(super) fn header<R: BufRead + Seek>(file: R) -> Result<(Decoder<R>, [usize; 3]), String> {
    let mut decoder = Decoder::new_with_limits(file, Limits { bytes: OVERHEAD as usize });
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let info = decoder.read_header_info().map_err(damaged)?;
    let (width, height) = info.size();
    let channels = match (info.color_type, info.bit_depth) {
        (ColorType::Grayscale, BitDepth::Eight) => 1,
        (ColorType::Rgb, BitDepth::Eight) => 3,
        (ColorType::GrayscaleAlpha | ColorType::Rgba, _) => return Err(TRANSPARENT.into()),
        (color, depth) => {
            return Err(format!("PNG of type {color:?} with {} bits; expected 8-bit gray or RGB", depth as u8));
        }
    };
    let shape = [channels, height.into(), width.into()];
    Layout { count: 1, shape, format: Format::U8 }.check()?;
    Ok((decoder, shape.map(|size| size as usize)))
}
