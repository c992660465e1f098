//! Labels and scores as files.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use clap::Args;
use cryptodl_client::Decrypted;
use cryptodl_core::ckks::ClientSpec;
use serde_json::json;

use crate::files::{Access, Output};

/// What is written of a result.
#[derive(Args)]
pub struct Shown {
    /// Write scores beside the labels, rounded so coarsely that none of their noise is seen: to the next of 1, 2, 5, 10,
    /// ... above eight standard deviations of it
    #[arg(long, requires = "out")]
    scores: bool,
}

/// An output file whose name says its format.
#[derive(Clone)]
pub struct Results {
    path: PathBuf,
    format: Format,
}

/// [`Results`] that can be written.
pub struct ResultsOutput {
    output: Output,
    format: Format,
    scores: bool,
}

#[derive(Clone, Copy)]
enum Format {
    Csv,
    Json,
    Npy,
}

impl FromStr for Results {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let path = PathBuf::from(text);
        let format = match path.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => Format::Csv,
            Some("json") => Format::Json,
            Some("npy") => Format::Npy,
            _ => return Err("the name must end in .csv, .json or .npy"),
        };
        Ok(Results { path, format })
    }
}

impl Results {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As [`Output::create`].
    pub fn create(&self, shown: &Shown) -> Result<ResultsOutput> {
        let output = Output::create(&self.path, Access::Everybody)?;
        Ok(ResultsOutput { output, format: self.format, scores: shown.scores })
    }
}

impl ResultsOutput {
    pub fn write(self, spec: &ClientSpec, decrypted: &Decrypted) -> Result<()> {
        self.output.write(|file| match self.format {
            Format::Csv => write_csv(file, decrypted, self.scores),
            Format::Json => write_json(file, spec, decrypted, self.scores),
            Format::Npy => write_npy(file, decrypted, self.scores),
        })
    }
}

fn write_csv(file: &mut dyn Write, decrypted: &Decrypted, scores: bool) -> io::Result<()> {
    let decimals = decrypted.unit.decimals();
    let columns = if scores { decrypted.classes } else { 0 };
    write!(file, "index,label")?;
    (0..columns).try_for_each(|class| write!(file, ",score_{class}"))?;
    writeln!(file)?;
    let images = decrypted.labels.iter().zip(decrypted.scores.chunks_exact(decrypted.classes));
    for (index, (label, scores)) in images.enumerate() {
        write!(file, "{index},{label}")?;
        scores[..columns].iter().try_for_each(|score| write!(file, ",{score:.decimals$}"))?;
        writeln!(file)?;
    }
    Ok(())
}

fn write_json(file: &mut dyn Write, spec: &ClientSpec, decrypted: &Decrypted, scores: bool) -> io::Result<()> {
    let images = decrypted.labels.iter().zip(decrypted.scores.chunks_exact(decrypted.classes));
    let images = images.zip(&decrypted.out_of_range).enumerate().map(|(index, ((label, row), out_of_range))| {
        let mut image = json!({ "index": index, "label": label, "out_of_range": out_of_range });
        if scores {
            image["scores"] = json!(row);
        }
        image
    });
    let mut result = json!({ "model": spec.model, "program": spec.program, "images": images.collect::<Vec<_>>() });
    if scores {
        result["score_unit"] = json!(decrypted.unit.value());
    }
    serde_json::to_writer(&mut *file, &result)?;
    writeln!(file)
}

/// Version 1.0 of NumPy's format: the header is padded so that the values start at a multiple of 64 bytes.
fn write_npy(file: &mut dyn Write, decrypted: &Decrypted, scores: bool) -> io::Result<()> {
    let images = decrypted.labels.len();
    let (kind, shape) =
        if scores { ("<f4", format!("({images}, {})", decrypted.classes)) } else { ("<u4", format!("({images},)")) };
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    let len = (10 + header.len() + 1).next_multiple_of(64) - 10;
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&(len as u16).to_le_bytes())?;
    writeln!(file, "{header:<width$}", width = len - 1)?;
    if scores {
        decrypted.scores.iter().try_for_each(|&score| file.write_all(&(score as f32).to_le_bytes()))
    } else {
        decrypted.labels.iter().try_for_each(|label| file.write_all(&label.to_le_bytes()))
    }
}
