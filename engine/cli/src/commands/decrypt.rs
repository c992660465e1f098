//! `cryptodl decrypt`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::Args;
use cryptodl_client::wire::read_secret_key;
use cryptodl_client::{Decrypted, decrypt, score_decimals};
use cryptodl_core::ckks::ClientSpec;
use cryptodl_core::wire::{Binding, CiphertextLayout, read_ciphertexts};
use serde_json::json;

use crate::files::{self, Access, Output};

/// Decrypt labels and scores
///
/// Scores are rounded to the digits that are not noise; do not give finer ones away, noise tells about the key.
#[derive(Args)]
#[command(after_help = "\
The name of --out says what is written:
  .csv   index,label,score_0,score_1,...
  .json  the same, and whether a score is far outside the calibrated range, which makes a label doubtful
  .npy   the scores, float32, images x classes

Example:
  cryptodl decrypt --secret keys/secret.key --spec keys/client.spec --input scores.ct --out labels.csv")]
pub struct Decrypt {
    /// The secret key
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// The client spec that the keys were made for
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
    /// Encrypted scores, as `infer` writes them
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where labels and scores go: a .csv, .json or .npy file
    #[arg(long, value_name = "FILE")]
    out: Target,
}

impl Decrypt {
    pub fn run(self) -> Result<()> {
        let (spec, params) = files::read_spec(&self.spec)?;
        let binding = Binding { program: spec.program, params: &params };
        let secret = files::read(&self.secret, |file| read_secret_key(file, &binding))?;
        let result =
            files::read(&self.input, |file| read_ciphertexts(file, &binding, &CiphertextLayout::result(&spec)))?;
        let out = Output::create(&self.out.path, Access::Everybody)?;
        let decrypted = decrypt(&spec, &params, &secret, &result).with_context(|| self.input.display().to_string())?;
        let doubtful = decrypted.out_of_range.iter().filter(|&&doubtful| doubtful).count();
        if doubtful > 0 {
            eprintln!(
                "warning: {doubtful} image(s) have scores far outside the calibrated range; their labels are doubtful (a .json output names them)"
            );
        }
        out.write(|file| match self.out.format {
            Format::Csv => write_csv(file, &spec, &decrypted),
            Format::Json => write_json(file, &spec, &decrypted),
            Format::Npy => write_npy(file, &decrypted),
        })
    }
}

/// An output file whose name says its format.
#[derive(Clone)]
struct Target {
    path: PathBuf,
    format: Format,
}

#[derive(Clone, Copy)]
enum Format {
    Csv,
    Json,
    Npy,
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = PathBuf::from(text);
        let format = match path.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => Format::Csv,
            Some("json") => Format::Json,
            Some("npy") => Format::Npy,
            _ => return Err("the name must end in .csv, .json or .npy"),
        };
        Ok(Target { path, format })
    }
}

fn write_csv(file: &mut dyn Write, spec: &ClientSpec, decrypted: &Decrypted) -> io::Result<()> {
    let decimals = score_decimals(spec.output.noise) as usize;
    write!(file, "index,label")?;
    (0..decrypted.classes).try_for_each(|class| write!(file, ",score_{class}"))?;
    writeln!(file)?;
    let images = decrypted.labels.iter().zip(decrypted.scores.chunks_exact(decrypted.classes));
    for (index, (label, scores)) in images.enumerate() {
        write!(file, "{index},{label}")?;
        scores.iter().try_for_each(|score| write!(file, ",{score:.decimals$}"))?;
        writeln!(file)?;
    }
    Ok(())
}

fn write_json(file: &mut dyn Write, spec: &ClientSpec, decrypted: &Decrypted) -> io::Result<()> {
    let scores = decrypted.scores.chunks_exact(decrypted.classes);
    let images = decrypted.labels.iter().zip(scores).zip(&decrypted.out_of_range).enumerate();
    let images: Vec<_> = images
        .map(|(index, ((label, scores), out_of_range))| {
            json!({ "index": index, "label": label, "scores": scores, "out_of_range": out_of_range })
        })
        .collect();
    serde_json::to_writer(&mut *file, &json!({ "model": spec.model, "program": spec.program, "images": images }))?;
    writeln!(file)
}

/// Version 1.0 of NumPy's format: the header is padded so that the values start at a multiple of 64 bytes.
fn write_npy(file: &mut dyn Write, decrypted: &Decrypted) -> io::Result<()> {
    let shape = format!("({}, {})", decrypted.labels.len(), decrypted.classes);
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let len = (10 + header.len() + 1).next_multiple_of(64) - 10;
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&(len as u16).to_le_bytes())?;
    writeln!(file, "{header:<width$}", width = len - 1)?;
    decrypted.scores.iter().try_for_each(|&score| file.write_all(&(score as f32).to_le_bytes()))
}
