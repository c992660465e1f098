//! `cryptodl encrypt`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use cryptodl_client::wire::read_secret_key;
use cryptodl_client::{Encryption, EncryptionKey};
use cryptodl_core::ckks::{CiphertextsInfo, EncryptionKind, Params};
use cryptodl_core::watch::{Progress, Watch};
use cryptodl_core::wire::{Binding, CiphertextLayout, CiphertextsWriter, ciphertexts_len, read_public_key};
use cryptodl_network::InputSpec;

use crate::files::{self, Access, Output};
use crate::flags::{Limit, TestSeed};
use crate::memory::{self, show_size};
use crate::progress::Bar;
use crate::samples::{READING, next_values, open_images};

/// Encrypt images
///
/// The client spec says which key encrypts (--secret or --public), the size of the images and the range of their
/// values: an 8-bit pixel is scaled to that range, values from .npy files must lie in it. Channels come in the order
/// gray, or red, green, blue.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cryptodl encrypt --secret keys/secret/secret.key --spec keys/public/client.spec \\
      --input t10k-images-idx3-ubyte.gz --out digits.ct
  cryptodl encrypt --public public.key --spec client.spec --input my-digits/ --out digits.ct")]
pub struct Encrypt {
    #[command(flatten)]
    key: Key,
    /// The client spec that the keys were made for, or a later one with the same parameters
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
    limit: Limit,
    /// Refuse to write more than SIZE, as 2GiB, 512MiB or bytes
    ///
    /// How large ciphertexts are follows from the client spec, which may come from a stranger.
    #[arg(long, value_name = "SIZE", default_value = "64GiB", value_parser = memory::parse_size)]
    max_size: u64,
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
        let spec = files::read_spec(&self.spec)?;
        let params = spec.params();
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
        let binding = Binding { program: spec.program, params };
        let secret = self.key.secret.as_ref().map(|path| files::read(path, |file| read_secret_key(file, params)));
        let public = self.key.public.as_ref().map(|path| files::read(path, |file| read_public_key(file, params)));
        let (secret, public) = (secret.transpose()?, public.transpose()?);
        let key = secret.as_ref().map(EncryptionKey::Secret).or(public.as_ref().map(EncryptionKey::Public));
        let input = InputSpec { shape: spec.input.shape, range: spec.input.range };
        let mut images = open_images(&self.input, &input)?;
        self.limit.check(&self.input, images.count())?;
        let mut rng = self.seed.randomness("encrypt")?;
        let refused = || self.input.display().to_string();
        let key = key.expect("clap requires one of the keys");
        let mut encryption = Encryption::new(&spec, key, images.count(), &mut rng).with_context(refused)?;
        let (layout, info) = (CiphertextLayout::input(&spec), encryption.info().clone());
        self.check_cost(params, &layout, &info)?;
        let out = Output::create(&self.out, Access::Everybody)?;

        let bar = Bar::new("encrypt");
        out.write(|file| {
            let mut writer = CiphertextsWriter::new(file, &binding, &layout, &info)?;
            let mut set = Vec::new();
            while encryption.next_images() > 0 {
                let values = next_values(&mut images, &self.input, encryption.next_images(), &input)?;
                let values = values.as_slice().expect("images are in standard order");
                let show = |progress: Progress| bar.show(progress.done as u64, progress.total as u64);
                encryption.next(values, &mut set, Watch::new(&show)).with_context(refused)?;
                writer.put(&set)?;
            }
            writer.finish()?;
            Ok::<_, anyhow::Error>(())
        })
    }

    /// Says what it will cost, before it does: spec and images can ask for any amount.
    fn check_cost(&self, params: &Params, layout: &CiphertextLayout, info: &CiphertextsInfo) -> Result<()> {
        let (images, sets) = (info.images, info.sets(params));
        let bytes = ciphertexts_len(params, layout, images as u64);
        let (set, file, out) = (show_size(info.set_bytes(params) as u64), show_size(bytes), self.out.display());
        ensure!(
            bytes <= self.max_size,
            "{images} images would make {out} a file of {file}, {set} for every {} of them, and --max-size allows {}: \
             raise it, encrypt fewer images, or check where {} comes from",
            params.n(),
            show_size(self.max_size),
            self.spec.display()
        );
        // A set and its pixels as numbers.
        let pixels = images.min(params.n()).saturating_mul(layout.values);
        let numbers = (pixels as u64).saturating_mul(4).saturating_add(READING);
        memory::afford((info.set_bytes(params) as u64).saturating_add(numbers), &self.spec)?;
        eprintln!("{images} images make {sets} set(s) of {set}: {out} will have {file}");
        Ok(())
    }
}
