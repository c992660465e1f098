//! `cryptodl keygen`.

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::{ArgGroup, Args};
use cryptodl::{KeyFolder, Keys};
use cryptodl_client::wire::{secret_key_len, write_secret_key};
use cryptodl_core::ckks::CheckedSpec;
use cryptodl_core::wire::{eval_keys_len, public_key_len, write_client_spec, write_eval_keys, write_public_key};
use serde::Serialize;

use crate::files::{self, Access, Output, Written};
use crate::flags::{Planning, TestSeed};
use crate::json::Json;
use crate::memory::{self, show_size};
use crate::prepared::ProgramSource;
use crate::progress::timed;

/// Generate a client's keys
///
/// Writes below the folder DIR: secret/secret.key, which only its owner may read and which decrypts everything; and
/// public/public.key, public/eval.key and public/client.spec, a folder that can be given to the server as it is. All files
/// are replaced or none. A spec from a server is checked in full before anything is made from it.
///
/// Keys belong to parameters and not to a Program. Where a later spec has the same parameters
/// (`cryptodl inspect` shows their digest) and asks for the same evaluation keys, as after
/// retraining, these keys serve it too.
#[derive(Args)]
#[command(group(ArgGroup::new("for").required(true).args(["spec", "model", "program"])))]
#[command(after_help = "\
Examples:
  cryptodl keygen --spec client.spec --out keys
  cryptodl keygen --model mnist-1 --out keys")]
pub struct Keygen {
    /// What to make keys for, as written by `plan --write-spec`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["Planning", "ProgramSource"])]
    spec: Option<PathBuf>,
    #[command(flatten)]
    source: ProgramSource,
    /// Folder for the keys; made if absent
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace keys that are there; what was encrypted with them can then not be decrypted any more
    #[arg(long)]
    force: bool,
    /// Refuse to make keys that are larger together than SIZE, as 2GiB, 512MiB or bytes
    ///
    /// How large they are follows from the client spec, which may come from a stranger.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = memory::parse_size)]
    max_size: u64,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    planning: Planning,
    #[command(flatten)]
    seed: TestSeed,
}

/// What `keygen --json` writes.
#[derive(Serialize)]
struct Report {
    model: String,
    program: String,
    files: Vec<Written>,
    seconds: Seconds,
}

#[derive(Default, Serialize)]
struct Seconds {
    prepare: f64,
    compute: f64,
    write: f64,
}

impl Keygen {
    pub fn run(self) -> Result<()> {
        let (start, mut seconds) = (Instant::now(), Seconds::default());
        let spec = match &self.spec {
            Some(path) => files::read_spec(path)?,
            None => self.source.load(&self.planning)?.client_spec().check()?,
        };
        let folder = KeyFolder::new(&self.out);
        let prepared = NewKeys::prepare(&folder, &spec, self.max_size, self.force)?;
        let json = self.json.create()?;
        seconds.prepare = start.elapsed().as_secs_f64();
        let keys = timed(&mut seconds.compute, || Ok(Keys::generate(&spec, &mut self.seed.randomness("keygen")?)?))?;
        let files = timed(&mut seconds.write, || prepared.write(&spec, &keys))?;
        let report = Report { model: spec.model.clone(), program: spec.program.to_string(), files, seconds };
        json.show(&report, || {
            let public = folder.public.display();
            format!("keys for {}; give {public} to the server as it is\n{}", spec.model, files::listed(&report.files))
        })
    }
}

/// Files that are to become a client's keys. Nobody else makes keys in the same folder meanwhile.
struct NewKeys<'a> {
    folder: &'a KeyFolder,
    outputs: [Output; 4],
    _lock: Option<File>,
}

impl<'a> NewKeys<'a> {
    /// Makes the folders and prepares all files. Refuses keys that are larger than `max_size`, which a spec can ask for, and
    /// unless `force` says so a folder that has keys.
    fn prepare(folder: &'a KeyFolder, spec: &CheckedSpec, max_size: u64, force: bool) -> Result<Self> {
        check_cost(spec, max_size)?;
        files::make_folder(&folder.public, Access::Everybody)?;
        files::make_folder(folder.secret_key.parent().expect("a folder"), Access::Owner)?;
        // Two runs at once would each replace some of the other's files.
        let lock = files::lock_folder(&folder.folder)?;
        for path in folder.files() {
            ensure!(
                force || !path.exists(),
                "{} exists: choose another folder, or replace the keys with --force",
                path.display()
            );
        }
        let everybody = |path| Output::create(path, Access::Everybody);
        let outputs = [
            everybody(&folder.public_key)?,
            everybody(&folder.eval_key)?,
            everybody(&folder.client_spec)?,
            Output::create(&folder.secret_key, Access::Owner)?,
        ];
        Ok(NewKeys { folder, outputs, _lock: lock })
    }

    /// Writes all files, or none.
    fn write(self, spec: &CheckedSpec, keys: &Keys) -> Result<Vec<Written>> {
        let params = spec.params();
        let [public_file, eval_file, spec_file, secret_file] = &self.outputs;
        public_file.fill(|file| write_public_key(file, params, &keys.public))?;
        eval_file.fill(|file| write_eval_keys(file, params, &keys.evaluation))?;
        spec_file.fill(|file| write_client_spec(file, spec))?;
        secret_file.fill(|file| write_secret_key(file, &keys.secret))?;
        files::publish_all(self.outputs.into())?;
        Ok(vec![
            Written::at(&self.folder.secret_key, "yours alone: it decrypts everything"),
            Written::at(&self.folder.public_key, "masks results, and encrypts for you"),
            Written::at(&self.folder.eval_key, "what the server needs to compute"),
            Written::at(&self.folder.client_spec, "what `encrypt` and `decrypt` need"),
        ])
    }
}

/// Refuses to make larger keys than is allowed: a spec can ask for any size.
fn check_cost(spec: &CheckedSpec, max_size: u64) -> Result<()> {
    let params = spec.params();
    let (public, eval) = (public_key_len(params), eval_keys_len(params, &spec.evaluation_keys));
    let bytes = secret_key_len(params).saturating_add(public).saturating_add(eval);
    ensure!(
        bytes <= max_size,
        "the keys would have {} (the evaluation key {}), and --max-size allows {}: raise it, or check where the \
         client spec comes from",
        show_size(bytes),
        show_size(eval),
        show_size(max_size)
    );
    Ok(())
}
