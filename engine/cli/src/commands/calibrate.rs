//! `cryptodl calibrate`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use cryptodl_network::measure::{measure, measure_channels};
use cryptodl_network::{Calibration, Network};
use cryptodl_plan as plan;
use cryptodl_zoo as zoo;
use serde::Serialize;

use crate::files::{self, Access, Output};
use crate::json::Json;
use crate::prepared::model_files;
use crate::progress::{Bar, Seconds};
use crate::samples::Samples;
use crate::terminal::counted;

/// Measure what the planner must know of a trained network: value ranges, margins, and how each image answers to noise
///
/// Every prediction of `plan` rests on this. Ranges, histograms and margins go into the description (.toml); what is measured image
/// by image goes into a file beside it. Images that the network was trained on make it look surer than it is, so give it images that
/// it has not seen, or has seen only deformed; never the test images.
#[derive(Args)]
#[command(after_help = "\
What helps a network that `plan` refuses, besides a larger --tolerance, is training:
  larger margins     train longer, deform the images, use batch-norm before every activation
  few-bit weights    round the weights to 4 to 8 bits in the forward pass of the last epochs
  small values       batch-norm, or a penalty on large values, before every activation
  less depth         fewer activations, of lower degree

Examples:
  cryptodl calibrate --model my-network.toml --data validation.npy --out calibrated
  cryptodl calibrate --model my-network.toml --data mnist --images 20000 --out calibrated
  cryptodl calibrate --model mnist-1 --keep-ranges --out calibrated")]
pub struct Calibrate {
    /// A shipped model (`cryptodl models` lists them) or a .toml file, in which all calibration may be missing
    #[arg(long)]
    model: String,
    /// Data set (mnist, fashion-mnist, cifar10), of which the training images are taken, or an IDX,
    /// .npy, PNG or JPEG file, or a folder of PNG and JPEG files [default: the model's data set]
    #[arg(long, value_name = "SET|PATH")]
    data: Option<String>,
    /// Measure on so many images, taken at equal distances; of these, 1000 are followed one by one
    #[arg(long, value_name = "K", default_value_t = 10_000)]
    images: usize,
    /// Keep the ranges, histograms and margins that the description states, and measure only single images
    #[arg(long)]
    keep_ranges: bool,
    /// Folder for the calibrated model: description, weights and calibration file
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    json: Json,
}

/// What was measured.
#[derive(Serialize)]
struct Report {
    model: String,
    /// Where the images come from.
    data: String,
    /// Images that ranges and margins were measured on; none where they were kept.
    images: Option<usize>,
    /// Images whose gains are stored.
    followed: usize,
    /// Images that are stored for measuring weight rounding.
    stored: usize,
    /// The description, weights and calibration.
    files: Vec<PathBuf>,
    seconds: Seconds,
}

impl Calibrate {
    pub fn run(self) -> Result<()> {
        ensure!(self.images > 0, "--images 0: at least one image is needed");
        let (start, mut seconds) = (Instant::now(), Seconds::default());
        let mut network = zoo::load(&self.model)?;
        let mut samples = Samples::for_calibration(&network, self.data.as_deref())?;
        samples.spread(self.images);
        seconds.read = start.elapsed().as_secs_f64();
        let (bar, start) = (Bar::new("calibrate"), Instant::now());
        bar.say(format!("ranges and margins on {}", counted(samples.count(), "image")));
        if self.keep_ranges {
            complete(&network)?;
            // They lie in the file that is written.
            measure_channels(&mut network, samples.values.view());
        } else {
            measure(&mut network, samples.values.view());
        }
        bar.say("how every place of the network answers to noise, image by image".into());
        let calibration = plan::calibrate(&network, samples.rows()).with_context(|| format!("model {}", self.model))?;
        drop(bar);
        seconds.compute = start.elapsed().as_secs_f64();

        let comment = format!("Calibrated by `cryptodl calibrate` on {}.", samples.name);
        let model = model_files(&self.model);
        let data = self.data.as_deref().map(Path::new).filter(|data| data.exists());
        let inputs: Vec<&Path> = model.iter().map(PathBuf::as_path).chain(data).collect();
        let files = ModelFiles::new(&network, zoo::weights(&self.model, &network)?, &calibration, &comment, &self.out);
        let outputs: Vec<&Path> = files.paths().chain(self.json.path()).collect();
        files::distinct(&outputs, &inputs)?;
        let start = Instant::now();
        let paths = files.write()?;
        seconds.write = start.elapsed().as_secs_f64();
        let report = Report {
            model: network.name.clone(),
            data: samples.name.clone(),
            images: (!self.keep_ranges).then(|| samples.count()),
            followed: calibration.margins.len(),
            stored: calibration.images.nrows(),
            files: paths,
            seconds,
        };
        self.json.create()?.show(&report, || report.to_string())
    }
}

/// The files of a calibrated network: description, weights and calibration.
pub(super) struct ModelFiles {
    /// In this order.
    contents: [(PathBuf, Vec<u8>); 3],
}

impl ModelFiles {
    /// Those of `network` in `folder`.
    pub(super) fn new(
        network: &Network,
        weights: Vec<u8>,
        calibration: &Calibration,
        comment: &str,
        folder: &Path,
    ) -> Self {
        let stem = network.weights.strip_suffix(".safetensors").unwrap_or(&network.weights);
        let name = format!("{stem}.calibration.safetensors");
        let contents = [
            (format!("{stem}.toml"), network.description(comment, Some(&name)).into_bytes()),
            (network.weights.clone(), weights),
            (name, calibration.to_bytes(network)),
        ];
        ModelFiles { contents: contents.map(|(name, bytes)| (folder.join(name), bytes)) }
    }

    /// Where they will be, the description first.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.contents.iter().map(|(path, _)| path.as_path())
    }

    /// Writes all of them or none, and gives their paths.
    pub(super) fn write(self) -> Result<Vec<PathBuf>> {
        if let Some(folder) = self.contents[0].0.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make folder {}", folder.display()))?;
        }
        let write = |(path, bytes): &(PathBuf, Vec<u8>)| -> Result<Output> {
            let output = Output::create(path, Access::Everybody)?;
            output.fill(|file| file.write_all(bytes))?;
            Ok(output)
        };
        files::publish_all(self.contents.iter().map(write).collect::<Result<_>>()?)?;
        Ok(self.contents.map(|(path, _)| path).into())
    }
}

/// Refuses a description that lacks what is to be kept.
fn complete(network: &Network) -> Result<()> {
    let lacking = network.layers.iter().find(|layer| layer.output_range.is_none() || layer.input_rms.is_none());
    match (lacking, &network.output) {
        (None, Some(_)) => Ok(()),
        (Some(layer), _) => bail!(
            "--keep-ranges: layer {} of {} states no input_rms or no output_range: leave the flag out",
            layer.name,
            network.name
        ),
        (None, None) => bail!("--keep-ranges: {} has no [output] section: leave the flag out", network.name),
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ranges = match self.images {
            Some(images) => format!("ranges and margins on {images} images of {}", self.data),
            None => "ranges and margins kept".into(),
        };
        writeln!(
            f,
            "{}: {ranges}; {} images followed one by one; {} stored for measuring weight rounding",
            self.model, self.followed, self.stored
        )?;
        self.files.iter().try_for_each(|file| writeln!(f, "wrote {}", file.display()))?;
        writeln!(f, "next: cryptodl plan --model {}", self.files[0].display())
    }
}
