//! PNG images of any kind that has one colour at every pixel.

use std::io::{BufRead, Cursor, Seek};

use cryptodl_network::text;
use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use super::picture::{OVERHEAD, Picture};

const TRANSPARENT: &str =
    "PNG with transparent pixels, which have no colour of their own: save it on a background, without transparency";

/// What a header says.
pub(super) struct Header {
    /// Channels, height, width of the colours: one channel for grey, three for anything else.
    pub shape: [u64; 3],
    /// Bytes that a pixel takes at most while it is decoded: alpha and a second byte are dropped
    /// afterwards.
    pub pixel_bytes: u64,
}

/// The pixels of a file whose header was read.
///
/// # Errors
/// What was found and what is expected.
pub(super) fn decode(bytes: &[u8], header: &Header) -> Result<Picture, String> {
    match end(bytes) {
        Some(end) if end < bytes.len() => {
            return Err(format!("{} bytes follow the end of the PNG; the file is damaged", bytes.len() - end));
        }
        Some(_) => {}
        None => return Err("damaged PNG: it has no end".into()),
    }
    let shape = header.shape.map(|size| size as usize);
    let most = shape[1].saturating_mul(shape[2]).saturating_mul(header.pixel_bytes as usize);
    let mut decoder = decoder(Cursor::new(bytes));
    // The lines of a frame and what expands of it; not the buffer that it is written to.
    decoder.set_limits(Limits { bytes: most.saturating_mul(4).saturating_add(OVERHEAD as usize) });
    let mut reader = decoder.read_info().map_err(damaged)?;
    let size = reader.output_buffer_size().filter(|&size| size <= most).ok_or("damaged PNG: it names two sizes")?;
    let mut pixels = vec![0; size];
    reader.next_frame(&mut pixels).map_err(damaged)?;
    let (colour, depth) = reader.output_color_type();
    if depth == BitDepth::Sixteen {
        let rounded = |pair: &[u8; 2]| ((u32::from(u16::from_be_bytes(*pair)) * 255 + 32_767) / 65_535) as u8;
        pixels = pixels.as_chunks().0.iter().map(rounded).collect();
    }
    let channels = match colour {
        ColorType::GrayscaleAlpha | ColorType::Rgba => {
            let samples = colour.samples();
            if pixels.chunks_exact(samples).any(|pixel| pixel[samples - 1] != u8::MAX) {
                return Err(TRANSPARENT.into());
            }
            pixels = pixels.chunks_exact(samples).flat_map(|pixel| &pixel[..samples - 1]).copied().collect();
            samples - 1
        }
        _ => colour.samples(),
    };
    // An expanded palette may turn out as announced only.
    if channels != shape[0] || pixels.len() != shape.iter().product::<usize>() {
        return Err(format!("damaged PNG: {channels} channels where its header announces {}", shape[0]));
    }
    Ok(Picture { interleaved: pixels, shape })
}

fn damaged(error: png::DecodingError) -> String {
    format!("damaged PNG: {}", text::message(&error))
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

/// Profiles and texts, which can be compressed and expand to any size, are not read. Palettes and
/// few bits become bytes.
fn decoder<R: BufRead + Seek>(file: R) -> Decoder<R> {
    let mut decoder = Decoder::new_with_limits(file, Limits { bytes: OVERHEAD as usize });
    decoder.set_transformations(Transformations::EXPAND);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder
}

/// Reads the header.
///
/// # Errors
/// What was found and what is expected.
pub(super) fn header<R: BufRead + Seek>(file: R) -> Result<Header, String> {
    let mut decoder = decoder(file);
    let info = decoder.read_header_info().map_err(damaged)?;
    let (width, height) = info.size();
    let channels = match info.color_type {
        ColorType::Grayscale | ColorType::GrayscaleAlpha => 1,
        ColorType::Rgb | ColorType::Rgba | ColorType::Indexed => 3,
    };
    let sample_bytes = if info.bit_depth == BitDepth::Sixteen { 2 } else { 1 };
    Ok(Header { shape: [channels, height.into(), width.into()], pixel_bytes: sample_bytes * (channels + 1) })
}
