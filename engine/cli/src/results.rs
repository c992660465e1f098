//! Labels and scores as files.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use cryptodl_client::Decrypted;
use cryptodl_core::ckks::ClientSpec;
use serde_json::json;

use crate::files::{Access, Output};

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
    pub fn create(&self) -> Result<ResultsOutput> {
        Ok(ResultsOutput { output: Output::create(&self.path, Access::Everybody)?, format: self.format })
    }
}

impl ResultsOutput {
    pub fn write(self, spec: &ClientSpec, decrypted: &Decrypted) -> Result<()> {
        self.output.write(|file| match self.format {
            Format::Csv => write_csv(file, decrypted),
            Format::Json => write_json(file, spec, decrypted),
            Format::Npy => write_npy(file, decrypted),
        })
    }
}

fn write_csv(file: &mut dyn Write, decrypted: &Decrypted) -> io::Result<()> {
    let decimals = decrypted.decimals as usize;
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
