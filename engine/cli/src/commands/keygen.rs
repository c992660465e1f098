//! `cryptodl keygen`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use cryptodl_client::wire::write_secret_key;
use cryptodl_core::wire::{Binding, write_client_spec, write_eval_key, write_public_key};

use crate::files::{self, Access, Output};
use crate::flags::{Planning, TestSeed};
use crate::keys::Keys;
use crate::prepared::load_and_plan;

/// Generate a client's keys
///
/// Writes into the folder DIR: secret.key (keep it: only its owner may read it), public.key and eval.key (for the
/// server), and client.spec. A spec from a server is checked in full before anything is made from it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cryptodl keygen --spec client.spec --out keys
  cryptodl keygen --model mnist-1 --out keys")]
pub struct Keygen {
    /// What to make keys for, as written by `plan --write-spec`
    #[arg(long, value_name = "FILE", conflicts_with = "Planning", required_unless_present = "model")]
    spec: Option<PathBuf>,
    /// Plan this model instead of reading a spec
    #[arg(long, conflicts_with = "spec")]
    model: Option<String>,
    /// Folder for the keys; made if absent
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace keys that are there; what was encrypted with them can then not be decrypted any more
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    planning: Planning,
    #[command(flatten)]
    seed: TestSeed,
}

impl Keygen {
    pub fn run(self) -> Result<()> {
        let (spec, params) = match (&self.spec, &self.model) {
            (Some(path), _) => files::read_spec(path)?,
            (None, Some(model)) => {
                let spec = load_and_plan(model, &self.planning.options())?.1.program.client_spec();
                let params = spec.check()?;
                (spec, params)
            }
            (None, None) => unreachable!("clap requires a spec or a model"),
        };
        let secret_path = self.out.join("secret.key");
        for name in ["secret.key", "public.key", "eval.key"] {
            let path = self.out.join(name);
            ensure!(
                self.force || !path.exists(),
                "{} exists: choose another folder, or replace the keys with --force",
                path.display()
            );
        }
        fs::create_dir_all(&self.out).with_context(|| format!("cannot make the folder {}", self.out.display()))?;
        let everybody = |name| Output::create(&self.out.join(name), Access::Everybody);
        let [public, eval, client] = [everybody("public.key")?, everybody("eval.key")?, everybody("client.spec")?];
        let secret = Output::create(&secret_path, Access::Owner)?;

        let keys = Keys::generate(&spec, &params, &mut self.seed.randomness("keygen")?)?;
        let binding = Binding { program: spec.program, params: &params };
        let staged = [
            public.stage(|file| write_public_key(file, &binding, &keys.public))?,
            eval.stage(|file| write_eval_key(file, &binding, keys.relin.as_ref()))?,
            client.stage(|file| write_client_spec(file, &spec))?,
            secret.stage(|file| write_secret_key(file, spec.program, &keys.secret))?,
        ];
        staged.into_iter().try_for_each(Output::publish)?;
        files::print(&format!(
            "keys for {} (Program {}) are in {}: keep secret.key to yourself\n",
            spec.model,
            spec.program,
            self.out.display()
        ))
    }
}
