//! `cryptodl plan`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use cryptodl::{PlanReport, Salt, least_memory_budget};
use cryptodl_core::wire::write_client_spec;
use serde::Serialize;

use crate::advice;
use crate::files::{self, Access, Output, Written};
use crate::flags::Planning;
use crate::json::Json;
use crate::memory::show_size;
use crate::prepared::{load_and_plan, model_files};

/// Show the depth-budget schedule of a model: parameters, noise, sizes and cost
///
/// Needs no key, device or data. The same model and planning flags give the same Program on every machine.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cryptodl plan --model mnist-1
  cryptodl plan --model mnist-1 --encryption public --write-spec client.spec
  cryptodl plan --model mnist-1 --out mnist-1.program --write-spec client.spec
  cryptodl plan --model mnist-1 --schedule layered --json plan.json")]
pub struct Plan {
    /// A shipped model (`cryptodl models` lists them) or a .toml file (docs/networks.md)
    #[arg(long)]
    model: String,
    /// Write what clients must know of the Program: `keygen`, `encrypt` and `decrypt` take it
    #[arg(long, value_name = "FILE")]
    write_spec: Option<PathBuf>,
    /// Save the Program: `infer` and `keygen` take it with --program, and need neither the model nor to plan again
    ///
    /// It holds the model's weights, so it stays with the server, and only its owner may read it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Put a random salt into the saved Program, so that its digest, which clients see, confirms no guess of the weights
    #[arg(long, requires = "out")]
    salt: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    planning: Planning,
}

impl Plan {
    pub fn run(self) -> Result<()> {
        let outputs: Vec<&Path> =
            self.write_spec.as_deref().into_iter().chain(self.out.as_deref()).chain(self.json.path()).collect();
        let model = model_files(&self.model);
        files::distinct(&outputs, &model.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
        let start = Instant::now();
        let (_, mut plan) = load_and_plan(&self.model, &self.planning.options())?;
        if self.salt {
            plan.program.content.salt = Salt::random()?;
            plan.report.program = plan.program.digest().to_string();
        }
        let spec = plan.program.client_spec().check()?;
        let least = least_memory_budget(&plan.program, spec.params())?;
        let prepare = start.elapsed().as_secs_f64();
        let json = self.json.create()?;
        let mut files = Vec::new();
        if let Some(path) = &self.out {
            Output::create(path, Access::Owner)?.write(|file| plan.program.write(file))?;
            files.push(Written::at(path, "for the server, which needs nothing else of the model"));
        }
        if let Some(path) = &self.write_spec {
            let spec = plan.program.client_spec();
            Output::create(path, Access::Everybody)?.write(|file| write_client_spec(file, &spec))?;
            files.push(Written::at(path, "for clients, who make their keys from it"));
        }
        let seconds = Seconds { prepare };
        let output = PlanOutput { report: &plan.report, least_memory_budget: least, files, seconds };
        json.show(&output, || {
            let least = format!("a --memory-budget of {} is enough for a set\n", show_size(least));
            advice::with_report(&plan.report) + &least + &files::listed(&output.files)
        })
    }
}

/// What `plan --json` writes.
#[derive(Serialize)]
struct PlanOutput<'a> {
    #[serde(flatten)]
    report: &'a PlanReport,
    /// Bytes of the least `--memory-budget` with which a set can be computed.
    least_memory_budget: u64,
    files: Vec<Written>,
    seconds: Seconds,
}

#[derive(Serialize)]
struct Seconds {
    /// Reading and planning the model.
    prepare: f64,
}
