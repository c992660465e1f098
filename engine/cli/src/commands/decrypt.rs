//! `cryptodl decrypt`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use cryptodl_client::decrypt;
use cryptodl_client::wire::read_secret_key;
use cryptodl_core::wire::{Binding, CiphertextLayout, read_ciphertexts};

use crate::files;
use crate::results::{Results, Shown};

/// Decrypt labels, and scores on request
///
/// Never send what is decrypted back to the server, not even that a result was refused: whoever holds the ciphertexts
/// learns about the secret key from it. Labels follow from the scores before these are rounded.
#[derive(Args)]
#[command(after_help = "\
The name of --out says what is written:
  .csv   index,label; with --scores also score_0,score_1,...
  .json  the same, and whether a score is far outside the calibrated range, which makes a label doubtful
  .npy   the labels, uint32; with --scores the scores instead, float32, images x classes

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
    /// Where the labels go: a .csv, .json or .npy file
    #[arg(long, value_name = "FILE")]
    out: Results,
    #[command(flatten)]
    shown: Shown,
}

impl Decrypt {
    pub fn run(self) -> Result<()> {
        files::distinct(&[self.out.path()], &[&self.secret, &self.spec, &self.input])?;
        let (spec, params) = files::read_spec(&self.spec)?;
        let binding = Binding { program: spec.program, params: &params };
        let secret = files::read(&self.secret, |file| read_secret_key(file, &binding))?;
        let result =
            files::read(&self.input, |file| read_ciphertexts(file, &binding, &CiphertextLayout::result(&spec)))?;
        let out = self.out.create(&self.shown)?;
        let decrypted = decrypt(&spec, &params, &secret, &result).with_context(|| self.input.display().to_string())?;
        let doubtful = decrypted.out_of_range.iter().filter(|&&doubtful| doubtful).count();
        if doubtful > 0 {
            eprintln!(
                "warning: {doubtful} image(s) have scores far outside the calibrated range, so that their labels are \
                 doubtful; a .json output names them"
            );
        }
        out.write(&spec, &decrypted)
    }
}
