//! `cryptodl encrypt`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use cryptodl::row_kernels;
use cryptodl_client::wire::read_secret_key;
use cryptodl_client::{Encryption, EncryptionKey};
use cryptodl_core::ckks::{CiphertextsInfo, EncryptionKind, Params};
use cryptodl_core::watch::{Progress, Watch};
use cryptodl_core::wire::{Binding, CiphertextLayout, CiphertextsWriter, ciphertexts_len, read_public_key};
use cryptodl_data::images::is_image_name;
use cryptodl_network::InputSpec;
use serde::Serialize;

use crate::files::{self, Access, Output, Written};
use crate::flags::{Limit, TestSeed};
use crate::json::Json;
use crate::memory::{self, show_size};
use crate::progress::{Bar, Seconds, timed};
use crate::samples::{READING, next_values, open_images};
use crate::terminal::counted;

/// Encrypt images
///
/// The client spec says which key encrypts (--secret or --public), the size of the images and the range of their
/// values: an 8-bit pixel is scaled to that range, values from .npy files must lie in it. Channels come in the order
/// gray, or red, green, blue.
#[derive(Args)]
#[command(override_usage = "\
cryptodl encrypt <--secret FILE|--public FILE> --spec FILE --input FILE --out FILE [OPTIONS]")]
#[command(after_help = "\
Images of one folder have one size, and it is the network's. Colours become grey, and grey three
channels, where the network takes the other; 16 bits and palettes become 8-bit colours. A rotation
that a camera only notes is not applied. An .npy array is N x channels x rows x columns, or has its
channels last.

Where images come from files of their own, their names go to OUT.names, one per line in the order of
the images. Keep that file: `decrypt --names` puts the names beside the labels.

Examples:
  cryptodl encrypt --secret keys/secret/secret.key --spec keys/public/client.spec \\
      --input \"$(cryptodl data path mnist)/t10k-images-idx3-ubyte\" --out digits.ct
  cryptodl encrypt --public public.key --spec client.spec --input my-digits/ --out digits.ct")]
pub struct Encrypt {
    #[command(flatten)]
    key: Key,
    /// The client spec that the keys were made for, or a later one with the same parameters
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
    /// IDX (plain or .gz), .npy (uint8 or float, N x ...), PNG, JPEG, or a folder of PNG and JPEG
    /// files, taken in the order of their names as text (10.png before 2.png); `-` is standard
    /// input
    #[arg(long, value_name = "FILE", value_parser = files::input_path)]
    input: PathBuf,
    /// Where the ciphertexts go; `-` is standard output
    #[arg(long, value_name = "FILE", value_parser = files::output_path)]
    out: PathBuf,
    #[command(flatten)]
    limit: Limit,
    /// Refuse to write more than SIZE, as 2GiB, 512MiB or bytes
    ///
    /// How large ciphertexts are follows from the client spec, which may come from a stranger.
    #[arg(long, value_name = "SIZE", default_value = "64GiB", value_parser = memory::parse_size)]
    max_size: u64,
    #[command(flatten)]
    json: Json,
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

/// What `encrypt --json` writes.
#[derive(Serialize)]
struct Report {
    model: String,
    program: String,
    images: usize,
    batches: usize,
    files: Vec<Written>,
    seconds: Seconds,
}

impl Encrypt {
    pub fn run(self) -> Result<()> {
        let keys = self.key.secret.iter().chain(&self.key.public).map(PathBuf::as_path);
        let inputs: Vec<&Path> = keys.chain([self.spec.as_path(), &self.input]).collect();
        let names_path = self.names_path();
        let outputs: Vec<&Path> =
            std::iter::once(self.out.as_path()).chain(names_path.as_deref()).chain(self.json.path()).collect();
        files::distinct(&outputs, &inputs)?;
        let start = Instant::now();
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
        encryption = encryption.with_kernels(row_kernels(params));
        let (layout, info) = (CiphertextLayout::input(&spec), encryption.info().clone());
        self.check_cost(params, &layout, &info)?;
        let json = self.json.create_beside(&self.out)?;
        let out = Output::create(&self.out, Access::Everybody)?;
        let names = names_path.as_deref().zip(images.names());
        let names =
            names.map(|(path, names)| Ok::<_, anyhow::Error>((path, Output::create(path, Access::Owner)?, names)));
        let names = names.transpose()?;

        let (bar, mut seconds) =
            (Bar::new("encrypt"), Seconds { read: start.elapsed().as_secs_f64(), ..Seconds::default() });
        let all = info.images as u64;
        let mut done = 0;
        if let Some((_, file, names)) = &names {
            file.fill(|file| names.iter().try_for_each(|name| writeln!(file, "{name}")))?;
        }
        let names = names.map(|(path, file, _)| (path, file));
        out.fill(|file| {
            let mut writer = CiphertextsWriter::new(file, &binding, &layout, &info)?;
            let mut set = Vec::new();
            while encryption.next_images() > 0 {
                let count = encryption.next_images();
                let values = timed(&mut seconds.read, || next_values(&mut images, &self.input, count, &input))?;
                let values = values.as_slice().expect("images are in standard order");
                // Of the whole file, whatever part of it the set is.
                let show = |progress: Progress| {
                    let share = progress.done as f64 / progress.total.max(1) as f64;
                    bar.show(done + (share * count as f64) as u64, all);
                };
                timed(&mut seconds.compute, || {
                    encryption.next(values, &mut set, Watch::new(&show)).with_context(refused)
                })?;
                timed(&mut seconds.write, || Ok(writer.put(&set)?))?;
                done += count as u64;
            }
            writer.finish()?;
            Ok::<_, anyhow::Error>(())
        })?;
        drop(bar);
        let named = names.as_ref().map(|(path, _)| *path);
        timed(&mut seconds.write, || {
            files::publish_all(names.map(|(_, file)| file).into_iter().chain([out]).collect())
        })?;
        let files = [
            Some(Written::at(&self.out, "for the server")),
            named.map(|path| Written::at(path, "the names of the images, for `decrypt --names`")),
        ];
        let report = Report {
            model: spec.model.clone(),
            program: spec.program.to_string(),
            images: info.images,
            batches: info.sets(params),
            files: files.into_iter().flatten().collect(),
            seconds,
        };
        json.show(&report, || files::listed(&report.files))
    }

    /// Where the names of the images go: beside the ciphertexts, if these are a file.
    fn names_path(&self) -> Option<PathBuf> {
        let replaced = std::fs::metadata(&self.out).map_or(true, |found| found.is_file());
        let mut name = self.out.clone().into_os_string();
        name.push(".names");
        (replaced && (self.input.is_dir() || is_image_name(&self.input))).then(|| name.into())
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
        let n = params.n();
        let (images, sets) = (counted(images, "image"), counted(sets, "set"));
        eprintln!("{images} in {sets} of up to {n}, {set} each however full: {out} will have {file}");
        Ok(())
    }
}
