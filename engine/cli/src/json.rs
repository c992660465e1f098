//! `--json`: results for machines.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::files::{self, Access, Output};

#[derive(Args)]
pub struct Json {
    /// Write the results as JSON to a file, or to stdout with `-`, where nothing else is printed then
    #[arg(long = "json", value_name = "FILE|-")]
    to: Option<PathBuf>,
}

impl Json {
    /// Prints `text` for people and `value` for machines, each where it belongs.
    pub fn report(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        let json = || Ok::<_, serde_json::Error>(serde_json::to_string_pretty(value)? + "\n");
        match &self.to {
            Some(path) if path.as_os_str() == "-" => files::print(&json()?),
            Some(path) => {
                let json = json()?;
                Output::create(path, Access::Everybody)?.write(|file| file.write_all(json.as_bytes()))?;
                files::print(&text())
            }
            None => files::print(&text()),
        }
    }
}
