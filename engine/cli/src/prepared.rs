//! A model that is ready to classify.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use cryptodl::{Model, Placement, Plan, PlanOptions, PrivacyGoal, Program, Server, Service, Watch};
use cryptodl_core::ckks::{CheckedSpec, Params};
use cryptodl_core::wire::Binding;
use cryptodl_network::limits::MAX_DESCRIPTION_BYTES;
use cryptodl_network::{Description, Network};

use crate::files;
use crate::flags::{Execution, Planning};
use crate::progress::Bar;

/// A planned model on its backend. Made once per model.
pub struct Prepared {
    pub model: Model,
    pub plan: Plan,
    pub service: Service,
    /// What it took.
    pub seconds: f64,
}

impl Prepared {
    pub fn new(model: &str, options: &PlanOptions, execution: &Execution) -> Result<Self> {
        let start = Instant::now();
        let (model, plan) = load_and_plan(model, options)?;
        let prepared = Prepared::with_plan(model, plan, execution)?;
        Ok(Prepared { seconds: start.elapsed().as_secs_f64(), ..prepared })
    }

    /// With a plan that is there already.
    pub fn with_plan(model: Model, plan: Plan, execution: &Execution) -> Result<Self> {
        let start = Instant::now();
        let service = service(&plan.program, execution)?;
        Ok(Prepared { model, plan, service, seconds: start.elapsed().as_secs_f64() })
    }

    pub fn network(&self) -> &Network {
        self.model.network()
    }

    pub fn spec(&self) -> &CheckedSpec {
        self.service.spec()
    }

    pub fn params(&self) -> &Params {
        self.service.params()
    }

    /// What the Program was planned to hide, if anything.
    pub fn circuit_privacy(&self) -> Option<PrivacyGoal> {
        self.service.circuit_privacy().map(|privacy| privacy.goal)
    }

    /// What files must belong to.
    pub fn binding(&self) -> Binding<'_> {
        self.service.binding()
    }
}

/// Prepares `program` for the backend that the flags name, and says so where it is not the one that was to be expected.
pub fn service(program: &Program, execution: &Execution) -> Result<Service> {
    prepare(&server(execution)?, program)
}

/// The place that the flags name, for any number of Programs.
pub fn server(execution: &Execution) -> Result<Server> {
    let bar = Bar::new("compile");
    let progress = move |kernel: Option<&'static str>, done: usize, total: usize| {
        bar.show(done as u64, total as u64);
        bar.say(kernel.unwrap_or_default().into());
    };
    let placement: Placement = execution.placement()?;
    Ok(Server::new(placement)?.with_compile_progress(Arc::new(progress)))
}

/// Prepares `program` for `server`, and says so where it is not the place that was to be expected.
pub fn prepare(server: &Server, program: &Program) -> Result<Service> {
    let service = server.prepare(program)?;
    if let Some(reason) = service.fallback() {
        eprintln!("computing on the CPU: {reason}");
    }
    Ok(service)
}

/// Loads `model`, a shipped network or a TOML file, and plans it.
pub fn load_and_plan(name: &str, options: &PlanOptions) -> Result<(Model, Plan)> {
    let model = Model::load(name)?;
    let bar = Bar::new("plan");
    bar.say(format!("{name}: searching for the cheapest schedule"));
    let plan = model.plan(options, Watch::default()).with_context(|| format!("model {name}"))?;
    Ok((model, plan))
}

/// The files of a model that lies in files: outputs must not replace them. Nothing of a shipped
/// one, or of one that cannot be read.
pub fn model_files(name: &str) -> Vec<PathBuf> {
    let path = Path::new(name);
    if !name.ends_with(".toml") {
        return Vec::new();
    }
    let mut toml = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_DESCRIPTION_BYTES).read_to_string(&mut toml));
    let description = read.ok().and_then(|_| Description::parse(name, &toml).ok());
    let beside = description.iter().flat_map(|found| [found.weights()].into_iter().chain(found.calibration()));
    beside.map(|beside| path.with_file_name(beside)).chain([path.to_owned()]).collect()
}

/// The Program that flags name: a model that is planned, or a saved Program. Commands say whether one of them is required.
#[derive(Args)]
pub struct ProgramSource {
    /// A shipped model (`cryptodl models` lists them) or a .toml file (docs/networks.md); it is
    /// planned
    #[arg(long, conflicts_with = "program")]
    pub model: Option<String>,
    /// A saved Program, as `plan --out` writes it, instead of --model and the planning flags
    #[arg(long, value_name = "FILE", conflicts_with = "Planning")]
    pub program: Option<PathBuf>,
}

impl ProgramSource {
    /// The files that it is read from.
    pub fn files(&self) -> Vec<PathBuf> {
        self.program.iter().cloned().chain(self.model.as_deref().map(model_files).unwrap_or_default()).collect()
    }

    /// Plans the model, or reads the Program.
    pub fn load(&self, planning: &Planning) -> Result<Program> {
        match (&self.program, &self.model) {
            (Some(path), _) => files::read(path, Program::read),
            (None, Some(model)) => Ok(load_and_plan(model, &planning.options())?.1.program),
            (None, None) => unreachable!("clap requires a model or a Program"),
        }
    }
}
