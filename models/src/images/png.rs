//! PNG images, gray or RGB.

use std::fs;
use std::io::{BufRead, Cursor, Seek};
use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType, Decoder, Limits, Reader, Transformations};

use super::source::{Format, Layout};
use super::{ImageError, MAX_BYTES, Pixels, RawImages, open_file, read_bytes};

/// One image from the bytes of an 8-bit gray or RGB PNG file.
///
/// # Errors
/// What was found and what is expected.
pub fn parse(bytes: &[u8]) -> Result<RawImages, String> {
    let (pixels, shape) = decode(bytes)?;
    Ok(RawImages { pixels: Pixels::U8(pixels), count: 1, shape })
}

/// PNG files of one size, which are decoded when their turn comes.
pub(super) struct Files {
    paths: Vec<PathBuf>,
    /// Channels, height, width of the first.
    shape: [usize; 3],
    taken: usize,
}

impl Files {
    /// All `.png` files of a folder in the order of their names.
    pub fn folder(folder: &Path) -> Result<Self, ImageError> {
        let unread = |source| ImageError::Read { path: folder.to_owned(), source };
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .map_err(unread)?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")));
        paths.sort();
        if paths.is_empty() {
            let problem = "holds no .png files; at least one image is needed".into();
            return Err(ImageError::File { path: folder.to_owned(), problem });
        }
        Self::new(paths)
    }

    /// One file.
    pub fn one(path: &Path) -> Result<Self, ImageError> {
        Self::new(vec![path.to_owned()])
    }

    fn new(paths: Vec<PathBuf>) -> Result<Self, ImageError> {
        let header = open(open_file(&paths[0])?);
        let (_, shape) = header.map_err(|problem| ImageError::File { path: paths[0].clone(), problem })?;
        Ok(Files { paths, shape, taken: 0 })
    }

    pub fn count(&self) -> usize {
        self.paths.len()
    }

    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The next `count` images, fewer at the end.
    pub fn next(&mut self, count: usize) -> Result<RawImages, ImageError> {
        let count = count.min(self.paths.len() - self.taken);
        let mut all = Vec::new();
        for path in &self.paths[self.taken..][..count] {
            let wrong = |problem| ImageError::File { path: path.clone(), problem };
            // What it decodes to is known before it is paid for.
            let (_, shape) = open(open_file(path)?).map_err(wrong)?;
            if shape != self.shape {
                let [channels, height, width] = self.shape;
                return Err(wrong(format!(
                    "image of {} x {} x {} but {} is {channels} x {height} x {width} (channels x height x width); \
                     all images of a folder must have one size",
                    shape[0],
                    shape[1],
                    shape[2],
                    self.paths[0].display()
                )));
            }
            let (pixels, _) = decode(&read_bytes(path)?).map_err(wrong)?;
            if (all.len() + pixels.len()) as u64 > MAX_BYTES {
                return Err(wrong(format!("more than {MAX_BYTES} bytes of pixels are not read at once")));
            }
            all.extend(pixels);
        }
        self.taken += count;
        Ok(RawImages { pixels: Pixels::U8(all), count, shape: self.shape })
    }
}

/// Pixels in channel, row, column order, and the shape.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Vec<u8>, [usize; 3]), String> {
    let (mut reader, shape) = open(Cursor::new(bytes))?;
    let mut interleaved = vec![0; shape.iter().product()];
    reader.next_frame(&mut interleaved).map_err(damaged)?;
    let planes = (0..shape[0]).flat_map(|c| interleaved.iter().skip(c).step_by(shape[0]).copied()).collect();
    Ok((planes, shape))
}

fn damaged(error: png::DecodingError) -> String {
    format!("damaged PNG: {error}")
}

/// Reads the header, and says what the pixels will be: channels, height, width.
fn open<R: BufRead + Seek>(file: R) -> Result<(Reader<R>, [usize; 3]), String> {
    let mut decoder = Decoder::new_with_limits(file, Limits { bytes: MAX_BYTES as usize });
    decoder.set_transformations(Transformations::IDENTITY);
    let reader = decoder.read_info().map_err(damaged)?;
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
    let shape = [channels, height.into(), width.into()];
    Layout { count: 1, shape, format: Format::U8 }.check()?;
    Ok((reader, shape.map(|size| size as usize)))
}
