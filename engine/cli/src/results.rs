//! Labels and scores as files.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use clap::Args;
use cryptodl_client::{Decrypted, ScoreUnit};
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

    /// As [`Output::create`]. Only its owner may read it: it is what was encrypted.
    pub fn create(&self, shown: &Shown) -> Result<ResultsOutput> {
        let output = Output::create(&self.path, Access::Owner)?;
        Ok(ResultsOutput { output, format: self.format, scores: shown.scores })
    }
}

impl ResultsOutput {
    /// Writes the results of `images` images, which `parts` gives one part after the other.
    pub fn write(
        self,
        spec: &ClientSpec,
        images: usize,
        parts: impl FnOnce(&mut ResultsWriter<'_>) -> Result<()>,
    ) -> Result<()> {
        let (format, scores) = (self.format, self.scores);
        self.output.write(|file| {
            let classes = scores.then_some(spec.output.classes);
            match format {
                Format::Csv => write_csv_header(file, classes)?,
                Format::Json => write_json_header(file, spec, scores)?,
                Format::Npy => write_npy_header(file, images, classes)?,
            }
            let mut writer = ResultsWriter { file, format, scores, images: 0 };
            parts(&mut writer)?;
            assert_eq!(writer.images, images, "results of all images");
            if let Format::Json = format {
                writeln!(file, "]}}")?;
            }
            Ok::<_, anyhow::Error>(())
        })
    }
}

/// Writes results of some images after the other.
pub struct ResultsWriter<'a> {
    file: &'a mut dyn Write,
    format: Format,
    /// Whether scores are written.
    scores: bool,
    /// Written so far.
    images: usize,
}

impl ResultsWriter<'_> {
    /// Writes the results of the next images.
    pub fn put(&mut self, decrypted: &Decrypted) -> Result<()> {
        match self.format {
            Format::Csv => write_csv(self.file, self.images, decrypted, self.scores)?,
            Format::Json => write_json(self.file, self.images, decrypted, self.scores)?,
            Format::Npy => write_npy(self.file, decrypted, self.scores)?,
        }
        self.images += decrypted.labels.len();
        Ok(())
    }
}

/// `classes` where scores are written.
fn write_csv_header(file: &mut dyn Write, classes: Option<usize>) -> io::Result<()> {
    write!(file, "index,label")?;
    (0..classes.unwrap_or(0)).try_for_each(|class| write!(file, ",score_{class}"))?;
    writeln!(file)
}

fn write_csv(file: &mut dyn Write, first: usize, decrypted: &Decrypted, scores: bool) -> io::Result<()> {
    let decimals = decrypted.unit.decimals();
    let columns = if scores { decrypted.classes } else { 0 };
    let images = decrypted.labels.iter().zip(decrypted.scores.chunks_exact(decrypted.classes));
    for (index, (label, scores)) in (first..).zip(images) {
        write!(file, "{index},{label}")?;
        scores[..columns].iter().try_for_each(|score| write!(file, ",{score:.decimals$}"))?;
        writeln!(file)?;
    }
    Ok(())
}

/// All before the first image: one object of which the images are the last member.
fn write_json_header(file: &mut dyn Write, spec: &ClientSpec, scores: bool) -> io::Result<()> {
    let mut object = json!({ "model": spec.model, "program": spec.program });
    if scores {
        object["score_unit"] = json!(ScoreUnit::of(spec).value());
    }
    write!(file, "{},\"images\":[", object.to_string().strip_suffix('}').expect("an object"))
}

fn write_json(file: &mut dyn Write, first: usize, decrypted: &Decrypted, scores: bool) -> io::Result<()> {
    let rows = decrypted.scores.chunks_exact(decrypted.classes);
    let images = decrypted.labels.iter().zip(rows).zip(&decrypted.out_of_range);
    for (index, ((label, row), out_of_range)) in (first..).zip(images) {
        if index > 0 {
            write!(file, ",")?;
        }
        let mut image = json!({ "index": index, "label": label, "out_of_range": out_of_range });
        if scores {
            image["scores"] = json!(row);
        }
        serde_json::to_writer(&mut *file, &image)?;
    }
    Ok(())
}

/// Version 1.0 of NumPy's format: the header is padded so that the values start at a multiple of 64 bytes. `classes` where scores
/// are written, else labels are.
fn write_npy_header(file: &mut dyn Write, images: usize, classes: Option<usize>) -> io::Result<()> {
    let (kind, shape) = match classes {
        Some(classes) => ("<f4", format!("({images}, {classes})")),
        None => ("<u4", format!("({images},)")),
    };
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    let len = (10 + header.len() + 1).next_multiple_of(64) - 10;
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&(len as u16).to_le_bytes())?;
    writeln!(file, "{header:<width$}", width = len - 1)
}

fn write_npy(file: &mut dyn Write, decrypted: &Decrypted, scores: bool) -> io::Result<()> {
    if scores {
        decrypted.scores.iter().try_for_each(|&score| file.write_all(&(score as f32).to_le_bytes()))
    } else {
        decrypted.labels.iter().try_for_each(|label| file.write_all(&label.to_le_bytes()))
    }
}
