//! A file's array of pixels, read some images at a time.

use std::io::{ErrorKind, Read};

use super::raw::{Pixels, RawImages};

/// Most bytes of pixels that are read at once, and of labels.
pub const MAX_BYTES: u64 = 1 << 30;
/// Bytes of pixels that are read and converted at a time, but for an image that is larger.
pub const PIECE_BYTES: u64 = 1 << 22;

/// How a pixel is stored.
#[derive(Clone, Copy)]
pub(super) enum Format {
    U8,
    /// Little-endian.
    F32,
    /// Little-endian; kept as `f32`.
    F64,
}

impl Format {
    fn bytes(self) -> u64 {
        match self {
            Format::U8 => 1,
            Format::F32 => 4,
            Format::F64 => 8,
        }
    }

    fn pixels(self, bytes: Vec<u8>) -> Result<Pixels, String> {
        let room = || reserved(bytes.len() / self.bytes() as usize);
        Ok(match self {
            Format::U8 => Pixels::U8(bytes),
            Format::F32 => {
                let mut values = room()?;
                values.extend(bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)));
                Pixels::F32(values)
            }
            Format::F64 => {
                let mut values = room()?;
                values.extend(bytes.as_chunks().0.iter().map(|&value| f64::from_le_bytes(value) as f32));
                Pixels::F32(values)
            }
        })
    }
}

/// Images of `shape` whose pixels have their channels beside each other, in channel, row, column order.
fn channels_first<T: Copy>(images: &[T], shape: [usize; 3]) -> Result<Vec<T>, String> {
    let (channels, len) = (shape[0], shape.iter().product());
    let mut values = reserved(images.len())?;
    for image in images.chunks_exact(len) {
        (0..channels).for_each(|channel| values.extend(image[channel..].iter().step_by(channels)));
    }
    Ok(values)
}

/// An empty vector with room for `len` values.
fn reserved<T>(len: usize) -> Result<Vec<T>, String> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| NO_MEMORY)?;
    Ok(values)
}

/// What a header says. Nothing in it is believed.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub count: u64,
    /// Channels, height, width.
    pub shape: [u64; 3],
    /// Whether a pixel has its channels beside each other.
    pub channels_last: bool,
    pub format: Format,
}

impl Layout {
    /// There are images, with pixels, and one of them is not too large.
    pub fn check(&self) -> Result<(), String> {
        let [channels, height, width] = self.shape;
        if self.count == 0 {
            return Err("holds no images; at least one is needed".into());
        }
        if self.shape.contains(&0) {
            return Err(format!("images of {channels} x {height} x {width} have no pixels"));
        }
        self.bytes(1).map(drop)
    }

    /// Bytes of `count` images, if they may be read at once.
    fn bytes(&self, count: u64) -> Result<u64, String> {
        let [channels, height, width] = self.shape;
        let sizes = [channels, height, width, self.format.bytes()];
        let bytes = sizes.iter().try_fold(count, |bytes, &size| bytes.checked_mul(size));
        bytes.filter(|&bytes| bytes <= MAX_BYTES).ok_or_else(|| {
            format!(
                "claims {} images of {channels} x {height} x {width}; at most {MAX_BYTES} bytes of pixels are read at once",
                self.count
            )
        })
    }
}

/// The images after a header.
pub(super) struct Source<R> {
    file: R,
    layout: Layout,
    /// What the header is called in messages.
    header: &'static str,
    /// Images that have been read.
    taken: u64,
}

impl<R: Read> Source<R> {
    /// # Errors
    /// No images, no pixels, or an image that is too large.
    pub fn new(file: R, layout: Layout, header: &'static str) -> Result<Self, String> {
        layout.check()?;
        Ok(Source { file, layout, header, taken: 0 })
    }

    pub fn count(&self) -> u64 {
        self.layout.count
    }

    pub fn shape(&self) -> [usize; 3] {
        self.layout.shape.map(|size| size as usize)
    }

    /// Images that are read together: few, so that reading takes little memory.
    pub fn piece(&self) -> u64 {
        self.layout.bytes(1).map_or(1, |bytes| (PIECE_BYTES / bytes).max(1))
    }

    pub fn file_mut(&mut self) -> &mut R {
        &mut self.file
    }

    /// The file is known to have `bytes` bytes after the header.
    ///
    /// # Errors
    /// The header announces another number.
    pub fn expect_len(&self, bytes: u64) -> Result<(), String> {
        let announced = self.announced();
        if u128::from(bytes) == announced { Ok(()) } else { Err(self.damaged(bytes, announced)) }
    }

    /// The next `count` images, fewer at the end.
    ///
    /// # Errors
    /// More bytes than are read at once; fewer or more in the file than the header announces; the file cannot be read.
    pub fn next(&mut self, count: u64) -> Result<RawImages, String> {
        let count = count.min(self.layout.count - self.taken);
        let expected = self.layout.bytes(count)?;
        // A larger buffer grows as bytes arrive: the header's word is no reason to take memory.
        let mut bytes = reserved(expected.min(PIECE_BYTES) as usize)?;
        let read = (&mut self.file).take(expected).read_to_end(&mut bytes);
        read.map_err(|error| cannot_read(&error))?;
        let before = u128::from(self.taken) * u128::from(self.layout.bytes(1)?);
        if (bytes.len() as u64) < expected {
            return Err(self.damaged(before + bytes.len() as u128, self.announced()));
        }
        self.taken += count;
        if self.taken == self.layout.count && read_up_to(&mut self.file, &mut [0])? > 0 {
            return Err(self.damaged(format!("more than {}", self.announced()), self.announced()));
        }
        let mut pixels = self.layout.format.pixels(bytes)?;
        if self.layout.channels_last {
            pixels = match pixels {
                Pixels::U8(pixels) => Pixels::U8(channels_first(&pixels, self.shape())?),
                Pixels::F32(values) => Pixels::F32(channels_first(&values, self.shape())?),
            };
        }
        Ok(RawImages { pixels, count: count as usize, shape: self.shape() })
    }

    /// All images that are left.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn all(&mut self) -> Result<RawImages, String> {
        self.next(u64::MAX)
    }

    fn announced(&self) -> u128 {
        let [channels, height, width] = self.layout.shape.map(u128::from);
        // An image has at most MAX_BYTES.
        u128::from(self.layout.count) * (channels * height * width * u128::from(self.layout.format.bytes()))
    }

    fn damaged(&self, found: impl std::fmt::Display, announced: u128) -> String {
        format!("{found} bytes follow the {}, which announces {announced}; the file is damaged", self.header)
    }
}

/// Fills `out` as far as the file goes and returns the number of bytes.
pub(super) fn read_up_to(file: &mut impl Read, out: &mut [u8]) -> Result<usize, String> {
    let mut len = 0;
    while len < out.len() {
        match file.read(&mut out[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(cannot_read(&error)),
        }
    }
    Ok(len)
}

const NO_MEMORY: &str = "no memory for its pixels: use a machine with more, or fewer images at a time";

fn cannot_read(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::OutOfMemory => NO_MEMORY.into(),
        // Damaged gzip data says so.
        _ => error.to_string(),
    }
}
