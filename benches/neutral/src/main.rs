//! CryptoDL as an entry for the ML-inference workload of HomomorphicEncryption.org's benchmark
//! (benches/neutral/README.md). One binary is every stage: its name, or else its first argument, says
//! which.
#![forbid(unsafe_code)]

mod pixels;
mod sizes;
mod stages;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use stages::{Run, Stage};

const USAGE: &str = "\
usage: cryptodl-neutral install FOLDER    makes FOLDER with a program for every stage
       STAGE [SIZE]                       0 single, 1 small, 2 medium, 3 large
The harness runs the stages in this order, from the root of the benchmark:
  client_key_generation SIZE
  server_preprocess_model
  client_preprocess_input SIZE
  client_encode_encrypt_input SIZE
  server_encrypted_compute SIZE
  client_decrypt_decode SIZE
  client_postprocess SIZE";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    // A stage that is a link of its own comes first already.
    let own = words.first().and_then(|path| Path::new(path).file_stem()?.to_str()).unwrap_or_default();
    let stage = own.parse::<Stage>().ok().map(|_| own);
    let words: Vec<&str> = stage.into_iter().chain(words.iter().skip(1).map(String::as_str)).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    let (root, program) = (std::env::current_dir()?, std::env::current_exe()?);
    let installed = program.parent().expect("a program lies in a folder");
    match *words {
        ["install", folder] => stages::install(&program, Path::new(folder)),
        ["server_preprocess_model", ..] => stages::preprocess_model(installed),
        [stage, size] => Run::new(&root, installed, size.parse()?).perform(stage.parse()?),
        _ => bail!("{USAGE}"),
    }
}
