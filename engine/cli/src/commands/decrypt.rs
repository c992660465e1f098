//! `cryptodl decrypt`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use cryptodl_client::Decryption;
use cryptodl_client::wire::read_secret_key;
use cryptodl_core::wire::{Binding, CiphertextLayout};

use crate::files::{self, Sets};
use crate::flags::Limit;
use crate::memory;
use crate::progress::Bar;
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
  cryptodl decrypt --secret keys/secret/secret.key --spec keys/public/client.spec \\
      --input scores.ct --out labels.csv")]
pub struct Decrypt {
    /// The secret key
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// The client spec that the images were encrypted for
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
    /// Encrypted scores, as `infer` writes them
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where the labels go: a .csv, .json or .npy file
    #[arg(long, value_name = "FILE")]
    out: Results,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    shown: Shown,
}

impl Decrypt {
    pub fn run(self) -> Result<()> {
        files::distinct(&[self.out.path()], &[&self.secret, &self.spec, &self.input])?;
        let spec = files::read_spec(&self.spec)?;
        let params = spec.params();
        let binding = Binding { program: spec.program, params };
        let secret = files::read(&self.secret, |file| read_secret_key(file, params))?;
        let mut result = Sets::open(&self.input, &binding, &CiphertextLayout::result(&spec))?;
        let info = result.info().clone();
        self.limit.check(&self.input, info.images)?;
        // A set and its slots.
        let slots = (info.values as u64).saturating_mul(8 * params.n() as u64);
        memory::afford(slots.saturating_add(info.set_bytes(params) as u64), &self.spec)?;
        let refused = || self.input.display().to_string();
        let mut decryption = Decryption::new(&spec, &secret, &info).with_context(refused)?;
        let (bar, mut doubtful) = (Bar::new("decrypt"), 0);
        self.out.create(&self.shown)?.write(&spec, info.images, |out| {
            let (mut set, mut done) = (Vec::new(), 0);
            while result.next(&mut set)? {
                let decrypted = decryption.next(&set).with_context(refused)?;
                doubtful += decrypted.out_of_range.iter().filter(|&&doubtful| doubtful).count();
                out.put(&decrypted)?;
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
        Ok(())
    }
}
