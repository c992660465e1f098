//! `cryptodl run`.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::classify::{Session, classify};
use crate::files::{self, Written};
use crate::flags::{Checkpointing, Execution, Planning, TestSeed};
use crate::json::Json;
use crate::prepared::{Prepared, model_files};
use crate::report::RunReport;
use crate::results::{Results, Shown};
use crate::samples::Samples;

/// Encrypt, classify and decrypt in one process, with a full report
///
/// Generates keys, encrypts test images, classifies them under encryption, decrypts the labels, and compares them with
/// the same network in plaintext. A data set that is absent is fetched first.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cryptodl run --model mnist-1
  cryptodl run --model mnist-1 --images 10000 --backend cpu --json -
  cryptodl run --model mnist-1 --schedule layered --images 500
  cryptodl run --model my-network.toml --data my-images/ --out labels.csv
  cryptodl run --model mnist-2 --checkpoint run.checkpoint    # may be killed and begun again")]
pub struct Run {
    /// A shipped model (`cryptodl models` lists them) or a .toml file (docs/networks.md)
    #[arg(long)]
    model: String,
    /// Data set (mnist, fashion-mnist, cifar10), or an IDX, .npy, PNG or JPEG file, or a folder of
    /// PNG and JPEG files [default: the model's]
    #[arg(long, value_name = "SET|PATH")]
    data: Option<String>,
    /// True labels of your own images, an IDX file; without it no accuracy is reported
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Classify the first K images only [default: all]
    #[arg(long, value_name = "K")]
    images: Option<usize>,
    /// Compute K times and report the median; the first time can be slower
    #[arg(long, value_name = "K", default_value = "1", conflicts_with = "folder")]
    repeat: NonZeroUsize,
    /// Write the decrypted labels, as `decrypt` does: a .csv, .json, .npy or .txt file
    #[arg(long, value_name = "FILE")]
    out: Option<Results>,
    #[command(flatten)]
    checkpoint: Checkpointing,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    planning: Planning,
    #[command(flatten)]
    execution: Execution,
    #[command(flatten)]
    seed: TestSeed,
}

impl Run {
    pub fn run(self) -> Result<()> {
        let outputs: Vec<&Path> = self.out.iter().map(Results::path).chain(self.json.path()).collect();
        let model = model_files(&self.model);
        let data = self.data.as_deref().map(Path::new).filter(|data| data.exists());
        let inputs = data.into_iter().chain(self.labels.as_deref()).chain(model.iter().map(PathBuf::as_path));
        files::distinct(&outputs, &inputs.collect::<Vec<_>>())?;
        let prepared = Prepared::new(&self.model, &self.planning.options(), &self.execution)?;
        let mut samples = Samples::load(prepared.network(), self.data.as_deref(), self.labels.as_deref())?;
        if let Some(images) = self.images {
            samples.truncate(images)?;
        }
        let out = self.out.as_ref().map(|out| out.create(&self.shown)).transpose()?;
        let json = match &self.out {
            Some(out) => self.json.create_beside(out.path())?,
            None => self.json.create()?,
        };
        let outcome = match &self.checkpoint.folder {
            None => classify(&prepared, &samples, &self.seed, self.repeat)?,
            Some(folder) => Session::resume(&prepared, &samples, folder, self.checkpoint.thrift())?.finish()?,
        };
        if let Some(out) = out {
            let names = samples.names.as_deref();
            out.write(prepared.spec(), samples.count(), names, |out| out.put(&outcome.decrypted))?;
        }
        let report = RunReport::new(&prepared, &samples, &outcome);
        if let Some(warning) = report.broken_promise(prepared.plan.program.content.tolerance) {
            eprintln!("warning: {warning}");
        }
        let files: Vec<Written> = self.out.iter().map(|out| Written::at(out.path(), "")).collect();
        json.show(&report, || report.to_string() + &files::listed(&files))?;
        let remove = |folder: &PathBuf| {
            fs::remove_dir_all(folder).with_context(|| format!("cannot delete {}", folder.display()))
        };
        self.checkpoint.folder.as_ref().map_or(Ok(()), remove)
    }
}
