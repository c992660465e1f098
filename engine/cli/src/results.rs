//! Labels and scores as files.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use clap::Args;
use cryptodl_client::{Decrypted, ScoreUnit};
use cryptodl_core::ckks::ClientSpec;
use serde_json::json;

use crate::files::{self, Access, Output};

/// What is written of a result.
#[derive(Args)]
pub struct Shown {
    /// Write scores beside the labels, rounded so coarsely that none of their noise is seen: to the next of 1, 2, 5, 10,
    /// ... above eight standard deviations of it
    ///
    /// The exact scores would say something of the secret key to whoever has the ciphertexts. They
    /// are no probabilities, and where the noise is large they are whole numbers that tell little
    /// more than the label.
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
    /// One label per line, with the name of its class if it has one.
    Txt,
}

/// What an `--out` of labels may be called, for help.
pub const FORMATS: &str = "\
The name of --out says what is written (`-`, standard output, is as .txt):
  .csv   index,label; where the network names its classes also class, the name; with --scores
         also score_0,score_1,...; where images came from files of their own, their names are
         the last column, file
  .json  the same, and whether a score is far outside the calibrated range, which makes a label
         doubtful
  .npy   the labels, uint32; with --scores the scores instead, float32, images x classes
  .txt   one label per line, and after a tab the name of the class if it has one";

impl FromStr for Results {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if text == "-" {
            return Ok(Results { path: files::output_path(text).map_err(|_| NAMES)?, format: Format::Txt });
        }
        let path = PathBuf::from(text);
        let format = match path.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => Format::Csv,
            Some("json") => Format::Json,
            Some("npy") => Format::Npy,
            Some("txt") => Format::Txt,
            _ => return Err(NAMES),
        };
        Ok(Results { path, format })
    }
}

const NAMES: &str = "the name must end in .csv, .json, .npy or .txt";

impl Results {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As [`Output::create`]. Only its owner may read it: it is what was encrypted.
    ///
    /// # Errors
    /// Scores for a format that has no place for them.
    pub fn create(&self, shown: &Shown) -> Result<ResultsOutput> {
        anyhow::ensure!(
            !shown.scores || !matches!(self.format, Format::Txt),
            "a .txt output has one label per line and no place for --scores: use .csv, .json or .npy"
        );
        let output = Output::create(&self.path, Access::Owner)?;
        Ok(ResultsOutput { output, format: self.format, scores: shown.scores })
    }
}

impl ResultsOutput {
    /// Writes the results of `images` images, which `parts` gives one part after the other; `names`
    /// are those of the files that the images came from.
    pub fn write(
        self,
        spec: &ClientSpec,
        images: usize,
        names: Option<&[String]>,
        parts: impl FnOnce(&mut ResultsWriter<'_>) -> Result<()>,
    ) -> Result<()> {
        let (format, scores) = (self.format, self.scores);
        self.output.write(|file| {
            let classes = scores.then_some(spec.output.classes);
            match format {
                Format::Csv => write_csv_header(file, !spec.class_names.is_empty(), classes, names.is_some())?,
                Format::Json => write_json_header(file, spec, scores)?,
                Format::Npy => write_npy_header(file, images, classes)?,
                Format::Txt => {}
            }
            let mut writer = ResultsWriter { file, spec, format, scores, names, images: 0 };
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
    spec: &'a ClientSpec,
    format: Format,
    /// Whether scores are written.
    scores: bool,
    names: Option<&'a [String]>,
    /// Written so far.
    images: usize,
}

impl ResultsWriter<'_> {
    /// Writes the results of the next images.
    pub fn put(&mut self, decrypted: &Decrypted) -> Result<()> {
        match self.format {
            Format::Csv => self.write_csv(decrypted)?,
            Format::Json => self.write_json(decrypted)?,
            Format::Npy => write_npy(self.file, decrypted, self.scores)?,
            Format::Txt => self.write_txt(decrypted)?,
        }
        self.images += decrypted.labels.len();
        Ok(())
    }

    fn write_csv(&mut self, decrypted: &Decrypted) -> io::Result<()> {
        let decimals = decrypted.unit.decimals();
        let columns = if self.scores { decrypted.classes } else { 0 };
        let images = decrypted.labels.iter().zip(decrypted.scores.chunks_exact(decrypted.classes));
        for (index, (label, scores)) in (self.images..).zip(images) {
            write!(self.file, "{index},{label}")?;
            if let Some(class) = self.spec.class_name(*label) {
                write!(self.file, ",{}", quoted(class))?;
            }
            scores[..columns].iter().try_for_each(|score| write!(self.file, ",{score:.decimals$}"))?;
            if let Some(names) = self.names {
                write!(self.file, ",{}", quoted(&names[index]))?;
            }
            writeln!(self.file)?;
        }
        Ok(())
    }

    fn write_txt(&mut self, decrypted: &Decrypted) -> io::Result<()> {
        decrypted.labels.iter().try_for_each(|&label| match self.spec.class_name(label) {
            Some(class) => writeln!(self.file, "{label}\t{class}"),
            None => writeln!(self.file, "{label}"),
        })
    }

    fn write_json(&mut self, decrypted: &Decrypted) -> io::Result<()> {
        let rows = decrypted.scores.chunks_exact(decrypted.classes);
        let images = decrypted.labels.iter().zip(rows).zip(&decrypted.out_of_range);
        for (index, ((label, row), out_of_range)) in (self.images..).zip(images) {
            if index > 0 {
                write!(self.file, ",")?;
            }
            let mut image = json!({ "index": index, "label": label, "out_of_range": out_of_range });
            if let Some(class) = self.spec.class_name(*label) {
                image["class"] = json!(class);
            }
            if self.scores {
                image["scores"] = json!(row);
            }
            if let Some(names) = self.names {
                image["file"] = json!(names[index]);
            }
            serde_json::to_writer(&mut *self.file, &image)?;
        }
        Ok(())
    }
}

/// A field of a .csv file, as in RFC 4180.
fn quoted(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text.into()
    }
}

/// `named` where classes have names, `classes` where scores are written, `names` where images have names.
fn write_csv_header(file: &mut dyn Write, named: bool, classes: Option<usize>, names: bool) -> io::Result<()> {
    write!(file, "index,label{}", if named { ",class" } else { "" })?;
    (0..classes.unwrap_or(0)).try_for_each(|class| write!(file, ",score_{class}"))?;
    writeln!(file, "{}", if names { ",file" } else { "" })
}

/// All before the first image: one object of which the images are the last member.
fn write_json_header(file: &mut dyn Write, spec: &ClientSpec, scores: bool) -> io::Result<()> {
    let mut object = json!({ "model": spec.model, "program": spec.program });
    if !spec.class_names.is_empty() {
        object["class_names"] = json!(spec.class_names);
    }
    if scores {
        object["score_unit"] = json!(ScoreUnit::of(spec).value());
    }
    write!(file, "{},\"images\":[", object.to_string().strip_suffix('}').expect("an object"))
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
