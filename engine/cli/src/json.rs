//! `--json`: results for machines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use crate::files::{self, Access, Output};
use crate::terminal::printable;

#[derive(Args)]
pub struct Json {
    /// Write the results as JSON to a file, or to stdout with `-`, where nothing else is printed then
    #[arg(long = "json", value_name = "FILE|-")]
    to: Option<PathBuf>,
}

/// Where a report goes.
pub enum Report {
    Text,
    /// Standard output holds something else.
    Stderr,
    Json,
    TextAndFile(Output),
}

impl Json {
    /// The file, if it goes to one.
    pub fn path(&self) -> Option<&Path> {
        self.to.as_deref().filter(|path| path.as_os_str() != "-")
    }

    /// As [`Json::create`] for a command that writes `out`, which may be standard output.
    ///
    /// # Errors
    /// Both go to standard output.
    pub fn create_beside(&self, out: &Path) -> Result<Report> {
        match self.create()? {
            Report::Json if files::is_stdout(out) => bail!("--out - and --json - cannot share standard output"),
            Report::Text if files::is_stdout(out) => Ok(Report::Stderr),
            report => Ok(report),
        }
    }

    /// Prepares the report, so that a place that cannot be written is known before the work begins.
    pub fn create(&self) -> Result<Report> {
        Ok(match &self.to {
            None => Report::Text,
            Some(_) => match self.path() {
                None => Report::Json,
                Some(path) => Report::TextAndFile(Output::create(path, Access::Everybody)?),
            },
        })
    }
}

impl Report {
    /// Shows `text` to people and `value` to machines.
    pub fn show(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        match self {
            Report::Text => files::print(&text()),
            Report::Stderr => {
                eprint!("{}", printable(&text()));
                Ok(())
            }
            Report::Json => files::print(&json(value)?),
            Report::TextAndFile(file) => {
                let json = json(value)?;
                file.write(|file| file.write_all(json.as_bytes()))?;
                files::print(&text())
            }
        }
    }
}

/// A command's report with the time that its one step took.
#[derive(Serialize)]
pub struct Timed<'a, T> {
    #[serde(flatten)]
    report: &'a T,
    seconds: BTreeMap<&'static str, f64>,
}

impl<'a, T> Timed<'a, T> {
    /// `step` is `read` or `compute`, as in the reports of other commands.
    pub fn since(start: Instant, step: &'static str, report: &'a T) -> Self {
        Timed { report, seconds: [(step, start.elapsed().as_secs_f64())].into() }
    }
}

fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}
