//! `cryptodl decrypt`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use cryptodl::row_kernels;
use cryptodl_client::Decryption;
use cryptodl_client::wire::read_secret_key;
use cryptodl_core::wire::{Binding, CiphertextLayout};
use serde::Serialize;

use crate::files::{self, Sets, Written};
use crate::flags::Limit;
use crate::json::Json;
use crate::memory;
use crate::progress::{Bar, Seconds, timed};
use crate::results::{FORMATS, Results, Shown};
use crate::terminal::counted;

const EXAMPLES: &str = "\
Examples:
  cryptodl decrypt --secret keys/secret/secret.key --spec keys/public/client.spec \\
      --input scores.ct --out labels.csv
  cryptodl decrypt --secret keys/secret/secret.key --spec keys/public/client.spec \\
      --input scores.ct --names digits.ct.names --out labels.csv";

/// Decrypt labels, and scores on request
///
/// Never send what is decrypted back to the server, not even that a result was refused: whoever holds the ciphertexts
/// learns about the secret key from it. Labels follow from the scores before these are rounded.
#[derive(Args)]
#[command(after_help = format!("{FORMATS}\n\n{EXAMPLES}"))]
pub struct Decrypt {
    /// The secret key
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// The client spec that the images were encrypted for
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
    /// Encrypted scores, as `infer` writes them; `-` is standard input
    #[arg(long, value_name = "FILE", value_parser = files::input_path)]
    input: PathBuf,
    /// Where the labels go: a .csv, .json, .npy or .txt file, or `-` for standard output
    #[arg(long, value_name = "FILE")]
    out: Results,
    /// Names of the images, one per line, which `encrypt` wrote beside the ciphertexts
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    json: Json,
}

/// What `decrypt --json` writes.
#[derive(Serialize)]
struct Report {
    model: String,
    images: usize,
    /// Images whose labels are doubtful.
    out_of_range: usize,
    files: Vec<Written>,
    seconds: Seconds,
}

impl Decrypt {
    pub fn run(self) -> Result<()> {
        let outputs: Vec<&Path> = std::iter::once(self.out.path()).chain(self.json.path()).collect();
        let inputs = [&self.secret, &self.spec, &self.input].into_iter().chain(&self.names).map(PathBuf::as_path);
        files::distinct(&outputs, &inputs.collect::<Vec<_>>())?;
        let start = Instant::now();
        let spec = files::read_spec(&self.spec)?;
        let params = spec.params();
        let binding = Binding { program: spec.program, params };
        let secret = files::read(&self.secret, |file| read_secret_key(file, params))?;
        let mut result = Sets::open(&self.input, &spec.model, &binding, &CiphertextLayout::result(&spec))?;
        let info = result.info().clone();
        self.limit.check(&self.input, info.images)?;
        // A set and its slots.
        let slots = (info.values as u64).saturating_mul(8 * params.n() as u64);
        memory::afford(slots.saturating_add(info.set_bytes(params) as u64), &self.spec)?;
        let refused = || self.input.display().to_string();
        let mut decryption = Decryption::new(&spec, &secret, &info).with_context(refused)?;
        decryption = decryption.with_kernels(row_kernels(params));
        let names = self.names.as_ref().map(|path| read_names(path, info.images)).transpose()?;
        let json = self.json.create_beside(self.out.path())?;
        let (bar, mut doubtful) = (Bar::new("decrypt"), 0);
        let mut seconds = Seconds { read: start.elapsed().as_secs_f64(), ..Seconds::default() };
        self.out.create(&self.shown)?.write(&spec, info.images, names.as_deref(), |out| {
            let (mut set, mut done) = (Vec::new(), 0);
            while timed(&mut seconds.read, || result.next(&mut set))? {
                let decrypted = timed(&mut seconds.compute, || decryption.next(&set).with_context(refused))?;
                doubtful += decrypted.out_of_range.iter().filter(|&&doubtful| doubtful).count();
                timed(&mut seconds.write, || out.put(&decrypted))?;
                done += decrypted.labels.len();
                bar.show(done as u64, info.images as u64);
            }
            // Nothing of a damaged file is published.
            result.finish()
        })?;
        drop(bar);
        if doubtful > 0 {
            eprintln!(
                "warning: {doubtful} image(s) have scores far outside the calibrated range, so that their labels are \
                 doubtful; a .json output names them"
            );
        }
        let report = Report {
            model: spec.model.clone(),
            images: info.images,
            out_of_range: doubtful,
            files: vec![Written::at(self.out.path(), "")],
            seconds,
        };
        json.show(&report, || format!("{} decrypted\n{}", counted(info.images, "label"), files::listed(&report.files)))
    }
}

/// Bytes of a file's name that are read.
const MAX_NAME: u64 = 1 << 12;

/// The names of `images` images, one per line.
fn read_names(path: &Path, images: usize) -> Result<Vec<String>> {
    let text = files::read(path, |file| {
        let mut text = String::new();
        file.take(MAX_NAME.saturating_mul(images as u64)).read_to_string(&mut text).map(|_| text)
    })?;
    let names: Vec<String> = text.lines().map(Into::into).collect();
    ensure!(
        names.len() == images,
        "{} has {}, but there are {}: it must be the file that was written beside these ciphertexts",
        path.display(),
        counted(names.len(), "name"),
        counted(images, "result")
    );
    Ok(names)
}
