//! `cryptodl keygen`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::{ArgGroup, Args};
use cryptodl::Keys;
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
        let params = spec.params();
        self.check_cost(&spec)?;
        let (secret, public) = (self.out.join("secret"), self.out.join("public"));
        files::make_folder(&public, Access::Everybody)?;
        files::make_folder(&secret, Access::Owner)?;
        // Two runs at once would each replace some of the other's files.
        let _lock = files::lock_folder(&self.out)?;
        let [secret_key, public_key, eval_key, client_spec] =
            [secret.join("secret.key"), public.join("public.key"), public.join("eval.key"), public.join("client.spec")];
        for path in [&secret_key, &public_key, &eval_key, &client_spec] {
            ensure!(
                self.force || !path.exists(),
                "{} exists: choose another folder, or replace the keys with --force",
                path.display()
            );
        }
        let everybody = |path| Output::create(path, Access::Everybody);
        let outputs = [
            everybody(&public_key)?,
            everybody(&eval_key)?,
            everybody(&client_spec)?,
            Output::create(&secret_key, Access::Owner)?,
        ];

        let json = self.json.create()?;
        seconds.prepare = start.elapsed().as_secs_f64();
        let keys = timed(&mut seconds.compute, || Ok(Keys::generate(&spec, &mut self.seed.randomness("keygen")?)?))?;
        let start = Instant::now();
        let [public_file, eval_file, spec_file, secret_file] = &outputs;
        public_file.fill(|file| write_public_key(file, params, &keys.public))?;
        eval_file.fill(|file| write_eval_keys(file, params, &keys.evaluation))?;
        spec_file.fill(|file| write_client_spec(file, &spec))?;
        secret_file.fill(|file| write_secret_key(file, &keys.secret))?;
        files::publish_all(outputs.into())?;
        seconds.write = start.elapsed().as_secs_f64();
        let report = Report {
            model: spec.model.clone(),
            program: spec.program.to_string(),
            files: vec![
                Written::at(&secret_key, "yours alone: it decrypts everything"),
                Written::at(&public_key, "masks results, and encrypts for you"),
                Written::at(&eval_key, "what the server needs to compute"),
                Written::at(&client_spec, "what `encrypt` and `decrypt` need"),
            ],
            seconds,
        };
        json.show(&report, || {
            let public = public.display();
            format!("keys for {}; give {public} to the server as it is\n{}", spec.model, files::listed(&report.files))
        })
    }

    /// Refuses to make larger keys than is allowed: a spec can ask for any size.
    fn check_cost(&self, spec: &CheckedSpec) -> Result<()> {
        let params = spec.params();
        let (public, eval) = (public_key_len(params), eval_keys_len(params, &spec.evaluation_keys));
        let bytes = secret_key_len(params).saturating_add(public).saturating_add(eval);
        ensure!(
            bytes <= self.max_size,
            "the keys would have {} (the evaluation key {}), and --max-size allows {}: raise it, or check where the \
             client spec comes from",
            show_size(bytes),
            show_size(eval),
            show_size(self.max_size)
        );
        Ok(())
    }
}
