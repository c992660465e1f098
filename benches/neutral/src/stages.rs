//! What each stage does, and where its files are.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Error, Result, bail, ensure};
use cryptodl::{Client, EncryptionKey, Model, Placement, Program, Server, Watch};
use rayon::prelude::*;
use serde_json::json;

use crate::pixels;
use crate::sizes::Size;

/// A program that the harness calls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    KeyGeneration,
    PreprocessModel,
    PreprocessInput,
    EncryptInput,
    Compute,
    Decrypt,
    Postprocess,
}

impl Stage {
    /// In the harness's order. It skips a stage that it does not find, without a word.
    pub const ALL: [(&str, Stage); 7] = [
        ("client_key_generation", Stage::KeyGeneration),
        ("server_preprocess_model", Stage::PreprocessModel),
        ("client_preprocess_input", Stage::PreprocessInput),
        ("client_encode_encrypt_input", Stage::EncryptInput),
        ("server_encrypted_compute", Stage::Compute),
        ("client_decrypt_decode", Stage::Decrypt),
        ("client_postprocess", Stage::Postprocess),
    ];
}

impl FromStr for Stage {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|(own, _)| *own == name);
        let names = Self::ALL.map(|(name, _)| name).join(", ");
        Ok(found.with_context(|| format!("`{name}` is none of the stages: {names}"))?.1)
    }
}

/// Puts a program for every stage into `folder`, and what clients must know of each Program. Both are
/// made when the submission is built: the harness makes keys before it lets the server do anything.
pub fn install(program: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for (name, _) in Stage::ALL {
        let stage = folder.join(name);
        if stage.exists() {
            fs::remove_file(&stage)?;
        }
        // One file on disk, so that it is in memory from the first stage on. A folder on another disk gets copies.
        fs::hard_link(program, &stage).or_else(|_| fs::copy(program, &stage).map(drop))?;
    }
    planned()?.into_par_iter().try_for_each(|(size, program)| {
        let file = create(&folder.join(format!("{}.spec", size.name())))?;
        Ok(Client::new(program.client_spec())?.write_spec(file)?)
    })
}

/// Plans the network for every size and saves the Programs: what a server does once per model.
pub fn preprocess_model(installed: &Path) -> Result<()> {
    planned()?.into_par_iter().try_for_each(|(size, program)| {
        let mut file = create(&program_path(installed, size))?;
        program.write(&mut file)?;
        Ok(file.flush()?)
    })
}

/// A Program for each size. The planner always gives the same.
fn planned() -> Result<Vec<(Size, Program)>> {
    let plan = |&size: &Size| {
        let plan = Model::load(size.model())?.plan(&size.options(), Watch::default())?;
        Ok((size, plan.program))
    };
    Size::ALL.par_iter().map(plan).collect()
}

fn program_path(installed: &Path, size: Size) -> PathBuf {
    installed.join(format!("{}.program", size.name()))
}

/// One run of the harness with one size.
pub struct Run<'a> {
    /// Where this program lies.
    installed: &'a Path,
    size: Size,
    /// Images in text.
    pixels: PathBuf,
    /// What client and server exchange, and what each keeps, in the folders that the harness measures.
    io: PathBuf,
}

impl<'a> Run<'a> {
    /// Below the benchmark's root.
    pub fn new(root: &Path, installed: &'a Path, size: Size) -> Self {
        let pixels = root.join("datasets").join(size.name()).join("intermediate/test_pixels.txt");
        Run { installed, size, pixels, io: root.join("io").join(size.name()) }
    }

    pub fn perform(&self, stage: Stage) -> Result<()> {
        match stage {
            Stage::KeyGeneration => self.generate_keys(),
            Stage::PreprocessModel => bail!("the model is preprocessed for all sizes: give none"),
            Stage::PreprocessInput => self.preprocess_input(),
            Stage::EncryptInput => self.encrypt(),
            Stage::Compute => self.compute(),
            Stage::Decrypt => self.decrypt(),
            Stage::Postprocess => self.postprocess(),
        }
    }

    fn client(&self) -> Result<Client> {
        let path = self.installed.join(format!("{}.spec", self.size.name()));
        Client::read_spec(open(&path)?).with_context(|| path.display().to_string())
    }

    fn generate_keys(&self) -> Result<()> {
        let client = self.client()?;
        let keys = client.generate_keys()?;
        client.write_secret_key(&keys.secret, private(&self.secret_key())?)?;
        client.write_public_key(&keys.public, create(&self.public_key())?)?;
        Ok(client.write_evaluation_keys(&keys.evaluation, create(&self.evaluation_keys())?)?)
    }

