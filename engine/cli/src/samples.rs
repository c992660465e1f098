//! Images to classify, with labels where they are known.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use cryptodl_data::images::{self, ImageError, ImageFile, PIECE_BYTES};
use cryptodl_data::{self as data, DatasetId, FetchOptions, Progress, Split};
use cryptodl_network::InputSpec;
use cryptodl_network::Network;
use ndarray::{Array4, ArrayView2, Axis, Slice};

use crate::memory::show_size;
use crate::progress::Bar;
use crate::signals;
use crate::terminal::printable;

/// Bytes that reading images takes beside their values: a piece as it is stored, and as numbers.
pub const READING: u64 = 3 * PIECE_BYTES;

pub struct Samples {
    /// Where they come from, for reports.
    pub name: String,
    /// N x channels x height x width, in the network's range.
    pub values: Array4<f32>,
    pub labels: Option<Vec<u8>>,
    /// Names of the files that the images come from, one for each image, where they come from files
    /// of their own.
    pub names: Option<Vec<String>>,
}

impl Samples {
    /// The test images of the data set `data`, or the images in the file or folder `data`; without it those of the
    /// network's own data set. A data set that is absent is fetched first.
    pub fn load(network: &Network, data: Option<&str>, labels: Option<&Path>) -> Result<Self> {
        let mut samples = Self::of(network, data, Split::Test)?;
        if let Some(path) = labels {
            samples.labels = Some(images::read_labels(path, samples.count())?);
        }
        Ok(samples)
    }

    /// The same with the training images of data sets.
    pub fn for_calibration(network: &Network, data: Option<&str>) -> Result<Self> {
        Self::of(network, data, Split::Train)
    }

    fn of(network: &Network, data: Option<&str>, split: Split) -> Result<Self> {
        match (data.map(str::parse::<DatasetId>), data, network.dataset) {
            (None, _, None) => bail!("{} names no data set: say with --data which images to take", network.name),
            (Some(Ok(id)), ..) | (None, _, Some(id)) => Self::set(network, id, split),
            (Some(Err(_)), Some(path), _) if Path::new(path).exists() => {
                let (values, names) = read_images(Path::new(path), &network.input)?;
                Ok(Self { name: path.into(), values, labels: None, names })
            }
            (Some(Err(unknown)), ..) => {
                Err(anyhow!(unknown).context("--data names no file or folder, and no data set"))
            }
        }
    }

    fn set(network: &Network, id: DatasetId, split: Split) -> Result<Self> {
        // Known before anything is fetched.
        if id.shape() != network.input.shape {
            return Err(ImageError::Shape { expected: network.input.shape, actual: id.shape() })
                .with_context(|| format!("data set {id} does not fit {}", network.name));
        }
        fetch(id, &FetchOptions { split: Some(split), ..FetchOptions::default() })?;
        let set = data::load(id, split, &FetchOptions::default())?;
        let values = set.images.to_values(&network.input).with_context(|| format!("data set {id}"))?;
        let part = match split {
            Split::Train => "training",
            Split::Test => "test",
        };
        Ok(Samples { name: format!("{id}-{part}"), values, labels: Some(set.labels), names: None })
    }

    /// Keeps at most `count` images at equal distances, without labels.
    pub fn spread(&mut self, count: usize) {
        let (all, taken) = (self.count(), count.min(self.count()));
        let rows: Vec<usize> = (0..taken).map(|i| i * all / taken).collect();
        self.values = self.values.select(Axis(0), &rows);
        (self.labels, self.names) = (None, None);
    }

    /// Keeps the first `count`.
    pub fn truncate(&mut self, count: usize) -> Result<()> {
        ensure!(count > 0, "--images 0: at least one image is needed");
        ensure!(count <= self.count(), "--images {count}: {} has {} images", self.name, self.count());
        self.values = self.values.slice_axis(Axis(0), Slice::from(..count)).to_owned();
        if let Some(labels) = &mut self.labels {
            labels.truncate(count);
        }
        if let Some(names) = &mut self.names {
            names.truncate(count);
        }
        Ok(())
    }

    pub fn count(&self) -> usize {
        self.values.dim().0
    }

    /// All pixels, one image after the other.
    pub fn pixels(&self) -> &[f32] {
        self.values.as_slice().expect("images are in standard order")
    }

    /// One image per row.
    pub fn rows(&self) -> ArrayView2<'_, f32> {
        let count = self.count();
        ArrayView2::from_shape((count, self.values.len() / count), self.pixels()).expect("an image is a row")
    }
}

/// Makes sure that a data set is in the cache.
pub fn fetch(id: DatasetId, options: &FetchOptions) -> Result<std::path::PathBuf> {
    let bar = Bar::new("fetch");
    let options = &FetchOptions { cancel: Some(&signals::STOPPING), ..options.clone() };
    let folder = data::fetch(id, options, &mut |progress| match progress {
        Progress::Step(step) => bar.say(step.into()),
        Progress::Temporary(path) => signals::delete_at_end(path),
        Progress::Received { file, bytes, total } => {
            bar.say(file.into());
            bar.show(bytes, total);
        }
    })?;
    Ok(folder)
}

/// Images in a file or folder, of the shape that `input` says. What was left out or converted is
/// said.
pub fn open_images(path: &Path, input: &InputSpec) -> Result<ImageFile> {
    let images = ImageFile::open(path, Some(input.shape)).map_err(|error| named(path, error))?;
    images.notes().iter().for_each(|note| eprintln!("note: {}", printable(note)));
    Ok(images)
}

/// All images of a file or folder, of the shape and range that `input` says, and the names of their
/// files. What they take is compared with the memory that is free before they are read: a small
/// compressed file can hold many.
pub fn read_images(path: &Path, input: &InputSpec) -> Result<(Array4<f32>, Option<Vec<String>>)> {
    let mut images = open_images(path, input)?;
    let values =
        images.shape().iter().fold(images.count() as u64, |product, &size| product.saturating_mul(size as u64));
    let (needed, free) = (values.saturating_mul(4).saturating_add(READING), cryptodl::default_budget());
    ensure!(
        needed <= free,
        "{} holds {} images, which need {} of memory at once, and {} may be used here: split it, or use `encrypt`, `infer` \
         and `decrypt`, which take one set after the other",
        path.display(),
        images.count(),
        show_size(needed),
        show_size(free)
    );
    let names = images.names().map(<[String]>::to_vec);
    Ok((next_values(&mut images, path, usize::MAX, input)?, names))
}

/// The next `count` images, in the range that `input` says.
pub fn next_values(images: &mut ImageFile, path: &Path, count: usize, input: &InputSpec) -> Result<Array4<f32>> {
    images.next_values(count, input).map_err(|error| named(path, error))
}

/// The error with the file that it is about.
fn named(path: &Path, error: ImageError) -> anyhow::Error {
    match error {
        unnamed @ (ImageError::Shape { .. } | ImageError::Value { .. } | ImageError::Memory { .. }) => {
            anyhow!(unnamed).context(path.display().to_string())
        }
        named => named.into(),
    }
}
