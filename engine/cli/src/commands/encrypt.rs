//! `cryptodl encrypt`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use cryptodl_client::wire::read_secret_key;
use cryptodl_client::{EncryptionKey, encrypt};
use cryptodl_core::ckks::EncryptionKind;
use cryptodl_core::wire::{Binding, CiphertextLayout, read_public_key, write_ciphertexts};
use cryptodl_models::network::InputSpec;

use crate::files::{self, Access, Output};
use crate::flags::TestSeed;
use crate::progress::Bar;
use crate::samples::read_images;

/// Encrypt images
///
/// The client spec says which key encrypts (--secret or --public), the size of the images and the range of their
/// values: an 8-bit pixel is scaled to that range, values from .npy files must lie in it. Channels come in the order
/// gray, or red, green, blue.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cryptodl encrypt --secret keys/secret.key --spec keys/client.spec --input t10k-images-idx3-ubyte.gz --out digits.ct
  cryptodl encrypt --public public.key --spec client.spec --input my-digits/ --out digits.ct")]
pub struct Encrypt {
    #[command(flatten)]
    key: Key,
    /// The client spec that the keys were made for
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
    /// IDX (plain or .gz), .npy (uint8 or float, N x ...), PNG, or a folder of PNG files, taken in the order of their names
    /// as text (10.png before 2.png)
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where the ciphertexts go
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    seed: TestSeed,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Key {
    /// Encrypt with the owner's secret key
    #[arg(long, value_name = "FILE")]
    secret: Option<PathBuf>,
    /// Encrypt with the public key, for somebody else
    #[arg(long, value_name = "FILE")]
    public: Option<PathBuf>,
}

impl Encrypt {
    pub fn run(self) -> Result<()> {
        let keys = self.key.secret.iter().chain(&self.key.public).map(PathBuf::as_path);
        let inputs: Vec<&Path> = keys.chain([self.spec.as_path(), &self.input]).collect();
        files::distinct(&[&self.out], &inputs)?;
        let (spec, params) = files::read_spec(&self.spec)?;
        let (flag, other) = match spec.encryption {
            EncryptionKind::Secret => ("--secret", "public"),
            EncryptionKind::Public => ("--public", "secret"),
        };
        ensure!(
            self.key.secret.is_some() == (spec.encryption == EncryptionKind::Secret),
            "{}: images of this Program are encrypted with {flag}; for the other key, plan, make keys and infer with \
             --encryption {other}",
            self.spec.display()
        );
        let binding = Binding { program: spec.program, params: &params };
        let secret = self.key.secret.as_ref().map(|path| files::read(path, |file| read_secret_key(file, &binding)));
        let public = self.key.public.as_ref().map(|path| files::read(path, |file| read_public_key(file, &binding)));
        let (secret, public) = (secret.transpose()?, public.transpose()?);
        let key = secret.as_ref().map(EncryptionKey::Secret).or(public.as_ref().map(EncryptionKey::Public));
        let images = read_images(&self.input, &InputSpec { shape: spec.input.shape, range: spec.input.range })?;
        let out = Output::create(&self.out, Access::Everybody)?;

        let (bar, mut rng) = (Bar::new("encrypt"), self.seed.randomness("encrypt")?);
        let ciphertexts = encrypt(
            &spec,
            &params,
            key.expect("clap requires one of the keys"),
            images.as_slice().expect("images are in standard order"),
            images.dim().0,
            &mut rng,
            &|done, total| bar.show(done as u64, total as u64),
        )
        .with_context(|| self.input.display().to_string())?;
        out.write(|file| write_ciphertexts(file, &binding, &CiphertextLayout::input(&spec), &ciphertexts))
    }
}
