//! `cryptodl import`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use cryptodl_network::limits::{MAX_CLASS_NAMES_BYTES, MAX_MARGINS};
use cryptodl_network::measure::measure;
use cryptodl_onnx::{self as onnx, ImageLayout, ImportOptions};
use cryptodl_plan as plan;
use serde::Serialize;

use super::calibrate::ModelFiles;
use crate::advice;
use crate::files;
use crate::flags::Planning;
use crate::json::Json;
use crate::samples::Samples;
use crate::terminal::printable;

/// Make a model of an ONNX file: read its network, measure it on images, and plan it
///
/// The model is a folder that every --model takes. ONNX says nothing of what pixels are to the
/// network, so say it with --scale, --mean and --std if it was trained on other values than 0 to 1.
/// The model has all of this, and the --tolerance if there is one.
/// Images to measure on should be ones that the network has not seen in training.
#[derive(Args)]
#[command(after_help = "\
What a network may have, and what to use instead of the rest, is in docs/onnx.md.

Examples:
  cryptodl import my-network.onnx --calibration validation.npy --out my-network
  cryptodl import my-network.onnx --calibration mnist --out my-network --mean 0.1307 --std 0.3081
  cryptodl import my-network.onnx --calibration validation.npy --out my-network \\
      --labels classes.txt
  cryptodl run --model my-network --data test.npy")]
pub struct Import {
    /// The ONNX file; its external data, if any, lies in the same folder
    #[arg(value_name = "FILE.onnx")]
    file: PathBuf,
    /// Images to measure on, at least 1000: a data set (mnist, fashion-mnist, cifar10), of which the
    /// training images are taken, or an IDX, .npy or PNG file, or a folder of PNG files
    #[arg(long, value_name = "SET|PATH")]
    calibration: String,
    /// Folder for the model: description, weights and calibration
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the model [default: that of the file]
    #[arg(long)]
    name: Option<String>,
    /// What a pixel from 0 to 255 is multiplied by [default: 1/255]
    #[arg(long, value_name = "FACTOR")]
    scale: Option<f64>,
    /// What is then subtracted: one number, or one for each channel
    #[arg(long, value_name = "M,...", value_delimiter = ',', default_value = "0", allow_negative_numbers = true)]
    mean: Vec<f64>,
    /// What the difference is then divided by: one number, or one for each channel
    #[arg(long, value_name = "S,...", value_delimiter = ',', default_value = "1")]
    std: Vec<f64>,
    /// Where the input of the file has its channels [default: last where the file itself brings them
    /// to the front, else first]
    #[arg(long)]
    layout: Option<Layout>,
    /// Channels, rows and columns of an image, where the file leaves them open or takes vectors
    #[arg(long, value_name = "C,H,W", value_delimiter = ',', num_args = 1)]
    shape: Option<Vec<usize>>,
    /// Names of the classes: a text file with one line for each output of the network. Results then
    /// have them beside the labels
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Measure on so many images, taken at equal distances
    #[arg(long, value_name = "K", default_value_t = 10_000)]
    images: usize,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    planning: Planning,
}

#[derive(Clone, Copy, ValueEnum)]
enum Layout {
    /// Image, channel, row, column
    Nchw,
    /// Image, row, column, channel
    Nhwc,
}

/// What was seen, measured and planned.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    producer: &'a str,
    opset: i64,
    nodes: usize,
    folded: usize,
    class_names: &'a [String],
    layers: Vec<Layer<'a>>,
    multiply_adds: u64,
    depth: u32,
    notes: &'a [String],
    /// Images that were measured on.
    images: usize,
    files: &'a [PathBuf],
    plan: &'a plan::PlanReport,
}

#[derive(Serialize)]
struct Layer<'a> {
    name: &'a str,
    kind: &'a str,
    degree: Option<usize>,
    output: String,
    multiply_adds: u64,
}

