//! Pictures: a PNG or JPEG file, or a folder of some.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use cryptodl_network::text::one_line;

use super::array::{MAX_BYTES, PIECE_BYTES};
use super::error::{ImageError, open_file, shown};
use super::picture::Header;
use super::raw::{Pixels, RawImages};

/// Ends of the names of the files that are taken from a folder, in small letters.
const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];
/// Names of files that a note lists.
const LISTED: usize = 5;

/// Whether a file of this name in a folder of images is taken for one.
pub fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known))
}

/// Pictures of one size, which are decoded when their turn comes.
pub(super) struct Files {
    paths: Vec<PathBuf>,
    names: Vec<String>,
    /// Channels, height, width of all images, after colours became grey or the other way round.
    shape: [usize; 3],
    /// What the user should know.
    pub notes: Vec<String>,
    taken: usize,
}

impl Files {
    /// All images of a folder in the order of their names; `channels` are those that they are to
    /// have, else those of the first.
    pub fn folder(folder: &Path, channels: Option<usize>) -> Result<Self, ImageError> {
        let unread = |source| ImageError::Read { path: folder.to_owned(), source };
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .map_err(unread)?;
        paths.sort();
        let (paths, others): (Vec<PathBuf>, Vec<PathBuf>) = paths.into_iter().partition(|path| is_image_name(path));
        if paths.is_empty() {
            let problem = "holds no .png, .jpg or .jpeg files; at least one image is needed".into();
            return Err(ImageError::File { path: folder.to_owned(), problem });
        }
        let mut files = Self::new(paths, channels)?;
        files.notes.extend(left_out(folder, &others));
        Ok(files)
    }

    /// One file.
    pub fn one(path: &Path, channels: Option<usize>) -> Result<Self, ImageError> {
        Self::new(vec![path.to_owned()], channels)
    }

    fn new(paths: Vec<PathBuf>, channels: Option<usize>) -> Result<Self, ImageError> {
        let header = Header::read(open_file(&paths[0])?);
        let [stored, height, width] =
            header.map_err(|problem| ImageError::File { path: paths[0].clone(), problem })?.shape();
        // Of other numbers nothing can be made.
        let channels = channels.filter(|channels| [1, 3].contains(channels)).unwrap_or(stored);
        let conversion = match (stored, channels) {
            (3, 1) => Some("colours become shades of grey, because the network takes one channel"),
            (1, 3) => Some("grey becomes three equal channels, because the network takes colours"),
            _ => None,
        };
        let notes = conversion.map(|what| format!("{}: {what}", shown(&paths[0]))).into_iter().collect();
        let name =
            |path: &PathBuf| one_line(&path.file_name().map(OsString::from).unwrap_or_default().to_string_lossy());
        let names = paths.iter().map(name).collect();
        Ok(Files { names, paths, shape: [channels, height, width], notes, taken: 0 })
    }

    /// Images that are read together.
    pub fn piece(&self) -> usize {
        (PIECE_BYTES as usize / self.shape.iter().product::<usize>()).max(1)
    }

    pub fn count(&self) -> usize {
        self.paths.len()
    }

    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Names of the files, without folders.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The next `count` images, fewer at the end.
    pub fn next(&mut self, count: usize) -> Result<RawImages, ImageError> {
        let count = count.min(self.paths.len() - self.taken);
        let mut all = Vec::new();
        for path in &self.paths[self.taken..][..count] {
            let wrong = |problem| ImageError::File { path: path.clone(), problem };
            // What it decodes to is known before it is paid for.
            let header = Header::read(open_file(path)?).map_err(wrong)?;
            let [_, height, width] = header.shape();
            let [channels, expected_height, expected_width] = self.shape;
            if [height, width] != [expected_height, expected_width] {
                return Err(wrong(format!(
                    "image of {height} x {width} pixels but {} has {expected_height} x {expected_width} (height x width); \
                     all images of a folder must have one size",
                    shown(&self.paths[0])
                )));
            }
            let read = |source| ImageError::Read { path: path.clone(), source };
            let mut bytes = Vec::new();
            open_file(path)?.take(header.largest_file() + 1).read_to_end(&mut bytes).map_err(read)?;
            let picture = header.decode(&bytes).map_err(wrong)?.with_channels(channels);
            if (all.len() + picture.interleaved.len()) as u64 > MAX_BYTES {
                return Err(wrong(format!("more than {MAX_BYTES} bytes of pixels are not read at once")));
            }
            all.extend(picture.planes());
        }
        self.taken += count;
        Ok(RawImages { pixels: Pixels::U8(all), count, shape: self.shape })
    }
}

/// Files of a folder that are no images; hidden ones are nobody's concern.
fn left_out(folder: &Path, others: &[PathBuf]) -> Option<String> {
    let names: Vec<String> = others
        .iter()
        .filter_map(|path| Some(one_line(&path.file_name()?.to_string_lossy())))
        .filter(|name| !name.starts_with('.'))
        .collect();
    let more = if names.len() > LISTED { ", ..." } else { "" };
    let listed = names.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| {
        format!(
            "{} of the entries of {} are not .png, .jpg or .jpeg and are left out: {listed}{more}",
            names.len(),
            shown(folder)
        )
    })
}
