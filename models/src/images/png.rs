//! PNG images, gray or RGB.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use super::{ImageError, MAX_BYTES, Pixels, RawImages, checked_len, read_bytes};

/// One image from the bytes of an 8-bit gray or RGB PNG file.
///
/// # Errors
/// What was found and what is expected.
pub fn parse(bytes: &[u8]) -> Result<RawImages, String> {
    let (pixels, shape) = decode(bytes)?;
    Ok(RawImages { pixels: Pixels::U8(pixels), count: 1, shape })
}

/// All `.png` files of a folder in the order of their names.
pub(super) fn read_folder(folder: &Path) -> Result<RawImages, ImageError> {
    let unread = |source| ImageError::Read { path: folder.to_owned(), source };
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(unread)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")));
    paths.sort();
    let wrong = |path: &Path, problem| ImageError::File { path: path.to_owned(), problem };
    let Some(first) = paths.first() else {
        return Err(wrong(folder, "holds no .png files; at least one image is needed".into()));
    };
    let mut all = Vec::new();
    let mut common = None;
    for path in &paths {
        let (pixels, shape) = decode(&read_bytes(path)?).map_err(|problem| wrong(path, problem))?;
        let [channels, height, width] = *common.get_or_insert(shape);
        if shape != [channels, height, width] {
            let problem = format!(
                "image of {} x {} x {} but {} is {channels} x {height} x {width} (channels x height x width); \
                 all images of a folder must have one size",
                shape[0],
                shape[1],
                shape[2],
                first.display()
            );
            return Err(wrong(path, problem));
        }
        if (all.len() + pixels.len()) as u64 > MAX_BYTES {
            return Err(wrong(folder, format!("holds more than {MAX_BYTES} bytes of pixels; split it")));
        }
        all.extend(pixels);
    }
    let shape = common.expect("there is at least one image");
    Ok(RawImages { pixels: Pixels::U8(all), count: paths.len(), shape })
}

/// Pixels in channel, row, column order, and the shape.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Vec<u8>, [usize; 3]), String> {
    let damaged = |error: png::DecodingError| format!("damaged PNG: {error}");
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: MAX_BYTES as usize });
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let (width, height) = reader.info().size();
    if reader.info().trns.is_some() {
        return Err("PNG with transparency; save it without an alpha channel".into());
    }
    let channels = match reader.output_color_type() {
        (ColorType::Grayscale, BitDepth::Eight) => 1,
        (ColorType::Rgb, BitDepth::Eight) => 3,
        (ColorType::GrayscaleAlpha | ColorType::Rgba, _) => {
            return Err("PNG with transparency; save it without an alpha channel".into());
        }
        (color, depth) => {
            return Err(format!("PNG of type {color:?} with {} bits; expected 8-bit gray or RGB", depth as u8));
        }
    };
    let len = checked_len(1, [channels, height.into(), width.into()], 1)?;
    let mut interleaved = vec![0; len];
    reader.next_frame(&mut interleaved).map_err(damaged)?;
    let channels = channels as usize;
    let planes = (0..channels).flat_map(|c| interleaved.iter().skip(c).step_by(channels).copied()).collect();
    Ok((planes, [channels, height as usize, width as usize]))
}