impl Import {
    pub fn run(self) -> Result<()> {
        ensure!(self.images > 0, "--images 0: at least one image is needed");
        let options = self.options()?;
        let shown = || self.file.display().to_string();
        let onnx::Imported { mut network, seen } = onnx::import(&self.file, &options).with_context(shown)?;
        if let Some(path) = &self.labels {
            let names = read_class_names(path)?;
            let named = network.changed(|spec| spec.class_names = names);
            network = named.with_context(|| path.display().to_string())?;
        }
        let planning = self.planning.options();
        if let Some(tolerance) = planning.tolerance {
            network = network.changed(|spec| spec.tolerance = Some(tolerance.total())).context("--tolerance")?;
        }
        let mut samples = Samples::for_calibration(&network, Some(&self.calibration))?;
        samples.spread(self.images);
        if samples.count() < MAX_MARGINS {
            eprintln!(
                "warning: {} images are few to measure on; predictions of changed labels rest on {MAX_MARGINS} or more",
                samples.count()
            );
        }
        measure(&mut network, samples.values.view());
        let calibration = plan::calibrate(&network, samples.rows()).with_context(shown)?;
        let comment = format!("Imported from ONNX by `cryptodl import`, calibrated on {}.", samples.name);
        let files = ModelFiles::new(&network, network.weight_file(), &calibration, &comment, &self.out);
        let outputs: Vec<&Path> = files.paths().chain(self.json.path()).collect();
        let inputs: Vec<&Path> = std::iter::once(&self.file).chain(&self.labels).map(PathBuf::as_path).collect();
        files::distinct(&outputs, &inputs)?;
        let files = files.write()?;
        network.calibration = Some(calibration);

        let wrote: String = files.iter().map(|file| format!("wrote {}\n", file.display())).collect();
        let json = self.json.create()?;
        let planned = match plan::plan(&network, &planning) {
            Ok(planned) => planned,
            Err(error) => {
                // What was seen helps to understand it, and the model may fit with other flags.
                eprint!("{}", printable(&format!("{seen}{wrote}")));
                return Err(error).with_context(|| format!("{} cannot be planned as it is", network.name));
            }
        };
        let layers = seen.layers.iter().map(|layer| Layer {
            name: &layer.name,
            kind: layer.kind,
            degree: layer.degree,
            output: layer.output.to_string(),
            multiply_adds: layer.multiply_adds,
        });
        let report = Report {
            model: &network.name,
            producer: &seen.producer,
            opset: seen.opset,
            nodes: seen.nodes,
            folded: seen.folded,
            class_names: &network.class_names,
            layers: layers.collect(),
            multiply_adds: seen.multiply_adds,
            depth: seen.depth,
            notes: &seen.notes,
            images: samples.count(),
            files: &files,
            plan: &planned.report,
        };
        json.show(&report, || {
            let next = format!("next: cryptodl run --model {} --data SET|PATH", self.out.display());
            format!("{seen}\n{}\n{wrote}{next}\n", advice::with_report(&planned.report).trim_end())
        })
    }

    /// What the flags say of the file.
    fn options(&self) -> Result<ImportOptions> {
        let stem = self.file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let allowed = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '-' };
        let name = self.name.clone().unwrap_or_else(|| stem.chars().map(allowed).take(64).collect());
        let shape = match self.shape.as_deref() {
            None => None,
            Some(&[channels, height, width]) => Some([channels, height, width]),
            Some(other) => bail!("--shape has {} numbers; it must be channels,rows,columns", other.len()),
        };
        let layout = self.layout.map(|layout| match layout {
            Layout::Nchw => ImageLayout::ChannelsFirst,
            Layout::Nhwc => ImageLayout::ChannelsLast,
        });
        Ok(ImportOptions { pixels: self.pixels()?, layout, shape, ..ImportOptions::new(&name) })
    }

    /// What the pixels 0 and 255 are to the network.
    fn pixels(&self) -> Result<Vec<[f64; 2]>> {
        let (mean, std) = (&self.mean, &self.std);
        let channels = mean.len().max(std.len());
        ensure!(
            [mean.len(), std.len()].iter().all(|&len| len == 1 || len == channels),
            "--mean has {} numbers and --std has {}; give one number, or one for each channel",
            mean.len(),
            std.len()
        );
        ensure!(std.iter().all(|&std| std.is_finite() && std > 0.0), "--std must be greater than zero");
        let top = self.scale.map_or(1.0, |scale| 255.0 * scale);
        ensure!(top.is_finite() && top > 0.0, "--scale must be greater than zero");
        let of = |list: &[f64], channel: usize| list[if list.len() == 1 { 0 } else { channel }];
        Ok((0..channels).map(|c| [0.0, top].map(|pixel| (pixel - of(mean, c)) / of(std, c))).collect())
    }
}

/// The lines of a text file, without spaces around them and without a mark of byte order at the start.
fn read_class_names(path: &Path) -> Result<Vec<String>> {
    // Names, and the ends of their lines.
    let most = 3 * MAX_CLASS_NAMES_BYTES as u64;
    let bytes = files::read(path, |file| {
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).map(|_| bytes)
    })?;
    ensure!(
        bytes.len() as u64 <= most,
        "{} has more than {most} bytes; it must be a text of one line for each class",
        path.display()
    );
    let text = String::from_utf8(bytes)
        .with_context(|| format!("{} is not UTF-8; it must be a text of one line for each class", path.display()))?;
    Ok(text.trim_start_matches('\u{feff}').lines().map(|line| line.trim().into()).collect())
}