    /// Text to numbers: nothing else is done in the clear.
    fn preprocess_input(&self) -> Result<()> {
        let client = self.client()?;
        let text = fs::read_to_string(&self.pixels).with_context(|| self.pixels.display().to_string())?;
        let values = pixels::parse(&text, client.pixels(), client.spec().input.range)
            .with_context(|| self.pixels.display().to_string())?;
        let (count, expected) = (values.len() / client.pixels(), self.size.images());
        ensure!(count == expected, "{}: {count} images instead of {expected}", self.pixels.display());
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(create(&self.images())?.write_all(&bytes)?)
    }

    fn encrypt(&self) -> Result<()> {
        let client = self.client()?;
        let bytes = fs::read(self.images()).with_context(|| self.images().display().to_string())?;
        let values: Vec<f32> =
            bytes.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().expect("four bytes"))).collect();
        let secret = client.read_secret_key(open(&self.secret_key())?)?;
        Ok(client.encrypt_with(EncryptionKey::Secret(&secret), &values, create(&self.upload())?, Watch::default())?)
    }

    fn compute(&self) -> Result<()> {
        let start = Instant::now();
        let path = program_path(self.installed, self.size);
        let program = Program::read(open(&path)?).with_context(|| path.display().to_string())?;
        let service = Server::new(Placement::default())?.prepare(&program)?;
        let prepared = start.elapsed().as_secs_f64();
        let keys = service.read_keys(open(&self.evaluation_keys())?, open(&self.public_key())?)?;
        let accepted = start.elapsed().as_secs_f64();
        let report = service.infer(&keys, open(&self.upload())?, create(&self.download())?, Watch::default())?;
        let total = start.elapsed().as_secs_f64();
        let steps = json!({
            "Program read and prepared": prepared,
            "Keys read and expanded": accepted - prepared,
            "Encrypted computation": report.seconds,
            "I/O": total - accepted - report.seconds,
            "Total": total,
        });
        Ok(create(&self.io.join("server_reported_steps.json"))?.write_all(steps.to_string().as_bytes())?)
    }

    fn decrypt(&self) -> Result<()> {
        let client = self.client()?;
        let secret = client.read_secret_key(open(&self.secret_key())?)?;
        let mut labels = String::new();
        client.decrypt_sets(&secret, open(&self.download())?, Watch::default(), |set| {
            set.labels.iter().for_each(|label| labels += &format!("{label}\n"));
            Ok(())
        })?;
        Ok(private(&self.labels())?.write_all(labels.as_bytes())?)
    }

    /// One label a line, as many as there are images.
    fn postprocess(&self) -> Result<()> {
        let labels = fs::read_to_string(self.labels())?;
        let count = labels.lines().count();
        ensure!(count == self.size.images(), "{count} labels of {} images", self.size.images());
        Ok(create(&self.io.join("encrypted_model_predictions.txt"))?.write_all(labels.as_bytes())?)
    }

    fn secret_key(&self) -> PathBuf {
        self.io.join("secret_key/secret.key")
    }

    fn public_key(&self) -> PathBuf {
        self.io.join("public_keys/public.key")
    }

    fn evaluation_keys(&self) -> PathBuf {
        self.io.join("public_keys/eval.key")
    }

    fn images(&self) -> PathBuf {
        self.io.join("intermediate/images.f32")
    }

    fn upload(&self) -> PathBuf {
        self.io.join("ciphertexts_upload/images.ct")
    }

    fn download(&self) -> PathBuf {
        self.io.join("ciphertexts_download/scores.ct")
    }

    fn labels(&self) -> PathBuf {
        self.io.join("intermediate/labels.txt")
    }
}

fn open(path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    write_to(path, &mut File::options())
}

/// For its owner alone.
fn private(path: &Path) -> Result<BufWriter<File>> {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    write_to(path, &mut options)
}

fn write_to(path: &Path, options: &mut fs::OpenOptions) -> Result<BufWriter<File>> {
    let failed = || format!("cannot write {}", path.display());
    fs::create_dir_all(path.parent().expect("a file lies in a folder")).with_context(failed)?;
    let file = options.write(true).create(true).truncate(true).open(path).with_context(failed)?;
    Ok(BufWriter::with_capacity(1 << 20, file))
}
