//! IDX, the format of the MNIST files: `00 00 type dimensions`, big-endian u32 sizes, then the bytes.

use std::io::{BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use super::array::{Format, Layout, Source, read_up_to};
use super::raw::{Pixels, RawImages};

const UNSIGNED_BYTE: u8 = 0x08;

/// Images from the bytes of an IDX file of unsigned bytes, plain or gzip: N x H x W, or N x C x H x W.
///
/// # Errors
/// What was found and what is expected.
pub fn parse_images(bytes: &[u8]) -> Result<RawImages, String> {
    open(bytes)?.all()
}

/// Labels from the bytes of an IDX file of unsigned bytes and one dimension, plain or gzip.
///
/// # Errors
/// What was found and what is expected.
pub fn parse_labels(bytes: &[u8]) -> Result<Vec<u8>, String> {
    labels(&mut open_labels(bytes)?)
}

/// Reads the header; labels follow.
pub(super) fn open_labels<R: BufRead>(file: R) -> Result<Source<Unzip<R>>, String> {
    let mut file = unzip(file);
    let sizes = header(&mut file)?;
    let [count] = sizes[..] else {
        return Err(format!("IDX of {} dimensions; labels have 1", sizes.len()));
    };
    Source::new(file, Layout { count, shape: [1, 1, 1], channels_last: false, format: Format::U8 }, "IDX header")
}

/// All labels of a file.
pub(super) fn labels<R: Read>(file: &mut Source<R>) -> Result<Vec<u8>, String> {
    match file.all()?.pixels {
        Pixels::U8(labels) => Ok(labels),
        Pixels::F32(_) => unreachable!("the format is bytes"),
    }
}

/// Reads the header; images follow.
pub(super) fn open<R: BufRead>(file: R) -> Result<Source<Unzip<R>>, String> {
    let mut file = unzip(file);
    let sizes = header(&mut file)?;
    let (count, shape) = match sizes[..] {
        [count, height, width] => (count, [1, height, width]),
        [count, channels, height, width] => (count, [channels, height, width]),
        _ => return Err(format!("IDX of {} dimensions; images have 3 (N x H x W) or 4 (N x C x H x W)", sizes.len())),
    };
    Source::new(file, Layout { count, shape, channels_last: false, format: Format::U8 }, "IDX header")
}

/// A plain or a compressed file.
pub(super) enum Unzip<R> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
}

fn unzip<R: BufRead>(mut file: R) -> Unzip<R> {
    // A file that cannot be read says so when its header is.
    let compressed = file.fill_buf().is_ok_and(|bytes| bytes.starts_with(&[0x1f, 0x8b]));
    if compressed { Unzip::Gzip(Box::new(MultiGzDecoder::new(file))) } else { Unzip::Plain(file) }
}

impl<R: BufRead> Read for Unzip<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Unzip::Plain(file) => file.read(out),
            Unzip::Gzip(file) => {
                file.read(out).map_err(|error| std::io::Error::new(error.kind(), format!("damaged gzip data: {error}")))
            }
        }
    }
}

/// The sizes.
fn header(file: &mut impl Read) -> Result<Vec<u64>, String> {
    let mut start = [0; 4];
    let read = read_up_to(file, &mut start)?;
    let &[0, 0, kind, dimensions] = &start[..read] else {
        return Err("not an image file: expected IDX (plain or .gz), .npy, PNG or JPEG".into());
    };
    if kind != UNSIGNED_BYTE {
        return Err(format!("IDX of type {kind:#04x}; only unsigned bytes (0x08) are read"));
    }
    let mut sizes = vec![0; 4 * usize::from(dimensions)];
    if read_up_to(file, &mut sizes)? < sizes.len() {
        return Err("truncated inside the IDX header".into());
    }
    Ok(sizes.as_chunks::<4>().0.iter().map(|&size| u64::from(u32::from_be_bytes(size))).collect())
}
