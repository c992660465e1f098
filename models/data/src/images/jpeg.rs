//! JPEG images, grey or in colour.

use std::io::Read;

use cryptodl_network::text;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::array::read_up_to;
use super::picture::Picture;

/// Segments before the size of the image that are read; cameras write some dozens.
const MAX_SEGMENTS: usize = 1000;
/// Marker codes: those of a frame, which has the size, without the three that lie between them.
const FRAMES: std::ops::RangeInclusive<u8> = 0xc0..=0xcf;
const NO_FRAMES: [u8; 3] = [0xc4, 0xc8, 0xcc];
const END: u8 = 0xd9;
const SCAN: u8 = 0xda;

/// Channels, height, width. Only the segments up to the frame's are read, without what they hold.
///
/// # Errors
/// What was found and what is expected.
pub(super) fn shape(file: &mut impl Read) -> Result<[u64; 3], String> {
    let mut start = [0; 2];
    fill(file, &mut start)?;
    for _ in 0..MAX_SEGMENTS {
        let mut marker = [0; 2];
        fill(file, &mut marker)?;
        if marker[0] != 0xff {
            return Err("damaged JPEG: a segment does not begin with a marker".into());
        }
        // Any number of fill bytes may stand before a marker.
        while marker[1] == 0xff {
            fill(file, &mut marker[1..])?;
        }
        if [END, SCAN].contains(&marker[1]) {
            break;
        }
        let mut len = [0; 2];
        fill(file, &mut len)?;
        let len = u64::from(u16::from_be_bytes(len)).checked_sub(2).ok_or("damaged JPEG: a segment has no length")?;
        if FRAMES.contains(&marker[1]) && !NO_FRAMES.contains(&marker[1]) {
            let mut frame = [0; 6];
            fill(file, &mut frame)?;
            let [precision, h1, h0, w1, w0, components] = frame;
            return match (precision, components) {
                (8, 1 | 3) => {
                    let [height, width] = [[h1, h0], [w1, w0]].map(|size| u64::from(u16::from_be_bytes(size)));
                    Ok([components.into(), height, width])
                }
                _ => {
                    Err(format!("JPEG of {components} components with {precision} bits; expected 8-bit grey or colour"))
                }
            };
        }
        let skipped = std::io::copy(&mut file.take(len), &mut std::io::sink()).map_err(|error| error.to_string())?;
        if skipped < len {
            return Err(TRUNCATED.into());
        }
    }
    Err("damaged JPEG: it does not say how large the image is".into())
}

const TRUNCATED: &str = "damaged JPEG: it is truncated before the size of the image";

fn fill(file: &mut impl Read, out: &mut [u8]) -> Result<(), String> {
    if read_up_to(file, out)? == out.len() { Ok(()) } else { Err(TRUNCATED.into()) }
}

/// The pixels of a file of this shape.
///
/// # Errors
/// What was found and what is expected.
pub(super) fn decode(bytes: &[u8], shape: [usize; 3]) -> Result<Picture, String> {
    let [channels, height, width] = shape;
    let colour = if channels == 1 { ColorSpace::Luma } else { ColorSpace::RGB };
    let options = DecoderOptions::default()
        .set_max_width(width)
        .set_max_height(height)
        .set_strict_mode(true)
        .jpeg_set_out_colorspace(colour);
    let damaged = |error: zune_jpeg::errors::DecodeErrors| format!("damaged JPEG: {}", text::message(&error));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged)?;
    let expected = channels * height * width;
    if decoder.output_buffer_size() != Some(expected) {
        return Err("damaged JPEG: it names two sizes".into());
    }
    let interleaved = decoder.decode().map_err(damaged)?;
    if interleaved.len() != expected {
        return Err(format!("damaged JPEG: {} of {expected} bytes of pixels", interleaved.len()));
    }
    Ok(Picture { interleaved, shape })
}
