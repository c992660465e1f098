//! One image from a file of a format that people look at: PNG or JPEG.

use std::io::{BufRead, Cursor, Seek};

use super::array::{Format, Layout};
use super::raw::{Pixels, RawImages};
use super::{jpeg, png};

/// Bytes that a file may have, and that its decoder may take, for other things than pixels.
pub(super) const OVERHEAD: u64 = 1 << 20;

/// Pixels, channels innermost.
pub(super) struct Picture {
    pub interleaved: Vec<u8>,
    /// Channels (1: grey, 3: red, green, blue), height, width.
    pub shape: [usize; 3],
}

/// What the first bytes of a file say.
pub(super) enum Header {
    Png(png::Header),
    Jpeg { shape: [u64; 3] },
}

/// Whether a file that begins with these bytes is a picture.
pub(super) fn is_picture(start: &[u8]) -> bool {
    start.starts_with(PNG) || start.starts_with(JPEG)
}

const PNG: &[u8] = &[0x89, b'P', b'N', b'G'];
const JPEG: &[u8] = &[0xff, 0xd8, 0xff];

impl Header {
    /// Reads the header of a file, and refuses one of a size that is not read.
    ///
    /// # Errors
    /// What was found and what is expected.
    pub fn read<R: BufRead + Seek>(mut file: R) -> Result<Self, String> {
        let start = file.fill_buf().map_err(|error| error.to_string())?;
        let header = if start.starts_with(JPEG) {
            Header::Jpeg { shape: jpeg::shape(&mut file)? }
        } else {
            Header::Png(png::header(file)?)
        };
        let [_, height, width] = header.stored();
        Layout { count: 1, shape: [header.pixel_bytes(), height, width], channels_last: false, format: Format::U8 }
            .check()?;
        Ok(header)
    }

    fn stored(&self) -> [u64; 3] {
        match self {
            Header::Png(header) => header.shape,
            Header::Jpeg { shape } => *shape,
        }
    }

    /// Channels, height, width.
    pub fn shape(&self) -> [usize; 3] {
        self.stored().map(|size| size as usize)
    }

    fn pixel_bytes(&self) -> u64 {
        match self {
            Header::Png(header) => header.pixel_bytes,
            Header::Jpeg { shape } => shape[0],
        }
    }

    /// Bytes of the largest file that is read: twice what pixels take that do not compress, and
    /// what is not pixels.
    pub fn largest_file(&self) -> u64 {
        let [_, height, width] = self.stored();
        2 * self.pixel_bytes() * height * width + OVERHEAD
    }

    /// The pixels of the file that begins with this header.
    ///
    /// # Errors
    /// What was found and what is expected.
    pub fn decode(&self, bytes: &[u8]) -> Result<Picture, String> {
        let [_, height, width] = self.stored();
        if bytes.len() as u64 > self.largest_file() {
            return Err(format!(
                "file of more than {} bytes for {} pixels; save it without other data",
                self.largest_file(),
                height * width
            ));
        }
        match self {
            Header::Png(header) => png::decode(bytes, header),
            Header::Jpeg { .. } => jpeg::decode(bytes, self.shape()),
        }
    }
}

impl Picture {
    /// The picture with another number of channels: colours become grey as in ITU-R BT.601 (with
    /// the weights of 2^-16 that Pillow takes), and grey becomes three equal channels.
    ///
    /// # Panics
    /// For other channels than 1 or 3.
    pub fn with_channels(self, channels: usize) -> Self {
        let Picture { interleaved, shape: [stored, height, width] } = self;
        let interleaved = match (stored, channels) {
            (3, 1) => interleaved.as_chunks().0.iter().map(grey).collect(),
            (1, 3) => interleaved.iter().flat_map(|&pixel| [pixel; 3]).collect(),
            _ => {
                assert_eq!(stored, channels, "one channel or three");
                interleaved
            }
        };
        Picture { interleaved, shape: [channels, height, width] }
    }

    /// Pixels in channel, row, column order.
    pub fn planes(&self) -> impl Iterator<Item = u8> + '_ {
        let channels = self.shape[0];
        (0..channels).flat_map(move |c| self.interleaved.iter().skip(c).step_by(channels).copied())
    }
}

fn grey(&[red, green, blue]: &[u8; 3]) -> u8 {
    let [red, green, blue] = [red, green, blue].map(u32::from);
    ((19_595 * red + 38_470 * green + 7_471 * blue + 0x8000) >> 16) as u8
}

/// One image from the bytes of a PNG or JPEG file, grey or in colour.
///
/// # Errors
/// What was found and what is expected.
pub fn parse(bytes: &[u8]) -> Result<RawImages, String> {
    let (pixels, shape) = decode(bytes)?;
    Ok(RawImages { pixels: Pixels::U8(pixels), count: 1, shape })
}

/// Pixels in channel, row, column order, and the shape.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Vec<u8>, [usize; 3]), String> {
    let picture = Header::read(Cursor::new(bytes))?.decode(bytes)?;
    Ok((picture.planes().collect(), picture.shape))
}
